package vip

import (
	"strings"
	"testing"
)

func TestSuspect(t *testing.T) {
	for _, c := range []struct {
		running, files string
		want, remedy   string
	}{
		{"systemd-network", "", "systemd-networkd runs here", "KeepConfiguration"},
		{"systemd-network NetworkManager", "", "systemd-networkd", ""},
		{"sshd NetworkManager", "/etc/netplan/*.yaml", "NetworkManager runs here", "managed no"},
		{"sshd", "/etc/netplan/*.yaml /etc/systemd/network/*.network", "netplan is configured", "critical"},
		{"sshd", "/etc/NetworkManager/system-connections/*", "NetworkManager is configured", "managed no"},
		{"sshd", "", "no program that is known", "ip -ts monitor"},
	} {
		running := map[string]bool{}
		for _, p := range strings.Fields(c.running) {
			running[p] = true
		}
		who, remedy := suspect(running, func(glob string) bool { return strings.Contains(c.files, glob) })
		if !strings.Contains(who, c.want) || !strings.Contains(remedy, c.remedy) {
			t.Errorf("%q, %q: %s: %s", c.running, c.files, who, remedy)
		}
	}
}
