package hosts

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAnsible forms a cluster from hosts that have nothing, with the role of
// deploy/ansible, over ssh; runs it again, which changes nothing; and upgrades host by
// host.
func TestAnsible(t *testing.T) {
	s := newStory(t)
	boot(t, s.Hosts...)
	dir := t.TempDir()
	s.sshd(dir)
	s.do(os.WriteFile(filepath.Join(dir, "groups.hcl"), []byte(addressesOnly), 0o600))
	var hosts strings.Builder
	for _, h := range s.all() {
		role := "node"
		if h.Name() == "arbiter" {
			role = "witness"
		}
		fmt.Fprintf(&hosts, "%s ansible_host=%s hanode_address=%s hanode_role=%s\n", h.Name(), h.Addr("eth1"), h.Addr("eth0"), role)
	}
	inventory := "[hanode]\n" + hosts.String() + "[hanode:vars]\nansible_user=root\nhanode_links=[\"eth0\", \"eth1\"]\nhanode_groups_file=" + filepath.Join(dir, "groups.hcl") + "\n"
	s.do(os.WriteFile(filepath.Join(dir, "inventory.ini"), []byte(inventory), 0o600))

	begin := time.Now()
	out := s.playbook(dir, "site.yml", versionOld)
	t.Logf("from bare hosts to a cluster with its address in %v\n%s", time.Since(begin).Round(time.Millisecond), recap(out))
	s.alive()
	eventually(t, 10*time.Second, "the group runs", func() bool { return strings.Contains(s.primary.run("ip", "-o", "addr"), vip) })
	out = s.playbook(dir, "site.yml", versionOld)
	if strings.Count(out, "changed=0") != 3 {
		t.Errorf("a second run changes something:\n%s", out)
	}
	out = s.playbook(dir, "upgrade.yml", versionNew)
	t.Logf("upgrade\n%s", recap(out))
	for _, h := range s.all() {
		if v := h.run("hanode", "version"); !strings.Contains(v, versionNew) {
			t.Errorf("%s has %s", h.Name(), v)
		}
	}
	s.alive()
}

// recap is the end of what ansible says.
func recap(out string) string {
	_, end, _ := strings.Cut(out, "PLAY RECAP")
	return strings.TrimSpace(end)
}

// sshd has root of every host let in who has the key in dir.
func (s *story) sshd(dir string) {
	s.t.Helper()
	key := filepath.Join(dir, "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		s.t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	s.do(err)
	private, err := os.ReadFile(key)
	s.do(err)
	for _, h := range s.all() {
		h.write("/root/.ssh/authorized_keys", string(public), 0o600)
		h.write("/root/.ssh/id_ed25519", string(private), 0o600)
		h.write("/root/.ssh/config", "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n", 0o600)
		h.run("systemctl", "start", "ssh")
	}
}

// playbook runs one of deploy/ansible from the client's network and returns what it
// said.
func (s *story) playbook(dir, name, version string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ansible-playbook", name, "-i", filepath.Join(dir, "inventory.ini"), "-e", "hanode_package="+deb(version))
	cmd.Dir = filepath.Join("..", "..", "deploy", "ansible")
	cmd.Env = append(os.Environ(), "ANSIBLE_PRIVATE_KEY_FILE="+filepath.Join(dir, "id"), "ANSIBLE_HOST_KEY_CHECKING=False", "ANSIBLE_NOCOLOR=1",
		"ANSIBLE_LOCAL_TEMP="+filepath.Join(dir, "tmp"), "ANSIBLE_SSH_CONTROL_PATH_DIR="+filepath.Join(dir, "cp"), "HOME="+dir, "LANG=C.UTF-8")
	var out []byte
	err := s.Client.Do(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// TestAnsibleLint: the role is what ansible-lint takes in its strictest profile.
func TestAnsibleLint(t *testing.T) {
	needHosts(t)
	cmd := exec.Command("ansible-lint", "--offline", "--nocolor", "--profile", "production")
	cmd.Dir = filepath.Join("..", "..", "deploy", "ansible")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
