# SPDX-License-Identifier: Apache-2.0
"""Who is alive. The test process adopts every orphan below it, so nothing that a test left behind
can hide, whatever it forked."""

import ctypes
import os
import signal
import time

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Process:
    """One process at one time: a recycled pid is another one."""

    def __init__(self, pid, ppid, state, started, command):
        self.pid, self.ppid, self.state = pid, ppid, state
        self.started, self.command = started, command

    @classmethod
    def read(cls, pid):
        """None when there is no such process."""
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name in parentheses may hold anything, so count from the last one.
        fields = text[text.rindex(")") + 2 :].split()
        name = text[text.index("(") + 1 : text.rindex(")")]
        return cls(int(pid), int(fields[1]), fields[0], int(fields[19]), command or f"[{name}]")

    def is_alive(self):
        now = Process.read(self.pid)
        return now is not None and now.started == self.started and now.state not in "ZX"

    def __repr__(self):
        return f"{self.pid} ({self.state}, parent {self.ppid}): {self.command}"


def all_processes():
    found = (Process.read(name) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process]


def descendants(pid):
    """All processes below this one, zombies too."""
    children = {}
    for process in all_processes():
        children.setdefault(process.ppid, []).append(process)
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += [process.pid for process in below]
    return found


def is_alive(pid):
    process = Process.read(pid)
    return process is not None and process.state not in "ZX"


def reap(process):
    try:
        os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:
        pass


def end_strays(timeout=5.0):
    """Ends and reaps everything below the test process; returns what was there and alive."""
    deadline = time.monotonic() + timeout
    strays = {}
    while True:
        below = descendants(os.getpid())
        if not below:
            return list(strays.values())
        for process in below:
            if process.state == "Z":
                reap(process)
                continue
            strays.setdefault((process.pid, process.started), process)
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if time.monotonic() > deadline:
            raise AssertionError(f"cannot end {below}")
        time.sleep(0.01)


def fd_count(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def fd_list(pid):
    """What each descriptor is, for the message of a failed check."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass
    return dict(sorted(found.items()))


def memory_kib(pid, field="Pss"):
    """A line of smaps_rollup: the process's own part of its memory by default."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise KeyError(field)
