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

node "mx-3" { address = "192.0.2.13" }
node "mx-1" { address = "192.0.2.11" }
node "mx-2" { address = "192.0.2.12" }
node "mx-4" {
  address = "192.0.2.14"
  role    = "node"
}
node "mx-w" {
  address = "192.0.2.15"
  role    = "witness"
}
