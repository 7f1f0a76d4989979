# SPDX-License-Identifier: Apache-2.0
"""What takes minutes: a thousand upgrades of each strategy under load, with nothing lost and nothing
left."""

import os
import random
import signal
import time

import pytest

from daemon import ROLLED_BACK
from harness import assert_clean, free_port, wait_until
from processes import memory_kib
from upgrades import CLIENTS, assert_only_in_flight, per_worker, quick, web_config

pytestmark = pytest.mark.long

N = int(os.environ.get("TENURE_LONG_UPGRADES", "1000"))


def many(one, running, n, first):
    for number in range(first, first + n):
        one.upgrade()
        running.wait_for(generation=number)


@pytest.mark.parametrize(
    "strategy, sockets",
    [
        ("blue-green", "shared"),
        ("blue-green", "per-worker"),
        ("rolling", "shared"),
        ("rolling", "per-worker"),
        ("canary", "shared"),
        ("recreate", "shared"),
    ],
)
def test_a_thousand(web, load, strategy, sockets):
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(workers=4, port=port, listen=listen, upgrade=quick(strategy))
    running = load(port, clients=CLIENTS, duration="3600s")
    running.wait_for(ok=100)
    many(one, running, 20, 2)
    one.wait_generation_gone(20)
    memory = memory_kib(one.pid)
    # Four generations at most, so two lanes more than the two that are there from the start.
    with one.no_fd_leak(spare=8 if sockets == "per-worker" else 2):
        many(one, running, N - 20, 22)
        one.wait_generation_gone(N)
    assert memory_kib(one.pid) < memory + 1024
    result = running.stop()
    assert_clean(result, 10 * N, generations=range(1, N + 2))


def test_keepalive(web, load):
    one = web("--idle-linger", "500ms", workers=4, upgrade=quick())
    running = load(one.port, clients=32, keepalive=True, think="5ms", duration="3600s")
    running.wait_for(ok=100)
    for number in range(2, N // 5 + 2):
        one.upgrade()
        one.wait_generation_gone(number - 1)
    assert_clean(running.stop(), N)


def test_everything_at_random(web, load):
    """Upgrades of each strategy, good and bad, scaling, aborts and kills, in an order that the seed
    tells."""
    seed = int(os.environ.get("TENURE_SEED", str(random.randrange(1 << 32))))
    dice = random.Random(seed)
    print("TENURE_SEED =", seed)
    port = free_port()
    one = web(
        workers=4, port=port, listen=per_worker(port), upgrade=quick(overlap="supersede"),
        restart={"backoff": {"from": "1ms", "to": "20ms"}}, ready={"timeout": "1s"},
    )  # fmt: skip
    running = load(port, clients=CLIENTS, think="1ms", duration="3600s")
    n_killed = 0
    end = time.monotonic() + 120
    while time.monotonic() < end:
        what = dice.choice(["upgrade"] * 4 + ["bad", "scale", "abort", "kill", "rollback"])
        one.manners.set()
        if what == "upgrade":
            strategy = dice.choice(["blue-green", "rolling", "canary"])
            one.ctl("upgrade", "web", "--strategy", strategy, "--soak", f"{dice.randrange(50)}ms")
        elif what == "bad":
            # Manners are for who starts now: that shall be the new workers alone.
            wait_until(lambda: one.service()["healthy"] and len(one.service()["generations"]) == 1, 30)
            one.manners.set(dice.choice(["--exit-at-once", "--never-accept", "--crash-after 50ms"]))
            failed = one.ctl("upgrade", "web", "--soak", "200ms", check=None)
            assert failed.code == ROLLED_BACK, failed
            one.manners.set()
        elif what == "scale":
            one.ctl("scale", "web", dice.randrange(1, 9))
        elif what == "abort":
            one.ctl("upgrade", "web", "--soak", "5s", "--detach")
            time.sleep(dice.random() / 5)
            one.ctl("abort", "web", check=None)
        elif what == "kill":
            pids = one.pids()
            if pids:
                os.kill(dice.choice(pids), signal.SIGKILL)
                n_killed += 1
        else:
            one.ctl("rollback", "web", "--timeout", "20s", check=None)
        wait_until(lambda: one.service()["healthy"] or one.pids(), what="workers")
    web_config(one)["workers"] = 4
    one.ctl("upgrade", "web")
    one.wait_serving(timeout=30)
    result = running.stop()
    # A crash of a new worker in its soak may take what it had accepted, too.
    assert_only_in_flight(result, n_killed + result["ok"] // 1000)
