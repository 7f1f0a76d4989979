# SPDX-License-Identifier: Apache-2.0
"""Stepping a canary by hand with tenurectl: what it says, shows and exits with. Always under load."""

import os
import pty
import re
import select
import time

import pytest

from canaries import (
    IN_NO_HURRY, assert_share, canary, count, finish, next_share, open_canary, rollout, wait_phase,
    wait_share,
)  # fmt: skip
from daemon import DONE, FAILED, IN_PROGRESS, ROLLED_BACK
from harness import TENURECTL, Program, assert_clean, clean_environment, free_port, wait_until
from upgrades import CLIENTS, per_worker, quick, web_config


@pytest.fixture
def stepped(web, load):
    """A service with steps that only `promote` ends, and load on it."""

    def make(*steps, workers=2, **upgrade):
        one = web(workers=workers, upgrade=canary(*(steps or ("5%", "25%")), **upgrade))
        running = load(one.port, clients=CLIENTS, think="1ms")
        running.wait_for(ok=100)
        return one, running

    return make


def upgrading(one, *args):
    """`tenurectl upgrade web` in the background."""
    command = [TENURECTL, "--socket", str(one.socket_path), "upgrade", "web", *args]
    return Program(command, one.directory, "upgrade", env=clean_environment(NO_COLOR="1"))


def test_promote_goes_on_at_once(stepped):
    """Step by step to the end; the upgrade that waits ends well, and says each step."""
    one, running = stepped()
    with upgrading(one) as upgrade:
        for share in 5, 25, 100:
            wait_share(one, share)
            assert rollout(one)["soakUntilUsec"] > time.time() * 1e6 + 60e6
            said = one.ctl("promote", "web")
            assert said.out == "web: goes on with the next step\n"
        assert upgrade.wait() == DONE, upgrade.err
        for share in 5, 25, 100:
            assert f"gets {share}% of new connections" in upgrade.out, upgrade.out
    one.wait_serving(generation=2)
    running.wait_for(generation=2)
    assert_clean(running.stop(), 100, generations=[1, 2])


def test_promote_full(stepped):
    one, running = stepped("1%", "2%", "3%")
    with upgrading(one, "--soak", "0s", "--pause-at", "1%") as upgrade:
        wait_phase(one, "paused")
        said = one.ctl("promote", "web", "--full")
        assert said.out == "web: goes on to all new connections\n"
        assert upgrade.wait() == DONE, upgrade.err
        assert "2%" not in upgrade.out
    assert_clean(running.stop(), 100)


def test_pause_at(stepped):
    """It stays there until told; who waits is told how to go on."""
    one, running = stepped()
    with upgrading(one, "--steps", "5%,25%,50%", "--soak", "0s", "--pause-at", "25%") as upgrade:
        wait_phase(one, "paused")
        running.wait_more(300)
        now = rollout(one)
        assert now["phase"] == "paused" and now["traffic"] == 25
        assert now.get("soakUntilUsec") is None
        assert "`tenurectl promote web` goes on, `tenurectl abort web` goes back" in upgrade.out
        shown = one.ctl("status").out
        assert "paused: `tenurectl promote web` goes on, `tenurectl abort web` goes back" in shown
        one.ctl("promote", "web")
        assert upgrade.wait() == DONE, upgrade.err
    assert_clean(running.stop(), 100)


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_scale_while_paused(web, load, sockets):
    """Both generations get their part of the workers, and the share stays as it is."""
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(workers=2, port=port, listen=listen, upgrade=canary("25%", "50%"))
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    open_canary(one, 25.0)
    assert (len(one.pids(generation=1)), len(one.pids(generation=2))) == (2, 1)
    before = one.pids(generation=1) + one.pids(generation=2)

    for workers, old, new in (8, 8, 2), (1, 1, 1), (6, 6, 2):
        one.ctl("scale", "web", workers)
        wait_until(
            lambda o=old, n=new: (len(one.pids(generation=1)), len(one.pids(generation=2))) == (o, n),
            what=f"{old} old workers and {new} new ones",
        )
        now = rollout(one)
        assert (now["phase"], now["traffic"]) == ("paused", 25)
        assert_share(count(running, 1000), 2, 25)
    assert {before[0], before[2]} <= set(one.pids(generation=1) + one.pids(generation=2))
    next_share(one, 50)
    assert len(one.pids(generation=2)) == 3
    one.ctl("abort", "web")
    one.wait_serving(generation=1)
    assert len(one.pids(generation=1)) == 6
    # The next one begins with as many, and stays so.
    open_canary(one, 25.0)
    one.ctl("scale", "web", 3)
    finish(one, 3)
    assert len(one.pids(generation=3)) == 3
    assert_clean(running.stop(), 3000, generations=[1, 2, 3])


def test_pause_and_promote(stepped):
    one, running = stepped("50%", soak="2s")
    with upgrading(one) as upgrade:
        wait_share(one, 50)
        said = one.ctl("pause", "web")
        assert said.out.startswith("web: paused"), said
        # Longer than the soak would have been.
        time.sleep(2.5)
        assert rollout(one)["phase"] == "paused"
        assert upgrade.is_running()
        one.ctl("promote", "web")
        wait_share(one, 100)
        one.ctl("promote", "web")
        assert upgrade.wait() == DONE, upgrade.err
    assert_clean(running.stop(), 100)


@pytest.mark.parametrize("verb", ["abort", "rollback"])
def test_back_at_25(stepped, verb):
    """Both mean the same here; who waited for the upgrade is told, by 6."""
    one, running = stepped()
    with upgrading(one) as upgrade:
        wait_share(one, 5)
        one.ctl("promote", "web")
        wait_share(one, 25)
        running.wait_for(generation=2)
        said = one.ctl(verb, "web")
        assert upgrade.wait() == ROLLED_BACK
        assert "generation 2" in upgrade.err
        if verb == "rollback":
            assert re.search(r"generation 1 has all new connections again, [0-9.]+ms after", said.out), said
    one.wait_serving(generation=1)
    one.wait_generation_gone(2)
    before = running.wait_more(50)["generations"].get("2", 0)
    assert running.wait_more(500)["generations"].get("2", 0) == before
    assert_clean(running.stop(), 100)


def test_nothing_to_control(web):
    """Each says so, and exits with 1; a second upgrade exits with 5."""
    one = web(workers=1, upgrade=canary("5%"))
    for verb in "promote", "pause", "abort":
        said = one.ctl(verb, "web", check=FAILED)
        assert "no rollout is in progress" in said.err, said
    said = one.ctl("rollback", "web", check=FAILED)
    assert "no earlier good generation" in said.err, said
    open_canary(one, 5)
    said = one.upgrade(check=IN_PROGRESS)
    assert "a rollout to generation 2 is in progress" in said.err, said
    one.ctl("pause", "web")
    one.ctl("abort", "web")


def test_rollback_to_warm_says_how_long_it_took(web, load):
    """By the daemon's clock, from the request until the program that steers was changed."""
    one = web(workers=2, upgrade=quick(keep_warm="10m"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    took = []
    for _ in range(5):
        one.upgrade()
        shown = one.ctl("status").out
        assert re.search(r"generation 1 is kept warm for another [0-9ms]+", shown), shown
        assert "`tenurectl rollback web` goes back to it at once" in shown
        warm = one.generation(1)
        assert time.time() * 1e6 < warm["warmUntilUsec"] <= (time.time() + 600) * 1e6
        said = one.ctl("rollback", "web").out
        found = re.search(r"generation 1 has all new connections again, ([0-9.]+)ms after the request", said)
        assert found, said
        took.append(float(found.group(1)))
        one.wait_serving(generation=1)
    print(f"moved back within {sorted(took)} ms of the request")
    # On an idle machine a fraction of a millisecond.
    assert min(took) < 250
    running.wait_more(200)
    assert_clean(running.stop(), 100)


def test_live_display(stepped):
    """On a terminal: one line, with the share, the soak that is left, and how to go on."""
    one, running = stepped("5%", verify="/up")
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="200", LC_ALL="C.UTF-8")
        os.execv(TENURECTL, [TENURECTL, "--socket", str(one.socket_path), "upgrade", "web"])
    text = ""

    def shown(pattern):
        nonlocal text
        while select.select([fd], [], [], 0)[0]:
            try:
                text += os.read(fd, 65536).decode(errors="replace")
            except OSError:
                break
        return re.search(pattern, re.sub(r"\x1b\[[0-9;]*m", "", text))

    try:
        wait_until(lambda: shown(r"5%.*soak 9m\d+s.*verified"), what="the soak that is left")
        one.ctl("pause", "web")
        wait_until(lambda: shown(r"paused .*`tenurectl promote web` goes on"), what="how to go on")
        one.ctl("abort", "web")
        wait_until(lambda: shown("rolled back|failed"), what="its end")
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(fd)
    assert os.waitstatus_to_exitcode(status) == ROLLED_BACK
    assert_clean(running.stop(), 100)


def test_status_while_it_soaks(stepped):
    one, running = stepped("25%", verify={"http": "/up"}, soak=IN_NO_HURRY)
    one.call("Upgrade", service="web")
    wait_share(one, 25)
    wait_until(lambda: rollout(one).get("verify") == "passed", what="a good verify")
    shown = one.ctl("status").out
    assert re.search(r"rollout 1 -> 2 \(canary\): soaking, step 1 of 2, 9m\d+s of soak left, verified, 25%", shown)
    one.ctl("abort", "web")
    one.wait_serving(generation=1)
    assert_clean(running.stop(), 100)


def test_unverified_page_and_exit_code(stepped):
    """What a deploy script sees: 6, why, and what the page said."""
    one, running = stepped("25%", verify="/up", soak="0s")
    web_config(one)["command"].append("--unhealthy")
    one.write_config()
    failed = one.upgrade(check=ROLLED_BACK)
    assert "web: rolled back, generation 2 is not in service: was not verified: its page /up answered 503" in failed.err
    assert_clean(running.stop(), 100)
