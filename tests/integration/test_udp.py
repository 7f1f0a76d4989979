# SPDX-License-Identifier: Apache-2.0
"""UDP: whatever is done to a service, every numbered datagram is answered once."""

import os
import signal
import socket

import pytest

from daemon import ROLLED_BACK
from harness import assert_clean, free_port, has_ipv6, http_get, wait_until
from udp import (
    ask,
    assert_none_lost,
    dropped,
    listeners,
    udp_service,
    udp_web,
    wait_answer,
)
from upgrades import generation_times, quick, web_config

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
both_kinds = pytest.mark.parametrize("sockets", ["shared", "per-worker"])


def upgrades(one, running, n, *options):
    first = one.service()["generation"]
    for number in range(first + 1, first + n + 1):
        one.upgrade("web", *options)
        running.wait_for(generation=number)
        one.wait_generation_gone(number - 1)


def next_upgrade(one):
    before = one.service()["generation"]
    one.upgrade()
    one.wait_generation_gone(before)


# ---- upgrades ----


@pytest.mark.sanitize
@both_kinds
def test_20_upgrades(daemon, udp_load, sockets):
    one = udp_web(daemon, workers=2, sockets=sockets)
    entry = listeners(one)["dns"]
    assert entry["kind"] == "group" and entry["address"] == f"udp:127.0.0.1:{one.port}"
    running = udp_load(one.port)
    running.wait_for(generation=1, count=500)
    # What the way back needs of the last releases is kept, and no more.
    upgrades(one, running, 10)
    with one.no_fd_leak(spare=2):
        upgrades(one, running, 10)
    result = running.stop()
    assert_none_lost(one, result, 5000, range(1, 22))
    assert "late datagram" not in one.log


def test_open_loop(daemon, udp_load):
    """At a rate of its own, as clients have that do not wait for each other."""
    one = udp_web(daemon, workers=2, sockets="per-worker", listen={"rcvbuf": "4M"})
    running = udp_load(one.port, rate=20000, sockets=64, window=8)
    running.wait_for(generation=1, count=1000)
    upgrades(one, running, 10)
    assert_none_lost(one, running.stop(), 5000, range(1, 12))


@both_kinds
@pytest.mark.parametrize("strategy", ["rolling", "canary", "recreate"])
def test_strategies(daemon, udp_load, strategy, sockets):
    upgrade = quick(strategy, steps=["10%", "50%"]) if strategy == "canary" else quick(strategy)
    one = udp_web(daemon, workers=3, sockets=sockets, upgrade=upgrade)
    running = udp_load(one.port, timeout="20s")
    running.wait_for(generation=1, count=500)
    upgrades(one, running, 5)
    assert_none_lost(one, running.stop(), 1000, range(1, 7))


@needs_ipv6
@both_kinds
@pytest.mark.parametrize("host", ["[::1]", "[::]"])
def test_ipv6(daemon, udp_load, host, sockets):
    one = udp_web(daemon, workers=2, host=host, sockets=sockets)
    loads = [udp_load(("::1", one.port), sockets=8)]
    if host == "[::]":
        loads.append(udp_load(one.port, sockets=8))
    for running in loads:
        running.wait_for(generation=1, count=200)
    upgrades(one, loads[0], 5)
    for running in loads:
        running.wait_for(generation=6)
        assert_none_lost(one, running.stop(), 500, range(1, 7))


def test_delay_is_the_default_readiness(daemon, udp_load):
    """Nobody can see a worker read: it has two seconds to begin, and no traffic before."""
    one = udp_web(daemon, "--boot-delay", "500ms", ready={"by": "delay", "delay": "1500ms"})
    running = udp_load(one.port)
    running.wait_for(generation=1, count=100)
    upgrades(one, running, 1)
    assert_none_lost(one, running.stop(), 100, [1, 2])
    del web_config(one)["ready"]
    one.write_config()
    resolved = one.ctl("diff", check=None)
    assert resolved.code in (0, 1), resolved


def test_exec_readiness(daemon, udp_load):
    one = udp_web(daemon, ready={"by": "exec", "command": ["true"]})
    running = udp_load(one.port)
    running.wait_for(generation=1, count=100)
    upgrades(one, running, 2)
    assert_none_lost(one, running.stop(), 100, [1, 2, 3])


# ---- what goes wrong ----


@both_kinds
def test_failed_upgrades(daemon, udp_load, sockets):
    one = udp_web(daemon, workers=2, sockets=sockets)
    running = udp_load(one.port)
    running.wait_for(generation=1, count=500)
    # Before it is ready, and by never being ready.
    for options in ("--exit-at-once", "--crash-after 100ms --ready-delay 10s", "--never-ready"):
        one.manners.set(options)
        web_config(one)["ready"] = {"by": "notify", "timeout": "1s"}
        web_config(one)["restart"] = {"limit": {"starts": 2}}
        one.write_config()
        one.upgrade(check=ROLLED_BACK)
        running.wait_more(200)
    one.manners.set()
    one.upgrade()
    newest = one.service()["generation"]
    running.wait_for(generation=newest)
    assert_none_lost(one, running.stop(), 1000, [1, newest])


def test_rollback_and_abort(daemon, udp_load):
    one = udp_web(daemon, workers=2, sockets="per-worker", upgrade=quick("canary", steps=["50%"]))
    running = udp_load(one.port)
    running.wait_for(generation=1, count=200)
    one.upgrade()
    running.wait_for(generation=2, count=200)
    one.wait_generation_gone(1)
    one.ctl("rollback", "web")
    running.wait_for(generation=3, count=200)
    one.upgrade("web", "--pause-at", "50%", "--detach")
    running.wait_for(generation=4, count=50)
    one.ctl("abort", "web")
    one.wait_generation_gone(4)
    running.wait_more(500)
    assert_none_lost(one, running.stop(), 1000, [1, 2, 3, 4])


def test_a_crash_loses_what_was_read(daemon, udp_load):
    """And nothing else: what is in the queue is for whoever comes next."""
    one = udp_web(daemon, workers=2, sockets="per-worker", upgrade=quick("blue-green"))
    running = udp_load(one.port, timeout="3s")
    running.wait_for(generation=1, count=500)
    n_kills = 6
    for i in range(n_kills):
        os.kill(one.workers()[i % 2]["pid"], signal.SIGKILL)
        running.wait_more(200)
        one.wait_serving()
    one.upgrade()
    result = running.stop()
    assert set(result["failures"]) >= {"lost"}
    others = {name: n for name, n in result["failures"].items() if name != "lost" and n}
    # This worker reads one datagram at a time.
    assert not others and result["failures"]["lost"] <= n_kills, result.summary()
    assert dropped(one) == 0


# ---- scaling, and TCP beside it ----


@both_kinds
def test_scale(daemon, udp_load, sockets):
    one = udp_web(daemon, workers=4, sockets=sockets)
    running = udp_load(one.port)
    running.wait_for(generation=1, count=500)
    for n in (1, 8, 2, 4):
        one.ctl("scale", "web", n)
        wait_until(lambda n=n: len(one.pids()) == n, 20, f"{n} workers")
        one.wait_serving()
        running.wait_more(500)
        one.upgrade()
        running.wait_more(100)
    result = running.stop()
    assert_none_lost(one, result, 3000)


def test_tcp_and_udp(daemon, udp_load, load):
    """One service, both protocols on the same port, as a name server has it."""
    port = free_port()
    one = udp_web(daemon, start=False, port=port, workers=2)
    listen = {"dns": f"udp:127.0.0.1:{port}", "tcp": f"127.0.0.1:{port}"}
    web_config(one)["listen"] = listen
    one.write_config()
    one.start()
    one.wait_serving()
    assert {entry["kind"] for entry in listeners(one).values()} == {"group"}
    datagrams, connections = udp_load(port, sockets=8), load(port, clients=4)
    for running in (datagrams, connections):
        running.wait_for(generation=1, count=200)
    for number in range(2, 8):
        one.upgrade()
        for running in (datagrams, connections):
            running.wait_for(generation=number)
    for running in (datagrams, connections):
        assert_none_lost(one, running.stop(), 500, range(1, 8))
    assert http_get(port).generation == 7


# ---- what programs do to sockets ----


def connected_flow(port, peer):
    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    flow.bind(("127.0.0.1", port))
    flow.connect(peer.getsockname())
    flow.settimeout(5)
    return flow


def test_connected_sockets_do_no_harm(daemon, udp_load):
    """A socket of the same user that is bound to the address and connected gets its own peer's
    datagrams; all others go where they would, also when it comes and goes between upgrades."""
    one = udp_web(
        daemon, workers=2, sockets="per-worker", restart={"backoff": {"from": "100ms", "to": "500ms"}}
    )
    running = udp_load(one.port)
    running.wait_for(generation=1, count=500)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(5)
        for _ in range(4):
            flow = connected_flow(one.port, peer)
            # With the old ones gone there are sockets enough; more could not join now.
            next_upgrade(one)
            peer.sendto(b"mine", ("127.0.0.1", one.port))
            assert flow.recv(100) == b"mine"
            running.wait_more(200)
            flow.close()
            next_upgrade(one)
            running.wait_more(200)
        # More workers need more sockets. While these would be caught by the connected one they are not
        # made; then they are.
        flow = connected_flow(one.port, peer)
        one.ctl("scale", "web", 4, "--detach", check=None)
        running.wait_more(500)
        flow.close()
        one.wait_serving()
        assert len(one.pids()) == 4
        running.wait_more(500)
    assert_none_lost(one, running.stop(), 1000, range(1, 10))


@both_kinds
def test_a_socket_that_was_shut_down(daemon, udp_load, sockets):
    """Workers that shut their socket down spoil it for all; others stand in for them, on new ones."""
    one = udp_web(daemon, "--if-generation", "1", "--shutdown-listener", "1s", workers=2, sockets=sockets)
    running = udp_load(one.port)
    running.wait_for(generation=2, count=200, timeout=30)
    assert "shut down the socket of listener dns" in one.log
    assert_clean(running.stop(), 200)
    one.wait_serving()
    assert ask(one.port)[0] >= 2


def test_drops_are_counted(daemon):
    """Nobody reads, and the buffer is small."""
    one = udp_web(daemon, "--never-accept", listen={"rcvbuf": 4096})
    assert dropped(one) == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(200):
            client.sendto(b"x" * 500, ("127.0.0.1", one.port))
    n = dropped(one)
    assert 150 <= n < 200, listeners(one)
    one.wait_log("kernel dropped [0-9]+ datagrams because a queue was full")
    assert [q["waiting"] for q in listeners(one)["dns"]["queue"] if q["dropped"]] == [1]
    text = one.ctl("listeners", "web").out
    assert "DROPPED" in text and str(n) in text, text


def test_drops_of_connections_are_counted(web):
    one = web("--never-accept", ready={"by": "notify", "accept": False}, start=False)
    web_config(one)["listen"] = {"dns": {"address": f"127.0.0.1:{one.port}", "backlog": 2}}
    one.write_config()
    one.start()
    one.wait_serving()
    clients = []
    for _ in range(12):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", one.port))
        clients.append(client)
    wait_until(lambda: dropped(one) > 0, what="a dropped connection")
    one.wait_log("kernel dropped [0-9]+ connection attempts because a queue was full")
    for client in clients:
        client.close()


def test_reload_moves_the_address(daemon, udp_load):
    one = udp_web(daemon, workers=2)
    running = udp_load(one.port)
    running.wait_for(generation=1, count=200)
    port = free_port()
    web_config(one)["listen"]["more"] = f"udp:127.0.0.1:{port}"
    one.write_config()
    one.reload()
    assert wait_answer(port)[0] == 2
    running.wait_for(generation=2)
    assert_none_lost(one, running.stop(), 200)


def test_the_port_is_taken(daemon):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        one = udp_web(daemon, start=False, port=port)
        one.config["services"]["other"] = udp_service(free_port())
        one.write_config()
        one.start()
        one.wait_serving("other")
        failure = one.service("web")["lastFailure"]["reason"]
        assert f"bind udp:127.0.0.1:{port}" in failure, failure
        assert f"pid {os.getpid()}" in failure, failure


def test_each_generation_ends_where_the_next_begins(daemon, udp_load):
    """One setsockopt moves all: none is answered by the old ones long after the first by the new."""
    one = udp_web(daemon, workers=2)
    running = udp_load(one.port)
    running.wait_for(generation=1, count=200)
    upgrades(one, running, 5)
    result = running.stop()
    assert_none_lost(one, result, 500)
    times = generation_times(result)
    for number in range(2, 7):
        overlap = times[number - 1]["last_usec"] - times[number]["first_usec"]
        assert overlap <= 200_000, (number, times)
