# SPDX-License-Identifier: Apache-2.0
"""The daemon under test."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from harness import TENURECTL, TENURED, WORKER, Program, clean_environment, socket_paths, wait_until
from processes import Process, descendants, fd_count, fd_list
from varlink import Varlink

# tenurectl's exit codes
DONE, FAILED, USAGE, NO_DAEMON, NOT_PERMITTED = 0, 1, 2, 3, 4
IN_PROGRESS, ROLLED_BACK, BAD_CONFIG, TIMED_OUT, INTERRUPTED = 5, 6, 7, 8, 130

# On loopback no handshake takes longer than this. On a busy machine a generation may take longer to
# drain than several upgrades do.
QUICK_DRAIN = {"settle": "50ms", "idle_wait": "1s", "timeout": "10s", "max_generations": 8}

SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:")


class Ctl:
    """What a tenurectl said. `lines` are the JSON values of --json, one of each line or just one."""

    def __init__(self, args, code, out, err):
        self.args, self.code, self.out, self.err = args, code, out, err

    @property
    def lines(self):
        try:
            return [json.loads(self.out)]
        except ValueError:
            return [json.loads(line) for line in self.out.splitlines() if line.strip()]

    @property
    def json(self):
        return self.lines[-1] if self.lines else None

    def __repr__(self):
        return f"tenurectl {' '.join(self.args)} -> {self.code}\n{self.out}{self.err}"


class Daemon(Program):
    """daemon = Daemon({"services": {...}}).start()

    The configuration is a dict, written as JSON, which is YAML. It may change between reloads:
    daemon.config[...] = ...; daemon.write_config(). All files are in daemon.directory."""

    def __init__(self, config=None, args=None, env=None, netns=None, wrap=(), keeper=False):
        # A short path: the names of Unix sockets have 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="tenured-"))
        self.directory.chmod(0o755)
        self.socket_path = self.directory / "control.sock"
        self.config_path = self.directory / "tenured.yaml"
        self.config = config
        self.expect_exit = 0
        self.allow_strays = False
        self.known = {}
        if config is not None:
            self.write_config()
        if args is None:
            args = ["-c", str(self.config_path)]
        if not keeper:  # so that the process that was started is the daemon itself
            args = ["--no-keeper", *args]
        environment = clean_environment(XDG_RUNTIME_DIR=str(self.directory), **(env or {}))
        super().__init__(
            [*wrap, TENURED, *args], self.directory, "tenured", env=environment, netns=netns
        )

    def write_config(self, text=None):
        """The dict as it is now, or this text as it stands."""
        if text is None:
            control = self.config.setdefault("control", {})
            control.setdefault("socket", str(self.socket_path))
            text = json.dumps(self.config, indent=2)
        # In one step, as deploy tools do.
        new = self.config_path.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o644)
        new.rename(self.config_path)

    @property
    def log(self):
        return self.err

    def start(self, wait=True, timeout=10.0):
        super().start()
        if wait:
            self.wait_control(timeout)
        return self

    def wait_control(self, timeout=10.0):
        def answers():
            assert self.is_running(), f"tenured ended with {self.process.returncode}:\n{self.log}"
            try:
                with Varlink(self.socket_path, timeout=2.0) as connection:
                    connection.call("List")
            except OSError:
                return False
            return True

        try:
            wait_until(answers, timeout, "the control socket")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def wait_serving(self, service="web", generation=None, timeout=15.0):
        """Until the service is at rest with all its workers ready."""

        def serving():
            assert self.is_running(), f"tenured ended with {self.process.returncode}:\n{self.log}"
            now = self.service(service)
            if now["state"] != "serving" or now.get("generation") is None:
                return None
            if generation is not None and now["generation"] != generation:
                return None
            ready = [w for w in self.workers(service, now["generation"], now) if w["state"] == "ready"]
            return now if len(ready) == now["workersWanted"] else None

        try:
            return wait_until(serving, timeout, f"{service} to serve", every=0.01)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def wait_log(self, pattern, timeout=10.0):
        return wait_until(
            lambda: re.search(pattern, self.log, re.MULTILINE), timeout, f"/{pattern}/ in the log"
        )

    # ---- control ----

    def varlink(self, timeout=30.0):
        return Varlink(self.socket_path, timeout)

    def call(self, method, timeout=60.0, **parameters):
        """One method by the protocol itself, without tenurectl."""
        with self.varlink(timeout) as connection:
            return connection.call(method, parameters)

    def ctl(self, *args, check=True, json=False, timeout=60.0):
        """Runs tenurectl. check=True: it must exit 0; a number: with that; None: with anything."""
        command = [TENURECTL, "--socket", str(self.socket_path)]
        command += ["--json"] if json else []
        command += [str(word) for word in args]
        done = subprocess.run(
            command,
            env=clean_environment(NO_COLOR="1"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        ctl = Ctl(
            [str(word) for word in args],
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
        expected = 0 if check is True else check
        if expected is not None and expected is not False:
            assert ctl.code == expected, f"{ctl!r}\ndaemon:\n{self.log[-4000:]}"
        return ctl

    def upgrade(self, service="web", *args, check=True, timeout=60.0):
        return self.ctl("upgrade", service, *args, check=check, timeout=timeout)

    def reload(self, *args, check=True, timeout=60.0):
        return self.ctl("reload", *args, check=check, timeout=timeout)

    def status(self):
        """What `tenurectl --json status` prints; its exit code says healthy or not."""
        return self.ctl("status", check=None, json=True).json

    def services(self):
        found = self.call("List")["services"]
        for service in found:
            for generation in service["generations"]:
                for worker in generation["workers"]:
                    process = Process.read(worker["pid"]) if worker.get("pid") else None
                    if process:
                        self.known[process.pid, process.started] = process
        return found

    def service(self, name="web"):
        return next(service for service in self.services() if service["name"] == name)

    def generation(self, number, service="web", state=None):
        """This generation as List shows it, or None."""
        now = state or self.service(service)
        return next((g for g in now["generations"] if g["number"] == number), None)

    def workers(self, service="web", generation=None, state=None):
        """The workers of this generation, or of all."""
        now = state or self.service(service)
        return [
            worker
            for entry in now["generations"]
            if generation is None or entry["number"] == generation
            for worker in entry["workers"]
        ]

    def pids(self, service="web", generation=None):
        return [w["pid"] for w in self.workers(service, generation) if w.get("pid")]

    def wait_generation_gone(self, number, service="web", timeout=30.0):
        """Until nothing of this generation is left."""

        def gone():
            entry = self.generation(number, service)
            return entry is None or not any(w.get("pid") for w in entry["workers"])

        wait_until(gone, timeout, f"generation {number} of {service} to end", every=0.01)

    # ---- leaks ----

    def fd_count(self, calm=0.15):
        """How many descriptors the daemon has once the number has not changed for so long: the end of
        the last control connection, for one, is seen a little later."""
        count, since = fd_count(self.pid), time.monotonic()
        while time.monotonic() - since < calm:
            time.sleep(0.01)
            now = fd_count(self.pid)
            if now != count:
                count, since = now, time.monotonic()
        return count

    @contextmanager
    def no_fd_leak(self, timeout=10.0, spare=0):
        """What is done inside leaves the daemon with as many descriptors as before. Both ends must be at
        rest: one generation, no client. spare: sockets that may be kept for the next time, because on
        a busy machine more generations than before were alive at once."""
        before, listed = self.fd_count(), fd_list(self.pid)
        yield
        try:
            wait_until(
                lambda: before <= fd_count(self.pid) <= before + spare, timeout, "descriptors to be closed"
            )
        except AssertionError:
            raise AssertionError(
                f"{before} descriptors became {self.fd_count()}:\n{listed}\n{fd_list(self.pid)}"
            ) from None

    # ---- the end ----

    def stop(self, timeout=40.0):
        """TERM; checks that it ended well and left nothing behind. Returns the exit status."""
        if self.process is None:
            return None
        below = descendants(self.pid) if self.is_running() else []
        code = super().stop(timeout)
        self.check_end(below)
        return code

    def check_end(self, below=()):
        log = self.log
        assert self.process.returncode == self.expect_exit, (
            f"tenured ended with {self.process.returncode}, not {self.expect_exit}:\n{log[-8000:]}"
        )
        assert not SANITIZER.search(log), log
        if self.allow_strays:
            return
        # What it killed last may still be about to end.
        ended, known = time.monotonic() + 5, [*below, *self.known.values()]
        while (left := [p for p in known if p.is_alive()]) and time.monotonic() < ended:
            time.sleep(0.01)
        assert not left, f"still alive after the daemon: {left}\n{log[-4000:]}"
        assert not self.socket_paths(), f"left behind: {self.socket_paths()}"

    def socket_paths(self):
        return socket_paths(self.directory)

    def crash(self):
        """SIGKILL, as the kernel's OOM killer would; its workers are left to whoever is next."""
        self.allow_strays = True
        self.expect_exit = -signal.SIGKILL
        self.signal(signal.SIGKILL)
        return self.wait()

    def remove(self):
        """Ends it the hard way if it still runs, and removes its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __exit__(self, kind, *_):
        try:
            # After a failed test its own failure is what matters.
            if kind is None and self.process is not None:
                self.stop()
        finally:
            self.remove()


class Manners:
    """The file of manners that the workers of a service read at their start, so that a test changes what
    the next generation does: manners.set("--ready-delay 1s")."""

    def __init__(self, directory, name="manners"):
        self.path = Path(directory) / name
        self.set()

    def set(self, *lines):
        new = self.path.with_suffix(".new")
        new.write_text("".join(line + "\n" for line in lines))
        new.chmod(0o644)
        new.rename(self.path)


def worker_service(listen, *options, manners=None, **keys):
    """A service of the test worker, quick on loopback; keys override."""
    command = [WORKER, *options]
    if manners:
        command += ["--manners", str(manners.path)]
    service = {"command": command, "listen": listen, "drain": dict(QUICK_DRAIN)}
    drain = keys.pop("drain", {})
    service["drain"].update(drain)
    service.update(keys)
    return service


def end_all(daemons, request):
    """At the end of a test: each of these must end well on TERM, if the test has passed."""
    passed = not getattr(request.node, "failed_call", False)
    problems = []
    for one in reversed(daemons):
        try:
            if passed:
                one.stop()
        except Exception as error:  # pylint: disable=broad-except
            problems.append(error)
        finally:
            one.remove()
    if problems:
        raise problems[0]


def monotonic_usec():
    """The clock of the load's times."""
    return int(time.monotonic() * 1e6)
