# SPDX-License-Identifier: Apache-2.0
"""A client of a FastCGI server."""

import struct

from harness import connect

BEGIN, END, PARAMS, STDIN, STDOUT, STDERR = 1, 3, 4, 5, 6, 7
RESPONDER, KEEP_CONNECTION = 1, 1


def record(kind, content=b""):
    return struct.pack(">BBHHBB", 1, kind, 1, len(content), 0, 0) + content


def pair(name, value):
    name, value = name.encode(), value.encode()
    return b"".join(struct.pack(">I", len(x) | 0x80000000) for x in (name, value)) + name + value


def read_exactly(client, n):
    data = b""
    while len(data) < n:
        more = client.recv(n - len(data))
        if not more:
            raise ConnectionError(f"the end after {len(data)} of {n} bytes")
        data += more
    return data


class FastCgi:
    """A connection; keep: for more than one request."""

    def __init__(self, address, script, keep=False, timeout=10.0):
        self.socket = connect(address, timeout=timeout)
        self.script, self.keep = script, keep

    def get(self):
        """The body of what the script answers."""
        parameters = {
            "SCRIPT_FILENAME": self.script, "SCRIPT_NAME": "/", "REQUEST_METHOD": "GET", "REQUEST_URI": "/",
            "SERVER_PROTOCOL": "HTTP/1.1", "GATEWAY_INTERFACE": "CGI/1.1", "QUERY_STRING": "",
        }
        output = b""
        self.socket.sendall(
            record(BEGIN, struct.pack(">HB5x", RESPONDER, KEEP_CONNECTION if self.keep else 0))
            + record(PARAMS, b"".join(pair(*item) for item in parameters.items()))
            + record(PARAMS) + record(STDIN)
        )
        while True:
            _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", read_exactly(self.socket, 8))
            content = read_exactly(self.socket, length + padding)[:length]
            if kind == STDOUT:
                output += content
            elif kind == END:
                return output.decode().partition("\r\n\r\n")[2]

    def close(self):
        self.socket.close()


def fastcgi_get(address, script, timeout=10.0):
    """One request, on a connection of its own."""
    connection = FastCgi(address, script, timeout=timeout)
    try:
        return connection.get()
    finally:
        connection.close()
