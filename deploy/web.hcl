# What the cluster runs; give it to any node with: hanode apply FILE
# All keys: docs/configuration.md

group "web" {
  prefer   = ["primary"]            # then the rest, least loaded first
  failback = "on"                   # on | off | "after 5m" (healthy that long)

  # Started from top to bottom, stopped from bottom to top.
  resource "ip" "10.77.0.100/24" {
    dev = "eth1"
  }
  resource "systemd" "apache2" {}   # not to be enabled at boot: the cluster starts it
  resource "systemd" "smbd" {}
}
