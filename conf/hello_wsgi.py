# SPDX-License-Identifier: Apache-2.0
"""The smallest WSGI application."""

import os


def application(environ, start_response):
    body = f"hello from generation {os.environ.get('TENURE_GENERATION', '0')}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
