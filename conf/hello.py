#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A small web server on a socket that it is given, as sd_listen_fds(3) describes: descriptor 3. It
knows nothing of upgrades, and nothing of ending gracefully."""

import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        generation = os.environ.get("TENURE_GENERATION", "0")
        body = f"hello from generation {generation}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


server = ThreadingHTTPServer(("", 0), Hello, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=3)
server.serve_forever()
