# SPDX-License-Identifier: Apache-2.0
"""A small keeper, as systemd's store of descriptors behaves: it holds what the daemon sends to
$NOTIFY_SOCKET with FDSTORE=1, and starts the next daemon with it as LISTEN_FDS. Everything can be
looked at, damaged and withheld on the way."""

import array
import fcntl
import os
import select
import signal
import socket
import subprocess
import threading
import time

import pytest
from daemon import Daemon, Manners, end_all, worker_service
from harness import free_port, wait_until
from processes import Process, descendants

# As systemd has it for a unit that asks for that many.
STORE_MAX = 16384


class Store:
    """What is stored: a list of (name, descriptor), in the order in which it came."""

    def __init__(self, path, limit=STORE_MAX):  # an abstract name
        self.path, self.limit = "@" + str(path), limit
        self.items, self.messages = [], []
        self.state = {}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.bind("\0" + str(path))
        self.lock = threading.Lock()
        self.ended = self.deaf = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while not self.ended:
            if select.select([self.socket], [], [], 0.05)[0]:
                with self.lock:
                    self.deaf or self._receive()
            if self.deaf:
                time.sleep(0.01)

    def _receive(self):
        try:
            data, controls, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(253 * 4), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        fds = array.array("i")
        for level, kind, value in controls:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(value[: len(value) - len(value) % fds.itemsize])
        fields = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
        self._handle(fields, list(fds))
        return True

    def _handle(self, fields, fds):
        name = fields.get("FDNAME", "stored")
        if fields.get("FDSTORE") == "1":
            assert fields.get("FDPOLL") == "0"
            for fd in fds:
                fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
                if len(self.items) < self.limit:
                    self.items.append((name, fd))
                else:
                    os.close(fd)
        else:
            for fd in fds:
                os.close(fd)
        if fields.get("FDSTOREREMOVE") == "1":
            for item in [item for item in self.items if item[0] == name]:
                self.items.remove(item)
                os.close(item[1])
        if "STATUS" in fields or "READY" in fields:
            self.state.update(fields)

    def settle(self):
        """Everything that was sent is done."""
        with self.lock:
            while not self.deaf and self._receive():
                pass

    def names(self):
        self.settle()
        return sorted(name for name, _ in self.items)

    def fd(self, kind):
        """The descriptor of the first of that kind ("s": the state)."""
        self.settle()
        return next(fd for name, fd in self.items if name[1] == kind)

    def name(self, kind):
        self.settle()
        return next(name for name, _ in self.items if name[1] == kind)

    def drop(self, name):
        self._handle({"FDSTOREREMOVE": "1", "FDNAME": name}, [])

    def close(self):
        self.ended = True
        self.thread.join()
        for _, fd in self.items:
            os.close(fd)
        self.items = []
        self.socket.close()


class Child:
    """What Popen offers, of a process that was given descriptors from 3 on."""

    def __init__(self, command, env, out, err, items, cwd=None):
        names = [name for name, _ in items]
        # All that a child may do after fork() in a program with threads is system calls.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100 + len(items)) for _, fd in items]
        self.args, self.returncode = command, None
        argv = [str(word) for word in command]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                env = dict(env)
                if items:
                    env.update(LISTEN_FDS=str(len(items)), LISTEN_FDNAMES=":".join(names))
                    env["LISTEN_PID"] = str(os.getpid())
                null = os.open("/dev/null", os.O_RDONLY)
                for source, target in ((null, 0), (out, 1), (err, 2)):
                    os.dup2(source, target)
                for i, fd in enumerate(high):
                    os.dup2(fd, 3 + i)
                os.closerange(3 + len(high), 100 + len(items))
                if cwd:
                    os.chdir(cwd)
                os.execve(argv[0], argv, env)
            finally:
                os._exit(127)
        for fd in high:
            os.close(fd)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=None):
        deadline = time.monotonic() + (timeout or 600)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.0005)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class KeptDaemon(Daemon):
    """A daemon with a keeper. crash() or die_at() end it, and back() starts the next one."""

    def __init__(self, config=None, limit=STORE_MAX, given=(), **more):
        super().__init__(config, **more)
        self.given = list(given)  # (name, socket) of socket units, passed to each
        self.store = Store(self.directory / "notify", limit)
        self.spawn["env"]["NOTIFY_SOCKET"] = self.store.path
        self.fault = None
        self.armed = self.directory / "armed"
        self.orphans = []
        self.reaper = None

    def start(self, wait=True, timeout=10.0):
        self.store.settle()
        env = dict(self.spawn["env"])
        if self.fault:
            env["TENURE_FAULT"] = self.fault
            env["TENURE_FAULT_ARMED"] = str(self.armed)
            self.armed.unlink(missing_ok=True)
        with open(self.out_path, "ab") as out, open(self.err_path, "ab") as err:
            self.process = Child(self.command, env, out.fileno(), err.fileno(), self._items())
        if wait:
            self.wait_control(timeout)
        return self

    def _items(self):
        return [(name, one.fileno()) for name, one in self.given] + self.store.items

    # ---- dying ----

    def arm(self):
        """From now on its fault point counts."""
        self.armed.touch()

    def crash(self):
        """SIGKILL; its workers are now children of the test, which reaps them as a keeper does."""
        self._note_orphans()
        self.signal(signal.SIGKILL)
        return self.wait_dead()

    def _note_orphans(self):
        if self.is_running():
            self.orphans += [p.pid for p in descendants(self.pid)]

    def _orphaned(self):
        """Children of the test that it has not started itself, and so must not leave to Popen."""
        ours = ("tenurectl", "load", "load_udp", "delay_line")

        def name(process):
            return os.path.basename(process.command.split(" ")[0]).strip("[]")

        return [p.pid for p in descendants(os.getpid()) if p.ppid == os.getpid() and name(p) not in ours]

    def note_orphans(self):
        """Before and after it ends by itself."""
        self._note_orphans()
        if not self.is_running():
            self.orphans += self._orphaned()
            self._start_reaper()

    def wait_dead(self, timeout=60.0):
        """Until it has killed itself at its fault point."""
        deadline = time.monotonic() + timeout
        while self.is_running():
            self._note_orphans()
            assert time.monotonic() < deadline, f"still alive: {self.fault}\n{self.log[-4000:]}"
            time.sleep(0.001)
        assert self.process.returncode == -signal.SIGKILL, self.log[-4000:]
        self.orphans += self._orphaned()
        self._start_reaper()
        return self.process.returncode

    def back(self, wait=True, fault=None):
        """The next daemon, with what the keeper has."""
        self.fault = fault
        return self.start(wait)

    def reap(self):
        for pid in list(set(self.orphans)):
            process = Process.read(pid)
            if process is None:
                self.orphans = [p for p in self.orphans if p != pid]
            elif process.state == "Z" and process.ppid == os.getpid() and not self._is_ours(pid):
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass

    def _is_ours(self, pid):
        return self.process is not None and self.process.pid == pid

    def _start_reaper(self):
        def serve():
            while not self.store.ended:
                self.reap()
                time.sleep(0.005)

        if self.reaper is None:
            self.reaper = threading.Thread(target=serve, daemon=True)
            self.reaper.start()

    def check_end(self, below=()):
        super().check_end(below)
        wait_until(lambda: not self.store.names(), 5, "the store to be empty")

    def remove(self):
        super().remove()
        if not self.store.ended:
            self.store.close()
        if self.reaper:
            self.reaper.join()


class Waiting:
    """A tenurectl in the background: it goes on with the next daemon."""

    def __init__(self, web, *words, **more):
        self.ended = None
        self.thread = threading.Thread(target=self._run, args=(web, words, more))
        self.thread.start()

    def _run(self, web, words, more):
        self.ended = web.ctl(*words, check=None, timeout=120, **more)

    def is_waiting(self):
        return self.thread.is_alive()

    def end(self):
        self.thread.join(120)
        return self.ended


@pytest.fixture
def kept(request, no_strays):  # pylint: disable=unused-argument
    """kept(...) as the fixture `web`, with a keeper."""
    made = request.node.daemons = []

    def make(*options, listen=None, top=None, env=None, limit=None, fault=None, given=(), **keys):
        new = KeptDaemon(env=env, given=given, **({"limit": limit} if limit else {}))
        new.fault = fault
        made.append(new)
        new.port = free_port()
        new.manners = Manners(new.directory)
        command = keys.pop("command", None)
        service = worker_service(
            listen or f"127.0.0.1:{new.port}", *options, manners=new.manners, **keys
        )
        if command:
            service["command"] = command
        new.config = {"services": {"web": service}, **(top or {})}
        new.write_config()
        new.start()
        new.wait_serving("web")
        return new

    yield make
    end_all(made, request)


def wait_settled(web, generation, timeout=30.0, warm=()):
    """Until this generation serves and is alone, but for the warm ones."""

    def alone():
        now = web.service()
        numbers = [g["number"] for g in now["generations"]]
        return now["state"] == "serving" and numbers == [*warm, generation]

    web.wait_serving("web", generation=generation, timeout=timeout)
    wait_until(alone, timeout, f"generation {generation} to be alone")
