# SPDX-License-Identifier: Apache-2.0
"""tenurectl against a daemon with canned answers: what it prints, what it exits with, what it asks."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

import fake_daemon
import harness
from fake_daemon import HANG_UP, FakeDaemon, error, event, generation, listener, progress, reply
from fake_daemon import rollout, service, worker

pytestmark = pytest.mark.sanitize


@pytest.fixture
def fake(tmp_path, monkeypatch):
    # The ages that are shown are counted from here, however long the tests before have taken.
    monkeypatch.setattr(fake_daemon, "NOW", int(time.time() * 1_000_000))
    with FakeDaemon(tmp_path / "s") as daemon:
        yield daemon


def environment(**more):
    env = harness.clean_environment(LC_ALL="C", TERM="xterm")
    for name in ("NO_COLOR", "COLUMNS", "XDG_RUNTIME_DIR"):
        env.pop(name, None)
    env.update(more)
    return env


def ctl(fake, *args, **more):  # pylint: disable=redefined-outer-name
    """Run it to its end: (exit code, stdout, stderr)."""
    path = fake if isinstance(fake, str) else fake.path
    done = subprocess.run([harness.TENURECTL, "--socket", path, *args], env=environment(**more),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                          check=False)
    return done.returncode, done.stdout, done.stderr


class Running:
    """One that has not ended yet, its output in pipes."""

    def __init__(self, fake, *args):  # pylint: disable=redefined-outer-name
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen([harness.TENURECTL, "--socket", fake.path, *args],
                                        env=environment(), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self):
        return self.process.stdout.readline().rstrip("\n")

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


class Terminal:
    """One on a pseudo-terminal of that width; `screen()` is what it printed so far."""

    def __init__(self, fake, *args, columns=100, rows=24, **more):  # pylint: disable=redefined-outer-name
        self.output = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.clear()
            os.environ.update(environment(**more))
            size = columns.to_bytes(2, "little"), rows.to_bytes(2, "little")
            import fcntl  # pylint: disable=import-outside-toplevel
            import termios  # pylint: disable=import-outside-toplevel
            fcntl.ioctl(1, termios.TIOCSWINSZ, size[1] + size[0] + bytes(4))
            os.execv(harness.TENURECTL, [harness.TENURECTL, "--socket", fake.path, *args])

    def read(self):
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self.output += data
        return bool(data)

    def wait_for(self, pattern):
        deadline = time.monotonic() + 20
        while not re.search(pattern, self.output.decode()):
            assert time.monotonic() < deadline and self.read(), (pattern, self.output)

    def end(self):
        while self.read():
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status), self.output.decode()


# ---- the command line ----

@pytest.mark.parametrize("args", [
    [], ["nonsense"], ["upgrade"], ["scale", "web"], ["scale", "web", "many"], ["status", "--full"],
    ["upgrade", "web", "--strategy", "fast"], ["upgrade", "web", "--steps", "50%,5%"],
    ["upgrade", "web", "--steps", ""], ["upgrade", "web", "--soak", "long"],
    ["upgrade", "web", "--pause-at", "101%"], ["upgrade", "web", "--detach", "--timeout", "1s"],
    ["upgrade", "web", "--timeout"], ["rollback", "a", "b", "--to", "3"], ["--nonsense", "status"],
    ["status", "-x"], ["--instance", "a/b", "status"], ["--instance", "a", "status"],
    ["history"], ["diff", "web"], ["help", "nonsense"], ["status", "--json=yes"],
])
def test_wrong_usage_exits_2(fake, args):
    code, out, err = ctl(fake, *args)
    assert code == 2 and out == "" and err.startswith("tenurectl: "), (code, out, err)
    assert fake.calls == []


def test_a_misspelt_verb_is_guessed(fake):
    assert "did you mean 'upgrade'?" in ctl(fake, "upgrad", "web")[2]


def test_options_stand_before_and_after_the_verb(fake):
    fake.answers["List"] = [reply(services=[service()])]
    for args in (["--json", "status"], ["status", "--json"], ["status", "--json", "--", "web"]):
        code, out, _ = ctl(fake, *args)
        assert code == 0 and json.loads(out)["services"][0]["name"] == "web"
    assert fake.called("List") == [{}, {}, {"service": "web"}]


def test_help_names_every_verb_and_needs_no_daemon(tmp_path):
    code, out, err = ctl(str(tmp_path / "none"), "help")
    assert (code, err) == (0, "")
    for verb in ("status upgrade promote pause abort rollback restart start stop scale reload diff check "
                 "listeners events wait history version help").split():
        assert re.search(rf"^  {verb}\b", out, re.M), verb
        assert ctl(str(tmp_path / "none"), verb, "--help")[0] == 0, verb
    assert "--pause-at SHARE" in ctl(str(tmp_path / "none"), "help", "upgrade")[1]


# ---- finding the daemon ----

def find(env, *args):
    done = subprocess.run([harness.TENURECTL, *args, "status"], env=env, capture_output=True, text=True,
                          timeout=60, check=False)
    return done.returncode, done.stderr


def test_socket_resolution(fake, tmp_path):
    fake.answers["List"] = [reply(services=[])]
    runtime = tmp_path / "run"
    (runtime / "tenured" / "blue").mkdir(parents=True)
    env = environment(XDG_RUNTIME_DIR=str(runtime))
    code, err = find(env)
    # What somebody else left there is not this test's to remove.
    left = "nobody listens on" if os.path.exists("/run/tenured/control.sock") else "no socket at"
    assert code == 3 and f"{left} /run/tenured/control.sock" in err
    assert "systemctl start tenured" in err
    code, err = find(env, "--instance", "blue")
    assert code == 3 and "/run/tenured/blue/control.sock" in err and "start tenured@blue" in err
    os.symlink(fake.path, runtime / "tenured" / "control.sock")
    assert find(env) == (0, "")
    os.symlink(fake.path, runtime / "tenured" / "blue" / "control.sock")
    assert find(env, "--instance", "blue") == (0, "")
    # The environment's socket is for who names no instance.
    env = environment(XDG_RUNTIME_DIR=str(runtime), TENURE_SOCKET=str(tmp_path / "gone"))
    assert find(env)[0] == 3
    assert find(env, "--instance", "blue") == (0, "")
    assert find(env, "--socket", "unix:" + fake.path) == (0, "")


def test_nobody_listens_exits_3(tmp_path):
    path = str(tmp_path / "dead")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(path)
    code, out, err = ctl(path, "status", "--json")
    assert code == 3 and "nobody listens on" in err and json.loads(out)["exit"] == 3


def test_a_closed_socket_exits_4(fake):
    os.chmod(fake.path, 0)
    # Without what lets root open any socket.
    less = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if harness.IS_ROOT else []
    done = subprocess.run([*less, harness.TENURECTL, "--socket", fake.path, "status"], env=environment(),
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4 and "not permitted to open" in done.stderr


def again(call):
    return "again" in call


GONE = "tenured is gone; waiting for the next one"


def test_the_daemon_hangs_up(fake):
    """Each time: after ten seconds it is given up. What is a change is asked for again as such."""
    fake.answers["List"] = [HANG_UP]
    fake.answers["Promote"] = [HANG_UP]
    fake.answers["Upgrade"] = lambda call: [HANG_UP] if again(call) else [progress("starting"), HANG_UP]
    said = {}

    def run(*words):
        said[words[0]] = ctl(fake, *words)

    commands = (["status"], ["promote", "web"], ["upgrade", "web"])
    threads = [threading.Thread(target=run, args=words) for words in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for code, out, err in said.values():
        assert code == 3 and GONE in out and "none came in its place within 10 s" in err, said
    assert said["upgrade"][1] == f"web: starting\nweb: {GONE}\n"
    for method in ("Promote", "Upgrade"):
        asked = fake.called(method)
        named = [name for about, name in fake.requests if about == method]
        assert 10 < len(asked) == len(named) <= 202 and len(set(named)) == 1, method
        assert [again(call) for call in asked] == [False] + [True] * (len(asked) - 1)
    assert len(fake.called("List")) > 10 and not any(fake.called("List"))
    assert {method for method, _ in fake.requests} == {"Promote", "Upgrade"}
    assert len({name for _, name in fake.requests}) == 2 and all(len(name) == 32 for _, name in fake.requests)


def test_the_daemon_comes_back(fake):
    """And knows what it was asked for."""
    done = progress("done", done=True)
    fake.answers["Upgrade"] = lambda call: (
        [progress("going on"), done] if again(call) else [progress("starting"), HANG_UP]
    )
    code, out, _ = ctl(fake, "upgrade", "web")
    said = [f"web: {text}" for text in ("starting", GONE, "going on", "done")]
    assert code == 0 and out.splitlines() == said
    fake.answers["Promote"] = lambda call: [reply()] if again(call) else [HANG_UP]
    code, out, _ = ctl(fake, "promote", "web")
    assert code == 0 and out.splitlines() == [GONE, "web: goes on with the next step"]
    failed = error("Failed", message="web: the daemon was started anew")
    fake.answers["Upgrade"] = lambda call: [failed] if again(call) else [HANG_UP]
    code, _, err = ctl(fake, "upgrade", "web")
    assert code == 1 and "started anew" in err
    # Waiting counts for the time limit.
    fake.answers["Upgrade"] = [HANG_UP]
    assert ctl(fake, "upgrade", "web", "--timeout", "300ms")[0] == 8
    # What ends the daemon each time is not asked for again and again.
    fake.answers["Reexec"] = [HANG_UP]
    assert ctl(fake, "reexec")[0] == 3
    assert len(fake.called("Reexec")) == 2


@pytest.mark.parametrize("garbage", [b"nonsense\0", b"[]\0", b'{"parameters":3}\0', b"[" * 5000 + b"\0"])
def test_no_reply_at_all(fake, garbage):
    fake.answers["List"] = [garbage]
    code, out, err = ctl(fake, "status")
    assert code == 1 and out == "" and "no usable answer" in err


# ---- status ----

def test_status_at_a_glance(fake):
    fake.answers["List"] = [reply(services=[
        service(workersWanted=2, generations=[
            generation(workers=[worker(0), worker(1, state="starting")])]),
        service("api", "stopped", generation=None, generations=[], listeners=[], workersWanted=0)])]
    code, out, err = ctl(fake, "status")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["SERVICE", "STATE", "GENERATION", "WORKERS", "TRAFFIC", "SINCE", "LISTENERS"]
    assert lines[1].split() == ["web", "serving", "8", "1/2", "8:100%", "2h5m", "tcp:[::]:8080"]
    assert lines[2].split() == ["api", "stopped", "0/0"]
    # Aligned
    assert lines[1].index("serving") == lines[2].index("stopped") == lines[0].index("STATE")
    assert lines[3:] == ["web: 3 connections wait to be accepted at tcp:[::]:8080 (backlog 4096)"]


def test_status_says_what_needs_attention(fake):
    failure = {"generation": 8, "worker": 1, "reason": "exited before it was ready",
               "status": "exit status 3", "output": "no such table\n", "atUsec": fake_daemon.NOW}
    fake.answers["List"] = [reply(services=[service(
        state="upgrading", generation=7, rollout=rollout("paused"), queued=True, scaled=True,
        pending=["executable", "directory"], lastFailure=failure,
        generations=[generation(6, "draining", 0.0, 12), generation(7, "serving", 75.0),
                     generation(8, "ready", 25.0)])])]
    code, out, _ = ctl(fake, "status")
    assert code == 0
    assert "7 -> 8" in out and "7:75% 8:25%" in out
    assert ("web: rollout 7 -> 8 (canary): paused, step 2 of 3, 25% of new connections, 2 of 2 ready, "
            "for 1") in out
    assert "`tenurectl promote web`" in out and "web: another upgrade waits behind it" in out
    assert "web: generation 6 drains for 2h5m, 12 connections left" in out
    assert "executable, directory; `tenurectl upgrade web`" in out and "scaled to 1 by hand" in out
    assert "generation 8, worker 1: exited before it was ready (exit status 3)" in out
    assert "no such table" not in out
    code, out, _ = ctl(fake, "status", "web")
    assert "      no such table\n" in out
    for words in (["6", "draining", "0%", "12"], ["7.0", "1000", "ready"], ["http", "tcp:[::]:8080"]):
        assert re.search(r"^ +" + r" +".join(map(re.escape, words)), out, re.M), (words, out)


def test_status_wanted_and_measured(fake):
    fake.answers["List"] = [reply(services=[service(
        state="upgrading", generation=7, rollout=rollout(measured=24.631, measuredOf=812),
        generations=[generation(7, "serving", 75.0, 300, measured=75.369, measuredOf=812),
                     generation(8, "ready", 25.0, 98, measured=24.631, measuredOf=812,
                                workers=[worker(0, connections=98), worker(1, connections=0)])])])]
    out = ctl(fake, "status")[1]
    assert "step 2 of 3, 25% (24.6% of 812 seen) of new connections, 2 of 2 ready" in out
    out = ctl(fake, "status", "web")[1]
    for words in (["7", "serving", "75%", "75.4% of 812", "300"], ["8", "ready", "25%", "24.6% of 812", "98"],
                  ["8.0", "1000", "ready", "98"], ["8.1", "1000", "ready", "0"]):
        assert re.search(r"^ +" + r" +".join(map(re.escape, words)), out, re.M), (words, out)


def test_status_unhealthy_exits_1(fake):
    fake.answers["List"] = [reply(services=[service(), service("api", "failing", healthy=False)])]
    code, out, err = ctl(fake, "status")
    assert code == 1 and "failing" in out and err == ""
    assert ctl(fake, "status", "-q") == (1, "", "")


def test_no_services(fake):
    fake.answers["List"] = [reply(services=[])]
    assert ctl(fake, "status")[:2] == (0, "no services: the configuration has none\n")


def test_an_unknown_service(fake):
    fake.answers["List"] = [error("NoSuchService", service="wbe", known=["api", "web"])]
    code, _, err = ctl(fake, "status", "wbe")
    assert code == 1 and err == "tenurectl: there is no service 'wbe'; did you mean 'web'?\n"


def test_nothing_of_the_daemon_reaches_the_terminal_raw(fake):
    evil = "\x1b]0;owned\x07\x9b31m\u202e\x7f\r\nend"
    fake.answers["List"] = [reply(services=[service(
        name="w\x1b[31m", generations=[generation(workers=[worker(status=evil)])],
        listeners=[listener(address=evil)], pending=[evil],
        lastFailure={"generation": 8, "worker": 0, "reason": evil, "status": evil, "output": evil,
                     "atUsec": fake_daemon.NOW})])]
    fake.answers["Upgrade"] = [error("RolledBack", service=evil, generation=8, reason=evil, worker=0,
                                     status=evil, output=evil)]
    fake.answers["Events"] = [reply(events=[event(message=evil, what=evil)])]
    for locale in ("C", "C.UTF-8"):
        for args in (["status"], ["status", "web"], ["upgrade", "web"], ["events"]):
            _, out, err = ctl(fake, *args, LC_ALL=locale)
            assert "end" in out + err
            for character in "\x1b\x07\x9b\u202e\x7f\r":
                assert character not in out + err, (args, character)


def test_utf8_only_where_the_locale_has_it(fake):
    fake.answers["List"] = [reply(services=[service("w\u00fcb", listeners=[])])]
    assert "w\u00fcb " in ctl(fake, "status", LC_ALL="C.UTF-8")[1]
    assert "w?b " in ctl(fake, "status", LC_ALL="C")[1]


# ---- the other reads ----

def test_listeners(fake):
    fake.answers["Listeners"] = [reply(listeners=[
        listener(), listener("admin", "unix:/run/a.sock", kind="held", reason="Unix sockets have one queue",
                             sockets="shared", origin="inherited", queue=[])])]
    code, out, _ = ctl(fake, "listeners", "web")
    assert code == 0 and fake.called("Listeners") == [{"service": "web"}]
    lines = [line.split(maxsplit=8) for line in out.splitlines()]
    assert lines[1] == ["web", "http", "tcp:[::]:8080", "per-worker", "own", "3", "4096", "0", "new sockets"]
    assert lines[2] == ["web", "admin", "unix:/run/a.sock", "shared", "inherited", "0", "4096", "0",
                        "shared queue: Unix sockets have one queue"]


def test_history(fake):
    fake.answers["History"] = [reply(entries=[
        {"generation": 7, "startedUsec": fake_daemon.NOW, "servingUsec": None, "endedUsec": None,
         "outcome": "rolled back", "reason": "never ready", "requestedBy": "deploy", "directory": "/srv",
         "executable": "/srv/web"}])]
    code, out, _ = ctl(fake, "history", "web", TZ="UTC")
    assert code == 0 and fake.called("History") == [{"service": "web"}]
    assert "SERVING" not in out, "a column that is empty in every row"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(fake_daemon.NOW // 1_000_000))
    assert re.search(rf"^ +7 +{stamp} +rolled back +deploy +/srv +/srv/web +never ready", out, re.M)


def test_diff(fake):
    none = {"service": "web", "action": "none", "reasons": []}
    fake.answers["Diff"] = [reply(changes=[none])]
    assert ctl(fake, "diff", "--exit-code")[:2] == (
        0, "nothing to do: what runs is what the configuration says\n")
    change = {"service": "api", "action": "upgrade", "reasons": ["command", "executable"]}
    fake.answers["Diff"] = [reply(changes=[none, change])]
    text = "api: would be upgraded (command, executable)\n`tenurectl reload` does it\n"
    assert ctl(fake, "diff")[:2] == (0, text)
    assert ctl(fake, "diff", "--exit-code")[:2] == (1, text)


def test_version(fake, tmp_path):
    fake.answers["org.varlink.service.GetInfo"] = [reply(
        vendor="v", product="tenured", version="9.8.7", url="u", interfaces=[])]
    code, out, _ = ctl(fake, "version")
    assert code == 0 and "tenurectl " in out and "tenured 9.8.7 (running)\n" in out
    code, out, err = ctl(str(tmp_path / "none"), "--version", "--json")
    assert (code, err) == (0, "") and json.loads(out)["tenured"] is None


def test_check_asks_the_tenured_beside(tmp_path):
    """Its own copy, so that no other tenured is beside it."""
    own = tmp_path / "bin" / "tenurectl"
    own.parent.mkdir()
    own.write_bytes(open(harness.TENURECTL, "rb").read())
    own.chmod(0o755)
    for place in ("path", "sbin", "bin"):
        (tmp_path / place).mkdir(exist_ok=True)
        other = tmp_path / place / "tenured"
        other.write_text(f'#!/bin/sh\necho {place} "$@"; exit 7\n')
        other.chmod(0o755)
        done = subprocess.run([str(own), "check", "--as", "/etc/x.yaml", "--strict", "f.yaml"],
                              env=environment(PATH=f"{tmp_path}/path:/usr/bin:/bin"), text=True,
                              stdout=subprocess.PIPE, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (
            7, f"{place} check --as /etc/x.yaml --strict f.yaml\n")


# ---- events ----

def test_events(fake):
    fake.answers["Events"] = [reply(events=[
        event(1, message="web: worker 8.0 is ready"), event(4, "reloaded", "the configuration", service=None, generation=None, worker=None)])]
    code, out, _ = ctl(fake, "events")
    assert code == 0 and fake.calls == [("Events", {"since": 0}, False)]
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
    assert re.fullmatch(rf"{stamp}  web\.8\.0 +worker-ready +worker 8\.0 is ready\n"
                        r"\(2 events were dropped\)\n"
                        rf"{stamp}  - +reloaded +the configuration\n", out), out


def test_events_since(fake):
    fake.answers["Events"] = [reply(events=[event(4, message="old", atUsec=fake_daemon.NOW - 10**9),
                                            event(5, message="new")])]
    out = ctl(fake, "events", "--since", "3", "web")[1]
    assert "old" in out and "new" in out
    out = ctl(fake, "events", "--since", "10m")[1]
    assert "old" not in out and "new" in out
    assert fake.called("Events") == [{"service": "web", "since": 3}, {"since": 0}]


def test_events_follow_until_interrupted(fake):
    fake.answers["Events"] = [{**reply(events=[event(n, message=f"the {n}.")]), "continues": True}
                              for n in (1, 2)] + [threading.Event()]
    running = Running(fake, "events", "-f", "--json")
    assert json.loads(running.line())["message"] == "the 1."
    assert json.loads(running.line())["sequence"] == 2
    running.signal(signal.SIGINT)
    assert running.end() == (130, "", "")
    assert fake.calls == [("Events", {}, True)]


# ---- upgrade ----

STEPS = [progress("starting 2 workers", rollout=rollout("starting", 0.0, 1)),
         progress("5% of new connections", rollout=rollout("soaking", 5.0, 1)),
         progress("generation 8 serves", True, rollout("settling", 100.0, 3))]
# The daemon's own messages name the service.
NAMED = progress("web: generation 8 serves", True, rollout("settling", 100.0, 3))
ROLLED_BACK = error("RolledBack", service="web", generation=8, reason="exited before it was ready",
                    worker=1, status="exit status 3", output="line one\nImportError: no flask\n")


def test_upgrade_in_a_pipe(fake):
    fake.answers["Upgrade"] = STEPS
    assert ctl(fake, "upgrade", "web") == (
        0, "web: starting 2 workers\nweb: 5% of new connections\nweb: generation 8 serves\n", "")
    assert fake.calls == [("Upgrade", {"service": "web"}, True)]
    fake.answers["Upgrade"] = [NAMED]
    assert ctl(fake, "upgrade", "web") == (0, "web: generation 8 serves\n", "")
    assert ctl(fake, "upgrade", "web", "-q") == (0, "", "")


def test_upgrade_options_are_sent(fake):
    fake.answers["Upgrade"] = STEPS
    code, _, _ = ctl(fake, "upgrade", "web", "--strategy", "canary", "--steps", "0.5%,25,100%", "--soak",
                     "1m30s", "--pause-at", "25%", "--wait-drain", "--overlap=queue")
    assert code == 0 and fake.called("Upgrade") == [{
        "service": "web", "strategy": "canary", "steps": [0.5, 25, 100], "soakUsec": 90_000_000,
        "pauseAt": 25, "waitDrain": True, "overlap": "queue"}]


def test_upgrade_as_json(fake):
    fake.answers["Upgrade"] = STEPS[:2] + [ROLLED_BACK]
    code, out, err = ctl(fake, "upgrade", "web", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 6 and err.startswith("tenurectl: web: rolled back") and len(lines) == 3
    assert lines[1]["service"] == "web" and lines[1]["rollout"]["traffic"] == 5.0
    assert lines[2]["error"] == "io.tenured.Supervisor.RolledBack" and lines[2]["exit"] == 6
    assert lines[2]["parameters"]["worker"] == 1


def test_a_pause_says_how_to_go_on(fake):
    fake.answers["Upgrade"] = [progress("paused at 25%", rollout=rollout("paused"))] * 2 + [STEPS[2]]
    out = ctl(fake, "upgrade", "web")[1]
    assert out.count("`tenurectl promote web` goes on") == 1


def test_upgrade_rolled_back_exits_6(fake):
    fake.answers["Upgrade"] = STEPS[:1] + [ROLLED_BACK]
    code, out, err = ctl(fake, "upgrade", "web")
    assert (code, out) == (6, "web: starting 2 workers\n")
    assert err == ("tenurectl: web: rolled back, generation 8 is not in service: "
                   "exited before it was ready\n"
                   "  worker 8.1: exit status 3\n"
                   "  its last output:\n"
                   "    line one\n"
                   "    ImportError: no flask\n")


@pytest.mark.parametrize("answer, code, words", [
    (error("RolloutInProgress", service="web", generation=8, message="m"), 5,
     ["generation 8 is in progress", "`tenurectl abort web`", "--overlap=queue"]),
    (error("TooManyGenerations", service="web", limit=4, draining=5, message="m"), 5,
     ["generation 5 still drains", "drain.max_generations"]),
    (error("InvalidConfiguration", problems=[
        {"file": "/etc/t.yaml", "line": 3, "column": 7, "message": "unknown key 'comand'", "warning": False},
        {"file": "/etc/t.yaml", "line": 9, "column": 1, "message": "runs as root", "warning": True}]), 7,
     ["/etc/t.yaml:3:7: unknown key 'comand'\n", "/etc/t.yaml:9:1: warning: runs as root\n",
      "nothing was changed"]),
    (error("NotPermitted", method="Upgrade", message="only operators may upgrade"), 4,
     ["only operators may upgrade", "control.operators"]),
    (error("Superseded", service="web", generation=8, reason="stopped"), 1, ["given up: stopped"]),
    (error("NotRunning", service="web", message="it was stopped"), 1, ["`tenurectl start web`"]),
    (error("NoSuchGeneration", service="web", generation=3), 1, ["no generation 3", "history web"]),
    (error("Failed", message="web: no memory"), 1, ["tenurectl: web: no memory\n"]),
    (error("ExpectedMore"), 1, ["ExpectedMore"]),
    (error("org.varlink.service.MethodNotFound", method="x.Y"), 1, ["does not know x.Y"]),
    (error("org.varlink.service.InvalidParameter", parameter="steps"), 1, ["'steps'"]),
    (error("com.example.Strange", a=1), 1, ["com.example.Strange", '{"a":1}']),
])
def test_every_error_says_what_to_do(fake, answer, code, words):
    fake.answers["Upgrade"] = [answer]
    got, _, err = ctl(fake, "upgrade", "web")
    assert got == code
    for word in words:
        assert word in err


def test_several_services_at_once(fake):
    """They go on together: each waits for the other to have begun."""
    begun = {"a": threading.Event(), "b": threading.Event()}

    def answer(parameters):
        name = parameters["service"]
        begun[name].set()
        yield begun["b" if name == "a" else "a"]
        yield ROLLED_BACK if name == "b" else progress("serves", True)

    fake.answers["Upgrade"] = answer
    code, out, err = ctl(fake, "upgrade", "a", "b")
    assert code == 6 and out == "a: serves\n" and "rolled back" in err


def test_detach(fake):
    fake.answers["Upgrade"] = [{"parameters": progress("accepted as generation 8")["parameters"]}]
    assert ctl(fake, "upgrade", "a", "b", "--detach") == (
        0, "a: accepted as generation 8\nb: accepted as generation 8\n", "")
    assert fake.calls == [("Upgrade", {"service": "a"}, False), ("Upgrade", {"service": "b"}, False)]


def test_timeout_exits_8(fake):
    fake.answers["Upgrade"] = [STEPS[0], threading.Event()]
    started = time.monotonic()
    code, out, err = ctl(fake, "upgrade", "web", "--timeout", "300ms")
    assert 0.3 <= time.monotonic() - started < 10
    assert (code, out) == (8, "web: starting 2 workers\n")
    assert "after 300ms, but the upgrade of web goes on" in err and "`tenurectl abort web`" in err
    assert fake.called("Abort") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_detaches(fake, number):
    fake.answers["Upgrade"] = [STEPS[0], threading.Event()]
    running = Running(fake, "upgrade", "web")
    assert running.line() == "web: starting 2 workers"
    running.signal(number)
    code, out, err = running.end()
    assert (code, out) == (130, "")
    assert "interrupted, but the upgrade of web goes on" in err and "`tenurectl abort web`" in err
    assert fake.called("Abort") == []


def test_interrupt_aborts_when_asked(fake):
    aborted = threading.Event()

    def abort(_):
        aborted.set()
        yield reply()

    fake.answers["Upgrade"] = [STEPS[0], aborted, ROLLED_BACK]
    fake.answers["Abort"] = abort
    running = Running(fake, "upgrade", "web", "--abort-on-interrupt")
    running.line()
    running.signal(signal.SIGINT)
    code, out, err = running.end()
    assert code == 130 and "aborting" in out and "rolled back" in err
    assert fake.called("Abort") == [{"service": "web"}]


def test_a_second_interrupt_leaves(fake):
    fake.answers["Upgrade"] = [STEPS[0], threading.Event()]
    fake.answers["Abort"] = [reply()]
    running = Running(fake, "upgrade", "web", "--abort-on-interrupt")
    running.line()
    running.signal(signal.SIGINT)
    assert "aborting" in running.line()
    running.signal(signal.SIGINT)
    code, _, err = running.end()
    assert code == 130 and "goes on" in err and len(fake.called("Abort")) == 1


# ---- the live display ----

def final_screen(text):
    """What is left on a terminal that was written to like this: lines, cursor up, clear."""
    lines, row = [""], 0
    text = re.sub(r"\x1b\[\d*m", "", text)
    for part in re.findall(r"\x1b\[\d*[A-Z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1])
            assert row >= 0
        elif part == "\x1b[J":
            del lines[row + 1:]
        elif part == "\r":
            column = 0
        elif not part.startswith("\x1b"):
            lines[row] = part
    return lines


def test_live_display(fake):
    go = threading.Event()
    fake.answers["Upgrade"] = lambda p: [STEPS[0], STEPS[1], go,
                                         NAMED if p["service"] == "web" else STEPS[2]]
    terminal = Terminal(fake, "upgrade", "web", "api", columns=130)
    terminal.wait_for(r"soaking.* (0\.[5-9]|[1-9]\.\d)s")  # drawn again with time
    go.set()
    code, out = terminal.end()
    assert code == 0 and "\x1b[2A" in out and "\x1b[32m" in out
    lines = final_screen(out)
    assert re.fullmatch(r"web  done          7 -> 8  \[#{20}\] 100%  ready 2/2  step 3/3  \d\.\ds  "
                        r"generation 8 serves", lines[0]), lines
    assert lines[1].startswith("api  done ") and lines[2:] == [""]
    first = [line for line in re.split(r"[\r\n]", re.sub(r"\x1b\[\d*[A-Za-z]", "", out)) if "soaking" in line]
    assert "[#-------------------]   5%" in first[0]


def test_live_display_of_the_measured_share(fake):
    """It comes without words: those of before stay, and a pipe has no line of it."""
    go = threading.Event()
    seen = progress("", rollout=rollout("soaking", 25.0, 2, measured=24.631, measuredOf=812))
    fake.answers["Upgrade"] = [progress("25% to generation 8", rollout=rollout("soaking", 25.0, 2)), seen, go,
                               STEPS[2]]
    terminal = Terminal(fake, "upgrade", "web", columns=130)
    terminal.wait_for(r" 25% \(24\.6% of 812 seen\)  ready 2/2 .*25% to generation 8")
    go.set()
    assert terminal.end()[0] == 0
    assert ctl(fake, "upgrade", "web") == (0, "web: 25% to generation 8\nweb: generation 8 serves\n", "")


def test_live_display_is_not_wider_than_the_terminal(fake):
    fake.answers["Upgrade"] = [progress("a long message " * 20, rollout=rollout()),
                               progress("another long message " * 20, True, rollout())]
    for columns, extra in ((40, {}), (80, {"LC_ALL": "C.UTF-8"})):
        code, out = Terminal(fake, "upgrade", "web", columns=columns, **extra).end()
        assert code == 0
        assert all(len(line) < columns for line in final_screen(out)), final_screen(out)


def test_live_display_then_the_reason(fake):
    fake.answers["Upgrade"] = lambda p: [STEPS[0], ROLLED_BACK if p["service"] == "web" else STEPS[2]]
    code, out = Terminal(fake, "upgrade", "web", "api").end()
    lines = final_screen(out)
    assert code == 6 and lines[0].startswith("web  failed") and lines[1].startswith("api  done")
    assert lines[2].startswith("tenurectl: web: rolled back") and "    ImportError: no flask" in lines


def test_live_display_interrupted(fake):
    fake.answers["Upgrade"] = [STEPS[0], threading.Event()]
    terminal = Terminal(fake, "upgrade", "web")
    terminal.wait_for("starting")
    os.write(terminal.fd, b"\x03")
    code, out = terminal.end()
    assert code == 130 and "the upgrade of web goes on" in out
    assert final_screen(out)[0].startswith("web  goes on")


def test_live_display_says_how_to_go_on(fake):
    fake.answers["Upgrade"] = [progress("paused at 25%", rollout=rollout("paused")), STEPS[2]]
    assert "`tenurectl promote web` goes on" in Terminal(fake, "upgrade", "web", columns=140).end()[1]


@pytest.mark.parametrize("args, more", [(["--no-color"], {}), ([], {"NO_COLOR": "1"})])
def test_no_colours(fake, args, more):
    fake.answers["List"] = [reply(services=[service()])]
    fake.answers["Upgrade"] = STEPS
    for verb in (["status"], ["upgrade", "web"]):
        code, out = Terminal(fake, *args, *verb, **more).end()
        assert code == 0 and not re.search(r"\x1b\[\d*m", out)
    assert "\x1b[32mserving" in Terminal(fake, "status").end()[1]


def test_plain_lines_where_nothing_can_be_redrawn(fake):
    fake.answers["Upgrade"] = STEPS
    for terminal in (Terminal(fake, "upgrade", "web", TERM="dumb"),
                     Terminal(fake, "upgrade", "web", rows=1)):
        code, out = terminal.end()
        assert code == 0 and out.splitlines()[-1] == "web: generation 8 serves" and "\x1b[1A" not in out


def test_a_table_fits_the_terminal(fake):
    fake.answers["List"] = [reply(services=[service(
        listeners=[listener(address=f"tcp:[::]:{port}", queue=[]) for port in range(8080, 8090)])])]
    _, out = Terminal(fake, "status", columns=70, NO_COLOR="1").end()
    lines = out.splitlines()
    assert len(lines) == 2 and len(lines[1]) == 70 and lines[1].endswith("...")


# ---- the other changes ----

@pytest.mark.parametrize("args, call, out", [
    (["promote", "web"], ("Promote", {"service": "web"}, False), "web: goes on with the next step\n"),
    (["promote", "web", "--full"], ("Promote", {"service": "web", "full": True}, False),
     "web: goes on to all new connections\n"),
    (["pause", "web"], ("Pause", {"service": "web"}, False),
     "web: paused; `tenurectl promote` goes on, `tenurectl abort` goes back\n"),
    (["abort", "web"], ("Abort", {"service": "web"}, False),
     "web: aborted; the old generation has all new connections\n"),
    (["rollback", "web"], ("Rollback", {"service": "web"}, True), "web: it is so\n"),
    (["rollback", "web", "--to", "5"], ("Rollback", {"service": "web", "to": 5}, True), "web: it is so\n"),
    (["restart", "web"], ("Restart", {"service": "web"}, True), "web: it is so\n"),
    (["restart", "--hard", "web"], ("Restart", {"service": "web", "hard": True}, True), "web: it is so\n"),
    (["start", "web"], ("Start", {"service": "web"}, True), "web: it is so\n"),
    (["stop", "web"], ("Stop", {"service": "web"}, True), "web: it is so\n"),
    (["scale", "web", "8"], ("Scale", {"service": "web", "workers": 8}, True), "web: it is so\n"),
])
def test_changes(fake, args, call, out):
    for method in ("Promote", "Pause", "Abort"):
        fake.answers[method] = [reply()]
    for method in ("Rollback", "Restart", "Start", "Stop", "Scale"):
        fake.answers[method] = [progress("it is so", True)]
    assert ctl(fake, *args) == (0, out, "")
    assert fake.calls == [call]
    code, text, _ = ctl(fake, *args, "--json")
    assert code == 0 and json.loads(text)["service"] == "web"


def test_no_rollout_to_promote(fake):
    fake.answers["Promote"] = lambda p: [reply() if p["service"] == "b" else error(
        "NoRollout", service=p["service"])]
    code, out, err = ctl(fake, "promote", "a", "b")
    assert code == 1 and err == (
        "tenurectl: a: no rollout is in progress; `tenurectl rollback a` goes back from one that is done or "
        "only settles\n"
    )
    assert out == "b: goes on with the next step\n", "the others are done all the same"


CHANGES = [{"service": "web", "action": "none", "reasons": []},
           {"service": "api", "action": "upgrade", "reasons": ["executable"]}]


def test_reload(fake):
    fake.answers["Reload"] = [
        {"parameters": {"changes": [], "progress": progress("api: generation 9")["parameters"]["progress"]},
         "continues": True},
        reply(changes=CHANGES, progress=None)]
    assert ctl(fake, "reload") == (
        0, "api: generation 9\nweb: unchanged, not upgraded\napi: upgraded (executable)\n", "")
    ctl(fake, "reload", "--upgrade")
    assert fake.calls == [("Reload", {}, True), ("Reload", {"upgrade": True}, True)]
    code, out = Terminal(fake, "reload").end()
    assert code == 0 and out.splitlines()[0] == "api: generation 9"


def test_reload_of_a_bad_configuration(fake):
    fake.answers["Reload"] = [error("InvalidConfiguration", problems=[
        {"file": "t.yaml", "line": 1, "column": 2, "message": "no", "warning": False}])]
    code, out, err = ctl(fake, "reload")
    assert code == 7 and out == "" and err.startswith("t.yaml:1:2: no\n")


# ---- wait ----

def test_wait_until_it_is_at_rest(fake):
    told = threading.Event()
    looks = []

    def list_it(_):
        looks.append(1)
        if len(looks) == 2:
            yield reply(services=[service(state="starting", healthy=False)])
        elif told.is_set():
            yield reply(services=[service()])
        else:
            yield reply(services=[service(state="upgrading", rollout=rollout())])

    def events(_):
        yield 0.2
        told.set()
        yield {**reply(events=[event()]), "continues": True}
        yield threading.Event()

    fake.answers.update(List=list_it, Events=events)
    assert ctl(fake, "wait", "web") == (0, "", "")
    # Two connections: which of them the fake hears first is chance.
    assert told.is_set() and ("Events", {}, True) in fake.calls[:2]


def test_wait_for_a_stopped_one_is_vain(fake):
    fake.answers.update(List=[reply(services=[service(state="stopped")])], Events=[threading.Event()])
    code, _, err = ctl(fake, "wait", "web")
    assert code == 1 and "`tenurectl start web`" in err


def test_wait_times_out(fake):
    fake.answers.update(List=[reply(services=[service(queued=True)])], Events=[threading.Event()])
    code, _, err = ctl(fake, "wait", "web", "--timeout", "0.2s")
    assert code == 8 and "web is not at rest yet" in err


def test_wait_interrupted(fake):
    fake.answers.update(List=[reply(services=[service(healthy=False)])], Events=[threading.Event()])
    running = Running(fake, "wait", "web")
    harness.wait_until(lambda: fake.called("List"))
    running.signal(signal.SIGINT)
    assert running.end()[0] == 130


# ---- output ----

def test_a_full_disk_is_a_failure(fake):
    fake.answers["List"] = [reply(services=[service()])]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([harness.TENURECTL, "--socket", fake.path, "status"], env=environment(),
                              stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1 and b"cannot write" in done.stderr


# ---- completion in bash ----

COMPLETION = Path(__file__).resolve().parents[2] / "conf" / "tenurectl.bash-completion"


@pytest.mark.parametrize("words, expected", [
    (["up"], {"upgrade"}),
    (["--js"], {"--json"}),
    (["upgrade", ""], {"web", "api"}),
    (["upgrade", "web", "a"], {"api"}),
    (["upgrade", "--timeout", "3s", "w"], {"web"}),
    (["upgrade", "--strategy", "r"], {"rolling", "recreate"}),
    (["upgrade", "--overlap", "=", "q"], {"queue"}),
    (["upgrade", "web", "--pau"], {"--pause-at"}),
    (["history", "web", ""], set()),
    (["help", "roll"], {"rollback"}),
    (["reload", ""], set()),
])
def test_completion(fake, words, expected):
    fake.answers["List"] = [reply(services=[service(), service("api")])]
    script = f"""
        source {COMPLETION}
        COMP_WORDS=({harness.TENURECTL} --socket {fake.path} {' '.join(repr(word) for word in words)})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _tenurectl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-u", "-c", script], env=environment(), capture_output=True, text=True,
                          timeout=60, check=True)
    assert done.stderr == "" and set(done.stdout.split()) == expected


def test_completion_knows_every_verb_and_option(fake):
    text = COMPLETION.read_text(encoding="utf-8")
    shown = ctl(fake, "help")[1]
    verbs = re.findall(r"^  ([a-z]+)\b", shown, re.M)
    assert len(verbs) == 24
    for verb in verbs:
        assert f"[{verb}]=" in text, verb
        for option in re.findall(r"^  .{4}(--[a-z-]+)", ctl(fake, "help", verb)[1], re.M):
            assert re.search(rf"{option}\b", text), (verb, option)
