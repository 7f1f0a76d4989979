# SPDX-License-Identifier: Apache-2.0
"""The daemon as a unit. What the integration tests do with a daemon can be done with it too."""

import json
import re
import signal
import time
from pathlib import Path

import machine
from daemon import SANITIZER, Daemon, Manners, worker_service
from harness import wait_until


class Unit(Daemon):
    """unit = Unit({"services": {...}}).start(). name: the instance's (tenured@NAME.service), "hardened", or
    None for tenured.service."""

    def __init__(self, config=None, name=None):
        super().__init__(None)
        self.unit = {None: "tenured.service", "hardened": "tenured-hardened.service"}.get(
            name, f"tenured@{name}.service"
        )
        below = f"tenured/{name}" if name else "tenured"
        self.socket_path = Path(f"/run/{below}/control.sock")
        self.config_path = machine.CONFIG / f"{name or 'tenured'}.yaml"
        self.config = config
        self.since = f"@{time.time():.6f}"
        if config is not None:
            self.write_config()

    def write_config(self, text=None):
        machine.CONFIG.mkdir(exist_ok=True)
        new = self.config_path.with_suffix(".new")
        new.write_text(json.dumps(self.config, indent=2) if text is None else text)
        new.chmod(0o644)
        new.rename(self.config_path)

    # ---- systemd ----

    def systemctl(self, verb, *options, check=True, **more):
        return machine.systemctl(verb, *options, self.unit, check=check, **more)

    def show(self, name):
        return machine.show(self.unit, name)

    @property
    def status_text(self):
        return self.show("StatusText")

    def journal(self, *arguments):
        """Since this test began: what the unit said, or what the arguments ask for."""
        return machine.journal("--since", self.since, *(arguments or ("-u", self.unit, "-o", "cat")))

    def entries(self, *arguments):
        text = self.journal("-o", "json", *arguments)
        return [json.loads(line) for line in text.splitlines()]

    def processes(self):
        return machine.processes(self.unit)

    @property
    def cgroup(self):
        """Its folder; None while the unit has none."""
        return machine.control_group(self.unit)

    def unix_paths(self):
        """Where its configuration has it listen."""
        text = self.config_path.read_text() if self.config_path.exists() else ""
        return [Path(path) for path in re.findall(r"unix:(/[^\"', }]+)", text)]

    # ---- as a program ----

    @property
    def log(self):
        return self.journal()

    @property
    def pid(self):
        return int(self.show("MainPID"))

    def is_running(self):
        return self.show("ActiveState") in ("active", "activating", "reloading", "deactivating")

    def start(self, wait=True, timeout=30.0):
        self.systemctl("start", timeout=timeout)
        return self

    def signal(self, number=signal.SIGTERM):
        self.systemctl("kill", "--kill-whom=main", f"--signal={signal.Signals(number).name}")

    def stop(self, timeout=60.0):
        """It ends well, and nothing is left of it."""
        before, cgroup = self.processes(), self.cgroup
        self.systemctl("stop", timeout=timeout)
        self.check_end(before)
        assert not cgroup or not cgroup.exists(), f"left behind: {cgroup}"

    def check_end(self, below=()):
        assert self.show("ActiveState") == "inactive", self.systemctl("status", check=None).stdout
        assert self.show("Result") == "success", self.log
        machine.wait_until_gone(below, 0.5)
        assert not self.processes()
        assert not SANITIZER.search(self.log), self.log
        assert self.show("NFileDescriptorStore") == "0"
        left = [path for path in [self.socket_path, *self.unix_paths()] if path.exists()]
        assert not left, f"left behind: {left}"

    def kill(self):
        self.systemctl("stop", check=None)

    def wait_state(self, state, timeout=20.0):
        wait_until(lambda: self.show("ActiveState") == state, timeout, f"{self.unit} to be {state}")


def web_config(listen, *options, manners=None, **keys):
    keys.setdefault("upgrade", {"strategy": "blue-green", "soak": "0s"})
    return {"services": {"web": worker_service(listen, *options, manners=manners, **keys)}}


__all__ = ["Manners", "Unit", "web_config"]
