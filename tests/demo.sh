#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The demonstration: a server that is upgraded again and again, well and badly, under load, by an
# ordinary user on loopback; and at the end how many requests have failed.
#
# usage: demo.sh BUILDDIR
#
# Exit status: 0 when no request failed and everything went as said.
set -eu

builddir=$(cd "${1:?usage: demo.sh BUILDDIR}" && pwd)
srcdir=$(cd "$(dirname "$0")/.." && pwd)

# ---- who ----

# As root it goes on as an ordinary user, with copies that this user can read.
if [ "$(id -u)" -eq 0 ] && [ -z "${TENURE_DEMO_DIR:-}" ]; then
	if command -v runuser >/dev/null 2>&1; then
		as_nobody='runuser -u nobody --'
	elif command -v setpriv >/dev/null 2>&1; then
		as_nobody="setpriv --reuid=$(id -u nobody) --regid=$(id -g nobody) --clear-groups --"
	else
		as_nobody=
		echo "(Neither runuser nor setpriv is here, so all of this runs as root.)"
	fi
else
	as_nobody=
fi

dir=${TENURE_DEMO_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/tenured-demo.XXXXXX")}
if [ -z "${TENURE_DEMO_DIR:-}" ]; then
	for program in tenured tenurectl tests/load tests/worker; do
		if [ ! -x "$builddir/$program" ]; then
			echo "$builddir/$program: not built (make all check-programs)" >&2
			rm -rf "$dir"
			exit 1
		fi
		cp "$builddir/$program" "$dir/"
	done
	if ! "$dir/tenured" --version >/dev/null 2>&1; then
		echo "Programs cannot be run from $dir (noexec?): set TMPDIR to another folder." >&2
		rm -rf "$dir"
		exit 1
	fi
	cp "$srcdir/conf/demo.yaml" "$srcdir/tests/demo.sh" "$dir/"
	mkdir "$dir/tests" && mv "$dir/demo.sh" "$dir/tests/"
	chmod 755 "$dir"
fi

if [ -n "$as_nobody" ]; then
	chown -R nobody "$dir"
	status=0
	# shellcheck disable=SC2086
	TENURE_DEMO_DIR=$dir $as_nobody sh "$dir/tests/demo.sh" "$dir" || status=$?
	rm -rf "$dir"
	exit "$status"
fi

# ---- how it is told ----

bold="" plain="" good="" bad="" dim=""
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
	bold=$(printf '\033[1m') plain=$(printf '\033[0m') dim=$(printf '\033[2m')
	good=$(printf '\033[32m') bad=$(printf '\033[31m')
fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

run()
{
	printf '%s$ %s%s\n' "$dim" "$*" "$plain"
	# One stream, so that everything is told in its order.
	"$@" 2>&1
}

# expect STATUS COMMAND...: shown, and its exit status must be this.
expect()
{
	want=$1 status=0
	shift
	run "$@" || status=$?
	if [ "$status" -ne "$want" ]; then
		printf '%s(exit status %d, but %d was expected)%s\n' "$bad" "$status" "$want" "$plain"
		wrong=$((wrong + 1))
	elif [ "$want" -ne 0 ]; then
		printf '%s(exit status %d)%s\n' "$dim" "$status" "$plain"
	fi
}

# ---- what is started is ended ----

daemon="" load="" wrong=0
finish()
{
	for pid in $load $daemon; do
		kill -TERM "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
	done
	cd /
	rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

cd "$dir"
PATH=$dir:$PATH
TENURE_SOCKET=$dir/control.sock
export TENURE_SOCKET

# ---- releases ----

# release NUMBER OPTION...: a folder with the program, and what this release does.
release()
{
	number=$1
	shift
	mkdir -p "releases/$number"
	ln -f worker "releases/$number/web" 2>/dev/null || cp worker "releases/$number/web"
	echo "$*" >"releases/$number/release.options"
}

# deploy NUMBER: the link changes in one step.
deploy()
{
	printf '%s$ ln -s releases/%s new && mv -T new current%s\n' "$dim" "$1" "$plain"
	ln -s "releases/$1" new && mv -T new current
}

release 1
release 2
release 3
release 4 --write-text "config:database_url_is_missing" --exit-at-once --exit-code 3
# Between two requests: one that a process has accepted dies with it, whoever keeps the socket.
release 5 --write-text "cache:no_such_host" --die-after-ready 1s --die-between-requests
release 6

# ---- the daemon ----

is_up()
{
	i=0
	while [ "$i" -lt 100 ]; do
		tenurectl --quiet wait --timeout 10s web 2>/dev/null && return 0
		kill -0 "$daemon" 2>/dev/null || return 1
		sleep 0.05
		i=$((i + 1))
	done
	return 1
}

# The port may be taken, then by the next one.
port=8089
start()
{
	for next in 8089 18089 28089 38089; do
		sed -i "s/127.0.0.1:$port/127.0.0.1:$next/" demo.yaml
		port=$next
		tenured -c demo.yaml 2>tenured.log &
		daemon=$!
		is_up && return 0
		kill -TERM "$daemon" 2>/dev/null || true
		wait "$daemon" || true
		daemon=
		grep -q 'in use' tenured.log || break
	done
	cat tenured.log >&2
	return 1
}

title "A server with two workers, run by $(id -un) (uid $(id -u))"
deploy 1
printf '%s$ tenured -c demo.yaml &%s\n' "$dim" "$plain"
start
run tenurectl status

title "16 clients that connect, ask, and connect again, from now until the end"
load --clients 16 --think 4ms "127.0.0.1:$port" --failures-to failures >load.json &
load=$!
printf '%s$ load --clients 16 --think 4ms 127.0.0.1:%s &%s\n' "$dim" "$port" "$plain"
sleep 0.5

title "An upgrade: all new connections at once, when the new workers are ready"
deploy 2
expect 0 tenurectl upgrade web

title "An upgrade in steps, each of which must prove itself"
deploy 3
expect 0 tenurectl upgrade web --strategy canary --steps 10%,50%,100% --soak 500ms

title "A release that does not even start"
deploy 4
expect 6 tenurectl upgrade web

title "A release that starts well, takes all the traffic, and ends a second later"
deploy 5
expect 6 tenurectl upgrade web

title "A release that is wrong in a way nobody saw, and the way back"
deploy 6
expect 0 tenurectl upgrade web --soak 0s
expect 0 tenurectl rollback web

title "Twenty upgrades, one after the other, while the number of workers changes"
printf '%s$ for i in $(seq 20); do tenurectl upgrade web --soak 0s; done%s\n' "$dim" "$plain"
i=1
while [ "$i" -le 20 ]; do
	tenurectl --quiet upgrade web --soak 0s || {
		echo "upgrade $i failed"
		wrong=$((wrong + 1))
	}
	case $i in
	7) run tenurectl --quiet scale web 4 ;;
	14) run tenurectl --quiet scale web 1 ;;
	esac
	i=$((i + 1))
done
run tenurectl status

# ---- the sum ----

sleep 0.3
kill -TERM "$load"
wait "$load" || true
load=

number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" load.json | head -n 1; }
requests=$(number requests)
failed=$(number failed)
# One entry for each generation that answered.
answered=$(sed -n 's/.*"generations":{\([^}]*\)}.*/\1/p' load.json | tr ',' '\n' | grep -c :)
kill -TERM "$daemon"
status=0
wait "$daemon" || status=$?
daemon=
if [ "$status" -ne 0 ]; then
	echo "tenured ended with exit status $status:" >&2
	tail -n 20 tenured.log >&2
	wrong=$((wrong + 1))
fi

if [ "${failed:-1}" -eq 0 ] && [ "${requests:-0}" -gt 0 ]; then
	title "${good}${requests} requests, answered by $answered generations. 0 failed."
else
	title "${bad}${requests:-no} requests, ${failed:-?} failed:"
	head -n 20 failures >&2
	wrong=$((wrong + 1))
fi
[ "$wrong" -eq 0 ]
