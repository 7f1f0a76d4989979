#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A web server in shell that knows nothing of tenured but the environment. What a shell cannot do, to
# accept from descriptor 3, a line of Perl does, and runs this script again for each connection.
set -eu

if [ "${1:-}" != answer ]; then
	if [ "${LISTEN_PID:-}" != $$ ]; then
		echo "no sockets were passed to this process" >&2
		exit 1
	fi
	exec perl -e '
		$SIG{CHLD} = "IGNORE";
		$SIG{TERM} = sub { exit };
		open my $listener, "+<&=3" or die $!;
		while () {
			accept my $client, $listener or next;
			next if fork;
			$SIG{CHLD} = $SIG{TERM} = "DEFAULT";
			open STDIN, "<&", $client and open STDOUT, ">&", $client and exec @ARGV or die $!;
		}' "$0" answer
fi

carriage_return=$(printf '\r')
while IFS= read -r line && [ "${line%"$carriage_return"}" ]; do :; done
body="hello from generation ${TENURE_GENERATION:-0}"
printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n' $((${#body} + 1))
printf 'X-Tenure-Generation: %s\r\n\r\n%s\n' "${TENURE_GENERATION:-0}" "$body"
