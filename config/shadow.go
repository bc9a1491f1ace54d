package config

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"hanode/internal/spec"
)

// shadowed reports an OCF agent that puts an address on. The guard can only silence
// an address that is ours, so hanode's own ip stands in for it.
func shadowed(agent string) bool {
	provider, typ, _ := strings.Cut(agent, ":")
	return provider == "heartbeat" && slices.Contains([]string{"IPaddr", "IPaddr2", "IPv6addr"}, typ)
}

// shadow makes an ip of such a resource, and warns of what it has no use for.
func (b *block) shadow(r spec.Resource, p place) (spec.Resource, place) {
	ip := spec.Resource{Type: "ip", Name: r.Params["ip"]}
	if ip.Name == "" {
		ip.Name = r.Params["ipv6addr"]
	}
	if bits := r.Params["cidr_netmask"]; bits != "" && ip.Name != "" && !strings.Contains(ip.Name, "/") {
		ip.Name += "/" + prefixLength(bits)
	}
	ip.Dev, _, _ = strings.Cut(r.Params["nic"], ":")
	if ip.Name == "" {
		b.add(b.line, finding{what: fmt.Sprintf("%s has no parameter ip", b.where), remedy: `write params { ip = "10.0.0.100" }`})
		p.bad["ip"] = true
		return ip, p
	}
	f := finding{
		what:    fmt.Sprintf("%s is hanode's own ip %s, not ocf:%s", b.where, quote(ip.Name), r.Agent),
		allowed: "the agent would put the address on behind no guard",
		remedy:  fmt.Sprintf(`write resource "ip" %s {}`, quote(ip.Name)),
	}
	if ip.Dev != "" {
		f.remedy = fmt.Sprintf(`write resource "ip" %s { dev = %s }`, quote(ip.Name), quote(ip.Dev))
	}
	var unused []string
	for name := range r.Params {
		if !slices.Contains([]string{"ip", "ipv6addr", "cidr_netmask", "nic"}, name) {
			unused = append(unused, name)
		}
	}
	if slices.Sort(unused); len(unused) > 0 {
		f.allowed += ", and these mean nothing here: " + strings.Join(unused, ", ")
	}
	b.warn(b.line, f)
	return ip, p
}

// prefixLength reads a netmask however it is written: 24 or 255.255.255.0.
func prefixLength(text string) string {
	if mask := net.ParseIP(text).To4(); mask != nil {
		if ones, bits := net.IPMask(mask).Size(); bits == 32 {
			return fmt.Sprint(ones)
		}
	}
	return text
}
