# Every key.
cluster    = "mail.example"
name       = "mx-2"
data_dir   = "state"            # beside this file
key_file   = "secrets/key"
socket     = "run/hanode.sock"
http       = "[::1]:8080"
port       = 9000
groups     = "cluster.hcl"      # applied once, when the cluster forms
log_level  = "debug"
log_format = "json"

link "bond0" {}
link "eth2.100" {}

timing {
  profile  = "vm"               # replaced wholly: only its deadtime stays
  warntime = "2s"
}

node "mx-3" { address = "FD00:0::3" }
node "mx-1" { address = "fd00::1" }
node "mx-2" { address = "fd00::2" }
node "mx-4" {
  address = "fd00::4"
  role    = "node"
}
node "mx-w" {
  address = "fd00::5"
  role    = "witness"
}
