package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// checkName says why text may not name a cluster, node, group or resource; a
// finding without text accepts it. subject is what carries the name.
func checkName(subject, text string) finding {
	if goodName(text) {
		return finding{}
	}
	return finding{
		what:    fmt.Sprintf("%s %s is not a valid name", subject, quote(text)),
		allowed: fmt.Sprintf("a name has 1 to %d letters, digits, - . _ and begins with a letter or digit", maxNameLen),
	}
}

func goodName(text string) bool {
	if text == "" || len(text) > maxNameLen {
		return false
	}
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '-' || c == '.' || c == '_'):
		default:
			return false
		}
	}
	return true
}

// checkDevice says why text cannot be the name of a network device.
func checkDevice(subject, text string) finding {
	bad := text == "" || len(text) > maxDeviceLen || text == "." || text == ".." ||
		strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '/' || c == ':' })
	if !bad {
		return finding{}
	}
	return finding{
		what:    fmt.Sprintf("%s %s is not a device name", subject, quote(text)),
		allowed: fmt.Sprintf("a device name has 1 to %d characters, such as eth0", maxDeviceLen),
	}
}

// checkNodeAddress reads the address of a node.
func checkNodeAddress(text string) (netip.Addr, finding) {
	bad := finding{allowed: `a node's address is one IPv4 address, such as "10.0.0.1" (links over IPv6 are not available yet)`}
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		bad.what = fmt.Sprintf("address %s is not an IP address", quote(text))
		if p, err := netip.ParsePrefix(text); err == nil {
			bad.remedy = fmt.Sprintf("leave out the prefix length: address = %q", p.Addr())
		} else if host, _, err := net.SplitHostPort(text); err == nil {
			bad.remedy = fmt.Sprintf("leave out the port: address = %q", host)
		}
		return netip.Addr{}, bad
	case addr.Zone() != "":
		bad.what = fmt.Sprintf("address %s has a zone", quote(text))
	case unusable(addr) != "":
		bad.what = fmt.Sprintf("address %s is %s", quote(text), unusable(addr))
	case addr.Is6():
		bad.what = fmt.Sprintf("address %s is an IPv6 address", quote(text))
	default:
		return addr, finding{}
	}
	return netip.Addr{}, bad
}

// unusable names the kind of address that no one host can have, or "".
func unusable(a netip.Addr) string {
	switch {
	case a.IsUnspecified():
		return "the unspecified address"
	case a.IsMulticast():
		return "a multicast address"
	case a.Is4In6():
		return "an IPv4 address written as IPv6"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	}
	return ""
}

// checkVIP reads the name of an ip resource, an address or address/prefix.
// subject is what carries it.
func checkVIP(subject, text, dev string) (netip.Addr, finding) {
	bad := finding{allowed: `it takes an address or address/prefix, such as "10.0.0.100" or "10.0.0.100/24"`}
	refuse := func(format string, args ...any) (netip.Addr, finding) {
		bad.what = subject + " " + fmt.Sprintf(format, args...)
		return netip.Addr{}, bad
	}
	addr, err := netip.ParseAddr(text)
	if strings.Contains(text, "/") {
		var p netip.Prefix
		if p, err = netip.ParsePrefix(text); err == nil {
			addr = p.Addr()
			switch {
			case p.Bits() == 0:
				return refuse("has a prefix length of 0")
			case edge(p) != "":
				return refuse("is %s of %s", edge(p), p.Masked())
			}
		}
	}
	switch {
	case err != nil:
		return refuse("is not an IP address")
	case addr.Zone() != "":
		bad.remedy = fmt.Sprintf("name the device instead: dev = %q", addr.Zone())
		return refuse("has a zone")
	case unusable(addr) != "":
		return refuse("is %s", unusable(addr))
	case addr.IsLoopback():
		return refuse("is a loopback address, which no other host can reach")
	case addr.Is6() && addr.IsLinkLocalUnicast() && dev == "":
		bad.allowed = "a link-local address means nothing without its device"
		bad.remedy = `add dev = "DEVICE"`
		return refuse("is link-local")
	}
	return addr, finding{}
}

// edge names an address of a network that no host may have, or "".
func edge(p netip.Prefix) string {
	if p.Addr().BitLen()-p.Bits() < 2 {
		return ""
	}
	if p.Addr().Is6() {
		if p.Addr() == p.Masked().Addr() {
			return "the subnet-router address"
		}
		return ""
	}
	first, last := p.Masked().Addr().As4(), p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	switch p.Addr().As4() {
	case first:
		return "the network address"
	case last:
		return "the broadcast address"
	}
	return ""
}

// checkHTTP says why text is not where the API could listen. "" is off.
// port is the cluster's, which the API cannot share.
func checkHTTP(text string, port int) finding {
	bad := finding{allowed: `it takes ADDRESS:PORT, such as "` + DefaultHTTP + `", or "" for off`}
	if text == "" {
		return finding{}
	}
	host, service, err := net.SplitHostPort(text)
	if err != nil {
		bad.what = fmt.Sprintf("http is %s", quote(text))
		return bad
	}
	n, err := strconv.ParseUint(service, 10, 16)
	switch {
	case err != nil || n == 0:
		bad.what = fmt.Sprintf("http has port %s", quote(service))
		bad.allowed = "a port is a number from 1 to 65535"
		return bad
	case int(n) == port || int(n) == port+1:
		return finding{
			what:    fmt.Sprintf("http has port %d, which the cluster uses: port is %d", n, port),
			allowed: fmt.Sprintf("gossip takes port %d, raft and peer calls %d", port, port+1),
			remedy:  "choose another port for http",
		}
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !goodName(host) {
		bad.what = fmt.Sprintf("http has address %s", quote(host))
		return bad
	}
	return finding{}
}

// checkPath says why text cannot be a path.
func checkPath(key, text string) finding {
	switch {
	case text == "":
		return finding{what: key + " is empty", allowed: "it takes a path", remedy: "remove the line for the default"}
	case strings.ContainsRune(text, 0):
		return finding{what: fmt.Sprintf("%s is %s", key, quote(text)), allowed: "a path holds no NUL"}
	}
	return finding{}
}

// checkUnit says why text cannot name a systemd unit.
func checkUnit(text string) finding {
	bad := text == "" || len(text) > 255 || strings.ContainsFunc(text, func(c rune) bool {
		return !letterOrDigit(c) && !strings.ContainsRune(":-_.\\@", c)
	})
	if !bad {
		return finding{}
	}
	return finding{what: fmt.Sprintf("systemd %s is not a unit name", quote(text)), allowed: "it takes a unit such as apache2, openvpn@lan or srv-data.mount"}
}

// checkScript says why text cannot be a resource as Heartbeat wrote it.
func checkScript(text string) finding {
	script, _, _ := strings.Cut(text, "::")
	if goodName(script) && !strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return finding{}
	}
	return finding{
		what:    fmt.Sprintf("heartbeat %s is not a resource as haresources has them", quote(text)),
		allowed: "it takes SCRIPT or SCRIPT::ARGUMENT::..., without blanks",
	}
}

// checkAgent says why text cannot name an OCF agent, PROVIDER:TYPE.
func checkAgent(sub, text string) finding {
	provider, typ, ok := strings.Cut(text, ":")
	if ok && goodName(provider) && goodName(typ) {
		return finding{}
	}
	f := finding{what: fmt.Sprintf("agent in %s is %s", sub, quote(text)), allowed: `it takes PROVIDER:TYPE`, remedy: `write agent = "ocf:heartbeat:apache"`}
	if text == "" {
		f.what = sub + " has no agent"
	}
	return f
}

// environmentName: text can be part of the name of an environment variable.
func environmentName(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(c rune) bool {
		return !letterOrDigit(c) && c != '_'
	})
}

// letterOrDigit: of ASCII.
func letterOrDigit(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
