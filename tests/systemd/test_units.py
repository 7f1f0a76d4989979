# SPDX-License-Identifier: Apache-2.0
"""The units as they are installed: starting, reloading, restarting and stopping them, under load."""

import os
import re
import signal
import time

import pytest

import machine
from harness import assert_clean, free_port, http_get, wait_until
from unit import Manners, web_config


@pytest.fixture
def web(unit):
    """web(*options, name=None, **keys): a unit with one service of test workers; .port, .manners."""

    def make(*options, name=None, start=True, **keys):
        new = unit(name=name, start=False)
        new.port = free_port()
        new.manners = Manners(new.directory)
        new.config = web_config(f"127.0.0.1:{new.port}", *options, manners=new.manners, **keys)
        new.write_config()
        return new.start() if start else new

    return make


@pytest.mark.sanitize
@pytest.mark.parametrize("name", [None, "blog", "hardened"])
def test_start_reload_stop(web, load, name):
    one = web(name=name, workers=2)
    # systemctl start came back when it served.
    assert http_get(one.port).generation == 1
    assert one.show("ActiveState") == "active"
    assert "web serves with generation 1, 2 of 2 workers" in one.status_text
    running = load(one.port, clients=8)
    for generation in (2, 3):
        one.config["services"]["web"]["environment"] = {"RELEASE": str(generation)}
        one.write_config()
        one.systemctl("reload")
        # And systemctl reload when the next one did.
        assert http_get(one.port).generation == generation
        assert one.show("ActiveState") == "active"
        wait_until(lambda g=generation: f"generation {g}" in one.status_text, 5, "the status line")
    one.ctl("status")
    assert_clean(running.stop(), 100, generations=[1, 2, 3])


def test_reload_of_an_instance_upgrades(web):
    """Nothing has changed in its file: the template says --upgrade."""
    one = web(name="blog")
    one.systemctl("reload")
    assert http_get(one.port).generation == 2


def test_reload_that_is_rolled_back(web, load):
    one = web("--if-generation", "2", "--exit-code", "3", "--exit-at-once", workers=2)
    running = load(one.port, clients=8)
    running.wait_for(generation=1, count=100)
    one.config["services"]["web"]["environment"] = {"RELEASE": "2"}
    one.write_config()
    done = one.systemctl("reload", check=None)
    assert done.returncode != 0
    status = one.systemctl("status", "--lines=20").stdout
    assert one.show("ActiveState") == "active"
    assert re.search(
        r'Status: "web serves with generation 1, generation 2 was rolled back: .*exit status 3', status
    ), status
    # What tenurectl said is there as well.
    assert "rolled back" in status.split("Status:")[1], status
    running.wait_more(100)
    assert_clean(running.stop(), 200, generations=[1])


def test_reload_of_a_wrong_file(web):
    one = web()
    one.write_config("services: {web: {comand: /bin/true}}")
    assert one.systemctl("reload", check=None).returncode != 0
    status = one.systemctl("status", "--lines=20").stdout
    assert 'did you mean "command"' in status, status
    assert 'Status: "Reload failed: /etc/tenured/tenured.yaml' in status, status
    assert http_get(one.port).generation == 1


def test_wrong_file_at_the_start(web):
    """It says so, and systemd does not try again and again."""
    one = web(start=False)
    one.write_config("services: {web: {comand: /bin/true}}")
    assert one.systemctl("start", check=None).returncode != 0
    assert one.show("ActiveState") == "failed"
    assert one.show("NRestarts") == "0"
    assert 'did you mean "command"' in one.log


def test_reload_takes_its_time(web):
    """Longer than systemd would wait without being asked for more."""
    one = web("--if-generation", "2", "--ready-delay", "4s", start=False, ready="notify")
    machine.drop_in(one.unit, "[Service]\nTimeoutStartSec=2s\n")
    one.start()
    one.config["services"]["web"]["environment"] = {"RELEASE": "2"}
    one.write_config()
    began = time.monotonic()
    one.systemctl("reload")
    assert time.monotonic() - began > 3.5
    assert http_get(one.port).generation == 2


def test_start_takes_its_time(web):
    one = web("--ready-delay", "4s", start=False, ready="notify")
    machine.drop_in(one.unit, "[Service]\nTimeoutStartSec=2s\n")
    began = time.monotonic()
    one.start()
    assert time.monotonic() - began > 3.5
    assert http_get(one.port).generation == 1


def test_stop_takes_its_time(web, load):
    """Workers finish what they have: systemd waits for them."""
    one = web(start=False, drain={"idle_wait": "1s", "timeout": "60s"})
    machine.drop_in(one.unit, "[Service]\nTimeoutStopSec=2s\n")
    one.start()
    slow = load(one.port, clients=2, requests=2, timeout="30s", path="/slow?ms=4500")
    time.sleep(1)
    one.stop()
    assert_clean(slow.finish(), 2)
    assert one.show("Result") == "success"


def test_reloading_is_seen(web):
    """By whoever asks for the reload."""
    one = web("--if-generation", "2", "--ready-delay", "2s", ready="notify")
    one.config["services"]["web"]["environment"] = {"RELEASE": "2"}
    one.write_config()
    os.kill(one.pid, signal.SIGHUP)
    wait_until(lambda: one.show("ActiveState") == "reloading", 2, "reloading")
    one.wait_state("active")
    assert http_get(one.port).generation == 2


def test_watchdog(web):
    """A daemon that hangs is ended by systemd, and the next one goes on with its workers."""
    one = web(start=False)
    machine.drop_in(one.unit, "[Service]\nWatchdogSec=1s\n")
    one.start()
    before, worker = one.pid, one.pids()[0]
    time.sleep(2.5)
    assert one.pid == before
    one.signal(signal.SIGSTOP)
    wait_until(lambda: one.pid not in (0, before), 15, "another daemon")
    one.wait_state("active")
    assert one.pids() == [worker]
    assert http_get(one.port).generation == 1


@pytest.mark.parametrize("name", [None, "hardened"])
def test_restart_keeps_the_workers(web, load, name):
    one = web(workers=2, name=name)
    running = load(one.port, clients=8)
    running.wait_for(generation=1, count=100)
    pids, daemon = sorted(one.pids()), one.pid
    for _ in range(3):
        one.systemctl("restart")
        assert one.pid != daemon
        assert sorted(one.pids()) == pids
        running.wait_more(100)
    one.upgrade()
    running.wait_for(generation=2)
    assert_clean(running.stop(), 300, generations=[1, 2])


def test_stop_and_start_is_a_new_beginning(web):
    one = web()
    first = one.pids()
    one.stop()
    one.start()
    assert one.pids() != first
    assert http_get(one.port).generation == 1


def test_nothing_is_preserved_for_nobody(web):
    """Where systemd keeps the store of a stopped unit, nothing is in it after a stop; after a failure there
    is, and the next start goes on with it."""
    if machine.version() < 254:
        pytest.skip("FileDescriptorStorePreserve= is not known to this systemd")
    one = web(start=False)
    machine.drop_in(one.unit, "[Service]\nFileDescriptorStorePreserve=yes\nRestart=no\n")
    one.start()
    pids = one.pids()
    os.kill(one.pid, signal.SIGKILL)
    one.wait_state("failed")
    one.start()
    assert one.pids() == pids
    one.stop()


def test_what_is_left_is_reaped(web):
    """The daemon could not end its workers: killed while it stopped."""
    one = web("--never-exit", "--ignore-term", start=False, workers=2, drain={"timeout": "60s"})
    one.start()
    pids = one.pids()
    one.systemctl("stop", "--no-block")
    one.wait_log("stopping")
    os.kill(one.pid, signal.SIGKILL)
    wait_until(lambda: one.show("ActiveState") in ("inactive", "failed"), 20, "the end")
    machine.wait_until_gone(pids, 1)


def test_workers_of_other_users(web, load):
    """With what the unit leaves root: to start them, to count their connections, to end them."""
    one = web(user="nobody", group="nogroup", workers=2)
    running = load(one.port, clients=4, keepalive=True)
    running.wait_for(generation=1, count=20)
    # To see whose connections they are, root needs a capability.
    wait_until(lambda: one.generation(1).get("connections") == 4, 10, "the connections to be counted")
    one.upgrade()
    running.wait_for(generation=2)
    assert_clean(running.stop(), 20)


def test_exposure():
    for name, limit in (("tenured.service", 4.5), ("tenured@x.service", 4.5), ("tenured-hardened.service", 2.5)):
        text = machine.run("systemd-analyze", "--no-pager", "security", name).stdout
        level = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)[1])
        assert level <= limit, text


def test_units_are_right():
    names = ["tenured.service", "tenured@x.service", "tenured-hardened.service", "tenured.socket"]
    done = machine.run("systemd-analyze", "verify", "--man=no", *names, "tenured@x.socket", check=None)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "tenured" in line]
    assert not ours and done.returncode == 0, done.stdout + done.stderr


def test_another_program_in_place(web, load):
    """What a package's upgrade does: the same process and the same workers, and systemd notices nothing."""
    one = web(workers=2)
    running = load(one.port, clients=8)
    running.wait_for(generation=1, count=100)
    daemon, pids = one.pid, sorted(one.pids())
    for _ in range(3):
        one.ctl("reexec")
        assert (one.pid, sorted(one.pids())) == (daemon, pids)
        assert one.show("ActiveState") == "active"
        running.wait_more(50)
    assert one.show("NRestarts") == "0"
    one.config["services"]["web"]["environment"] = {"RELEASE": "2"}
    one.write_config()
    one.systemctl("reload")
    running.wait_for(generation=2)
    assert_clean(running.stop(), 200, generations=[1, 2])
