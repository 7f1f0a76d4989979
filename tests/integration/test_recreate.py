# SPDX-License-Identifier: Apache-2.0
"""recreate: the old one stops first, and whoever comes meanwhile waits. Slow, but nothing is refused."""

import pytest

from daemon import ROLLED_BACK
from harness import TENURECTL, Program, assert_clean, free_port, http_get, wait_until
from upgrades import CLIENTS, assert_only_in_flight, per_worker, quick, set_release


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_upgrades(web, load, sockets):
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(
        "--boot-delay", "200ms", workers=2, port=port, listen=listen, upgrade=quick("recreate")
    )
    running = load(port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    for number in range(2, 6):
        one.upgrade()
        # Never two at once.
        assert not one.pids(generation=number - 1)
        running.wait_for(generation=number, count=50)
    result = running.stop()
    assert_clean(result, 300, generations=range(1, 6))
    assert result["largest_gap_usec"] > 200_000


def test_never_two_at_once(web, load):
    one = web("--boot-delay", "200ms", workers=2, upgrade=quick("recreate"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "upgrade"
    ).start() as upgrade:
        while upgrade.is_running():
            now = one.service()
            both = [
                [w for w in generation["workers"] if w.get("pid")]
                for generation in now["generations"]
            ]
            assert sum(bool(workers) for workers in both) <= 1, now
        assert upgrade.wait() == 0
    running.wait_for(generation=2)
    assert_clean(running.stop(), 100, generations=[1, 2])


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
@pytest.mark.parametrize("how", ["--exit-at-once", "--never-accept"])
def test_failed(web, load, how, sockets):
    """The old release is started again and serves what waited."""
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(
        workers=2, port=port, listen=listen, upgrade=quick("recreate"), ready={"timeout": "500ms"}
    )
    set_release(one, "good")
    one.upgrade()
    set_release(one, "bad")
    one.manners.set(f"--if-generation 3 {how}")
    running = load(port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    one.upgrade(check=ROLLED_BACK)
    one.wait_serving(generation=2)
    assert http_get(port, "/env?RELEASE").text == "good\n"
    running.wait_more(200)
    assert_clean(running.stop(), 300, generations=[2])
    one.manners.set()
    one.upgrade()
    assert http_get(port, "/env?RELEASE").text == "bad\n"


def test_hard_restart(web, load):
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    one.ctl("restart", "--hard", "web")
    one.wait_serving(generation=2)
    running.wait_for(generation=2)
    assert_clean(running.stop(), 100, generations=[1, 2])


def test_exits_at_once_on_term(web, load):
    """Also then: new ones wait in the queue, those under way are finished first."""
    one = web("--exit-on-term-at-once", workers=2, upgrade=quick("recreate"))
    slow = load(one.port, clients=4, path="/slow?ms=200", timeout="10s")
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    one.upgrade()
    running.wait_for(generation=2)
    assert_clean(running.stop(), 100, generations=[1, 2])
    assert_clean(slow.stop(), 1)


def test_abort(web, load):
    """Of one whose new release takes its time."""
    one = web(workers=2, upgrade=quick("recreate"))
    one.manners.set("--if-generation 2 --boot-delay 20s")
    running = load(one.port, clients=CLIENTS, think="1ms", timeout="20s")
    running.wait_for(ok=100)
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "upgrade"
    ).start() as upgrade:
        wait_until(lambda: one.pids(generation=2), what="generation 2")
        one.ctl("abort", "web")
        assert upgrade.wait() == ROLLED_BACK
    one.wait_serving(generation=1)
    running.wait_more(200)
    result = running.stop()
    assert_only_in_flight(result, 0)
    assert set(result.generations) == {1}
