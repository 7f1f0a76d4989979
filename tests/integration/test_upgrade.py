# SPDX-License-Identifier: Apache-2.0
"""Upgrades that succeed: under load no request fails, and each generation gets its connections when it
should and not a moment earlier or later."""

import signal
import subprocess
import time

import pytest

from daemon import IN_PROGRESS, INTERRUPTED, ROLLED_BACK, monotonic_usec
from harness import (
    SANITIZERS,
    TENURECTL,
    WORKER,
    Program,
    assert_clean,
    clean_environment,
    connect,
    free_port,
    http_get,
    wait_until,
)
from processes import is_alive, memory_kib
from upgrades import (
    CLIENTS,
    assert_in_order,
    generation_times,
    per_worker,
    quick,
    set_drain,
    set_release,
    upgrade_many,
    web_config,
)


@pytest.mark.sanitize
def test_100_blue_green(web, load):
    one = web(workers=4, upgrade=quick())
    running = load(one.port, clients=CLIENTS)
    running.wait_for(generation=1)
    # What the way back needs of the last releases is kept, and no more.
    for number in range(2, 12):
        one.upgrade()
        running.wait_for(generation=number)
    one.wait_generation_gone(10)
    # Four generations at most, so two lanes more than the two that are there from the start.
    with one.no_fd_leak(spare=2):
        for number in range(12, 62):
            one.upgrade()
            running.wait_for(generation=number)
        one.wait_generation_gone(60)
    memory = memory_kib(one.pid)
    result = upgrade_many(one, running, 40, min_requests=10000)
    assert_in_order(result)
    if not SANITIZERS:  # which keep what was freed for a while
        assert memory_kib(one.pid) < memory + 512


def test_keepalive(web, load):
    """A worker that knows how to drain loses no kept connection either."""
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, keepalive=True, think="5ms")
    running.wait_for(ok=100)
    for number in range(2, 6):
        one.upgrade()
        one.wait_generation_gone(number - 1)
    running.wait_for(generation=5)
    result = running.stop()
    assert_clean(result, 500)
    assert {1, 5} <= set(result.generations)


def test_first_start_queues(web):
    """The address is there before the first worker: who comes early waits, and is served."""
    one = web("--boot-delay", "700ms", workers=2, start=False)
    one.start()
    began = time.monotonic()
    wait_until(lambda: can_connect(one.port), what="the address")
    assert time.monotonic() - began < 0.5
    reply = http_get(one.port)
    assert reply.generation == 1
    assert time.monotonic() - began > 0.4
    one.wait_serving()


def can_connect(port):
    try:
        connect(port).close()
        return True
    except ConnectionRefusedError:
        return False


def test_no_traffic_before_ready(web, load):
    """A worker that accepts from its first moment gets nothing before it says that it is ready."""
    one = web(workers=2, upgrade=quick(), ready={"by": "notify", "timeout": "10s"})
    one.manners.set("--if-generation 2 --never-ready --notify STATUS=booting")
    running = load(one.port, clients=CLIENTS)
    running.wait_for(ok=100)
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "upgrade"
    ).start() as upgrade:
        # They accept, they just do not say so.
        wait_until(lambda: len(one.pids(generation=2)) == 2, what="generation 2")
        wait_until(
            lambda: [w.get("status") for w in one.workers(generation=2)] == ["booting"] * 2,
            what="its first words",
        )
        running.wait_more(2000)
        assert running.live()["generations"].keys() == {"1"}
        one.ctl("abort", "web")
        assert upgrade.wait() == ROLLED_BACK
    running.wait_more(500)
    assert_clean(running.stop(), 2500, generations=[1])


def test_ready_but_not_accepting(web, load):
    """Saying READY=1 is not enough: a connection must have been accepted."""
    one = web(workers=2, upgrade=quick(), ready="notify")
    one.manners.set("--if-generation 2 --ready-before-accept 700ms")
    running = load(one.port, clients=CLIENTS)
    running.wait_for(ok=100)
    began = monotonic_usec()
    one.upgrade()
    running.wait_for(generation=2)
    result = running.stop()
    assert_clean(result, 500, generations=[1, 2])
    assert generation_times(result)[2]["first_connect_usec"] - began > 600_000
    assert result["latency_usec"]["max"] < 500_000


def test_soak_with_all_traffic(web, load):
    """The old generation is there until the soak is over, without a connection."""
    one = web(workers=2, upgrade=quick(soak="400ms"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    old = one.pids()
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "upgrade"
    ).start() as upgrade:
        running.wait_for(generation=2)
        assert one.service()["rollout"]["phase"] == "soaking"
        assert one.generation(2)["traffic"] == 100.0
        assert one.generation(1)["state"] == "serving"
        assert all(is_alive(pid) for pid in old)
        assert upgrade.wait() == 0
    one.wait_generation_gone(1)
    result = running.stop()
    assert_clean(result, 500, generations=[1, 2])
    assert_in_order(result)


def test_canary_shares(web, load):
    one = web(workers=2, upgrade=quick("canary", steps=["5%", "50%"], soak="300ms"))
    running = load(one.port, clients=CLIENTS)
    running.wait_for(ok=100)

    for share, more in ((5, 6000), (50, 3000)):
        if share == 5:
            one.ctl("upgrade", "web", "--pause-at", f"{share}%", "--detach")
        else:
            one.ctl("promote", "web")
            wait_until(lambda: one.generation(2)["traffic"] == 50.0, what="the next step")
            one.ctl("pause", "web")
        wait_until(
            lambda: one.service()["rollout"]["phase"] == "paused", what=f"a pause at {share}%"
        )
        assert one.generation(2)["traffic"] == share
        assert one.generation(1)["traffic"] == 100 - share
        before = running.live()["generations"]
        running.wait_more(more)
        after = running.live()["generations"]
        new = after.get("2", 0) - before.get("2", 0)
        everything = new + after["1"] - before["1"]
        # Five standard deviations and the clients that were under way.
        deviation = 5 * (everything * share / 100 * (1 - share / 100)) ** 0.5 + CLIENTS
        assert abs(new - everything * share / 100) < deviation, (new, everything)
    one.ctl("promote", "--full", "web")
    one.wait_serving(generation=2)
    one.wait_generation_gone(1)
    old = running.live()["generations"]["1"]
    running.wait_more(500)
    assert running.live()["generations"]["1"] == old
    assert_clean(running.stop(), 5000, generations=[1, 2])


def test_abort_of_a_canary(web, load):
    one = web(workers=2, upgrade=quick("canary", steps=["50%"], soak="10s"))
    running = load(one.port, clients=CLIENTS)
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "upgrade"
    ).start() as upgrade:
        running.wait_for(generation=2, count=500)
        one.ctl("abort", "web")
        aborted = monotonic_usec()
        assert upgrade.wait() == ROLLED_BACK
        assert "aborted" in upgrade.out + upgrade.err
    one.wait_serving(generation=1)
    one.wait_generation_gone(2)
    running.wait_more(1000)
    result = running.stop()
    assert_clean(result, 1500, generations=[1, 2])
    assert generation_times(result)[2]["last_connect_usec"] <= aborted


def test_preview(web, load):
    """Connections from one address see the new generation before anybody else does."""
    one = web(workers=2, upgrade=quick("canary", steps=["10%"], preview_from="127.0.0.2"))
    assert http_get(one.port, source="127.0.0.2").generation == 1
    one.manners.set("--if-generation 2 --ready-delay 0")
    running = load(one.port, clients=CLIENTS)
    one.ctl("upgrade", "web", "--pause-at", "10%", "--detach")
    wait_until(lambda: one.service()["rollout"]["phase"] == "paused", what="the pause")
    assert {http_get(one.port, source="127.0.0.2").generation for _ in range(30)} == {2}
    one.ctl("abort", "web")
    assert {http_get(one.port, source="127.0.0.2").generation for _ in range(30)} == {1}
    assert_clean(running.stop())


# ---- going back ----


@pytest.mark.parametrize("warm", ["30s", "0s"])
def test_rollback(web, load, warm):
    """To a generation that is kept, at once; else to a new one from what the last good one was."""
    # A generation that drains and was not told so yet is taken back, too: here none of them waits.
    one = web(workers=2, upgrade=quick(keep_warm=warm), drain={"idle_wait": "0s"})
    set_release(one, "good")
    one.upgrade()
    set_release(one, "regretted")
    running = load(one.port, clients=CLIENTS)
    one.upgrade()
    assert http_get(one.port, "/env?RELEASE").text == "regretted\n"
    pids = set(one.pids(generation=2))
    if warm == "0s":
        one.wait_generation_gone(2)
    one.ctl("rollback", "web")
    assert http_get(one.port, "/env?RELEASE").text == "good\n"
    now = one.wait_serving()
    if warm == "30s":
        assert now["generation"] == 2
        assert set(one.pids(generation=2)) == pids
    else:
        assert now["generation"] == 4
    one.wait_generation_gone(3)
    running.wait_more(500)
    assert_clean(running.stop(), 1000)


def test_restart_is_the_same_release(web, load):
    one = web(workers=2, upgrade=quick())
    set_release(one, "old")
    one.upgrade()
    set_release(one, "on disk only")
    running = load(one.port, clients=CLIENTS)
    before = set(one.pids(generation=2))
    one.ctl("restart", "web")
    one.wait_serving(generation=3)
    assert not before & set(one.pids(generation=3))
    assert http_get(one.port, "/env?RELEASE").text == "old\n"
    assert_clean(running.stop(), 100)


# ---- a second one meanwhile ----


def test_overlap_reject(web, load):
    one = web(workers=2, upgrade=quick(soak="10s"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.ctl("upgrade", "web", "--detach")
    running.wait_for(generation=2)
    refused = one.upgrade(check=IN_PROGRESS)
    assert "2" in refused.err
    assert one.service()["rollout"]["toGeneration"] == 2
    one.ctl("promote", "--full", "web")
    one.wait_serving(generation=2)
    assert_clean(running.stop(), 100, generations=[1, 2])


def test_overlap_supersede(web, load):
    one = web(workers=2, upgrade=quick(soak="10s", overlap="supersede"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "first"
    ).start() as first:
        running.wait_for(generation=2)
        one.upgrade("web", "--soak", "0s")
        assert first.wait() != 0
        assert "superseded" in first.out + first.err
    one.wait_serving(generation=3)
    one.wait_generation_gone(2)
    running.wait_for(generation=3)
    assert_clean(running.stop(), 100, generations=[1, 2, 3])


def test_overlap_queue(web, load):
    one = web(workers=2, upgrade=quick(soak="500ms", overlap="queue"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.ctl("upgrade", "web", "--detach")
    set_release(one, "third")
    one.upgrade()
    one.wait_serving(generation=3)
    assert http_get(one.port, "/env?RELEASE").text == "third\n"
    running.wait_for(generation=3)
    assert_clean(running.stop(), 100, generations=[1, 2, 3])


def test_stop_wins(web):
    one = web(workers=2, upgrade=quick(soak="10s"))
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "upgrade"
    ).start() as upgrade:
        wait_until(
            lambda: (one.service()["rollout"] or {}).get("phase") == "soaking", what="the soak"
        )
        one.ctl("stop", "web")
        assert upgrade.wait() not in (0, None)
    assert one.service()["state"] == "stopped"
    assert one.pids() == []
    assert not can_connect(one.port)
    one.ctl("start", "web")
    one.wait_serving()
    assert http_get(one.port).generation == one.service()["generation"]


def test_interrupted_client(web, load):
    """Whoever asked may leave: the upgrade goes on."""
    one = web(workers=2, upgrade=quick(soak="700ms"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "upgrade"
    ).start() as upgrade:
        running.wait_for(generation=2)
        upgrade.signal(signal.SIGINT)
        assert upgrade.wait() == INTERRUPTED
        assert "abort" in upgrade.out + upgrade.err
    one.wait_serving(generation=2)
    assert_clean(running.stop(), 100, generations=[1, 2])


def test_busy_old_generations(web, load):
    """Slow requests hold several old generations; each is served to its end, none is in the way."""
    one = web(workers=1, upgrade=quick(), drain={"max_generations": 6})
    slow = []
    for number in range(2, 5):
        slow.append(load(one.port, clients=2, requests=2, path="/slow?ms=3000", timeout="20s"))
        wait_until(
            lambda n=number: one.generation(n - 1)["connections"] == 2, what="slow requests"
        )
        one.upgrade()
    assert [entry["number"] for entry in one.service()["generations"]] == [1, 2, 3, 4]
    for number, running in enumerate(slow, start=1):
        assert_clean(running.finish(), 2, generations=[number])
    one.wait_generation_gone(3)
    assert [entry["number"] for entry in one.service()["generations"]] == [4]


def test_too_many_generations(web):
    """Old ones that do not end are not added to without bound, and the refusal names one."""
    one = web("--ignore-term", workers=1, upgrade=quick(), drain={"max_generations": 2, "timeout": "6s", "kill_after": "200ms"})
    one.upgrade()
    refused = one.upgrade(check=False)
    assert refused.code != 0
    assert "generation 1" in refused.err
    assert one.service()["generation"] == 2
    set_drain(one, max_generations=3)
    one.upgrade()


def test_signals_to_the_daemon(web, load):
    """USR2 upgrades everything, HUP only what has changed."""
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.signal(signal.SIGUSR2)
    one.wait_serving(generation=2)
    one.signal(signal.SIGHUP)
    one.wait_log("unchanged, not upgraded")
    assert one.service()["generation"] == 2
    web_config(one)["environment"] = {"RELEASE": "3"}
    one.write_config()
    one.signal(signal.SIGHUP)
    one.wait_serving(generation=3)
    running.wait_for(generation=3)
    assert_clean(running.stop(), 100, generations=[1, 2, 3])


def test_per_worker_blue_green(web, load):
    port = free_port()
    one = web(workers=4, port=port, listen=per_worker(port), upgrade=quick())
    running = load(port, clients=CLIENTS)
    result = upgrade_many(one, running, 10, min_requests=1000)
    assert_in_order(result)


def test_run_without_a_file(daemon, load):
    """`tenured run`, upgraded by HUP."""
    port = free_port()
    one = daemon(args=[], start=False)
    one.command += ["--socket", str(one.socket_path), "run", "--listen", f"127.0.0.1:{port}"]
    one.command += ["--workers", "2", "--name", "web", "--soak", "0s", "--settle", "50ms", "--", WORKER]
    one.start()
    one.wait_serving()
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    one.signal(signal.SIGHUP)
    one.wait_serving(generation=2)
    one.upgrade()
    one.wait_serving(generation=3)
    running.wait_for(generation=3)
    assert_clean(running.stop(), 100, generations=[1, 2, 3])


def test_upgrade_tells_its_progress(web):
    one = web(workers=2, upgrade=quick("rolling", surge="50%"))
    told = one.upgrade()
    assert "50%" in told.out and "100%" in told.out, told
    lines = one.ctl("upgrade", "web", json=True).lines
    assert lines[-1]
    history = one.call("History", service="web")["entries"]
    assert [entry["generation"] for entry in history] == [1, 2, 3]


def test_output_of_the_upgrade_is_for_pipes(web):
    one = web(upgrade=quick())
    done = subprocess.run(
        [TENURECTL, "--socket", str(one.socket_path), "upgrade", "web"],
        env=clean_environment(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert b"\x1b" not in done.stdout + done.stderr
