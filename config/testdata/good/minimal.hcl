# The least: who founds the cluster. Everything else has a default.
node "primary"   { address = "10.0.0.1" }
node "secondary" { address = "10.0.0.2" }
node "tertiary"  { address = "10.0.0.3" }
