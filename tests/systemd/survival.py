# SPDX-License-Identifier: Apache-2.0
"""A unit whose daemon dies, is replaced and restarted, and what must be the same afterwards."""

import os
import random
import select
import signal
import threading
import time
from pathlib import Path

import machine
from harness import free_port, wait_until
from keeper import wait_settled
from processes import fd_list
from unit import Manners, web_config
from upgrades import CLIENTS, quick

# Where the daemon looks for a fault to have, and whether it is to have it now.
FAULT, ARMED = Path("/run/test-fault"), Path("/run/test-armed")


def survivor(unit, *options, listen=None, fault=None, settings="", start=True, **keys):
    """A unit with a service "web" of test workers, on a TCP port and a Unix socket. fault: as the daemon has
    it, src/daemon/fault.h. settings: more lines of its [Service]."""
    one = unit(start=False)
    one.port = free_port()
    one.manners = Manners(one.directory)
    keys.setdefault("upgrade", quick())
    listen = listen(one.port) if listen else {"http": f"127.0.0.1:{one.port}", "local": "unix:/run/test-web.sock"}
    one.config = web_config(listen, *options, manners=one.manners, **keys)
    one.write_config()
    ARMED.unlink(missing_ok=True)
    FAULT.write_text(f"TENURE_FAULT={fault or ''}\nTENURE_FAULT_ARMED={ARMED}\n")
    machine.drop_in(one.unit, f"[Service]\nEnvironmentFile=-{FAULT}\n{settings}\n")
    return one.start() if start else one


def figures(one):
    """What may not grow, of a service at rest: in the daemon, in systemd's store, in the unit's cgroups."""
    stored = lambda: int(one.show("NFileDescriptorStore"))  # noqa: E731
    held = stored()
    fds = one.fd_count()
    wait_until(lambda: stored() == held, 1, "the store to be at rest")
    groups = machine.cgroups_below(one.cgroup)[1:]
    return {"fds": fds, "stored": held, "processes": len(one.processes()), "cgroups": len(groups)}


def assert_same(one, expected, spare=0, timeout=10.0):
    """The last ones of an earlier generation may need a moment. spare: sockets that are kept for the next time,
    because more generations than before were alive at once."""
    deadline = time.monotonic() + timeout
    while not is_same(now := figures(one), expected, spare):
        assert time.monotonic() < deadline, f"{now}, not {expected}\n{fd_list(one.pid)}\n{one.log[-4000:]}"
        time.sleep(0.05)


def is_same(now, expected, spare):
    return all(
        expected[key] <= n <= expected[key] + (spare if key in ("fds", "stored") else 0) for key, n in now.items()
    )


def kill_daemon(one):
    """SIGKILL; systemd starts the next one. Its pid, when it is dead."""
    pid = one.pid
    watch = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    wait_dead(watch)
    return pid


def wait_dead(pidfd, timeout=60.0):
    try:
        assert select.select([pidfd], [], [], timeout)[0], "the daemon lives"
    finally:
        os.close(pidfd)


def crash(one):
    """Until the next one answers; its pid."""
    before = kill_daemon(one)
    return wait_back(one, before)


def wait_back(one, before):
    def back():
        try:
            # The socket is kept: this waits for whoever is next.
            one.call("List")
        except OSError:
            return None
        now = one.pid
        return now if now not in (0, before) else None

    return wait_until(back, 30, "the next daemon")


class Operator(threading.Thread):
    """Asks for this and that, good and bad, and minds no refusal: half of the time nobody is there."""

    WORDS = [
        ("upgrade", "web", "--detach"),
        ("upgrade", "web", "--detach"),
        ("upgrade", "web", "--detach", "--strategy", "rolling"),
        ("upgrade", "web", "--detach", "--strategy", "canary", "--steps", "20%,100%", "--soak", "50ms"),
        ("upgrade", "web", "--detach", "--strategy", "canary", "--steps", "30%,100%", "--soak", "30ms"),
        ("rollback", "web"),
        ("abort", "web"),
        ("promote", "web", "--full"),
        ("scale", "web", "4"),
        ("scale", "web", "2"),
        ("restart", "web", "--detach"),
        ("status", "web"),
        None,
        None,
    ]
    # Bad before anybody was served: what a worker has accepted when it ends fails, whoever started it.
    BAD = ("--exit-code 3", "--exit-at-once")

    def __init__(self, one, seed):
        super().__init__(daemon=True)
        self.one, self.random, self.ended = one, random.Random(seed), False
        self.n = {"good": 0, "bad": 0}

    def run(self):
        while not self.ended:
            words = self.random.choice(self.WORDS)
            if words:
                self.n["good"] += self.one.ctl(*words, check=None).code == 0
            else:
                self.bad_upgrade()
            time.sleep(self.random.random() * 0.1)

    def bad_upgrade(self):
        self.one.manners.set(*self.BAD)
        self.n["bad"] += self.one.ctl("upgrade", "web", "--timeout", "2s", check=None).code not in (0, 3)
        self.one.manners.set()

    def end(self):
        self.ended = True
        self.join(60)
        assert not self.is_alive()
        self.one.manners.set()


def at_rest(one, timeout=60.0):
    """No rollout, one generation and all its workers, whatever has been."""

    def rest():
        now = one.service()
        return now["state"] == "serving" and not now.get("rollout") and len(now["generations"]) == 1 and now

    now = wait_until(rest, timeout, "the service to be at rest", every=0.05)
    one.wait_serving("web", timeout=timeout)
    return now["generation"]


__all__ = ["CLIENTS", "wait_settled"]
