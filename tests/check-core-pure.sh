#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The core makes no system call, reads no clock and logs nothing. So what its objects need from
# outside, together with those functions of base/ that they reach, must be on a short list.
#
# The linker is asked what is reached: a partial link with unused sections dropped (everything is
# compiled with one section for each function), then the symbols that are still undefined.
#
# usage: check-core-pure.sh [TOP_BUILDDIR]
set -u
LC_ALL=C
export LC_ALL

dir=${1:-.}
core=$dir/libtenured-core.a
base=$dir/libtenured-base.a
: "${NM:=nm}" "${LD:=ld}" "${STRIP:=strip}"

# Memory, strings and numbers. None of these can see or change the world, except snprintf's and
# strtod's reading of the locale, which the programs leave at "C", and if_indextoname, by which an
# error text names the interface of a link-local address (its number where there is none).
allow='
malloc calloc realloc reallocarray free abort qsort bsearch
bcmp mem[a-z]* str[a-z]* stpcpy stpncpy __xpg_strerror_r explicit_bzero
v?snprintf v?asprintf strto[a-z]+ __isoc23_strto[a-z]+
__ctype_[a-z_]+ isalpha isdigit isalnum isspace isprint tolower toupper
floor ceil round lround llround
__errno_location __assert_fail __stack_chk_fail
__popcount[ds]i2
__(mem|str|stp)[a-z]+_chk __v?snprintf_chk __v?asprintf_chk
inet_ntop inet_pton if_indextoname
_GLOBAL_OFFSET_TABLE_ __(asan|ubsan|lsan|sanitizer)_.*
'
# Names that the patterns above would take, but that are not pure.
deny='strftime strptime memfd_.*'

for file in "$core" "$base"; do
	if [ ! -f "$file" ]; then
		echo "$file: not found" >&2
		exit 1
	fi
done

tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT

# Everything the core defines is a root.
$NM -g --defined-only "$core" 2>"$tmp/nm-errors" |
	awk 'NF == 3 && $2 ~ /^[TDBRVW]$/ { print $3 }' | sort -u >"$tmp/roots"
if [ ! -s "$tmp/roots" ]; then
	echo "$core: defines nothing, or cannot be read (link-time optimisation?)"
	cat "$tmp/nm-errors"
	exit 1
fi
sed 's/^/-u /' "$tmp/roots" >"$tmp/options"
if ! $LD -r --gc-sections -o "$tmp/all.o" @"$tmp/options" "$core" "$base" ||
	! $STRIP --strip-unneeded "$tmp/all.o"; then
	echo "the partial link of $core failed" >&2
	exit 1
fi
$NM -u "$tmp/all.o" | awk '{ print $NF }' | sort -u >"$tmp/undefined"

pattern()
{
	# shellcheck disable=SC2086
	set -f && printf '%s\n' $1 | paste -s -d '|' -
}
grep -vxE "$(pattern "$allow")" "$tmp/undefined" >"$tmp/bad"
grep -xE "$(pattern "$deny")" "$tmp/undefined" >>"$tmp/bad"

if [ -s "$tmp/bad" ]; then
	echo "core/ is pure, but it needs:"
	while read -r symbol; do
		# The objects of the core that name it; none: it is reached through base/.
		users=$($NM -A -u "$core" 2>/dev/null |
			awk -v s="$symbol" '$NF == s { split($1, part, ":"); print part[2] }' | paste -s -d ' ' -)
		echo "  $symbol (${users:-through a function of base/})"
	done <"$tmp/bad"
	exit 1
fi
echo "check-core-pure: $(wc -l <"$tmp/roots") symbols defined, $(wc -l <"$tmp/undefined")" \
	"needed from outside, all on the list"
