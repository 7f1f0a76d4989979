# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed again and again, at any moment, while everything is asked of it: workers serve on, and
no request fails. And what it takes to come back."""

import os
import random
import statistics
import threading
import time

import pytest
from harness import assert_clean, free_port, wait_until
from keeper import kept, wait_settled  # pylint: disable=unused-import
from processes import memory_kib
from upgrades import CLIENTS, per_worker, quick

# pylint: disable=redefined-outer-name


class Operator(threading.Thread):
    """Asks for this and that, and minds no refusal: half of the time nobody is there."""

    def __init__(self, web, seed):
        super().__init__(daemon=True)
        self.web, self.random, self.ended = web, random.Random(seed), False

    def run(self):
        while not self.ended:
            words = self.random.choice(
                [
                    ("upgrade", "web", "--detach"),
                    ("upgrade", "web", "--detach"),
                    ("upgrade", "web", "--detach", "--strategy", "rolling"),
                    ("upgrade", "web", "--detach", "--steps", "20%,100%", "--soak", "50ms"),
                    ("rollback", "web"),
                    ("abort", "web"),
                    ("promote", "web", "--full"),
                    ("scale", "web", str(self.random.randint(1, 4))),
                    ("restart", "web", "--detach"),
                    ("status", "web"),
                ]
            )
            self.web.ctl(*words, check=None)
            time.sleep(self.random.random() * 0.1)

    def end(self):
        self.ended = True
        self.join(60)


def kill_often(kept, load, kills, own_sockets):
    seed = int(os.environ.get("TENURE_SEED", random.randrange(1 << 30)))
    print("TENURE_SEED", seed)
    moments = random.Random(seed)
    port = free_port()
    web = kept(
        workers=3,
        upgrade=quick(soak="50ms", keep_warm="500ms"),
        listen=per_worker(port) if own_sockets else f"127.0.0.1:{port}",
    )
    web.port = port
    traffic = load(port, clients=CLIENTS)
    operator = Operator(web, seed)
    operator.start()
    try:
        for _ in range(kills):
            time.sleep(moments.random() ** 2 * 0.6)
            web.crash()
            time.sleep(moments.random() * 0.05)
            web.back()
    finally:
        operator.end()
    wait_until(
        lambda: web.service()["state"] == "serving" and not web.service().get("rollout"), 60, "the end"
    )
    traffic.wait_more(100)
    result = traffic.stop()
    assert result["failed"] == 0, f"TENURE_SEED={seed}\n{result}\n{web.log[-4000:]}"
    assert_clean(result)
    assert "is not used" not in web.log


@pytest.mark.parametrize("own_sockets", [False, True])
def test_at_any_moment(kept, load, own_sockets):
    kill_often(kept, load, 12, own_sockets)


@pytest.mark.long
@pytest.mark.parametrize("own_sockets", [False, True])
def test_at_any_moment_often(kept, load, own_sockets):
    kill_often(kept, load, 100, own_sockets)


def test_killed_while_it_comes_back(kept, load):
    """Before and after everything is taken, several times in a row."""
    web = kept(workers=3, upgrade=quick())
    pids = sorted(web.pids())
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    web.crash()
    for point in ("restore:1", "restored:1", "restore:1", "restored:1"):
        web.fault = point
        web.start(wait=False)
        web.arm()
        web.wait_dead()
        traffic.wait_more(20)
    web.back()
    web.wait_serving("web", generation=1)
    assert sorted(web.pids()) == pids
    web.upgrade("web")
    wait_settled(web, 2)
    assert_clean(traffic.stop())


def test_nothing_grows(kept):
    """Neither the store, nor what the daemon has open, nor the state, however often it comes back."""
    web = kept(workers=2, upgrade=quick())
    counts = []
    for i in range(12):
        web.upgrade("web")
        web.wait_generation_gone(i + 1)
        web.crash()
        web.back()
        wait_settled(web, i + 2)
        if i >= 9:  # history keeps the snapshots of eight generations
            counts.append((len(web.store.names()), web.fd_count()))
    assert len(set(counts)) == 1, counts


def spent(web):
    """What the last restore took, of the daemon's own work: its CPU time until it answers."""
    with open(f"/proc/{web.pid}/stat", encoding="ascii") as file:
        words = file.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def test_how_long_it_takes(kept, load):
    """Bounds that only something very wrong breaks; the figures are printed."""
    web = kept(workers=4, upgrade=quick())
    traffic = load(web.port, clients=4)
    traffic.wait_more(50)
    took, own = [], []
    for _ in range(5):
        web.crash()
        begin = time.monotonic()
        web.back()
        web.service()
        took.append((time.monotonic() - begin) * 1000)
        own.append(spent(web))
    print(f"back after {statistics.median(took):.1f} ms, {statistics.median(own):.0f} ms of CPU time")
    assert statistics.median(own) < 500
    idle = memory_kib(web.pid)
    print(f"PSS {idle} KiB")
    assert_clean(traffic.stop(), generations=[1])


@pytest.mark.long
def test_a_thousand_workers(kept):
    web = kept(workers=1000, upgrade=quick())
    web.wait_serving("web", timeout=120)
    pids = sorted(web.pids())
    assert len(pids) == 1000
    took, own = [], []
    for _ in range(3):
        web.crash()
        begin = time.monotonic()
        web.back()
        web.service()
        took.append((time.monotonic() - begin) * 1000)
        own.append(spent(web))
    assert sorted(web.pids()) == pids
    print(f"back after {statistics.median(took):.0f} ms, {statistics.median(own):.0f} ms of CPU time")
    assert statistics.median(own) < 5000
