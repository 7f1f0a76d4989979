# SPDX-License-Identifier: Apache-2.0
"""Socket units: what they hold is served from the first connection on, upgraded like our own sockets, and
goes back as it came."""

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

import machine
from daemon import worker_service
from harness import assert_clean, free_port, http_get, wait_until
from udp import UdpLoad, ask, assert_none_lost
from unit import web_config
from upgrades import quick

SYS_PIDFD_GETFD = 438


def socket_unit(name, listen, service="tenured.service", fd_name="http", more=""):
    """Written and started: listens, and starts the service when somebody comes."""
    lines = "".join(f"Listen{kind}={address}\n" for kind, address in listen)
    machine.write_unit(
        f"test-{name}.socket",
        f"[Socket]\n{lines}FileDescriptorName={fd_name}\nService={service}\n{more}",
    )
    machine.systemctl("start", f"test-{name}.socket")


def inheriting(*names, **keys):
    return web_config({name: {"inherit": name} for name in names}, **keys)


def listeners(one):
    return {entry["name"]: entry for entry in one.call("Listeners", service="web")["listeners"]}


def state_of(unit):
    return machine.show(unit, "ActiveState")


class Held:
    """systemd's own descriptor of a listening address, by which it can be looked at."""

    def __init__(self, port):
        inode = self._inode(port)
        for fd in Path("/proc/1/fd").iterdir():
            if os.readlink(fd) == f"socket:[{inode}]":
                pidfd = os.pidfd_open(1)
                number = ctypes.CDLL(None).syscall(SYS_PIDFD_GETFD, pidfd, int(fd.name), 0)
                os.close(pidfd)
                self.socket = socket.socket(fileno=number)
                return
        raise AssertionError(f"systemd has no socket of port {port}")

    @staticmethod
    def _inode(port):
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port and fields[7] == "0":
                inode = fields[9]
                if any(os.readlink(fd) == f"socket:[{inode}]" for fd in Path("/proc/1/fd").iterdir()):
                    return inode
        raise AssertionError(f"nobody listens on port {port}")

    def look(self):
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
        return {
            "reuseport": self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
            "flags": os.get_blocking(self.socket.fileno()),
            # tcpi_sacked of a listening socket is its backlog.
            "backlog": int.from_bytes(info[28:32], sys.byteorder),
        }


def members(port):
    """How many sockets listen on the port."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return sum(f[3] == "0A" and int(f[1][9:], 16) == port for f in map(str.split, lines))


@pytest.mark.sanitize
def test_the_first_connection(unit, load):
    """Nothing runs until somebody comes, and whoever came is answered; then load, upgrades, a restart and a
    stop, and the next connection begins it all again."""
    port = free_port()
    one = unit(inheriting("http", workers=2), start=False)
    socket_unit("http", [("Stream", f"127.0.0.1:{port}")], more="Backlog=77\n")
    given = Held(port)
    before = given.look()
    assert before["backlog"] == 77 and one.show("ActiveState") == "inactive"
    for _ in range(2):
        assert http_get(port, timeout=20).generation == 1
        one.wait_state("active")
        entry = listeners(one)["http"]
        assert (entry["origin"], entry["kind"]) == ("inherited", "group"), entry
        running = load(port, clients=8)
        running.wait_for(generation=1, count=100)
        one.upgrade()
        running.wait_for(generation=2, count=100)
        one.wait_generation_gone(1)
        pids = sorted(one.pids())
        one.systemctl("restart")
        assert sorted(one.pids()) == pids
        running.wait_more(100)
        one.upgrade()
        running.wait_for(generation=3)
        assert_clean(running.stop(), 300, generations=[1, 2, 3])
        one.stop()
        assert given.look() == before
        assert members(port) == 1
        assert state_of("test-http.socket") == "active"


def test_stop_under_load(unit, load):
    """Whoever comes while it stops and starts again waits in the queue of systemd's socket."""
    port = free_port()
    one = unit(inheriting("http", workers=2), start=False)
    socket_unit("http", [("Stream", f"127.0.0.1:{port}")], more="TriggerLimitIntervalSec=0\n")
    running = load(port, clients=8, timeout="20s")
    running.wait_for(generation=1, count=100, timeout=40)
    for _ in range(3):
        one.systemctl("stop")
        running.wait_more(100)
    one.wait_state("active")
    assert_clean(running.stop(), 400, generations=[1])


def test_every_kind_under_one_name(unit, load, tmp_path):
    """Several addresses of one socket unit, and each of its kinds."""
    port = free_port()
    folder = Path("/run/test-kinds")
    kinds = [
        ("Stream", f"127.0.0.1:{port}"),
        ("Stream", f"[::1]:{port}"),
        ("Datagram", f"127.0.0.1:{port}"),
        ("Stream", folder / "stream"),
        ("SequentialPacket", folder / "packets"),
        ("Datagram", folder / "datagrams"),
    ]
    one = unit(inheriting("all", workers=1, ready="notify"), start=False)
    socket_unit("all", kinds, fd_name="all", more="Backlog=55\n")
    clients = [load(address, clients=2) for address in (port, ("::1", port), f"unix:{folder / 'stream'}")]
    datagrams = UdpLoad(tmp_path, port).start()
    try:
        one.start()
        entries = one.call("Listeners", service="web")["listeners"]
        kinds_seen = [entry["address"].split(":")[0] for entry in entries]
        assert kinds_seen == ["tcp", "tcp", "udp", "unix", "unix-seqpacket", "unix-dgram"]
        assert len({entry["name"] for entry in entries}) == len(entries)
        by_kind = [entry["kind"] for entry in entries]
        assert by_kind == ["group"] * 3 + ["held"] * 3
        assert all("Unix sockets have one queue" in entry["reason"] for entry in entries[3:])
        for generation in range(1, 5):
            for client in (*clients, datagrams):
                client.wait_for(generation=generation)
            # The kernel gives datagrams of one queue to whoever reads first.
            assert ask_packets(folder / "packets") in (generation - 1, generation)
            assert ask_datagrams(folder / "datagrams", tmp_path) in (generation - 1, generation)
            if generation < 4:
                one.upgrade()
                one.wait_generation_gone(generation)
        for client in clients:
            assert_clean(client.stop(), 20)
        assert_none_lost(one, datagrams.stop(), 20, name=entries[2]["name"])
    finally:
        datagrams.kill()
    one.stop()
    assert (folder / "datagrams").is_socket() and (folder / "packets").is_socket()
    # As it came: what is sent waits.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", str(folder / "datagrams"))
    wait_until(lambda: one.show("ActiveState") == "active", 20, "the datagram to start the service")


def ask_packets(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        data = b""
        while b"\r\n\r\n" not in data:
            part = client.recv(65536)
            assert part, data
            data += part
    headers = data.decode().lower().split("\r\n")
    return int(next(line.split(":")[1] for line in headers if line.startswith("x-tenure-generation")))


def ask_datagrams(path, directory):
    own = directory / "client"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.bind(str(own))
        try:
            client.sendto(b"x", str(path))
            return int(client.recv(2048).split()[0])
        finally:
            own.unlink()


def test_packaged_socket(unit, load):
    """tenured.socket as it is installed, at another port."""
    port = free_port()
    machine.drop_in("tenured.socket", f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n")
    one = unit(inheriting("http"), start=False)
    machine.systemctl("start", "tenured.socket")
    assert http_get(port, timeout=20).generation == 1
    one.wait_state("active")
    running = load(port, clients=4)
    one.upgrade()
    running.wait_for(generation=2)
    assert_clean(running.stop(), 10)


def test_packaged_socket_of_an_instance(unit, load):
    one = unit(inheriting("http", ready="notify"), name="blog", start=False)
    machine.systemctl("start", "tenured@blog.socket")
    address = "unix:/run/tenured/blog.http.sock"
    assert http_get(address, timeout=20).generation == 1
    one.wait_state("active")
    running = load(address, clients=4)
    one.systemctl("reload")
    running.wait_for(generation=2)
    assert_clean(running.stop(), 10)
    one.stop()
    assert http_get(address, timeout=20).generation == 1


def test_several_units(unit, load):
    """Each with its name; two services share what came."""
    ports = {name: free_port() for name in ("http", "admin")}
    one = unit(inheriting("http"), start=False)
    one.config["services"]["admin"] = worker_service({"admin": {"inherit": "admin"}}, upgrade=quick())
    one.write_config()
    for name, port in ports.items():
        socket_unit(name, [("Stream", f"127.0.0.1:{port}")], fd_name=name)
    one.start()
    running = [load(port, clients=4) for port in ports.values()]
    for service in ("web", "admin"):
        one.upgrade(service)
    for client in running:
        client.wait_for(generation=2)
        assert_clean(client.stop(), 10)


def test_what_did_not_come(unit):
    """And what came unasked: each is said, with the remedy."""
    port = free_port()
    one = unit(inheriting("https"), start=False)
    one.config["services"]["other"] = worker_service(free_port())
    one.write_config()
    socket_unit("http", [("Stream", f"127.0.0.1:{port}")])
    one.start()
    status = one.systemctl("status", "--lines=30").stdout
    for part in ('no socket "https" came, but "http"', "FileDescriptorName=https", 'the socket "http"',
                 "inherit: http"):
        assert part in status, status
    assert "web fails" in one.status_text
    assert "did not come" in one.status_text or "no socket" in one.status_text, one.status_text


@pytest.mark.parametrize("hardened", [False, True])
def test_whose_socket_it_is(unit, load, hardened):
    """systemd's sockets are root's: an unprivileged daemon cannot join them, which it says; nothing is lost
    all the same."""
    port = free_port()
    one = unit(inheriting("http", workers=2), name="hardened" if hardened else None, start=False)
    socket_unit("http", [("Stream", f"127.0.0.1:{port}")], service=one.unit)
    running = load(port, clients=4, timeout="20s")
    running.wait_for(generation=1, count=50)
    one.wait_state("active")
    entry = listeners(one)["http"]
    if hardened:
        assert entry["kind"] == "held" and "another user's socket" in entry["reason"], entry
    else:
        assert entry["kind"] == "group", entry
    for generation in range(2, 5):
        one.upgrade()
        running.wait_for(generation=generation)
        one.wait_generation_gone(generation - 1)
    pids = sorted(one.pids())
    one.systemctl("restart")
    assert sorted(one.pids()) == pids
    running.wait_more(50)
    assert_clean(running.stop(), 100)


def test_killed(unit, load):
    """SIGKILL of the daemon: systemd starts the next one with the same sockets, and the workers serve on."""
    port = free_port()
    one = unit(inheriting("http", workers=2), start=False)
    socket_unit("http", [("Stream", f"127.0.0.1:{port}")])
    running = load(port, clients=8, timeout="20s")
    running.wait_for(generation=1, count=50)
    one.wait_state("active")
    pids = sorted(one.pids())
    for _ in range(3):
        before = one.pid
        os.kill(before, signal.SIGKILL)
        wait_until(lambda b=before: one.pid not in (0, b), 20, "the next daemon")
        one.wait_state("active")
        assert sorted(one.pids()) == pids
        running.wait_more(50)
    one.upgrade()
    running.wait_for(generation=2)
    assert_clean(running.stop(), 200)
