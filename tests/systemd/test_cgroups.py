# SPDX-License-Identifier: Apache-2.0
"""Generations in cgroups of their own, below that of a unit with Delegate=yes."""

import os
import re
import signal
from pathlib import Path

import machine
import pytest

from harness import assert_clean, free_port, wait_until
from unit import Manners, web_config

DRAIN = {"settle": "100ms", "idle_wait": "0s", "timeout": "10s", "kill_after": "500ms"}


@pytest.fixture
def web(unit):
    """web(*options, name=None, drop_in=None, **keys) serves on one.port."""

    def make(*options, name=None, drop_in=None, **keys):
        new = unit(name=name, start=False)
        if drop_in:
            machine.drop_in(new.unit, drop_in)
        new.port = free_port()
        new.manners = Manners(new.directory)
        keys.setdefault("drain", DRAIN)
        new.config = web_config(f"127.0.0.1:{new.port}", *options, manners=new.manners, **keys)
        new.write_config()
        return new.start()

    return make


def answers(one):
    return one.ctl("status", check=False).code == 0


def cgroup_of(pid):
    path = Path(f"/proc/{pid}/cgroup").read_text().split("0::")[1].strip()
    return Path("/sys/fs/cgroup" + path)


def members(directory):
    found = []
    for path in machine.cgroups_below(directory):
        try:
            found += [int(pid) for pid in (path / "cgroup.procs").read_text().split()]
        except OSError:
            pass
    return found


def generations(one):
    """The folders below the unit's that are generations' (or what nobody should have made)."""
    return sorted(path.name for path in one.cgroup.iterdir() if path.is_dir() and not path.name.startswith("."))


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def assert_places(one, generation=1):
    for worker in one.workers(generation=generation):
        assert cgroup_of(worker["pid"]) == one.cgroup / f"web.{generation}" / str(worker["index"])


@pytest.mark.parametrize("name", [None, "hardened"])
def test_each_has_its_own(web, load, name):
    one = web(name=name, workers=3)
    assert cgroup_of(one.pid) == one.cgroup / ".daemon"
    assert not (one.cgroup / "cgroup.procs").read_text()
    assert generations(one) == ["web.1"]
    assert_places(one)
    running = load(one.port, clients=4)
    running.wait_for(generation=1, count=50)
    one.ctl("upgrade", "--wait-drain", "web")
    running.wait_for(generation=2, count=50)
    assert generations(one) == ["web.2"]
    assert_places(one, 2)
    one.ctl("scale", "web", "1")
    wait_until(lambda: len(members(one.cgroup / "web.2")) == 1, 10, "two workers to go")
    assert_clean(running.stop(), 100, generations=[1, 2])
    assert "process group" not in one.log


def test_reload_runs_beside_it(web):
    """systemd's own commands are in a cgroup beside ours."""
    one = web(workers=1)
    one.config["services"]["web"]["environment"] = {"A": "1"}
    one.write_config()
    one.systemctl("reload")
    wait_until(lambda: generations(one) == ["web.2"], 10, "the old one to go")


def test_taken_back(web, load):
    """Of generations that another daemon has made."""
    one = web(workers=2)
    workers = sorted(one.pids())
    running = load(one.port, clients=4)
    running.wait_for(generation=1, count=50)
    for _ in range(3):
        before = one.pid
        one.signal(signal.SIGKILL)
        wait_until(lambda: one.pid not in (0, before) and answers(one), 20, "the next daemon")
        assert sorted(one.pids()) == workers
        assert cgroup_of(one.pid) == one.cgroup / ".daemon"
        assert_places(one)
    one.systemctl("restart")
    wait_until(lambda: answers(one), 20, "the next daemon")
    one.ctl("reexec")
    assert sorted(one.pids()) == workers
    assert cgroup_of(one.pid) == one.cgroup / ".daemon"
    one.ctl("upgrade", "--wait-drain", "web")
    assert generations(one) == ["web.2"]
    assert_clean(running.stop(), 50, generations=[1, 2])


def strays(one, generation=1):
    """Who descends from that generation's workers, by parents no longer: pids by the worker's index."""
    found = {}
    for index in (0, 1):
        place = one.cgroup / f"web.{generation}" / str(index)
        found[index] = sorted(set(members(place)) - set(one.pids()))
        for pid in found[index]:
            assert parent(pid) == one.pid and os.getsid(pid) not in one.pids()
    return found


def test_killed_with_all_that_came_of_it(web, load):
    """A worker that is killed takes with it whoever has left its group, its session and its parents; the
    others' stay, and go with their generation."""
    hasty = dict(DRAIN, timeout="200ms", kill_after="200ms")
    one = web("--double-fork", "--ignore-term", workers=2, drain=hasty)
    before = strays(one)
    assert len(before[0]) == len(before[1]) == 1
    # Who ends by itself leaves them.
    first = next(w for w in one.workers() if w["index"] == 0)["pid"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(one.pids()) == 2 and first not in one.pids(), 10, "another worker 0")
    wait_until(lambda: len(strays(one)[0]) == 2, 10, "what it leaves")
    assert before[0][0] in strays(one)[0]
    # Who does not end by itself is killed, with them.
    one.ctl("scale", "web", "1")
    machine.wait_until_gone(before[1])
    left = strays(one)[0]
    assert len(left) == 2
    one.ctl("upgrade", "--wait-drain", "web")
    machine.wait_until_gone(left)
    assert generations(one) == ["web.2"]


def test_sockets_wait_for_the_last_one(web, load):
    """A generation is gone when nobody is left of it: its sockets are used again as they are then, and what is
    left is told by name."""
    one = web("--if-generation", "2", "--double-fork", "--fork-grandchild", "--always", workers=2)
    running = load(one.port, clients=4)
    for _ in range(3):
        one.ctl("upgrade", "--wait-drain", "web")
    running.wait_for(generation=4, count=20)
    assert generations(one) == ["web.4"]
    told = one.entries("-g", "generation 2 left 2 processes behind, killed: worker \\(pid")
    assert len(told) == 1
    assert "replaced before" not in one.log
    result = running.stop()
    assert_clean(result, 100, generations=[1, 2, 3, 4])


def test_kill_under_load(web, load):
    """SIGKILL to daemons and workers, upgrades, and strays all the while: no request is lost but those of the
    workers themselves, of which there are none here."""
    one = web("--double-fork", workers=2)
    running = load(one.port, clients=4)
    for generation in range(2, 5):
        before = one.pid
        one.signal(signal.SIGKILL)
        wait_until(lambda: one.pid not in (0, before) and answers(one), 20, "the next daemon")
        one.ctl("upgrade", "--wait-drain", "web")
        assert generations(one) == [f"web.{generation}"]
    assert_clean(running.stop(), 100)


@pytest.mark.parametrize("point", ["effect-end-rest", "effect-release-lane", "effect-forget-generation"])
def test_dies_at_the_end_of_a_generation(web, load, point):
    """The next daemon ends what is left of it all the same."""
    drop_in = f"[Service]\nEnvironment=TENURE_FAULT={point}:1\n"
    one = web("--if-generation", "1", "--double-fork", "--always", workers=2, drop_in=drop_in)
    left = [pid for found in strays(one).values() for pid in found]
    assert len(left) == 2
    running = load(one.port, clients=2)
    before = one.pid
    one.ctl("upgrade", "--detach", "web")
    wait_until(lambda: one.pid not in (0, before) and answers(one), 30, "the next daemon")
    wait_until(lambda: generations(one) == ["web.2"], 20, "the old one to be gone")
    machine.wait_until_gone(left)
    one.ctl("upgrade", "--wait-drain", "web")
    assert generations(one) == ["web.3"]
    assert_clean(running.stop(), 50)


def test_nothing_is_left(web):
    """Neither by a stop with strays, nor by a second start."""
    one = web("--double-fork", "--fork-grandchild", workers=2)
    everybody = one.processes()
    assert len(everybody) == 7
    one.stop()
    machine.wait_until_gone(everybody)
    one.systemctl("start")
    wait_until(lambda: answers(one), 20, "serving")
    assert generations(one) == ["web.1"]
    one.stop()


def test_what_nobody_knows(web):
    """Folders of generations that are gone, and who is in them; others' stay."""
    one = web(workers=1)
    for name in ("web.77", "old.1", "mine.txt"):
        (one.cgroup / name).mkdir()
    for name in ("old.1", "mine.txt"):
        place = one.cgroup / name / "cgroup.procs"
        machine.run("sh", "-c", f"echo 0 > {place}; sleep 600 >/dev/null 2>&1 &")
        assert len(members(one.cgroup / name)) == 1
    before = one.pid
    one.signal(signal.SIGKILL)
    wait_until(lambda: one.pid not in (0, before) and answers(one), 20, "the next daemon")
    wait_until(lambda: not members(one.cgroup / "old.1"), 10, "its end")
    assert "old.1: killed processes" in one.log
    assert_places(one)
    # What is just ending is removed by the next who looks.
    one.ctl("upgrade", "--wait-drain", "web")
    one.systemctl("restart")
    wait_until(lambda: answers(one) and generations(one) == ["mine.txt", "web.2"], 20, "the next daemon")
    assert len(members(one.cgroup / "mine.txt")) == 1
    os.kill(members(one.cgroup / "mine.txt")[0], signal.SIGKILL)


@pytest.mark.parametrize("how", ["Delegate=no", "ProtectControlGroups=yes"])
def test_without(web, load, how):
    """One line says what could be, and process groups have to do."""
    one = web("--double-fork", "--fork-grandchild", workers=2, drop_in=f"[Service]\n{how}\n")
    running = load(one.port, clients=2)
    before = set(one.processes()) - {one.pid} - set(one.pids())
    assert len(before) == 4
    assert not generations(one)
    one.ctl("upgrade", "--wait-drain", "web")
    machine.wait_until_gone(before)
    said = [line for line in one.log.splitlines() if "process group" in line]
    assert len(said) == 1 and how.split("=")[0] + "=" in said[0]
    assert_clean(running.stop(), 20, generations=[1, 2])


def test_in_a_subgroup(web, load):
    """As DelegateSubgroup= of systemd 254 has it: the daemon stays where it was put, and generations are beside
    it."""
    place = "/sys/fs/cgroup/system.slice/tenured.service/supervisor"
    move = f"mkdir -p {place} && echo 0 >{place}/cgroup.procs"
    start = re.search(r"^ExecStart=(.*)$", machine.systemctl("cat", "tenured.service").stdout, re.M)[1]
    drop_in = f"[Service]\nExecStart=\nExecStart=/bin/sh -ec '{move} && exec {start}'\n"
    one = web(workers=2, drop_in=drop_in)
    workers = sorted(one.pids())
    running = load(one.port, clients=2)
    for _ in range(2):
        assert cgroup_of(one.pid) == one.cgroup / "supervisor"
        assert generations(one) == ["supervisor", "web.1"]
        assert_places(one)
        before = one.pid
        one.signal(signal.SIGKILL)
        wait_until(lambda pid=before: one.pid not in (0, pid) and answers(one), 20, "the next daemon")
        assert sorted(one.pids()) == workers
    one.ctl("upgrade", "--wait-drain", "web")
    assert generations(one) == ["supervisor", "web.2"]
    assert_clean(running.stop(), 20, generations=[1, 2])


def test_figures(web):
    """Of all processes of a generation; what needs a controller that is not there is not known."""
    one = web("--double-fork", workers=2)
    found = one.generation(1)["cgroup"]
    assert found["path"] == str(one.cgroup / "web.1")
    assert found["cpuUsec"] > 0
    has = set((one.cgroup / "cgroup.subtree_control").read_text().split())
    assert (found["tasks"] is not None) == ("pids" in has)
    assert (found["memory"] is not None) == (found["oomKills"] is not None) == ("memory" in has)
    shown = one.ctl("status", "web").out
    assert re.search(r"CPU .*\n +1 .*serving.* \d+\.\d+s", shown), shown


@pytest.mark.parametrize("how", ["no controller", "ExecStopPost=", "Delegate=no"])
def test_limits_that_cannot_be(web, load, how):
    """Nothing fails; the start says why, and what would help."""
    drop_in = f"[Service]\n{how}\n" if "=" in how else None
    if how == "no controller" and "pids" in Path("/sys/fs/cgroup/cgroup.controllers").read_text():
        pytest.skip("this machine has the controller")
    one = web(workers=2, drop_in=drop_in, resources={"tasks_max": 64, "memory_max": "1G"})
    running = load(one.port, clients=2)
    running.wait_for(generation=1, count=10)
    said = [line for line in one.log.splitlines() if "not applied" in line]
    help_ = {"no controller": "Delegate=yes", "ExecStopPost=": "ExecStopPost=tenured reap"}
    assert len(said) == 1 and help_.get(how, how.replace("no", "yes")) in said[0], said
    assert_clean(running.stop(), 10)
