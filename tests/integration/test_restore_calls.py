# SPDX-License-Identifier: Apache-2.0
"""Who waits for something when the daemon is killed goes on waiting with the next one: tenurectl ends as
it would have, and nothing is done twice."""

import os
import signal
import time

import pytest
from daemon import DONE, FAILED, NO_DAEMON, ROLLED_BACK, TIMED_OUT
from harness import Program, TENURECTL, assert_clean, clean_environment, free_port, wait_until
from keeper import Waiting, kept, wait_settled  # pylint: disable=unused-import
from upgrades import CLIENTS, quick, set_release

# pylint: disable=redefined-outer-name

GONE = "tenured is gone; waiting for the next one"
CANARY = {"strategy": "canary", "steps": ["50%", "100%"], "soak": "300ms"}


def dies(kept, fault, *words, **keys):
    """The daemon dies at that point of doing this; the next one comes. What tenurectl said at its end."""
    web = kept(workers=2, **{"upgrade": quick(soak="200ms"), "fault": fault, **keys})
    web.arm()
    waiting = Waiting(web, *words)
    web.wait_dead()
    assert waiting.is_waiting()
    web.back()
    return web, waiting.end()


def generations(web):
    return [entry["generation"] for entry in web.ctl("history", "web", json=True).json["entries"]]


# Before anything is written down, when it is, in the middle of it, at its end.
POINTS = ["save:1", "saved:1", "effect-spawn:1", "spawned:1", "worker-ready:1", "rollout-soaking:1",
          "effect-steer:2", "rollout-settling:1", "effect-report:1", "rollout-none:1"]


@pytest.mark.parametrize("fault", POINTS)
def test_upgrade(kept, fault):
    web, ended = dies(kept, fault, "upgrade", "web")
    assert ended.code == DONE and GONE in ended.out, ended
    assert "generation 2" in ended.out.splitlines()[-1], ended
    # Once, whether it was known to be done or not.
    wait_settled(web, 2)
    assert sorted(generations(web)) == [1, 2]


@pytest.mark.parametrize("fault", ["effect-spawn:1", "worker-ready:1", "rollout-soaking:1"])
def test_upgrade_that_fails(kept, fault):
    """With the exit status, and the reason, that it would have had."""
    web = kept(workers=2, upgrade=quick(soak="20s"), fault=fault)
    web.manners.set("--if-generation 2 --exit-after 1500ms --exit-code 7")
    web.arm()
    waiting = Waiting(web, "upgrade", "web")
    web.wait_dead()
    web.back()
    ended = waiting.end()
    assert ended.code == ROLLED_BACK and GONE in ended.out and "generation 2" in ended.err, ended
    wait_settled(web, 1)
    assert sorted(generations(web)) == [1, 2]


def test_over_before_anybody_is_back(kept):
    """It was rolled back, and the daemon died before it said so."""
    web = kept(workers=1, upgrade=quick(), fault="rollout-none:1")
    web.manners.set("--if-generation 2 --exit-at-once --exit-code 9")
    web.arm()
    waiting = Waiting(web, "upgrade", "web")
    web.wait_dead()
    web.back()
    ended = waiting.end()
    assert ended.code == ROLLED_BACK and "exit status 9" in ended.err, ended
    last = next(e for e in web.ctl("history", "web", json=True).json["entries"] if e["generation"] == 2)
    assert last["outcome"] == "failed" and "before it was ready" in last["reason"] and last["endedUsec"], last
    assert sorted(generations(web)) == [1, 2]


def test_under_load_and_more_than_once(kept, load):
    web = kept(workers=2, upgrade={**CANARY, "soak": "1s"})
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    waiting = Waiting(web, "upgrade", "web", "--wait-drain")
    wait_until(lambda: web.service()["rollout"], 10, "the rollout")
    for _ in range(4):
        web.crash()
        time.sleep(0.2)
        web.back()
        time.sleep(0.3)
    ended = waiting.end()
    assert ended.code == DONE and "generation 1 is gone" in ended.out, ended
    assert ended.out.count(GONE) == 4
    wait_settled(web, 2)
    assert_clean(traffic.stop(), generations=[1, 2])


@pytest.mark.parametrize("fault", ["saved:1", "rollout-starting:1", "effect-spawn:2"])
@pytest.mark.parametrize("words", [["restart", "web"], ["restart", "web", "--hard"], ["rollback", "web"]])
def test_others_that_make_a_generation(kept, words, fault):
    web = kept(workers=2, upgrade=quick(), fault=fault)
    web.upgrade("web")
    wait_settled(web, 2)
    web.arm()
    waiting = Waiting(web, *words)
    web.wait_dead()
    web.back()
    ended = waiting.end()
    assert ended.code == DONE and GONE in ended.out, ended
    wait_settled(web, 3)
    assert sorted(generations(web)) == [1, 2, 3]


def test_stop_and_start(kept):
    web, ended = dies(kept, "effect-signal-drain:1", "stop", "web")
    assert ended.code == DONE and ended.out.splitlines()[-1] == "web: stopped", ended
    assert web.service()["state"] == "stopped"
    web.crash()
    web.back(fault="spawned:1")
    web.fault = None
    waiting = Waiting(web, "start", "web")
    web.arm()
    # A daemon that came back obeys no such point: it is killed by hand.
    web.crash()
    web.back()
    assert waiting.end().code == DONE
    web.wait_serving("web")


@pytest.mark.parametrize("fault", ["save:1", "saved:1", "spawned:1", "worker-ready:1"])
def test_scale(kept, fault):
    web, ended = dies(kept, fault, "scale", "web", "4")
    assert ended.code == DONE and "4 workers are ready" in ended.out, ended
    assert len(web.pids()) == 4


@pytest.mark.parametrize("fault", ["save:1", "saved:1", "effect-steer:1"])
def test_promote_is_not_done_twice(kept, fault):
    """Three steps; the answer to the first promotion is lost."""
    upgrade = {"strategy": "canary", "steps": ["20%", "50%", "100%"], "soak": "1h"}
    web = kept(workers=2, upgrade=upgrade, fault=fault)
    web.ctl("upgrade", "web", "--detach")
    wait_until(lambda: (web.service()["rollout"] or {}).get("phase") == "soaking", 10, "the first step")
    time.sleep(0.3)  # all of it is written down
    web.arm()
    waiting = Waiting(web, "promote", "web")
    web.wait_dead()
    web.back()
    ended = waiting.end()
    assert ended.code == DONE and GONE in ended.out, ended
    assert web.service()["rollout"]["traffic"] == 50.0
    web.ctl("abort", "web")
    wait_settled(web, 1)


@pytest.mark.parametrize("fault", ["saved:1", "spawned:1", "rollout-soaking:1", "rollout-settling:1"])
@pytest.mark.parametrize("words", [["reload"], ["reload", "--upgrade"]])
def test_reload(kept, fault, words):
    """Of two services; what was begun is not begun again, and the rest is done."""
    web = kept(workers=1, upgrade=quick(soak="100ms"), fault=fault)
    other = {**web.config["services"]["web"], "listen": f"127.0.0.1:{free_port()}"}
    web.config["services"]["other"] = other
    web.write_config()
    web.reload()
    web.wait_serving("other")
    set_release(web, 2)
    other["environment"] = {"RELEASE": "2"}
    web.write_config()
    web.arm()
    waiting = Waiting(web, *words)
    web.wait_dead()
    web.back()
    ended = waiting.end()
    assert ended.code == DONE and GONE in ended.out, ended
    for name in ("web", "other"):
        assert f"{name}: upgraded" in ended.out, ended
        web.wait_serving(name, generation=2)
        assert web.service(name)["pending"] == []


def test_queued(kept):
    web = kept(workers=1, upgrade=quick(soak="1500ms", overlap="queue"))
    web.ctl("upgrade", "web", "--detach")
    waiting = Waiting(web, "upgrade", "web")
    wait_until(lambda: web.service()["queued"], 10, "the queue")
    time.sleep(0.2)
    web.crash()
    web.back()
    ended = waiting.end()
    assert ended.code == DONE and "generation 3" in ended.out.splitlines()[-1], ended
    assert sorted(generations(web)) == [1, 2, 3]


def test_wait(kept):
    web = kept(workers=1, upgrade=quick(soak="1500ms"))
    web.ctl("upgrade", "web", "--detach")
    waiting = Waiting(web, "wait", "web")
    time.sleep(0.3)
    web.crash()
    time.sleep(0.5)
    assert waiting.is_waiting()
    web.back()
    assert waiting.end().code == DONE
    assert web.service()["generation"] == 2


def test_reexec(kept):
    """The program that was put in its place dies at once; the keeper's next one does not."""
    web = kept(workers=2, fault="restore:1")
    web.arm()
    waiting = Waiting(web, "reexec")
    web.wait_dead()
    web.back()
    ended = waiting.end()
    assert ended.code == DONE and GONE in ended.out and "replaced itself" in ended.out, ended
    web.wait_serving("web", generation=1)


def test_bounded(kept):
    """Nobody comes, or not in the time that the caller has."""
    web = kept(workers=1, upgrade=quick(soak="1h"))
    long = Waiting(web, "upgrade", "web")
    wait_until(lambda: web.service()["rollout"], 10, "the rollout")
    short = Waiting(web, "wait", "web", "--timeout", "2s")
    time.sleep(0.3)
    web.crash()
    ended = short.end()
    assert ended.code in (TIMED_OUT, NO_DAEMON), ended
    ended = long.end()
    assert ended.code == NO_DAEMON and "none came in its place within 10 s" in ended.err, ended
    web.back()
    web.ctl("abort", "web")
    wait_settled(web, 1)


def test_without_what_was_known(kept):
    """The state is gone with the daemon: nobody can say whether it was done, and it is not done again."""
    web = kept(workers=1, upgrade=quick(soak="1h"))
    waiting = Waiting(web, "upgrade", "web")
    wait_until(lambda: web.service()["rollout"], 10, "the rollout")
    web.crash()
    web.store.drop(web.store.name("s"))
    web.back()
    ended = waiting.end()
    assert ended.code == FAILED and "does not know whether that was done" in ended.err, ended
    web.wait_serving("web")


def test_interrupted(kept):
    """^C while nobody is there."""
    web = kept(workers=1, upgrade=quick(soak="1h"))
    command = [TENURECTL, "--socket", str(web.socket_path), "upgrade", "web"]
    with Program(command, web.directory, "waiting", env=clean_environment()) as waiting:
        wait_until(lambda: web.service()["rollout"], 10, "the rollout")
        web.crash()
        wait_until(lambda: GONE in waiting.out, 5, "it to notice")
        waiting.signal(signal.SIGINT)
        assert waiting.wait(5) == 130
    web.back()
    assert web.service()["rollout"]
    web.ctl("abort", "web")
    wait_settled(web, 1)
    assert os.path.exists(web.socket_path)
