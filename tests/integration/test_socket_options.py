# SPDX-License-Identifier: Apache-2.0
"""Socket options as keys of a listener: they reach every socket, can be read back, change while traffic
flows; what the kernel refuses is explained and changes nothing. And why a port cannot be bound."""

import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from canaries import at_listener_of
from daemon import BAD_CONFIG, FAILED, worker_service
from harness import (
    TENURECTL, TENURED, Program, assert_clean, connect, free_port, has_ipv6, http_get, wait_until,
)  # fmt: skip
from netns import Netns
from test_config_cli import NOBODY, nobody_wrap
from upgrades import CLIENTS, quick, web_config

MANY = {
    "backlog": 1000,
    "keepalive": True,
    "keepidle": "1m",
    "keepintvl": "10s",
    "keepcnt": 6,
    "linger": "5s",
    "oobinline": True,
    "rcvbuf": "128K",
    "sndbuf": "64K",
    "rcvlowat": 1,
    "sndtimeo": "30s",
    "tos": 40,
    "ttl": 60,
    "incoming_cpu": 0,
    "nodelay": True,
    "fastopen": 64,
    "congestion": "reno",
    "user_timeout": "30s",
    "maxseg": 1400,
    "freebind": True,
    "nonblocking": True,
}
PRIVILEGED = {"mark": 7, "debug": True, "rcvbuf_force": "9M", "priority": 7}


def options_of(one, name="http"):
    """{(key, kernel's name): (wanted, actual, note)} as tenurectl tells it."""
    listeners = one.ctl("listeners", json=True).json["listeners"]
    (entry,) = [entry for entry in listeners if entry["name"] == name]
    return {(o["key"], o["name"]): (o["wanted"], o["actual"], o["note"]) for o in entry["options"]}


def by_key(one, name="http"):
    return {key: value for (key, _), value in options_of(one, name).items()}


def listen_with(port, options, host="127.0.0.1"):
    return {"http": {"address": f"{host}:{port}", **options}}


# ---- wanted and actual ----


@pytest.mark.sanitize
@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_many_options(web, load, sockets):
    """On every socket, also those that are made by later upgrades."""
    port = free_port()
    options = {**MANY, "sockets": sockets}
    if os.geteuid() == 0:
        options.update(PRIVILEGED)
        del options["rcvbuf"]
    one = web(workers=2, port=port, listen=listen_with(port, options), upgrade=quick())
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    for _ in range(2):
        found = by_key(one)
        for key in options.keys() - {"sockets"}:
            wanted, actual, note = found[key]
            assert wanted is not None and actual is not None, key
            assert wanted == actual or note, (key, found[key])
            assert "changed" not in (note or "") and "differ" not in (note or ""), (key, note)
        assert found["sndbuf"] == ("64K", "128K", "the kernel doubles it")
        assert found["keepidle"] == ("1m", "1m", None)
        assert found["reuseport"][:2] == (None, "true")
        one.upgrade()
        # The other lane's sockets were made anew for it, and the number of workers grows.
        one.ctl("scale", "web", 4)
        one.ctl("restart", "web")
    one.wait_serving(generation=5)
    assert_clean(running.stop(), 200, generations=[1, 2, 3, 4, 5])
    table = one.ctl("listeners").out
    assert "TCP_KEEPIDLE" in table and "the kernel doubles it" in table and "SO_REUSEPORT" not in table


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_both_families(web):
    port = free_port()
    listen = {"http": {"address": f"[::]:{port}", "tos": 40, "ttl": 33, "tclass": 80}}
    one = web(port=port, listen=listen)
    found = options_of(one)
    assert found["tos", "IP_TOS"][:2] == ("40", "40")
    assert found["tclass", "IPV6_TCLASS"][:2] == ("80", "80")
    assert ("tos", "IPV6_TCLASS") not in found
    assert found["ttl", "IP_TTL"][:2] == ("33", "33")
    assert found["ttl", "IPV6_UNICAST_HOPS"][:2] == ("33", "33")
    assert found["priority", "SO_PRIORITY"] == (None, "2", "follows from tos")
    assert http_get(port).status == 200 and http_get(("::1", port)).status == 200


def test_limits_are_explained(web):
    port = free_port()
    rmem_max = int(open("/proc/sys/net/core/rmem_max", encoding="ascii").read())
    somaxconn = int(open("/proc/sys/net/core/somaxconn", encoding="ascii").read())
    options = {"rcvbuf": 2 * rmem_max, "backlog": min(2 * somaxconn, 1 << 20), "defer_accept": "5s"}
    one = web(port=port, listen=listen_with(port, options))
    found = by_key(one)
    assert "net.core.rmem_max is" in found["rcvbuf"][2]
    assert found["backlog"][1:] == (str(somaxconn), f"net.core.somaxconn is {somaxconn}")
    assert found["defer_accept"][:2] == ("5s", "7s") and "rounds up" in found["defer_accept"][2]


# ---- changes ----


@pytest.mark.sanitize
def test_change_under_load(web, load):
    """In place: no new generation, no failed request; what is asked for no more is as by default."""
    port = free_port()
    one = web(workers=2, port=port, listen=listen_with(port, {}), upgrade=quick())
    listen = web_config(one)["listen"]["http"]
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    # The test's worker does not sleep in accept(2), and says so to the kernel.
    by_itself = {"reuseaddr", "reuseport", "nonblocking"}
    assert set(by_key(one)) <= by_itself
    for step in range(6):
        for key in MANY:
            listen.pop(key, None)
        if step % 2 == 0:
            listen.update(MANY, keepidle=f"{60 + step}s", ttl=60 + step)
        one.write_config()
        one.reload()
        found = by_key(one)
        if step % 2 == 0:
            assert found["ttl"][:2] == (str(60 + step),) * 2
            assert found["congestion"][1] == "reno"
            assert all(found[key][0] is not None for key in MANY)
        else:
            assert set(found) <= by_itself, found
        running.wait_more(50)
    assert one.service()["generation"] == 1
    assert_clean(running.stop(), 300, generations=[1])


def test_refused_option_changes_nothing(web, load):
    port = free_port()
    one = web(workers=2, port=port, listen=listen_with(port, {"ttl": 50}), upgrade=quick())
    listen = web_config(one)["listen"]["http"]
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=50)
    for options, text in (
        ({"congestion": "no-such"}, 'listener http: congestion: no-such (TCP_CONGESTION) is refused'),
        ({"bindtodevice": "none9"}, 'there is no network interface "none9" here'),
    ):
        listen.update(options, ttl=51)
        one.write_config()
        assert text in one.reload(check=FAILED).err
        for key in options:
            del listen[key]
    listen["sndlowat"] = 1
    one.write_config()
    refused = one.reload(check=BAD_CONFIG)
    assert "sndlowat cannot be set on Linux" in refused.err and f"{one.config_path}:" in refused.err
    assert by_key(one)["ttl"][:2] == ("50", "50")
    del listen["sndlowat"]
    listen["ttl"] = 52
    one.write_config()
    one.reload()
    assert by_key(one)["ttl"][:2] == ("52", "52")
    assert one.service()["generation"] == 1
    assert_clean(running.stop(), 50, generations=[1])


def test_refused_at_start(daemon):
    one = daemon(start=False)
    one.config = {"services": {"web": worker_service(listen_with(free_port(), {"congestion": "no-such"}))}}
    one.write_config()
    Program.start(one)
    assert one.wait() == FAILED
    one.expect_exit = FAILED
    assert "congestion: no-such (TCP_CONGESTION) is refused: No such file or directory" in one.log
    assert "load the module tcp_no-such" in one.log


def test_check_looks_at_this_machine(daemon):
    """What would be refused here is a warning: the file may be for another machine."""
    one = daemon(start=False)
    options = {"congestion": "no-such", "keepalive": True}
    one.config = {"services": {"web": worker_service(listen_with(free_port(), options), user="root")}}
    one.write_config()
    done = subprocess.run([TENURED, "check", one.config_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning: here and for this user: web: listener http: congestion: no-such" in done.stderr


# ---- those that concern our own work ----


@pytest.mark.parametrize("who", ["configuration", "worker"])
def test_defer_accept(web, load, who):
    """A connection that has not sent anything belongs to the old generation until it does: that one
    settles for so long, also when a worker asked for it by itself. Readiness is found without waiting
    for it."""
    port = free_port()
    begun = time.monotonic()
    options = {"defer_accept": "3s"} if who == "configuration" else {}
    one = web(port=port, listen=listen_with(port, options), upgrade=quick())
    assert time.monotonic() - begun < 10
    if who == "worker":
        defer = (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 3)
        at_listener_of(one.pids()[0], port, lambda s: s.setsockopt(*defer))
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=50)
    late = [connect(port) for _ in range(10)]
    begun = time.monotonic()
    upgrade = subprocess.Popen(
        [TENURECTL, "--socket", str(one.socket_path), "upgrade", "web"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    running.wait_for(generation=2)
    time.sleep(max(0.0, 2.0 - (time.monotonic() - begun)))
    for client in late:
        client.sendall(b"GET / HTTP/1.1\r\nHost: late\r\nConnection: close\r\n\r\n")
    for client in late:
        reply = b""
        while more := client.recv(65536):
            reply += more
        assert b"200" in reply.split(b"\r\n", 1)[0] and b"X-Tenure-Generation: 1" in reply
        client.close()
    assert upgrade.wait(60) == 0, upgrade.stderr.read()
    upgrade.stderr.close()
    one.wait_generation_gone(1)
    # 3s are 3s to the kernel, and one more for the last ones.
    assert time.monotonic() - begun >= 3.9
    assert_clean(running.stop(), 100, generations=[1, 2])
    assert "was reset" not in one.log and "dropped" not in one.log
    told = "generation 1: listener http waits 3 s for the first bytes"
    assert one.log.count(told) == (who == "worker"), one.log


@pytest.mark.root
def test_bound_to_a_device(daemon, load):
    """Readiness is found by the device's own address; who comes by another one does not get in."""
    with Netns() as netns:
        netns.run(["ip", "link", "add", "here0", "type", "veth", "peer", "name", "there0"])
        netns.run(["ip", "address", "add", "10.98.0.1/24", "dev", "here0"])
        netns.run(["ip", "link", "set", "here0", "up"])
        netns.run(["ip", "link", "set", "there0", "up"])
        netns.wait_for_routes("here0")
        one = daemon(start=False, netns=netns)
        listen = {"http": {"address": "0.0.0.0:8080", "bindtodevice": "here0"}}
        one.config = {"services": {"web": worker_service(listen, workers=2, upgrade=quick())}}
        one.write_config()
        one.start()
        one.wait_serving()
        running = load("10.98.0.1:8080", clients=4, netns=netns)
        running.wait_for(ok=50)
        curl = "curl -s -o /dev/null -m 5 http://127.0.0.1:8080/ || echo refused"
        assert "refused" in netns.run(["sh", "-c", curl])
        one.upgrade()
        running.wait_for(generation=2)
        # In place.
        del listen["http"]["bindtodevice"]
        one.write_config()
        one.reload()
        assert "refused" not in netns.run(["sh", "-c", curl])
        one.upgrade()
        running.wait_for(generation=3)
        assert_clean(running.stop(), 100, generations=[1, 2, 3])
        one.stop()


def test_freebind(daemon, load):
    """An address that is not here yet: the service is ready all the same, its other listener serves."""
    port = free_port()
    one = daemon(start=False)
    listen = {"http": f"127.0.0.1:{port}", "later": {"address": f"203.0.113.7:{port}", "freebind": True}}
    one.config = {"services": {"web": worker_service(listen, upgrade=quick())}}
    one.write_config()
    one.start()
    one.wait_serving()
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=50)
    one.upgrade()
    running.wait_for(generation=2)
    assert_clean(running.stop(), 50, generations=[1, 2])


# ---- what is in the way ----


def refused_text(daemon, listen, **more):
    one = daemon(start=False, **more)
    one.config = {"services": {"web": worker_service(listen)}}
    if more.get("wrap"):
        os.chown(one.directory, NOBODY, NOBODY)
    one.write_config()
    Program.start(one)
    assert one.wait() == FAILED, one.log
    one.expect_exit = FAILED
    return one.log


def bound(kind, address):
    holder = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, kind)
    holder.bind(address)
    if kind == socket.SOCK_STREAM:
        holder.listen()
    return holder


@pytest.mark.parametrize(
    "kind,there,wanted",
    [
        ("tcp", "127.0.0.1", "127.0.0.1"),
        ("tcp", "127.0.0.1", "0.0.0.0"),
        ("tcp", "0.0.0.0", "127.0.0.1"),
        ("tcp", "::1", "[::]"),
        ("udp", "127.0.0.1", "0.0.0.0"),
        ("udp", "::", "127.0.0.1"),
    ],
)
def test_who_has_the_port(daemon, kind, there, wanted):
    if ":" in there and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    port = free_port()
    with bound(socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM, (there, port)):
        text = refused_text(daemon, f"{kind}:{wanted}:{port}")
    shown = f"[{there}]" if ":" in there else there
    assert f"bind {kind}:{wanted}:{port}: Address already in use; held by python3" in text, text
    assert f"(pid {os.getpid()}, user " in text and f"(uid {os.getuid()})" in text
    assert f"which listens on {kind}:{shown}:{port}" in text


@pytest.mark.root
def test_port_of_another_user(daemon):
    """Who may not look into the process still learns whose it is, and how to find it."""
    port = free_port()
    with bound(socket.SOCK_STREAM, ("127.0.0.1", port)):
        text = refused_text(daemon, f"127.0.0.1:{port}", wrap=nobody_wrap())
    assert "held by a process of user root (uid 0)" in text and "ss -lntup" in text


def test_port_of_another_service(web):
    """Of the same daemon, bound by a reload."""
    one = web()
    port = free_port()
    one.config["services"]["other"] = worker_service({"http": {"address": f"[::]:{port}"}})
    one.write_config()
    one.reload()
    one.wait_serving("other")
    # What cannot change while it is open.
    one.config["services"]["other"]["listen"]["http"]["v6only"] = True
    one.write_config()
    text = one.reload(check=FAILED).err
    assert "held by the service's own listener http as it was configured" in text
    assert "stop other" in text
    assert one.service("other")["healthy"] and http_get(port).status == 200


@pytest.mark.root
def test_low_port(daemon):
    text = refused_text(daemon, "0.0.0.0:80", wrap=nobody_wrap("unshare", "--net"))
    for part in (
        "ports below 1024 (net.ipv4.ip_unprivileged_port_start)",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "inherit:",
        "a port from 1024 on",
    ):
        assert part in text, text


def test_absent_address(daemon):
    text = refused_text(daemon, f"203.0.113.7:{free_port()}")
    assert "no interface of this machine has that address; write freebind: true" in text
    assert "ip_nonlocal_bind" in text


def test_unix_path(daemon, tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(str(path))
        holder.listen()
        text = refused_text(daemon, f"unix:{path}")
    assert f"python3 (pid {os.getpid()}, user " in text and "answers there" in text
    path.unlink()
    text = refused_text(daemon, f"unix:{tmp_path}/none/deeper/s")
    assert f"there is no directory {tmp_path}/none; make it" in text


@pytest.mark.root
def test_unix_directory_of_another(daemon, tmp_path):
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:-2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    text = refused_text(daemon, f"unix:{tmp_path}/s", wrap=nobody_wrap())
    assert f"may not write to the directory {tmp_path}" in text


def test_each_is_in_the_manual():
    """The table of the code and that of tenured.yaml(5) have the same rows."""
    source = Path(os.environ["top_srcdir"])
    header = (source / "src/core/socket_options.h").read_text(encoding="utf-8")
    manual = (source / "conf/tenured.yaml.5.scd").read_text(encoding="utf-8")
    manual = manual.split("## Socket options of a listener")[1].split("Connections of a TCP listener")[0]
    keys = set(re.findall(r'X\([A-Z0-9_]+, "([a-z0-9_]+)"\)', header))
    rows = re.findall(r"^\|  \*(\S+)\*\n:  (.*)$", manual, re.MULTILINE)
    assert len(keys) > 40 and sorted(keys) == sorted(key.replace("\\", "") for key, _ in rows)
    table = (source / "src/core/socket_options.c").read_text(encoding="utf-8")
    for _, names in rows:
        for name in re.findall(r"[A-Z0-9_]{5,}", names.replace("\\", "")):
            assert name in table, name


# ---- blocking or not ----


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_nonblocking(daemon, tmp_path, kind):
    """Sockets are blocking unless it is asked for; what a worker may rely on is never switched off."""
    port = free_port()
    address = f"127.0.0.1:{port}" if kind == "tcp" else f"unix:{tmp_path}/s"
    # It says what it got, and then serves nobody.
    command = ["/usr/bin/python3", "-c", "import os, time; print(os.get_blocking(3), flush=True); time.sleep(600)"]
    one = daemon({"services": {"web": {
        "command": command, "listen": {"http": {"address": address}},
        "ready": {"by": "delay", "delay": "10ms", "accept": False}, "upgrade": quick(), "drain": {"settle": "10ms", "idle_wait": "0s"},
    }}})  # fmt: skip
    one.wait_serving()
    listen = web_config(one)["listen"]["http"]

    def said(generation):
        return wait_until(
            lambda: (found := re.search(rf"web\.{generation}\.0 \| (True|False)", one.log)) and found[1],
            what="what it got",
        )

    assert said(1) == "True"
    for number, wanted, expected in ((2, True, "False"), (3, None, "False"), (4, False, "False")):
        listen.pop("nonblocking", None)
        if wanted is not None:
            listen["nonblocking"] = wanted
        one.write_config()
        one.reload()
        if number == 2:
            assert by_key(one)["nonblocking"][:2] == ("true", "true")
        one.upgrade()
        # Unix: the same socket. TCP: those of a generation that is gone are used again.
        if kind == "unix" or number == 2:
            assert said(number) == expected
        one.wait_generation_gone(number - 1)
