#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What programs rely on in libtenure: the exported symbols with their versions and the layout of its
# structures are those of tests/libtenure.abi, in both directions; the header compiles by itself as C
# and gives no layout of what is opaque; the shared library needs libc only; and the static one takes
# no names but its own from the program that links it.
#
# usage: check-abi.sh [TOP_BUILDDIR [TOP_SRCDIR]]
set -u
LC_ALL=C
export LC_ALL

build=${1:-.}
source=${2:-${srcdir:-.}}
: "${NM:=nm}" "${CC:=cc}" "${READELF:=readelf}"
shared=$build/.libs/libtenure.so
static=$build/.libs/libtenure.a
abi=$source/tests/libtenure.abi
header=$source/src/lib/tenure.h

for file in "$shared" "$static"; do
	if [ ! -f "$file" ]; then
		echo "$file: not built (configured with --disable-shared or --disable-static?)"
		exit 77
	fi
done
tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
bad=0
complain()
{
	echo "check-abi: $1"
	bad=1
}

# --- the shared library ---
$NM -D --defined-only --with-symbol-versions "$shared" |
	awk '$2 != "A" { n = split($3, part, "@+"); print (n > 1 ? part[2] : "unversioned"), part[1] }' |
	sort >"$tmp/exported"
grep '^TENURE_' "$abi" | sort >"$tmp/wanted"
if ! diff -u "$tmp/wanted" "$tmp/exported"; then
	complain "the exported symbols are not those of tests/libtenure.abi"
fi
if ! grep -q . "$tmp/exported"; then
	complain "$shared exports nothing"
fi
# Whoever is sanitized needs the sanitizers' run time, too.
if ! $NM -D --undefined-only "$shared" | grep -qE '__(asan|ubsan)_'; then
	$READELF -d "$shared" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
		grep -vE '^(libc\.so|ld-linux|ld64|libc\.musl)' >"$tmp/needed"
	if [ -s "$tmp/needed" ]; then
		complain "$shared needs more than libc: $(tr '\n' ' ' <"$tmp/needed")"
	fi
fi
if ! $READELF -d "$shared" | grep -q 'SONAME.*libtenure\.so\.0'; then
	complain "$shared is not libtenure.so.0"
fi
if $READELF -SW "$shared" | grep -q '\.ctors'; then
	complain "$shared has constructors"
fi

# --- the static one ---
$NM -g --defined-only "$static" | awk 'NF == 3 { print $3 }' | grep -v '^tenure_' | sort -u |
	grep -vE '^__(odr_asan|asan|ubsan)' >"$tmp/names"
if [ -s "$tmp/names" ]; then
	complain "$static defines names that are not its own (add them to src/lib/namespace.h):"
	cat "$tmp/names"
fi

# --- the header ---
declared=$(sed -n 's/^.*[ *]\(tenure_[a-z_]*\)(.*$/\1/p' "$header" | grep -v '^tenure_event$' | sort -u)
for symbol in $(awk '{ print $2 }' "$tmp/wanted"); do
	case "
$declared
" in
	*"
$symbol
"*) ;;
	*) complain "tenure.h does not declare $symbol" ;;
	esac
	if [ -f "$source/src/lib/tenure.3.scd" ] &&
		! grep -q "$symbol" "$source/src/lib/tenure.3.scd"; then
		complain "tenure.3 does not say what $symbol() does"
	fi
done
{
	echo '#include "tenure.h"'
	awk '$1 == "sizeof" { printf "_Static_assert(sizeof(struct %s) == %s, \"size of %s\");\n", $2, $3, $2 }
	     $1 == "offsetof" { printf "_Static_assert(offsetof(struct %s, %s) == %s, \"%s.%s\");\n", $2, $3, $4, $2, $3 }' "$abi"
} >"$tmp/layout.c"
if [ "$(echo 'long: __SIZEOF_LONG__ __SIZEOF_POINTER__' | $CC -E -P -x c - | tr -d '\n')" = 'long: 8 8' ]; then
	$CC -std=c11 -pedantic-errors -Wall -Wextra -Werror -I"$source/src/lib" -fsyntax-only "$tmp/layout.c" ||
		complain "the layout of what tenure.h declares is not that of tests/libtenure.abi"
fi
printf '#include "tenure.h"\nint n = sizeof(struct tenure);\n' >"$tmp/opaque.c"
if $CC -I"$source/src/lib" -fsyntax-only "$tmp/opaque.c" 2>/dev/null; then
	complain "struct tenure is not opaque"
fi
if command -v c++ >/dev/null 2>&1; then
	printf '#include "tenure.h"\nint main() { return tenure_version() == 0; }\n' >"$tmp/plus.cc"
	c++ -std=c++11 -pedantic-errors -Wall -Werror -I"$source/src/lib" -fsyntax-only "$tmp/plus.cc" ||
		complain "tenure.h is not C++"
fi

[ $bad -eq 0 ] || exit 1
echo "check-abi: $(wc -l <"$tmp/exported") symbols, libc only"
