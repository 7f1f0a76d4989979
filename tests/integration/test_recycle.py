# SPDX-License-Identifier: Apache-2.0
"""recycle: workers are replaced one at a time, new before old, when they are old or big. Under load, and no
request fails."""

import time

import pytest

from harness import assert_clean, wait_until
from upgrades import CLIENTS, per_worker, quick, set_release, web_config

MIB = 1 << 20


def starts(one):
    return one.log.count(" and is replaced")


def watch(one, seconds, wanted, generation=1):
    """Looks for so long; returns the fewest ready workers and the most processes of the generation."""
    fewest, most = wanted, 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        entry = one.generation(generation)
        fewest = min(fewest, sum(w["state"] == "ready" for w in entry["workers"]))
        most = max(most, sum(w.get("pid") is not None for w in entry["workers"]))
        time.sleep(0.002)
    return fewest, most


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_by_age(web, load, sockets):
    """Each of them, one at a time, and never fewer ready than wanted."""
    one = web(workers=3, start=False, recycle={"after": "1500ms"}, upgrade=quick())
    if sockets == "per-worker":
        web_config(one)["listen"] = per_worker(one.port)
        one.write_config()
    one.start()
    one.wait_serving()
    first = set(one.pids())
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    fewest, most = watch(one, 5, 3)
    wait_until(lambda: not first & set(one.pids()), 20, "all of the first to be replaced")
    assert fewest == 3, f"{fewest} ready\n{one.log}"
    # All three, the one in place of another, and one that is on its way out.
    assert most <= 5, one.log
    assert "reached the age at which it is recycled and is replaced" in one.log
    now = one.service()
    assert now["generation"] == 1 and now["healthy"] and not now.get("lastFailure")
    assert_clean(running.stop(), 1000, generations=[1])


def test_by_memory(web, load):
    """The one that leaks is replaced, again and again; the others stay."""
    one = web("--if-worker", "1", "--grow", "20M", workers=3, recycle={"memory": "64M"})
    first = {w["index"]: w["pid"] for w in one.workers(generation=1)}
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)

    def known():
        return {w["index"]: w.get("memory") for w in one.workers(generation=1)}

    wait_until(lambda: known().get(0) and known().get(1), 20, "the memory to be shown")
    assert MIB // 4 < known()[0] < 64 * MIB
    fewest, _ = watch(one, 1, 3)
    wait_until(lambda: starts(one) >= 2, 60, "two replacements", every=0.05)
    wait_until(lambda: len(one.pids(generation=1)) == 3, 20, "three workers")
    one.wait_serving()
    now = {w["index"]: w["pid"] for w in one.workers(generation=1)}
    assert now[1] != first[1]
    assert now[0] == first[0] and now[2] == first[2]
    assert fewest == 3
    assert "worker 1 reached the memory at which it is recycled and is replaced" in one.log
    assert "worker 0 reached the memory" not in one.log
    assert_clean(running.stop(), 1000, generations=[1])


def test_descendants_count(web, load):
    """A small worker with big children is a big one; what they share counts once."""
    # The child is a copy of its parent: together they have little more than one.
    one = web("--allocate", "40M", "--fork-grandchild", "--grandchild-lifetime", "600s", workers=1, recycle={"memory": "64M"})
    running = load(one.port, clients=CLIENTS, think="1ms")

    def memory():
        return one.workers(generation=1)[0].get("memory")

    wait_until(memory, 20, "the memory to be shown")
    assert 36 * MIB < memory() < 64 * MIB
    web_config(one)["recycle"]["memory"] = "24M"
    one.write_config()
    one.reload()
    wait_until(lambda: starts(one) >= 1, 30, "a replacement")
    running.wait_more(200)
    assert_clean(running.stop(), 100)


def test_upgrade_goes_first(web, load):
    """An upgrade begins at once, whatever is being recycled; nobody is in the way."""
    one = web(workers=3, recycle={"after": "1s"}, upgrade={**quick("rolling"), "surge": "34%"}, drain={"settle": "50ms", "idle_wait": "100ms", "timeout": "5s"})
    running = load(one.port, clients=CLIENTS, think="1ms")
    for number in range(2, 6):
        begun = starts(one)
        wait_until(lambda before=begun: starts(one) > before, 20, "a worker to be recycled", every=0.001)
        set_release(one, number)
        one.upgrade()
        entry = one.wait_serving(generation=number)
        assert entry["workersWanted"] == 3
    running.wait_for(generation=5)
    assert_clean(running.stop(), 500, generations=range(1, 6))


def test_successor_that_is_not_ready(web, load):
    """The old one serves on: recycling can make nothing worse."""
    one = web(workers=2, recycle={"after": "1s"}, ready={"by": "notify", "timeout": "700ms"})
    first = set(one.pids())
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.manners.set("--never-ready")
    one.wait_log("not ready in time", 20)
    running.wait_more(500)
    assert set(one.pids()) >= first
    assert one.service()["state"] == "serving"
    assert_clean(running.stop(), 500, generations=[1])


def test_switched_on_and_off(web):
    """By reload, without an upgrade."""
    one = web("--grow", "50M", workers=1)
    pid = one.pids()[0]
    web_config(one)["recycle"] = {"memory": "16M"}
    one.write_config()
    said = one.reload().out
    assert "recycle" in said
    wait_until(lambda: one.pids() and one.pids() != [pid], 30, "a replacement", every=0.05)
    assert one.service()["generation"] == 1
    del web_config(one)["recycle"]
    one.write_config()
    one.reload()
    one.wait_serving()
    wait_until(lambda: len(one.pids()) == 1, 20, "one worker")
    before = starts(one)
    time.sleep(3)
    assert starts(one) == before
