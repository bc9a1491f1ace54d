package config

import "time"

// What the node file means where it is silent.
const (
	DefaultFile      = "/etc/hanode/hanode.hcl" // the node file itself
	DefaultCluster   = "hanode"
	DefaultDataDir   = "/var/lib/hanode"
	DefaultKeyFile   = "/etc/hanode/key"
	DefaultSocket    = "/run/hanode/hanode.sock"
	DefaultHTTP      = "127.0.0.1:7696" // API, dashboard, /metrics
	DefaultPort      = 7694             // gossip; DefaultPort+1 is raft and peer TLS
	DefaultProfile   = "lan"
	DefaultLogLevel  = "info"
	DefaultLogFormat = "text"
)

// DefaultEvery is the time between two runs of an exec resource's monitor
// where the cluster file gives a monitor and no `every`.
const DefaultEvery = 10 * time.Second

const (
	// MaxFounders is the largest founding set; more nodes join later.
	MaxFounders = 7
	// MaxDeadtime is the longest deadtime: the kernel guard takes a lease that
	// ends more than 60 s ahead for a mistake and stays closed.
	MaxDeadtime = time.Minute
	// MinKeepalive is the shortest keepalive: beats more often than this are a
	// flood, not a heartbeat.
	MinKeepalive = time.Millisecond
	// MaxInitdead is the longest initdead.
	MaxInitdead = time.Hour

	maxFileBytes  = 1 << 20  // a larger file is refused unread
	maxKeyBytes   = 64 << 10 // the same for the key file
	maxDepth      = 32       // brackets within brackets in a file
	maxDirectives = 100      // %{ ... } in a file, none of which is of use
	maxSyntax     = 100      // syntax errors of a file that are told
	maxNameLen    = 63
	maxDeviceLen  = 15  // IFNAMSIZ - 1
	maxSocketLen  = 107 // sun_path, less the final NUL
	maxRestarts   = 1000
	maxPerNode    = 1000
	maxWeight     = 1000
	minExecTime   = 10 * time.Millisecond // least timeout and every
	maxExecTime   = 24 * time.Hour
	minRetry      = time.Second // least retry_after
	maxFailback   = 365 * 24 * time.Hour
	leastInitdead = 5 * time.Second // of an initdead that is worked out
)
