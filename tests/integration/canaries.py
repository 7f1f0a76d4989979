# SPDX-License-Identifier: Apache-2.0
"""What the tests of canaries share: stepping through one, and whether a share is what was asked for."""

import ctypes
import os
import signal
import socket
import time

from harness import wait_until
from upgrades import CLIENTS

SYS_PIDFD_GETFD = 438
SO_DETACH_REUSEPORT_BPF = 68
IN_NO_HURRY = "600s"  # a soak that only `promote` ends


def canary(*steps, soak=IN_NO_HURRY, **more):
    """`upgrade` of a canary that stays at each step until it is promoted."""
    return {"strategy": "canary", "steps": list(steps), "soak": soak, **more}


def rollout(one, service="web"):
    return one.service(service).get("rollout") or {}


def wait_phase(one, phase, service="web", timeout=15.0):
    return wait_until(
        lambda: rollout(one, service).get("phase") == phase, timeout, f"a rollout that is {phase}"
    )


def wait_share(one, share, service="web", timeout=15.0):
    """Until the new generation has this share."""

    def reached():
        now = rollout(one, service)
        if not now or now["phase"] not in ("soaking", "paused") or now["traffic"] != share:
            return None
        return now

    try:
        return wait_until(reached, timeout, f"a share of {share}%")
    except AssertionError as error:
        raise AssertionError(f"{error}:\n{one.log[-4000:]}") from None


def open_canary(one, share, service="web"):
    """An upgrade that pauses at this share. Returns the new generation's number."""
    one.call("Upgrade", service=service, pauseAt=share)
    wait_share(one, share, service)
    wait_phase(one, "paused", service)
    return rollout(one, service)["toGeneration"]


def next_share(one, share, service="web"):
    """Goes on to the next step, and stays there."""
    one.call("Promote", service=service)
    wait_share(one, share, service)
    one.call("Pause", service=service)


def finish(one, generation, service="web"):
    """Promotes it to all connections, and past the soak with them."""
    one.call("Promote", service=service, full=True)
    wait_share(one, 100, service)
    one.call("Promote", service=service)
    one.wait_serving(service, generation)


# ---- counting ----


def answered(live, number):
    return live["generations"].get(str(number), 0)


def count(running, n, flush=10 * CLIENTS):
    """New answers by generation, of at least n in all. Those whose connections were begun before, under
    another share, are left out: each client has had several since."""
    before = running.wait_more(flush)
    after = running.wait_for(ok=before["ok"] + n, timeout=60)
    new = {
        int(name): after["generations"][name] - before["generations"].get(name, 0)
        for name in after["generations"]
        if name != "none"
    }
    return {number: n for number, n in new.items() if n}


def assert_share(new, number, share):
    """Within five standard deviations of the binomial distribution: by chance one of 1.7 million is not.
    Where few are expected that distribution is lopsided, hence the one more."""
    everything = sum(new.values())
    mean = everything * share / 100
    bound = 5 * (mean * (1 - share / 100)) ** 0.5 + 1
    got = new.get(number, 0)
    print(f"{share}%: {got} of {everything}, {mean:.1f} +- {bound:.1f}")
    assert abs(got - mean) <= bound, f"{got} of {everything}, not {mean:.1f} +- {bound:.1f}: {new}"


def measure(running, number, share, n):
    new = count(running, n)
    assert_share(new, number, share)
    return new


# ---- bad things ----


def kill_worker(one, generation, index=0, service="web"):
    """Kills it; returns when another one is ready in its place."""

    def worker():
        return one.workers(service, generation)[index]

    old = worker()["pid"]
    os.kill(old, signal.SIGKILL)

    def replaced():
        now = worker()
        return now["state"] == "ready" and now.get("pid") not in (None, old)

    wait_until(replaced, what=f"worker {generation}.{index} to be replaced")


def at_listener_of(pid, port, do):
    """What a worker can do to its listening socket, done once, at a known moment."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                continue
            fd = libc.syscall(SYS_PIDFD_GETFD, process, int(name), 0)
            if fd < 0:
                raise OSError(ctypes.get_errno(), "pidfd_getfd")
            with socket.socket(fileno=fd) as theirs:
                if theirs.family == socket.AF_UNIX or not theirs.getsockopt(
                    socket.SOL_SOCKET, socket.SO_ACCEPTCONN
                ):
                    continue
                if theirs.getsockname()[1] == port:
                    do(theirs)
                    return
    finally:
        os.close(process)
    raise AssertionError(f"process {pid} does not listen on {port}")


def detach_steering(pid, port):
    at_listener_of(pid, port, lambda s: s.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0))


class Stopwatch:
    """What a block takes, in milliseconds: with Stopwatch() as took: ...; took.ms"""

    def __enter__(self):
        self.since = time.monotonic()
        self.ms = None
        return self

    def __exit__(self, *_):
        self.ms = (time.monotonic() - self.since) * 1000
