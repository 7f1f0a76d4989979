# SPDX-License-Identifier: Apache-2.0
"""What is measured: the daemon, and the peers that are installed here. Each serves generations of the
same worker on one loopback port (nginx serves by itself) and is upgraded the way its manual says."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from daemon import Daemon
from harness import BUILD, WORKER, Program, free_port, http_get, wait_until
from own_keeper import OwnKeeper
from varlink import Varlink, VarlinkError

PREFORK = os.environ.get("TENURE_PREFORK", str(BUILD / "tests/bench/prefork"))


class Supervisor:
    """name; address, a port of 127.0.0.1; process, a Program; generation, the newest one's number."""

    name = None
    # Some wait before they replace what has just been started.
    proving_time = 1.5

    def __init__(self, workers=4, options=()):
        self.workers, self.options = workers, [str(option) for option in options]
        self.address = free_port()
        self.generation = 1
        self.directory = Path(tempfile.mkdtemp(prefix="tenured-bench-"))
        self.process = None

    @classmethod
    def is_here(cls):
        return True

    def command(self):
        """What start() runs."""
        raise NotImplementedError

    def prepare(self):
        """Before start(): its files."""

    def launch(self, **more):
        self.process = Program(self.command(), self.directory, "supervisor", **more)
        self.process.start()

    def start(self):
        self.prepare()
        self.launch()
        try:
            self.wait_serving()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_serving(self):
        wait_until(self.first_reply, 30.0, f"{self.name} to serve", every=0.0002)

    def first_reply(self):
        try:
            return http_get(self.address, timeout=10.0)
        except OSError:
            self.check()
            return None

    def check(self):
        assert self.process.is_running(), f"{self.name} ended: {self.process.err}"

    def upgrade(self):
        """Asks for the next generation; returns when asked, in seconds of CLOCK_MONOTONIC, when the new
        one has all new connections."""
        raise NotImplementedError

    def pids(self):
        """The processes that supervise, without the workers."""
        return [self.process.pid]

    def stop(self):
        if self.process is not None:
            self.process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


class Tenured(Supervisor):
    name = "tenured"
    kind = Daemon

    def __init__(self, workers=4, options=(), strategy="blue-green"):
        super().__init__(workers, options)
        self.strategy = strategy
        service = {
            "command": [WORKER, *self.options],
            "listen": self.address,
            "workers": workers,
            "upgrade": {"strategy": strategy, "soak": "0s"},
            # On loopback no handshake takes longer.
            "drain": {"settle": "50ms", "idle_wait": "1s"},
        }
        self.daemon = self.process = self.kind({"services": {"web": service}})

    def launch(self, **_):
        self.daemon.start(wait=False)

    def start(self):
        super().start()
        self.daemon.wait_serving()
        return self

    def upgrade(self):
        while True:
            with Varlink(self.daemon.socket_path) as connection:
                asked = time.monotonic()
                try:
                    for _ in connection.call("Upgrade", {"service": "web"}, more=True):
                        pass
                    break
                except VarlinkError as error:
                    # The drains are not over yet.
                    if error.name != "TooManyGenerations":
                        raise
            time.sleep(0.005)
        self.generation += 1
        return asked

    def stop(self):
        try:
            self.daemon.stop()
        finally:
            self.daemon.remove()
            shutil.rmtree(self.directory, ignore_errors=True)


class Kept(Tenured):
    """With the keeper, for which everything is written down before it is done."""

    kind = OwnKeeper


class S6(Supervisor):
    """Blue and green, two services that have the same listening socket by inheritance: the one that is
    down comes up, then the other goes down."""

    name = "s6"

    @classmethod
    def is_here(cls):
        return all(shutil.which(program) for program in ("s6-svscan", "s6-supervise", "s6-svc"))

    def prepare(self):
        with socket.create_server(("127.0.0.1", self.address), backlog=1024) as listener:
            # Above those that s6 uses itself.
            self.listener = fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, 50)
        self.serving, self.idle = self.directory / "scan/blue", self.directory / "scan/green"
        worker = [WORKER, *self.options]
        fd = ["--fd", str(self.listener)]
        if self.workers > 1:
            prefork = [PREFORK, "--workers", str(self.workers), "--ready-fd", "3", *fd, "--"]
            worker = prefork + worker
            ready = ""
        else:
            worker += fd
            # Without its word for it, s6-supervise takes a second before the next start.
            ready = "echo >&3; exec 3>&-\n"
        for service in (self.serving, self.idle):
            service.mkdir(parents=True)
            (service / "generation").write_text("1\n")
            (service / "notification-fd").write_text("3\n")
            (service / "run").write_text(
                "#!/bin/sh\nread -r TENURE_GENERATION <generation\nexport TENURE_GENERATION\n"
                f"{ready}exec {' '.join(worker)}\n"
            )
            (service / "run").chmod(0o755)
        (self.idle / "down").touch()

    def command(self):
        return ["s6-svscan", self.directory / "scan"]

    def launch(self, **_):
        super().launch(pass_fds=(self.listener,))
        # One holder less: it must not accept what the workers should.
        os.close(self.listener)

    def _control(self, *args):
        subprocess.run(["s6-svc", *args], check=True, timeout=30)

    def upgrade(self):
        number = self.generation + 1
        (self.idle / "generation").write_text(f"{number}\n")
        asked = time.monotonic()
        self._control("-wU", "-T", "20000", "-u", self.idle)
        self._control("-wD", "-T", "20000", "-d", self.serving)
        self.generation = number
        self.serving, self.idle = self.idle, self.serving
        return asked

    def pids(self):
        return [self.process.pid, *children(self.process.pid)]

    def stop(self):
        if self.process is not None and self.process.is_running():
            subprocess.run(["s6-svscanctl", "-t", self.directory / "scan"], check=True, timeout=30)
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Starter(Supervisor):
    name = "start_server"

    @classmethod
    def is_here(cls):
        return shutil.which("start_server") is not None

    def command(self):
        return [
            *("start_server", "--port", f"127.0.0.1:{self.address}", "--backlog", "1024"),
            *("--status-file", self.directory / "status", "--"),
            *(PREFORK, "--workers", self.workers, "--starter", "--", WORKER, *self.options),
        ]

    def _generations(self):
        try:
            return [int(line.split(":")[0]) for line in (self.directory / "status").open()]
        except (OSError, ValueError):
            return []

    def upgrade(self):
        self.generation += 1
        asked = time.monotonic()
        self.process.signal(signal.SIGHUP)
        wait_until(lambda: self._generations() == [self.generation], 30.0, "start_server")
        return asked


class Nginx(Supervisor):
    """The upgrade of the executable: USR2 to the old master, QUIT when the new one has its workers."""

    name = "nginx"

    @classmethod
    def is_here(cls):
        return shutil.which("nginx") is not None

    def prepare(self):
        self._configure()

    def _configure(self):
        directory = self.directory
        new = directory / "nginx.conf.new"
        new.write_text(
            f"""worker_processes {self.workers}; pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {directory}/1; proxy_temp_path {directory}/2;
  fastcgi_temp_path {directory}/3; uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
  server {{
    listen 127.0.0.1:{self.address} backlog=1024;
    location / {{
      add_header X-Pid $pid; add_header X-Tenure-Generation {self.generation};
      return 200 "hello\\n";
    }}
  }}
}}
"""
        )
        new.rename(directory / "nginx.conf")

    def command(self):
        # It starts its next executable by this path.
        return [shutil.which("nginx"), "-p", self.directory, "-c", self.directory / "nginx.conf"]

    def launch(self, **_):
        super().launch()
        # It goes to the background: with its starter as parent it would not upgrade itself.
        assert self.process.wait() == 0, f"nginx: {self.process.err}"
        self.master = int((self.directory / "nginx.pid").read_text())

    def check(self):
        assert not has_ended(self.master), f"nginx ended: {self.process.err}"

    def _new_master(self):
        try:
            pid = int((self.directory / "nginx.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if pid != self.master and len(children(pid)) == self.workers else None

    def upgrade(self):
        self.generation += 1
        self._configure()
        asked = time.monotonic()
        os.kill(self.master, signal.SIGUSR2)
        new = wait_until(self._new_master, 30.0, "nginx's new master", every=0.001)
        old, self.master = self.master, new
        os.kill(old, signal.SIGQUIT)
        wait_until(lambda: has_ended(old), 30.0, "nginx's old master")
        return asked

    def pids(self):
        return [self.master]

    def stop(self):
        try:
            os.kill(self.master, signal.SIGTERM)
            wait_until(lambda: has_ended(self.master), 30.0, "nginx to end")
        except ProcessLookupError:
            pass
        shutil.rmtree(self.directory, ignore_errors=True)


def has_ended(pid):
    """Reaps it when it is our child: what its parent left behind is, see become_subreaper()."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not Path(f"/proc/{pid}").exists()


def children(pid):
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


PEERS = [S6, Starter, Nginx]
