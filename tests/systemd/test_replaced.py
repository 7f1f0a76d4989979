# SPDX-License-Identifier: Apache-2.0
"""`tenurectl reexec` of a unit: systemd keeps what it held, and sees the same process."""

import time

import pytest

from harness import assert_clean, free_port, wait_until
from unit import Manners, web_config


@pytest.fixture
def web(unit):
    def make(*options, **keys):
        new = unit(name=None, start=False)
        new.port = free_port()
        new.manners = Manners(new.directory)
        new.config = web_config(f"127.0.0.1:{new.port}", *options, manners=new.manners, **keys)
        new.write_config()
        return new.start()

    return make


def test_replaced(web, load):
    one = web(workers=4)
    pid, workers = one.show("MainPID"), sorted(one.pids())
    running = load(one.port, clients=8)
    running.wait_for(generation=1, count=100)
    held = one.show("NFileDescriptorStore")
    for _ in range(10):
        one.ctl("reexec")
    assert one.show("MainPID") == pid and one.show("ActiveState") == "active"
    assert one.show("NRestarts") == "0" and one.show("NFileDescriptorStore") == held
    assert sorted(one.pids()) == workers
    # What systemd holds is what the next one needs.
    one.systemctl("restart")
    wait_until(lambda: sorted(one.pids()) == workers, 10, "the next daemon")
    one.ctl("reexec")
    one.ctl("upgrade", "web")
    running.wait_for(generation=2)
    time.sleep(0.2)
    assert_clean(running.stop(), 100, generations=[1, 2])
