#!/usr/bin/env bash
# The commands of README on a Debian that was bootstrapped a moment ago and has Go and git
# and nothing else: how long they take, and what they installed. Takes root, mmdebstrap
# and a Debian mirror; leaves nothing behind. TESTS replaces the second command.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "make fresh: it takes root, to bootstrap a Debian and to be in it" >&2; exit 1; }
command -v mmdebstrap >/dev/null || { echo "make fresh: install mmdebstrap" >&2; exit 1; }

suite=bookworm
root=$(mktemp -d)
chmod 755 "$root" # apt's own user reads in it
trap 'rm -rf --one-file-system "$root"' EXIT # what is mounted below is so in another namespace only
sources=()
for f in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
	[ -z "${sources[*]}" ] && [ -e "$f" ] && grep -q "debian.*$suite\|$suite" "$f" && sources=("$f")
done
mmdebstrap --variant=minbase --include=git,ca-certificates --quiet "$suite" "$root" "${sources[@]}"
[ -z "$(ls /etc/apt/apt.conf.d/99* 2>/dev/null)" ] || cp /etc/apt/apt.conf.d/99* "$root/etc/apt/apt.conf.d/"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
cp -a "$(go env GOROOT)" "$root/usr/local/go"
git clone --quiet . "$root/root/hanode"
git -C "$root/root/hanode" remote remove origin

cat >"$root/root/inside" <<'INSIDE'
set -u
cd /root/hanode
have() { dpkg-query --show --showformat '${Package}\n' | sort; }
have >/root/before
status=0
for command in 'go run ./cmd/hanode demo' "${TESTS:-go test ./...}"; do
	begin=$SECONDS
	bash -c "$command"
	code=$?
	[ $code = 0 ] || status=1
	result+="$command: exit $code, $((SECONDS - begin)) s"$'\n'
done
have >/root/after
printf '\n%sDebian packages installed by it: %s\nprograms installed by it: %s\n' "$result" \
	"$(comm -13 /root/before /root/after | wc -l)" "$(ls /root/go/bin 2>/dev/null | wc -l)"
exit $status
INSIDE

# Not chroot: the tests make mount namespaces, which take a root of their own. All mounts
# are in a namespace that ends with the commands.
env=(HOME=/root PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb GOPROXY="$(go env GOPROXY)" GOSUMDB="$(go env GOSUMDB)" TESTS="${TESTS:-}")
unshare --mount --propagation private sh -c '
	set -e
	root=$1
	shift
	mount --bind "$root" "$root"
	for m in proc sys dev; do mount --rbind "/$m" "$root/$m"; done
	mkdir "$root/old"
	cd "$root"
	pivot_root . old
	cd /
	umount -l /old
	exec env -i "$@" bash /root/inside' sh "$root" "${env[@]}"
