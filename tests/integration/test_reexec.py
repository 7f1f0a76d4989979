# SPDX-License-Identifier: Apache-2.0
"""`tenurectl reexec`: the daemon replaces its own program, and nobody notices."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import daemon as daemon_module
import harness
from daemon import DONE, FAILED, Daemon, Manners, end_all, worker_service
from harness import SANITIZERS, TENURECTL, WORKER, assert_clean, clean_environment, free_port, http_get, wait_until
from keeper import KeptDaemon
from own_keeper import Contained, OwnKeeper, wait_no_zombies
from processes import fd_count, fd_list, memory_kib
from upgrades import CLIENTS, assert_only_in_flight, quick
from varlink import VarlinkError

KEEPERS = {"none": Daemon, "own": OwnKeeper, "systemd's": KeptDaemon, "contained": Contained}
ALL = ["none", "own", "systemd's"]


@pytest.fixture
def program(monkeypatch, tmp_path):
    """A copy of the daemon's program that can be replaced, as a package's update does it."""
    path = tmp_path / "tenured"
    shutil.copy2(harness.TENURED, path)
    monkeypatch.setattr(daemon_module, "TENURED", str(path))
    return path


def put(source, at):
    """A new file in its place; the old one is gone."""
    new = at.with_suffix(".new")
    shutil.copy2(source, new)
    new.rename(at)


@pytest.fixture
def made(request, no_strays):  # pylint: disable=unused-argument
    """made(kind, ...) as the fixture `web`, with one of KEEPERS."""
    all_made = request.node.daemons = []

    def make(kind, *options, listen=None, top=None, env=None, args=None, start=True, **keys):
        new = KEEPERS[kind](env=env, **({"args": args} if args else {}))
        all_made.append(new)
        new.port = free_port()
        new.manners = Manners(new.directory)
        service = worker_service(listen or f"127.0.0.1:{new.port}", *options, manners=new.manners, **keys)
        new.config = {"services": {"web": service}, **(top or {})}
        new.write_config()
        if start:
            new.start()
            new.wait_serving("web")
        return new

    yield make
    end_all(all_made, request)


@pytest.fixture
def keeper_program(program):
    """The same for the keeper's program, which is looked for beside the daemon's."""
    path = program.with_name("tenured-keeper")
    shutil.copy2(harness.TENURED + "-keeper", path)
    return path


def pid_of(one):
    return one.daemon_pid if isinstance(one, OwnKeeper) else one.pid


def inode_of(pid):
    return os.stat(f"/proc/{pid}/exe").st_ino


@pytest.mark.sanitize
@pytest.mark.parametrize("kind", ALL)
def test_replaced_in_place(made, load, program, kind):
    web = made(kind, workers=4, upgrade=quick())
    pid, workers = pid_of(web), [(w["index"], w["pid"]) for w in web.workers()]
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(200)
    put(harness.TENURED, program)
    assert inode_of(pid) != os.stat(program).st_ino
    said = web.ctl("reexec", json=True).json
    print(f"the exec to the next answer: {said['tookUsec'] / 1000:.1f} ms")
    assert said["version"] == said["previousVersion"]
    assert pid_of(web) == pid and inode_of(pid) == os.stat(program).st_ino
    with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
        assert file.read() == "tenured\n"
    assert [(w["index"], w["pid"]) for w in web.workers()] == workers
    assert [w["restarts"] for w in web.workers()] == [0] * 4
    traffic.wait_more(200)
    # It is the same as ever, and can be replaced again.
    web.upgrade("web")
    web.ctl("scale", "web", "2")
    web.ctl("reexec")
    os.kill(web.pids(generation=2)[0], signal.SIGKILL)
    wait_until(lambda: any(w["restarts"] for w in web.workers()), 10, "the respawn")
    web.wait_serving("web", generation=2)
    wait_until(lambda: len(web.service()["generations"]) == 1, 30, "one generation")
    wait_no_zombies(pid)
    result = traffic.stop()
    # Only what the killed worker had accepted.
    assert result["failed"] <= CLIENTS and set(result.generations) == {1, 2}


@pytest.mark.parametrize("kind", ["own", "systemd's"])
def test_killed_after_it(made, load, kind):
    """What the keeper holds is as good as before."""
    web = made(kind, workers=2, upgrade=quick())
    workers = sorted(web.pids())
    traffic = load(web.port, clients=CLIENTS)
    for _ in range(2):
        web.ctl("reexec")
        if kind == "own":
            web.crash_daemon()
        else:
            web.crash()
            web.back()
        web.wait_serving("web", generation=1)
        assert sorted(web.pids()) == workers
        traffic.wait_more(100)
    web.upgrade("web")
    assert_clean(traffic.stop(), generations=[1, 2])


@pytest.mark.parametrize("kind", ALL)
def test_fifty_times(made, load, kind):
    """During upgrades and between them; nothing leaks."""
    web = made(kind, workers=2, upgrade=quick("rolling", surge="50%"))
    traffic = load(web.port, clients=CLIENTS)
    for n in range(40):
        if n % 10 == 5:
            web.ctl("upgrade", "web", "--detach", check=None)
        web.ctl("reexec")
    web.wait_serving("web", timeout=60)
    wait_until(lambda: len(web.service()["generations"]) == 1, 60, "one generation")
    before, listed = settled_fds(web), fd_list(pid_of(web))
    for n in range(10):
        web.ctl("reexec")
    assert settled_fds(web) == before, f"{listed}\n{fd_list(pid_of(web))}"
    assert_clean(traffic.stop())
    wait_no_zombies(pid_of(web))


def settled_fds(web):
    time.sleep(0.3)
    return fd_count(pid_of(web))


@pytest.mark.sanitize
@pytest.mark.parametrize("kind", ALL)
def test_clients_of_the_control_socket_stay(made, kind):
    web = made(kind, workers=2, upgrade=quick())
    with web.varlink() as events, web.varlink() as idle, web.varlink() as slow, web.varlink() as busy:
        events.send("Events", {"since": 0}, more=True)
        seen = [event["sequence"] for event in events.reply()["events"]]
        assert idle.call("List")["services"]
        half = json.dumps({"method": "io.tenured.Supervisor.History", "parameters": {"service": "web"}}).encode()
        slow.send_bytes(half[:30])
        busy.call("List")
        for _ in range(3):
            busy.send("List")  # answered by either image, once
            web.ctl("reexec")
            assert busy.reply()["services"][0]["state"] == "serving"
        web.upgrade("web")
        slow.send_bytes(half[30:] + b"\0")
        assert len(slow.reply()["entries"]) == 2
        assert idle.call("List")["services"][0]["generation"] == 2
        with pytest.raises(TimeoutError):
            busy.socket.settimeout(0.2)
            busy.reply()
        told = []
        while "rollout-done" not in told:
            for event in events.reply()["events"]:
                seen += [event["sequence"]] if event["event"] != "traffic" else []
                told.append(event["event"])
        assert seen == list(range(seen[0], seen[0] + len(seen)))
        assert told.count("daemon-replaced") == 3
        # Nor has whoever comes later missed anything.
        kept = [event["sequence"] for event in web.call("Events", since=0)["events"]]
        assert kept[: len(seen)] == seen


@pytest.mark.parametrize("kind", ALL)
def test_during_a_canary_that_is_followed(made, load, kind):
    """tenurectl waits for its upgrade as if nothing had happened, and ends as it would have."""
    upgrade = {"strategy": "canary", "steps": ["25%", "100%"], "soak": "4s", "verify": {"http": "/"}}
    web = made(kind, workers=2, upgrade=upgrade)
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(50)
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(web.upgrade("web", "--wait-drain")))
    waiting.start()
    wait_until(lambda: web.service()["rollout"], 10, "the rollout")
    compared, before = 0, None
    # On a busy machine an exec may take as long as a step.
    while compared < 3 and waiting.is_alive():
        now = web.service()["rollout"]
        # The step goes on; nothing of it begins anew.
        if before and now and now["step"] == before["step"] and now.get("soakUntilUsec"):
            assert abs(now["soakUntilUsec"] - before["soakUntilUsec"]) < 250_000
            compared += 1
        before = now if now and now.get("soakUntilUsec") else None
        web.ctl("reexec")
        time.sleep(0.1)
    assert compared > 0
    waiting.join()
    assert ended[0].code == DONE and "generation 1 is gone" in ended[0].out
    web.wait_serving("web", generation=2)
    # And a bad one ends with the same exit code as ever.
    web.manners.set("--exit-after 1500ms")
    ended.clear()
    waiting = threading.Thread(target=lambda: ended.append(web.upgrade("web", check=None)))
    waiting.start()
    wait_until(lambda: web.service()["rollout"], 10, "the rollout")
    web.ctl("reexec")
    waiting.join()
    assert ended[0].code == 6, ended
    assert_only_in_flight(traffic.stop(), 2)


def test_worker_limits_stay(made):
    web = made("none")
    before = limits(web.pids()[0])
    for _ in range(2):
        web.ctl("reexec")
    web.ctl("restart", "web")
    assert limits(web.pids(generation=2)[0]) == before


def limits(pid):
    with open(f"/proc/{pid}/limits", encoding="utf-8") as file:
        return next(line for line in file if line.startswith("Max open files"))


def test_run(made, load):
    """Without a file, as an interactive user has it."""
    port = free_port()
    args = ["run", "--listen", f"127.0.0.1:{port}", "--name", "web", "--workers", "2", "--", WORKER]
    web = made("own", start=False, args=args)
    web.command[1:1] = ["--socket", str(web.socket_path)]
    web.start()
    web.wait_serving("web")
    workers = sorted(web.pids())
    traffic = load(port, clients=CLIENTS)
    web.ctl("reexec")
    assert sorted(web.pids()) == workers
    web.upgrade("web")
    traffic.wait_for(generation=2)
    assert_clean(traffic.stop(), generations=[1, 2])


BECOME = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("kind", ["none", "own"])
def test_inherited_sockets(made, load, kind):
    port = free_port()
    web = made(kind, start=False, listen={"http": {"inherit": "http"}}, ready="notify", workers=2, upgrade=quick())
    with socket.create_server(("127.0.0.1", port), backlog=128) as listening:
        web.command = [sys.executable, "-c", BECOME, str(listening.fileno()), *web.command]
        web.spawn["env"].update(LISTEN_FDS="1", LISTEN_FDNAMES="http")
        web.spawn["pass_fds"] = [listening.fileno()]
        web.start()
        web.wait_serving("web")
        traffic = load(port, clients=CLIENTS)
        for _ in range(3):
            web.ctl("reexec")
        web.upgrade("web")
        traffic.wait_for(generation=2)
        assert_clean(traffic.stop(), generations=[1, 2])
        web.stop()
        # It is as it came.
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_unix_and_udp(made):
    """Sockets of every kind go over."""
    web = made("none", start=False)
    path = web.directory / "web.sock"
    web.config["services"]["web"]["listen"] = {
        "http": {"address": f"127.0.0.1:{web.port}"},
        "local": {"address": f"unix:{path}"},
    }
    web.write_config()
    web.start()
    web.wait_serving("web")
    for _ in range(2):
        web.ctl("reexec")
        assert http_get(f"unix:{path}").status == 200
        assert http_get(web.port).status == 200
    # Of one queue both take, until the old one ends.
    web.ctl("upgrade", "--wait-drain", "web")
    assert http_get(f"unix:{path}").generation == 2


# ---- programs that are not fit ----


def write(path, text, mode=0o755):
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(mode)
    new.rename(path)


def not_executable(path):
    shutil.copy2(harness.TENURED, path.with_suffix(".new"))
    path.with_suffix(".new").chmod(0o644)
    path.with_suffix(".new").rename(path)


def directory(path):
    path.unlink()
    path.mkdir()


BAD = {
    "missing": (lambda path: path.unlink(), None, "No such file"),
    "not executable": (not_executable, None, "not an executable file"),
    "a script": (lambda path: write(path, "#!/bin/true\n"), None, "no ELF file"),
    "empty": (lambda path: write(path, ""), None, "no ELF file"),
    "a directory": (directory, None, "not an executable file"),
    "half of it": (lambda path: truncate(path), None, None),
    "not tenured": (lambda path: put(shutil.which("true"), path), None, "does not answer as tenured"),
    "says nothing to the point": (lambda path: put(WORKER, path), "fine", "does not answer as tenured"),
    "fails": (lambda path: put(shutil.which("false"), path), None, "exit status 1"),
    "too old to be asked": (lambda path: put(WORKER, path), None, "too old, or not tenured"),
    "too old for the state": (lambda path: put(WORKER, path), "old", "a newer version of tenured wrote it"),
    "crashes": (lambda path: put(WORKER, path), "crash", "signal 11"),
    "hangs": (lambda path: put(WORKER, path), "hang", "did not say within 10s"),
}


def truncate(path):
    new = path.with_suffix(".new")
    new.write_bytes(path.read_bytes()[: 64 << 10])
    new.chmod(0o755)
    new.rename(path)


@pytest.mark.parametrize("kind", ["none", "own"])
@pytest.mark.parametrize("how", BAD)
def test_refused(made, load, program, how, kind):
    if how == "hangs" and kind == "own":
        pytest.skip("ten seconds once are enough")
    break_it, trial, says = BAD[how]
    web = made(kind, workers=2, upgrade=quick(), env={"TENURE_TRIAL": trial} if trial else {})
    pid, running = pid_of(web), inode_of(pid_of(web))
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(50)
    break_it(program)
    before = settled_fds(web)
    with web.varlink() as events:
        events.send("Events", more=True)
        events.reply()
        refused = web.ctl("reexec", check=FAILED)
        assert str(program) in refused.err and "goes on" in refused.err
        assert says is None or says in refused.err, refused
        with pytest.raises(VarlinkError) as caught:
            web.call("Reexec")
        assert caught.value.name == "ReexecRefused"
        # Everything goes on.
        web.upgrade("web")
        events.reply()
    assert pid_of(web) == pid and inode_of(pid) == running
    traffic.wait_for(generation=2)
    wait_until(lambda: len(web.service()["generations"]) == 1, 30, "one generation")
    wait_until(lambda: settled_fds(web) <= before + 4, 10, "descriptors to be closed")  # of the snapshot
    wait_no_zombies(pid)
    # What is good again is taken.
    if program.is_dir():
        program.rmdir()
    put(harness.TENURED, program)
    web.ctl("reexec")
    web.wait_serving("web", generation=2)
    assert_clean(traffic.stop(), generations=[1, 2])


# ---- the keeper's own program ----


@pytest.mark.parametrize("kind", ["own", "contained"])
def test_the_keeper_too(made, load, program, keeper_program, kind):
    """Same process, same children, everything held; it does all that a keeper does."""
    if kind == "contained" and not Contained.is_possible():
        pytest.skip("no pid namespace can be made here")
    web = made(kind, workers=4, upgrade=quick())
    web.allow_strays = kind == "contained"  # pids are others inside
    keeper, workers = web.keeper_pid, sorted(web.pids())
    held = fd_count(keeper)
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    for _ in range(3):
        put(harness.TENURED, program)
        put(harness.TENURED + "-keeper", keeper_program)
        assert inode_of(keeper) != os.stat(keeper_program).st_ino
        said = web.ctl("reexec", json=True).json
        assert said["keeper"] == "replaced"
        assert web.keeper_pid == keeper and inode_of(keeper) == os.stat(keeper_program).st_ino
        with open(f"/proc/{keeper}/comm", encoding="utf-8") as file:
            assert file.read() == "tenured-keeper\n"
        wait_until(lambda: fd_count(keeper) == held, 5, f"{held} descriptors: {fd_list(keeper)}")
        # It has all that the daemon needs, and hears what becomes of it.
        web.crash_daemon()
        web.wait_serving("web")
        assert sorted(web.pids()) == workers
        traffic.wait_more(50)
    assert "its keeper too" in web.ctl("reexec").out
    web.upgrade("web")
    traffic.wait_for(generation=2)
    wait_until(lambda: len(web.service()["generations"]) == 1, 30, "one generation")
    wait_no_zombies(keeper)
    assert_clean(traffic.stop(), generations=[1, 2])
    print(f"the keeper: {memory_kib(keeper)} KiB (PSS)")
    # And it stops as it is told to.
    os.kill(keeper, signal.SIGTERM)
    assert web.wait(30) == 0


def test_the_keeper_often(made, load, program, keeper_program):
    web = made("own", workers=2, upgrade=quick())
    traffic = load(web.port, clients=CLIENTS)
    for n in range(20):
        if n % 5 == 2:
            web.ctl("upgrade", "web", "--detach", check=None)
        assert web.ctl("reexec", json=True).json["keeper"] == "replaced"
    web.crash_daemon()
    web.wait_serving("web", timeout=60)
    assert_clean(traffic.stop())


def test_a_keeper_that_is_the_daemons_program(made, program):
    """Where there is no small one, it stays what it is."""
    web = made("own", workers=2)
    keeper = web.keeper_pid
    if os.readlink(f"/proc/{keeper}/exe") != str(program):
        pytest.skip("a tenured-keeper is installed")
    put(harness.TENURED, program)
    assert web.ctl("reexec", json=True).json["keeper"] == "replaced"
    assert web.keeper_pid == keeper and inode_of(keeper) == os.stat(program).st_ino
    web.crash_daemon()
    web.wait_serving("web", generation=1)


def test_sockets_that_came_stay_the_keepers(made, load, program, keeper_program):
    """What came with its start is there for each daemon, as before."""
    port = free_port()
    web = made("own", start=False, listen={"http": {"inherit": "http"}}, ready="notify", workers=2, upgrade=quick())
    with socket.create_server(("127.0.0.1", port), backlog=128) as listening:
        web.command = [sys.executable, "-c", BECOME, str(listening.fileno()), *web.command]
        web.spawn["env"].update(LISTEN_FDS="1", LISTEN_FDNAMES="http")
        web.spawn["pass_fds"] = [listening.fileno()]
        web.start()
        web.wait_serving("web")
        traffic = load(port, clients=CLIENTS)
        for _ in range(2):
            assert web.ctl("reexec", json=True).json["keeper"] == "replaced"
            web.crash_daemon()
            web.wait_serving("web")
        web.upgrade("web")
        traffic.wait_for(generation=2)
        assert_clean(traffic.stop(), generations=[1, 2])
        web.stop()
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


BAD_KEEPERS = {
    "missing": (lambda path: path.unlink(), None, "No such file"),
    "not executable": (not_executable, None, "Permission denied"),
    "a script": (lambda path: write(path, "#!/bin/true\n"), None, "no program of this machine"),
    "not a keeper": (lambda path: put(shutil.which("true"), path), None, "does not answer"),
    "fails": (lambda path: put(shutil.which("false"), path), None, "cannot go on"),
    "crashes": (lambda path: put(WORKER, path), "crash", "crashed"),
    "half of it": (truncate, None, ""),
    "hangs": (lambda path: put(WORKER, path), "hang", "did not say in time"),
}


@pytest.mark.parametrize("how", BAD_KEEPERS)
def test_bad_keepers(made, program, keeper_program, how):  # pylint: disable=unused-argument
    """The daemon is replaced, the keeper is not; it goes on, and takes a good one later."""
    break_it, trial, says = BAD_KEEPERS[how]
    web = made("own", workers=2, env={"TENURE_TRIAL": trial} if trial else {})
    keeper, running = web.keeper_pid, inode_of(web.keeper_pid)
    held = fd_count(keeper)
    break_it(keeper_program)
    refused = web.ctl("reexec", check=FAILED, timeout=60)
    assert "tenured replaced itself" in refused.out and "the keeper was not replaced" in refused.err
    assert says in refused.err, refused
    assert web.keeper_pid == keeper and inode_of(keeper) == running
    wait_no_zombies(keeper)
    wait_until(lambda: fd_count(keeper) == held, 5, f"{held} descriptors: {fd_list(keeper)}")
    web.crash_daemon()
    web.wait_serving("web", generation=1)
    put(harness.TENURED + "-keeper", keeper_program)
    assert web.ctl("reexec", json=True).json["keeper"] == "replaced"
    assert web.keeper_pid == keeper and inode_of(keeper) != running


def test_one_at_a_time(made, program):
    web = made("none", env={"TENURE_TRIAL": "hang"})
    put(WORKER, program)
    with web.varlink() as first:
        first.send("Reexec")
        wait_until(lambda: "asked for by" in web.log and "replacement" in web.log, 10, "the request")
        with pytest.raises(VarlinkError, match="tried already"):
            web.call("Reexec")
        # It may be stopped meanwhile.
        web.stop()


def test_who_may(made):
    if not harness.IS_ROOT:
        pytest.skip("needs another user")
    web = made("none")
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        + [TENURECTL, "--socket", str(web.socket_path), "reexec"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == daemon_module.NOT_PERMITTED, done


def test_how_long(made):
    """The daemon's own part, at four workers; a wide bound, for the machine may be busy."""
    web = made("own", workers=4)
    took = sorted(web.ctl("reexec", json=True).json["tookUsec"] for _ in range(10))
    print(f"exec to answer: {took[0] / 1000:.1f} ms at best, {took[5] / 1000:.1f} ms median")
    if not SANITIZERS:
        assert took[0] < 200_000
