# SPDX-License-Identifier: Apache-2.0
"""Network namespaces, and a slow line between two of them. Root only."""

import json
import os
import subprocess
from pathlib import Path

from harness import DELAY_LINE, Program, clean_environment, wait_until


class Netns:
    """A network namespace of its own, with the loopback device up. It lives as long as the process that
    holds it, so that nothing is left when a test is killed."""

    def __init__(self):
        self.holder = None
        self.path = None

    def __enter__(self):
        # setpriv is from util-linux too: the holder ends with the test.
        command = ["unshare", "--net", "setpriv", "--pdeathsig", "KILL", "sleep", "3600"]
        self.holder = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=clean_environment()
        )
        self.path = f"/proc/{self.holder.pid}/ns/net"
        ours = os.readlink("/proc/self/ns/net")

        def is_there():
            assert self.holder.poll() is None, "unshare failed: not root?"
            # Only when it sleeps: then all steps before are done.
            name = Path(f"/proc/{self.holder.pid}/comm").read_text(encoding="utf-8").strip()
            return name == "sleep" and os.readlink(self.path) != ours

        wait_until(is_there, what="a network namespace")
        self.run(["ip", "link", "set", "lo", "up"])
        return self

    def __exit__(self, *_):
        self.holder.kill()
        self.holder.wait()

    def wait_for_routes(self, device):
        """The kernel notices the carrier of a new device, and makes its routes then, up to a second
        after it was brought up."""
        wait_until(
            lambda: "state UP" in self.run(["ip", "link", "show", "dev", device]),
            what=f"the carrier of {device}",
        )

    def prefix(self):
        """What stands before a command that is to run inside; harness.Program takes netns=."""
        return ["nsenter", f"--net={self.path}"]

    def run(self, command, **more):
        """Runs it inside, to its end; raises when it fails. Returns its stdout."""
        done = subprocess.run(
            [*self.prefix(), *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **{"timeout": 60, **more},
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def sysctl(self, name, value):
        self.run(["sh", "-c", f"echo {value} > /proc/sys/{name.replace('.', '/')}"])


class DelayLine:
    """with DelayLine(tmp_path, "10ms") as line: line.a and line.b are namespaces that see each other at
    line.address_a and line.address_b, also by IPv6, with that delay each way."""

    address_a, address_b = "10.99.0.1", "10.99.0.2"
    address6_a, address6_b = "fd00:99::1", "fd00:99::2"

    def __init__(self, directory, delay="10ms", max_time="10m"):
        self.directory, self.delay, self.max_time = directory, delay, max_time
        self.a, self.b = Netns(), Netns()
        self.program = None

    def __enter__(self):
        self.a.__enter__()
        try:
            self.b.__enter__()
            self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _join(self):
        command = [DELAY_LINE, "--netns-a", self.a.path, "--netns-b", self.b.path]
        command += ["--delay", self.delay, "--max-time", self.max_time]
        self.program = Program(command, self.directory, "delay_line").start()

        def is_ready():
            assert self.program.is_running(), self.program.err
            return "ready" in self.program.out

        wait_until(is_ready, what="the delay line")
        for netns, address, address6 in (
            (self.a, self.address_a, self.address6_a),
            (self.b, self.address_b, self.address6_b),
        ):
            netns.run(["ip", "address", "add", f"{address}/24", "dev", "tun0"])
            netns.run(["ip", "address", "add", f"{address6}/64", "dev", "tun0", "nodad"])

    def __exit__(self, *_):
        if self.program:
            self.program.kill()
        for netns in (self.b, self.a):
            if netns.holder:
                netns.__exit__()

    def stop(self):
        """Ends the line; returns its count of packets: a_to_b, b_to_a, dropped."""
        assert self.program.stop() == 0, self.program.err
        return json.loads(self.program.out.splitlines()[-1])
