#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A worker that finds its sockets as the programs of one convention do, and refuses everything that these
would not understand. It answers HTTP with its generation.

usage: dialect_worker.py CONVENTION [WORD...]"""

import json
import os
import select
import signal
import socket
import sys
import threading
import time

ENV = os.environ


def listen_fds():
    assert int(ENV["LISTEN_PID"]) == os.getpid(), ENV["LISTEN_PID"]
    if "LISTEN_PIDFDID" in ENV:
        fd = os.pidfd_open(os.getpid())
        assert int(ENV["LISTEN_PIDFDID"]) == os.fstat(fd).st_ino
        os.close(fd)
    n, names = int(ENV["LISTEN_FDS"]), ENV["LISTEN_FDNAMES"].split(":")
    assert len(names) == n
    return list(range(3, 3 + n))


def dinit():
    assert ENV["LISTEN_FDS"] == "1" and int(ENV["LISTEN_PID"]) == os.getpid()
    return [3]


def is_name_of(name, fd):
    """Is this what Server::Starter or php-fpm would call the socket?"""
    bound = socket.socket(fileno=os.dup(fd)).getsockname()
    if isinstance(bound, str):
        return name == bound
    host, _, port = name.rpartition(":")
    return int(port) == bound[1] and (not host or host.strip("[]") == bound[0])


def server_starter():
    pairs = [pair.rpartition("=") for pair in ENV["SERVER_STARTER_PORT"].split(";")]
    assert ENV["SERVER_STARTER_GENERATION"] == ENV["TENURE_GENERATION"]
    for name, _, fd in pairs:
        assert is_name_of(name, int(fd)), pairs
    return [int(fd) for _, _, fd in pairs]


def einhorn_fds():
    assert int(ENV["EINHORN_MASTER_PID"]) == os.getppid()
    assert ENV["EINHORN_CHILD_INDEX"] == ENV["TENURE_WORKER"]
    fds = [int(ENV[f"EINHORN_FD_{i}"]) for i in range(int(ENV["EINHORN_FD_COUNT"]))]
    assert ENV["EINHORN_FDS"] == " ".join(map(str, fds))
    for i, fd in enumerate(fds):
        family = socket.socket(fileno=os.dup(fd)).family
        assert ENV[f"EINHORN_FD_FAMILY_{i}"] == family.name
    return fds


def acked(message, by):
    """What einhorn's clients do: by its path, or on the descriptor that is there already."""
    data = message.encode()
    if by == "fd":
        os.write(int(ENV["EINHORN_SOCK_FD"]), data)
        os.close(int(ENV["EINHORN_SOCK_FD"]))
        return
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(ENV["EINHORN_SOCK_PATH"])
        control.sendall(data)


def einhorn():
    return einhorn_fds(), lambda: acked(json.dumps({"command": "worker:ack", "pid": os.getpid()}) + "\n", "path")


def einhorn_hoard():
    """Takes all that it can of what others need, too."""
    found, ready = einhorn()
    hoard = []
    for _ in range(4200):
        hoard.append(socket.socket(socket.AF_UNIX))
        hoard[-1].connect(ENV["EINHORN_SOCK_PATH"])
    globals()["hoard"] = hoard
    ENV["HOARD"] = str(len(hoard))
    return found, lambda: None


def einhorn_late():
    """Its parent was replaced while it started: what a client that does not look at that says."""
    text = json.dumps({"command": "worker:ack", "pid": os.getpid()}) + "\n"
    return [int(ENV["EINHORN_FD_0"])], lambda: acked(text, "path")


def einhorn_yaml():
    """As its Ruby client writes it."""
    text = f"---\ncommand: worker:ack\npid: {os.getpid()}\n".replace("%", "%25").replace("\n", "%0A")
    return einhorn_fds(), lambda: acked(text + "\n", "path")


def einhorn_fd():
    return einhorn_fds(), lambda: acked(f'{{"command":"worker:ack","pid":{os.getpid()}}}\n', "fd")


def einhorn_silent():
    return einhorn_fds()


def nginx():
    assert ENV["NGINX"].endswith(";")
    return [int(fd) for fd in ENV["NGINX"].split(";")[:-1]]


def unicorn():
    return [int(fd) for fd in ENV["UNICORN_FD"].split(",")]


def gunicorn():
    assert int(ENV["GUNICORN_PID"]) == os.getppid()
    return [int(fd) for fd in ENV["GUNICORN_FD"].split(",")]


def puma():
    fds = []
    for name, value in ENV.items():
        if name.startswith("PUMA_INHERIT_"):
            fd, url = value.split(":", 1)
            scheme, rest = url.split("://", 1)
            assert scheme in ("tcp", "unix") and is_name_of(rest, int(fd)), value
            fds.append(int(fd))
    return fds


def php_fpm():
    pairs = [pair.rpartition("=") for pair in ENV["FPM_SOCKETS"].split(",")]
    for name, _, fd in pairs:
        assert is_name_of(name, int(fd)), pairs
    return [int(fd) for _, _, fd in pairs]


def uwsgi():
    assert ENV["UPSTART_EVENTS"] == "socket"
    return [int(ENV["UPSTART_FDS"])]


def words():
    """Of the command line: {fd:NAME}, or circus's."""
    return [int(word) for word in sys.argv[2:]]


def stdin():
    return [0]


def notification_fd():
    """s6: the listener is descriptor 0, and a newline on 3 says ready."""
    return [0], lambda: (os.write(3, b"up\n"), os.close(3))


def pipevar():
    """dinit's pipevar: anything on the descriptor that a variable names."""
    return dinit(), lambda: os.write(int(ENV["READY_FD"]), b"x")


def half_a_word():
    """s6 again: what has no newline is not yet the word."""
    if ENV["TENURE_GENERATION"] == "1":  # there is no such descriptor yet
        return [0]
    return [0], lambda: os.write(3, b"almost")


def everything():
    """Several at once: all say the same."""
    one = listen_fds()
    for other in (server_starter, einhorn_fds, nginx, unicorn, gunicorn, puma, php_fpm, words):
        assert other() == one, other
    assert os.fstat(0).st_ino == os.fstat(3).st_ino
    return one


def serve(connection, body, told):
    """Told to end, it answers once more on each connection."""
    with connection:
        text = b""
        while True:
            while b"\r\n\r\n" not in text:
                more = connection.recv(65536)
                if not more:
                    return
                text += more
            head, _, text = text.partition(b"\r\n\r\n")
            last = told["signal"] is not None or b"connection: close" in head.lower()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nX-Tenure-Generation: " + ENV["TENURE_GENERATION"].encode()
                + b"\r\nContent-Length: " + str(len(body)).encode()
                + (b"\r\nConnection: close" if last else b"") + b"\r\n\r\n" + body
            )
            if last:
                return


def main():
    found = globals()[sys.argv[1].replace("-", "_")]()
    fds, ready = found if isinstance(found, tuple) else (found, None)
    listeners = [socket.socket(fileno=fd) for fd in fds]
    told = {"signal": None}

    def on_signal(number, _):
        told["signal"] = signal.Signals(number).name

    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, on_signal)
    body = json.dumps({"fds": fds, "env": dict(ENV)}).encode()
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    for one in listeners:
        one.setblocking(False)
        poll.register(one, select.POLLIN)
    by_fd = {one.fileno(): one for one in listeners}
    if ready:
        ready()
    while not told["signal"]:
        for fd, _ in poll.poll():
            try:
                connection, _ = by_fd[fd].accept() if fd != woken else (None, None)
            except BlockingIOError:
                continue
            if connection:
                connection.setblocking(True)
                threading.Thread(target=serve, args=(connection, body, told), daemon=True).start()
    print("told to end by", told["signal"], flush=True)
    # Of a queue that the next one shares something may have been taken just now.
    deadline = time.monotonic() + 5
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(max(deadline - time.monotonic(), 0))


main()
