#!/usr/bin/env bash
# Looks at every state of the models, then breaks one rule at a time and demands a
# counterexample. Needs spin and a C compiler. FULL=1 takes larger bounds (minutes,
# gigabytes). KEEP=DIR keeps the trails there. Names as arguments: only these runs.
set -uo pipefail
cd "$(dirname "$0")" || exit 1

for tool in spin cc; do
	command -v "$tool" >/dev/null || { echo "$0: $tool is missing; install it with: apt-get install spin gcc libc6-dev" >&2; exit 1; }
done
work=${KEEP:-$(mktemp -d)}
mkdir -p "$work" || exit 1
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
here=$PWD

# run NAME WANT MODEL FLAGS...: WANT is "holds" (every state looked at, no error) or "breaks".
run() {
	local name=$1 want=$2 model=$3.pml dir=$work/$1 errors states steps depth=1000000 how=-O2
	shift 3
	# No long detours on the way to a counterexample. Which depth, and which step first,
	# decides only how soon it is found.
	[ "$want" = holds ] || { depth=500 how=-O1; }
	[ "$name" != R1_SENDTIME ] || { depth=45 how="-O1 -DREVERSE"; }
	mkdir -p "$dir" && cd "$dir" && cp "$here/$model" . && echo "$*" >flags || return 1
	# shellcheck disable=SC2086
	if ! spin "$@" -a "$model" >spin.out 2>&1 || ! cc $how -w -DSAFETY -DNOREDUCE -DCOLLAPSE -DMEMLIM="${MEMORY:-6000}" -o pan pan.c >cc.out 2>&1; then
		echo "$name: cannot be built:"; cat spin.out cc.out 2>/dev/null
		return 1
	fi
	local began=$SECONDS
	timeout "${LIMIT:-900}" ./pan -m$depth -w24 >pan.out 2>&1
	errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
	states=$(awk '/states, stored/ { print $1 }' pan.out)
	local mem
	mem=$(awk '/total actual memory/ { print int($1) }' pan.out)
	if [ "$want" = holds ]; then
		# An interrupted search, or one that was cut off by its depth, proves nothing.
		if [ "$errors" != 0 ] || grep -qE 'max search depth too small|Search not completed|out of memory' pan.out; then
			printf '%-18s FAILED: errors %s\n' "$name" "${errors:-none counted}"
			grep -E 'assertion|depth too small|not completed|memory' pan.out | head -5
			return 1
		fi
		printf '%-18s holds      %10s states %6s MB %4ss   %s %s\n' "$name" "$states" "$mem" $((SECONDS - began)) "$model" "$*"
		return 0
	fi
	if ! [ -f "$model.trail" ] || ! grep -q 'assertion violated' pan.out; then
		printf '%-18s FAILED: the broken rule does not show (%s states)\n' "$name" "$states"
		return 1
	fi
	steps=$(($(wc -l <"$model.trail") - 3))
	printf '%-18s is broken  %10s states %6s MB %4ss   trail of %s steps\n' "$name" "$states" "$mem" $((SECONDS - began)) "$steps"
}

small="-DHOSTS=2 -DREGS=2 -DEPOCHS=2 -DRESTARTS=0 -DSORT"
broken() { # broken RULE [FLAGS]: two hosts answer
	local rule=$1
	shift
	# shellcheck disable=SC2086
	echo "$rule breaks lease $small -DONLY_I3 -DBREAK_$rule $*"
}

# One line for each run; a later -D wins over an earlier one.
runs() {
	echo "again holds lease -DHOSTS=2 -DREGS=3 -DEPOCHS=3 -DRESTARTS=0 -DD=1 -DSORT"
	echo "moves holds lease -DHOSTS=2 -DREGS=2 -DEPOCHS=3 -DRESTARTS=0 -DSORT"
	echo "moves-4 holds lease -DHOSTS=2 -DREGS=2 -DEPOCHS=4 -DRESTARTS=0 -DD=1 -DSORT"
	echo "voter-restart holds lease -DHOSTS=2 -DREGS=2 -DEPOCHS=2 -DRESTARTS=1 -DSORT"
	echo "clone holds lease -DHOSTS=3 -DREGS=3 -DEPOCHS=2 -DRESTARTS=0 -DD=1 -DSORT"
	echo "slow holds lease -DHOSTS=2 -DREGS=2 -DEPOCHS=2 -DRESTARTS=0 -DD=1 -DSLOW -DSORT"
	echo "exclusive holds lease -DHOSTS=2 -DREGS=3 -DEPOCHS=2 -DRESTARTS=0 -DD=1 -DSORT -DEXCLUSIVE"
	echo "voters holds voters -DD=1"
	echo "voters-shrink holds voters -DD=1 -DLISTS_SHRINK"
	echo "voters-to-one holds voters -DD=1 -DLISTS_TO_ONE"
	echo "voters-from-one holds voters -DD=1 -DLISTS_FROM_ONE"
	echo "addresses holds addresses -DCLAIMS=4"
	echo "disks holds disks -DLOSSES=2"
	if [ -n "${FULL:-}" ]; then
		echo "again-2 holds lease -DHOSTS=2 -DREGS=3 -DEPOCHS=2 -DRESTARTS=0 -DSORT"
		echo "moves+restart holds lease -DHOSTS=2 -DREGS=2 -DEPOCHS=3 -DRESTARTS=1 -DSORT"
		echo "again+restart holds lease -DHOSTS=2 -DREGS=3 -DEPOCHS=2 -DRESTARTS=1 -DD=1 -DSORT"
		echo "restarts-2 holds lease -DHOSTS=2 -DREGS=2 -DEPOCHS=2 -DRESTARTS=2 -DSORT"
		echo "clone-3 holds lease -DHOSTS=3 -DREGS=3 -DEPOCHS=3 -DRESTARTS=0 -DD=1 -DSORT"
		echo "voters-2 holds voters"
		echo "voters-shrink-2 holds voters -DLISTS_SHRINK"
		echo "addresses-5 holds addresses -DCLAIMS=5"
		echo "disks-3 holds disks -DLOSSES=3 -DTERMS=4"
		echo "unsorted holds lease -DHOSTS=2 -DREGS=2 -DEPOCHS=2 -DRESTARTS=1 -DD=1"
	fi
	broken R1_SENDTIME -DD=1 -DSLOW
	broken R1_MAJORITY
	broken R1_RECORD -DEPOCHS=3
	broken R1_LETGO -DEPOCHS=3
	broken R2_OVER
	broken R2_CLOCK
	broken R3_WAIT
	broken R3_ALL_WAITS -DEPOCHS=3
	broken R3_MAJORITY
	broken R3_REVOKE -DRESTARTS=1
	broken R3_TOKEN -DEPOCHS=4
	broken R3_TOKEN_FIRST
	broken R4 -DEXCLUSIVE
	broken R5_BARRIER -DRESTARTS=1
	broken R5_QUARANTINE -DRESTARTS=1
	broken R8_CLEANUP -DREGS=3
	broken R8_CAS -DREGS=3 -DD=1
	broken R8_HOSTID -DHOSTS=3 -DREGS=3 -DD=1
	broken R9 -DREGS=3 -DEPOCHS=3 -DD=1
	broken R10
	local rule
	for rule in R2_LIST R3_LIST R7 R7_APPLIED R7_BOUND; do echo "$rule breaks voters -DD=1 -DBREAK_$rule"; done
	for rule in R11 R11_NOW R11_DELETED; do echo "$rule breaks addresses -DCLAIMS=4 -DBREAK_$rule"; done
	for rule in R12_IDENTITY R12_REMOVE R12_CATCH_UP; do echo "$rule breaks disks -DLOSSES=2 -DBREAK_$rule"; done
	broken BOUND
	broken GUARD
	broken GUARD_PINNED
}

mapfile -t list < <(runs | if [ $# -gt 0 ]; then grep -E "^($(IFS='|'; echo "$*")) "; else cat; fi)
[ ${#list[@]} -gt 0 ] || { echo "$0: no run is named $*; the names:" >&2; runs | cut -d' ' -f1 >&2; exit 2; }
export -f run
export work here
printf '%s\n' "${list[@]}" | xargs -P "${JOBS:-2}" -I{} bash -c 'set -f; run {}' | tee "$work/table"
bad=$((${#list[@]} - $(grep -cE '^[^ ]+ +(holds|is broken) ' "$work/table")))
[ "$bad" = 0 ] || { echo "$bad of ${#list[@]} FAILED"; exit 1; }
echo "ok: ${#list[@]} runs in ${SECONDS}s"
