# SPDX-License-Identifier: Apache-2.0
"""Soaking: the time that a new generation must live with each step's traffic before the next one."""

import os
import signal
import time

import pytest

from canaries import (
    IN_NO_HURRY,
    Stopwatch,
    canary,
    count,
    finish,
    measure,
    open_canary,
    rollout,
    wait_phase,
    wait_share,
)
from daemon import ROLLED_BACK
from harness import TENURECTL, Program, assert_clean, free_port, wait_until
from upgrades import CLIENTS, assert_only_in_flight, per_worker, quick


def upgrading(one, *options):
    command = [TENURECTL, "--socket", one.socket_path, "upgrade", "web", *options]
    return Program(command, one.directory, "upgrade")


def step_times(one, since=0):
    """When each step of the rollouts was reached, by its share, in seconds."""
    events = one.call("Events", since=since, service="web")["events"]
    return [
        (event["atUsec"] / 1e6, event["event"])
        for event in events
        if event["event"] in ("rollout-step", "generation-serving", "rollout-done")
    ]


def gaps(one, since=0):
    times = [at for at, what in step_times(one, since) if what == "rollout-step"]
    return [after - before for before, after in zip(times, times[1:])]


def last_event(one):
    return max((e["sequence"] for e in one.call("Events", since=0)["events"]), default=0)


# ---- how long ----


def test_each_step_soaks(web, load):
    """Each for as long, and in the ratio of what was asked for."""
    one = web(workers=2, upgrade=canary("10%", "50%", soak="300ms"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    took = {}
    for soak in (0.3, 0.9):
        since = last_event(one)
        one.upgrade("web", "--soak", f"{int(soak * 1000)}ms")
        steps = gaps(one, since)
        assert len(steps) == 2, step_times(one, since)
        assert min(steps) >= soak * 0.99, steps
        took[soak] = sum(steps)
    # A busy machine adds to both.
    assert took[0.9] > took[0.3] * 1.5, took
    assert_clean(running.stop(), 500, generations=[1, 2, 3])


def test_last_step_soaks_too(web, load):
    """With all connections, the old one still there; only then it is replaced."""
    one = web(workers=2, upgrade=quick(soak="400ms"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    with Stopwatch() as whole:
        one.upgrade()
    at = dict((what, at) for at, what in step_times(one, 0))
    assert at["generation-serving"] - at["rollout-step"] >= 0.39, step_times(one)
    assert whole.ms >= 400
    running.wait_for(generation=2)
    assert_clean(running.stop(), 100)


def test_rolling_soaks_after_each_batch(web, load):
    port = free_port()
    one = web(
        workers=4, port=port, listen=per_worker(port),
        upgrade={"strategy": "rolling", "surge": "25%", "soak": "150ms"},
    )  # fmt: skip
    running = load(port, clients=CLIENTS, think="1ms")
    since = last_event(one)
    one.upgrade()
    steps = gaps(one, since)
    assert len(steps) == 3 and min(steps) >= 0.149, steps
    running.wait_for(generation=2)
    assert_clean(running.stop(), 100)


def test_promote_skips(web, load):
    """The rest of one soak, not those after it."""
    one = web(workers=2, upgrade=canary("10%", "50%"))
    running = load(one.port, clients=CLIENTS)
    with upgrading(one) as upgrade:
        for share in (10, 50, 100):
            wait_share(one, share)
            assert rollout(one)["phase"] == "soaking"
            measure(running, 2, share, 1000)
            assert rollout(one)["traffic"] == share
            one.call("Promote", service="web")
        assert upgrade.wait(30) == 0, upgrade.err
    one.wait_serving(generation=2)
    assert_clean(running.stop(), 1000, generations=[1, 2])


def test_promote_full_skips_the_steps(web, load):
    """But it still must live with all of the connections."""
    one = web(workers=4, upgrade=canary("1%", "10%", "50%"))
    running = load(one.port, clients=CLIENTS)
    with upgrading(one) as upgrade:
        wait_share(one, 1)
        one.call("Promote", service="web", full=True)
        wait_share(one, 100)
        assert set(count(running, 500)) == {2}
        assert rollout(one)["phase"] == "soaking"
        one.call("Promote", service="web")
        assert upgrade.wait(30) == 0, upgrade.err
        assert "10%" not in upgrade.out and "50%" not in upgrade.out
    assert_clean(running.stop(), 500, generations=[1, 2])


def test_pause_holds(web, load):
    """Longer than the soak, until somebody goes on; and then the later steps soak as before."""
    one = web(workers=2, upgrade=canary("10%", "50%", soak="200ms"))
    running = load(one.port, clients=CLIENTS)
    since = last_event(one)
    open_canary(one, 10)
    time.sleep(1.0)
    assert rollout(one)["phase"] == "paused" and rollout(one)["traffic"] == 10
    measure(running, 2, 10, 2000)
    with Stopwatch() as rest:
        one.call("Promote", service="web")
        one.wait_serving(generation=2)
    first, second = gaps(one, since)
    assert first >= 1.0
    assert second >= 0.199
    assert rest.ms >= 400
    assert_clean(running.stop(), 1000, generations=[1, 2])


def test_pause_in_mid_soak(web, load):
    one = web(workers=2, upgrade=canary("10%", soak="500ms"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.call("Upgrade", service="web")
    wait_share(one, 10)
    one.call("Pause", service="web")
    time.sleep(1.2)
    assert rollout(one)["phase"] == "paused" and rollout(one)["traffic"] == 10
    # Twice says nothing new.
    one.call("Pause", service="web")
    one.call("Promote", service="web")
    one.wait_serving(generation=2)
    assert_clean(running.stop(), 100)


def test_pause_while_workers_start(web, load):
    """Then it stops at the step that was on its way."""
    one = web(workers=2, upgrade=canary("10%", "60%", soak="0s"))
    one.manners.set("--if-generation 2 --if-worker 1 --ready-delay 600ms")
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.call("Upgrade", service="web")
    wait_until(lambda: len(one.pids(generation=2)) == 2, what="the second worker")
    one.call("Pause", service="web")
    wait_share(one, 60)
    time.sleep(0.3)
    assert rollout(one)["phase"] == "paused" and rollout(one)["traffic"] == 60
    one.call("Promote", service="web")
    one.wait_serving(generation=2)
    assert_clean(running.stop(), 100)


def test_pause_at_a_share_between_the_steps(web, load):
    """It becomes a step of its own."""
    one = web(workers=4, upgrade=canary("10%", "50%", soak="0s"))
    running = load(one.port, clients=CLIENTS)
    open_canary(one, 30)
    measure(running, 2, 30, 2000)
    assert sum(w["state"] == "ready" for w in one.workers(generation=2)) == 2
    one.call("Promote", service="web")
    one.wait_serving(generation=2)
    assert_clean(running.stop(), 1000, generations=[1, 2])


# ---- what must not happen in it ----

# How a worker of the new generation spoils its soak: its options, the service's, what is said.
SPOILS = {
    "exits": ("--die-after-ready 200ms --die-between-requests --exit-code 7", {}, "exit status 7"),
    "ends well": ("--die-after-ready 200ms --die-between-requests --exit-code 0", {}, "exit status 0"),
    "ends well and may": (
        "--die-after-ready 200ms --die-between-requests --exit-code 0", {"restart": "on-failure"},
        "exit status 0",
    ),  # fmt: skip
    "misses its watchdog": ("--watchdog-stop-after 300ms", {"watchdog": "400ms"}, "watchdog"),
}


@pytest.mark.parametrize("strategy", ["blue-green", "rolling", "canary"])
@pytest.mark.parametrize("how", SPOILS)
def test_spoiled(web, load, how, strategy):
    manners, keys, reason = SPOILS[how]
    port = free_port()
    options = ["--watchdog"] if "watchdog" in keys else []
    one = web(
        *options, workers=2, port=port, listen=per_worker(port),
        upgrade={"strategy": strategy, "soak": "30s", "surge": "50%", "steps": ["50%"]}, **keys,
    )  # fmt: skip
    one.manners.set(f"--if-generation 2 --if-worker 0 {manners}")
    running = load(port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    failed = one.upgrade(check=ROLLED_BACK)
    assert reason in failed.err and "worker 2.0" in failed.err, failed
    one.wait_serving(generation=1)
    one.wait_generation_gone(2)
    assert set(count(running, 300)) == {1}
    # What it had accepted before it hung is nobody's to save.
    if "watchdog" in keys:
        assert_only_in_flight(running.stop(), 1)
    else:
        assert_clean(running.stop(), 300)


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("share", [10, 50, 100])
def test_killed_by_somebody(web, load, share, paused):
    """Also while it is paused: whoever looks at it then should not have to look at that."""
    port = free_port()
    one = web(workers=2, port=port, listen=per_worker(port), upgrade=canary("10%", "50%"))
    running = load(port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    with upgrading(one) as upgrade:
        for step in (10, 50, 100):
            wait_share(one, step)
            if step == share:
                break
            one.call("Promote", service="web")
        if paused:
            one.call("Pause", service="web")
        os.kill(one.pids(generation=2)[0], signal.SIGKILL)
        assert upgrade.wait(30) == ROLLED_BACK, upgrade.err
        assert "signal 9" in upgrade.err, upgrade.err
    one.wait_serving(generation=1)
    one.wait_generation_gone(2)
    assert set(count(running, 300)) == {1}
    assert_only_in_flight(running.stop(), 1)


def test_old_one_may_crash(web, load):
    """That is not the new one's fault."""
    one = web(workers=2, upgrade=canary("50%", soak="700ms"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    with upgrading(one) as upgrade:
        wait_share(one, 50)
        os.kill(one.pids(generation=1)[0], signal.SIGKILL)
        assert upgrade.wait(30) == 0, upgrade.err
    one.wait_serving(generation=2)
    assert_only_in_flight(running.stop(), 1)


def test_after_the_soak(web, load):
    """Who has proved itself is started again, as what it is, and not rolled back."""
    one = web(workers=2, upgrade=quick(soak="200ms"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.upgrade()
    pid = one.pids(generation=2)[0]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in one.pids(generation=2), what="its end")
    assert one.wait_serving(generation=2)["generation"] == 2
    assert set(count(running, 300)) == {2}
    assert_only_in_flight(running.stop(), 1)


def test_first_start_does_not_soak(web):
    """There is nothing to go back to, and nobody is kept waiting."""
    with Stopwatch() as took:
        web(workers=2, upgrade={"strategy": "canary", "soak": IN_NO_HURRY})
    assert took.ms < 60_000


def test_soak_of_a_canary_with_a_file(web, load):
    """What is asked for at the command line is of this upgrade, the file is of the next."""
    one = web(workers=2, upgrade=canary("10%", soak="20s"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    with Stopwatch() as quick_one:
        one.upgrade("web", "--soak", "0s")
    assert quick_one.ms < 15_000
    one.call("Upgrade", service="web")
    wait_share(one, 10)
    wait_phase(one, "soaking")
    finish(one, 3)
    assert_clean(running.stop(), 100)
