# SPDX-License-Identifier: Apache-2.0
"""A daemon that says what a test tells it to, for tests of the client alone: Varlink as plain as the
protocol, every answer canned. It checks what it is asked against nothing; it records it.

    with FakeDaemon(path) as fake:
        fake.answers["List"] = [reply(services=[])]
        fake.answers["Upgrade"] = lambda call: iter(...)

An answer is a list (or generator) of these, taken in order for each call:
    a dict          sent as one message
    a number        that many seconds of silence
    a threading.Event   silence until it is set
    bytes           sent as they are
    HANG_UP         the connection is closed
"""

import json
import os
import socket
import threading
import time

SUPERVISOR = "io.tenured.Supervisor"
HANG_UP = object()
NOW = int(time.time() * 1_000_000)
SECOND = 1_000_000


def reply(**parameters):
    return {"parameters": parameters}


def error(name, **parameters):
    return {"error": name if "." in name else f"{SUPERVISOR}.{name}", "parameters": parameters}


def worker(index=0, pid=1000, state="ready", restarts=0, status=None, since=60, **more):
    return {"index": index, "pid": pid, "state": state, "restarts": restarts, "status": status,
            "sinceUsec": NOW - since * SECOND, **more}


def generation(number=8, state="serving", traffic=100.0, connections=None, workers=None, **more):
    return {"number": number, "state": state, "traffic": traffic, "connections": connections,
            "directory": "/srv/web/current", "executable": "/srv/web/current/bin/web",
            "sinceUsec": NOW - 7500 * SECOND, "reason": None,
            "workers": [worker()] if workers is None else workers, **more}


def rollout(phase="soaking", traffic=25.0, step=2, steps=3, **more):
    return {"id": 3, "fromGeneration": 7, "toGeneration": 8, "strategy": "canary", "phase": phase,
            "step": step, "steps": steps, "traffic": traffic, "ready": 2, "workers": 2,
            "requestedBy": "deploy", "sinceUsec": NOW - 12 * SECOND, **more}


def listener(name="http", address="tcp:[::]:8080", **more):
    return {"service": "web", "name": name, "address": address, "kind": "group", "reason": None,
            "origin": "own", "sockets": "perWorker", "backlog": 4096,
            "queue": [{"generation": 8, "worker": 0, "waiting": 3, "limit": 4096, "traffic": 100.0}],
            **more}


def service(name="web", state="serving", **more):
    return {"name": name, "state": state, "generation": 8, "workersWanted": 1, "scaled": False,
            "healthy": True, "rollout": None, "queued": False, "pending": [], "lastFailure": None,
            "generations": [generation()], "listeners": [listener()], **more}


def event(sequence=1, what="worker-ready", message="worker 8.0 is ready", **more):
    return {"sequence": sequence, "atUsec": NOW, "service": "web", "generation": 8, "worker": 0,
            "event": what, "message": message, **more}


def progress(message, done=False, rollout=None, generation=8):  # pylint: disable=redefined-outer-name
    told = {"message": message, "rollout": rollout, "done": done, "generation": generation}
    return {"parameters": {"progress": told}, "continues": not done}


class FakeDaemon:
    def __init__(self, path):
        self.path = str(path)
        self.answers = {}
        self.calls = []  # (method without its interface, parameters without "request", more)
        self.requests = []  # (method, "request"), of those that have one
        self.lock = threading.Lock()
        self.threads = []
        self.open = set()
        self.ended = threading.Event()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(self.path)
        self.socket.listen(16)
        self._spawn(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.ended.set()
        self.socket.shutdown(socket.SHUT_RDWR)
        with self.lock:
            for connection in self.open:
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread of the fake daemon hangs"
        self.socket.close()
        os.unlink(self.path)

    def called(self, method):
        """The parameters of each call of that method so far."""
        with self.lock:
            return [parameters for name, parameters, _ in self.calls if name == method]

    def _spawn(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with self.lock:
                self.open.add(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection):
        buffer = b""
        try:
            while True:
                data = connection.recv(65536)
                if not data:
                    return
                buffer += data
                while b"\0" in buffer:
                    message, _, buffer = buffer.partition(b"\0")
                    if not self._answer(connection, json.loads(message)):
                        return
        except OSError:
            pass
        finally:
            with self.lock:
                self.open.discard(connection)
                connection.close()

    def _answer(self, connection, call):
        method = call["method"]
        short = method.removeprefix(SUPERVISOR + ".")
        parameters = call.get("parameters", {})
        with self.lock:
            shown = {name: value for name, value in parameters.items() if name != "request"}
            self.calls.append((short, shown, call.get("more", False)))
            if "request" in parameters:
                self.requests.append((short, parameters["request"]))
        answers = self.answers.get(short)
        if answers is None:
            answers = [error("org.varlink.service.MethodNotFound", method=method)]
        elif callable(answers):
            answers = answers(parameters)
        for answer in answers:
            if answer is HANG_UP:
                connection.shutdown(socket.SHUT_RDWR)
                return False
            if isinstance(answer, (int, float)):
                self.ended.wait(answer)
            elif isinstance(answer, threading.Event):
                while not answer.wait(0.02):
                    if self.ended.is_set():
                        return False
            elif isinstance(answer, bytes):
                connection.sendall(answer)
            else:
                connection.sendall(json.dumps(answer).encode() + b"\0")
        return True
