# SPDX-License-Identifier: Apache-2.0
"""Canaries of several workers, under load, with everything that may happen at each of their steps."""

import os
import signal
import time

import pytest

from canaries import (
    IN_NO_HURRY,
    canary,
    count,
    finish,
    kill_worker,
    measure,
    next_share,
    open_canary,
    rollout,
    wait_phase,
    wait_share,
)
from daemon import BAD_CONFIG, IN_PROGRESS, ROLLED_BACK, monotonic_usec
from harness import (
    TENURECTL,
    Program,
    assert_clean,
    connect,
    free_port,
    http_get,
    wait_until,
)
from upgrades import (
    CLIENTS,
    assert_only_in_flight,
    generation_times,
    quick,
    set_release,
    upgrade_many,
    web_config,
)
from varlink import VarlinkError

SOCKETS = pytest.mark.parametrize("sockets", ["shared", "per-worker"])


def listen(port, sockets):
    return {"http": {"address": f"127.0.0.1:{port}", "sockets": sockets}}


@pytest.fixture
def canary_of(web, load):
    """A service of four workers, and load on it: canary_of(["25%"], sockets="per-worker")."""

    def make(steps, *options, sockets="shared", workers=4, think=None, soak=IN_NO_HURRY, upgrade=None, **keys):
        port = free_port()
        one = web(
            *options, workers=workers, port=port, listen=listen(port, sockets),
            upgrade=canary(*steps, soak=soak, **(upgrade or {})), **keys,
        )  # fmt: skip
        running = load(port, clients=CLIENTS, think=think)
        running.wait_for(ok=100)
        return one, running

    return make


def n_ready(one, generation):
    return sum(w["state"] == "ready" for w in one.workers(generation=generation))


def upgrading(one, *options, name="upgrade"):
    """`tenurectl upgrade`, in the background: with ...: as upgrade."""
    command = [TENURECTL, "--socket", one.socket_path, "upgrade", "web", *options]
    return Program(command, one.directory, name)


def assert_back(one, running, generation=1, failed=2):
    """Everything as before: all workers and all connections of the old one, nothing of the new one."""
    one.wait_serving(generation=generation)
    one.wait_generation_gone(failed)
    assert n_ready(one, generation) == 4
    assert set(count(running, 500)) == {generation}


# ---- as it should be ----


@SOCKETS
def test_workers_are_started_as_steps_need_them(canary_of, sockets):
    """A share of the connections needs that share of the workers, and nobody pays for more."""
    one, running = canary_of(["5%", "30%", "60%", "80%"], sockets=sockets)
    for share, workers in ((5, 1), (30, 2), (60, 3), (80, 4)):
        if share == 5:
            open_canary(one, share)
        else:
            next_share(one, share)
        assert n_ready(one, 2) == workers
        assert len(one.pids(generation=2)) == workers
        # All of the old ones are there, should they be needed again.
        assert n_ready(one, 1) == 4
        measure(running, 2, share, 1500)
    finish(one, 2)
    one.wait_generation_gone(1)
    assert_clean(running.stop(), 6000, generations=[1, 2])


@pytest.mark.sanitize
@SOCKETS
def test_20_in_a_row(web, load, sockets):
    port = free_port()
    one = web(
        workers=4, port=port, listen=listen(port, sockets),
        upgrade=quick("canary", steps=["1%", "25%", "75%"]),
        drain={"max_generations": 8, "idle_wait": "100ms"},
    )  # fmt: skip
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    upgrade_many(one, running, 20, min_requests=2000)


def test_kept_connections_stay_where_they_are(web, load):
    """A share is of new connections: what a client has is not taken from it."""
    one = web(workers=2, upgrade=canary("50%"))
    running = load(one.port, clients=16, keepalive=True, think="2ms")
    running.wait_for(ok=100)
    open_canary(one, 50)
    assert set(count(running, 300)) == {1}
    new = load(one.port, clients=32, keepalive=True, think="2ms")
    new.wait_for(generation=1)
    new.wait_for(generation=2)
    finish(one, 2)
    one.wait_generation_gone(1)
    assert set(count(running, 300)) == {2}
    assert_clean(running.stop(), 600, generations=[1, 2])
    assert_clean(new.stop(), 100, generations=[1, 2])


def test_several_listeners(canary_of):
    """One of them has only the new generation, which gets all of its connections from the start; and
    goes again with it."""
    one, running = canary_of(["25%"])
    added = free_port()
    first = dict(web_config(one)["listen"])
    web_config(one)["listen"] = {**first, "added": f"127.0.0.1:{added}"}
    one.write_config()
    one.call("Upgrade", service="web", pauseAt=25.0)
    wait_phase(one, "paused")
    measure(running, 2, 25, 3000)
    assert {http_get(added).generation for _ in range(50)} == {2}
    one.call("Abort", service="web")
    assert_back(one, running)
    with pytest.raises(ConnectionRefusedError):
        connect(added)
    one.call("Upgrade", service="web", pauseAt=25.0)
    wait_phase(one, "paused")
    finish(one, 3)
    assert {http_get(added).generation for _ in range(50)} == {3}
    # And one that the next generation has no more.
    web_config(one)["listen"] = first
    one.write_config()
    one.call("Upgrade", service="web", pauseAt=25.0)
    wait_phase(one, "paused")
    measure(running, 4, 25, 3000)
    assert {http_get(added).generation for _ in range(50)} == {3}
    finish(one, 4)
    one.wait_generation_gone(3)
    with pytest.raises(ConnectionRefusedError):
        connect(added)
    assert_clean(running.stop(), 6000, generations=[1, 2, 3, 4])


# ---- failures, at each of the steps ----

STEPS = ["10%", "50%", "100%"]

# What the first new worker that is started at this step does. Those of 10% and 50% are 0 and 1.
FAILURES = {
    "exits at once": ("--exit-at-once --exit-code 3", {}, "exited before it was ready", "exit status 3"),
    "crashes": (
        "--die-after-ready 100ms --die-between-requests --exit-code 5", {}, "exited while it soaked",
        "exit status 5",
    ),  # fmt: skip
    "exits after 1.5 s": (
        "--die-after-ready 1500ms --die-between-requests", {}, "exited while it soaked", "exit status 1",
    ),  # fmt: skip
    "hangs": (
        "--watchdog --watchdog-stop-after 1s", {"watchdog": "500ms"}, "watchdog", None
    ),
    "never accepts": ("--never-accept", {"ready": {"timeout": "500ms"}}, "not ready in time", None),
}  # fmt: skip


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("how", FAILURES)
def test_fails_at_a_step(canary_of, how, step):
    """It goes back by itself; no client notices, and whoever asked is told."""
    manners, keys, reason, status = FAILURES[how]
    watching = ["--watchdog"] if "watchdog" in keys else []
    one, running = canary_of(STEPS, *watching, sockets="per-worker", think="1ms", **keys)
    first_of_step = (0, 1, 2)[step]
    one.manners.set(f"--if-generation 2 --if-worker {first_of_step} {manners}")
    with upgrading(one) as upgrade:
        # The steps before are good: they are promoted.
        for done in range(step):
            wait_share(one, float(STEPS[done].rstrip("%")))
            one.call("Promote", service="web")
        assert upgrade.wait(30) == ROLLED_BACK, upgrade.err
        assert reason in upgrade.err, upgrade.err
        assert f"worker 2.{first_of_step}" in upgrade.err, upgrade.err
        if status:
            assert status in upgrade.err, upgrade.err
    failure = one.service()["lastFailure"]
    assert (failure["generation"], failure["worker"]) == (2, first_of_step)
    assert_back(one, running)
    # A worker that was made to hang had accepted before; nobody can take that from it.
    if how == "hangs":
        assert_only_in_flight(running.stop(), 1)
    else:
        assert_clean(running.stop(), 500)


@SOCKETS
@pytest.mark.parametrize("step", range(3))
def test_says_an_error_at_a_step(canary_of, sockets, step):
    one, running = canary_of(STEPS, sockets=sockets, think="1ms")
    one.manners.set(f"--if-generation 2 --if-worker {step} --notify-errno 5")
    with upgrading(one) as upgrade:
        for done in range(step):
            wait_share(one, float(STEPS[done].rstrip("%")))
            one.call("Promote", service="web")
        assert upgrade.wait(30) == ROLLED_BACK, upgrade.err
        assert "error" in upgrade.err
    assert_back(one, running)
    assert_clean(running.stop(), 500)


@SOCKETS
def test_crash_loop(canary_of, sockets):
    """A canary is not tried again and again: the first crash is its end."""
    one, running = canary_of(["25%"], sockets=sockets, think="1ms", soak="5s")
    one.manners.set("--if-generation 2 --die-after-ready 20ms --die-between-requests")
    failed = one.upgrade(check=ROLLED_BACK)
    assert "exited while it soaked" in failed.err
    assert one.log.count("generation 2 gets 25%") == 1
    assert_back(one, running)
    # The cure needs nothing but another upgrade.
    one.manners.set()
    one.upgrade("web", "--soak", "0s")
    assert set(count(running, 500)) == {3}
    assert_clean(running.stop(), 1000)


# ---- abort, at every moment ----


@SOCKETS
@pytest.mark.parametrize("phase", ["starting", "soaking", "paused", "all traffic", "next workers"])
def test_abort(canary_of, phase, sockets):
    slow = {"starting": "0", "next workers": "1"}.get(phase)
    one, running = canary_of(["5%", "50%"], sockets=sockets, think="1ms")
    if slow:
        one.manners.set(f"--if-generation 2 --if-worker {slow} --boot-delay 20s")
    with upgrading(one) as upgrade:
        if phase != "starting":
            wait_share(one, 5)
        if phase == "paused":
            one.call("Pause", service="web")
        elif phase == "next workers":
            one.call("Promote", service="web")
        elif phase == "all traffic":
            one.call("Promote", service="web", full=True)
            wait_share(one, 100)
        wanted = {"next workers": "starting", "all traffic": "soaking"}.get(phase, phase)
        wait_phase(one, wanted)
        if phase == "next workers":
            # Its share stays until they are ready.
            assert rollout(one)["traffic"] == 5
        if phase != "starting":
            running.wait_for(generation=2)
        one.call("Abort", service="web")
        aborted = monotonic_usec()
        assert upgrade.wait(30) == ROLLED_BACK
        assert "aborted" in upgrade.err
    assert_back(one, running)
    result = running.stop()
    assert_clean(result, 500)
    times = generation_times(result)
    assert phase == "starting" or times[2]["last_connect_usec"] <= aborted
    with pytest.raises(VarlinkError, match="NoRollout"):
        one.call("Abort", service="web")


def test_abort_after_it_is_done(canary_of):
    """Then it is `rollback` that goes back."""
    one, running = canary_of(["50%"], soak="0s")
    one.upgrade()
    assert one.ctl("abort", "web", check=None).code != 0
    assert one.service()["generation"] == 2
    one.ctl("rollback", "web", "--timeout", "20s")
    assert_clean(running.stop(), 100)


# ---- a second request while it is open ----


def test_second_is_rejected(canary_of):
    one, running = canary_of(["25%"])
    open_canary(one, 25)
    refused = one.upgrade(check=IN_PROGRESS)
    assert "2" in refused.err
    assert one.ctl("restart", "web", check=None).code == IN_PROGRESS
    measure(running, 2, 25, 2000)
    finish(one, 2)
    assert_clean(running.stop(), 2000, generations=[1, 2])


def test_second_is_queued(canary_of):
    one, running = canary_of(["25%"], upgrade={"overlap": "queue"})
    set_release(one, "second")
    open_canary(one, 25)
    set_release(one, "third")
    with upgrading(one, "--soak", "0s") as upgrade:
        wait_until(lambda: one.service()["queued"], what="the second request")
        measure(running, 2, 25, 2000)
        finish_open(one)
        assert upgrade.wait(30) == 0, upgrade.err
    assert http_get(one.port, "/env?RELEASE").text == "third\n"
    one.wait_serving(generation=3)
    assert set(count(running, 300)) == {3}
    assert_clean(running.stop(), 2000, generations=[1, 2, 3])


def finish_open(one):
    """Promotes what is open; another one may begin at once."""
    one.call("Promote", service="web", full=True)
    wait_share(one, 100)
    one.call("Promote", service="web")


@SOCKETS
def test_second_supersedes(canary_of, sockets):
    """The old generation has all connections until the third one has its first share."""
    one, running = canary_of(["25%"], sockets=sockets, upgrade={"overlap": "supersede"})
    with upgrading(one) as first:
        wait_share(one, 25)
        running.wait_for(generation=2)
        one.manners.set("--if-generation 3 --ready-delay 200ms")
        one.call("Upgrade", service="web", pauseAt=25.0)
        assert first.wait(30) not in (0, None)
        assert "superseded" in first.err
    wait_phase(one, "paused")
    new = measure(running, 3, 25, 3000)
    assert set(new) == {1, 3}
    finish(one, 3)
    one.wait_generation_gone(2)
    assert_clean(running.stop(), 3000, generations=[1, 2, 3])


def test_many_that_supersede(canary_of):
    """However fast they come, the last one is it, and no client notices."""
    one, running = canary_of(
        ["10%", "50%"], soak="150ms", upgrade={"overlap": "supersede"}, drain={"max_generations": 8}
    )
    last = 1
    for i in range(12):
        reply = one.call("Upgrade", service="web")
        last = reply["progress"]["generation"] or last + 1
        if i % 3 == 0:
            time.sleep(0.1)
    one.wait_serving(generation=last, timeout=30)
    assert set(count(running, 500)) == {last}
    one.wait_generation_gone(last - 1)
    assert_clean(running.stop(), 500)


# ---- the rest of life goes on ----


@SOCKETS
def test_stop_wins(canary_of, sockets):
    one, running = canary_of(["50%"], sockets=sockets, think="2ms")
    with upgrading(one) as upgrade:
        wait_share(one, 50)
        running.wait_for(generation=2)
        assert_clean(running.stop(), 100, generations=[1, 2])
        one.ctl("stop", "web")
        assert upgrade.wait(30) not in (0, None)
    assert one.service()["state"] == "stopped" and one.pids() == []
    with pytest.raises(ConnectionRefusedError):
        connect(one.port)
    one.ctl("start", "web")
    one.wait_serving()
    assert http_get(one.port).status == 200


@SOCKETS
def test_old_worker_comes_back_as_it_was(canary_of, sockets):
    """From the old release, though the new one is on disk, and the shares are as before."""
    one, running = canary_of(["25%"], sockets=sockets)
    set_release(one, "old")
    one.call("Upgrade", service="web")
    wait_share(one, 25)
    finish(one, 2)
    set_release(one, "new")
    one.call("Upgrade", service="web", pauseAt=25.0)
    wait_phase(one, "paused")
    for index in range(4):
        kill_worker(one, 2, index)
    measure(running, 3, 25, 3000)
    one.call("Abort", service="web")
    one.wait_serving(generation=2)
    assert {http_get(one.port, "/env?RELEASE").text for _ in range(40)} == {"old\n"}
    one.wait_generation_gone(3)
    assert_only_in_flight(running.stop(), 4)


def test_all_old_workers_die_at_once(canary_of):
    """They come back, their part of the connections has waited for them."""
    one, running = canary_of(["25%"], sockets="per-worker", think="1ms")
    open_canary(one, 25)
    old = one.pids(generation=1)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: n_ready(one, 1) == 4 and not set(old) & set(one.pids(generation=1)),
        what="new processes of the old generation",
    )
    measure(running, 2, 25, 2000)
    finish(one, 2)
    assert_only_in_flight(running.stop(), 4)


# ---- one queue for both generations ----


def test_no_shares_on_a_unix_socket(web):
    """A configuration that cannot be done is an error, with its place and the remedy."""
    one = web(start=False, workers=2, upgrade=canary("25%"))
    web_config(one)["listen"] = f"unix:{one.directory}/web.sock"
    one.write_config()
    refused = one.ctl("check", one.config_path, check=BAD_CONFIG)
    assert f"{one.config_path}:" in refused.err
    assert "canary" in refused.err and "steering" in refused.err, refused


def test_canary_asked_for_on_a_unix_socket(web, load):
    """The same by hand. What runs is not touched."""
    one = web(start=False, workers=2, upgrade=quick(), ready={"by": "delay", "delay": "100ms"})
    path = f"unix:{one.directory}/web.sock"
    web_config(one)["listen"] = path
    one.write_config()
    one.start()
    one.wait_serving()
    running = load(path, clients=4, think="1ms")
    running.wait_for(ok=20)
    for options in (["--strategy", "canary"], ["--steps", "25%"], ["--pause-at", "25%"]):
        refused = one.ctl("upgrade", "web", *options, check=1)
        assert "steering" in refused.err, refused
    assert one.service()["generation"] == 1
    assert_clean(running.stop(), 20, generations=[1])


def test_canary_with_a_unix_socket_beside(canary_of, load):
    """Shares are those of the TCP listener; of the other one the programs decide, without loss."""
    one, running = canary_of(["25%"])
    path = f"unix:{one.directory}/beside.sock"
    web_config(one)["listen"] = {**web_config(one)["listen"], "beside": path}
    one.write_config()
    one.call("Upgrade", service="web")
    wait_share(one, 25)
    finish(one, 2)
    beside = load(path, clients=4, think="1ms")
    beside.wait_for(generation=2)
    open_canary(one, 25)
    measure(running, 3, 25, 2000)
    finish(one, 3)
    one.wait_generation_gone(2)
    beside.wait_for(generation=3)
    assert_clean(beside.stop(), 100, generations=[2, 3])
    assert_clean(running.stop(), 2000, generations=[1, 2, 3])
