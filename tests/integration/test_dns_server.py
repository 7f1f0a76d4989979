# SPDX-License-Identifier: Apache-2.0
"""A real name server that takes inherited sockets: unbound with use-systemd, on UDP and TCP, upgraded
under a load of questions of which none may stay without an answer."""

import json
import shlex
import shutil
import socket
import struct
from pathlib import Path

import pytest

from daemon import ROLLED_BACK
from harness import IS_ROOT, assert_clean, free_port
from processes import fd_list
from udp import bound, listeners, passing

UNBOUND = shutil.which("unbound")
CONF = Path(__file__).resolve().parents[2] / "conf"
NAME, ADDRESS = "www.example.test", "192.0.2.7"

needs_unbound = pytest.mark.skipif(not UNBOUND, reason="unbound is not installed")

def unbound_command(path):
    """unbound takes LISTEN_FDS only where sd_booted(3) says that systemd runs."""
    command = f"exec {shlex.quote(UNBOUND)} -d -p -c {shlex.quote(str(path))}"
    if Path("/run/systemd/system").is_dir():
        return ["/bin/sh", "-c", command]
    if not IS_ROOT:
        pytest.skip("unbound takes sockets only where systemd runs; root can make it believe so")
    pretend = "mount -t tmpfs none /run && mkdir -p /run/systemd/system"
    return ["unshare", "--mount", "/bin/sh", "-c", f"{pretend} && {command}"]


def write_config(one, more=""):
    """unbound's, as the example has it, on a port of this test."""
    text = (CONF / "unbound.conf").read_text().replace("5335", str(one.port))
    (one.directory / "unbound.conf").write_text(text.replace("remote-control:", f"  {more}\nremote-control:"))


def example(one):
    """conf/unbound.yaml, on a port of this test, and quick."""
    text = (CONF / "unbound.yaml").read_text()
    for old, new in (
        ("5335", str(one.port)),
        ("command: unbound -d -p -c unbound.conf", f"command: {json.dumps(unbound_command('unbound.conf'))}"),
        ("soak: 1s", "soak: 0s"),
    ):
        assert old in text
        text = text.replace(old, new)
    text += "    drain: {settle: 100ms, timeout: 10s}\n    restart: {limit: {starts: 2}}\n"
    return text + f"control: {{socket: {one.socket_path}}}\n"


def inheriting():
    return {
        "command": unbound_command("unbound.conf"),
        "listen": {"dns": {"inherit": "dns"}},
        "ready": "notify",
        "upgrade": {"strategy": "blue-green", "soak": "0s"},
        "drain": {"settle": "100ms", "timeout": "10s"},
    }


def ask_by_tcp(port):
    """The address in the answer to one question."""
    question = struct.pack(">6H", 77, 0x100, 1, 0, 0, 0)
    question += b"".join(bytes([len(part)]) + part.encode() for part in NAME.split("."))
    question += b"\0" + struct.pack(">2H", 1, 1)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(struct.pack(">H", len(question)) + question)
        answer = client.recv(1024)
    return socket.inet_ntoa(answer[-4:])


@pytest.fixture
def questions(udp_load):
    """udp_load() of questions for NAME."""
    return lambda port, **options: udp_load(port, dns=NAME, **options)


def assert_only_ours(one):
    """unbound would bind sockets of its own, and share the port, had it not taken those it was given."""
    ours = set(fd_list(one.pid).values())
    lines = Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]
    bound_there = [line.split() for line in lines]
    inodes = [word[9] for word in bound_there if int(word[1].split(":")[1], 16) == one.port]
    assert inodes and all(f"socket:[{inode}]" in ours for inode in inodes), (inodes, ours)


def upgrade_often(one, load, n):
    for number in range(2, n + 2):
        one.upgrade("dns")
        load.wait_more(200)
        assert ask_by_tcp(one.port) == ADDRESS
        one.wait_generation_gone(number - 1, "dns")


@needs_unbound
@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_unbound(daemon, questions, sockets):
    """The example, upgraded ten times; an eleventh that unbound itself refuses gets no question."""
    one = daemon(start=False)
    one.port = free_port()
    write_config(one)
    one.write_config(example(one).replace("sockets: per-worker", f"sockets: {sockets}"))
    one.start()
    one.wait_serving("dns", timeout=30)
    load = questions(one.port, rate=4000, sockets=32)
    load.wait_for(ok=500)
    assert_only_ours(one)
    upgrade_often(one, load, 10)
    write_config(one, more="no-such-option: yes")
    one.upgrade("dns", check=ROLLED_BACK)
    load.wait_more(200)
    result = load.stop()
    assert all(q["dropped"] == 0 for entry in listeners(one, "dns").values() for q in entry["queue"])
    assert_clean(result, 2000)


@needs_unbound
def test_unbound_inherits(daemon, questions):
    """From a socket unit, as it were, through us, to unbound."""
    port = free_port()
    given = [bound("udp", ("127.0.0.1", port)), bound("tcp", ("127.0.0.1", port))]
    one = passing(daemon, [("dns", one) for one in given], start=False)
    one.port = port
    write_config(one)
    one.config = {"services": {"dns": inheriting()}}
    one.write_config()
    one.start()
    one.wait_serving("dns", timeout=30)
    assert {entry["kind"] for entry in listeners(one, "dns").values()} == {"group"}
    load = questions(port, rate=4000, sockets=32)
    load.wait_for(ok=500)
    assert_only_ours(one)
    upgrade_often(one, load, 5)
    assert_clean(load.stop(), 1000)
    for each in given:
        each.close()
