# SPDX-License-Identifier: Apache-2.0
"""A daemon under `tenured --keeper`: the process that was started is the keeper."""

import os
import signal
import subprocess
import time

from daemon import Daemon, Manners, worker_service
from harness import IS_ROOT, Program, free_port, wait_until
from processes import Process, all_processes


class OwnKeeper(Daemon):
    def __init__(self, config=None, **more):
        super().__init__(config, keeper=True, **more)

    @property
    def daemon_pid(self):
        """The keeper's child that is the daemon; None while there is none."""
        for process in all_processes():
            if process.ppid == self.keeper_pid and self._is_daemon(process):
                return process.pid
        return None

    @property
    def keeper_pid(self):
        return self.pid

    def _is_daemon(self, process):
        # As this one was told what it is; a child that is no more than forked has the keeper's words.
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            return False
        return process.state not in "ZX" and b"TENURE_KEEPER=%d" % self._pid_inside() in words

    def _pid_inside(self):
        return self.keeper_pid

    def kill_daemon(self, number=signal.SIGKILL):
        """Its pid; it is not waited for."""
        pid = self.daemon_pid
        os.kill(pid, number)
        return pid

    def wait_back(self, but, timeout=20.0):
        """Until a daemon with another pid answers: its pid. Polls hard, for it is timed."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                now = self.call("List", timeout=timeout)
                if self.daemon_pid not in (None, but):
                    return now and self.daemon_pid
            except OSError:
                pass
            assert time.monotonic() < deadline, f"no daemon is back:\n{self.log[-4000:]}"
            time.sleep(0.0005)

    def crash_daemon(self):
        """Kill it and wait for the next one."""
        return self.wait_back(self.kill_daemon())

    def start_only(self):
        """Without waiting for anything."""
        Program.start(self)
        return self


class Contained(OwnKeeper):
    """The keeper is pid 1 of a pid namespace of its own, as a container runtime starts it."""

    def __init__(self, config=None, wrap=(), **more):
        super().__init__(config, wrap=wrap or self.unshare(), **more)

    @staticmethod
    def unshare():
        user = () if IS_ROOT else ("--user", "--map-root-user")
        return ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc"]

    @classmethod
    def is_possible(cls):
        return subprocess.run([*cls.unshare(), "true"], capture_output=True, check=False).returncode == 0

    @property
    def keeper_pid(self):
        """As it is called outside."""
        return next(p.pid for p in all_processes() if p.ppid == self.pid)

    def _pid_inside(self):
        return 1


def make_kept(
    made, *options, top=None, listen=None, start=True, env=None, args=None, kind=OwnKeeper, **keys
):
    """As the fixture `web`, with a keeper."""
    new = kind(env=env, args=args)
    made.append(new)
    new.port = free_port()
    new.manners = Manners(new.directory)
    service = worker_service(listen or f"127.0.0.1:{new.port}", *options, manners=new.manners, **keys)
    new.config = {"services": {"web": service}, **(top or {})}
    new.write_config()
    if start:
        new.start()
        new.wait_serving("web")
    return new


def zombies_below(pid):
    return [p for p in all_processes() if p.ppid == pid and p.state == "Z"]


def wait_no_zombies(pid):
    wait_until(lambda: not zombies_below(pid), 5, f"{pid} to reap: {zombies_below(pid)}")


def started(pid):
    """What tells this process from a later one with its pid."""
    process = Process.read(pid)
    return process and process.started
