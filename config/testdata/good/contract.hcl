cluster  = "web"
name     = "primary"            # default: hostname
data_dir = "/var/lib/hanode"
key_file = "/etc/hanode/key"
socket   = "/run/hanode/hanode.sock"
http     = "127.0.0.1:7696"     # API, dashboard, /metrics; "" = off
port     = 7694                 # gossip tcp+udp; port+1: raft and peer TLS
link "eth0" {}                  # heartbeat links, first is primary
link "eth1" {}
timing { profile = "lan" }      # or keepalive/warntime/deadtime/initdead; founds the cluster's timing
node "primary"   { address = "10.0.0.1" }
node "secondary" { address = "10.0.0.2" }
node "arbiter" {
  address = "10.0.0.3"
  role    = "witness"
}
