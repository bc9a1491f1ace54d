group "web" {
  prefer   = ["primary"]
  failback = "on"

  resource "ip" "10.0.0.100/24" {
    dev = "eth1"
  }

  resource "ip" "FD00::100" {
  }

  resource "exec" "apache" {
    start    = ["/usr/sbin/apachectl", "start"]
    stop     = ["/usr/sbin/apachectl", "stop"]
    monitor  = ["/usr/bin/curl", "-fsS", "http://127.0.0.1/$${status}?a=%%{b}&c=\"d\""]
    every    = "5s"
    timeout  = "1m30s"
    restarts = 3
  }
}

group "db" {
  prefer    = ["secondary", "primary"]
  failback  = "after 5m"
  exclusive = true

  resource "exec" "postgres" {
    start   = ["/usr/bin/pg_ctl", "start"]
    stop    = ["/usr/bin/pg_ctl", "stop"]
    monitor = ["/usr/bin/pg_isready"]
    every   = "10s"
  }
}
