# SPDX-License-Identifier: Apache-2.0
"""Upgrades that fail in every way: no client notices, and whoever asked is told why."""

import json
import os
import shutil
import stat

import pytest

from daemon import BAD_CONFIG, ROLLED_BACK, monotonic_usec
from harness import TENURECTL, WORKER, Program, assert_clean, free_port, http_get, wait_until
from upgrades import CLIENTS, generation_times, per_worker, quick, set_release, web_config


def assert_back(one, running, generations=(1,), more=500):
    """The first generation serves as before, nothing of the second is left, nobody noticed."""
    one.wait_serving(generation=1)
    one.wait_generation_gone(2)
    running.wait_more(more)
    result = running.stop()
    assert_clean(result, more)
    assert set(result.generations) <= set(generations), result.summary()
    return result


# What the second generation does, keys of the service, what is said about it.
BEFORE_READY = {
    "exits": ("--exit-at-once --exit-code 3 --write-text cannot-open-the-database", {}, "exit status 3"),
    "exits later": ("--exit-after 200ms --ready-delay 5s --exit-code 4", {}, "exit status 4"),
    "is killed": ("--crash-after 100ms --ready-delay 5s --crash-how segv", {}, "signal 11"),
    "never ready": (
        "--never-ready --write-text still-waiting",
        {"ready": {"by": "notify", "timeout": "700ms"}},
        "not ready in time",
    ),
    "never accepts": ("--never-accept", {"ready": {"timeout": "700ms"}}, "not ready in time"),
    "hangs": ("--boot-delay 20s", {"ready": {"timeout": "700ms"}}, "not ready in time"),
    "says an error": ("--notify-errno 13 --ready-delay 5s", {}, "error"),
    "is unhealthy": (
        "--unhealthy",
        {"ready": {"by": "http", "path": "/up", "timeout": "700ms"}},
        "not ready in time",
    ),
}


@pytest.mark.sanitize
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("how", BEFORE_READY)
def test_before_ready(web, load, how, workers):
    manners, keys, reason = BEFORE_READY[how]
    one = web(workers=workers, upgrade=quick(), **keys)
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    one.manners.set(manners)
    failed = one.upgrade(check=ROLLED_BACK)
    one.wait_generation_gone(2)
    now = one.service()
    said = failed.out + failed.err
    assert reason in said, failed
    assert "generation 2" in said, failed
    if "--write-text" in manners:
        assert manners.split()[-1] in said, failed
        assert manners.split()[-1] in now["lastFailure"]["output"]
    assert now["lastFailure"]["generation"] == 2
    assert now["healthy"]
    running.wait_more(300)
    assert_clean(running.stop(), 300, generations=[1])
    # The cure needs nothing but another upgrade.
    one.manners.set()
    one.upgrade()
    assert http_get(one.port).generation == 3


def test_program_that_cannot_be_executed(web, load):
    """Found out before anything is started, or by the kernel at the last moment."""
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    command = web_config(one)["command"]

    web_config(one)["command"] = [str(one.directory / "not-there"), *command[1:]]
    one.write_config()
    refused = one.upgrade(check=None)
    assert refused.code in (1, ROLLED_BACK, BAD_CONFIG)
    assert "not-there" in refused.err

    broken = one.directory / "broken"
    broken.write_bytes(b"\x7fELF this is not a program")
    broken.chmod(0o755)
    web_config(one)["command"] = [str(broken)]
    one.write_config()
    refused = one.upgrade(check=None)
    assert refused.code in (1, ROLLED_BACK)
    assert "Exec format error" in refused.out + refused.err, refused

    script = one.directory / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    web_config(one)["command"] = [str(script)]
    one.write_config()
    refused = one.upgrade(check=None)
    assert refused.code in (1, ROLLED_BACK)

    script.chmod(0o644)
    refused = one.upgrade(check=None)
    assert refused.code in (1, ROLLED_BACK)
    if os.geteuid() != 0:
        assert "Permission denied" in refused.out + refused.err

    one.wait_serving(generation=1)
    running.wait_more(300)
    assert_clean(running.stop(), 300, generations=[1])


def test_bad_configuration(web, load):
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.write_config("services:\n  web:\n    comand: x\n    workers: many\n")
    for verb in (("upgrade", "web"), ("reload",)):
        refused = one.ctl(*verb, check=BAD_CONFIG)
        # Both mistakes at once, each with its place.
        assert ":3:" in refused.err and ":4:" in refused.err, refused
        assert "command" in refused.err, refused
    assert one.service()["generation"] == 1
    running.wait_more(300)
    assert_clean(running.stop(), 300, generations=[1])


def test_listens_on_its_own_port(web, load):
    """The message names the port, so that the mistake is found at once."""
    own = free_port()
    one = web(workers=2, upgrade=quick(), ready={"timeout": "1s"})
    one.manners.set(f"--if-generation 2 --listen-own 127.0.0.1:{own}")
    # Only one can have it: the other one must not take the message's place.
    web_config(one)["workers"] = 1
    one.write_config()
    running = load(one.port, clients=CLIENTS, think="1ms")
    failed = one.upgrade(check=ROLLED_BACK)
    assert str(own) in failed.out + failed.err, failed
    assert_back(one, running)


def test_gets_ready_then_dies_in_the_soak(web, load):
    """It had all new connections for a moment; those in its queue are not lost."""
    one = web(workers=1, upgrade=quick(soak="10s"))
    one.manners.set("--if-generation 2 --die-after-ready 300ms --die-between-requests")
    running = load(one.port, clients=CLIENTS)
    running.wait_for(ok=100)
    failed = one.upgrade(check=ROLLED_BACK)
    assert "soak" in failed.out + failed.err
    assert_back(one, running, generations=(1, 2))


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_dies_in_the_middle_of_rolling(web, load, sockets):
    """When three of four are replaced, one of the new ones dies."""
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(
        workers=4, port=port, listen=listen, upgrade=quick("rolling", surge="25%", soak="150ms")
    )
    one.manners.set("--if-generation 2 --if-worker 1 --die-after-ready 400ms --die-between-requests")
    running = load(port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    one.upgrade(check=ROLLED_BACK)
    one.wait_serving(generation=1)
    assert len(one.pids(generation=1)) == 4
    assert_back(one, running, generations=(1, 2))


def test_last_worker_never_ready(web, load):
    """The others of its generation served already, and go again."""
    one = web(workers=4, upgrade=quick("rolling"), ready={"timeout": "700ms"})
    one.manners.set("--if-generation 2 --if-worker 3 --never-accept")
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    failed = one.upgrade(check=ROLLED_BACK)
    assert "worker 2.3" in failed.out + failed.err
    rolled_back = monotonic_usec()
    result = assert_back(one, running, generations=(1, 2))
    assert generation_times(result)[2]["last_connect_usec"] <= rolled_back


def test_watchdog_in_the_soak(web, load):
    one = web(workers=1, upgrade=quick(soak="20s"), watchdog="300ms", ready="notify")
    # From its start a worker must send it; the first generation does.
    one.manners.set("--always --watchdog")
    one.upgrade("web", "--soak", "0s")
    one.manners.set("--if-generation 3 --watchdog --watchdog-stop-after 200ms", "--watchdog")
    failed = one.upgrade(check=ROLLED_BACK)
    assert "watchdog" in failed.out + failed.err
    one.wait_serving(generation=2)


def test_tells_it_as_json(web):
    one = web(workers=1, upgrade=quick())
    one.manners.set("--if-generation 2 --exit-at-once --exit-code 9 --write-text last-words")
    failed = one.ctl("upgrade", "web", json=True, check=ROLLED_BACK)
    text = json.dumps(failed.lines)
    assert "last-words" in text and "exit status 9" in text
    events = one.call("Events", since=0, service="web")["events"]
    assert "rolled-back" in [event["event"] for event in events]
    history = one.call("History", service="web")["entries"]
    assert [entry["generation"] for entry in history] == [1, 2]
    assert "exit" in history[1]["reason"]
    assert one.wait_log("rolled back to generation 1: worker 0 of generation 2 .*exit status 9")
    status = one.ctl("status", "web")
    assert "last-words" in status.out or "exit status 9" in status.out


def test_many_failures_leave_nothing(web, load):
    """A broken release that is tried again and again."""
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.manners.set("--if-worker 1 --exit-at-once")
    for number in range(2, 12):
        one.upgrade(check=ROLLED_BACK)
        one.wait_generation_gone(number)
    with one.no_fd_leak():
        for number in range(12, 32):
            one.upgrade(check=ROLLED_BACK)
            one.wait_generation_gone(number)
    one.wait_serving(generation=1)
    assert_clean(running.stop(), 500, generations=[1])


def test_first_start_fails(web):
    """Nothing to go back to: tried until the limit, then given up; start tries again."""
    one = web(workers=1, start=False, restart={"limit": {"starts": 3, "within": "60s"}})
    one.manners.set("--exit-at-once --exit-code 5 --write-text no-such-table")
    one.start()
    wait_until(lambda: one.service()["state"] == "failing" and not one.pids(), what="the end")
    one.wait_log("given up")
    now = one.service()
    assert not now["healthy"]
    assert "no-such-table" in now["lastFailure"]["output"]
    status = one.ctl("status", check=1)
    assert "exit status 5" in status.out + status.err
    one.manners.set()
    one.ctl("start", "web")
    one.wait_serving()
    assert http_get(one.port).status == 200


def test_cure_of_a_first_start(web):
    """A first start that does not get ready can be replaced before it is given up."""
    one = web(workers=1, start=False, upgrade=quick())
    one.manners.set("--if-generation 1 --never-accept")
    one.start()
    wait_until(one.pids, what="its worker")
    one.upgrade()
    one.wait_serving()
    assert http_get(one.port).generation == 2


def test_release_is_taken_away(web, load, tmp_path):
    """The executable vanishes after the upgrade was asked for: what runs goes on, and can be started
    again, from the file as it was."""
    program = tmp_path / "web"
    shutil.copy2(WORKER, program)
    program.chmod(program.stat().st_mode | stat.S_IXOTH)
    one = web(workers=2, upgrade=quick())
    web_config(one)["command"][0] = str(program)
    one.write_config()
    one.upgrade()
    running = load(one.port, clients=CLIENTS, think="1ms")
    program.unlink()
    assert one.upgrade(check=None).code != 0
    one.wait_serving(generation=2)
    # Proven generations are started from what was pinned.
    one.ctl("restart", "web")
    one.wait_serving(generation=3)
    running.wait_for(generation=3)
    assert_clean(running.stop(), 100, generations=[2, 3])


def test_stop_in_a_failing_upgrade(web):
    one = web(workers=2, upgrade=quick(), ready={"timeout": "5s"}, drain={"timeout": "500ms", "kill_after": "300ms"})
    one.manners.set("--if-generation 2 --never-accept --ignore-term")
    set_release(one, 2)
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "upgrade"
    ).start() as upgrade:
        wait_until(lambda: len(one.pids(generation=2)) == 2, what="generation 2")
        one.ctl("stop", "web", timeout=30)
        assert upgrade.wait() != 0
    assert one.service()["state"] == "stopped"
