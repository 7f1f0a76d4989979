# SPDX-License-Identifier: Apache-2.0
"""Live restore: the daemon is killed, its workers serve on, the next daemon takes everything back."""

import random
import time

import pytest
from daemon import Manners, worker_service
from harness import assert_clean, free_port, http_get, wait_until
from keeper import KeptDaemon
from processes import Process
from upgrades import CLIENTS, per_worker, quick, set_release


@pytest.fixture
def kept(request, no_strays):  # pylint: disable=unused-argument
    """kept(...) as the fixture `web`, with a keeper."""
    made = request.node.daemons = []

    def make(*options, listen=None, top=None, env=None, limit=None, **keys):
        new = KeptDaemon(env=env, **({"limit": limit} if limit else {}))
        made.append(new)
        new.port = free_port()
        new.manners = Manners(new.directory)
        service = worker_service(
            listen or f"127.0.0.1:{new.port}", *options, manners=new.manners, **keys
        )
        new.config = {"services": {"web": service}, **(top or {})}
        new.write_config()
        new.start()
        new.wait_serving("web")
        return new

    yield make
    passed = not getattr(request.node, "failed_call", False)
    problems = []
    for one in made:
        try:
            if passed:
                one.stop()
        except Exception as error:  # pylint: disable=broad-except
            problems.append(error)
        finally:
            one.remove()
    if problems:
        raise problems[0]


def test_workers_serve_on_and_are_taken_back(kept, load):
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
    web.ctl("rollback", "web")
    web.wait_serving("web", generation=3)
    web.ctl("scale", "web", "2")
    assert_clean(traffic.stop(), generations=[1, 2, 3])


# ---- killed at a point of an upgrade ----

# (strategy and what goes with it, workers, sockets per worker)
BLUE_GREEN = ({**quick()}, 4, False)
ROLLING = ({**quick("rolling", surge="50%")}, 4, True)
CANARY = ({"strategy": "canary", "steps": ["25%", "100%"], "soak": "300ms"}, 4, False)
RECREATE = ({**quick("recreate")}, 2, False)

# The first of each that comes with the upgrade: four workers were started before it.
POINTS = [
    ("spawn:5", BLUE_GREEN),
    ("spawned:5", BLUE_GREEN),
    ("spawn-saved:5", BLUE_GREEN),
    ("spawned:8", ROLLING),
    ("effect-prepare-lane:2", BLUE_GREEN),
    ("effect-prepare-lane:2", ROLLING),
    ("effect-watch-readiness:6", BLUE_GREEN),
    ("effect-steer:12", ROLLING),
    ("effect-signal-drain:1", BLUE_GREEN),
    ("effect-signal-drain:3", ROLLING),
    ("effect-release-lane:1", BLUE_GREEN),
    ("effect-forget-generation:1", ROLLING),
    ("rollout-starting:2", BLUE_GREEN),
    ("rollout-soaking:2", CANARY),
    ("rollout-soaking:3", CANARY),
    ("rollout-soaking:2", ROLLING),
    ("rollout-settling:2", BLUE_GREEN),
    ("rollout-settling:2", ROLLING),
    ("rollout-stopping-old:1", RECREATE),
    ("rollout-starting:2", RECREATE),
    ("rollout-none:2", BLUE_GREEN),
    ("worker-starting:5", ROLLING),
    ("worker-ready:6", ROLLING),
    ("worker-settling:1", BLUE_GREEN),
    ("worker-emptying:1", BLUE_GREEN),
    ("worker-idling:1", BLUE_GREEN),
    ("worker-draining:1", BLUE_GREEN),
    ("worker-draining:2", ROLLING),
    ("worker-stopped:5", BLUE_GREEN),
]


def listen_for(daemon_port, own_sockets):
    return per_worker(daemon_port) if own_sockets else f"127.0.0.1:{daemon_port}"


def wait_settled(web, generation, timeout=30.0):
    """Until this generation serves and is alone."""

    def alone():
        now = web.service()
        return now["state"] == "serving" and [g["number"] for g in now["generations"]] == [generation]

    web.wait_serving("web", generation=generation, timeout=timeout)
    wait_until(alone, timeout, f"generation {generation} to be alone")


@pytest.mark.parametrize("fault,how", POINTS, ids=[f"{p}-{h[0]['strategy']}" for p, h in POINTS])
def test_killed_during_an_upgrade(kept, load, fault, how):
    upgrade, workers, own_sockets = how
    port = free_port()
    web = kept(
        workers=workers, upgrade=upgrade, listen=listen_for(port, own_sockets), env={"TENURE_FAULT": fault}
    )
    web.port = port
    web.spawn["env"].pop("TENURE_FAULT")
    traffic = load(port, clients=CLIENTS)
    traffic.wait_more(100)
    web.ctl("upgrade", "web", "--detach", check=None)
    web.wait_dead()
    web.back()
    wait_settled(web, 2)
    assert len(set(web.pids())) == workers
    traffic.wait_for(generation=2)
    web.upgrade("web")
    wait_settled(web, 3)
    assert_clean(traffic.stop())
