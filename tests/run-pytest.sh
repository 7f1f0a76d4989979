#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Run the integration tests (or those of tests/systemd/, inside a systemd) against the binaries of a build directory; `make check` calls it. It
# writes nothing into the source directory, which may be read-only.
#
# usage: run-pytest.sh TOP_SRCDIR TOP_BUILDDIR [PYTEST ARGUMENT...]
#
# environment:
#   PYTHON               the interpreter that has pytest (default: the system's, else python3)
#   TENURE_SUITE         the folder of tests/ (default: integration)
#   TENURE_LONG          1: the long tests, and only these
#   TENURE_PYTEST_MARK   a pytest -m expression instead of the default "not long"
#   TENURE_PYTEST_JOBS   how many tests run side by side (default: as many as there are processors, at most 8, where
#                        pytest-xdist is; else 1)
#                        Up to three that fail beside others run once more by themselves, unless requests were lost
#   TENURE_PYTEST_ARGS   more arguments, split at white space, for instance "-k rollback -x"
set -eu

srcdir=$(cd "$1" && pwd)
builddir=$(cd "$2" && pwd)
shift 2

if [ -z "${PYTHON:-}" ]; then
	PYTHON=python3
	[ ! -x /usr/bin/python3 ] || PYTHON=/usr/bin/python3
fi
if ! "$PYTHON" -c 'import pytest' 2>/dev/null; then
	echo "$PYTHON has no pytest; on Debian: apt-get install python3-pytest" >&2
	echo "(make check-unit runs all tests but the integration tests)" >&2
	exit 1
fi

TENURED=$builddir/tenured
TENURECTL=$builddir/tenurectl
TENURE_WORKER=$builddir/tests/worker
TENURE_LOAD=$builddir/tests/load
export TENURED TENURECTL TENURE_WORKER TENURE_LOAD
for program in "$TENURED" "$TENURECTL" "$TENURE_WORKER" "$TENURE_LOAD"; do
	if [ ! -x "$program" ]; then
		echo "$program: not built" >&2
		exit 1
	fi
done

top_srcdir=$srcdir
top_builddir=$builddir
PYTHONDONTWRITEBYTECODE=1
export top_srcdir top_builddir PYTHONDONTWRITEBYTECODE

mark='not long'
[ "${TENURE_LONG:-}" != 1 ] || mark=long
mark=${TENURE_PYTEST_MARK:-$mark}

# Servers live in sbin, which an ordinary user's PATH often lacks.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

suite=$srcdir/tests/${TENURE_SUITE:-integration}

# Most tests wait most of the time. A systemd, or a machine that is measured, is for one at a time.
n=${TENURE_PYTEST_JOBS:-auto}
if [ "$n" = auto ]; then
	n=1
	if [ "$mark" != long ] && [ "${TENURE_SUITE:-integration}" = integration ] &&
		"$PYTHON" -c 'import xdist' 2>/dev/null; then
		n=$(nproc)
		[ "$n" -le 8 ] || n=8
	fi
fi
cd "$builddir"
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
trap 'exit 130' INT TERM

# run_tests PYTEST ARGUMENT...
run_tests()
{
	# shellcheck disable=SC2086
	"$PYTHON" -m pytest -c "$srcdir/tests/integration/pytest.ini" -o cache_dir="$cache" \
		--rootdir "$suite" -ra -m "$mark" ${TENURE_PYTEST_ARGS:-} "$@" "$suite"
}

status=0
if [ "$n" = 1 ]; then
	run_tests "$@" || status=$?
else
	run_tests -n "$n" "$@" || status=$?
	# Side by side is for speed: what fails for want of time there is judged by itself. A lost request is
	# lost (then the status is another one, see conftest.py), and so is the day when it is more than a few.
	if [ "$status" -eq 1 ] && [ "$(grep -c '": true' "$cache/v/cache/lastfailed")" -le 3 ]; then
		echo "what failed beside others, once more by itself:"
		status=0
		run_tests --last-failed "$@" || status=$?
	fi
fi
exit "$status"
