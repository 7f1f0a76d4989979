#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A web server that knows nothing of tenured but the environment: its sockets are descriptors 3 and up
(LISTEN_FDS), and whoever started it hears that it is ready (NOTIFY_SOCKET)."""

import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        generation = os.environ.get("TENURE_GENERATION", "0")
        body = f"hello from generation {generation}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Tenure-Generation", generation)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


def notify(state):
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        address = "\0" + address[1:] if address[0] == "@" else address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(state.encode(), address)


class Server(ThreadingHTTPServer):
    # Requests that are under way are finished before the end.
    daemon_threads = False
    block_on_close = True


if int(os.environ.get("LISTEN_PID", "0")) != os.getpid():
    sys.exit("no sockets were passed to this process")
servers = []
for fd in range(3, 3 + int(os.environ["LISTEN_FDS"])):
    server = Server(("", 0), Hello, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=fd)
    # Another worker may be faster: then there is nobody to wait for.
    server.socket.setblocking(False)
    servers.append(server)


def stop(*_):
    for server in servers:
        threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, stop)
notify("READY=1")
threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for server in servers:
    server.server_close()
