#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Makes ./configure from a checkout. With "demo" or "check" it does everything a new user needs:
# installs what is missing, builds in ./build, and runs the demonstration or all the tests. "check-long" does so for
# the tests that take an hour, which need more servers than the others.
set -eu

usage()
{
	cat <<'END'
usage: ./autogen.sh                  make ./configure
       ./autogen.sh demo [--yes]     install what is missing, build in ./build, run the demonstration
       ./autogen.sh check [--yes]    the same, and run every test
       ./autogen.sh check-long [--yes]
                                     the same, and run the tests that take an hour

  -y, --yes     install without asking (without a terminal nobody is asked)
  -h, --help    this text
END
}

verb=
yes=no
for argument; do
	case $argument in
	demo | check | check-long)
		if [ -n "$verb" ]; then
			usage >&2
			exit 2
		fi
		verb=$argument
		;;
	-y | --yes) yes=yes ;;
	-h | --help)
		usage
		exit 0
		;;
	*)
		echo "$0: unknown argument: $argument" >&2
		usage >&2
		exit 2
		;;
	esac
done

cd "$(dirname "$0")"

# Servers live in sbin, which an ordinary user's PATH often lacks.
have_command()
{
	PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1
}

have_module()
{
	have_command pkg-config && pkg-config --exists "$1"
}

have_pytest()
{
	/usr/bin/python3 -c 'import pytest' >/dev/null 2>&1 ||
		python3 -c 'import pytest' >/dev/null 2>&1
}

# It is called after its version.
have_fpm()
{
	for fpm in /usr/sbin/php-fpm*; do
		[ ! -x "$fpm" ] || return 0
	done
	return 1
}

have_xdist()
{
	/usr/bin/python3 -c 'import xdist' >/dev/null 2>&1 ||
		python3 -c 'import xdist' >/dev/null 2>&1
}

# need PACKAGE TEST...: note the package unless the test succeeds.
missing=
need()
{
	package=$1
	shift
	"$@" || missing="$missing $package"
}

find_missing()
{
	need gcc have_command gcc
	# gcc alone does not bring the C library's headers along.
	need libc6-dev test -e /usr/include/stdlib.h
	need make have_command make
	need autoconf have_command autoconf
	need automake have_command automake
	need libtool have_command libtoolize
	need pkg-config have_command pkg-config
	need libsystemd-dev have_module 'libsystemd >= 252'
	need libyaml-dev have_module yaml-0.1
	need libjansson-dev have_module 'jansson >= 2.13'
	need check have_module 'check >= 0.15'
	need scdoc have_command scdoc
	[ "$verb" != demo ] || return 0
	need python3-pytest have_pytest
	need python3-pytest-xdist have_xdist
	need groff-base have_command groff
	need iproute2 have_command ip
	# Only to be booted in namespaces, by tests/systemd/guest.
	need systemd test -x /lib/systemd/systemd
	need dbus have_command dbus-daemon
	need mount have_command mount
	need curl have_command curl
	need clang-format have_command clang-format
	need gunicorn have_command gunicorn
	need haproxy have_command haproxy
	need lighttpd have_command lighttpd
	need nodejs have_command node
	need libuv1-dev have_module libuv
	need libnet-server-ss-prefork-perl test -e /usr/share/perl5/Net/Server/SS/PreFork.pm
	need libserver-starter-perl have_command start_server
	need nginx-light have_command nginx
	need perl-base have_command perl
	need php-fpm have_fpm
	need puma have_command puma
	need s6 have_command s6-ipcserverd
	need starman have_command starman
	need unicorn have_command unicorn
	need uvicorn have_command uvicorn
	need uwsgi-core have_command uwsgi
	need uwsgi-plugin-python3 test -e /usr/lib/uwsgi/plugins/python3_plugin.so
	need unbound have_command unbound
	[ "$verb" = check-long ] || return 0
	need apache2-bin have_command apache2
	need caddy have_command caddy
	need golang-go have_command go
	need memcached have_command memcached
	need pgbouncer have_command pgbouncer
	need python3-hypercorn have_command hypercorn
	need rustc have_command rustc
}

# Packages that are made of Node, for the tests of servers, which are skipped where they are missing.
install_of_npm()
{
	if ! have_command npm; then
		echo "npm is not there: express, fastify and koa are not tested"
		return 0
	fi
	[ -e node_modules/fastify ] || npm install --no-audit --no-fund --prefix . express fastify koa || true
}

# What is going to run is shown first; on a terminal it is also asked for.
install_missing()
{
	if ! have_command apt-get; then
		echo "These are missing (as Debian names them; install them with your system's tools):" >&2
		echo "   $missing" >&2
		exit 1
	fi

	as_root=
	if [ "$(id -u)" -ne 0 ]; then
		as_root=sudo
		if ! have_command sudo; then
			echo "These packages are missing:$missing" >&2
			echo "sudo is not there; as root:" >&2
			echo "    apt-get install --no-install-recommends$missing" >&2
			exit 1
		fi
	fi

	echo "These packages are missing:$missing"
	echo "They would be installed by:"
	echo
	echo "    ${as_root:+$as_root }apt-get update"
	echo "    ${as_root:+$as_root }apt-get install --no-install-recommends$missing"
	echo
	case "$missing " in
	*' haproxy '* | *' lighttpd '* | *' nginx-light '* | *' php-fpm '* | *' unbound '* | *' caddy '* | *' memcached '* | *' pgbouncer '*)
		echo "(The tests run haproxy, lighttpd, nginx, php-fpm and unbound themselves. Where systemd is running,"
		echo "Debian also starts their services: \"systemctl disable --now haproxy lighttpd nginx unbound\" undoes"
		echo "that."
		echo "So it does with those of caddy, memcached and pgbouncer, which check-long needs.)"
		echo
		;;
	esac
	if [ "$yes" = no ] && [ -t 0 ]; then
		printf 'Install them now? [y/N] '
		read -r answer || answer=
		case $answer in
		[yY] | [yY][eE][sS]) ;;
		*)
			echo "Nothing was installed." >&2
			exit 1
			;;
		esac
	fi
	$as_root apt-get update
	# shellcheck disable=SC2086
	$as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install --yes --no-install-recommends $missing
}

if [ -n "$verb" ]; then
	find_missing
	[ -z "$missing" ] || install_missing
fi

for tool in autoconf automake libtoolize pkg-config; do
	if ! have_command "$tool"; then
		echo "$0: $tool not found (Debian: apt-get install autoconf automake libtool pkg-config)" >&2
		exit 1
	fi
done
autoreconf --force --install
[ -n "$verb" ] || exit 0

jobs=$(nproc 2>/dev/null || echo 1)
mkdir -p build
cd build
../configure --quiet
make -j"$jobs"
case $verb in
check) exec make -j"$jobs" check ;;
check-long)
	install_of_npm
	exec make -j"$jobs" check-long
	;;
demo)
	make -j"$jobs" tests/load tests/worker
	exec sh ../tests/demo.sh "$(pwd)"
	;;
esac
