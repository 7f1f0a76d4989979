#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Every C file is laid out as .clang-format says. Other versions of clang-format lay out some
# constructs differently, so only version 14 is asked.
#
# usage: check-format.sh [TOP_SRCDIR]
set -u

cd "${1:-${srcdir:-.}}" || exit 99

for clang_format in clang-format-14 clang-format; do
	case $($clang_format --version 2>/dev/null) in
	*'version 14.'*) break ;;
	esac
	clang_format=
done
if [ -z "$clang_format" ]; then
	echo "skipped: clang-format 14 not found (Debian 12: apt-get install clang-format)"
	exit 77
fi
if [ ! -f .clang-format ]; then
	echo "no .clang-format in $(pwd)" >&2
	exit 1
fi

files=$(find src tests -name '*.[ch]' ! -name interface-text.c | sort)
if [ -z "$files" ]; then
	echo "no source file found below $(pwd)" >&2
	exit 1
fi
n=0
bad=0
for file in $files; do # the names hold no white space: they are ours
	n=$((n + 1))
	$clang_format --dry-run --Werror "$file" >/dev/null 2>&1 && continue
	bad=$((bad + 1))
	echo "$file: $clang_format -i would change it"
done
echo "check-format: $n files, $bad differ"
[ "$bad" -eq 0 ]
