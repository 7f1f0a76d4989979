# SPDX-License-Identifier: Apache-2.0
"""When a worker is ready: each way to find out, under load, and what it says when it does not come."""

import os
import time

import pytest

from daemon import ROLLED_BACK, TIMED_OUT, monotonic_usec
from harness import assert_clean, free_port, http_get, wait_until
from upgrades import CLIENTS, generation_times, per_worker, quick, web_config


def upgrade_and_measure(one, running):
    """Upgrades; returns after how many seconds generation 2 got its first connection."""
    began = monotonic_usec()
    one.upgrade()
    running.wait_for(generation=2)
    result = running.stop()
    assert_clean(result, 100, generations=[1, 2])
    return (generation_times(result)[2]["first_connect_usec"] - began) / 1e6


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_accept(web, load, sockets):
    """The default. Nothing is asked of the program but to accept."""
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web("--no-notify", workers=2, port=port, listen=listen, upgrade=quick())
    one.manners.set("--if-generation 2 --ready-delay 500ms")
    running = load(port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    assert upgrade_and_measure(one, running) > 0.45


def test_notify(web, load):
    one = web(workers=2, upgrade=quick(), ready="notify")
    one.manners.set("--if-generation 2 --if-worker 1 --ready-delay 500ms --status warming")
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    assert upgrade_and_measure(one, running) > 0.45
    assert {w["status"] for w in one.workers()} == {"serving", "warming"}


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_http(web, load, sockets):
    """The new generation itself is asked, on the real port, while the old one has all the traffic."""
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(
        workers=2, port=port, listen=listen, upgrade=quick(),
        ready={"by": "http", "path": "/up", "timeout": "1s", "interval": "50ms"},
    )  # fmt: skip
    one.manners.set("--if-generation 2 --unhealthy")
    running = load(port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    failed = one.upgrade(check=ROLLED_BACK)
    assert "503" in failed.out + failed.err, failed
    one.manners.set()
    one.upgrade()
    running.wait_for(generation=3)
    assert_clean(running.stop(), 200, generations=[1, 3])


@pytest.mark.parametrize("path, status, good", [
    ("/status?code=204", 204, True),
    ("/status?code=204", "any", True),
    ("/status?code=404", "any", False),
    ("/status?code=404", 404, True),
    ("/never", 200, False),
    ("/garbage", 200, False),
    ("/eof", 200, False),
    ("/reset", 200, False),
])  # fmt: skip
def test_http_replies(web, path, status, good):
    one = web(upgrade=quick())
    web_config(one)["ready"] = {
        "by": "http", "path": path, "status": status, "timeout": "600ms", "interval": "50ms",
    }  # fmt: skip
    one.write_config()
    one.upgrade(check=0 if good else ROLLED_BACK)
    assert http_get(one.port).generation == (2 if good else 1)


def test_exec(web, load):
    """A command that is tried until it succeeds."""
    one = web(workers=2, upgrade=quick())
    flag = one.directory / "flag"
    web_config(one)["ready"] = {
        "by": "exec", "command": ["test", "-e", str(flag)], "interval": "50ms", "timeout": "1s",
    }  # fmt: skip
    one.write_config()
    running = load(one.port, clients=CLIENTS, think="1ms")
    failed = one.upgrade(check=ROLLED_BACK)
    assert "test" in failed.out + failed.err, failed
    one.ctl("upgrade", "web", "--detach")
    time.sleep(0.4)
    assert one.service()["generation"] == 1
    flag.write_text("")
    one.wait_serving(generation=3)
    running.wait_for(generation=3)
    assert_clean(running.stop(), 100, generations=[1, 3])


def test_exec_that_hangs(web):
    """It is ended, and nothing of it is left."""
    one = web(upgrade=quick())
    web_config(one)["ready"] = {
        "by": "exec", "command": ["sh", "-c", "sleep 77 & sleep 77"], "timeout": "500ms",
    }  # fmt: skip
    one.write_config()
    began = time.monotonic()
    one.upgrade(check=ROLLED_BACK)
    assert time.monotonic() - began < 5
    one.wait_generation_gone(2)
    wait_until(lambda: "sleep\0" "77" not in all_commands(), what="the command's end")


def all_commands():
    found = ""
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", encoding="utf-8", errors="replace") as file:
                found += file.read() + "\n"
        except OSError:
            pass
    return found


def test_exec_gets_no_descriptors(web):
    one = web(upgrade=quick())
    listing = one.directory / "listing"
    web_config(one)["ready"] = {
        "by": "exec",
        "command": ["sh", "-c", f"ls -l /proc/$$/fd > {listing}.new; mv {listing}.new {listing}"],
        "timeout": "5s",
    }
    one.write_config()
    one.upgrade()
    assert "socket:" not in listing.read_text()


def test_delay(web, load):
    one = web(workers=2, upgrade=quick())
    web_config(one)["ready"] = {"by": "delay", "delay": "500ms"}
    one.write_config()
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    assert upgrade_and_measure(one, running) > 0.45


def test_extended_timeout(web):
    """EXTEND_TIMEOUT_USEC, for those who know that it takes longer today."""
    one = web(upgrade=quick(), ready={"by": "notify", "timeout": "500ms"})
    one.manners.set("--if-generation 2 --ready-delay 1200ms --extend-timeout 400ms")
    one.upgrade()
    one.manners.set("--if-generation 3 --ready-delay 1200ms")
    one.upgrade(check=ROLLED_BACK)
    assert http_get(one.port).generation == 2


def test_accept_can_be_left_out(web):
    """Then what the program says is believed."""
    one = web(upgrade=quick(), ready={"by": "notify", "accept": False, "timeout": "2s"})
    one.manners.set("--if-generation 2 --never-accept")
    one.upgrade()
    assert one.service()["generation"] == 2


def test_probes_are_nobodys_requests(web):
    """The worker sees no bytes of a probe, and serves nothing for it."""
    one = web("--no-notify", workers=2, upgrade=quick())
    for number in (2, 3):
        one.upgrade()
        seen, made = {}, 0
        while len(seen) < 2 and made < 200:
            seen.update(served(one))
            made += 1
        assert one.service()["generation"] == number
        # Each answer says how many there were before it.
        assert sum(n + 1 for n in seen.values()) == made, seen


def served(one):
    reply = http_get(one.port, "/process")
    facts = dict(line.split(" ", 1) for line in reply.text.splitlines())
    return {reply.worker: int(facts["served"])}


def test_wait_no_longer(web, load):
    """--timeout ends the waiting, not the upgrade."""
    one = web(workers=2, upgrade=quick(soak="900ms"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.ctl("upgrade", "web", "--timeout", "300ms", check=TIMED_OUT)
    one.wait_serving(generation=2)
    running.wait_for(generation=2)
    assert_clean(running.stop(), 50, generations=[1, 2])


def test_wait_for_the_drain(web, load):
    one = web(workers=1, upgrade=quick())
    slow = load(one.port, clients=1, requests=1, path="/slow?ms=1200", timeout="10s")
    wait_until(lambda: one.generation(1)["connections"] == 1, what="the slow request")
    began = time.monotonic()
    one.ctl("upgrade", "web", "--wait-drain")
    assert time.monotonic() - began > 0.5
    assert one.pids(generation=1) == []
    assert_clean(slow.finish(), 1)
