package config

import (
	"slices"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"hanode/internal/spec"
)

// FormatNode writes n as a node file in canonical form, without what is the default.
// LoadNode reads it back as n, if it comes to lie where n.GroupsFile and n.KeyFile
// mean the same. Keys are not written: they belong in the key file. named says whether
// to write the name, which else is the hostname.
func FormatNode(n *Node, named bool) []byte {
	file := hclwrite.NewEmptyFile()
	body := file.Body()
	text := func(key, value, def string) {
		if value != def {
			body.SetAttributeValue(key, cty.StringVal(value))
		}
	}
	text("cluster", n.Cluster, DefaultCluster)
	if named {
		text("name", n.Name, "")
	}
	text("data_dir", n.DataDir, DefaultDataDir)
	text("key_file", n.KeyFile, DefaultKeyFile)
	text("socket", n.Socket, DefaultSocket)
	text("http", n.HTTP, DefaultHTTP)
	if n.Port != DefaultPort {
		body.SetAttributeValue("port", cty.NumberIntVal(int64(n.Port)))
	}
	text("groups", n.GroupsFile, "")
	text("log_level", n.LogLevel, DefaultLogLevel)
	text("log_format", n.LogFormat, DefaultLogFormat)
	text("syslog", n.Syslog, "")
	text("log_file", n.LogFile, "")
	text("debug_file", n.DebugFile, "")
	if n.Realtime != nil {
		body.SetAttributeValue("realtime", cty.BoolVal(*n.Realtime))
	}
	if n.SocketRead {
		body.SetAttributeValue("socket_read", cty.True)
	}
	if n.RemoteAPI {
		body.SetAttributeValue("remote_api", cty.True)
	}
	text("two_node", n.TwoNode, "")
	text("watchdog", n.Watchdog, "")
	body.AppendNewline()
	for _, dev := range n.Links {
		link := body.AppendNewBlock("link", []string{dev}).Body()
		if slices.Contains(n.Discover, dev) {
			link.SetAttributeValue("discover", cty.True)
		}
	}
	formatTiming(body, n)
	for _, f := range n.Nodes {
		body.AppendNewline()
		node := body.AppendNewBlock("node", []string{f.Name}).Body()
		if f.Address != "" {
			node.SetAttributeValue("address", cty.StringVal(f.Address))
		}
		if f.Role != spec.RoleNode {
			node.SetAttributeValue("role", cty.StringVal(string(f.Role)))
		}
	}
	formatBeside(body, n)
	return hclwrite.Format(file.Bytes())
}

// formatTiming writes the profile, or the four times.
func formatTiming(body *hclwrite.Body, n *Node) {
	if n.Profile == DefaultProfile {
		return
	}
	body.AppendNewline()
	timing := body.AppendNewBlock("timing", nil).Body()
	if n.Profile != "" {
		timing.SetAttributeValue("profile", cty.StringVal(n.Profile))
		return
	}
	t := n.Timing
	timing.SetAttributeValue("keepalive", cty.StringVal(duration(t.Keepalive)))
	timing.SetAttributeValue("warntime", cty.StringVal(duration(t.Warntime)))
	timing.SetAttributeValue("deadtime", cty.StringVal(duration(t.Deadtime)))
	timing.SetAttributeValue("initdead", cty.StringVal(duration(t.Initdead)))
}

// formatBeside writes the blocks of ping and respawn.
func formatBeside(body *hclwrite.Body, n *Node) {
	if n.IPFail {
		body.AppendNewline()
		body.SetAttributeValue("ipfail", cty.True)
	}
	if len(n.Ping) > 0 && n.Deadping != n.Timing.Deadtime {
		body.SetAttributeValue("deadping", cty.StringVal(duration(n.Deadping)))
	}
	for _, p := range n.Ping {
		body.AppendNewBlock("ping", []string{p.Name}).Body().SetAttributeValue("hosts", stringList(p.Hosts))
	}
	for _, r := range n.Respawn {
		body.AppendNewline()
		k := body.AppendNewBlock("respawn", nil).Body()
		if r.User != "root" {
			k.SetAttributeValue("user", cty.StringVal(r.User))
		}
		k.SetAttributeValue("command", stringList(r.Command))
		formatArgs(k, "env", r.Env)
		if r.FailFast {
			k.SetAttributeValue("failfast", cty.True)
		}
	}
}
