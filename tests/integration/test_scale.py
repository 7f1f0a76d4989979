# SPDX-License-Identifier: Apache-2.0
"""Scaling up and down under load."""

import pytest

from harness import assert_clean, free_port, wait_until
from processes import is_alive
from upgrades import CLIENTS, per_worker, quick, web_config


@pytest.mark.sanitize
@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_4_1_8(web, load, sockets):
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(workers=4, port=port, listen=listen, upgrade=quick())
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    for workers in (1, 8, 3, 4):
        before = one.pids()
        one.ctl("scale", "web", workers)
        wait_until(lambda n=workers: len(one.pids()) == n, what=f"{workers} workers")
        now = one.pids()
        # Nobody is replaced for it.
        assert now[: len(before)] == before[: len(now)]
        assert not any(is_alive(pid) for pid in set(before) - set(now))
        running.wait_more(500)
    assert one.service()["generation"] == 1
    result = running.stop()
    assert_clean(result, 2000, generations=[1])
    seen = {int(key.split(".")[1]) for key in result["workers"]}
    if sockets == "per-worker":
        assert seen == set(range(8))
    else:
        # Who wakes first takes from a shared queue: on a busy machine some come too late each time.
        assert seen <= set(range(8)) and len(seen) >= 4


def test_scaled_until_the_next_reload(web, load):
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.ctl("scale", "web", 5)
    assert one.service()["workersWanted"] == 5
    assert one.service()["scaled"]
    assert "scale" in one.ctl("diff").out
    one.upgrade()
    assert len(one.pids(generation=2)) == 5
    one.reload()
    wait_until(lambda: len(one.pids(generation=2)) == 2, what="two workers again")
    assert not one.service()["scaled"]
    assert_clean(running.stop(), 100, generations=[1, 2])


def test_by_configuration(web, load):
    """Another number of workers alone is no reason for a new generation."""
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS)
    pids = one.pids()
    web_config(one)["workers"] = 4
    one.write_config()
    assert "scale" in one.reload().out
    one.wait_serving(generation=1)
    assert len(one.pids()) == 4 and set(pids) < set(one.pids())
    running.wait_more(500)
    assert_clean(running.stop(), 500, generations=[1])


def test_up_and_down_while_it_happens(web, load):
    """Before the last one is done the next is asked for."""
    port = free_port()
    one = web(
        "--ready-delay", "50ms", workers=2, port=port, listen=per_worker(port), upgrade=quick()
    )
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    for workers in (6, 2, 4, 1, 5, 2):
        one.ctl("scale", "web", workers, "--detach")
    wait_until(lambda: len(one.pids()) == 2, what="two workers")
    one.wait_serving()
    running.wait_more(500)
    assert_clean(running.stop(), 500, generations=[1])


def test_bad_numbers(web):
    one = web(workers=2)
    for bad in ("0", "-1", "many", "100000"):
        assert one.ctl("scale", "web", bad, check=None).code != 0
    assert len(one.pids()) == 2
