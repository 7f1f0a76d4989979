# SPDX-License-Identifier: Apache-2.0
"""Live restore of what makes up the control of traffic: shares that were scaled or that stay with their
clients, previews, runs of verify, warm generations, counts of connections, options and strangers."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest
from canaries import canary, finish, next_share, open_canary, rollout, wait_phase
from daemon import ROLLED_BACK
from harness import assert_clean, free_port, http_get, wait_until
from keeper import Waiting, kept, wait_settled  # pylint: disable=unused-import
from processes import all_processes, descendants
from test_connections import connections, wait_counts
from udp import UdpLoad, bound, listeners
from upgrades import CLIENTS, per_worker, quick

# pylint: disable=redefined-outer-name


def crash_and_back(web):
    web.crash()
    web.back()


# ---- shares ----


@pytest.mark.parametrize("own_sockets", [False, True])
def test_scaled_while_open(kept, load, own_sockets):
    """Both generations have their part of the workers, also after another scaling; the shares stay."""
    port = free_port()
    listen = per_worker(port) if own_sockets else f"127.0.0.1:{port}"
    web = kept(workers=4, listen=listen, upgrade=canary("25%", "50%", "100%"))
    web.port = port
    traffic = load(port, clients=CLIENTS)
    assert open_canary(web, 25) == 2

    def shape():
        now = web.service()
        parts = [
            (g["number"], g["traffic"], [(w["state"], w["pid"]) for w in g["workers"]])
            for g in now["generations"]
        ]
        return now["workersWanted"], now["scaled"], now["rollout"]["phase"], parts

    for workers in (8, 2):
        web.ctl("scale", "web", workers)
        # Those that the share does not need yet are stopped.
        wait_until(lambda: {w["state"] for w in web.workers()} <= {"ready", "stopped"}, 20, "the workers")
        before = shape()
        for _ in range(2):
            crash_and_back(web)
            traffic.wait_more(100)
            assert shape() == before
    next_share(web, 50)
    crash_and_back(web)
    assert rollout(web)["traffic"] == 50.0 and web.service()["workersWanted"] == 2
    finish(web, 2)
    wait_settled(web, 2)
    assert len(web.pids()) == 2
    assert_clean(traffic.stop(), generations=[1, 2])


@pytest.mark.parametrize("again", [False, True])
def test_clients_stay(kept, load, again):
    """sticky: client; nobody changes sides because of the daemon."""
    web = kept(workers=2, upgrade=canary("30%", "60%", "100%", sticky="client"))
    traffic = load(web.port, clients=CLIENTS)
    assert open_canary(web, 30) == 2
    clients = [f"127.9.{i // 250}.{1 + i % 250}" for i in range(300)]

    def sides():
        return {source: http_get(web.port, source=source).generation for source in clients}

    before = sides()
    assert set(before.values()) == {1, 2}
    crash_and_back(web)
    assert sides() == before
    if again:
        web.ctl("reexec")
        assert sides() == before
    next_share(web, 60)
    assert all(sides()[source] == 2 for source in clients if before[source] == 2)
    finish(web, 2)
    assert_clean(traffic.stop())


def test_preview(kept, load):
    """The one address goes to the new generation while it has no share, and to whoever serves else."""
    web = kept(workers=2, upgrade=canary("1%", "100%", preview_from="127.0.0.2"))
    traffic = load(web.port, clients=4)
    traffic.wait_more(50)
    assert open_canary(web, 1) == 2

    def seen(source):
        return {http_get(web.port, source=source).generation for _ in range(30)}

    assert seen("127.0.0.2") == {2}
    for _ in range(2):
        crash_and_back(web)
        assert seen("127.0.0.2") == {2}
    assert 1 in seen("127.0.0.1")
    web.ctl("reexec")
    assert seen("127.0.0.2") == {2}
    web.ctl("abort", "web")
    crash_and_back(web)
    assert seen("127.0.0.2") == {1}
    wait_settled(web, 1)
    assert_clean(traffic.stop())


def test_verify_that_was_under_way(kept, load):
    """It is run again, and its answer counts; a bad one ends the rollout."""
    verify = {"command": ["sh", "-c", "sleep 0.7; test ! -e bad"], "timeout": "20s"}
    web = kept(workers=2, upgrade=quick(soak="100ms", verify=verify))
    traffic = load(web.port, clients=4)
    for generation, bad in ((2, False), (3, True)):
        if bad:
            (web.directory / "bad").touch()
        web.ctl("upgrade", "web", "--detach")
        wait_until(lambda: (rollout(web) or {}).get("verify") == "running", 10, "the run")
        crash_and_back(web)
        assert rollout(web)["verify"] == "running" and rollout(web)["toGeneration"] == generation
        wait_settled(web, 2)
    assert "generation 3 was not verified" in web.log or "not verified" in web.log
    last = web.ctl("history", "web", json=True).json["entries"]
    assert next(e for e in last if e["generation"] == 3)["outcome"] == "failed"
    assert_clean(traffic.stop())


def test_step_soaks_anew_after_a_crash(kept):
    """Nobody has watched it; after a re-exec it goes on."""
    web = kept(workers=1, upgrade={"strategy": "canary", "steps": ["50%", "100%"], "soak": "20s"})
    web.ctl("upgrade", "web", "--detach")
    wait_phase(web, "soaking")
    time.sleep(1)
    until = rollout(web)["soakUntilUsec"]
    web.ctl("reexec")
    assert abs(rollout(web)["soakUntilUsec"] - until) < 500_000
    crash_and_back(web)
    assert rollout(web)["soakUntilUsec"] - until > 900_000
    web.ctl("abort", "web")
    wait_settled(web, 1)


def test_warm(kept, load):
    """What is warm stays so for the time that is left, and is gone back to at once."""
    web = kept(workers=2, upgrade={**quick(), "keep_warm": "1h"})
    traffic = load(web.port, clients=CLIENTS)
    pids = sorted(web.pids())
    web.upgrade("web")

    def warm():
        return next((g for g in web.service()["generations"] if g["state"] == "warm"), None)

    wait_until(warm, 10, "the warm one")
    until = warm()["warmUntilUsec"]
    for _ in range(2):
        crash_and_back(web)
        assert abs(warm()["warmUntilUsec"] - until) < 500_000
    assert "after" in web.ctl("rollback", "web").out
    web.wait_serving("web", generation=1)
    assert sorted(web.pids(generation=1)) == pids
    traffic.wait_more(100)
    assert_clean(traffic.stop(), generations=[1, 2])


def test_warm_ends_in_its_time(kept):
    web = kept(workers=1, upgrade={**quick(), "keep_warm": "3s"})
    web.upgrade("web")
    wait_until(lambda: any(g["state"] == "warm" for g in web.service()["generations"]), 10, "the warm one")
    until = next(g for g in web.service()["generations"] if g["state"] == "warm")["warmUntilUsec"]
    web.crash()
    time.sleep(0.5)
    web.back()
    wait_settled(web, 2)
    assert abs(time.time() * 1e6 - until) < 10e6


# ---- connections ----


def test_connections_are_counted(kept):
    """Whose they are is known as before, also of sockets that are made afterwards."""
    web = kept(workers=2, upgrade=canary("50%", "100%"))
    with connections(web.port, 6):
        wait_counts(web, {1: 6})
        crash_and_back(web)
        wait_counts(web, {1: 6})
        assert open_canary(web, 50) == 2
        with connections(web.port, 30):
            wait_until(lambda: sum(n or 0 for n in web_counts(web).values()) == 36, 10, "the right sum")
            before = web_counts(web)
            assert before[2] > 0
            crash_and_back(web)
            wait_counts(web, before)
            web.ctl("reexec")
            wait_counts(web, before)
        wait_counts(web, {1: 6, 2: 0})


def web_counts(web):
    return {g["number"]: g["connections"] for g in web.service()["generations"]}


def test_connections_that_wait(kept):
    """Nobody has accepted them; they are where they were."""
    web = kept("--never-accept", workers=1, upgrade=canary("50%", "100%"), ready={"by": "notify", "accept": False})
    assert open_canary(web, 50) == 2

    def waiting():
        return {q["generation"]: q["waiting"] for q in listeners(web)["http"]["queue"] if q["generation"]}

    clients = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(30)]
    try:
        before = waiting()
        assert sum(before.values()) == 30 and before[2] > 0
        crash_and_back(web)
        assert waiting() == before
        web.ctl("reexec")
        assert waiting() == before
    finally:
        for client in clients:
            client.close()
    web.ctl("abort", "web")


def test_socket_is_made_again(kept, load):
    """A worker shuts it down when nobody is there, and when the next one is."""
    web = kept(workers=2, upgrade=quick())
    web.crash()
    shut_down(web, web.orphans)
    web.back()
    web.wait_log("was shut down while no daemon was there", 5)
    assert http_get(web.port).status == 200
    shut_down(web, web.pids())
    web.wait_log("a worker .*shut", 10)
    wait_until(lambda: answers(web.port), 10, "an answer")
    traffic = load(web.port, clients=4)
    with connections(web.port, 5):
        wait_until(lambda: (web_counts(web).get(1) or 0) >= 5, 10, "the count")
    crash_and_back(web)
    for generation in (2, 3):
        web.upgrade("web")
        wait_settled(web, generation)
        traffic.wait_for(generation=generation)
    assert_clean(traffic.stop())


def answers(port):
    try:
        return http_get(port).status == 200
    except OSError:
        return False


def shut_down(web, pids):
    """As one of the workers: its listening socket, for everybody."""
    import ctypes  # pylint: disable=import-outside-toplevel

    libc = ctypes.CDLL(None, use_errno=True)
    for pid in pids:
        pidfd = os.pidfd_open(pid)
        fd = libc.syscall(438, pidfd, 3, 0)  # pidfd_getfd
        os.close(pidfd)
        if fd < 0:
            continue
        one = socket.socket(fileno=fd)
        if one.family == socket.AF_INET and one.getsockname()[1] == web.port:
            one.shutdown(socket.SHUT_RD)
            one.close()
            return
        one.close()
    raise AssertionError("no worker has the socket")


# ---- sockets that came from outside ----

OPTIONS = {
    "tcp": [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_IP, socket.IP_TOS, 16),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000),
    ],
    "udp": [(socket.IPPROTO_IP, socket.IP_TOS, 16), (socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)],
}
WANTED = {"tcp": {"keepidle": "33s", "tos": 40, "nodelay": False}, "udp": {"tos": 40, "rcvbuf": "300K"}}
LATER = {"tcp": {"keepidle": "44s", "ttl": 9}, "udp": {"tos": 8}}


def options_of(given, kind):
    more = [
        (socket.SOL_SOCKET, socket.SO_REUSEPORT),
        (socket.IPPROTO_IP, socket.IP_TTL),
        (socket.IPPROTO_IP, 49),  # IP_MULTICAST_ALL
        (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP),
        (socket.IPPROTO_IP, 24),  # IP_BIND_ADDRESS_NO_PORT
    ]
    if kind == "tcp":
        more += [(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)]
    names = [(level, name) for level, name, _ in OPTIONS[kind]] + more
    return {name: given.getsockopt(*name) for name in names} | {"blocking": os.get_blocking(given.fileno())}


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_inherited_goes_back_as_it_came(kept, tmp_path, kind, sockets):
    """Whatever two daemons and a reload made of it."""
    port = free_port()
    given = bound(kind, ("127.0.0.1", port))
    for option in OPTIONS[kind]:
        given.setsockopt(*option)
    given.setblocking(False)
    before = options_of(given, kind)
    listen = {"web": {"inherit": "web", "sockets": sockets, **WANTED[kind]}}
    web = kept(workers=2, listen=listen, upgrade=quick(), ready="notify", given=[("web", given)])
    assert options_of(given, kind) != before
    actual = {o["key"]: o["actual"] for o in listeners(web)["web"]["options"]}
    crash_and_back(web)
    assert {o["key"]: o["actual"] for o in listeners(web)["web"]["options"]} == actual
    for generation in (2, 3):
        web.upgrade("web")
        wait_settled(web, generation)
    listen["web"] = {"inherit": "web", "sockets": sockets, **LATER[kind]}
    web.write_config()
    web.reload()
    crash_and_back(web)
    web.ctl("reexec")
    web.upgrade("web")
    web.wait_serving("web")
    web.stop()
    assert options_of(given, kind) == before
    given.close()


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_inherited_datagram_socket_that_was_shut_down(kept, tmp_path, sockets):
    """It cannot be closed, and is of no use: it keeps its place, and the others have theirs."""
    port = free_port()
    given = bound("udp", ("127.0.0.1", port))
    listen = {"web": {"inherit": "web", "sockets": sockets}}
    web = kept("--if-generation", "1", "--shutdown-listener", "700ms", workers=2, listen=listen,
               upgrade=quick(), ready="notify", given=[("web", given)])
    traffic = UdpLoad(tmp_path, port).start()
    try:
        web.wait_log("shut down the socket of listener", 15)
        wait_until(lambda: web.service()["generation"] > 1, 20, "others in their place")
        generation = web.service()["generation"]
        wait_settled(web, generation)
        traffic.wait_for(generation=generation)
        for _ in range(2):
            crash_and_back(web)
            assert "the saved state is not used" not in web.log
            traffic.wait_more(300)
            generation += 1
            web.upgrade("web")
            wait_settled(web, generation)
            traffic.wait_for(generation=generation)
        result = traffic.stop()
        # What was in the queue of the one that was shut down.
        assert result["failed"] <= 64, result.summary()
    finally:
        traffic.kill()
    web.stop()
    given.close()


@pytest.mark.parametrize("nonblocking", [False, True])
def test_nonblocking(kept, load, nonblocking):
    """Also on sockets that are made later."""
    port = free_port()
    listen = {"http": {"address": f"127.0.0.1:{port}", "nonblocking": nonblocking, "sockets": "per-worker"}}
    web = kept(workers=2, listen=listen, upgrade=quick())
    web.port = port
    traffic = load(port, clients=4)
    traffic.wait_more(50)

    def check():
        for pid in web.pids(generation=web.service()["generation"]):
            with open(f"/proc/{pid}/fdinfo/3", encoding="ascii") as file:
                flags = int(re.search(r"^flags:\s+(\d+)", file.read(), re.M).group(1), 8)
            assert bool(flags & os.O_NONBLOCK) == nonblocking

    if nonblocking:
        check()
    crash_and_back(web)
    actual = {o["key"]: o["wanted"] for o in listeners(web)["http"]["options"]}
    assert (actual.get("nonblocking") == "true") == nonblocking
    web.ctl("scale", "web", "3")
    web.upgrade("web")
    wait_settled(web, 2)
    traffic.wait_for(generation=2)
    if nonblocking:
        check()
    assert_clean(traffic.stop())


# ---- strangers ----


def test_a_stranger_is_told_of_once(kept):
    web = kept(workers=1, upgrade=quick())

    def told():
        events = web.call("Events", since=0)["events"]
        return web.log.count("takes part in"), [e["event"] for e in events].count("foreign-socket")

    def foreign():
        return listeners(web)["http"]["foreign"]

    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", web.port))
        stranger.listen()
        wait_until(foreign, 20, "it to be found", every=0.3)
        wait_until(lambda: told()[1], 20, "it to be told")
        logged = web.log
        first = len([line for line in logged.splitlines() if str(os.getpid()) in line])
        assert first >= 1
        for _ in range(2):
            crash_and_back(web)
            assert foreign()[0]["pid"] == os.getpid()
            web.upgrade("web")
            time.sleep(0.5)
        assert len([line for line in web.log.splitlines() if str(os.getpid()) in line and "asked for" not in line]) == first
        assert told()[1] == 0  # not by this daemon
    wait_until(lambda: not foreign(), 20, "it to be gone", every=0.3)


# ---- workers ----


def test_memory_is_watched(kept, load):
    """By the next daemon, too."""
    web = kept("--if-generation", "1", "--grow", "30M", workers=1, recycle={"memory": "120M"}, upgrade=quick())
    traffic = load(web.port, clients=2, think="5ms")
    pid = web.pids()[0]
    time.sleep(0.5)
    crash_and_back(web)
    assert web.pids() == [pid]
    wait_until(lambda: pid not in web.pids() and web.pids(), 40, "another one", every=0.1)
    assert "memory" in web.log
    assert web.service()["generation"] == 1
    assert_clean(traffic.stop())


HOW = [
    (["--exit-after", "3s", "--exit-code", "3"], "exit status 3"),
    (["--crash-after", "3s", "--crash-how", "kill"], "signal 9 "),
    (["--crash-after", "3s", "--crash-how", "segv"], "signal 11 "),
    (["--crash-after", "3s", "--crash-how", "abort"], "signal 6 "),
]


def kernel_tells():
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2]) >= (6, 15)


@pytest.mark.parametrize("options,says", HOW, ids=[says.strip() for _, says in HOW])
def test_how_it_ended_is_known(kept, options, says):
    """PIDFD_GET_INFO: of a process that is another's child, where the kernel has it."""
    web = kept("--if-generation", "1", *options, workers=1)
    crash_and_back(web)
    web.wait_serving("web", generation=1)
    wait_until(lambda: "worker 0 ended" in web.log, 15, "its end")
    expected = says if kernel_tells() else "ended while"
    assert re.search(rf"worker 0 ended \({expected}", web.log), web.log


@pytest.mark.parametrize("while_away", [False, True])
def test_a_core_dump_is_known(kept, while_away):
    """As such, if the machine writes any."""
    with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as file:
        pattern = file.read().strip()
    if pattern.startswith("|") or not pattern or not kernel_tells():
        pytest.skip(f"no core file can be had here: {pattern!r}")
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard == 0:
        pytest.skip("RLIMIT_CORE is 0")
    web = kept(workers=1, limits={"core": "1M"})
    pid = web.pids()[0]
    web.crash()
    if while_away:
        os.kill(pid, signal.SIGSEGV)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 10, "its end")
    web.back()
    if not while_away:
        os.kill(pid, signal.SIGSEGV)
    wait_until(lambda: "worker 0 ended" in web.log, 15, "its end")
    assert re.search(r"worker 0 ended \(signal 11 \([^)]*\), core dumped", web.log), web.log


def test_a_bad_upgrade_after_all(kept, load):
    """It fails when the next daemon watches it, with what it said."""
    web = kept("--if-generation", "2", "--exit-after", "2s", "--exit-code", "5", workers=2,
               upgrade=quick(soak="20s"))
    traffic = load(web.port, clients=4)
    web.ctl("upgrade", "web", "--detach")
    wait_phase(web, "soaking")
    crash_and_back(web)
    assert web.ctl("wait", "web").code == 0
    wait_settled(web, 1)
    failure = web.service()["lastFailure"]
    assert failure["generation"] == 2 and (not kernel_tells() or failure["status"] == "exit status 5"), failure
    assert traffic.stop()["failed"] <= 4
    assert ROLLED_BACK == 6


# ---- the control socket's path ----


def test_the_path_of_the_control_socket(daemon, web):
    """It stays when nobody could remove it, and does not stand in the way; it is removed at a stop."""
    one = web(workers=1)
    one.allow_strays, one.expect_exit = True, -signal.SIGKILL
    pids = one.pids()
    one.signal(signal.SIGKILL)
    one.wait()
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert one.socket_path.is_socket()
    with pytest.raises(ConnectionRefusedError):
        one.call("List")
    one.expect_exit = 0
    one.start()
    one.wait_serving("web")
    # Nobody takes it away from one that listens.
    rival = daemon({"services": {}, "control": {"socket": str(one.socket_path)}}, start=False)
    rival.expect_exit = 1
    rival.start(wait=False)
    assert rival.wait() == 1 and "another daemon" in rival.log
    assert one.service()["state"] == "serving"
    one.stop()
    assert not one.socket_path.exists()


STRANGER = """
import os, sys
os.setsid()
print("waits", flush=True)
address = sys.stdin.readline().strip()
os.execve("/bin/sleep", ["sleep", "300"], {"NOTIFY_SOCKET": address})
"""


@pytest.mark.parametrize("whose", [pytest.param("another", marks=pytest.mark.root), "ours"])
def test_who_claims_to_be_the_worker(kept, whose):
    """Of one that was started just before the daemon's death only its environment is known, which anybody can
    have: another user's, or a process that lives below somebody else."""
    web = kept(workers=1, upgrade=quick(), fault="spawned:1")
    # Forked before the worker; the environment is that of the exec.
    command = [sys.executable, "-c", STRANGER]
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if whose == "another" else {}
    if whose == "ours":
        command = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *command]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **nobody) as stranger:
        try:
            assert stranger.stdout.readline() == "waits\n"
            # A tick of the clock that start times are counted in.
            time.sleep(0.05)
            web.arm()
            asked = Waiting(web, "upgrade", "web", "--detach")
            web.wait_dead()
            worker = next(
                pid
                for pid in web.orphans
                if b"TENURE_GENERATION=2" in environment(pid) and os.getpgid(pid) == pid
            )
            address = next(word for word in environment(worker) if word.startswith(b"NOTIFY_SOCKET="))
            stranger.stdin.write(address.decode().split("=", 1)[1] + "\n")
            stranger.stdin.flush()
            claims = lambda: [p for p in all_processes() if address in environment(p.pid)]  # noqa: E731
            wait_until(lambda: len(claims()) == 2, 10, "the stranger to claim it")
            web.back()
            assert asked.end().code == 0
            web.wait_serving("web", generation=2)
            assert re.search(r"\(pid %d\) had been started just before; found" % worker, web.log), web.log
            assert web.pids(generation=2) == [worker]
            assert len(claims()) == 2
        finally:
            for process in descendants(stranger.pid):
                os.kill(process.pid, signal.SIGKILL)
            stranger.kill()


def environment(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []
