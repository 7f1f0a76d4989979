# SPDX-License-Identifier: Apache-2.0
"""Live connections of generations and workers, and the share that was measured beside the one that is
wanted."""

import contextlib
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from canaries import canary, finish, open_canary
from harness import TENURECTL, Program, assert_clean, connect, free_port, wait_until
from processes import descendants
from upgrades import per_worker, quick


def talk(client, path="/"):
    """A request on a connection that stays; the headers of its reply."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        assert more, "the connection was closed"
        data += more
    return data.partition(b"\r\n\r\n")[0].decode()


@contextlib.contextmanager
def connections(address, n):
    """n of them, each accepted: a request was answered on it."""
    clients = []
    try:
        for _ in range(n):
            clients.append(connect(address))
            talk(clients[-1])
        yield clients
    finally:
        for client in clients:
            client.close()


def counts(one, service="web"):
    """By generation, and by worker of each."""
    now = one.service(service)
    return (
        {g["number"]: g["connections"] for g in now["generations"]},
        {(g["number"], w["index"]): w["connections"] for g in now["generations"] for w in g["workers"]},
    )


def wait_counts(one, expected, service="web"):
    """Where the machine has many sockets, counts are used again for a moment. Those of the workers too."""
    found = []

    def counted():
        found[:] = counts(one, service)
        return found[0] == expected

    try:
        wait_until(counted, what="the right counts")
    except AssertionError as error:
        raise AssertionError(f"{found} is not {expected}") from error
    return found[1]


@pytest.mark.sanitize
@pytest.mark.parametrize("listen", ["127.0.0.1:{port}", "[::]:{port}", "[::1]:{port}", "per-worker"])
def test_tcp(web, listen):
    """IPv4, IPv6, IPv4 by a dual-stack socket, shared and per worker; and each worker's own."""
    port = free_port()
    host = "::1" if "::1" in listen else "127.0.0.1"
    one = web(
        workers=3, port=port,
        listen=per_worker(port) if listen == "per-worker" else listen.format(port=port),
    )  # fmt: skip
    wait_counts(one, {1: 0})  # our own probe is gone
    with connections((host, port), 30) as clients:
        of = {}
        for client in clients:
            worker = int(re.search(r"(?i)^x-tenure-worker: (\d+)", talk(client), re.M)[1])
            of[1, worker] = of.get((1, worker), 0) + 1
        workers = wait_counts(one, {1: 30})
        assert workers == {(1, i): of.get((1, i), 0) for i in range(3)}
        for client in clients[:10]:
            client.close()
        wait_counts(one, {1: 20})
    wait_counts(one, {1: 0})


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_unix(web, kind):
    name = f"@tenured-test-{os.getpid()}" if kind == "abstract" else None
    one = web(start=False)
    path = name or str(one.directory / "web.sock")
    one.config["services"]["web"]["listen"] = f"unix:{path}"
    one.config["services"]["web"]["ready"] = {"by": "delay", "delay": "100ms"}
    one.write_config()
    one.start()
    one.wait_serving()
    with connections(f"unix:{path}", 5):
        assert wait_counts(one, {1: 5}) == {(1, 0): 5}
    wait_counts(one, {1: 0})


def test_both_generations(web):
    """Each has its own, also when it has lost its share."""
    one = web(workers=2, upgrade=quick(), drain={"idle_wait": "60s", "timeout": "10s"})
    with connections(one.port, 7) as old:
        one.upgrade()
        with connections(one.port, 4):
            wait_counts(one, {1: 7, 2: 4})
            out = one.ctl("status", "web").out
            assert re.search(r"^  generation 1 drains for .*, 7 connections left$", out, re.M), out
            assert re.search(r"^ +2 +serving +100% +4 ", out, re.M), out
            for client in old:
                talk(client)
        wait_counts(one, {1: 7, 2: 0})
    one.wait_generation_gone(1)


FORKS = """
import os, signal, socket
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    if os.fork() == 0:
        listener.close()
        client.sendall(b"x")
        client.recv(1)
        os._exit(0)
    client.close()
"""


def test_children(daemon):
    """A connection belongs to the worker below which somebody holds it, as in servers that fork."""
    port = free_port()
    one = daemon({"services": {"web": {
        "command": ["/usr/bin/python3", "-c", FORKS], "listen": port, "workers": 2,
        "ready": {"by": "delay", "accept": False, "delay": "300ms"}, "upgrade": quick(),
        "drain": {"settle": "50ms", "idle_wait": "30s", "timeout": "1s"},
    }}})  # fmt: skip
    one.wait_serving()
    clients = [connect(port) for _ in range(6)]
    for client in clients:
        assert client.recv(1) == b"x"
    workers = wait_counts(one, {1: 6})
    below = {pid: len(descendants(pid)) for pid in one.pids()}
    assert sum(below.values()) == 6, below
    assert sorted(workers.values()) == sorted(below.values())
    # Its children have them still: it is not told to go.
    one.upgrade()
    time.sleep(0.5)
    wait_counts(one, {1: 6, 2: 0})
    for client in clients:
        client.sendall(b"y")
        assert client.recv(1) == b""
        client.close()
    one.wait_generation_gone(1, timeout=10)


def test_waiting_is_nobodys_connection(web):
    """Workers that do not accept have none; status shows that some wait."""
    one = web()
    pid = one.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        clients = [connect(one.port) for _ in range(5)]
        wait_counts(one, {1: 0})
        out = one.ctl("status").out
        assert re.search(r"^web: 5 connections wait to be accepted at .*\(backlog \d+\)$", out, re.M), out
        listed = one.service()["listeners"][0]["queue"]
        assert sum(queue["waiting"] for queue in listed) == 5, listed
    finally:
        os.kill(pid, signal.SIGCONT)
    for client in clients:
        talk(client)
    wait_counts(one, {1: 5})
    assert "wait to be accepted" not in one.ctl("status").out
    for client in clients:
        client.close()


def test_what_cannot_be_told(web):
    """UDP has no connections."""
    one = web(start=False)
    one.config["services"]["web"]["listen"] = f"udp:127.0.0.1:{one.port}"
    one.config["services"]["web"]["ready"] = {"by": "delay", "delay": "100ms"}
    one.write_config()
    one.start()
    one.wait_serving()
    assert wait_counts(one, {1: None}) == {(1, 0): None}


# ---- the measured share ----


class Watch:
    """`tenurectl events -f --json`, while it runs."""

    def __init__(self, one, *args):
        command = [TENURECTL, "--socket", str(one.socket_path), "--json", "events", "-f", *args]
        self.program = Program(command, one.directory, "events").start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.kill()

    def events(self, name=None):
        lines = self.program.out.splitlines()
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in found if name is None or event["event"] == name]


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_measured(web, load, sockets):
    """Beside the share that is wanted: of connections that were seen since, within five sigma."""
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(workers=2, port=port, listen=listen, upgrade=canary("25%"))
    # Requests that last, so that most looks find others.
    running = load(port, clients=32, path="/slow?40ms")
    running.wait_for(ok=50)
    assert one.service()["generations"][0]["measured"] is None
    with Watch(one) as watch:
        wait_until(lambda: one.ctl("events", check=None).code == 0, what="events")
        open_canary(one, 25.0)
        new = wait_until(
            lambda: (g := one.generation(2)) and (g["measuredOf"] or 0) >= 250 and g,
            60, "250 connections to be seen",
        )  # fmt: skip
        n = new["measuredOf"]
        sigma = 100 * (0.25 * 0.75 / n) ** 0.5
        assert abs(new["measured"] - 25) < 5 * sigma, new
        old, new = one.service()["generations"]
        assert old["measured"] + new["measured"] == pytest.approx(100)
        assert old["measuredOf"] == new["measuredOf"] >= n
        rollout = one.service()["rollout"]
        assert rollout["measuredOf"] >= n and 10 < rollout["measured"] < 40
        out = one.ctl("status").out
        assert re.search(r"25% \(\d+\.\d% of \d+ seen\) of new connections", out), out
        # About once a second, and not in the log.
        wait_until(lambda: len(watch.events("traffic")) >= 3, what="three events")
        told = watch.events("traffic")
        assert all(b["atUsec"] - a["atUsec"] > 700_000 for a, b in zip(told, told[1:])), told
        last = {part["generation"]: part for part in told[-1]["traffic"]}
        assert last[1]["traffic"] == 75 and last[2]["traffic"] == 25
        assert last[1]["connections"] + last[2]["connections"] > 0
        assert re.search(r"generation 2: 25% \(\d+\.\d% of \d+ seen\), \d+ connections?", told[-1]["message"])
        assert "seen)" not in one.log
        # They take no numbers, and are not kept: what is kept has no gap.
        kept = one.ctl("events", json=True).lines
        assert "traffic" not in {event["event"] for event in kept}
        numbers = [event["sequence"] for event in kept]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        # From the next share on it begins anew.
        finish(one, 2)
        assert one.generation(2)["measured"] is None
        n_told = len(watch.events("traffic"))
        time.sleep(1.5)
        assert len(watch.events("traffic")) == n_told
    assert_clean(running.stop(), 250, generations=[1, 2])


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_measured_of_short_connections(web, load, sockets):
    """Those that are over within a millisecond are met as well, in a queue at least."""
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(workers=4, port=port, listen=listen, upgrade=canary("50%"))
    running = load(port, clients=32)
    open_canary(one, 50.0)
    seen = wait_until(lambda: (g := one.generation(2)) and (g["measuredOf"] or 0) >= 100 and g, 60, "100 to be seen")
    # Whose connections last longer is met more often.
    assert 20 < seen["measured"] < 80, seen
    finish(one, 2)
    assert_clean(running.stop(), 500, generations=[1, 2])


def test_measured_begins_with_each_share(web, load):
    """Connections that came before a share changed do not count."""
    one = web(workers=2, upgrade=canary("10%", "90%"))
    running = load(one.port, clients=8, think="5ms")
    with connections(one.port, 200):
        running.wait_for(ok=50)
        one.upgrade("web", "--detach")
        wait_until(lambda: (one.generation(2) or {}).get("traffic") == 10, what="a tenth")
        # None of the 200 that stay is ever counted.
        time.sleep(2)
        seen = one.generation(2)["measuredOf"]
        assert seen is not None and seen < 200, seen
        one.call("Promote", service="web")
        wait_until(lambda: one.generation(2)["traffic"] == 90, what="nine tenths")
        now = one.generation(2)["measuredOf"]
        assert now < max(seen, 20), (now, seen)
    finish(one, 2)
    assert_clean(running.stop(), 50)


def test_live_display(web, load):
    """A follower is told the numbers as they change: how soon there are some depends on how many other
    connections the kernel has to tell of."""
    one = web(workers=2, upgrade=canary("50%", soak="30s"))
    running = load(one.port, clients=16, path="/slow?40ms")
    running.wait_for(ok=50)
    replies, silent, found = [], [], False
    with one.varlink() as connection:
        for reply in connection.call("Upgrade", {"service": "web"}, more=True):
            replies.append(reply["progress"])
            if replies[-1]["message"] == "":
                silent.append(replies[-1]["rollout"])
                found = found or (silent[-1]["measuredOf"] or 0) > 0
                if len(silent) >= 2 and found:
                    one.ctl("promote", "--full", "web", check=None)
    assert len(silent) >= 2, replies
    assert found, silent
    assert_clean(running.stop(), 50)


# ---- what it costs ----


def test_nothing_asked_nothing_done(web):
    """No wake-ups: a daemon at rest with connections does not look at them."""
    one = web()
    with connections(one.port, 20):
        wait_counts(one, {1: 20})

        def switches():
            text = Path(f"/proc/{one.pid}/status").read_text(encoding="ascii")
            return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)[1])

        time.sleep(0.5)
        before = switches()
        time.sleep(5)
        assert switches() - before <= 2, one.log


def test_one_walk_for_many(web):
    """Twenty clients at once share what one look finds, and each has an answer."""
    one = web(workers=2)
    with connections(one.port, 50):
        wait_counts(one, {1: 50})
        found, threads = [], []

        def ask():
            found.append(counts(one)[0])

        for _ in range(20):
            threads.append(threading.Thread(target=ask))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert found == [{1: 50}] * 20
