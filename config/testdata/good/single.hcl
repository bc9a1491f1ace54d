# One node: no failover, to try things out.
cluster = "lab"
link "lo" {}
node "primary" { address = "127.0.0.1" }
