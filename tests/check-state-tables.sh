#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The tables of what is saved (src/daemon/state_tables*.c) name every member of their structures, if
# only to say that it is not saved: who adds a member decides about that.
set -eu

srcdir=$(cd "${srcdir:-$(dirname "$0")/..}" && pwd)
cd "$srcdir/src"

# "STRUCTURE MEMBER" of each structure in the headers that has a table
members() {
	awk -v wanted="$1" '
		{ gsub(/\/\*[^*]*\*+([^\/*][^*]*\*+)*\//, ""); }
		/\/\*/ { sub(/\/\*.*/, ""); comment = 1; text = text " " $0; next }
		comment && /\*\// { sub(/.*\*\//, ""); comment = 0 }
		comment { next }
		{ text = text " " $0 }
		END {
			if (!match(text, "struct " wanted " *\\{"))
				exit 1
			text = substr(text, RSTART + RLENGTH)
			depth = 1
			body = ""
			for (i = 1; i <= length(text) && depth > 0; i++) {
				c = substr(text, i, 1)
				if (c == "{") depth++
				if (c == "}") depth--
				if (depth == 1 && c != "}") body = body c
			}
			n = split(body, lines, ";")
			for (i = 1; i <= n; i++) {
				k = split(lines[i], parts, ",")
				for (j = 1; j <= k; j++) {
					name = parts[j]
					gsub(/\[[^]]*\]/, "", name)
					sub(/[ \t]+$/, "", name)
					if (match(name, /[A-Za-z_0-9]+$/))
						print substr(name, RSTART)
				}
			}
		}'
}

bad=0
checked=0
for table in daemon/state_tables_*.c; do
	for structure in $(sed -n 's/^#define TYPE struct //p' "$table"); do
		# Of the C library; and one with a union, of which the longest is saved.
		case $structure in timespec | rlimit | address) continue ;; esac
		header=$(grep -lE "^struct $structure \{" base/*.h core/*.h daemon/*.h sys/*.h | head -n 1)
		wanted=$(members "$structure" <"$header" | sort)
		named=$(awk -v type="$structure" '
			$0 == "#define TYPE struct " type { inside = 1 }
			/^#undef TYPE/ { inside = 0 }
			inside { print }' "$table" |
			grep -oE 'FIELD\([A-Z0-9_]+, [a-z_0-9]+' | sed 's/.* //' | sort)
		for member in $wanted; do
			checked=$((checked + 1))
			if ! printf '%s\n' "$named" | grep -qx "$member"; then
				echo "$table: struct $structure.$member is neither saved nor NOT_SAVED" >&2
				bad=$((bad + 1))
			fi
		done
	done
done
echo "check-state-tables: $checked members, $bad forgotten"
[ "$checked" -gt 150 ] && [ "$bad" -eq 0 ]
