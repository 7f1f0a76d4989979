# SPDX-License-Identifier: Apache-2.0
"""The daemon dies, in each state and at any moment, is replaced and is restarted: no request fails, and
afterwards nothing is more than it was."""

import os
import random
import re
import signal
import statistics
import time
from pathlib import Path

import pytest

import machine
from harness import assert_clean, wait_until
from survival import (
    ARMED,
    CLIENTS,
    Operator,
    assert_same,
    at_rest,
    crash,
    figures,
    kill_daemon,
    survivor,
    wait_back,
    wait_dead,
    wait_settled,
)
from test_restore import BLUE_GREEN, POINTS, RECREATE, WARM
from upgrades import assert_only_in_flight, per_worker, quick

# So that the tests do not wait for systemd; what the units have is tried in test_crash_loop().
SOON = "RestartSec=20ms"

# ---- in each state ----

# What is tried each time: each phase of a rollout, and an effect and a worker's state of each sort. The
# others are tried by `make check-long`.
ALWAYS = ("rollout-", "spawned:", "save:", "effect-steer:1", "effect-verify:1", "worker-draining:1")


def is_tried_always(point, how):
    if point.startswith("rollout-"):
        return point.endswith(":1")
    return point.startswith(ALWAYS) and how in (BLUE_GREEN, RECREATE)


def name_of(point, how):
    return f"{point}-{how[0]['strategy']}{'-warm' * (how is WARM)}"


STATES = [
    pytest.param(point, how, id=name_of(point, how), marks=[] if is_tried_always(point, how) else pytest.mark.long)
    for point, how in POINTS
]


def serve(unit, how, fault=None):
    upgrade, workers, own_sockets = how
    return survivor(
        unit,
        workers=workers,
        upgrade=upgrade,
        listen=per_worker if own_sockets else None,
        fault=fault,
        settings=SOON,
    )


def go_on(one, how):
    """After the upgrade to generation 2: another one, or the way back."""
    if how is WARM:
        one.ctl("rollback", "web")
        wait_settled(one, 1)
    else:
        one.upgrade("web")
        wait_settled(one, 3)


_calm = {}


def calm(unit, how):
    """What there is at the end when the daemon was killed only while nothing went on."""
    key = name_of("", how)
    if key not in _calm:
        one = serve(unit, how)
        one.upgrade("web")
        wait_settled(one, 2, warm=[1] if how is WARM else [])
        go_on(one, how)
        crash(one)
        _calm[key] = figures(one)
        one.stop()
    return _calm[key]


@pytest.mark.parametrize("point,how", STATES)
def test_killed_in_each_state(unit, load, point, how):
    expected = calm(unit, how)
    one = serve(unit, how, point)
    traffic = load(one.port, clients=CLIENTS)
    traffic.wait_more(50)
    watch = os.pidfd_open(one.pid)
    ARMED.touch()
    one.ctl("upgrade", "web", "--detach", check=None)
    wait_dead(watch)
    wait_settled(one, 2, warm=[1] if how is WARM else [])
    traffic.wait_for(generation=2)
    go_on(one, how)
    assert one.show("NRestarts") == "1"
    assert_same(one, expected)
    assert_clean(traffic.stop())


# ---- at any moment ----


def fill_history(one):
    """With snapshots of as many earlier generations as are kept."""
    for _ in range(9):
        one.upgrade("web")


def kill_often(unit, load, kills, own_sockets):
    seed = int(os.environ.get("TENURE_SEED", random.randrange(1 << 30)))
    print("TENURE_SEED", seed)
    moments = random.Random(seed)
    one = survivor(
        unit,
        workers=3,
        upgrade=quick(soak="50ms", keep_warm="200ms"),
        listen=per_worker if own_sockets else None,
        settings=SOON,
    )
    fill_history(one)
    traffic = load(one.port, clients=CLIENTS)
    at_rest(one)
    crash(one)
    expected = figures(one)
    operator = Operator(one, seed)
    operator.start()
    try:
        for _ in range(kills):
            time.sleep(moments.random() ** 2 * 0.6)
            before = kill_daemon(one)
            time.sleep(moments.random() * 0.05)
            # Whoever is killed before it has said READY=1 is replaced all the same.
            if moments.random() < 0.8:
                wait_back(one, before)
            else:
                wait_until(lambda b=before: one.pid not in (0, b), 20, "the next daemon")
    finally:
        operator.end()
    at_rest(one)
    one.ctl("scale", "web", "3")
    fill_history(one)
    at_rest(one)
    assert one.show("NRestarts") == str(kills + 1)
    assert operator.n["good"] and (kills < 50 or operator.n["bad"]), operator.n
    result = traffic.stop()
    assert result["failed"] == 0, f"TENURE_SEED={seed}\n{result.summary()}"
    assert_clean(result)
    assert_same(one, expected, spare=24 if own_sockets else 6)
    assert "is not used" not in one.log


def test_at_any_moment(unit, load):
    kill_often(unit, load, 10, False)


@pytest.mark.long
@pytest.mark.parametrize("own_sockets", [False, True])
def test_at_any_moment_often(unit, load, own_sockets):
    kill_often(unit, load, 50, own_sockets)


def test_a_worker_dies_while_nobody_is_there(unit, load):
    """What it had accepted is lost, and nothing else; the next daemon has it replaced."""
    one = survivor(unit, workers=3, settings="RestartSec=1s")
    traffic = load(one.port, clients=CLIENTS)
    traffic.wait_more(100)
    crash(one)
    expected = figures(one)
    victim = one.pids()[0]
    before = kill_daemon(one)
    os.kill(victim, signal.SIGKILL)
    traffic.wait_more(100)
    wait_back(one, before)
    one.wait_serving("web", generation=1)
    assert victim not in one.pids()
    traffic.wait_more(100)
    assert_same(one, expected)
    assert_only_in_flight(traffic.stop(), 1)


# ---- replaced, restarted ----


def test_replaced_often(unit, load):
    """50 times, also in the middle of upgrades."""
    one = survivor(unit, workers=2, upgrade=quick("rolling", surge="50%"))
    fill_history(one)
    pid = one.pid
    at_rest(one)
    one.ctl("reexec")
    expected = figures(one)
    traffic = load(one.port, clients=CLIENTS)
    took = []
    for n in range(50):
        if n % 10 == 5:
            one.ctl("upgrade", "web", "--detach", check=None)
        took.append(one.ctl("reexec", json=True).json["tookUsec"] / 1000)
    print(f"the exec to the next answer: {sorted(took)[25]:.1f} ms")
    at_rest(one)
    traffic.wait_more(50)
    assert one.pid == pid and one.show("NRestarts") == "0"
    assert_same(one, expected)
    assert_clean(traffic.stop())


@pytest.mark.parametrize("strategy", ["blue-green", "rolling", "canary"])
def test_restart_during_an_upgrade(unit, load, strategy):
    """`systemctl restart` at moments of it: what had begun goes on."""
    upgrade = {"strategy": strategy, "soak": "100ms"}
    if strategy == "canary":
        upgrade["steps"] = ["25%", "100%"]
    one = survivor(unit, workers=3, upgrade=upgrade)
    traffic = load(one.port, clients=CLIENTS)
    for n, moment in enumerate((0, 0.02, 0.05, 0.1, 0.2, 0.4)):
        generation = 2 + n
        one.ctl("upgrade", "web", "--detach")
        time.sleep(moment)
        one.systemctl("restart")
        wait_settled(one, generation)
        traffic.wait_for(generation=generation)
    # As many snapshots as are kept, then once more.
    for n in range(4):
        one.upgrade("web")
        wait_settled(one, 8 + n)
    one.systemctl("restart")
    expected = figures(one)
    one.ctl("upgrade", "web", "--detach")
    one.systemctl("restart")
    wait_settled(one, 12)
    assert_same(one, expected)
    assert_clean(traffic.stop())


# ---- no room, no daemon ----


def said(one):
    """By the daemon itself."""
    return one.journal("-u", one.unit, "-t", "tenured", "-o", "cat")


@pytest.mark.parametrize("own_sockets", [False, True])
def test_full_store(unit, load, own_sockets):
    """The sockets have room before all else, and the unit's setting is named."""
    room = 14 if own_sockets else 10
    listen = per_worker if own_sockets else None
    one = survivor(unit, workers=4, listen=listen, settings=f"FileDescriptorStoreMax={room}")
    pids = sorted(one.pids())
    assert re.search("store is full .*FileDescriptorStoreMax= may be larger", said(one))
    assert int(one.show("NFileDescriptorStore")) <= room
    traffic = load(one.port, clients=CLIENTS)
    for generation in (2, 3):
        crash(one)
        one.wait_serving("web", generation=generation - 1)
        assert sorted(one.pids()) == pids
        traffic.wait_more(100)
        one.upgrade("web")
        wait_settled(one, generation)
        pids = sorted(one.pids())
    traffic.wait_for(generation=3)
    assert_clean(traffic.stop())


def test_limit_of_open_files(unit, load):
    """systemd cannot start a daemon to which it has to pass as many as that; so it is not given them."""
    one = survivor(unit, workers=30, settings="LimitNOFILE=80:1048576")
    pids = sorted(one.pids())
    assert re.search("store is full .*LimitNOFILE= may be larger", said(one))
    traffic = load(one.port, clients=CLIENTS)
    crash(one)
    one.wait_serving("web", generation=1)
    assert sorted(one.pids()) == pids
    traffic.wait_more(50)
    one.upgrade("web")
    wait_settled(one, 2)
    traffic.wait_for(generation=2)
    assert_clean(traffic.stop())


def test_open_files_of_workers(unit):
    """systemd passes many descriptors to the daemon; programs that use select(2) are not to have as many. And the
    administrator has the last word."""

    def soft_and_hard(pid):
        text = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
        return re.search(r"Max open files +(\d+) +(\d+)", text).groups()

    one = survivor(unit)
    hard = soft_and_hard(one.pid)[1]  # what the unit asks for, or all that there is here
    assert soft_and_hard(one.pids()[0]) == ("1024", hard)
    crash(one)
    one.upgrade("web")
    wait_settled(one, 2)
    assert soft_and_hard(one.pids()[0]) == ("1024", hard)
    one.stop()
    one = survivor(unit, settings="Environment=TENURE_WORKER_NOFILE=3000")
    assert soft_and_hard(one.pids()[0]) == ("3000", hard)


def test_no_store(unit, load):
    """A unit of one's own, without the line."""
    one = survivor(unit, workers=2, settings="FileDescriptorStoreMax=0")
    assert "FileDescriptorStoreMax= in its unit is too small" in said(one)
    traffic = load(one.port, clients=CLIENTS)
    traffic.wait_more(50)
    one.upgrade("web")
    wait_settled(one, 2)
    traffic.wait_for(generation=2)
    assert_clean(traffic.stop())
    # Nobody can take the workers back: they make room for others.
    pids = one.pids()
    crash(one)
    one.wait_serving("web", generation=1)
    assert not set(pids) & set(one.pids())
    machine.wait_until_gone(pids)


def test_crash_loop(unit, load):
    """A daemon that always dies: not too often, and its workers serve."""
    one = survivor(unit, workers=2, fault="restore:1")
    pids = sorted(one.pids())
    traffic = load(one.port, clients=CLIENTS)
    crash(one)
    expected = figures(one)
    ARMED.touch()
    kill_daemon(one)
    began, before = time.monotonic(), int(one.show("NRestarts"))
    while time.monotonic() - began < 4:
        traffic.wait_more(100)
    n = int(one.show("NRestarts")) - before
    assert 2 <= n <= 4 * 2 + 1, n
    assert int(one.show("NFileDescriptorStore")) == expected["stored"]
    assert_back(one, traffic, pids, ARMED.unlink)
    traffic.wait_for(generation=2)
    assert_clean(traffic.stop())


def assert_back(one, traffic, pids, repair):
    """It was in vain all the time, and nothing is lost."""
    one.wait_state("activating")  # not while ExecStopPost= runs
    repair()
    one.wait_state("active")
    assert sorted(one.pids()) == pids
    traffic.wait_more(50)
    one.upgrade("web")
    wait_settled(one, 2)


def test_program_that_cannot_be_started(unit, load):
    """The file is damaged, as by a full disk; then it is whole again."""
    program = machine.TOOLS / "tenured"
    program.write_bytes(open(machine.program(), "rb").read())
    program.chmod(0o755)
    one = survivor(unit, workers=2, start=False)
    command = f"{program} -c {one.config_path} --socket {one.socket_path}"
    machine.drop_in(one.unit, f"[Service]\nExecStart=\nExecStart={command}\n", "program")
    one.start()
    pids = sorted(one.pids())
    traffic = load(one.port, clients=CLIENTS)
    traffic.wait_more(50)
    good = program.with_suffix(".good")
    program.rename(good)
    for damaged in (b"", b"\x7fELF" + bytes(100), good.read_bytes()[:50000]):
        program.write_bytes(damaged)
        program.chmod(0o755)
        if one.show("ActiveState") == "active":
            kill_daemon(one)
        before = int(one.show("NRestarts"))
        wait_until(lambda b=before: int(one.show("NRestarts")) >= b + 2, 20, "it to be tried")
        traffic.wait_more(50)
    assert_back(one, traffic, pids, lambda: good.rename(program))
    assert_clean(traffic.stop())


def test_stopped_in_a_crash_loop(unit, load):
    """Between two tries systemd does not even ask for what is left of the unit to be ended: the next start does
    it, and has the addresses; or `systemctl kill`."""
    one = survivor(unit, workers=2, fault="restore:1", settings="RestartSec=5s")
    traffic = load(one.port, clients=CLIENTS)
    traffic.wait_more(50)
    ARMED.touch()
    stop_between_tries(one)
    pids = one.processes()
    traffic.wait_more(50)
    one.start()
    assert not set(pids) & set(one.processes())
    assert "are left of an earlier daemon" in said(one)
    traffic.wait_more(50)
    traffic.stop()  # it was stopped: between the old workers and the new ones nobody listens
    stop_between_tries(one)
    pids = one.processes()
    one.systemctl("kill")
    machine.wait_until_gone(pids)
    wait_until(lambda: not one.cgroup, 5, "the unit's cgroup to be gone")


def stop_between_tries(one):
    kill_daemon(one)
    wait_until(lambda: one.show("SubState") == "auto-restart", 10, "the pause between two tries")
    one.systemctl("stop")
    assert one.show("ActiveState") == "inactive" and len(one.processes()) == 2


# ---- how long it takes ----


def spent(pid):
    """The CPU time of a process up to now, in milliseconds."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def back_after(one):
    """From the start of the next daemon until it says that it has everything back, in milliseconds; and its CPU
    time until it has answered."""
    crash(one)
    began = int(one.show("ExecMainStartTimestampMonotonic"))
    cpu = spent(one.pid)
    wait_until(lambda: went_on(one) > began, 5, "its message")
    return (went_on(one) - began) / 1000, cpu


def went_on(one):
    entries = [e for e in one.entries("-t", "tenured") if "went on with" in e["MESSAGE"]]
    return int(entries[-1]["__MONOTONIC_TIMESTAMP"]) if entries else 0


def median_back(one, n):
    figures_ = [back_after(one) for _ in range(n)]
    return [statistics.median(values) for values in zip(*figures_)]


def test_how_long_it_takes(unit, load):
    """Bounds that only something very wrong breaks; the figures are printed."""
    one = survivor(unit, workers=4, settings=SOON)
    pids = sorted(one.pids())
    traffic = load(one.port, clients=4)
    traffic.wait_more(50)
    took, cpu = median_back(one, 5)
    replaced = statistics.median(one.ctl("reexec", json=True).json["tookUsec"] / 1000 for _ in range(5))
    print(f"4 workers: back {took:.1f} ms after exec, {cpu:.0f} ms of CPU time; reexec {replaced:.1f} ms")
    assert took < 2000 and cpu < 500 and replaced < 2000
    assert sorted(one.pids()) == pids
    assert_clean(traffic.stop(), generations=[1])


@pytest.mark.long
def test_a_thousand_workers(unit, load):
    one = survivor(unit, workers=1000, settings=SOON, listen=lambda port: f"127.0.0.1:{port}")
    one.wait_serving("web", timeout=120)
    pids = sorted(one.pids())
    assert len(pids) == 1000
    traffic = load(one.port, clients=4)
    took, cpu = median_back(one, 3)
    replaced = statistics.median(one.ctl("reexec", json=True).json["tookUsec"] / 1000 for _ in range(3))
    print(f"1000 workers: back {took:.0f} ms after exec, {cpu:.0f} ms of CPU time; reexec {replaced:.0f} ms")
    assert sorted(one.pids()) == pids
    assert took < 20000 and cpu < 5000
    traffic.wait_more(50)
    assert_clean(traffic.stop(), generations=[1])
