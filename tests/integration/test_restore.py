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
