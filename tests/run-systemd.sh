#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Run the tests of tests/systemd/ in a systemd that is booted for them, with what `make install` of a build
# directory installs; `make check` calls it. Where this machine can have no such thing they are skipped.
#
# usage: run-systemd.sh TOP_SRCDIR TOP_BUILDDIR [PYTEST ARGUMENT...]
#
# environment: as of run-pytest.sh, and
#   TENURE_SYSTEMD       required: to be skipped is a failure; no: skip them
#   TENURE_SYSTEMD_ROOT  another root directory than this machine's to boot, of another systemd
set -eu

srcdir=$(cd "$1" && pwd -P)
builddir=$(cd "$2" && pwd -P)
shift 2

if [ "${TENURE_SYSTEMD:-}" = no ]; then
	echo "tests/systemd: skipped, as asked"
	exit 0
fi
# Staged out here: another root directory has no compiler, should anything be out of date.
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' HUP INT TERM
env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "${MAKE:-make}" -C "$builddir" install DESTDIR="$stage" >/dev/null

status=0
TENURE_SUITE=systemd TENURE_STAGE=$stage "${PYTHON:-python3}" "$srcdir/tests/systemd/guest" \
	--bind "$srcdir" --bind "$builddir" --bind "$stage" --root "${TENURE_SYSTEMD_ROOT:-/}" \
	sh "$srcdir/tests/run-pytest.sh" "$srcdir" "$builddir" "$@" || status=$?
if [ "$status" -eq 77 ] && [ "${TENURE_SYSTEMD:-}" != required ]; then
	echo "tests/systemd: skipped"
	status=0
fi
exit "$status"
