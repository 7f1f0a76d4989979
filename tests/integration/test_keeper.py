# SPDX-License-Identifier: Apache-2.0
"""`tenured --keeper`: what holds the sockets while the daemon itself is dead, and is the first process of
a container."""

import os
import random
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from daemon import BAD_CONFIG, FAILED, Daemon, end_all, worker_service
from harness import (
    SANITIZERS,
    TENURECTL,
    TENURED,
    WORKER,
    Program,
    assert_clean,
    clean_environment,
    free_port,
    http_get,
    wait_until,
)
from own_keeper import Contained, make_kept, started, wait_no_zombies
from processes import descendants, fd_count, is_alive, memory_kib
from upgrades import CLIENTS, quick

SIGNALLED = 128


@pytest.fixture
def kept(request, no_strays):  # pylint: disable=unused-argument
    """kept(...) as the fixture `web`, with a keeper."""
    made = request.node.daemons = []
    yield lambda *options, **keys: make_kept(made, *options, **keys)
    end_all(made, request)


def environment_of(pid):
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(word.decode().split("=", 1) for word in words if b"=" in word)


@pytest.mark.sanitize
def test_a_killed_daemon_is_started_again(kept, load):
    web = kept(workers=4, upgrade=quick())
    pids = sorted(web.pids())
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(200)
    begin = time.monotonic()
    web.crash_daemon()
    took = time.monotonic() - begin
    print(f"SIGKILL to the next daemon's first answer: {took * 1000:.1f} ms")
    web.wait_serving("web", generation=1)
    assert sorted(web.pids()) == pids
    assert [w["restarts"] for w in web.workers()] == [0] * 4
    traffic.wait_more(200)
    web.upgrade("web")
    web.wait_serving("web", generation=2)
    assert_clean(traffic.stop(), generations=[1, 2])
    assert re.search("was ended by signal 9.*\n.*workers serve on", web.log)
    assert "the daemon is back" in web.log


def kill_at_random(web, traffic, times, seed):
    """At any moment of an upgrade, or between two. That long is no crash loop: it is back at once."""
    chance = random.Random(seed)
    for n in range(times):
        if n % 2:
            web.ctl("upgrade", "web", "--detach", check=None)
        time.sleep(chance.uniform(0, 0.15) if n % 2 else 1.1)
        web.crash_daemon()
        if n % 2:
            web.wait_serving("web", timeout=60)
            time.sleep(1.1)
    web.wait_serving("web", timeout=60)
    traffic.wait_more(200)
    web.upgrade("web")
    web.wait_serving("web", timeout=60)
    wait_until(lambda: len(web.service()["generations"]) == 1, 60, "old generations to end")
    assert_clean(traffic.stop())


@pytest.mark.sanitize
@pytest.mark.parametrize(
    "upgrade, workers", [(quick(), 4), (quick("rolling", surge="50%"), 4)], ids=["blue-green", "rolling"]
)
def test_killed_at_random(kept, load, upgrade, workers):
    web = kept(workers=workers, upgrade=upgrade)
    kill_at_random(web, load(web.port, clients=CLIENTS), 6, "some")
    wait_no_zombies(web.keeper_pid)


@pytest.mark.long
@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_killed_fifty_times(kept, load, sockets):
    port = free_port()
    listen = {"http": {"address": f"127.0.0.1:{port}", "sockets": sockets}}
    web = kept(workers=4, upgrade=quick("rolling", surge="50%"), listen=listen)
    before = fd_count(web.keeper_pid)
    kill_at_random(web, load(port, clients=CLIENTS), 50, sockets)
    wait_no_zombies(web.keeper_pid)
    # A snapshot's directory and executable for each generation one can go back to, and no more.
    assert fd_count(web.keeper_pid) <= before + 2 * 32 + 16


def test_nothing_leaks_from_the_store(kept):
    web = kept(workers=3, upgrade=quick())
    for _ in range(9):  # as many snapshots as are kept
        web.upgrade("web")
    wait_until(lambda: len(web.service()["generations"]) == 1, 30, "one generation")
    with web.no_fd_leak():
        for _ in range(3):
            web.upgrade("web")
        web.crash_daemon()
        web.ctl("scale", "web", "5")
        web.ctl("scale", "web", "3")
        web.upgrade("web")
        wait_until(lambda: len(web.service()["generations"]) == 1, 30, "one generation")


def test_memory(kept):
    web = kept(workers=4)
    web.crash_daemon()
    kib = memory_kib(web.keeper_pid)
    print(f"the keeper: {kib} KiB (PSS), the daemon: {memory_kib(web.daemon_pid)} KiB")
    if not SANITIZERS:
        assert kib < 640


@pytest.mark.strays  # the workers of a daemon that is killed without a keeper
def test_events_go_on(kept):
    """`events -f` finds the next daemon, and says that it is another one; without a keeper it ends."""
    web = kept(upgrade=quick())
    command = [TENURECTL, "--socket", str(web.socket_path), "events", "-f"]
    with Program(command, web.directory, "events", env=clean_environment()) as events:
        time.sleep(0.2)
        web.upgrade("web")
        wait_until(lambda: "rollout-done" in events.out, 10, "the first upgrade")
        web.crash_daemon()
        web.upgrade("web")
        wait_until(lambda: events.out.count("rollout-done") == 2, 10, "the second upgrade")
        assert events.out.count("(the daemon was started again)") == 1
        assert "dropped" not in events.out
        daemon = web.daemon_pid
        os.kill(web.keeper_pid, signal.SIGKILL)
        web.wait(10)
        os.kill(daemon, signal.SIGKILL)
        assert events.wait(20) == 3
    web.expect_exit, web.allow_strays = -signal.SIGKILL, True


# ---- signals and exit statuses ----


def test_signals_are_passed_on(kept):
    web = kept(upgrade=quick())
    web.config["services"]["more"] = worker_service(f"127.0.0.1:{free_port()}")
    web.write_config()
    web.signal(signal.SIGHUP)
    wait_until(lambda: len(web.services()) == 2, 10, "the reload")
    web.signal(signal.SIGUSR2)
    web.wait_serving("web", generation=2)
    web.signal(signal.SIGUSR1)
    web.wait_log("log files opened again")
    assert web.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop(kept, number):
    web = kept(workers=2)
    workers, daemon = web.pids(), web.daemon_pid
    web.signal(number)
    assert web.wait(20) == 0
    assert not any(is_alive(pid) for pid in [*workers, daemon])


def test_a_second_signal_ends_it_at_once(kept):
    web = kept("--ignore-term", drain={"timeout": "60s", "kill_after": "60s", "idle_wait": "0s"})
    web.signal(signal.SIGTERM)
    web.wait_log("stopping: workers finish")
    time.sleep(0.2)
    web.signal(signal.SIGTERM)
    assert web.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_the_daemon_dies_while_it_stops(kept, number):
    web = kept("--ignore-term", workers=2, drain={"timeout": "60s", "kill_after": "60s", "idle_wait": "0s"})
    workers = web.pids()
    web.signal(signal.SIGTERM)
    web.wait_log("stopping: workers finish")
    web.kill_daemon(number)
    web.wait_log("ending them")
    web.signal(signal.SIGTERM)  # nobody wants to wait
    web.expect_exit = SIGNALLED + number
    web.allow_strays = True  # the path of its control socket, which the next start takes
    assert web.wait(20) == SIGNALLED + number
    assert not any(is_alive(pid) for pid in workers)


def test_quit(kept):
    web = kept(workers=2)
    workers = web.pids()
    web.signal(signal.SIGQUIT)
    web.expect_exit = SIGNALLED + signal.SIGQUIT
    web.allow_strays = True
    assert web.wait(20) == web.expect_exit
    assert not any(is_alive(pid) for pid in workers)


def test_what_cannot_start_is_not_tried_again(kept):
    web = kept(start=False)
    web.write_config("services: [")
    web.expect_exit = BAD_CONFIG
    assert web.start_only().wait(20) == BAD_CONFIG
    web.write_config()
    with socket.create_server(("127.0.0.1", web.port)):
        web.expect_exit = FAILED
        assert web.start_only().wait(20) == FAILED
    assert "keeper" not in web.log


def test_a_stop_of_the_daemon_itself_is_a_stop(kept):
    web = kept()
    os.kill(web.daemon_pid, signal.SIGTERM)
    assert web.wait(20) == 0


def test_detached(kept, load):
    """Told to leave its work to the next one, it is followed by that; the keeper's own end is an end."""
    web = kept(workers=2, top={"on_terminate": "detach"})
    workers = sorted(web.pids())
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    before = web.daemon_pid
    os.kill(before, signal.SIGTERM)
    web.wait_back(before)
    web.wait_serving("web", generation=1)
    assert sorted(web.pids()) == workers
    traffic.wait_more(100)
    assert_clean(traffic.stop(), generations=[1])
    assert web.stop() == 0


# ---- crash loops ----


def test_a_crash_loop(kept, load):
    """Every daemon dies in its restore: what runs serves on, and starts become rare."""
    web = kept(workers=2, env={"TENURE_FAULT": "restore:1"})
    workers = web.pids()
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    web.kill_daemon()
    web.wait_log(r"\(5 failures in a row\)", timeout=30)
    begin = time.monotonic()
    traffic.wait_more(500)
    starts = len(re.findall("was ended by signal", web.log))
    assert starts <= 8 + (time.monotonic() - begin)
    waits = [float(text) for text in re.findall(r"starting it again in ([\d.]+)ms", web.log)]
    assert waits[:3] == [100, 200, 400]
    assert all(is_alive(pid) for pid in workers)
    assert http_get(web.port).status == 200
    assert_clean(traffic.stop(), generations=[1])
    # Nobody is there to stop them in their way, but it is a stop.
    web.signal(signal.SIGTERM)
    web.expect_exit = SIGNALLED + signal.SIGKILL
    web.allow_strays = True
    assert web.wait(30) == web.expect_exit
    assert not any(is_alive(pid) for pid in workers)


def test_a_broken_file_on_disk(kept, load, monkeypatch, tmp_path):
    """An update has left a program that does not start: the one that ran before is taken."""
    program = tmp_path / "tenured"
    shutil.copy2(TENURED, program)
    monkeypatch.setattr("daemon.TENURED", str(program))
    web = kept(workers=2)
    workers = sorted(web.pids())
    traffic = load(web.port, clients=CLIENTS)
    broken = tmp_path / "new"
    broken.write_text("#!/bin/false\n")
    broken.chmod(0o755)
    broken.rename(program)
    before = web.kill_daemon()
    web.wait_back(before)
    web.wait_serving("web", generation=1)
    assert sorted(web.pids()) == workers
    assert "the executable that was there when I was started" in web.log
    traffic.wait_more(100)
    assert_clean(traffic.stop(), generations=[1])


# ---- processes ----


def test_orphans_are_reaped(kept, load):
    web = kept(workers=3, upgrade=quick())
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    before = web.daemon_pid
    os.kill(before, signal.SIGSTOP)
    victim = sorted(p.pid for p in descendants(before) if p.ppid == before)[0]
    seen = started(victim)
    os.kill(before, signal.SIGKILL)
    os.kill(victim, signal.SIGTERM)  # ends when it has answered what it has
    web.wait_back(before)
    web.wait_serving("web", generation=1)
    assert started(victim) != seen
    wait_no_zombies(web.keeper_pid)
    assert_clean(traffic.stop())


def test_strangers_are_not_listened_to(kept):
    web = kept()
    address = environment_of(web.daemon_pid)["NOTIFY_SOCKET"]
    before = web.fd_count()
    ours, theirs = socket.socketpair()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.connect("\0" + address[1:])
        for text in (b"FDSTORE=1\nFDNAME=_l1", b"FDSTOREREMOVE=1\nFDNAME=_s1", b"STOPPING=1", b"WATCHDOG=trigger"):
            socket.send_fds(stranger, [text], [theirs.fileno()])
    theirs.close()
    # Not held: the other end sees that it is closed.
    ours.settimeout(10)
    assert ours.recv(1) == b""
    assert web.fd_count() == before
    web.crash_daemon()
    web.wait_serving("web", generation=1)


def test_the_first_one_of_a_container(kept, load):
    if not Contained.is_possible():
        pytest.skip("no pid namespace may be made here")
    web = kept(workers=2, kind=Contained)
    inside = [(w["index"], w["pid"]) for w in web.workers()]
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    web.crash_daemon()
    web.wait_serving("web", generation=1)
    assert [(w["index"], w["pid"]) for w in web.workers()] == inside
    traffic.wait_more(100)
    assert_clean(traffic.stop(), generations=[1])
    wait_no_zombies(web.keeper_pid)
    # unshare ends as its child does.
    os.kill(web.keeper_pid, signal.SIGTERM)
    assert web.wait(20) == 0
    # One that does not end well: as a shell, or a container runtime, says it.
    web.start()
    web.wait_serving("web")
    os.kill(web.keeper_pid, signal.SIGQUIT)
    web.expect_exit, web.allow_strays = SIGNALLED + signal.SIGQUIT, True
    assert web.wait(20) == web.expect_exit


# ---- where there is one, and where not ----


def test_run_has_one(kept, load):
    port = free_port()
    args = ["run", "--listen", f"127.0.0.1:{port}", "--name", "web", "--workers", "2", "--", WORKER]
    web = kept(start=False, args=args)
    web.spawn["cwd"] = web.directory
    web.socket_path = web.directory / "tenured" / "control.sock"
    web.command[1:1] = ["--socket", str(web.socket_path)]
    web.start()
    web.wait_serving("web")
    workers = sorted(web.pids())
    assert not any(name.startswith(("TENURE_KEEPER", "FDSTORE", "WATCHDOG")) for name in environment_of(workers[0]))
    traffic = load(port, clients=CLIENTS)
    web.crash_daemon()
    web.wait_serving("web", generation=1)
    assert sorted(web.pids()) == workers
    traffic.wait_more(100)
    assert_clean(traffic.stop(), generations=[1])


@pytest.mark.parametrize("args", ["run {} -- worker", "run --no-keeper {} -- worker", "--no-keeper run {} -- worker"])
def test_run_with_and_without(kept, args):
    where = f"--name=web --listen 127.0.0.1:{free_port()}"
    # An option of the command is none of ours.
    words = args.format(where).replace("worker", f"{WORKER} --term-delay 1ms").split()
    web = kept(start=False, args=words)
    web.command[1:1] = ["--socket", str(web.socket_path)]
    web.start()
    web.wait_serving("web")
    assert bool(web.daemon_pid) == ("--no-keeper" not in args)


@pytest.mark.parametrize("how", ["--no-keeper", "NOTIFY_SOCKET"])
def test_without_one(daemon, how):
    env = {"NOTIFY_SOCKET": "@nobody-there"} if how == "NOTIFY_SOCKET" else {}
    one = Daemon(
        {"services": {"web": worker_service(f"127.0.0.1:{free_port()}")}}, env=env, keeper=how != "--no-keeper"
    )
    with one.start():
        one.wait_serving("web")
        assert all(process.ppid == one.pid for process in descendants(one.pid))
        assert "worker" in descendants(one.pid)[0].command


def test_whoever_started_it_is_told(kept, tmp_path):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outer:
        outer.bind(str(path))
        outer.settimeout(20)
        web = kept(start=False, env={"NOTIFY_SOCKET": str(path)})
        web.command[1:1] = ["--keeper"]
        web.start()
        web.wait_serving("web")
        text = ""
        while "READY=1" not in text:
            text = outer.recv(4096).decode()
        assert not any(word in text for word in ("FDSTORE", "MAINPID", "BARRIER"))
        # Also by another image of it.
        assert web.ctl("reexec", json=True).json["keeper"] == "replaced"
        outer.setblocking(False)
        try:
            while outer.recv(4096):
                pass
        except BlockingIOError:
            pass
        outer.settimeout(20)
        web.ctl("stop", "web")
        text = ""
        while "STATUS=" not in text:
            text = outer.recv(4096).decode()
        web.stop()
    path.unlink()


BECOME = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_sockets_that_came_with_its_start(kept, load):
    """As from systemd, or any other: they are the daemon's each time."""
    port = free_port()
    web = kept(start=False, listen={"http": {"inherit": "http"}}, ready="notify", workers=2)
    web.port = port
    with socket.create_server(("127.0.0.1", port), backlog=128) as listening:
        # LISTEN_PID must be its own: what sets it becomes it.
        web.command = [sys.executable, "-c", BECOME, str(listening.fileno()), *web.command]
        web.spawn["env"].update(LISTEN_FDS="1", LISTEN_FDNAMES="http")
        web.spawn["pass_fds"] = [listening.fileno()]
        web.start()
        web.wait_serving("web")
        traffic = load(port, clients=CLIENTS)
        traffic.wait_more(100)
        for _ in range(2):
            web.crash_daemon()
            web.wait_serving("web", generation=1)
            traffic.wait_more(100)
        assert_clean(traffic.stop(), generations=[1])
        web.stop()
        # It came back as it was: it listens.
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_the_keeper_itself_is_killed(kept, load):
    """Then there is none; but nothing else happens."""
    web = kept(workers=2, upgrade=quick())
    daemon = web.daemon_pid
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    os.kill(web.keeper_pid, signal.SIGKILL)
    web.wait(10)
    web.ctl("upgrade", "web")
    traffic.wait_for(generation=2)
    assert_clean(traffic.stop(), generations=[1, 2])
    web.expect_exit = -signal.SIGKILL
    os.kill(daemon, signal.SIGTERM)
    wait_until(lambda: not is_alive(daemon), 20, "the daemon's end")
