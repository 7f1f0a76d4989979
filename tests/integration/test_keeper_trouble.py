# SPDX-License-Identifier: Apache-2.0
"""A keeper that does not read, is overwhelmed, holds a socket under two names, or is gone."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from harness import assert_clean, wait_until
from keeper import kept as kept_by_test  # pylint: disable=unused-import
from keeper import wait_settled
from processes import is_alive
from test_keeper import environment_of, kept  # pylint: disable=unused-import
from upgrades import CLIENTS, quick

# pylint: disable=redefined-outer-name

FLOOD = """
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("\\0" + sys.argv[1][1:])
while True:
    s.send(b"STATUS=flood")
"""


def test_one_that_is_stopped(kept, load):
    """Nothing waits for it: neither what is stored nor what is said."""
    web = kept(workers=2, upgrade=quick())
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    os.kill(web.keeper_pid, signal.SIGSTOP)
    try:
        for generation in (2, 3, 4):
            web.upgrade("web")
            web.wait_serving("web", generation=generation)
    finally:
        os.kill(web.keeper_pid, signal.SIGCONT)
    traffic.wait_for(generation=4)
    # All that it has to know is told when it reads again.
    wait_settled(web, 4)
    time.sleep(1.5)
    web.upgrade("web")
    wait_settled(web, 5)
    workers = sorted(web.pids())
    web.crash_daemon()
    web.wait_serving("web", generation=5)
    assert sorted(web.pids()) == workers
    assert_clean(traffic.stop())


def test_one_that_is_flooded(kept):
    """Anybody may send to it; it sees to its daemon all the same."""
    web = kept(workers=2)
    address = environment_of(web.daemon_pid)["NOTIFY_SOCKET"]
    floods = [subprocess.Popen([sys.executable, "-c", FLOOD, address]) for _ in range(3)]
    try:
        time.sleep(0.5)
        web.crash_daemon()
        web.wait_serving("web", generation=1)
        assert web.stop() == 0
    finally:
        for flood in floods:
            flood.kill()
            flood.wait()


def test_what_it_shall_forget(kept_by_test, load):
    """It does not read just then: it forgets it later."""
    web = kept_by_test(workers=2, upgrade=quick())
    wait_settled(web, 1)

    def n_stored():
        """Without what the history is for."""
        return len([name for name in web.store.names() if name[1] not in "de"])

    before = n_stored()
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(50)
    web.store.deaf = True
    for generation in (2, 3):
        web.upgrade("web")
        wait_settled(web, generation)
    web.store.deaf = False
    time.sleep(1.2)
    web.upgrade("web")
    wait_settled(web, 4)
    wait_until(lambda: n_stored() == before, 10, "the store to be as before")
    web.crash()
    web.back()
    web.wait_serving("web", generation=4)
    assert_clean(traffic.stop())


@pytest.mark.parametrize("kind", ["unix", "held", "group"])
@pytest.mark.parametrize("state", [True, False])
def test_a_socket_under_two_names(kept_by_test, load, tmp_path, kind, state):
    """The one is known and in use; that nobody knows the other is no reason to end it."""
    web = kept_by_test(workers=2, upgrade=quick())
    listen = {"address": f"127.0.0.1:{web.port}", "steering": kind != "held"}
    path = tmp_path / "web.sock"
    web.config["services"]["web"]["listen"] = f"unix:{path}" if kind == "unix" else listen
    web.write_config()
    web.reload()
    web.wait_serving("web")
    traffic = load(f"unix:{path}" if kind == "unix" else web.port, clients=4)
    traffic.wait_more(50)
    web.crash()
    web.store.settle()
    sockets = [fd for name, fd in web.store.items if name[1] == "l"]
    second = [f"_lzz{i}" for i in range(len(sockets))]
    web.store.items += zip(second, map(os.dup, sockets))
    if not state:
        web.store.drop(web.store.name("s"))
    web.back()
    web.wait_serving("web")
    traffic.wait_more(100)
    wait_until(lambda: not set(second) & set(web.store.names()), 30, "one name")
    if not state:
        wait_until(lambda: "what an earlier daemon had left has ended" in web.log, 30, "the old ones to end")
    traffic.wait_more(100)
    assert_clean(traffic.stop())


def test_detach_without_one(kept):
    """Whoever would have kept the sockets is gone: then the end is an end for the workers too."""
    web = kept(workers=2, top={"on_terminate": "detach"})
    daemon, workers = web.daemon_pid, web.pids()
    os.kill(web.keeper_pid, signal.SIGKILL)
    web.wait(10)
    web.expect_exit = -signal.SIGKILL
    os.kill(daemon, signal.SIGTERM)
    wait_until(lambda: not is_alive(daemon), 20, "the daemon's end")
    wait_until(lambda: not any(is_alive(pid) for pid in workers), 5, "the workers' end")
    web.wait_log("the keeper is gone")


def test_a_bus_that_hangs(kept_by_test, tmp_path):
    """Asked whether this is a restart, it takes the connection and says nothing: not even a handshake goes on
    for as long as its maker thinks it may."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bus:
        bus.bind(str(tmp_path / "bus"))
        bus.listen()
        env = {"INVOCATION_ID": "0" * 32, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/bus"}
        web = kept_by_test(workers=2, env=env)
        begin = time.monotonic()
        web.signal(signal.SIGTERM)
        web.wait(25)
        assert "systemd does not say whether this is a restart" in web.log
        assert time.monotonic() - begin < 20
    (tmp_path / "bus").unlink()
