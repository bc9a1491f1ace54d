package config

import (
	"fmt"
	"net"
	"net/netip"
)

// joining reads the keys of a node that has no node blocks, because `hanode init` or
// `hanode join` makes it a member.
func (b *block) joining(n *Node) {
	address, zone := b.str("address"), b.str("zone")
	retry, _ := b.list("retry_join")
	token := n.lines["token_file"]
	if len(n.Nodes) > 0 {
		for _, k := range []struct {
			key  string
			line int
		}{{"address", address.line}, {"zone", zone.line}, {"retry_join", retry.line}, {"token_file", token}} {
			if k.line > 0 {
				b.add(k.line, finding{
					what:    k.key + " stands beside node blocks",
					allowed: "node blocks list who founds the cluster; " + k.key + " is for a node that joins one",
					remedy:  "remove it, or the node blocks",
				})
			}
		}
		return
	}
	if address.set() {
		if addr, bad := checkNodeAddress(address.v); !b.refused(address.line, bad) {
			n.Address = addr.String()
		}
	}
	if zone.set() && !b.refused(zone.line, checkName("zone", zone.v)) {
		n.Zone = zone.v
	}
	n.lines["address"] = address.line
	for _, to := range retry.v {
		if !joinable(to) {
			b.add(retry.line, finding{
				what:    fmt.Sprintf("retry_join holds %s", quote(to)),
				allowed: `it takes addresses of members, such as "10.0.0.1" or "10.0.0.1:7695"`,
			})
		}
	}
	n.RetryJoin = retry.v
	switch {
	case retry.line > 0 && token == 0:
		b.add(retry.line, finding{what: "retry_join without token_file", remedy: `set token_file = "/etc/hanode/token", a file that holds what "hanode token create" printed`})
	case retry.line == 0 && token > 0:
		b.add(token, finding{what: "token_file without retry_join", remedy: `set retry_join = ["ADDRESS"] to members that may be asked`})
	}
}

// joinable: text is an address, with or without a port.
func joinable(text string) bool {
	host, _, err := net.SplitHostPort(text)
	if err != nil {
		host = text
	}
	_, err = netip.ParseAddr(host)
	return err == nil
}
