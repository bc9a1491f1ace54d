// Package config reads the two files an operator writes, the node file
// (hanode.hcl) and the cluster file (what `hanode apply` takes), into plain
// values, and writes a cluster file back. It reads Heartbeat's ha.cf, haresources
// and authkeys into the same values, with an answer to each of their lines.
//
// It reports every problem of a file in one run, each as a [Diagnostic] with
// file, line, what is wrong, what is allowed and what to do. It starts nothing
// and changes nothing: what a timing means is spec's, what runs is agent's,
// which keys a secret gives is trust's. Only [Node.CheckHost] and [LoadHeartbeat]
// ask about the host they run on, through a [Host] and an [HAHost].
//
// Everything here may be called from several goroutines, as long as nobody
// changes a value that another reads.
package config
