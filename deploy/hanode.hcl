# /etc/hanode/hanode.hcl: who this host is, and who founds the cluster.
# The same file works on every host; check it with: hanode validate FILE
# All keys: docs/configuration.md

cluster = "web"
# name = "primary"                  # default: the hostname

# data_dir = "/var/lib/hanode"
# key_file = "/etc/hanode/key"      # (umask 077; hanode key generate > /etc/hanode/key), then copy it
# socket   = "/run/hanode/hanode.sock"
# http     = "127.0.0.1:7696"       # read-only API and /metrics; "" = off
# port     = 7694                   # udp and tcp; port + 1 is TLS between nodes
# groups   = "web.hcl"              # applied once, when the cluster forms

# Beats go over every link; the first has the addresses below.
link "eth0" {}
link "eth1" {}

# fast | lan | vm | wan | heartbeat, or keepalive/warntime/deadtime/initdead.
# The same on all founders.
timing { profile = "lan" }

node "primary"   { address = "10.0.0.1" }
node "secondary" { address = "10.0.0.2" }

# The third vote. It owns nothing, so any small machine will do.
node "arbiter" {
  address = "10.0.0.3"
  role    = "witness"
}
