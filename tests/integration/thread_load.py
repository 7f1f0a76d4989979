# SPDX-License-Identifier: Apache-2.0
"""Load of other protocols than HTTP: some threads, each a client that makes requests on a connection for each or on
kept ones. What is counted, and what a failure is, is as with the load generator (harness.Load)."""

import select
import threading
import time

from fastcgi import FastCgi
from postgres import Postgres


class ThreadResult(dict):
    """As harness.Result, with what assert_clean() asks for."""

    def summary(self):
        counts = {key: value for key, value in self.items() if key != "failure_lines"}
        return "\n  ".join([str(counts), *self["failure_lines"][:20]])


class ThreadLoad:
    """ThreadLoad(lambda: FastCgi(port, script)) until stop(). connect() makes a connection, whose get() is one request
    and its answer as a text, and whose `socket` is one. requests_per_connection 1: closed after each."""

    def __init__(self, connect, clients=4, requests_per_connection=1, think=0.005):
        self.connect, self.n_per_connection, self.think = connect, requests_per_connection, think
        self.lock = threading.Lock()
        self.ok, self.connections, self.idle_closed, self.failures = 0, 0, 0, []
        self.stopped = False
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        connection, n = None, 0
        while not self.stopped:
            try:
                if connection is not None and self.was_closed(connection):
                    connection.close()
                    connection = None
                if connection is None:
                    connection, n = self.connect(), 0
                    with self.lock:
                        self.connections += 1
                text = connection.get()
                assert text.startswith("hello"), text
                n += 1
                if n >= self.n_per_connection:
                    connection.close()
                    connection = None
                with self.lock:
                    self.ok += 1
            except Exception as error:  # pylint: disable=broad-except
                self.failures.append(f"after {n} of its connection: {error!r}")
                if connection is not None:
                    connection.close()
                connection = None
            time.sleep(self.think)
        if connection is not None:
            connection.close()

    def was_closed(self, connection):
        """By the server, with no request under way: no failure, the next one goes to a new connection. That it was
        reset is one."""
        if not select.select([connection.socket], [], [], 0)[0]:
            return False
        if data := connection.socket.recv(4096):
            raise AssertionError(f"not asked for: {data!r}")
        with self.lock:
            self.idle_closed += 1
        return True

    def wait_more(self, n, timeout=30.0):
        until, wanted = time.monotonic() + timeout, self.ok + n
        while self.ok < wanted:
            assert time.monotonic() < until, f"{self.ok} of {wanted}, {self.failures[:5]}"
            time.sleep(0.01)

    def stop(self):
        self.stopped = True
        for thread in self.threads:
            thread.join()
        return ThreadResult(
            requests=self.ok + len(self.failures), ok=self.ok, failed=len(self.failures),
            connections=self.connections, idle_closed=self.idle_closed, not_started=0,
            failure_lines=self.failures,
        )


def fastcgi_load(port, script, **options):
    keep = options.get("requests_per_connection", 1) > 1
    return ThreadLoad(lambda: FastCgi(port, script, keep=keep), **options)


def postgres_load(port, **options):
    return ThreadLoad(lambda: Postgres(port), **options)
