# SPDX-License-Identifier: Apache-2.0
"""The shares of a canary are what they say: for each kind of address and of sockets, and whatever
happens to the workers meanwhile."""

import os
import signal
import time

import pytest

from canaries import (
    canary,
    count,
    detach_steering,
    finish,
    kill_worker,
    measure,
    next_share,
    open_canary,
    rollout,
)
from daemon import IN_PROGRESS
from harness import assert_clean, free_port, has_ipv6, wait_until
from upgrades import CLIENTS, assert_only_in_flight, set_release

# How many connections each share is measured by: the smaller, the more.
STEPS = {0.1: 20000, 1: 10000, 5: 6000, 25: 4000, 50: 4000, 99: 8000}

LISTENING = {
    "IPv4": ("127.0.0.1", "127.0.0.1"),
    "IPv6": ("[::1]", "::1"),
    "both, from IPv4": ("[::]", "127.0.0.1"),
    "both, from IPv6": ("[::]", "::1"),
}


def listen(host, port, sockets):
    return {"http": {"address": f"{host}:{port}", "sockets": sockets}}


def through_all_steps(web, load, sockets, network, times=1):
    host, client = LISTENING[network]
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    port = free_port()
    one = web(
        workers=4, port=port, listen=listen(host, port, sockets),
        upgrade=canary(*(f"{share}%" for share in STEPS)),
    )  # fmt: skip
    running = load((client, port), clients=CLIENTS)
    running.wait_for(ok=100)
    for share, n in STEPS.items():
        if share == 0.1:
            assert open_canary(one, share) == 2
        else:
            next_share(one, share)
        assert one.generation(2)["traffic"] == share
        assert one.generation(1)["traffic"] == pytest.approx(100 - share)
        measure(running, 2, share, n * times)
    finish(one, 2)
    assert set(count(running, 1000)) == {2}
    assert_clean(running.stop(), sum(STEPS.values()) * times, generations=[1, 2])


@pytest.mark.parametrize("network", ["IPv4", "IPv6", "both, from IPv4"])
@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_steps(web, load, sockets, network):
    through_all_steps(web, load, sockets, network)


@pytest.mark.long
@pytest.mark.parametrize("network", LISTENING)
@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_many_connections(web, load, sockets, network):
    through_all_steps(web, load, sockets, network, times=5)


def test_per_worker_shares_are_even(web, load):
    """In a generation's share each of its workers has the same part."""
    port = free_port()
    one = web(
        workers=4, port=port, listen=listen("127.0.0.1", port, "per-worker"), upgrade=canary("50%")
    )
    running = load(port, clients=CLIENTS)
    open_canary(one, 50)
    running.stop()
    running = load(port, clients=CLIENTS, requests=8000)
    result = running.finish()
    assert_clean(result, 8000)
    ready = len([w for w in one.workers(generation=2) if w["state"] == "ready"])
    assert ready == 2
    for generation, workers in ((1, 4), (2, ready)):
        mean = 8000 / 2 / workers
        for index in range(workers):
            got = result["workers"].get(f"{generation}.{index}", 0)
            assert abs(got - mean) < 5 * mean**0.5, (generation, index, result["workers"])
    finish(one, 2)


# ---- what happens meanwhile ----


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_crash(web, load, sockets):
    """A worker of the old generation that is killed, and comes back, does not move the share."""
    port = free_port()
    one = web(workers=3, port=port, listen=listen("127.0.0.1", port, sockets), upgrade=canary("25%"))
    running = load(port, clients=CLIENTS)
    open_canary(one, 25)
    for index in range(3):
        kill_worker(one, 1, index)
        assert rollout(one)["traffic"] == 25
        measure(running, 2, 25, 3000)
    assert len(one.pids(generation=1)) == 3
    finish(one, 2)
    assert_only_in_flight(running.stop(), 3)


def test_share_while_a_worker_is_away(web, load):
    """Also not while nobody is in its place: the others of its generation have its part, and who was in
    its queue waits for the next."""
    port = free_port()
    one = web(
        workers=3, port=port, listen=listen("127.0.0.1", port, "per-worker"), upgrade=canary("25%"),
        restart={"backoff": {"from": "1s", "to": "1s"}},
    )  # fmt: skip
    running = load(port, clients=4 * CLIENTS, timeout="60s")
    # The first respawn is at once; this one waits.
    kill_worker(one, 1, 0)
    open_canary(one, 25)
    one.manners.set("--if-generation 1 --exit-at-once")
    os.kill(one.workers(generation=1)[0]["pid"], signal.SIGKILL)
    wait_until(
        lambda: one.workers(generation=1)[0]["state"] == "backoff", what="the wait for a restart"
    )
    measure(running, 2, 25, 4000)
    one.manners.set()
    one.call("Abort", service="web")
    one.wait_serving(generation=1)
    assert_only_in_flight(running.stop(), 2, clients=4 * CLIENTS)


def test_unchanged_reload(web, load):
    """Nothing differs from what is on its way: it goes on."""
    one = web(workers=2, upgrade=canary("25%"))
    running = load(one.port, clients=CLIENTS)
    set_release(one, "new")
    open_canary(one, 25)
    told = one.reload()
    assert "web: unchanged" in told.out, told
    assert one.ctl("restart", "web", check=IN_PROGRESS).code == IN_PROGRESS
    assert rollout(one)["phase"] == "paused" and rollout(one)["traffic"] == 25
    measure(running, 2, 25, 4000)
    finish(one, 2)
    assert_clean(running.stop(), 4000, generations=[1, 2])


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_restarted_and_scaled_before(web, load, sockets):
    """Shares are of generations, however many workers they have."""
    port = free_port()
    one = web(
        workers=2, port=port, listen=listen("127.0.0.1", port, sockets), upgrade=canary("5%", "25%")
    )
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    one.ctl("restart", "web", "--detach")
    finish(one, 2)
    one.ctl("scale", "web", "5")
    one.wait_serving(generation=2)
    open_canary(one, 5)
    measure(running, 3, 5, 5000)
    next_share(one, 25)
    assert len([w for w in one.workers(generation=3) if w["state"] == "ready"]) == 2
    measure(running, 3, 25, 4000)
    finish(one, 3)
    assert len(one.pids(generation=3)) == 5
    assert_clean(running.stop(), 9000, generations=[1, 2, 3])


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_program_taken_away(web, load, sockets):
    """A worker can detach the program that steers. The next request puts it back; with a socket for each
    worker also the first connection to one whose worker is not started yet, and that is all it costs."""
    port = free_port()
    one = web(workers=3, port=port, listen=listen("127.0.0.1", port, sockets), upgrade=canary("25%"))
    running = load(port, clients=CLIENTS)
    open_canary(one, 25)
    measure(running, 2, 25, 3000)
    detach_steering(one.pids(generation=1)[0], port)
    if sockets == "shared":
        # By hash, half of them. So it was really gone.
        new = count(running, 3000)
        assert 0.4 < new[2] / sum(new.values()) < 0.6, new
        one.call("Pause", service="web")
    measure(running, 2, 25, 4000)
    finish(one, 2)
    result = running.stop()
    if sockets == "shared":
        assert_clean(result, 10000, generations=[1, 2])
    else:
        assert_only_in_flight(result, 1)


@pytest.mark.long
def test_program_is_put_back_by_itself(web, load):
    """Within a minute, when nothing else happens."""
    one = web(workers=2, upgrade=canary("5%"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    open_canary(one, 5)
    detach_steering(one.pids(generation=1)[0], one.port)
    new = count(running, 3000)
    assert new[2] > 0.4 * sum(new.values()), new
    time.sleep(61)
    measure(running, 2, 5, 6000)
    finish(one, 2)
    assert_clean(running.stop(), 6000, generations=[1, 2])
