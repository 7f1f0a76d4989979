# SPDX-License-Identifier: Apache-2.0
"""Generations in cgroups where no systemd is: in a container, whose tree is ours. With systemd:
tests/systemd/test_cgroups.py."""

import os
import signal
from pathlib import Path

import pytest

from harness import assert_clean, wait_until
from own_keeper import Contained, make_kept

# Inside, the first process moves into the cgroup, which is the root of all that it sees then.
INSIDE = """
echo 0 >"$1/cgroup.procs"
exec unshare --cgroup --mount sh -c 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && shift && exec "$@"' sh "$@"
"""


def place():
    """Where a cgroup of version 2 can be made; None: nowhere."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mount = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    own = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    return Path(mount) / own[0].strip("/") if mount and own else None


@pytest.fixture
def cgroup():
    above = place()
    if os.geteuid() != 0 or above is None or not Contained.is_possible():
        pytest.skip("no namespaces with a cgroup of version 2 can be made here")
    made = above / f"tenured-container.{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield made
    for folder, _, _ in os.walk(made, topdown=False):
        wait_until(lambda folder=folder: removed(folder), 5, f"{folder} to be empty")


def removed(folder):
    try:
        os.rmdir(folder)
    except OSError:
        return False
    return True


@pytest.fixture
def web():
    made = []

    def make(cgroup, *options, keeper=True, **keys):
        class InCgroup(Contained):
            def __init__(self, config=None, **more):
                super().__init__(config, wrap=[*self.unshare(), "sh", "-ec", INSIDE, "sh", str(cgroup)], **more)

        return make_kept(made, *options, kind=InCgroup, **keys)

    yield make
    for one in made:
        one.remove()


def folders(cgroup):
    return sorted(path.name for path in cgroup.iterdir() if path.is_dir())


def members(cgroup):
    """Folders may go away meanwhile."""
    found = []
    for directory, _, _ in os.walk(cgroup):
        try:
            found += (Path(directory) / "cgroup.procs").read_text().split()
        except OSError:
            pass
    return found


def test_in_a_container(cgroup, web, load):
    one = web(cgroup, "--double-fork", workers=2)
    assert folders(cgroup) == [".daemon", "web.1"]
    # The keeper and the daemon; nobody is in the container's own, so that it may have controllers.
    assert len(members(cgroup / ".daemon")) == 2
    assert not (cgroup / "cgroup.procs").read_text()
    assert len(members(cgroup / "web.1" / "0")) == len(members(cgroup / "web.1" / "1")) == 2
    running = load(one.port, clients=2)
    running.wait_for(generation=1, count=20)
    one.crash_daemon()
    one.wait_serving("web", generation=1)
    assert folders(cgroup) == [".daemon", "web.1"] and len(members(cgroup / ".daemon")) == 2
    one.ctl("upgrade", "--wait-drain", "web")
    assert folders(cgroup) == [".daemon", "web.2"]
    one.ctl("reexec")
    one.ctl("upgrade", "--wait-drain", "web")
    assert folders(cgroup) == [".daemon", "web.3"]
    assert_clean(running.stop(), 50, generations=[1, 2, 3])
    os.kill(one.keeper_pid, signal.SIGTERM)
    assert one.wait(20) == 0
    assert folders(cgroup) == [".daemon"]
    wait_until(lambda: not members(cgroup), 5, "the end of all")


def test_not_for_us(cgroup, web, load):
    """What others are in, too, is left as it is."""
    with open(cgroup / "cgroup.procs", "w", encoding="ascii") as procs:
        sleeper = os.fork()
        if sleeper == 0:
            procs.write("0")
            procs.flush()
            os.execvp("sleep", ["sleep", "600"])
    try:
        wait_until(lambda: members(cgroup), 5, "the other one")
        one = web(cgroup, "--double-fork", workers=1)
        assert not folders(cgroup)
        one.ctl("upgrade", "--wait-drain", "web")
        # By hand, this is nothing that anybody could change.
        assert "process group" not in one.log
        os.kill(one.keeper_pid, signal.SIGTERM)
        assert one.wait(20) == 0
        wait_until(lambda: len(members(cgroup)) == 1, 5, "the end of all but one")
    finally:
        os.kill(sleeper, signal.SIGKILL)
        os.waitpid(sleeper, 0)
