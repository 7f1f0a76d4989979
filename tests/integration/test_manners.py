# SPDX-License-Identifier: Apache-2.0
"""Workers with bad manners, each under load."""

import os
import pwd
import re
import resource
import signal
import time
from pathlib import Path

import pytest

from daemon import ROLLED_BACK, monotonic_usec, worker_service
from harness import TENURECTL, Program, assert_clean, connect, free_port, http_get, wait_until
from keeper import kept  # pylint: disable=unused-import
from processes import descendants, is_alive
from upgrades import (
    CLIENTS,
    IN_FLIGHT,
    assert_only_in_flight,
    generation_times,
    per_worker,
    quick,
    web_config,
)


# pylint: disable=redefined-outer-name


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_ignores_term_and_goes_on_accepting(web, load, sockets):
    """It gets nothing to accept: no request is answered by it after its retirement."""
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(
        workers=2, port=port, listen=listen, upgrade=quick(),
        drain={"timeout": "1s", "kill_after": "300ms"},
    )  # fmt: skip
    one.manners.set("--ignore-term")
    one.upgrade()
    running = load(port, clients=CLIENTS)
    running.wait_for(generation=2, count=100)
    old = one.pids(generation=2)
    one.upgrade()
    retired = monotonic_usec()
    running.wait_more(1000)
    assert all(is_alive(pid) for pid in old)
    one.wait_generation_gone(2)
    result = running.stop()
    assert_clean(result, 1000)
    assert generation_times(result)[2]["last_connect_usec"] <= retired
    assert one.wait_log("did not finish within 1s")


def test_stops_accepting_but_never_exits(web, load):
    one = web("--never-exit", upgrade=quick(), drain={"timeout": "500ms", "kill_after": "300ms"})
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.upgrade()
    one.wait_generation_gone(1, timeout=5)
    running.wait_more(100)
    assert_clean(running.stop(), 100, generations=[1, 2])


def test_dies_later_than_others_wait(web, load):
    """1.5 s after its start, when many supervisors have ended the old one already. Everything but the
    quick drain is as by default."""
    one = web(workers=2)
    one.manners.set("--if-generation 2 --die-after-ready 1500ms --die-between-requests")
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    failed = one.upgrade(check=ROLLED_BACK)
    assert "soak" in failed.out + failed.err
    one.wait_serving(generation=1)
    one.wait_generation_gone(2)
    running.wait_more(300)
    assert_clean(running.stop(), 300)


def test_exits_at_once_on_term(web, load):
    """Requests under way are waited for before the signal, so a program that cannot drain loses none."""
    one = web("--exit-on-term-at-once", workers=2, upgrade=quick(), drain={"idle_wait": "5s"})
    quickly = load(one.port, clients=CLIENTS)
    slowly = load(one.port, clients=8, path=["/slow?ms=300", "/drip?ms=400"])
    quickly.wait_for(ok=100)
    for number in range(2, 6):
        one.upgrade()
        one.wait_generation_gone(number - 1)
    assert_clean(quickly.stop(), 100)
    assert_clean(slowly.stop(), 8)


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_shuts_the_listener_down(web, load, sockets):
    """The address is open again at once; what waited in that queue is lost, by the worker's doing."""
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}"
    one = web(workers=2, port=port, listen=listen, upgrade=quick())
    one.manners.set(f"--if-generation 2 --if-first {one.directory}/did --shutdown-listener 300ms")
    running = load(port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    one.upgrade()
    one.wait_log("shut the socket of listener http down")
    running.wait_more(500)
    for number in range(3, 8):
        one.upgrade()
        running.wait_for(generation=number)
        one.wait_generation_gone(number - 1)
    result = running.stop()
    # Of each client what waited in that queue, and one more connect in the instant between, which may be
    # refused, or come to a socket that is idle.
    assert set(result["failures"]) <= IN_FLIGHT | {"refused"}, result.summary()
    assert result["failed"] <= 2 * CLIENTS, result.summary()
    # The sockets' order has changed by it: nothing goes to idle ones afterwards.
    assert result["latency_usec"]["max"] < 2_000_000


def test_closes_its_listener(web, load):
    """Its own descriptor only: the others accept, and so does its successor."""
    one = web(workers=2, upgrade=quick())
    one.manners.set("--if-generation 2 --if-worker 0 --close-listener 200ms")
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.upgrade()
    time.sleep(0.4)
    running.wait_more(200)
    one.upgrade()
    running.wait_for(generation=3)
    assert_clean(running.stop(), 200, generations=[1, 2, 3])


def test_detaches_the_steering(web, load):
    """Then the kernel chooses among all sockets, those nobody serves included, until the first connection
    there tells: what each client has under way in that moment is all that it can cost."""
    one = web(workers=2, upgrade=quick())
    one.manners.set("--if-worker 0 --detach-bpf 200ms")
    one.upgrade()
    running = load(one.port, clients=CLIENTS, think="1ms")
    began = time.monotonic()
    for number in range(3, 6):
        time.sleep(0.5)
        one.upgrade()
        running.wait_for(generation=number)
    n_detached = (time.monotonic() - began) / 0.2 + 3
    result = running.stop()
    assert set(result["failures"]) <= IN_FLIGHT, result.summary()
    assert result["failed"] <= n_detached * CLIENTS, result.summary()
    assert result["failed"] < result["ok"] / 20, result.summary()


def test_listens_again_with_a_small_backlog(web, load):
    """The backlog is everybody's: it is put right."""
    one = web("--relisten", "1", workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS)
    for number in range(2, 6):
        one.upgrade()
        running.wait_for(generation=number)
    # All at once: more than such a backlog takes.
    burst = load(one.port, clients=64, requests=640)
    result = burst.finish()
    assert_clean(result, 640)
    assert result["latency_usec"]["max"] < 900_000, "somebody had to send its SYN again"
    assert_clean(running.stop(), 100)


def test_changes_the_listeners_flags(web, load):
    one = web("--clear-nonblock", "--accept-batch", "1", workers=1, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    for number in range(2, 5):
        one.upgrade()
        running.wait_for(generation=number)
    one.call("List", timeout=2)
    assert_clean(running.stop(), 100)


def test_waits_exclusively(web, load):
    one = web("--epoll-exclusive", workers=4, upgrade=quick("rolling"))
    running = load(one.port, clients=CLIENTS, think="1ms", timeout="2s")
    for number in range(2, 8):
        one.upgrade()
        running.wait_for(generation=number)
    assert_clean(running.stop(), 100)


def test_is_slow_to_begin_draining(web, load):
    """Those it accepts after the signal are served as well."""
    one = web("--term-delay", "500ms", workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS)
    for number in range(2, 4):
        one.upgrade()
        one.wait_generation_gone(number - 1)
    running.wait_for(generation=3)
    assert_clean(running.stop(), 100, generations=[1, 2, 3])


def test_slow_replies_are_waited_for(web, load):
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=8, path=["/slow?ms=400", "/drip?ms=500", "/big?bytes=3000000"])
    time.sleep(0.2)
    for number in range(2, 5):
        one.upgrade()
        one.wait_generation_gone(number - 1)
    assert_clean(running.stop(), 8)


def test_connected_and_silent(web):
    """A client that connected to the old generation and speaks only later is answered."""
    one = web(workers=1, upgrade=quick(), drain={"idle_wait": "2s"})
    with connect(one.port) as client:
        time.sleep(0.05)
        one.upgrade()
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"x-tenure-generation: 1" in client.recv(4096).lower()


# ---- output ----


def test_output_flood(web, load):
    """As much as goes: neither the worker nor the daemon stops for it."""
    one = web(workers=2, upgrade=quick(), output="tee")
    web_config(one)["output"] = str(one.directory / "flood.log")
    one.manners.set("--if-generation 2 --if-worker 0 --flood-stdout 20000000")
    one.write_config()
    running = load(one.port, clients=CLIENTS, think="1ms", timeout="3s")
    one.upgrade()
    began = time.monotonic()
    running.wait_more(1000)
    one.call("List", timeout=2)
    assert time.monotonic() - began < 10
    one.manners.set()
    one.upgrade()
    one.wait_generation_gone(2)
    running.wait_for(generation=3)
    assert_clean(running.stop(), 1000)
    assert (one.directory / "flood.log").stat().st_size > 100_000


def test_output_while_the_daemon_is_stopped(web, load):
    """Nobody reads: workers write and serve on."""
    one = web("--flood-stdout", "2000000", workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    one.signal(signal.SIGSTOP)
    try:
        time.sleep(1.5)
        running.wait_more(500)
    finally:
        one.signal(signal.SIGCONT)
    one.upgrade()
    assert_clean(running.stop(), 500, generations=[1, 2])


def test_lines_have_their_workers_name(web):
    one = web("--write-lines", "3", workers=2, output="tee")
    for index in (0, 1):
        for line in (1, 2, 3):
            one.wait_log(f"^web\\.1\\.{index} \\| line {line} of 3$")


def test_notify_nonsense(web, load):
    one = web("--spam-notify", workers=2, upgrade=quick(), ready="notify")
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.upgrade()
    running.wait_more(300)
    one.upgrade()
    assert_clean(running.stop(), 300)


# ---- processes ----


@pytest.mark.parametrize("how", ["--fork-grandchild", "--double-fork"])
def test_children_go_with_their_worker(web, load, how):
    """They have the listeners, ignore TERM, and may have left the process group and their parent."""
    one = web(how, workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    old = one.pids()
    before = [p for p in descendants(one.pid) if p.pid not in old]
    assert len(before) >= 2
    one.upgrade()
    one.wait_generation_gone(1)
    wait_until(lambda: not any(p.is_alive() for p in before), what="the strays' end")
    running.wait_more(200)
    assert_clean(running.stop(), 200, generations=[1, 2])


@pytest.mark.parametrize("how", ["--fork-grandchild", "--double-fork"])
def test_children_of_a_killed_worker(web, how):
    """The kill is no way out for them: they go with it, or, without a parent, with their generation."""
    one = web(how, workers=1, upgrade=quick())
    old = one.pids()
    strays = [p for p in descendants(one.pid) if p.pid not in old]
    os.kill(old[0], signal.SIGKILL)
    wait_until(lambda: one.pids() and one.pids() != old, what="the next worker")
    one.wait_serving()
    if how == "--double-fork":
        one.upgrade()
    wait_until(lambda: not any(p.is_alive() for p in strays), what="the strays' end")
    one.wait_serving()


def test_children_at_the_end(web):
    """Checked by the end of every test: nothing is alive after the daemon."""
    one = web("--fork-grandchild", "--double-fork", workers=3)
    assert len(descendants(one.pid)) >= 9
    assert one.stop() == 0


def test_zombies_are_reaped(web):
    one = web("--double-fork", workers=2, upgrade=quick())
    for number in range(2, 6):
        one.upgrade()
        one.wait_generation_gone(number - 1)
    wait_until(
        lambda: not [p for p in descendants(one.pid) if p.state == "Z"], what="zombies to be reaped"
    )


# ---- a worker's surroundings ----


def fds_of(one, path="/fds"):
    found = {}
    for line in http_get(one.port, path).text.splitlines():
        number, flag, target = line.split(" ", 2)
        found[int(number)] = (flag, target)
    return found


def test_exactly_its_own_descriptors(daemon):
    """0, 1, 2 and the listeners, in their order, and nothing of the daemon's or of other services'."""
    ports = [free_port() for _ in range(4)]
    listen = {
        "first": f"127.0.0.1:{ports[0]}",
        "second": {"address": f"127.0.0.1:{ports[1]}", "sockets": "per-worker"},
    }
    one = daemon(start=False)
    listen["third"] = f"unix:{one.directory}/third.sock"
    one.config = {
        "services": {
            "other": worker_service(f"127.0.0.1:{ports[3]}", workers=3),
            "web": worker_service(listen, "--fail-if-fds", workers=2, upgrade=quick()),
        }
    }
    one.write_config()
    one.start()
    one.port = ports[0]
    one.wait_serving("other")
    for number in (1, 2, 3):
        one.wait_serving("web", number)
        fds = fds_of(one)
        assert sorted(fds) == [0, 1, 2, 3, 4, 5]
        assert fds[0] == ("inherited", "/dev/null")
        assert all(fds[n][1].startswith("socket:") and fds[n][0] == "inherited" for n in (3, 4, 5))
        assert http_get(one.port, "/listeners").text.split() == "3 first 4 second 5 third".split()
        names = http_get(one.port, "/env?LISTEN_FDNAMES").text.strip()
        assert names == "first:second:third"
        one.upgrade("web")


def test_listen_pid_is_its_own(web):
    """Of every worker, also of one that was started again."""
    one = web(workers=3)
    os.kill(one.pids()[1], signal.SIGKILL)
    one.wait_serving()
    wait_until(lambda: len(one.pids()) == 3, what="three workers")
    for _ in range(20):
        reply = http_get(one.port, "/env")
        env = dict(line.split("=", 1) for line in reply.text.splitlines())
        assert int(env["LISTEN_PID"]) == reply.pid
        assert env["LISTEN_FDS"] == "1"
        assert env["TENURE_SERVICE"] == "web"
        assert env["TENURE_GENERATION"] == "1"
        assert int(env["TENURE_WORKER"]) == reply.worker


def test_environment_is_clean(web):
    """Nothing of the daemon's own environment, but what the configuration says."""
    one = web(
        env={"SECRET_OF_THE_SHELL": "x", "LISTEN_FDS": "0", "NOTIFY_SOCKET": "/nowhere"},
        environment={"RAILS_ENV": "production", "PORT_FD": "{fd:http}"},
    )
    env = dict(line.split("=", 1) for line in http_get(one.port, "/env").text.splitlines())
    assert "SECRET_OF_THE_SHELL" not in env
    assert env["RAILS_ENV"] == "production"
    assert env["PORT_FD"] == "3"
    assert env["NOTIFY_SOCKET"] != "/nowhere"
    allowed = {
        "PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL", "RAILS_ENV", "PORT_FD", "NOTIFY_SOCKET",
        "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES",
        "TENURE_SERVICE", "TENURE_GENERATION", "TENURE_WORKER",
    }  # fmt: skip
    assert set(env) <= allowed


def nofile(pid):
    text = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
    return re.search(r"Max open files +(\d+) +(\d+)", text).groups()


def test_limit_of_open_files_of_workers(kept):
    """The daemon may have more than is good for them, whatever became of the daemon meanwhile."""
    one = kept(env={"TENURE_WORKER_NOFILE": "777"})
    hard = nofile(one.pid)[1]
    assert nofile(one.pids()[0]) == ("777", hard)
    assert "TENURE_WORKER_NOFILE" not in Path(f"/proc/{one.pids()[0]}/environ").read_text(encoding="utf-8")
    one.crash()
    one.back()
    one.wait_serving("web")
    one.upgrade("web")
    assert nofile(one.pids(generation=2)[0]) == ("777", hard)
    one.ctl("reexec")
    one.upgrade("web")
    assert nofile(one.pids(generation=3)[0]) == ("777", hard)
    one.config["services"]["web"]["limits"] = {"nofile": 555}
    one.write_config()
    one.upgrade("web")
    assert nofile(one.pids(generation=4)[0]) == ("555", "555")


@pytest.mark.parametrize("value", ["many", "0", "-1", "2147483647"])
def test_limit_of_open_files_that_is_none(web, value):
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    one = web(env={"TENURE_WORKER_NOFILE": value})
    assert re.search(f"TENURE_WORKER_NOFILE={value}: .* ignored, and workers get as many as the daemon", one.log)
    assert nofile(one.pids()[0]) == tuple(map(str, ours))


def test_signals_and_limits_are_clean(web):
    one = web(limits={"nofile": 4096})
    facts = dict(line.split(" ", 1) for line in http_get(one.port, "/process").text.splitlines())
    assert facts["ignored-pipe"] == "0" and facts["ignored-hup"] == "0"
    assert facts["nofile"] == "4096 4096"
    assert facts["pgid"] == facts["pid"]
    assert int(facts["ppid"]) == one.pid
    status = open(f"/proc/{one.pids()[0]}/status", encoding="utf-8").read()
    # The worker itself blocks TERM and QUIT for its signalfd, and nothing else is blocked.
    assert "SigBlk:\t0000000000004004" in status


def test_directory_is_resolved_for_each_generation(web, load):
    """`current` points elsewhere after a deploy, and the old place may be deleted."""
    one = web(workers=2, upgrade=quick(), start=False)
    for name in ("r1", "r2"):
        (one.directory / name).mkdir()
    current = one.directory / "current"
    current.symlink_to("r1")
    web_config(one)["directory"] = str(current)
    one.write_config()
    one.start()
    one.wait_serving()
    running = load(one.port, clients=CLIENTS, think="1ms")
    assert http_get(one.port, "/cwd").text.strip() == str(one.directory / "r1")
    new = one.directory / "new"
    new.symlink_to("r2")
    new.rename(current)
    # A crash now is no deploy.
    os.kill(one.pids()[0], signal.SIGKILL)
    wait_until(lambda: len(one.pids()) == 2, what="two workers")
    one.wait_serving(generation=1)
    assert {http_get(one.port, "/cwd").text.strip() for _ in range(10)} == {str(one.directory / "r1")}
    assert "directory" in one.service()["pending"]
    one.reload()
    one.wait_serving(generation=2)
    assert {http_get(one.port, "/cwd").text.strip() for _ in range(10)} == {str(one.directory / "r2")}
    one.wait_generation_gone(1)
    (one.directory / "r1").rmdir()
    one.upgrade()
    result = running.stop()
    assert_only_in_flight(result, 1)


@pytest.mark.root
def test_runs_as_its_user(web):
    one = web(user="nobody")
    lines = http_get(one.port, "/user").text.splitlines()
    nobody = pwd.getpwnam("nobody")
    assert lines[0] == f"uid {nobody.pw_uid} {nobody.pw_uid} {nobody.pw_uid}"
    assert lines[1] == f"gid {nobody.pw_gid} {nobody.pw_gid} {nobody.pw_gid}"
    assert "0" not in lines[2].split()[1:]


def test_somebody_watches(web, load):
    """A client that follows the events is in nobody's way."""
    one = web(workers=1, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    command = [TENURECTL, "--socket", one.socket_path, "events", "-f"]
    with Program(command, one.directory, "events").start() as events:
        for number in (2, 3):
            one.upgrade()
            running.wait_for(generation=number)
        wait_until(lambda: "generation 3" in events.out, what="the events")
    assert_clean(running.stop(), 10)
