#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The tarball and the repository hold the same files, besides those that only the repository's own
# work needs, and those that the build system and scdoc make.
#
# usage: check-tarball.sh TOP_SRCDIR TARBALL
set -eu
LC_ALL=C
export LC_ALL

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

git -C "$1" ls-files | grep -vE '^(\.gitignore|\.ci/.*)$' | sort >"$tmp/repository"
tar -tf "$2" | sed -e 's,^[^/]*/,,' -e '/\/$/d' -e '/^$/d' | sort >"$tmp/tarball"

made='^(Makefile\.in|aclocal\.m4|config\.h\.in|configure|build-aux/.*|.*/(tenured\.8|tenurectl\.1|tenured\.yaml\.5|tenure\.3))$'
comm -23 "$tmp/repository" "$tmp/tarball" | sed 's/^/not in the tarball: /' >"$tmp/differences"
comm -13 "$tmp/repository" "$tmp/tarball" | grep -vE "$made" |
	sed 's/^/not in the repository: /' >>"$tmp/differences" || true

if [ -s "$tmp/differences" ]; then
	cat "$tmp/differences"
	exit 1
fi
echo "check-tarball: $(wc -l <"$tmp/repository") files of the repository, all in the tarball"
