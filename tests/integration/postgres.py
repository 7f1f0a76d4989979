# SPDX-License-Identifier: Apache-2.0
"""A client that speaks as much of PostgreSQL's protocol (3.0) as a pooler's own console needs: startup without
a password, simple queries, the end."""

import struct

from fastcgi import read_exactly
from harness import connect

VERSION_3 = 3 << 16


class Postgres:
    def __init__(self, address, user="console", database="pgbouncer", timeout=10.0):
        self.socket = connect(address, timeout=timeout)
        try:
            words = b"".join(x.encode() + b"\0" for x in ("user", user, "database", database))
            self.socket.sendall(struct.pack(">II", 8 + len(words) + 1, VERSION_3) + words + b"\0")
            self.until_ready()
        except BaseException:
            self.socket.close()
            raise

    def until_ready(self):
        """The messages up to ReadyForQuery, as (kind, content)."""
        messages = []
        while not messages or messages[-1][0] != b"Z":
            kind = read_exactly(self.socket, 1)
            (length,) = struct.unpack(">I", read_exactly(self.socket, 4))
            content = read_exactly(self.socket, length - 4)
            if kind == b"E":
                raise ConnectionError(f"an error: {content!r}")
            messages.append((kind, content))
        return messages

    def get(self, query="SHOW VERSION"):
        """One query, which must give a row and be complete."""
        text = query.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack(">I", 4 + len(text)) + text)
        messages = self.until_ready()
        kinds = b"".join(kind for kind, _ in messages)
        assert b"D" in kinds and b"C" in kinds, messages
        return "hello"

    def close(self):
        try:
            self.socket.sendall(b"X" + struct.pack(">I", 4))
        except OSError:
            pass
        self.socket.close()
