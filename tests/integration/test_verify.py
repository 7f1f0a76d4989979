# SPDX-License-Identifier: Apache-2.0
"""upgrade.verify: a page or a command that must find the new generation right at each step, and what
becomes of the upgrade when it does not. Always under load, and no request fails."""

import json
import os
import pwd
import sys
import time

import pytest

from canaries import IN_NO_HURRY, canary, rollout, wait_phase, wait_share
from daemon import IN_PROGRESS, ROLLED_BACK
from harness import SANITIZERS, TENURECTL, Program, assert_clean, http_get, wait_until
from processes import Process, descendants, fd_list
from upgrades import CLIENTS, per_worker, quick, web_config

PREVIEW = "127.0.0.2"


def script(one, name, text):
    """A program of the test's own beside the daemon's files."""
    path = one.directory / name
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


def under_load(one, load, **options):
    running = load(one.port, clients=CLIENTS, think="1ms", **options)
    running.wait_for(ok=100)
    return running


def assert_rolled_back(one, running, *said, failed=None, generation=2):
    """The old one serves, whoever asked was told all of `said`, and it is remembered."""
    now = one.wait_serving(generation=1)
    failure = now["lastFailure"]
    assert failure["generation"] == generation
    text = json.dumps(failure)
    for words in said:
        assert words in text, failure
        if failed is not None:
            assert words in failed.out + failed.err, failed
    one.wait_generation_gone(generation)
    running.wait_more(300)
    assert_clean(running.stop(), 300)


@pytest.mark.sanitize
@pytest.mark.parametrize("strategy", ["blue-green", "rolling", "canary"])
def test_good_page(web, load, strategy):
    one = web("--print-env", workers=2, upgrade={**quick(strategy), "verify": "/up"})
    running = under_load(one, load)
    one.upgrade()
    assert len([m for m in one.log.splitlines() if "is verified at" in m]) == {
        "blue-green": 1,
        "rolling": 2,
        "canary": 3,
    }[strategy], one.log
    one.wait_serving(generation=2)
    running.wait_for(generation=2)
    assert_clean(running.stop(), 100, generations=[1, 2])


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
@pytest.mark.parametrize("strategy", ["blue-green", "rolling", "canary"])
def test_bad_page(web, load, strategy, sockets):
    """The old generation's page is good: that the new one is asked is what this shows."""
    one = web(workers=4, upgrade={**quick(strategy), "verify": {"http": "/up", "timeout": "20s"}})
    if sockets == "per-worker":
        web_config(one)["listen"] = per_worker(one.port)
        one.reload()
    before = one.service()["generation"]
    running = under_load(one, load)
    bad = one.directory / "bad"
    bad.write_text("the cache is cold\n")
    one.manners.set(f"--if-generation {before + 1} --unhealthy-if {bad}")
    failed = one.upgrade(check=ROLLED_BACK)
    said = failed.out + failed.err
    assert "was not verified" in said and "its page /up answered 503, not 200" in said, failed
    assert "the cache is cold" in said, failed
    failure = one.service()["lastFailure"]
    assert failure["status"] == "HTTP/1.1 503 Error"
    assert failure["output"] == "the cache is cold\n"
    one.wait_serving(generation=before)
    # The cure needs nothing but another upgrade.
    bad.unlink()
    one.upgrade()
    running.wait_for(generation=before + 2)
    assert_clean(running.stop(), 100)


def test_page_turns_bad_at_a_share(web, load):
    """Good at 5%, bad at 25%: nobody but a few saw it, and nobody got an error from us."""
    one = web(workers=2, upgrade=canary("5%", "25%", "50%", verify="/up"))
    running = under_load(one, load)
    bad = one.directory / "bad"
    one.manners.set(f"--if-generation 2 --unhealthy-if {bad}")
    with Program([TENURECTL, "--socket", str(one.socket_path), "upgrade", "web"], one.directory, "upgrade") as upgrade:
        wait_share(one, 5)
        one.wait_log("generation 2 is verified at 5%")
        assert rollout(one)["verify"] == "passed"
        bad.write_text("too much for me\n")
        one.ctl("promote", "web")
        assert upgrade.wait() == ROLLED_BACK
        assert "too much for me" in upgrade.out + upgrade.err
    assert_rolled_back(one, running, "answered 503")


def test_interval_fails_in_the_third_run(web, load):
    """Runs go on through a step's soak, one after the other."""
    one = web(workers=1, upgrade=quick())
    count = one.directory / "runs"
    verify = script(
        one,
        "verify",
        f"""
with open({str(count)!r}, "a+") as f:
    f.seek(0)
    n = len(f.read()) + 1
    f.write("x")
print("run", n)
raise SystemExit(7 if n == 3 else 0)
""",
    )
    web_config(one)["upgrade"] = {
        "strategy": "canary",
        "steps": ["50%"],
        "soak": IN_NO_HURRY,
        "verify": {"command": [verify], "interval": "200ms"},
    }
    one.write_config()
    running = under_load(one, load)
    failed = one.upgrade(check=ROLLED_BACK)
    assert count.read_text() == "xxx"
    assert_rolled_back(one, running, "exit status 7", "run 3", failed=failed)
    # Nothing of it goes on.
    time.sleep(0.5)
    assert count.read_text() == "xxx"


LOOK = """
import http.client, os, sys
out = {name: value for name, value in os.environ.items()}
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), source_address=(sys.argv[2], 0))
connection.request("GET", "/")
reply = connection.getresponse()
out["answered"] = reply.getheader("X-Tenure-Generation")
out["argv"] = sys.argv[2:]
out["uid"], out["group"] = os.getuid(), os.getpgid(0) == os.getpid()
out["cwd"] = os.getcwd()
out["fds"] = sorted(os.listdir("/proc/self/fd"))
import json
print(json.dumps(out))
raise SystemExit(out["answered"] != os.environ["TENURE_GENERATION"])
"""


@pytest.mark.sanitize
def test_command_looks_at_the_new_one(web, load):
    """By the source address it is told, at every step; and as whom and how it runs."""
    one = web(workers=2)
    look = script(one, "look", LOOK)
    web_config(one)["environment"] = {"RELEASE": "r2"}
    web_config(one)["upgrade"] = {
        **quick("canary"),
        "steps": ["1%", "50%"],
        "preview_from": PREVIEW,
        "verify": {"command": [look, str(one.port), "{preview}", "x{preview}y{preview}"]},
    }
    one.write_config()
    running = under_load(one, load)
    one.upgrade()
    lines = [m for m in one.log.splitlines() if m.startswith("web.2.verify | ")]
    assert len(lines) == 3, one.log
    for line in lines:
        out = json.loads(line.partition(" | ")[2])
        assert out["answered"] == out["TENURE_GENERATION"] == "2"
        assert out["TENURE_PREVIEW_FROM"] == PREVIEW
        assert out["TENURE_SERVICE"] == "web" and out["RELEASE"] == "r2"
        assert not {"NOTIFY_SOCKET", "LISTEN_FDS", "TENURE_WORKER"} & set(out)
        assert out["argv"] == [PREVIEW, f"x{PREVIEW}y{PREVIEW}"]
        assert out["uid"] == os.geteuid() and out["group"]
        # 0, 1, 2, the connection, and the one that lists them.
        assert len(out["fds"]) == 5, out["fds"]
    running.wait_for(generation=2)
    assert_clean(running.stop(), 100, generations=[1, 2])


# What the command does, and what is said about it.
BAD_COMMANDS = {
    "exits": ("print('no database'); raise SystemExit(3)", "exit status 3", "no database"),
    "is killed": (
        "import os; os.write(2, b'oh'); os.kill(os.getpid(), 9)",
        "signal 9 (Killed)",
        "oh",
    ),
    "hangs": ("import time; print('waiting', flush=True); time.sleep(600)", "not done within", "waiting"),
    "is deaf": (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)\n"
        "time.sleep(600)",
        "not done within",
        "deaf",
    ),
    "floods": ("while True: print('f' * 200)", "not done within", "ffff"),
}


@pytest.mark.sanitize
@pytest.mark.parametrize("how", BAD_COMMANDS)
def test_bad_command(web, load, how):
    text, reason, output = BAD_COMMANDS[how]
    one = web(workers=2)
    web_config(one)["upgrade"] = {
        **quick("canary"),
        "verify": {"command": [script(one, "verify", text)], "timeout": "2s" if SANITIZERS else "700ms"},
    }
    one.write_config()
    running = under_load(one, load)
    failed = one.upgrade(check=ROLLED_BACK)
    assert "was not verified" in failed.out + failed.err
    assert_rolled_back(one, running, reason, output, failed=failed)


def test_command_leaves_nothing(web, load):
    """What it started ends with it: in its group or not, by a timeout or not."""
    one = web(workers=1)
    text = (
        "import os, subprocess, sys, time\n"
        "a = subprocess.Popen(['sleep', '601'])\n"
        "b = subprocess.Popen(['sleep', '602'], start_new_session=True)\n"
        "print(a.pid, b.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    web_config(one)["upgrade"] = {
        **quick(),
        "verify": {"command": [script(one, "verify", text)], "timeout": "2s"},
    }
    one.write_config()
    running = under_load(one, load)
    failed = one.upgrade(check=ROLLED_BACK)
    one.wait_generation_gone(2)
    wait_until(
        lambda: not [p for p in descendants(one.pid) if "sleep 60" in p.command], what="its children to be gone"
    )
    assert_rolled_back(one, running, "not done within", failed=failed)


def process_fds(one):
    """Those that belong to a process: its pidfd, and its output."""
    return len([t for t in fd_list(one.pid).values() if "pidfd" in t or "/#" in t or "deleted" in t])


@pytest.mark.parametrize("how", ["abort", "stop", "promote --full", "reload", "stop of the daemon"])
def test_ended_meanwhile(web, load, how):
    """A run under way does not outlive its reason."""
    one = web(workers=2)
    text = "import time\nprint('looking', flush=True)\ntime.sleep(600)\n"
    web_config(one)["upgrade"] = canary("50%", verify={"command": [script(one, "verify", text)], "timeout": "300s"})
    one.write_config()
    one.reload()
    running = under_load(one, load) if how != "stop of the daemon" else None
    before = process_fds(one)
    one.call("Upgrade", service="web")
    one.wait_log(r"^web\.2\.verify \| looking")
    assert rollout(one)["verify"] == "running"
    command = next(p for p in descendants(one.pid) if p.command.endswith("/verify"))
    if how == "abort":
        one.ctl("abort", "web")
        one.wait_serving(generation=1)
        one.wait_generation_gone(2)
    elif how == "promote --full":
        # To the last step at once, which then soaks, unverified.
        one.ctl("promote", "web", "--full")
        wait_share(one, 100)
        assert rollout(one).get("verify") is None
        one.ctl("promote", "web")
        one.wait_serving(generation=2)
        one.wait_generation_gone(1)
    elif how == "reload":
        # It is about the next upgrade: this one goes on as it began.
        web_config(one)["upgrade"]["verify"] = "none"
        one.write_config()
        one.reload(check=None)
        assert rollout(one)["verify"] == "running"
        assert Process.read(command.pid)
        one.ctl("abort", "web")
        one.wait_serving(generation=1)
        one.wait_generation_gone(2)
    elif how == "stop":
        running.stop()
        one.ctl("stop", "web")
    else:
        one.stop()
    wait_until(lambda: not Process.read(command.pid), what="the command to be gone")
    if how == "stop of the daemon":
        return
    if how != "stop":
        running.wait_more(300)
        wait_until(lambda: process_fds(one) == before, what="as many descriptors as before")
    assert_clean(running.stop(), 100)


def test_command_that_is_not_there(web, load):
    one = web(workers=1)
    web_config(one)["upgrade"] = {**quick(), "verify": "bin/not-there --x"}
    one.write_config()
    running = under_load(one, load)
    failed = one.upgrade(check=ROLLED_BACK)
    assert_rolled_back(one, running, "bin/not-there cannot be run: No such file", failed=failed)


def test_no_promotion_before_it_is_verified(web, load):
    """`promote` ends the soak, not the verify; a second upgrade meanwhile is refused."""
    one = web(workers=1)
    go = one.directory / "go"
    text = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    web_config(one)["upgrade"] = canary("50%", verify={"command": [script(one, "verify", text)], "timeout": "300s"})
    one.write_config()
    running = under_load(one, load)
    one.call("Upgrade", service="web")
    wait_share(one, 50)
    one.ctl("promote", "web")
    one.upgrade(check=IN_PROGRESS)
    running.wait_more(100)
    now = rollout(one)
    assert now["traffic"] == 50 and now["verify"] == "running", now
    go.write_text("")
    wait_share(one, 100)
    one.ctl("promote", "web")
    one.wait_serving(generation=2)
    running.wait_for(generation=2)
    assert_clean(running.stop(), 100)


def test_not_for_the_first_start(web):
    """There is nothing to go back to: a bad page cannot be answered by anything."""
    one = web("--unhealthy", workers=1, upgrade={**quick(), "verify": "/up"})
    assert one.service()["state"] == "serving"
    assert http_get(one.port, "/up").status == 503


def test_page_that_never_ends(web, load):
    """Accepted, and then nothing: the timeout is the run's."""
    one = web(
        workers=1, upgrade={**quick(), "verify": {"http": "/slow?ms=60000", "timeout": "500ms"}},
        # The worker that is still busy with it is made to end.
        drain={"timeout": "300ms", "kill_after": "200ms"},
    )  # fmt: skip
    running = under_load(one, load)
    failed = one.upgrade(check=ROLLED_BACK)
    assert_rolled_back(one, running, "its page /slow?ms=60000 did not answer within 500ms", failed=failed)


def test_paused_and_verified(web, load):
    """While paused the runs go on, and a failure ends the upgrade also then."""
    one = web(workers=1, upgrade=canary("50%", verify={"http": "/up", "interval": "100ms"}))
    bad = one.directory / "bad"
    one.manners.set(f"--if-generation 2 --unhealthy-if {bad}")
    running = under_load(one, load)
    one.call("Upgrade", service="web", pauseAt=50)
    wait_phase(one, "paused")
    running.wait_more(200)
    bad.write_text("now\n")
    one.wait_serving(generation=1)
    assert_rolled_back(one, running, "answered 503")


@pytest.mark.root
def test_command_runs_as_the_service(web):
    """Not as the daemon, and with its groups."""
    one = web(workers=1, user="nobody")
    look = script(one, "look", "import os; print(os.getuid(), os.getgid(), len(os.getgroups())); os.setuid(0)")
    web_config(one)["upgrade"] = {**quick(), "verify": {"command": [look]}}
    one.write_config()
    failed = one.upgrade(check=ROLLED_BACK)
    nobody = pwd.getpwnam("nobody")
    assert f"web.2.verify | {nobody.pw_uid} {nobody.pw_gid} " in one.log
    assert "PermissionError" in failed.err, failed
