#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Folders are layers: who may include whom, and which system interfaces belong to one folder only.
# Comments are removed first, so that a header may say in prose what its code must not do.
#
# usage: check-layers.sh [TOP_SRCDIR]
set -u
LC_ALL=C
export LC_ALL

src=${1:-${srcdir:-.}}/src
cd "$src" || exit 99

# Every folder below src/, and the folders it may include besides itself.
allowed()
{
	case $1 in
	base) echo ;;
	wire | core | sys | varlink) echo base ;;
	lib) echo base wire ;;
	ctl) echo base varlink ;;
	daemon) echo base wire core sys varlink ;;
	*) return 1 ;;
	esac
}

# Print FILE without its comments; strings and character constants are kept as they are.
strip_comments()
{
	awk '
	{
		line = $0; out = ""; quote = ""
		while (line != "") {
			two = substr(line, 1, 2); c = substr(line, 1, 1); n = 1
			if (comment) {
				if (two == "*/") { comment = 0; n = 2 }
				c = ""
			} else if (quote != "") {
				if (c == "\\") { c = two; n = 2 }
				else if (c == quote) quote = ""
			} else if (two == "/*") { comment = 1; n = 2; c = " " }
			else if (two == "//") break
			else if (c == "\"" || c == "\047") quote = c
			out = out c; line = substr(line, n + 1)
		}
		print out
	}' "$1"
}

tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
: >"$tmp/bad"

# ban FILE WHY REGEX: complain about each line of the stripped file that has a match.
ban()
{
	grep -nE -e "$3" "$tmp/code" | while IFS=: read -r number text; do
		echo "src/$1:$number: $2: $text" >>"$tmp/bad"
	done
}

check_includes()
{
	grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$tmp/code" |
		while IFS=: read -r number text; do
			target=${text#*\"}
			target=${target%%\"*}
			folder=${target%%/*}
			case " $layer $may " in
			*" $folder "*) [ "$folder" != "$target" ] && continue ;;
			esac
			echo "src/$file:$number: $layer/ may include only: $layer $may (as" \
				"\"folder/file.h\"), not \"$target\"" >>"$tmp/bad"
		done
}

n=0
for file in $(find . -name '*.[ch]' ! -name interface-text.c | sed 's,^\./,,' | sort); do
	n=$((n + 1))
	layer=${file%%/*}
	if ! may=$(allowed "$layer"); then
		echo "src/$file: $layer/ is not a layer known to $0" >>"$tmp/bad"
		continue
	fi
	strip_comments "$file" >"$tmp/code"
	check_includes

	include='^[[:space:]]*#[[:space:]]*include[[:space:]]*<'
	[ "$layer" = daemon ] || {
		ban "$file" "sd-event, sd-journal and sd-bus belong to daemon/" \
			"${include}systemd/sd-(event|journal|bus|login|id128)"
		ban "$file" "libyaml belongs to daemon/" "${include}yaml\\.h>"
	}
	case $layer in
	daemon | sys) ;;
	*) ban "$file" "libsystemd belongs to daemon/ and sys/" "${include}systemd/" ;;
	esac
	case $layer in
	varlink | ctl | daemon) ;;
	*) ban "$file" "jansson belongs to varlink/, ctl/ and daemon/" "${include}jansson\\.h>" ;;
	esac
	case $layer in
	daemon | ctl) ;;
	*)
		ban "$file" "only daemon/ logs and only ctl/ prints" \
			"${include}(syslog|err|error)\\.h>"
		ban "$file" "only daemon/ logs and only ctl/ prints" \
			'(^|[^[:alnum:]_.>])(v?printf|puts|putchar|perror|psignal|v?syslog|sd_journal_[a-z_]+)[[:space:]]*\('
		ban "$file" "only daemon/ logs and only ctl/ prints" \
			'(^|[^[:alnum:]_.>"])(stdout|stderr)[[:space:]]*[,)]'
		;;
	esac
	[ "$layer" != core ] || {
		# Headers of constants and plain data are fine; whatever acts on the world is not.
		grep -vE "${include}(arpa/inet|assert|ctype|errno|inttypes|limits|math|netinet/in|netinet/tcp|signal|stdarg|stdbool|stddef|stdint|stdio|stdlib|string|strings|sys/resource|sys/socket|sys/types|linux/bpf_common|linux/filter)\\.h>" \
			"$tmp/code" >"$tmp/rest"
		grep -E "$include" "$tmp/rest" | while read -r text; do
			echo "src/$file: core/ is pure and has no use for: $text" >>"$tmp/bad"
		done
	}
done

if [ "$n" -eq 0 ]; then
	echo "no source file found below $src" >&2
	exit 1
fi
if [ -s "$tmp/bad" ]; then
	cat "$tmp/bad"
	echo "check-layers: $(wc -l <"$tmp/bad") violations in $n files"
	exit 1
fi
echo "check-layers: $n files, no violation"
