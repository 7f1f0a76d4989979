# SPDX-License-Identifier: Apache-2.0
"""A Varlink client as plain as the protocol: JSON objects, each ended by a NUL, on a Unix socket."""

import json
import socket
import struct

SUPERVISOR = "io.tenured.Supervisor"


class VarlinkError(Exception):
    """The reply was an error. `name` is without the interface, `parameters` is a dict."""

    def __init__(self, error, parameters):
        super().__init__(f"{error} {json.dumps(parameters)}")
        self.error = error
        self.name = error.rpartition(".")[2]
        self.parameters = parameters


class Varlink:
    """One connection. Methods without a dot are of the supervisor's interface."""

    def __init__(self, path, timeout=30.0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A full queue of connections is waited for, which a non-blocking connect() would not do.
        limit = struct.pack("@ll", int(timeout), int(timeout % 1 * 1e6))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self.socket.connect(str(path))
        self.socket.settimeout(timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send_bytes(self, data):
        self.socket.sendall(data)

    def send(self, method, parameters=None, more=False, oneway=False):
        message = {"method": method if "." in method else f"{SUPERVISOR}.{method}"}
        if parameters is not None:
            message["parameters"] = parameters
        if more:
            message["more"] = True
        if oneway:
            message["oneway"] = True
        self.send_bytes(json.dumps(message).encode() + b"\0")

    def receive(self):
        """The next message as it came, or None when the daemon closed the connection."""
        while b"\0" not in self.buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.buffer += data
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def reply(self):
        """The parameters of the next reply; raises what it reports."""
        message = self.receive()
        if message is None:
            raise ConnectionError("the daemon closed the connection")
        if "error" in message:
            raise VarlinkError(message["error"], message.get("parameters") or {})
        return message.get("parameters") or {}

    def call(self, method, parameters=None, more=False):
        """The reply's parameters; with `more` an iterator over those of all replies."""
        self.send(method, parameters, more=more)
        return self._replies() if more else self.reply()

    def _replies(self):
        while True:
            message = self.receive()
            if message is None:
                raise ConnectionError("the daemon closed the connection")
            if "error" in message:
                raise VarlinkError(message["error"], message.get("parameters") or {})
            yield message.get("parameters") or {}
            if not message.get("continues"):
                return


def call(path, method, parameters=None, timeout=30.0):
    with Varlink(path, timeout) as connection:
        return connection.call(method, parameters)
