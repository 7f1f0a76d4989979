# SPDX-License-Identifier: Apache-2.0
"""Generations' cgroups with controllers, where this machine has any for cgroup version 2."""

import signal
from pathlib import Path

import machine
import pytest

from harness import assert_clean, wait_until
from test_cgroups import answers, assert_places, generations, web  # noqa: F401  pylint: disable=unused-import

ROOT = Path("/sys/fs/cgroup")


def controllers(path, name="cgroup.controllers"):
    return set((path / name).read_text().split())


def enable_down_to(path, controller):
    """For what is below each cgroup from the root on."""
    way = [path, *path.parents]
    for place in reversed(way[: way.index(ROOT) + 1]):
        (place / "cgroup.subtree_control").write_text(f"+{controller}")


@pytest.fixture
def controller():
    found = controllers(ROOT)
    if not found:
        pytest.skip("cgroup.controllers is empty: all controllers are bound to version 1")
    return sorted(found & {"pids", "memory"} or found)[0]


def test_started_again_where_it_was(web, load, controller):  # noqa: F811
    """systemd starts each next daemon in the unit's own cgroup, which cannot have processes while those below
    have controllers."""
    one = web(workers=2)
    running = load(one.port, clients=2)
    running.wait_for(generation=1, count=20)
    for act in ("kill", "restart", "kill"):
        enable_down_to(one.cgroup, controller)
        assert controllers(one.cgroup, "cgroup.subtree_control") == {controller}
        with pytest.raises(OSError):
            (one.cgroup / "cgroup.procs").write_text(str(one.pid))
        before = one.pid
        if act == "kill":
            one.signal(signal.SIGKILL)
        else:
            one.systemctl("restart")
        wait_until(lambda pid=before: one.pid not in (0, pid) and answers(one), 20, "the next daemon")
        assert_places(one)
    enable_down_to(one.cgroup, controller)
    one.ctl("reexec")
    one.systemctl("reload")
    one.ctl("upgrade", "--wait-drain", "web")
    assert generations(one) == ["web.2"]
    assert_clean(running.stop(), 50, generations=[1, 2])


@pytest.fixture
def limits():
    if not {"pids", "memory"} <= controllers(ROOT):
        pytest.skip(f"cgroup.controllers has no pids and memory, but: {' '.join(controllers(ROOT)) or 'nothing'}")


def test_limits(web, load, limits):  # noqa: F811  pylint: disable=unused-argument
    """They are the generation's from its first process on, stay with the next daemon, and other ones are another
    generation's."""
    wanted = {"memory_high": "192M", "memory_max": "256M", "memory_swap_max": 0, "tasks_max": 64}
    one = web(workers=2, resources=wanted)
    files = {"memory.high": 192 << 20, "memory.max": 256 << 20, "memory.swap.max": 0, "pids.max": 64}

    def assert_limits(generation):
        for name, value in files.items():
            path = one.cgroup / f"web.{generation}" / name
            assert not path.exists() and "swap" in name or int(path.read_text()) == value

    assert_limits(1)
    running = load(one.port, clients=2)
    for _ in range(2):
        before = one.pid
        one.signal(signal.SIGKILL)
        wait_until(lambda pid=before: one.pid not in (0, pid) and answers(one), 20, "the next daemon")
        assert_limits(1)
    found = one.generation(1)["cgroup"]
    assert 0 < found["memory"] <= 256 << 20 and found["tasks"] >= 2 and found["oomKills"] == 0
    one.config["services"]["web"]["resources"]["tasks_max"] = files["pids.max"] = 48
    one.write_config()
    said = one.ctl("reload").out
    assert "resources" in said, said
    assert_limits(2)
    assert_clean(running.stop(), 20, generations=[1, 2])


def test_out_of_memory(web, load, limits):  # noqa: F811  pylint: disable=unused-argument
    """An upgrade that needs more than it may have is rolled back, and says so."""
    one = web(workers=1, resources={"memory_max": "96M", "memory_swap_max": 0})
    running = load(one.port, clients=2)
    running.wait_for(generation=1, count=10)
    one.manners.set("--allocate 300000000")
    done = one.ctl("upgrade", "web", check=False)
    assert done.code == 6 and "want of memory" in done.out + done.err, done
    assert_clean(running.stop(), 10, generations=[1])
