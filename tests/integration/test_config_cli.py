# SPDX-License-Identifier: Apache-2.0
"""tenured's command line and its files: what is said of wrong ones, that a wrong one changes nothing,
and what starting, stopping and output are told to do."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon import BAD_CONFIG, FAILED, NO_DAEMON, USAGE, worker_service
from harness import (
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
from processes import is_alive
from upgrades import quick, set_release

NOBODY = 65534


def run(*args, program=TENURED, **more):
    """A program that ends by itself."""
    environment = clean_environment(NO_COLOR="1", **more.pop("env", {}))
    done = subprocess.run(
        [program, *map(str, args)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        **more,
    )
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return done


def lines_of(text):
    return [line for line in text.splitlines() if " warning: " not in line]


# ---- the command line ----


def test_version_and_help():
    for program in (TENURED, TENURECTL):
        version = run("--version", program=program)
        assert version.returncode == 0
        assert re.match(r"tenure(d|ctl) \d+\.\d+\.\d+", version.stdout)
    shown = run("--help")
    assert shown.returncode == 0 and not shown.stderr
    for word in ("-c FILE", "check", "run --listen", "--socket", "--version", "tenurectl"):
        assert word in shown.stdout
    for args in (["-h"], ["run", "--help"], ["run", "-h"], ["check", "--help"]):
        other = run(*args)
        assert (other.returncode, other.stdout, other.stderr) == (0, shown.stdout, ""), args


@pytest.mark.parametrize("args, said", [
    ([], "tenured -c FILE"),
    (["--nonsense"], "unrecognized option '--nonsense'"),
    (["nonsense"], "unknown command"),
    (["-c"], "requires an argument"),
    (["-c", "x", "run", "--", "true"], "no configuration file"),
    (["check", "one", "two"], "one FILE"),
    (["run"], "no COMMAND"),
    (["run", "--listen", "8080"], "no COMMAND"),
    (["run", "--listen", "x:y", "--", "true"], "--listen x:y: want a port"),
    (["run", "--workers", "0", "--", "true"], "--workers 0: want a number"),
    (["run", "--soak", "5", "--", "true"], "--soak 5: want a duration"),
    (["run", "--ready", "soon", "--", "true"], "--ready soon: want accept"),
    (["run", "--name", "a b", "--", "true"], '"a b" is not a service\'s name'),
    (["run", "--nonsense", "--", "true"], "unrecognized option '--nonsense'"),
    (["run", "--listen", "8080", "--listen", "8080", "--", "true"], "already belongs to"),
])
def test_wrong_usage(args, said):
    done = run(*args)
    assert done.returncode == USAGE and not done.stdout
    assert said in done.stderr
    # Whoever says it, it is this program.
    assert done.stderr.startswith(("tenured", TENURED)), done.stderr


def test_no_daemon(tmp_path):
    for verb in (["status"], ["upgrade", "web"], ["reload"], ["stop", "web"]):
        done = run("--socket", tmp_path / "none", *verb, program=TENURECTL)
        assert done.returncode == NO_DAEMON and str(tmp_path / "none") in done.stderr


# ---- checking files ----

BAD = """\
services:
  web:
    comand: [bin/web]
    listen: 99999
    workers: many
  api:
    command: "sleep 10 | cat"
    listen: [8080, {address: "8080"}]
    drain: {timeout: 30}
    upgrade: {strategy: blue}
control:
  sokcet: /run/x
"""


def test_check_says_everything(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    expected = [
        (3, 5, 'did you mean "command"'),
        (4, 13, "99999"),
        (5, 14, "many"),
        (7, 14, "|"),
        (8, 20, "8080"),
        (9, 22, "30"),
        (10, 25, "blue"),
        (12, 3, 'did you mean "socket"'),
    ]
    for command in ([TENURED, "check", path], [TENURECTL, "check", path], [TENURED, "-c", path]):
        done = run(*command[1:], program=command[0])
        assert done.returncode == BAD_CONFIG and not done.stdout
        said = lines_of(done.stderr)
        for line, column, word in expected:
            prefix = f"{path}:{line}:{column}: error: "
            assert [one for one in said if one.startswith(prefix) and word in one], (prefix, word, said)
    # The program of a file may come later, with the release.
    good = tmp_path / "good.yaml"
    good.write_text("services: {web: {command: no-such-program, listen: 8080, user: daemon}}\n")
    done = run("check", good)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{good}: good, 1 service\n", "")


def test_limits_of_this_machine(tmp_path):
    """`check` warns of limits for which the kernel has no controller."""
    path = tmp_path / "tenured.yaml"
    path.write_text(
        "services:\n  web:\n    command: /bin/true\n    listen: 127.0.0.1:1\n    user: nobody\n"
        "    resources:\n      memory_max: 1G\n      tasks_max: 20\n"
    )
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    places = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]
    there = (places[0] / "cgroup.controllers").read_text().split() if places else []
    done = run("check", path)
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if "has no effect on this machine" in line]
    missing = [key for key, name in (("memory_max", "memory"), ("tasks_max", "pids")) if name not in there]
    assert len(said) == len(missing)
    for line, key in zip(said, missing):
        assert line.startswith(f"{path}:7:7: warning: web: {key} has no effect"), line


def test_examples_are_good():
    conf = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2])) / "conf"
    examples = sorted(conf.glob("*.yaml"))
    assert len(examples) >= 6
    for path in examples:
        done = run("check", path)
        assert done.returncode == 0 and done.stdout.startswith(f"{path}: good, "), done.stderr
        for line in done.stderr.splitlines():
            assert ": warning: " in line and (" runs as root" in line or "has no effect on this machine" in line)


@pytest.mark.parametrize("text, said", [
    ("services: [\n", r":2:1: error: "),
    ("services:\n\tweb: {}\n", r":2:\d+: error: .*tab"),
    ("\x00\x01\x02", r":1:\d+: error: "),
    ("services: &a {x: *a}\n", r":1:\d+: error: "),
    ("", r": error: "),
    ("just words\n", r":1:1: error: "),
    ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    ), r":\d+:\d+: error: .* too large with its aliases"),
])
def test_check_of_no_configuration(tmp_path, text, said):
    path = tmp_path / "tenured.yaml"
    path.write_text(text)
    done = run("check", path)
    assert done.returncode == BAD_CONFIG
    assert re.search(re.escape(str(path)) + said, done.stderr), done.stderr


def test_files_that_are_none(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    large = tmp_path / "large"
    with open(large, "wb") as file:
        file.truncate(5 << 20)
    for path, said in [
        (fifo, "not a regular file"),
        (tmp_path, "not a regular file"),
        (large, "larger than a configuration may be"),
        (tmp_path / "none", "No such file or directory"),
    ]:
        done = run("check", path)
        assert done.returncode == BAD_CONFIG
        assert str(path) in done.stderr and said in done.stderr


@pytest.mark.root
def test_files_that_others_write(daemon):
    """Who can write it decides what runs as root."""
    port = free_port()
    one = daemon(start=False)
    one.config = {"services": {"web": worker_service(f"127.0.0.1:{port}")}, "include": ["conf.d/*.yaml"]}
    one.write_config()
    extra = one.directory / "conf.d" / "extra.yaml"
    extra.parent.mkdir()
    extra.write_text("services: {}\n")

    for path in (one.config_path, extra):
        path.chmod(0o646)
        for args in (["check", one.config_path], ["-c", one.config_path]):
            done = run(*args)
            assert done.returncode == BAD_CONFIG
            assert f"{path}: error: everybody can write this file" in done.stderr
        path.chmod(0o644)
    # It is noticed later too.
    one.start()
    one.wait_serving()
    extra.chmod(0o666)
    assert "everybody can write" in one.reload(check=BAD_CONFIG).err
    extra.chmod(0o664)
    os.chown(extra, NOBODY, NOBODY)
    warned = run("check", one.config_path)
    assert warned.returncode == 0
    assert f"{extra}: warning: group {NOBODY} can write this file" in warned.stderr
    assert f"{extra}: warning: user {NOBODY} owns this file" in warned.stderr


def test_include(daemon, load):
    ports = [free_port() for _ in range(3)]
    one = daemon(start=False)
    parts = one.directory / "conf.d"
    parts.mkdir()

    def part(name, port):
        (parts / f"{name}.yaml").write_text(
            f"services: {{{name}: {{command: {WORKER}, listen: 127.0.0.1:{port},\n"
            f"  drain: {{settle: 50ms, idle_wait: 1s}}, upgrade: {{soak: 0s}}}}}}\n"
        )

    one.config = {"include": ["conf.d/*.yaml"], "services": {"web": worker_service(f"127.0.0.1:{ports[0]}")}}
    one.write_config()
    part("api", ports[1])
    one.start()
    for name in ("web", "api"):
        one.wait_serving(name)
    running = load(ports[1], clients=4, think="1ms")
    running.wait_for(ok=20)

    # The error is in the part, and what is in the others is not touched by it.
    (parts / "broken.yaml").write_text("services:\n  more: {command: x, lisen: 1}\n")
    bad = one.reload(check=BAD_CONFIG)
    assert f"{parts}/broken.yaml:2:22: " in bad.err
    (parts / "broken.yaml").write_text("services: {web: {command: x, listen: 1}}\n")
    bad = one.reload(check=BAD_CONFIG)
    assert f"{parts}/broken.yaml:1:12: " in bad.err and str(one.config_path) in bad.err
    (parts / "broken.yaml").unlink()
    assert [service["name"] for service in one.services()] == ["web", "api"]

    part("more", ports[2])
    one.reload()
    one.wait_serving("more")
    assert http_get(ports[2]).status == 200
    (parts / "more.yaml").unlink()
    one.reload()
    wait_until(lambda: len(one.services()) == 2, what="the service to be removed")
    assert_clean(running.stop())


# ---- addresses ----


@pytest.fixture
def holder(tmp_path, no_strays):  # pylint: disable=unused-argument
    """holder(port) is another program that has this port of 127.0.0.1."""
    made = []

    def make(port):
        code = (
            "import socket, time\n"
            f"taken = socket.create_server(('127.0.0.1', {port}))\n"
            "print('ready', flush=True)\n"
            "time.sleep(60)\n"
        )
        program = Program([sys.executable, "-c", code], tmp_path, f"holder{len(made)}")
        made.append(program)
        program.start()
        wait_until(lambda: program.out, what="a port to be taken")
        return program

    yield make
    for program in made:
        program.kill()


def test_address_in_use_at_start(daemon, holder):
    ports = [free_port() for _ in range(2)]
    other = holder(ports[0])
    one = daemon(start=False)
    one.config = {"services": {"web": worker_service(f"127.0.0.1:{ports[0]}")}}
    one.write_config()
    # With nothing to serve there is no point in staying.
    alone = run("-c", one.config_path)
    assert alone.returncode == FAILED
    said = next(line for line in alone.stderr.splitlines() if "Address already in use" in line)
    assert f"127.0.0.1:{ports[0]}" in said and re.search(rf"\b{other.pid}\b", said)
    assert not one.socket_path.exists()

    # One bad service does not keep the others down.
    one.config["services"]["api"] = worker_service(f"127.0.0.1:{ports[1]}")
    one.write_config()
    one.start()
    one.wait_serving("api")
    assert one.service("web")["state"] == "failing"
    shown = one.ctl("status", check=FAILED).out
    assert re.search(rf"last failure .*: web: bind .*:{ports[0]}: Address already in use", shown), shown
    failed = one.ctl("start", "web", check=FAILED)
    assert "Address already in use" in failed.err and str(other.pid) in failed.err
    # What does not run can be stopped, and then it is as it should be.
    one.ctl("stop", "web")
    one.ctl("status")
    other.kill()
    one.ctl("start", "web")
    assert http_get(ports[0]).status == 200


def test_address_in_use_at_reload(web, load, holder):
    one = web(upgrade=quick())
    other_port = free_port()
    other = holder(other_port)
    running = load(one.port, clients=4, think="1ms")
    running.wait_for(ok=20)
    before = one.service()
    with one.no_fd_leak():
        one.config["services"]["api"] = worker_service(f"127.0.0.1:{other_port}")
        set_release(one, 2)
        failed = one.reload(check=None)
        assert failed.code == FAILED
        assert f"127.0.0.1:{other_port}" in failed.err and str(other.pid) in failed.err
        # Neither the new service nor the changed one.
        assert [service["name"] for service in one.services()] == ["web"]
        after = one.service()
        assert (after["generation"], after["generations"][0]["workers"][0]["pid"]) == (
            before["generation"],
            before["generations"][0]["workers"][0]["pid"],
        )
        assert one.ctl("diff", "--exit-code", check=FAILED)
    other.kill()
    one.reload()
    one.wait_serving("api")
    one.wait_serving("web", generation=2)
    assert_clean(running.stop())


def test_two_daemons(web, load):
    """The second one with the same file ends at once, and the first one is as before."""
    one = web()
    running = load(one.port, clients=4, think="1ms")
    running.wait_for(ok=20)
    for _ in range(3):
        second = run("-c", one.config_path)
        assert second.returncode == FAILED
        assert str(one.socket_path) in second.stderr
    assert one.call("List")["services"][0]["state"] == "serving"
    assert_clean(running.stop())


def test_stale_control_socket(web):
    """A path that a killed daemon left behind is taken over; a file that is no socket is not."""
    one = web(start=False)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(one.socket_path))
    one.start()
    one.wait_serving()
    one.stop()
    one.socket_path.write_text("precious")
    refused = run("-c", one.config_path)
    assert refused.returncode == FAILED and str(one.socket_path) in refused.stderr
    assert one.socket_path.read_text() == "precious"


def nobody_wrap(*before):
    return [*before, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@pytest.mark.root
def test_low_port_as_nobody(daemon):
    """An own network namespace has the kernel's default of 1024."""
    one = daemon(start=False, wrap=nobody_wrap("unshare", "--net"))
    os.chown(one.directory, NOBODY, NOBODY)
    one.config = {"services": {"web": worker_service("0.0.0.0:80")}}
    one.write_config()
    Program.start(one)
    assert one.wait() == FAILED
    assert "0.0.0.0:80" in one.log and "Permission denied" in one.log
    assert "CAP_NET_BIND_SERVICE" in one.log or "1024" in one.log
    one.expect_exit = FAILED


@pytest.mark.root
def test_user_needs_root(daemon):
    """An ordinary user cannot run services as somebody else, and is told so before anything runs."""
    one = daemon(start=False, wrap=nobody_wrap())
    os.chown(one.directory, NOBODY, NOBODY)
    one.config = {"services": {"web": worker_service(f"127.0.0.1:{free_port()}", user="daemon")}}
    one.write_config()
    Program.start(one)
    assert one.wait() == FAILED
    assert "daemon" in one.log and "root" in one.log, one.log
    one.expect_exit = FAILED


# ---- what is found out when a service starts ----


@pytest.mark.parametrize("change, said", [
    ({"user": "no-such-user"}, "there is no user no-such-user"),
    ({"group": "no-such-group"}, "there is no group no-such-group"),
    ({"command": "no-such-program"}, r"no-such-program was not found in PATH \S*/usr/bin"),
    ({"command": "bin/none"}, "bin/none.*No such file or directory"),
    ({"command": "./tenured.yaml"}, "tenured.yaml.*Permission denied"),
    ({"directory": "none"}, "/none.*No such file or directory"),
    ({"env_file": "none.env"}, r'none.env \(write it with a leading "-" if it may be missing\)'),
    ({"env_file": "bad.env"}, r'bad.env:2: want NAME=value, found "no variable"'),
    ({"env_file": "open.env"}, "open.env:1: the quote of A is not closed"),
])
def test_start_fails(web, load, change, said):
    """Neither a start nor an upgrade nor a reload gets anywhere, and what runs goes on."""
    one = web(upgrade=quick())
    (one.directory / "bad.env").write_text("A=b\nno variable\n")
    (one.directory / "open.env").write_text("A='b\n")
    running = load(one.port, clients=2, think="2ms")
    running.wait_for(ok=10)
    one.config["services"]["web"].update(change)
    one.write_config()
    for args in (["upgrade", "web"], ["reload"]):
        failed = one.ctl(*args, check=None)
        assert failed.code == FAILED and re.search(said, failed.err), failed
    assert [g["number"] for g in one.service()["generations"]] == [1]
    running.wait_more(20)
    assert_clean(running.stop())
    one.stop()
    again = run("-c", one.config_path)
    assert again.returncode == FAILED and re.search(said, again.stderr), again.stderr


def test_env_file(web):
    """Read for each generation, the later one wins, and what the configuration says wins over both."""
    one = web(
        start=False,
        upgrade=quick(),
        env_file=["one.env", "-two.env"],
        environment={"C": "config"},
    )
    (one.directory / "one.env").write_text("# words\nA=1\nexport B='one  two'\nC=file\n")
    one.start()
    one.wait_serving()

    def value(name):
        reply = http_get(one.port, f"/env?{name}")
        return reply.text.rstrip("\n") if reply.status == 200 else None

    assert [value(name) for name in "ABCD"] == ["1", "one  two", "config", None]
    (one.directory / "two.env").write_text('A="2"\nD=\\"d\\"\n')
    assert value("A") == "1"
    # Not asked for by anybody: it is a fact that reload finds out.
    one.reload()
    one.wait_serving(generation=2)
    assert [value(name) for name in "ABCD"] == ["2", "one  two", "config", '"d"']


def test_autostart(daemon):
    ports = [free_port() for _ in range(2)]
    services = {
        "web": worker_service(f"127.0.0.1:{ports[0]}", autostart=False),
        "api": worker_service(f"127.0.0.1:{ports[1]}"),
    }
    one = daemon({"services": services})
    one.wait_serving("api")
    assert one.service("web")["state"] == "stopped"
    with pytest.raises(ConnectionRefusedError):
        connect(ports[0])
    assert one.status() is not None
    one.ctl("start", "web")
    assert http_get(ports[0]).generation == 1
    # What runs already is no failure.
    one.ctl("start", "web")
    assert http_get(ports[0]).generation == 1
    one.ctl("stop", "web")
    with pytest.raises(ConnectionRefusedError):
        connect(ports[0])
    one.ctl("stop", "web")
    # A reload does not start what was stopped, or never started, by hand.
    one.reload()
    assert one.service("web")["state"] == "stopped"
    one.ctl("start", "web")
    assert http_get(ports[0]).generation == 2


# ---- stopping ----


def test_stop_wins_over_start(web):
    """A service that is stopped before it was ready, in whatever state, is stopped soon."""
    one = web("--never-ready", "--no-notify", start=False, ready={"by": "notify"})
    one.start()
    for _ in range(5):
        wait_until(one.pids, what="a worker")
        started = time.monotonic()
        one.ctl("stop", "web")
        assert time.monotonic() - started < 5
        now = one.service()
        assert (now["state"], now["generations"]) == ("stopped", [])
        one.ctl("start", "web", "--detach")


def test_stop_during_an_upgrade(web, load):
    one = web(upgrade=quick())
    for _ in range(3):
        one.manners.set("--boot-delay 10s")
        first = one.service()["generation"]
        one.ctl("upgrade", "web", "--detach")
        wait_until(lambda first=first: one.pids(generation=first + 1), what="a new worker")
        one.ctl("stop", "web", timeout=20)
        assert one.service()["generations"] == []
        one.manners.set()
        one.ctl("start", "web")
        assert http_get(one.port).status == 200


def test_second_term(web):
    """The first one waits for the workers, the second one does not."""
    one = web("--ignore-term", drain={"timeout": "60s", "idle_wait": "0s"})
    worker = one.pids()[0]
    one.signal(signal.SIGTERM)
    one.wait_log("another signal ends them at once")
    time.sleep(0.5)
    assert one.is_running() and is_alive(worker)
    # It goes on answering, and takes no new tasks.
    assert one.call("List")["services"]
    started = time.monotonic()
    one.signal(signal.SIGTERM)
    assert one.wait(10) == 0
    assert time.monotonic() - started < 3
    assert not is_alive(worker)


def test_term_lets_requests_finish(web, load):
    one = web(workers=2)
    running = load(one.port, clients=8, path="/slow?ms=300")
    running.wait_for(ok=8)
    reading = connect(one.port)
    with reading:
        reading.sendall(b"GET /slow?ms=500 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        time.sleep(0.1)
        running.signal(signal.SIGINT)
        one.signal(signal.SIGINT)
        reply = b""
        while data := reading.recv(4096):
            reply += data
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert one.wait() == 0
    assert_clean(running.stop())


# ---- output ----


def test_output_file_is_reopened(web):
    one = web("--write-lines", "3", start=False, output="./out.log", upgrade=quick())
    path = one.directory / "out.log"
    one.start()
    one.wait_serving()
    wait_until(lambda: path.exists() and len(path.read_text().splitlines()) >= 3, what="three lines")
    old = path.with_suffix(".1")
    path.rename(old)
    n_old = len(old.read_text().splitlines())
    # Until it is told, it writes into the old one.
    one.upgrade()
    wait_until(lambda: len(old.read_text().splitlines()) >= n_old + 3, what="more lines")
    assert not path.exists()
    one.signal(signal.SIGUSR1)
    wait_until(path.exists, what="the new file")
    n_old = len(old.read_text().splitlines())
    one.upgrade()
    wait_until(lambda: len(path.read_text().splitlines()) >= 3, what="lines in the new one")
    assert len(old.read_text().splitlines()) == n_old
    # Nothing of it in the daemon's own log.
    assert not re.search(r"^web\.\d", one.log, re.MULTILINE)


def test_output_tee(web):
    """Every line with its worker before it, also the last one without an end."""
    one = web("--write-lines", "3", "--if-generation", "2", "--write-text", "no-end", workers=2,
              output="tee", upgrade=quick())
    one.upgrade()
    one.wait_generation_gone(1)
    one.ctl("stop", "web")
    for generation in (1, 2):
        for worker in (0, 1):
            prefix = f"web.{generation}.{worker} | "
            lines = [line for line in one.log.splitlines() if line.startswith(prefix)]
            assert len(lines) >= 3, one.log
    assert re.search(r"^web\.2\.0 \| .*no-end", one.log, re.MULTILINE)


def test_output_inherit(web):
    one = web("--write-text", "straight-through", output="inherit")
    wait_until(lambda: "straight-through" in one.log, what="the worker's words")
    assert "web.1.0 |" not in one.log
    # The very descriptor of the daemon.
    for fd in (1, 2):
        assert os.readlink(f"/proc/{one.pids()[0]}/fd/{fd}") == os.readlink(f"/proc/{one.pid}/fd/{fd}")
