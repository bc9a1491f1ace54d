#!/bin/sh
# ask.sh ROOT WORK: in namespaces of its own, starts the Heartbeat whose packages are
# unpacked in ROOT with the files of each folder in WORK/cases, and prints what it says.
set -e
root=$1 work=$2
layers=$work/layers mnt=$work/mnt
mkdir -p "$layers" "$mnt"
mount -t tmpfs tmpfs "$layers"
mkdir "$layers/upper" "$layers/work" "$layers/lower"
cp -a "$root/." "$layers/lower/"
mount -t overlay overlay -o "lowerdir=$layers/lower:/,upperdir=$layers/upper,workdir=$layers/work" "$mnt"
mount -t proc proc "$mnt/proc"
mount --bind /dev "$mnt/dev"
mount -t tmpfs tmpfs "$mnt/run"
mkdir -p "$mnt/cases" "$mnt/run/heartbeat" "$mnt/var/lib/heartbeat/cores/root" "$mnt/var/lib/heartbeat/cores/hacluster"
cp -a "$work/cases/." "$mnt/cases/"
hostname ken3
ip link set lo up
for i in 0 1; do
	ip link add eth$i type veth peer name peer$i
	ip link set eth$i up
	ip link set peer$i up
done
ip addr add 10.0.0.1/24 dev eth0
ip addr add 192.168.1.1/24 dev eth1
echo 'haclient:x:991:' >>"$mnt/etc/group"
echo 'hacluster:x:991:991::/:/bin/false' >>"$mnt/etc/passwd"
printf '127.0.0.1 localhost\n10.0.0.1 ken3\n10.0.0.2 kathy\n' >"$mnt/etc/hosts"
echo 'hosts: files' >"$mnt/etc/nsswitch.conf"
printf 'passwd: files\ngroup: files\nservices: files\n' >>"$mnt/etc/nsswitch.conf"
cat >"$mnt/ask" <<'EOF'
for c in /cases/*/; do
	rm -rf /etc/ha.d/ha.cf /etc/ha.d/haresources /etc/ha.d/authkeys /var/lib/heartbeat/hostcache /var/lib/heartbeat/delhostcache /var/lib/heartbeat/hb_*
	cp -p $c* /etc/ha.d/
	timeout -s KILL 5 /usr/libexec/heartbeat/heartbeat >/tmp/said 2>&1 </dev/null || true
	# It went into the background if it liked what it read; it may die before it sees us.
	for p in /proc/[0-9]*; do
		case $(cat $p/comm 2>/dev/null) in heartbeat*) kill -9 ${p#/proc/} 2>/dev/null || true ;; esac
	done
	rm -f /run/heartbeat.pid
	echo "== $c"
	cat /tmp/said
	echo
done
EOF
exec chroot "$mnt" sh /ask
