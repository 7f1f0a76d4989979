# SPDX-License-Identifier: Apache-2.0
"""What `tenured reap` leaves alone, and what the next daemon may do to have a socket back."""

import os
import signal

import machine
from daemon import worker_service
from harness import free_port, wait_until
from processes import Process
from survival import survivor
from upgrades import quick

FETCH = """#!/usr/bin/python3
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.syscall(438, os.pidfd_open(os.getpid()), 2, 0)
with open(sys.argv[1], "w") as file:
    file.write("fetched\\n" if fd >= 0 else os.strerror(ctypes.get_errno()) + "\\n")
time.sleep(3600)
"""


def test_only_a_unit_is_reaped():
    """Called by hand in a session, it does not end the session."""
    program = machine.program()
    script = f"sleep 100 & SERVICE_RESULT=success {program} reap; echo exit $?; kill $! && echo alive"
    done = machine.run("systemd-run", "--scope", "--quiet", "--unit", "test-session", "sh", "-c", script)
    assert "exit 1" in done.stdout and "alive" in done.stdout, done.stdout + done.stderr
    assert "no unit's control group" in done.stderr


def test_commands_of_checks_are_reaped(unit):
    """The daemon cannot end what it has begun to try: it hangs, and systemd kills it."""
    machine.TOOLS.joinpath("check").write_text("#!/bin/sh\ntrap '' TERM\nsleep 3000 &\nsleep 3000\n")
    machine.TOOLS.joinpath("check").chmod(0o755)
    upgrade = quick(verify={"command": [str(machine.TOOLS / "check")], "timeout": "10m"})
    one = survivor(unit, settings="TimeoutStopSec=2s", upgrade=upgrade)
    one.ctl("upgrade", "web", "--detach")
    checks = lambda: [p for p in one.processes() if "3000" in Process.read(p).command]  # noqa: E731
    wait_until(lambda: len(checks()) == 2, 20, "the check")
    pids = one.processes()
    one.signal(signal.SIGSTOP)
    one.systemctl("stop", timeout=60)
    machine.wait_until_gone(pids)
    assert not one.processes()
    wait_until(lambda: not one.cgroup, 5, "the unit's cgroup to be gone")


def test_commands_of_the_unit_are_left_alone(unit):
    """What ExecStop= has left is in a control group of systemd's own, .control, below the unit's."""
    mark = machine.Path("/run/tenured-left")
    mark.unlink(missing_ok=True)
    one = survivor(unit, settings=f"ExecStop=/bin/sh -c 'sleep 3111 & echo $! >{mark}'")
    pids = one.processes()
    one.systemctl("stop", timeout=60)
    machine.wait_until_gone(pids)
    left = int(mark.read_text())
    assert "3111" in Process.read(left).command
    assert machine.Path(f"/proc/{left}/cgroup").read_text().strip().endswith("/.control")
    os.kill(left, signal.SIGKILL)
    wait_until(lambda: not one.cgroup, 5, "the unit's cgroup to be gone")


def test_sockets_can_be_fetched(unit):
    """pidfd_getfd(2) is allowed to those who run as the same user anyway."""
    machine.TOOLS.joinpath("fetch").write_text(FETCH)
    machine.TOOLS.joinpath("fetch").chmod(0o755)
    found = machine.Path("/run/tenured/hardened/fetched")
    service = {
        "command": [str(machine.TOOLS / "fetch"), str(found)],
        "listen": f"127.0.0.1:{free_port()}",
        "ready": {"by": "delay", "delay": "1ms", "accept": False},
    }
    unit({"services": {"web": service, "other": worker_service(f"127.0.0.1:{free_port()}")}}, "hardened")
    wait_until(lambda: found.exists() and found.read_text().endswith("\n"), 10, "its answer")
    assert found.read_text() == "fetched\n"
    found.unlink()
