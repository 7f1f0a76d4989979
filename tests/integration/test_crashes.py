# SPDX-License-Identifier: Apache-2.0
"""Workers that are killed: only what they had accepted is lost, and what was running comes back."""

import os
import signal
import subprocess
import time

import pytest

from daemon import ROLLED_BACK, monotonic_usec
from harness import TENURECTL, Program, assert_clean, connect, free_port, http_get, wait_until
from upgrades import (
    CLIENTS,
    assert_only_in_flight,
    generation_times,
    per_worker,
    quick,
    set_release,
)


def kill_one(one, index, generation=None, number=signal.SIGKILL):
    """Kills this worker; returns when another process is ready in its place."""
    generation = generation or one.service()["generation"]

    def worker():
        return one.workers(generation=generation)[index]

    old = worker()["pid"]
    os.kill(old, number)

    def replaced():
        now = worker()
        return now["state"] == "ready" and now.get("pid") not in (None, old)

    wait_until(replaced, what=f"worker {index} to be replaced")


@pytest.mark.sanitize
@pytest.mark.parametrize("workers, sockets", [(1, "shared"), (4, "shared"), (4, "per-worker")])
def test_kill_9(web, load, workers, sockets):
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    # No backoff between the kills of this test: each is to be the first.
    one = web(
        workers=workers, port=port, listen=listen, upgrade=quick(),
        restart={"backoff": {"from": "1ms", "to": "20ms"}},
    )  # fmt: skip
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    for i in range(12):
        kill_one(one, i % workers)
        running.wait_more(200)
    assert one.service()["generation"] == 1
    result = running.stop()
    assert_only_in_flight(result, 12)
    assert set(result.generations) == {1}
    assert result["ok"] > 2400


def test_queue_survives_its_worker(web):
    """Connections that wait in the queue of a worker that hangs and is killed are served by the next."""
    port = free_port()
    one = web("--epoll-exclusive", workers=1, port=port, listen=per_worker(port))
    pid = one.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    clients = [connect(port) for _ in range(20)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    for client in clients:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.close()


@pytest.mark.parametrize("how", ["abort", "segv", "kill"])
def test_crash_by_itself(web, load, how):
    """And the log says of what."""
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.manners.set(
        f"--if-first {one.directory}/crashed --crash-after 300ms --crash-how {how}"
    )
    one.upgrade()
    before = set(one.pids(generation=2))
    wait_until(
        lambda: len(set(one.pids(generation=2)) - before) == 1
        and len(one.pids(generation=2)) == 2,
        what="the crash",
    )
    one.wait_serving(generation=2)
    name = {"abort": "signal 6", "segv": "signal 11", "kill": "signal 9"}[how]
    assert one.wait_log(f"worker . ended .{name}")
    assert_only_in_flight(running.stop(), 1)


def test_idle_worker_that_was_woken(web, load):
    """One that dies woken for a connection it did not take does not leave the others asleep."""
    one = web("--epoll-exclusive", workers=3, upgrade=quick(), restart={"backoff": {"from": "1ms"}})
    running = load(one.port, clients=2, think="2ms", timeout="2s")
    for i in range(9):
        kill_one(one, i % 3)
        running.wait_more(20)
    result = running.stop()
    assert_only_in_flight(result, 9, clients=2)
    assert result["latency_usec"]["max"] < 1_000_000


# ---- what was running is started again ----


def test_respawn_of_the_old_release_in_mid_rollout(web, load):
    one = web(workers=2, upgrade=quick("canary", steps=["50%"]))
    set_release(one, "one")
    one.upgrade()
    set_release(one, "two")
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.ctl("upgrade", "web", "--pause-at", "50%", "--detach")
    wait_until(lambda: one.service()["rollout"]["phase"] == "paused", what="the pause")
    kill_one(one, 0, generation=2)
    kill_one(one, 1, generation=2)
    # Its crash is no reason to end the rollout.
    assert one.service()["rollout"]["phase"] == "paused"
    releases = {
        (reply.generation, reply.text)
        for reply in (http_get(one.port, "/env?RELEASE") for _ in range(40))
    }
    assert releases == {(2, "one\n"), (3, "two\n")}
    one.ctl("promote", "--full", "web")
    one.wait_serving(generation=3)
    one.wait_generation_gone(2)
    kill_one(one, 0)
    assert http_get(one.port, "/env?RELEASE").text == "two\n"
    assert_only_in_flight(running.stop(), 3)


def test_respawn_does_not_take_what_is_on_disk(web):
    """Not the configuration, not the environment's files, not the manners of a later deploy."""
    one = web(workers=2, upgrade=quick())
    env_file = one.directory / "env"
    env_file.write_text("FROM_FILE=old\n")
    one.config["services"]["web"]["env_file"] = [str(env_file)]
    set_release(one, "old")
    one.upgrade()
    env_file.write_text("FROM_FILE=new\n")
    set_release(one, "new")
    kill_one(one, 0)
    kill_one(one, 1)
    for variable in ("RELEASE", "FROM_FILE"):
        assert {http_get(one.port, f"/env?{variable}").text for _ in range(10)} == {"old\n"}
    assert one.service()["generation"] == 2


def test_new_one_is_killed_in_the_soak(web, load):
    one = web(workers=2, upgrade=quick("canary", steps=["50%"], soak="10s"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "upgrade"
    ).start() as upgrade:
        running.wait_for(generation=2, count=100)
        os.kill(one.pids(generation=2)[0], signal.SIGKILL)
        assert upgrade.wait(10) == ROLLED_BACK
        assert "signal 9" in upgrade.out + upgrade.err
    back = monotonic_usec()
    one.wait_serving(generation=1)
    one.wait_generation_gone(2)
    running.wait_more(200)
    result = running.stop()
    assert_only_in_flight(result, 1)
    assert generation_times(result)[2]["last_connect_usec"] <= back


def test_old_one_is_killed_while_it_drains(web, load):
    """What it had accepted goes with it, nothing else."""
    one = web(workers=1, upgrade=quick())
    slow = load(one.port, clients=4, path="/slow?ms=1000", timeout="10s")
    running = load(one.port, clients=CLIENTS, think="1ms")
    time.sleep(0.3)
    pid = one.pids()[0]
    one.upgrade()
    os.kill(pid, signal.SIGKILL)
    one.wait_generation_gone(1)
    running.wait_more(300)
    assert_clean(running.stop(), 300, generations=[1, 2])
    result = slow.stop()
    assert_only_in_flight(result, 1, clients=4)
    assert result["failed"] > 0


# ---- crashes that go on ----


def test_proven_release_that_cannot_start_any_more(web):
    """Tried for ever, its addresses open: whoever connects waits until somebody has mended it."""
    one = web(
        workers=2, restart={"backoff": {"from": "20ms", "to": "200ms"}, "limit": {"starts": 3}}
    )
    one.manners.set("--exit-at-once --exit-code 7")
    for pid in one.pids():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: one.service()["state"] == "failing", what="the trouble to be seen")
    clients = [connect(one.port, timeout=10) for _ in range(10)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    time.sleep(1)
    now = one.service()
    assert now["generation"] == 1 and not now["healthy"]
    assert {w["state"] for w in one.workers()} <= {"backoff", "starting"}
    assert max(w["restarts"] for w in one.workers()) >= 4
    assert one.ctl("status", check=1)
    one.manners.set()
    for client in clients:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.close()
    one.wait_serving(generation=1)


def test_upgrade_cures_a_crash_loop(web):
    one = web(workers=2, upgrade=quick(), restart={"backoff": {"from": "50ms", "to": "5s"}})
    one.manners.set("--if-generation 1 --exit-at-once")
    for pid in one.pids():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: one.service()["state"] == "failing", what="the trouble to be seen")
    with connect(one.port) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        one.upgrade()
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    one.wait_serving(generation=2)


def test_backoff_is_between_crashes(web):
    """The first respawn is immediate, the others are not."""
    one = web(workers=1, restart={"backoff": {"from": "2s", "to": "2s"}})
    began = time.monotonic()
    kill_one(one, 0)
    assert time.monotonic() - began < 1.5
    began = time.monotonic()
    kill_one(one, 0)
    assert 1.9 < time.monotonic() - began < 6


def test_policy_never(web):
    one = web(workers=2, restart="never")
    os.kill(one.pids()[0], signal.SIGKILL)
    wait_until(lambda: len(one.pids()) == 1, what="the end of one")
    time.sleep(0.3)
    assert len(one.pids()) == 1
    assert http_get(one.port).status == 200


def test_watchdog(web, load):
    """A worker that hangs is ended and replaced."""
    one = web(
        "--watchdog", workers=2, watchdog="300ms", ready="notify", upgrade=quick(),
        drain={"kill_after": "300ms"},
    )  # fmt: skip
    one.manners.set("--if-worker 1 --if-first " + str(one.directory / "hung") + " --hang-after 200ms")
    one.upgrade()
    before = one.workers(generation=2)[1]["pid"]
    wait_until(
        lambda: one.workers(generation=2)[1].get("pid") not in (None, before), what="its end"
    )
    one.wait_serving(generation=2)
    assert one.wait_log("missed its watchdog")
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=200)
    assert_clean(running.stop(), 200)


def test_many_crashes_leave_nothing(web, load):
    one = web(workers=2, restart={"backoff": {"from": "1ms", "to": "5ms"}})
    running = load(one.port, clients=CLIENTS, think="1ms")
    kill_one(one, 0)
    with one.no_fd_leak():
        for i in range(20):
            kill_one(one, i % 2)
    assert_only_in_flight(running.stop(), 21)


# Traces a process (PTRACE_SEIZE) until its input ends: its end is the tracer's to see first.
TRACER = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
sys.exit(77) if libc.ptrace(0x4206, int(sys.argv[1]), None, None) != 0 else print("traced", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("both", [False, True])
def test_traced_at_its_end(web, load, both):
    """strace, a debugger, or a leak checker: whoever watches a worker's end does not keep the daemon from it."""
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    before = one.pids()
    traced = before if both else before[:1]
    tracers = [
        subprocess.Popen(["/usr/bin/python3", "-c", TRACER, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for pid in traced
    ]
    try:
        if any(tracer.stdout.readline() != b"traced\n" for tracer in tracers):
            pytest.skip("processes cannot be traced here")
        for pid in traced:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
    finally:
        for tracer in tracers:
            tracer.stdin.close()
            tracer.stdout.close()
            tracer.wait(10)
    wait_until(
        lambda: len(now := one.pids()) == 2 and not set(traced) & set(now),
        what="others in their place",
    )
    one.wait_serving(generation=1)
    running.wait_more(100)
    assert_only_in_flight(running.stop(), len(traced))
