# SPDX-License-Identifier: Apache-2.0
"""`tenured run`: one command, no file. As an ordinary user wherever the tests run as root."""

import os
import re
import signal
import socket
import subprocess
import time

import pytest

from daemon import FAILED, ROLLED_BACK, Ctl
from harness import (
    IS_ROOT,
    TENURECTL,
    TENURED,
    WORKER,
    Program,
    assert_clean,
    clean_environment,
    connect,
    free_port,
    http_get,
    wait_until,
)
from processes import descendants

NOBODY = 65534

# What becomes an ordinary user, with nothing of root's.
DROP = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if IS_ROOT else []

QUICK = ["--soak", "0s", "--settle", "50ms"]


@pytest.fixture
def tenured_run(daemon):
    """tenured_run("--listen", ...) starts `tenured run` with these arguments, which is at rest when it
    serves. Its control socket is where such a user's is by itself."""

    def make(*args, start=True, env=None):
        one = daemon(args=["run", *map(str, args)], start=False, env=env, wrap=DROP)
        one.spawn["cwd"] = one.directory
        # As a shell starts it: the leader of a process group.
        one.spawn["start_new_session"] = True
        one.socket_path = one.directory / "tenured" / "control.sock"
        if IS_ROOT:
            os.chown(one.directory, NOBODY, NOBODY)
        if start:
            one.start()
            wait_until(lambda: one.services()[0]["state"] == "serving", what="the service")
        return one

    return make


def tenurectl(one, *args, check=0):
    """As the same user, who says nothing about a socket."""
    done = subprocess.run(
        [*DROP, TENURECTL, *args],
        env=clean_environment(NO_COLOR="1", XDG_RUNTIME_DIR=str(one.directory)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ctl = Ctl(args, done.returncode, done.stdout, done.stderr)
    assert ctl.code == check, f"{ctl!r}\n{one.log}"
    return ctl


def fails(one, code=FAILED):
    """It ends by itself, with this status."""
    one.expect_exit = code
    Program.start(one)
    assert one.wait(20) == code, one.log
    return one.log


def address(port):
    return f"127.0.0.1:{port}"


def test_upgrades_of_an_ordinary_user(tenured_run, load):
    port = free_port()
    one = tenured_run("--listen", address(port), "--workers", "2", *QUICK, "--", WORKER)
    # By the name of its command.
    assert re.search(r"^worker +serving", tenurectl(one, "status").out, re.MULTILINE)
    running = load(port, clients=8)
    running.wait_for(ok=100)
    for number in range(2, 12):
        if number % 3 == 0:
            tenurectl(one, "upgrade", "worker")
        else:
            one.signal(signal.SIGHUP if number % 3 == 1 else signal.SIGUSR2)
            one.wait_serving("worker", number)
        running.wait_for(generation=number)
        # So many may live at once that this one and the next one are not refused.
        one.wait_generation_gone(number - 2, "worker")
    uid = NOBODY if IS_ROOT else os.geteuid()
    assert [os.stat(f"/proc/{pid}").st_uid for pid in one.pids("worker", 11)] == [uid, uid]
    tenurectl(one, "rollback", "worker")
    # The one before, if it is still alive, or else the same anew.
    back = one.service("worker")["generation"]
    assert back in (10, 12)
    before = running.live()["generations"].get(str(back), 0)
    running.wait_for(generation=back, count=before + 50)
    assert_clean(running.stop(), 500, generations=range(1, max(11, back) + 1))
    assert one.stop() == 0


def test_environment_and_directory_are_the_callers(tenured_run):
    """All of them, but not what somebody else's service manager said to us."""
    port = free_port()
    one = tenured_run(
        "--listen", address(port), "--name", "web", *QUICK, "--", WORKER, "--print-env",
        env={"GREETING": "hello\tworld", "EMPTY": "", "WATCHDOG_USEC": "1", "LISTEN_FDNAMES": "x"},
    )
    for number in (1, 2):
        assert http_get(port, "/env?GREETING").text == "hello\tworld\n"
        assert http_get(port, "/env?EMPTY").text == "\n"
        assert http_get(port, "/env?XDG_RUNTIME_DIR").text == f"{one.directory}\n"
        assert http_get(port, "/env?WATCHDOG_USEC").status == 404
        assert http_get(port, "/env?LISTEN_FDS").text == "1\n"
        assert http_get(port, "/env?LISTEN_FDNAMES").text == "http\n"
        assert http_get(port, "/env?TENURE_GENERATION").text == f"{number}\n"
        assert http_get(port, "/cwd").text == f"{one.directory}\n"
        tenurectl(one, "upgrade", "web")


def test_several_listeners(tenured_run, load):
    """In the order of the command line, and {fd:NAME} in the command."""
    port, other = free_port(), free_port()
    one = tenured_run(
        "--listen", address(port), "--listen", "unix:./web.sock", "--listen", f"[::1]:{other}",
        "--name", "web", *QUICK, "--", WORKER, "--write-lines", "{fd:web.sock}",
        start=False,
    )
    one.command[one.command.index("unix:./web.sock")] = f"unix:{one.directory}/web.sock"
    one.start()
    one.wait_serving()
    names = http_get(port, "/env?LISTEN_FDNAMES").text.strip().split(":")
    assert len(names) == 3 and names[0] == str(port) and names[1] == "web.sock" and names[2] == str(other)
    # So many lines as its number says.
    wait_until(lambda: one.log.count("web.1.0 | ") == 4, what="the number of the second one")
    loads = [
        load(port, clients=2, think="1ms"),
        load(f"unix:{one.directory}/web.sock", clients=2, think="1ms"),
        load(("::1", other), clients=2, think="1ms"),
    ]
    for running in loads:
        running.wait_for(ok=20)
    for number in (2, 3, 4):
        tenurectl(one, "upgrade", "web")
        for running in loads:
            running.wait_for(generation=number)
    for running in loads:
        assert_clean(running.stop())


@pytest.mark.parametrize("ready, manner", [
    ("notify", "--never-ready"),
    ("accept", "--never-accept"),
    ("/up", "--unhealthy"),
])
def test_ready(tenured_run, load, ready, manner):
    """Asked of the first generation and of the next ones; a release that is not ready is not seen."""
    port = free_port()
    one = tenured_run("--listen", address(port), "--name", "web", "--ready", ready, *QUICK, "--", WORKER,
                      "--manners", "manners")
    running = load(port, clients=4, think="1ms")
    running.wait_for(ok=20)
    (one.directory / "manners").write_text(manner + "\n")
    tenurectl(one, "upgrade", "web", "--detach")
    time.sleep(0.5)
    assert one.service()["rollout"]["phase"] == "starting"
    assert http_get(port).generation == 1
    tenurectl(one, "abort", "web")
    (one.directory / "manners").write_text("")
    tenurectl(one, "upgrade", "web")
    assert http_get(port).generation == 3
    assert_clean(running.stop())


def test_broken_release(tenured_run, load):
    """A script that is edited in place, as one does."""
    port = free_port()
    one = tenured_run("--listen", address(port), *QUICK, "--", "./serve", start=False)
    script = one.directory / "serve"

    def release(text):
        new = script.with_suffix(".new")
        new.write_text(f"#!/bin/sh\n{text}\n")
        new.chmod(0o755)
        new.rename(script)

    release(f"exec {WORKER}")
    one.start()
    one.wait_serving("serve")
    running = load(port, clients=4, think="1ms")
    running.wait_for(ok=20)
    release("echo the library is missing >&2; exit 5")
    bad = tenurectl(one, "upgrade", "serve", check=ROLLED_BACK)
    assert "exit status 5" in bad.err and "the library is missing" in bad.err
    one.signal(signal.SIGHUP)
    one.wait_log(r"rolled back to generation 1: .*generation 3")
    release("exec /no/such/program")
    assert "exit status 127" in tenurectl(one, "upgrade", "serve", check=ROLLED_BACK).err
    script.unlink()
    gone = tenurectl(one, "upgrade", "serve", check=FAILED)
    assert "serve" in gone.err and "No such file" in gone.err
    release(f"exec {WORKER}")
    one.signal(signal.SIGHUP)
    wait_until(lambda: one.service("serve")["generation"] not in (1, None), what="a good release")
    running.wait_more(20)
    assert_clean(running.stop())


def test_interrupt(tenured_run, load):
    """^C goes to the whole process group of a terminal: the workers are not in it, and finish."""
    port = free_port()
    one = tenured_run("--listen", address(port), "--workers", "2", "--name", "web", "--", WORKER)
    running = load(port, clients=8, path="/slow?ms=200")
    running.wait_for(ok=8)
    for pid in one.pids():
        assert os.getpgid(pid) == pid
    running.signal(signal.SIGINT)
    os.killpg(one.pid, signal.SIGINT)
    assert one.wait(20) == 0
    assert_clean(running.stop())
    assert not [process for process in descendants(os.getpid()) if WORKER in process.command]


def test_reload_and_diff_without_a_file(tenured_run):
    """There is nothing to read again: what is on disk now is what reload can mean."""
    port = free_port()
    one = tenured_run("--listen", address(port), "--name", "web", *QUICK, "--", WORKER)
    tenurectl(one, "diff", "--exit-code")
    tenurectl(one, "reload")
    assert http_get(port).generation == 2
    tenurectl(one, "scale", "web", "3")
    assert len(one.pids(generation=2)) == 3
    tenurectl(one, "stop", "web")
    with pytest.raises(ConnectionRefusedError):
        connect(port)
    tenurectl(one, "start", "web")
    assert http_get(port).generation == 3


def test_drain(tenured_run):
    """--drain is how long an old generation may take after its signal."""
    port = free_port()
    one = tenured_run("--listen", address(port), "--name", "web", "--drain", "300ms", *QUICK, "--", WORKER,
                      "--never-exit")
    # Without a connection it gets its signal at once, and is ended 300 ms later.
    started = time.monotonic()
    tenurectl(one, "upgrade", "web")
    one.wait_generation_gone(1)
    # The worker takes SIGTERM for the same signal, so it is the last one that ends it.
    assert 0.3 < time.monotonic() - started < 12


def test_where_the_socket_is(tenured_run):
    port = free_port()
    one = tenured_run("--listen", address(port), "--name", "web", "--", WORKER)
    # A second one has to be told another place, and disturbs nothing.
    second = subprocess.run(
        [*DROP, TENURED, "run", "--listen", address(free_port()), "--", WORKER],
        env=clean_environment(XDG_RUNTIME_DIR=str(one.directory)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == FAILED and str(one.socket_path) in second.stderr
    assert http_get(port).status == 200
    tenurectl(one, "status")
    # Without any place there is one line that says what to do.
    environment = clean_environment()
    environment.pop("XDG_RUNTIME_DIR", None)
    nowhere = subprocess.run(
        [*DROP, TENURED, "run", "--listen", address(free_port()), "--", WORKER],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert nowhere.returncode == FAILED
    assert "XDG_RUNTIME_DIR is not set" in nowhere.stderr and "--socket" in nowhere.stderr


def test_does_not_start(tenured_run):
    port = free_port()
    said = fails(tenured_run("--listen", address(port), "--", "no-such-program", start=False))
    assert re.search(r"no-such-program was not found in PATH \S+", said)
    assert "No such file" in fails(tenured_run("--listen", address(port), "--", "./none", start=False))
    with socket.create_server(("127.0.0.1", port)):
        said = fails(tenured_run("--listen", address(port), "--", WORKER, start=False))
        assert f"{address(port)}: Address already in use" in said
    if IS_ROOT or os.path.exists("/root"):
        said = fails(tenured_run("--listen", "unix:/root/web.sock", "--", WORKER, start=False))
        assert "/root/web.sock" in said and "Permission denied" in said
