#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The manual pages are rendered without a warning, and whatis(1) finds what they are about.
#
# usage: check-manual.sh [TOP_BUILDDIR [TOP_SRCDIR]]
set -u
LC_ALL=C
export LC_ALL

build=${1:-.}
source=${2:-${srcdir:-.}}
if ! command -v groff >/dev/null 2>&1; then
	echo "groff not found (Debian: groff-base)"
	exit 77
fi
tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
bad=0
n=0
for page in conf/tenured.yaml.5 src/ctl/tenurectl.1 src/daemon/tenured.8 src/lib/tenure.3; do
	# A tarball has them beside their sources.
	file=$build/$page
	[ -f "$file" ] || file=$source/$page
	if [ ! -f "$file" ]; then
		echo "$page: not built (without scdoc)"
		exit 77
	fi
	for width in 80 100 132; do
		groff -t -k -man -ww -rLL=${width}n -Tutf8 "$file" 2>"$tmp/warnings" >"$tmp/text"
		if [ -s "$tmp/warnings" ]; then
			echo "$page, $width columns:"
			cat "$tmp/warnings"
			bad=1
		fi
		if [ "$(wc -l <"$tmp/text")" -lt 50 ]; then
			echo "$page, $width columns: there is next to nothing in it"
			bad=1
		fi
	done
	name=$(basename "$page" | sed 's/\.[0-9]$//')
	if ! sed -n '/^\.SH NAME/,/^\.SH [^N]/p' "$file" | sed 's/\\&//g' | grep -q "^$name.* - ...*"; then
		echo "$page: its NAME does not say what $name is"
		bad=1
	fi
	n=$((n + 1))
done
[ $bad -eq 0 ] || exit 1
echo "check-manual: $n pages, no warning"
