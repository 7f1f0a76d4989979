# SPDX-License-Identifier: Apache-2.0
"""What the tests of datagrams share: numbered load whose every echo is waited for, services that
answer it, and sockets that come from outside as from a service manager."""

import socket
import sys
import time

from daemon import Manners, worker_service
from harness import LOAD, Load, assert_clean, free_port, program, wait_until
from upgrades import quick

LOAD_UDP = program("TENURE_LOAD_UDP", "tests/load_udp")

# Numbers the descriptors from 3 on, and says so in the pid that it keeps: `names` has a name for each.
PASS_SOCKETS = """
import os, sys
pairs, command = sys.argv[1], sys.argv[2:]
names, fds = zip(*((n, int(fd)) for n, fd in (p.rsplit("=", 1) for p in pairs.split(","))))
high = [os.dup(fd) for fd in fds]
while min(high) < 3 + len(high):
    high = [os.dup(fd) for fd in high]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, True)
    os.close(fd)
os.environ["LISTEN_FDS"] = str(len(fds))
os.environ["LISTEN_FDNAMES"] = ":".join(names)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(command[0], command)
"""


class UdpLoad(Load):
    """load_udp in the background; used like Load. Its "failed" are lost datagrams, those that were
    refused, and second answers."""

    def __init__(self, directory, address, **options):
        options.setdefault("sockets", 16)
        super().__init__(directory, address, **options)
        self.command[self.command.index(LOAD)] = LOAD_UDP


def udp_service(port, *options, host="127.0.0.1", sockets="shared", manners=None, listen=None, **keys):
    """The test worker's echo, on one UDP listener called "dns"."""
    key = {"address": f"udp:{host}:{port}", "sockets": sockets, **(listen or {})}
    keys.setdefault("ready", "notify")
    keys.setdefault("upgrade", quick())
    return worker_service({"dns": key}, *options, manners=manners, **keys)


def udp_web(daemon, *options, start=True, netns=None, **keys):
    """A daemon with one such service, "web"; .port and .manners as those of `web`."""
    new = daemon(start=False, netns=netns)
    new.port = keys.pop("port", None) or free_port()
    new.manners = Manners(new.directory)
    service = udp_service(new.port, *options, manners=new.manners, **keys)
    new.config = {"services": {"web": service}}
    new.write_config()
    if start:
        new.start()
        new.wait_serving()
    return new


def listeners(one, service="web"):
    return {entry["name"]: entry for entry in one.call("Listeners", service=service)["listeners"]}


def dropped(one, name="dns"):
    return sum(queue["dropped"] for queue in listeners(one)[name]["queue"])


def assert_none_lost(one, result, min_requests=1, generations=None, name="dns"):
    """None got lost on the way, and the kernel dropped none: a full buffer is no excuse."""
    assert dropped(one, name) == 0, listeners(one)
    assert_clean(result, min_requests, generations)


def ask(port, text="x", host="127.0.0.1", timeout=5.0, source=None):
    """One datagram; (generation, worker, pid, text) of its echo."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        if source:
            client.bind((source, 0))
        client.settimeout(timeout)
        client.sendto(text.encode(), (host, port))
        generation, worker, pid, rest = client.recv(2048).decode().split(" ", 3)
        return int(generation), int(worker), int(pid), rest


def wait_answer(port, **more):
    """Until somebody answers."""

    def answer():
        try:
            return ask(port, timeout=0.3, **more)
        except OSError:
            return None

    return wait_until(answer, 15, "an answer")


# ---- sockets from outside ----


def bound(kind, address, reuse_port=False, listen=128):
    """A socket as a service manager makes it. kind: "udp", "tcp" or "unix"; address as for bind()."""
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    new = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    if kind == "tcp":
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    new.bind(address)
    if kind != "udp":
        new.listen(listen)
    return new


def passing(daemon, sockets, config=None, start=True, wrap=()):
    """A daemon that gets these sockets: a list of (name, socket)."""
    pairs = ",".join(f"{name}={one.fileno()}" for name, one in sockets)
    new = daemon(config, start=False, wrap=[*wrap, sys.executable, "-c", PASS_SOCKETS, pairs])
    new.spawn["pass_fds"] = tuple(one.fileno() for _, one in sockets)
    if start:
        new.start()
    return new


def pause(seconds):
    """For what must not happen, there is nothing to wait for."""
    time.sleep(seconds)
