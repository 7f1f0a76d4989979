# SPDX-License-Identifier: Apache-2.0
"""A generation that is kept warm: it has no new connections, but lives, and has all of them again the
moment somebody wants it."""

import os
import signal
import socket
import statistics
import time

import pytest

from canaries import IN_NO_HURRY, count, finish, kill_worker, measure, open_canary, wait_phase
from daemon import ROLLED_BACK
from harness import assert_clean, connect, free_port, http_get, wait_until
from processes import is_alive
from upgrades import CLIENTS, assert_only_in_flight, quick, set_release, web_config

SOCKETS = pytest.mark.parametrize("sockets", ["shared", "per-worker"])
LONG = "10m"  # nobody waits for its end


@pytest.fixture
def warm_of(web, load):
    """A service of four workers in its second generation, the first one warm, and load on it."""

    def make(strategy="blue-green", sockets="shared", keep_warm=LONG, think=None, workers=4, upgrade=None, **keys):
        port = free_port()
        one = web(
            workers=workers, port=port, upgrade=quick(strategy, keep_warm=keep_warm, **(upgrade or {})),
            listen={"http": {"address": f"127.0.0.1:{port}", "sockets": sockets}}, **keys,
        )  # fmt: skip
        running = load(port, clients=CLIENTS, think=think)
        running.wait_for(ok=100)
        one.old_pids = one.pids()
        one.upgrade()
        one.wait_serving(generation=2)
        return one, running

    return make


def state_of(one, number):
    entry = one.generation(number)
    return entry and entry["state"]


def assert_warm(one, number, workers=4):
    entry = one.generation(number)
    assert entry["state"] == "warm" and entry["traffic"] == 0, entry
    assert [w["state"] for w in entry["workers"]] == ["ready"] * workers, entry


# ---- it lives, and has nothing to do ----


@SOCKETS
@pytest.mark.parametrize("strategy", ["blue-green", "canary", "rolling"])
def test_no_new_connections(warm_of, strategy, sockets):
    """None at all, of thousands; and with each strategy all of its workers are there."""
    one, running = warm_of(strategy, sockets)
    assert_warm(one, 1)
    assert sorted(one.pids(generation=1)) == sorted(one.old_pids)
    assert set(count(running, 4000)) == {2}
    one.ctl("rollback", "web")
    assert sorted(one.pids(generation=1)) == sorted(one.old_pids)
    assert one.service()["generation"] == 1
    assert set(count(running, 1000)) == {1}
    assert_clean(running.stop(), 5000, generations=[1, 2])


def test_kept_connections(web, load):
    """Those that a client has stay with it for as long as it is warm, and longer when it comes back."""
    one = web(workers=2, upgrade=quick(keep_warm=LONG))
    kept = load(one.port, clients=8, keepalive=True, think="1ms")
    kept.wait_for(ok=100)
    one.upgrade()
    assert set(count(kept, 500)) == {1}
    one.ctl("rollback", "web")
    assert set(count(kept, 500)) == {1}
    result = kept.stop()
    assert_clean(result, 1000, generations=[1])
    assert result["connections"] == 8, result


# ---- the way back ----


def ask(port):
    """Which generation answers, and when its connection was there."""
    with socket.create_connection(("127.0.0.1", port), 5.0) as client:
        connected = time.monotonic()
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            assert data, head
            head += data
    for line in head.decode().lower().split("\r\n"):
        if line.startswith("x-tenure-generation:"):
            return int(line.split(":")[1]), connected
    raise AssertionError(head)


def test_time_of_the_way_back(web):
    """From the request to the first connection that the old one has."""
    one = web(workers=2, upgrade=quick(keep_warm=LONG))
    took = []
    for _ in range(10):
        one.upgrade()
        assert ask(one.port)[0] != 1
        with one.varlink() as connection:
            began = time.monotonic()
            connection.send("Rollback", {"service": "web"})
            while True:
                generation, connected = ask(one.port)
                if generation == 1:
                    break
            took.append(connected - began)
            connection.reply()
        assert {ask(one.port)[0] for _ in range(20)} == {1}
        one.wait_serving(generation=1)
    shown = [round(seconds * 1000, 2) for seconds in sorted(took)]
    print(f"the way back: median {statistics.median(shown)} ms of {shown}")
    assert statistics.median(took) < 0.25, shown


@pytest.mark.sanitize
@pytest.mark.parametrize(
    "strategy, sockets",
    [("blue-green", "shared"), ("rolling", "per-worker"), ("canary", "per-worker")],
)
def test_20_back_and_forth(web, load, strategy, sockets):
    port = free_port()
    one = web(
        workers=2, port=port, upgrade=quick(strategy, keep_warm=LONG),
        listen={"http": {"address": f"127.0.0.1:{port}", "sockets": sockets}},
        drain={"idle_wait": "100ms"},
    )  # fmt: skip
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    old = one.pids()
    for number in range(2, 22):
        one.upgrade()
        running.wait_for(generation=number)
        one.ctl("rollback", "web")
        assert one.service()["generation"] == 1
    assert sorted(one.pids(generation=1)) == sorted(old)
    assert set(count(running, 500)) == {1}
    assert_clean(running.stop(), 1000, generations=range(1, 22))


def test_rollback_of_an_open_canary_ends_it(warm_of):
    """Not further: what served then serves, and the warm one is still there for the next time."""
    one, running = warm_of("canary", upgrade={"steps": ["25%"], "soak": "0s"})
    assert open_canary(one, 25) == 3
    assert_warm(one, 1)
    new = measure(running, 3, 25, 2000)
    assert set(new) == {2, 3}
    one.ctl("rollback", "web")
    one.wait_serving(generation=2)
    assert set(count(running, 500)) == {2}
    assert_warm(one, 1)
    one.ctl("rollback", "web")
    assert set(count(running, 500)) == {1}
    assert_clean(running.stop(), 3000, generations=[1, 2, 3])


# ---- it dies ----


@SOCKETS
def test_crash_disturbs_nothing(warm_of, sockets):
    """It has no connections: not one request fails. It is started again, to be there if needed."""
    one, running = warm_of(sockets=sockets, drain={"idle_wait": "100ms"})
    wait_until(lambda: one.generation(1)["connections"] in (0, None), what="its last connection")
    for _ in range(3):
        old = one.pids(generation=1)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        running.wait_more(500)
        assert one.service()["generation"] == 2 and one.service()["healthy"]
        wait_until(
            lambda old=old: [w["state"] for w in one.workers(generation=1)] == ["ready"] * 4
            and not set(old) & set(one.pids(generation=1)),
            what="the warm generation to be there again",
        )
    assert_warm(one, 1)
    assert set(count(running, 1000)) == {2}
    one.ctl("rollback", "web")
    assert one.service()["generation"] == 1
    assert set(count(running, 500)) == {1}
    assert_clean(running.stop(), 2000, generations=[1, 2])


@SOCKETS
def test_rollback_to_one_that_just_died(warm_of, sockets):
    """Nobody is sent to processes that are not there: what it was made from is started."""
    one, running = warm_of(sockets=sockets, restart={"backoff": {"from": "20s", "to": "20s"}})
    # The first respawn is at once. The second one waits.
    one.manners.set("--if-generation 1 --exit-at-once")
    for pid in one.pids(generation=1):
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: {w["state"] for w in one.workers(generation=1)} == {"backoff"}, what="all to wait"
    )
    one.manners.set()
    one.ctl("rollback", "web", "--timeout", "30s")
    assert one.service()["generation"] == 3
    assert set(count(running, 500)) == {3}
    assert_clean(running.stop(), 500, generations=[1, 2, 3])


def test_worker_of_the_serving_one_dies(warm_of):
    """It comes back as what it was; the warm one does not step in."""
    one, running = warm_of(sockets="per-worker")
    for index in range(4):
        kill_worker(one, 2, index)
    assert one.service()["generation"] == 2
    assert_warm(one, 1)
    assert set(count(running, 500)) == {2}
    assert_only_in_flight(running.stop(), 4)


# ---- its end ----


@SOCKETS
@pytest.mark.parametrize("strategy", ["blue-green", "rolling"])
def test_end_of_keep_warm(web, load, strategy, sockets):
    """It drains like any other; the way back is then from what it was made from."""
    port = free_port()
    one = web(
        workers=2, port=port, upgrade=quick(strategy, keep_warm="700ms"),
        listen={"http": {"address": f"127.0.0.1:{port}", "sockets": sockets}},
    )  # fmt: skip
    set_release(one, "first")
    one.upgrade()
    set_release(one, "second")
    running = load(port, clients=CLIENTS)
    slow = connect(port, timeout=20.0)
    slow.sendall(b"GET /slow?ms=1500 HTTP/1.0\r\n\r\n")
    one.upgrade()
    assert state_of(one, 2) == "warm"
    pids = one.pids(generation=2)
    wait_until(lambda: state_of(one, 2) != "warm", what="the end of keep_warm")
    assert state_of(one, 2) == "draining"
    # What it has under way is finished.
    with slow:
        reply = b"".join(iter(lambda: slow.recv(4096), b""))
    assert reply.startswith(b"HTTP/1.1 200") and b"generation: 2\r\n" in reply.lower(), reply
    one.wait_generation_gone(2)
    assert not any(is_alive(pid) for pid in pids)
    assert http_get(port, "/env?RELEASE").text == "second\n"
    one.ctl("rollback", "web")
    assert one.service()["generation"] == 4
    assert http_get(port, "/env?RELEASE").text == "first\n"
    assert_clean(running.stop(), 500, generations=[2, 3, 4])


def test_next_upgrade_replaces_it(warm_of):
    """One way back is enough: to the last good one."""
    one, running = warm_of()
    for number in range(3, 7):
        one.upgrade()
        assert_warm(one, number - 1)
        assert state_of(one, number - 2) in (None, "draining")
    one.ctl("rollback", "web")
    assert one.service()["generation"] == 5
    assert set(count(running, 500)) == {5}
    assert_clean(running.stop(), 500)


def test_failed_upgrade_leaves_it(warm_of):
    one, running = warm_of(think="1ms", upgrade={"soak": "0s"})
    one.manners.set("--if-generation 3 --exit-at-once")
    one.upgrade(check=ROLLED_BACK)
    one.wait_serving(generation=2)
    assert_warm(one, 1)
    one.manners.set()
    one.ctl("rollback", "web")
    assert set(count(running, 300)) == {1}
    assert_clean(running.stop(), 300)


@pytest.mark.parametrize("overlap", ["reject", "queue", "supersede"])
def test_room_for_two_only(warm_of, overlap):
    """A warm one makes room; nobody is told to wait for its end."""
    one, running = warm_of(
        drain={"max_generations": 2, "idle_wait": "100ms"}, think="1ms", upgrade={"overlap": overlap}
    )
    for number in range(3, 7):
        one.upgrade()
        assert len([g for g in one.service()["generations"] if g["workers"]]) <= 2
        assert_warm(one, number - 1)
        running.wait_for(generation=number)
    one.ctl("rollback", "web")
    assert set(count(running, 300)) == {5}
    assert_clean(running.stop(), 300)


def test_stop_with_a_warm_one(warm_of):
    one, running = warm_of()
    assert_clean(running.stop(), 100)
    pids = one.pids()
    one.ctl("stop", "web")
    assert not any(is_alive(pid) for pid in pids)


def test_scale_and_reload_beside_a_warm_one(warm_of):
    """Whoever goes back goes back to a release, not to a number of workers."""
    one, running = warm_of(think="1ms")
    assert "unchanged" in one.reload().out
    assert_warm(one, 1)
    one.ctl("scale", "web", "6")
    one.wait_serving(generation=2)
    assert len(one.pids(generation=2)) == 6
    wait_until(lambda: len(one.pids(generation=1)) == 6, what="as many warm ones")
    one.ctl("rollback", "web")
    assert one.wait_serving(generation=1)["workersWanted"] == 6
    assert set(count(running, 300)) == {1}
    assert_clean(running.stop(), 300)


def test_canary_with_a_warm_one_beside(warm_of):
    """Two share the connections, the third one has none; then it is replaced."""
    one, running = warm_of("canary", "per-worker", upgrade={"steps": ["5%"], "soak": "0s"})
    web_config(one)["upgrade"]["soak"] = IN_NO_HURRY
    one.write_config()
    one.call("Upgrade", service="web", pauseAt=5.0)
    wait_phase(one, "paused")
    assert_warm(one, 1)
    assert set(measure(running, 3, 5, 3000)) == {2, 3}
    finish(one, 3)
    assert_warm(one, 2)
    one.wait_generation_gone(1)
    assert_clean(running.stop(), 3000, generations=[1, 2, 3])
