# SPDX-License-Identifier: Apache-2.0
"""The harness's own checks, each tried on a stand-in for the daemon that fails it."""

import os
import subprocess
import sys
import time

import pytest

import daemon as daemon_module
import processes
from harness import Load, free_port, wait_until
from varlink import Varlink, VarlinkError

# Answers List on its control socket until TERM; its arguments say how it misbehaves then.
STAND_IN = r"""
import json, os, signal, socket, subprocess, sys
config = json.load(open(sys.argv[1]))
path, how = config["control"]["socket"], config["how"]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(8)
print("listening", file=sys.stderr, flush=True)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
listener.settimeout(0.05)
child = None
if how == "stray":
    child = subprocess.Popen(["sleep", "60"])
leaked = []
while not stop:
    try:
        connection, _ = listener.accept()
    except OSError:
        continue
    with connection:
        data = connection.recv(65536)
        for message in data.split(b"\0")[:-1]:
            request = json.loads(message)
            reply = {"parameters": {"services": []}}
            if request["method"].endswith(".Leak"):
                leaked.append(os.dup(0))
            if request["method"].endswith(".Fail"):
                reply = {"error": "io.tenured.Supervisor.NoSuchService", "parameters": {"service": "x"}}
            if request.get("more"):
                connection.sendall(json.dumps({**reply, "continues": True}).encode() + b"\0")
            connection.sendall(json.dumps(reply).encode() + b"\0")
if how != "socket":
    os.unlink(path)
if how == "sanitizer":
    print("==1==ERROR: AddressSanitizer: heap-use-after-free", file=sys.stderr)
sys.exit(3 if how == "status" else 0)
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(daemon_module, "TENURED", sys.executable)
    made = []

    def make(how=""):
        new = daemon_module.Daemon({"how": how}, args=[], keeper=True)
        new.command += [str(script), str(new.config_path)]
        made.append(new)
        return new.start()

    yield make
    for one in made:
        one.remove()


def test_a_good_end(stand_in):
    one = stand_in()
    with one.no_fd_leak():
        assert one.services() == []
    assert one.stop() == 0


@pytest.mark.strays
@pytest.mark.parametrize(
    "how, what",
    [
        ("status", "ended with 3, not 0"),
        ("socket", "left behind"),
        ("stray", "still alive"),
        ("sanitizer", "AddressSanitizer"),
    ],
)
def test_a_bad_end_is_seen(stand_in, how, what):
    one = stand_in(how)
    with pytest.raises(AssertionError, match=what):
        one.stop()


def test_a_leak_is_seen(stand_in):
    one = stand_in()
    with pytest.raises(AssertionError, match="descriptors became"):
        with one.no_fd_leak(timeout=0.3):
            one.call("Leak")
    one.stop()


def test_an_early_death_is_seen(monkeypatch):
    monkeypatch.setattr(daemon_module, "TENURED", "false")
    one = daemon_module.Daemon({}, keeper=True)
    with pytest.raises(AssertionError, match="tenured ended with 1"):
        one.start()
    one.remove()


def test_varlink(stand_in):
    one = stand_in()
    with Varlink(one.socket_path) as connection:
        replies = list(connection.call("List", more=True))
        assert replies == [{"services": []}, {"services": []}]
    with pytest.raises(VarlinkError) as caught:
        one.call("Fail")
    assert caught.value.name == "NoSuchService"
    assert caught.value.parameters == {"service": "x"}
    one.stop()


def test_strays_are_found():
    """Also when they have cut all ties."""
    script = "setsid sh -c 'sleep 60 & exec sleep 60' & exit 0"
    subprocess.run(["sh", "-c", script], check=True)
    wait_until(lambda: len(processes.descendants(os.getpid())) == 2)
    found = processes.end_strays()
    assert len(found) == 2 and all("sleep" in process.command for process in found)
    assert processes.descendants(os.getpid()) == []


def test_a_load_that_cannot_reach_its_goal(worker, tmp_path):
    one = worker(env={"TENURE_GENERATION": "1"})
    with Load(tmp_path, one.address) as load:
        begin = time.monotonic()
        with pytest.raises(AssertionError, match="generation=2.*so far"):
            load.wait_for(generation=2, timeout=0.3)
        assert time.monotonic() - begin < 3
        assert load.stop()["failed"] == 0


def test_ports_are_given_once():
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50 and all(20000 <= port < 30000 for port in ports)
