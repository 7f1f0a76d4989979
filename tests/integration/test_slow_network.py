# SPDX-License-Identifier: Apache-2.0
"""A network where handshakes take time: 10 ms each way, so that at any moment some connections are only
half made. Everything about draining is as by default."""

import os

import pytest

from daemon import ROLLED_BACK, Manners, worker_service
from harness import assert_clean, free_port
from netns import DelayLine
from upgrades import quick

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun here"),
]

CLIENTS = 250


@pytest.fixture
def line(tmp_path):
    with DelayLine(tmp_path, "10ms") as made:
        yield made


@pytest.fixture
def slow(line, daemon, load):
    """slow(listen keys, service keys) -> the daemon on one side and a function that makes load on the
    other."""

    def make(version=4, sockets="shared", **keys):
        port = free_port()
        host = line.address_a if version == 4 else f"[{line.address6_a}]"
        target = (line.address_a if version == 4 else line.address6_a, port)
        one = daemon(start=False, netns=line.a)
        one.manners = Manners(one.directory)
        listen = {"http": {"address": f"{host}:{port}", "sockets": sockets}}
        service = worker_service(listen, manners=one.manners, **keys)
        del service["drain"]
        one.config = {"services": {"web": service}}
        one.write_config()
        one.start()
        one.wait_serving()

        def make_load(**options):
            return load(target, netns=line.b, **{"clients": CLIENTS, **options})

        return one, make_load

    return make


@pytest.mark.parametrize(
    "version, sockets, strategy",
    [(4, "shared", "blue-green"), (4, "per-worker", "rolling"), (6, "per-worker", "blue-green")],
)
def test_upgrades(slow, version, sockets, strategy):
    one, make_load = slow(version, sockets, workers=2, upgrade=quick(strategy, surge="50%"))
    running = make_load()
    running.wait_for(ok=500)
    for number in range(2, 5):
        one.upgrade()
        running.wait_for(generation=number)
    result = running.stop()
    assert_clean(result, 5000, generations=[1, 2, 3, 4])
    # Nobody's handshake had to be made again.
    assert result["latency_usec"]["max"] < 900_000, result.summary()


def test_scale(slow):
    one, make_load = slow(4, "per-worker", workers=4, upgrade=quick())
    running = make_load()
    running.wait_for(ok=500)
    for workers in (1, 8, 2):
        one.ctl("scale", "web", workers)
        running.wait_more(1000)
    assert_clean(running.stop(), 3000, generations=[1])


def test_failed_upgrade(slow):
    one, make_load = slow(4, "shared", workers=2, upgrade=quick("canary", steps=["50%"], soak="10s"))
    one.manners.set("--if-generation 2 --die-after-ready 500ms --die-between-requests")
    running = make_load()
    running.wait_for(ok=500)
    one.upgrade(check=ROLLED_BACK)
    one.wait_serving(generation=1)
    one.wait_generation_gone(2)
    running.wait_more(1000)
    assert_clean(running.stop(), 1500)


def test_loses_requests_without_settling(slow):
    """The test itself is tested: without the time to settle, connections are lost here."""
    one, make_load = slow(4, "shared", workers=2, upgrade=quick(strategy="blue-green"))
    one.config["services"]["web"]["drain"] = {"settle": "0s", "idle_wait": "0s"}
    one.write_config()
    one.reload()
    running = make_load()
    running.wait_for(ok=500)
    start = one.service()["generation"]
    for number in range(start + 1, start + 6):
        one.upgrade()
        running.wait_for(generation=number)
    assert running.stop()["failed"] > 0
