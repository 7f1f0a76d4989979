# SPDX-License-Identifier: Apache-2.0
"""Rolling upgrades: some workers at a time."""

import pytest

from harness import Program, assert_clean, free_port, TENURECTL, wait_until
from upgrades import CLIENTS, generation_times, per_worker, quick, upgrade_many


@pytest.mark.sanitize
def test_20_with_sockets_per_worker(web, load):
    port = free_port()
    one = web(workers=4, port=port, listen=per_worker(port), upgrade=quick("rolling"))
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    result = upgrade_many(one, running, 20, min_requests=5000)
    # Every worker of every generation had its share.
    seen = {tuple(map(int, key.split("."))) for key in result["workers"] if "none" not in key}
    assert {(21, index) for index in range(4)} <= seen


def test_shared_sockets(web, load):
    one = web(workers=4, upgrade=quick("rolling"))
    running = load(one.port, clients=CLIENTS)
    running.wait_for(ok=100)
    upgrade_many(one, running, 10, min_requests=2000)


def test_keepalive(web, load):
    port = free_port()
    one = web(workers=4, port=port, listen=per_worker(port), upgrade=quick("rolling"))
    running = load(port, clients=CLIENTS, keepalive=True, think="5ms")
    running.wait_for(ok=100)
    for number in (2, 3):
        one.upgrade()
        one.wait_generation_gone(number - 1)
    running.wait_for(generation=3)
    assert_clean(running.stop(), 500)


@pytest.mark.parametrize("surge, most", [("25%", 5), ("50%", 6), ("100%", 8)])
def test_surge(web, load, surge, most):
    """With sockets of their own, old workers leave as new ones take over: never many more than wanted."""
    port = free_port()
    one = web(
        "--ready-delay", "150ms", workers=4, port=port, listen=per_worker(port),
        upgrade=quick("rolling", surge=surge, soak="100ms"),
    )  # fmt: skip
    running = load(port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    accepting = []
    with Program(
        [TENURECTL, "--socket", one.socket_path, "upgrade", "web"], one.directory, "upgrade"
    ).start() as upgrade:
        while upgrade.is_running():
            workers = one.workers()
            accepting.append(sum(w["state"] in ("starting", "ready") for w in workers))
        assert upgrade.wait() == 0, upgrade.err
    assert most - 1 <= max(accepting) <= most, accepting
    assert min(accepting) >= 4, accepting
    running.wait_for(generation=2)
    assert_clean(running.stop(), 200, generations=[1, 2])


def test_shares_follow_the_workers(web, load):
    """Half of the workers, half of the connections."""
    one = web(workers=4, upgrade=quick("rolling", surge="50%", soak="200ms"))
    running = load(one.port, clients=CLIENTS)
    one.ctl("upgrade", "web", "--pause-at", "50%", "--detach")
    wait_until(lambda: one.service()["rollout"]["phase"] == "paused", what="the pause")
    assert one.generation(2)["traffic"] == 50.0
    assert sum(w["state"] == "ready" for w in one.workers(generation=2)) == 2
    before = running.live()["generations"]
    running.wait_more(3000)
    after = running.live()["generations"]
    new, old = (after[key] - before.get(key, 0) for key in ("2", "1"))
    assert 0.43 < new / (new + old) < 0.57
    one.ctl("promote", "web")
    one.wait_serving(generation=2)
    one.wait_generation_gone(1)
    assert_clean(running.stop(), 1000, generations=[1, 2])


def test_fewer_and_more_workers(web, load):
    """A release may have another number of workers than the one before."""
    port = free_port()
    one = web(workers=4, port=port, listen=per_worker(port), upgrade=quick("rolling"))
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    for number, workers in enumerate((2, 6, 1, 4), start=2):
        one.config["services"]["web"]["workers"] = workers
        one.write_config()
        one.upgrade()
        one.wait_serving(generation=number)
        assert len(one.pids(generation=number)) == workers
        running.wait_for(generation=number)
    result = running.stop()
    assert_clean(result, 1000, generations=range(1, 6))
    assert sorted(generation_times(result)) == [1, 2, 3, 4, 5]
