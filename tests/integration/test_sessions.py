# SPDX-License-Identifier: Apache-2.0
"""Clients that stay connected: their established TCP connections, and the state of their sessions in a
memfd, go from process to process: by LISTEN_FDS at a start, or by the channel to one that runs already."""

import os
import signal
import sys

import pytest
from harness import connect, free_port, wait_until
from own_keeper import OwnKeeper
from processes import is_alive
from upgrades import quick

CLIENTS = 5

# Each line on a connection is answered by one: generation, pid, and the session's number of lines, which is
# in the memfd. One way is sd_notify's alone: stored when it is accepted, found behind the listener by whoever
# is started next. The other is the channel's: stored when the worker is told to drain.
WORKER = r"""
import os, selectors, signal, socket, struct, sys
by_channel = sys.argv[1] == "channel"
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
channel = socket.socket(fileno=int(os.environ["TENURE_CHANNEL"])) if by_channel else None
assert os.environ["LISTEN_PID"] == str(os.getpid())
names = os.environ["LISTEN_FDNAMES"].split(":")
assert names[0] == "http" and int(os.environ["LISTEN_FDS"]) == len(names)
waiting = selectors.DefaultSelector()
clients, over = {}, []

def store(name, fd, more=""):
    if by_channel:
        socket.send_fds(channel, [f"tenure/1 store\nname={name}\n{more and 'poll=0'}\n".encode()], [fd])
    else:
        socket.send_fds(notify, [f"FDSTORE=1\nFDNAME={name}\n{more and 'FDPOLL=0'}".encode()], [fd])

def add(client):
    client.setblocking(True)
    clients[client.getpeername()[1]] = client
    waiting.register(client, selectors.EVENT_READ, "client")

state = None
for i, name in enumerate(names[1:], 4):
    if name == "state":
        state = i
    else:
        assert name == "client"
        add(socket.socket(fileno=i))
if state is None:
    state = os.memfd_create("state")
    os.ftruncate(state, 65536 * 4)
    store("state", state, "kept")

listener = socket.socket(fileno=3)
listener.setblocking(False)
waiting.register(listener, selectors.EVENT_READ, "listener")
if by_channel:
    channel.send(b"tenure/1 hello\nversion=1\naccepts=drain descriptors\n")
    channel.send(b"tenure/1 unstore\nname=client\n")
    waiting.register(channel, selectors.EVENT_READ, "channel")
woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.set_wakeup_fd(wake)
signal.signal(signal.SIGTERM, lambda *_: over.append(1))
waiting.register(woken, selectors.EVENT_READ, "signal")
notify.send(b"READY=1")

def accept():
    try:
        client, _ = listener.accept()
    except BlockingIOError:
        return
    if not by_channel:
        store("client", client.fileno())
    add(client)

def answer(client):
    line = client.recv(100)
    if not line:
        waiting.unregister(client)
        client.close()
        return
    assert line == b"line\n"
    place = client.getpeername()[1] * 4
    count = struct.unpack("I", os.pread(state, 4, place))[0] + 1
    os.pwrite(state, struct.pack("I", count), place)
    client.sendall(f"{os.environ['TENURE_GENERATION']} {os.getpid()} {count}\n".encode())

def hear():
    data, fds, _, _ = socket.recv_fds(channel, 4096, 253)
    kind = data.decode().split("\n")[0].split(" ")[1] if data else "end"
    if kind == "stored":
        for fd in fds:
            add(socket.socket(fileno=fd))
        channel.send(b"tenure/1 unstore\nname=client\n")
    elif kind == "drain":
        over.append(1)
    elif kind == "end":
        waiting.unregister(channel)

while not over:
    for key, _ in waiting.select():
        if key.data == "listener":
            accept()
        elif key.data == "client":
            answer(key.fileobj)
        elif key.data == "channel":
            hear()
if by_channel:
    for client in clients.values():
        if client.fileno() >= 0:
            store("client", client.fileno())
"""


def ask(client):
    """Generation, pid, count."""
    client.sendall(b"line\n")
    text = b""
    while not text.endswith(b"\n"):
        more = client.recv(100)
        assert more, "the connection ended"
        text += more
    return tuple(map(int, text.split()))


class Sessions:
    def __init__(self, one, clients):
        self.one, self.clients, self.count = one, clients, 0

    def ask_all(self, generation, n=1):
        """Every one is where it was, and is answered by that generation: a set of pids."""
        pids = set()
        for _ in range(n):
            self.count += 1
            for client in self.clients:
                said = ask(client)
                assert said[0] == generation and said[2] == self.count, (said, self.count)
                pids.add(said[1])
        return pids

    def upgrade(self, generation):
        self.one.upgrade("web")
        self.one.wait_generation_gone(generation - 1, "web")
        self.ask_all(generation, 3)


@pytest.mark.parametrize("way", ["listen-fds", "channel"])
def test_connections_and_their_state(no_strays, way):  # pylint: disable=unused-argument
    """Over an upgrade, the daemon's SIGKILL, its replacement of itself; and, where they are stored from the
    start, over the worker's SIGKILL, with and without the daemon's."""
    one = OwnKeeper()
    port = free_port()
    web = {
        "command": [sys.executable, "-c", WORKER, way],
        "listen": {"http": f"127.0.0.1:{port}"},
        "handoff": way,
        "ready": "notify",
        "workers": 1,
        "upgrade": quick(),
        "drain": {"settle": "50ms", "idle_wait": "0s", "timeout": "10s"},
    }
    one.config = {"services": {"web": web}}
    one.write_config()
    with one:
        one.wait_serving("web")
        sessions = Sessions(one, [connect(port, timeout=20) for _ in range(CLIENTS)])
        sessions.ask_all(1)
        sessions.upgrade(2)
        pids = sessions.ask_all(2)
        one.crash_daemon()
        assert sessions.ask_all(2) == pids
        sessions.upgrade(3)
        pids = sessions.ask_all(3)
        one.ctl("reexec")
        assert sessions.ask_all(3) == pids
        sessions.upgrade(4)
        if way == "listen-fds":
            crash_worker(one, sessions, 4, False)
            crash_worker(one, sessions, 4, True)
            sessions.upgrade(5)
        for client in sessions.clients:
            client.close()


def crash_worker(one, sessions, generation, with_daemon):
    pid = sessions.ask_all(generation).pop()
    os.kill(pid, signal.SIGKILL)
    if with_daemon:
        one.crash_daemon()
    wait_until(lambda: not is_alive(pid), 10, "its end")
    one.wait_serving("web")
    assert sessions.ask_all(generation, 2) != {pid}
