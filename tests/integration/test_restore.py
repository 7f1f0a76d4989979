# SPDX-License-Identifier: Apache-2.0
"""Live restore: the daemon is killed, its workers serve on, the next daemon takes everything back."""

import pytest
from harness import assert_clean, free_port
from keeper import Waiting, kept, wait_settled  # pylint: disable=unused-import
from upgrades import CLIENTS, per_worker, quick


def test_workers_serve_on_and_are_taken_back(kept, load):  # pylint: disable=redefined-outer-name
    web = kept(workers=4, upgrade=quick())
    before = web.service()
    pids = sorted(web.pids())
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(200)
    web.crash()
    traffic.wait_more(500)
    web.back()
    traffic.wait_more(200)
    now = web.wait_serving("web", generation=1)
    assert sorted(web.pids()) == pids
    assert [w["restarts"] for w in web.workers()] == [0] * 4
    assert now["generations"][0]["traffic"] == before["generations"][0]["traffic"]
    # It is the same as ever: upgrades, rollback, scaling.
    web.upgrade("web")
    wait_settled(web, 2)
    web.ctl("rollback", "web")
    wait_settled(web, 3)
    web.ctl("scale", "web", "2")
    assert_clean(traffic.stop(), generations=[1, 2, 3])


# ---- killed at a point of an upgrade ----

# (strategy and what goes with it, workers, sockets per worker)
BLUE_GREEN = ({**quick(soak="100ms")}, 4, False)
ROLLING = ({**quick("rolling", surge="50%", soak="100ms")}, 4, True)
CANARY = ({"strategy": "canary", "steps": ["25%", "100%"], "soak": "300ms", "verify": {"http": "/"}}, 4, False)
RECREATE = ({**quick("recreate")}, 2, False)
WARM = ({**quick(soak="100ms"), "keep_warm": "1h"}, 2, True)

# POINT:N, the N-th time since the upgrade was asked for.
POINTS = [
    ("spawn:1", BLUE_GREEN),
    ("spawned:1", BLUE_GREEN),
    ("spawned:3", ROLLING),
    ("spawn-saved:1", BLUE_GREEN),
    ("spawned:1", RECREATE),
    ("spawned:2", WARM),
    ("saved:1", BLUE_GREEN),
    ("saved:4", ROLLING),
    ("save:9", CANARY),
    ("effect-prepare-lane:1", BLUE_GREEN),
    ("effect-prepare-lane:1", ROLLING),
    ("effect-spawn:2", ROLLING),
    ("effect-watch-readiness:1", BLUE_GREEN),
    ("effect-verify:1", CANARY),
    ("effect-verify:2", CANARY),
    ("effect-steer:1", BLUE_GREEN),
    ("effect-steer:2", BLUE_GREEN),
    ("effect-steer:1", ROLLING),
    ("effect-steer:2", ROLLING),
    ("effect-steer:1", CANARY),
    ("effect-steer:2", CANARY),
    ("effect-steer:1", RECREATE),
    ("effect-query-queue:1", BLUE_GREEN),
    ("effect-count-connections:1", BLUE_GREEN),
    ("effect-signal-drain:1", BLUE_GREEN),
    ("effect-signal-drain:3", ROLLING),
    ("effect-signal-drain:1", RECREATE),
    ("effect-release-lane:1", BLUE_GREEN),
    ("effect-forget-generation:1", ROLLING),
    ("effect-report:1", BLUE_GREEN),
    ("rollout-starting:1", BLUE_GREEN),
    ("rollout-starting:1", ROLLING),
    ("rollout-starting:2", ROLLING),
    ("rollout-soaking:1", BLUE_GREEN),
    ("rollout-soaking:1", CANARY),
    ("rollout-soaking:1", ROLLING),
    ("rollout-soaking:2", ROLLING),
    ("rollout-settling:1", BLUE_GREEN),
    ("rollout-settling:1", CANARY),
    ("rollout-settling:1", ROLLING),
    ("rollout-stopping-old:1", RECREATE),
    ("rollout-starting:1", RECREATE),
    ("rollout-none:1", BLUE_GREEN),
    ("rollout-none:1", WARM),
    ("worker-starting:1", ROLLING),
    ("worker-starting:2", ROLLING),
    ("worker-ready:1", ROLLING),
    ("worker-ready:3", ROLLING),
    ("worker-settling:1", BLUE_GREEN),
    ("worker-emptying:1", BLUE_GREEN),
    ("worker-idling:1", BLUE_GREEN),
    ("worker-draining:1", BLUE_GREEN),
    ("worker-draining:2", ROLLING),
    ("worker-stopped:1", BLUE_GREEN),
    ("worker-stopped:2", ROLLING),
]


def listen_for(daemon_port, own_sockets):
    return per_worker(daemon_port) if own_sockets else f"127.0.0.1:{daemon_port}"


def faulty(kept, fault, how, **more):
    """A service whose daemon dies at that point, once armed."""
    upgrade, workers, own_sockets = how
    port = free_port()
    web = kept(workers=workers, upgrade=upgrade, listen=listen_for(port, own_sockets), fault=fault, **more)
    web.port = port
    return web


@pytest.mark.sanitize
@pytest.mark.parametrize(
    "fault,how", POINTS, ids=[f"{p}-{h[0]['strategy']}{'-warm' * ('keep_warm' in h[0])}" for p, h in POINTS]
)
def test_killed_during_an_upgrade(kept, load, fault, how):  # pylint: disable=redefined-outer-name
    web = faulty(kept, fault, how)
    warm = [1] if how is WARM else []
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    web.arm()
    asked = Waiting(web, "upgrade", "web", "--detach")
    web.wait_dead()
    web.back()
    assert asked.end().code == 0
    wait_settled(web, 2, warm=warm)
    assert len(set(web.pids())) == how[1] * (1 + len(warm))
    traffic.wait_for(generation=2)
    if warm:
        web.ctl("rollback", "web")
        wait_settled(web, 1)
    else:
        web.upgrade("web")
        wait_settled(web, 3)
    assert_clean(traffic.stop())
