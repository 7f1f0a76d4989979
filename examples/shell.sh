#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A web server in shell that knows nothing of tenured but the environment: socat (Debian: apt-get
# install socat) accepts from descriptor 3 and runs this script again for each connection.
set -eu

if [ "${1:-}" != answer ]; then
	if [ "${LISTEN_PID:-}" != $$ ]; then
		echo "no sockets were passed to this process" >&2
		exit 1
	fi
	exec socat ACCEPT-FD:3,fork EXEC:"$0 answer"
fi

carriage_return=$(printf '\r')
while IFS= read -r line && [ "${line%"$carriage_return"}" ]; do :; done
body="hello from generation ${TENURE_GENERATION:-0}"
printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n' $((${#body} + 1))
printf 'X-Tenure-Generation: %s\r\n\r\n%s\n' "${TENURE_GENERATION:-0}" "$body"
