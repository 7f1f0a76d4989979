# SPDX-License-Identifier: Apache-2.0
"""`handoff: channel`: listeners that come and go while workers run, drains that say by when, the
watchdog, what is stored for the next one in a worker's place, and workers that mean ill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon import ROLLED_BACK
from harness import TENURECTL, assert_clean, connect, free_port, http_get, wait_until
from keeper import Waiting, kept  # pylint: disable=unused-import
from upgrades import quick, web_config

WORKER = Path(__file__).resolve().parent / "channel_worker.py"
CLIENTS = 8


def channel_service(*manners, **keys):
    return {
        "command": [sys.executable, str(WORKER), *manners],
        "handoff": "channel",
        "ready": "notify",
        "upgrade": quick(),
        "workers": 1,
        **keys,
    }


def ask(port, words=""):
    return json.loads(http_get(port, "/" + ("?" + words if words else "")).text)


def ask_all(port, n, words=""):
    """What each of n workers says, by its place."""
    found = {}

    def all_said():
        one = ask(port, words)
        found[one["worker"]] = one
        return len(found) == n

    wait_until(all_said, 20, f"{n} workers", every=0.002)
    return found


def set_listeners(web, **ports):
    web_config(web)["listen"] = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    web.write_config()


def refused(port):
    try:
        connect(port, timeout=1).close()
        return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


# ---- listeners ----


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_listeners_come_and_go_under_load(web, load, sockets):
    """No process changes, nobody is refused where there is a listener, and whoever had a connection when
    it went got an answer."""
    one = web(**channel_service(workers=2), start=False)
    first, second = one.port, free_port()
    web_config(one)["listen"] = {"http": {"address": f"127.0.0.1:{first}", "sockets": sockets}}
    one.write_config()
    one.start()
    one.wait_serving("web")
    pids = sorted(one.pids())
    traffic = load(first, clients=CLIENTS)
    traffic.wait_for(ok=50)
    for _ in range(3):
        web_config(one)["listen"]["admin"] = {"address": f"127.0.0.1:{second}", "sockets": sockets}
        one.write_config()
        assert "would be given other listeners" in one.ctl("diff").out
        assert "web: given other listeners, not upgraded (listener admin added)" in one.reload().out
        # From the moment on that reload is back.
        assert http_get(second).status == 200
        more = load(second, clients=CLIENTS)
        more.wait_for(ok=100)
        assert {one["by"] for one in ask_all(second, 2).values()} == {"admin"}
        more.stop()
        del web_config(one)["listen"]["admin"]
        one.write_config()
        assert "(listener admin removed)" in one.reload().out
        wait_until(lambda: refused(second), 20, "the end of the second listener")
        assert_clean(more.result, min_requests=100, generations=[1])
        traffic.wait_more(100)
    assert sorted(one.pids()) == pids
    said = ask_all(first, 2)
    for worker in said.values():
        kinds = [kind for kind, name in worker["messages"] if name == "admin"]
        assert kinds == ["add", "leave", "remove"] * 3
        assert worker["listeners"] == ["http"]
    assert_clean(traffic.stop(), min_requests=500, generations=[1])
    # What is started from now on is told as its generation is.
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: sorted(one.pids()) != pids and len(one.pids()) == 2, 10, "another process")


def test_removed_under_load(web, load):
    """The load on the listener goes on while it goes: each request fails by being refused a connection,
    or is answered."""
    one = web(**channel_service(workers=2))
    second = free_port()
    set_listeners(one, http=one.port, admin=second)
    one.reload()
    traffic, more = load(one.port, clients=CLIENTS), load(second, clients=CLIENTS)
    more.wait_for(ok=200)
    set_listeners(one, http=one.port)
    one.reload()
    wait_until(lambda: refused(second), 20, "the end of the second listener")
    traffic.wait_more(50)
    result = more.stop()
    assert result["ok"] >= 200
    assert set(result["failures"]) <= {"refused", "connect-timeout", "timeout-connect"}, result.summary()
    assert_clean(traffic.stop(), generations=[1])


def test_crash_after_a_change(web):
    """Whoever is started after it has the listeners that there are now."""
    one = web(**channel_service())
    second = free_port()
    set_listeners(one, http=one.port, admin=second)
    one.reload()
    before = ask(second)
    assert before["listeners"] == ["admin", "http"]
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(lambda: one.pids() not in ([], [before["pid"]]), 10, "another process")
    one.wait_serving("web")
    after = ask(second)
    assert after["listeners"] == ["admin", "http"] and after["pid"] != before["pid"]
    assert [kind for kind, _ in after["messages"]] == ["welcome"]
    # So has the next generation.
    one.upgrade("web")
    assert ask(second)["generation"] == 2


def test_no_room_for_it(web):
    """A worker that could not take a listener is offered it again, and whoever came waits meanwhile."""
    one = web(**channel_service("full"))
    second = free_port()
    set_listeners(one, http=one.port, admin=second)
    one.reload()
    assert http_get(second, timeout=20).status == 200
    assert one.log.count("could not take listener admin") == 1
    assert one.service("web")["generation"] == 1


def test_the_next_generation_must_accept_from_it(web):
    """A listener that came while workers ran is probed as the others are, in each generation that is started
    after it."""
    one = web(**channel_service("skips", ready={"by": "notify", "timeout": "1s"}))
    second = free_port()
    set_listeners(one, http=one.port, admin=second)
    one.reload()
    assert ask(second)["generation"] == 1
    assert "tcp:127.0.0.1:%d" % second in one.ctl("restart", "web", check=ROLLED_BACK).err
    assert ask(second)["generation"] == 1


def test_of_all_kinds(web):
    """A Unix socket and UDP are added and removed as TCP is."""
    one = web(**channel_service())
    path = one.directory / "second.sock"
    web_config(one)["listen"] = {
        "http": f"127.0.0.1:{one.port}",
        "local": f"unix:{path}",
        "dns": f"udp:127.0.0.1:{free_port()}",
    }
    one.write_config()
    one.reload()
    wait_until(lambda: ask(one.port)["listeners"] == ["dns", "http", "local"], 10, "three listeners")
    assert ask(f"unix:{path}")["by"] == "local"
    set_listeners(one, http=one.port)
    one.reload()
    wait_until(lambda: ask(one.port)["listeners"] == ["http"], 10, "one listener")
    assert not path.exists()
    assert one.service("web")["generation"] == 1


@pytest.mark.parametrize(
    "what", ["mute", "address", "name", "command", "workers", "listen-fds"]
)
def test_when_a_generation_is_needed(web, what):
    """By workers that do not listen to their channel; and when more than listeners changes, or one of
    them is not the same under its name."""
    manners = ["mute"] if what == "mute" else []
    one = web(**channel_service(*manners))
    second = free_port()
    set_listeners(one, http=one.port, admin=second)
    config = web_config(one)
    if what == "address":
        set_listeners(one, http=second)
    elif what == "name":
        set_listeners(one, www=one.port, admin=second)
    elif what == "command":
        config["command"] = [*config["command"], "other"]
    elif what == "workers":
        config["workers"] = 2
    elif what == "listen-fds":
        config["handoff"] = ["channel", "arguments"]
        config["command"] = [*config["command"], "{fd:http}"]
    one.write_config()
    one.reload()
    one.wait_serving("web", generation=2)
    assert ask(second)["generation"] == 2


def test_again_too_soon(web):
    """What is just being closed can be had again when it is."""
    one = web(**channel_service(drain={"settle": "1s", "idle_wait": "0s"}))
    second = free_port()
    set_listeners(one, http=one.port, admin=second)
    one.reload()
    set_listeners(one, http=one.port)
    one.reload()
    set_listeners(one, http=one.port, admin=second)
    assert "is just being closed; try again in a moment" in one.reload(check=1).err
    wait_until(lambda: one.reload(check=None).code == 0, 20, "another reload", every=0.1)
    assert http_get(second).status == 200


# ---- drain and watchdog ----


def test_drain_without_a_signal(web):
    """The worker would die of TERM; it is told, and ends by itself with status 0."""
    one = web(**channel_service())
    one.upgrade("web")
    one.wait_generation_gone(1)
    assert "generation 1: worker 0 has ended (exit status 0)" in one.log
    assert ask(one.port)["generation"] == 2


def test_drain_by_signal_where_nobody_listens(web):
    one = web(**channel_service("mute"))
    one.upgrade("web")
    one.wait_generation_gone(1)
    assert "generation 1: worker 0 has ended (signal 15" in one.log


def test_worker_of_another_version(web):
    """It is told which one is spoken, and drained as one without a channel. One that speaks an old one, too,
    is welcome."""
    one = web(**channel_service("newer"))
    wait_until(lambda: ["refused", None] in ask(one.port)["messages"], 10, "the answer")
    one.wait_log("came a message of protocol version 2, and version 1 is spoken here")
    web_config(one)["command"][-1] = "both"
    one.write_config()
    one.upgrade("web")
    one.wait_generation_gone(1)
    assert "generation 1: worker 0 has ended (signal 15" in one.log
    wait_until(lambda: ["welcome", None] in ask(one.port)["messages"], 10, "the answer")
    one.upgrade("web")
    one.wait_generation_gone(2)
    assert "generation 2: worker 0 has ended (exit status 0)" in one.log


def test_pings_are_the_heartbeat(web):
    one = web(**channel_service(watchdog="1s"))
    pid = ask(one.port)["pid"]
    time.sleep(2.5)
    now = ask(one.port)
    assert now["pid"] == pid and now["pings"] >= 2
    # A loop that stands still answers nothing.
    client = connect(one.port)
    client.sendall(b"GET /?hang=60 HTTP/1.1\r\n\r\n")
    wait_until(lambda: one.pids() not in ([], [pid]), 20, "another process")
    client.close()
    assert "watchdog" in one.log


# ---- what is stored ----


def named(pairs):
    return sorted(name for name, _ in pairs)


def respawn(web):
    pid = ask(web.port)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: web.pids() not in ([], [pid]), 10, "another process")
    web.wait_serving("web")
    return ask(web.port)


def test_stored_by_both_ways(web):
    one = web(**channel_service())
    ask(one.port, "store=a&notify=b&store=c&unstore=c")
    now = respawn(one)
    assert sorted(now["given"]) == [["a", "a"], ["b", "b"]] and now["generation"] == 1
    one.upgrade("web")
    one.wait_generation_gone(1)
    now = ask(one.port)
    assert sorted(now["given"]) == [["a", "a"], ["b", "b"]] and now["generation"] == 2
    # What it has got it can remove, for those who come.
    ask(one.port, "unstore=a")
    assert named(respawn(one)["given"]) == ["b"]


def test_what_is_stored_later_comes_by_the_channel(web):
    """The new one runs already when the old one stores."""
    one = web(**channel_service(upgrade=quick("canary", steps=["50%", "100%"])))
    ask(one.port, "store=early")
    one.ctl("upgrade", "web", "--pause-at", "50%", "--detach")

    def of(generation, words=""):
        def got():
            now = ask(one.port)
            return now if now["generation"] == generation else None

        now = wait_until(got, 20, f"generation {generation}", every=0.002)
        while words:
            now = ask(one.port, words if now["generation"] == generation else "")
            if now["generation"] == generation:
                break
        return now

    assert named(of(2)["given"]) == ["early"]
    # Both may be asked; only what the old one stores is sent to the new one.
    for _ in range(100):
        ask(one.port, "store=late")
        if any(kind == "stored" for kind, _ in of(2)["messages"]):
            break
    assert ["late", "late"] in of(2)["arrived"]
    assert of(1)["arrived"] == []
    one.ctl("promote", "web", "--full")
    one.wait_generation_gone(1)


def test_failed_upgrade_leaves_nothing_behind(web):
    one = web(**channel_service())
    ask(one.port, "store=old")
    config = web_config(one)
    # It stores, removes what it was given, and is then found wanting.
    config["command"] = [sys.executable, "-c", BAD]
    config["ready"] = {"by": "notify", "timeout": "2s"}
    one.write_config()
    one.upgrade("web", check=ROLLED_BACK)
    assert named(respawn(one)["given"]) == ["old"]


BAD = """
import os, socket, sys, time
channel = socket.socket(fileno=int(os.environ["TENURE_CHANNEL"]))
assert os.environ["LISTEN_FDNAMES"].split(":") == ["http", "old"]
socket.send_fds(channel, [b"tenure/1 store\\nname=new\\n"], [0])
channel.send(b"tenure/1 unstore\\nname=old\\n")
time.sleep(0.2)
sys.exit(1)
"""


def test_rollback_brings_it_back(web):
    """What the new one stored while it served is there for the old one, which is still warm."""
    one = web(**channel_service(upgrade=quick(keep_warm="60s")))
    ask(one.port, "store=old")
    one.upgrade("web")
    assert ask(one.port)["generation"] == 2
    ask(one.port, "store=new")
    one.ctl("rollback", "web")
    one.wait_serving("web", generation=1)
    wait_until(lambda: ["new", "new"] in ask(one.port)["arrived"], 10, "what the other one stored")
    assert named(respawn(one)["given"]) == ["new", "old"]


def test_nobody_waits_for_a_stored_connection(web):
    """Its last close is the daemon's: the client does not read, and its server wanted to wait for that."""
    one = web(**channel_service())
    ask(one.port, "linger=60")
    ask(one.port, "unstore=linger")
    one.ctl("status", timeout=30)
    one.upgrade("web")


def test_places_that_are_gone(web):
    one = web(**channel_service())
    with one.no_fd_leak(spare=2):
        one.ctl("scale", "web", "2")
        one.wait_serving("web")
        said = ask_all(one.port, 2)
        assert said[1]["given"] == said[1]["arrived"] == []
        while ask(one.port, "store=mine")["worker"] != 1:
            pass
        ask_all(one.port, 2, "unstore=mine&store=mine")
        one.ctl("scale", "web", "1")
        wait_until(lambda: len(one.pids()) == 1, 20, "one worker")
        ask(one.port, "unstore=mine")
    one.ctl("scale", "web", "2")
    one.wait_serving("web")
    said = ask_all(one.port, 2)
    assert said[1]["given"] == said[1]["arrived"] == []


def test_many_descriptors(web):
    """More than one message holds, in both directions, and at a start."""
    one = web(**channel_service(upgrade=quick("canary", steps=["50%", "100%"]), limits={"nofile": 4096}))
    ask(one.port, "pairs=600")
    one.upgrade("web", "--detach")

    def second():
        now = ask(one.port)
        return now if now["generation"] == 2 else None

    now = wait_until(second, 20, "generation 2")
    assert len(now["given"]) + len(now["arrived"]) == 600
    assert set(named(now["given"])) == {"pair"}


# ---- those that mean ill ----


@pytest.mark.parametrize("manner", ["flood", "deaf", "silent", "again"])
def test_hostile_workers_cost_only_themselves(web, load, manner):
    one = web(**channel_service(), start=False)
    other = free_port()
    one.config["services"]["other"] = {
        **channel_service(manner, limits={"nofile": 4096}),
        "drain": {"settle": "50ms", "idle_wait": "0s", "timeout": "2s", "kill_after": "1s"},
        "listen": f"127.0.0.1:{other}",
    }
    one.write_config()
    one.start()
    one.wait_serving("web")
    traffic = load(one.port, clients=CLIENTS)
    one.wait_serving("other", timeout=60)
    if manner == "deaf":
        # It never reads: there is an end to what is sent, and to what the daemon keeps for it.
        one.config["services"]["other"]["listen"] = {"http": f"127.0.0.1:{other}"}
        for i in range(30):
            one.config["services"]["other"]["listen"][f"more{i}"] = f"127.0.0.1:{free_port()}"
            one.write_config()
            one.reload()
        assert one.service("other")["generation"] == 1
        for i in range(30):
            ask(other, "&".join(f"store=s{i}.{k}" for k in range(20)))
    ask(other, "raw=ff00&raw=" + b"tenure/1 store\nname=x\n".hex() + "&raw=" + b"tenure/9 hello\n".hex())
    for _ in range(3):
        one.upgrade("web")
    one.upgrade("other")
    assert ask(other)["generation"] >= 2
    assert_clean(traffic.stop(), min_requests=50)
    if manner == "flood":
        assert "on its channel came what is no message, ignoring" in one.log
        assert one.log.count("on its channel") <= 4


def test_a_stranger_speaks(web):
    """A descriptor of the channel that went to a process which is no worker's."""
    one = web(**channel_service())
    pid = ask(one.port)["pid"]
    fd = os.pidfd_open(pid)
    number = next(
        int(entry)
        for entry in os.listdir(f"/proc/{pid}/fd")
        if dict(
            line.split("=", 1)
            for line in Path(f"/proc/{pid}/environ").read_text().split("\0")
            if "=" in line
        )["TENURE_CHANNEL"]
        == entry
    )
    stolen = pidfd_getfd(fd, number)
    os.close(fd)
    if stolen is None:
        pytest.skip("this kernel or sandbox does not allow pidfd_getfd")
    os.write(stolen, b"tenure/1 unstore\nname=x\n")
    one.wait_log("a process spoke that is none of its own")
    os.close(stolen)


def pidfd_getfd(pidfd, number):
    import ctypes

    fd = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)
    return fd if fd >= 0 else None


# ---- without the daemon ----


def test_the_channel_outlives_the_daemon(kept, load):  # pylint: disable=redefined-outer-name
    """What was said before the daemon was killed, and what is said while there is none, is not lost."""
    one = kept(**channel_service(drain={"settle": "2s", "idle_wait": "0s", "timeout": "10s"}))
    second, third = free_port(), free_port()
    traffic = load(one.port, clients=CLIENTS)
    set_listeners(one, http=one.port, admin=second)
    one.reload()
    pid = ask(second)["pid"]
    one.crash()
    ask(second, "store=meanwhile")
    one.back()
    one.wait_serving("web")
    assert ask(second)["pid"] == pid
    set_listeners(one, http=one.port, admin=second, more=third)
    one.reload()
    assert ask(third)["listeners"] == ["admin", "http", "more"]
    # One that was leaving goes on leaving.
    set_listeners(one, http=one.port, more=third)
    one.reload()
    one.crash()
    one.back()
    wait_until(lambda: refused(second), 20, "the end of the second listener")
    said = wait_until(
        lambda: (now := ask(one.port))["listeners"] == ["http", "more"] and now, 20, "two listeners"
    )
    assert said["pid"] == pid
    assert [kind for kind, name in said["messages"] if name == "admin"][0] == "add"
    assert one.service("web")["generation"] == 1
    one.upgrade("web")
    assert named(ask(one.port)["given"]) == ["meanwhile"]
    assert_clean(traffic.stop(), min_requests=50)


@pytest.mark.parametrize("fault", ["save:1", "saved:1", "save:2"])
def test_killed_with_who_asked_for_it(kept, fault):  # pylint: disable=redefined-outer-name
    """What was to go is there, or goes: nobody is turned away without an end."""
    first, second = free_port(), free_port()
    listen = {"http": f"127.0.0.1:{first}", "admin": f"127.0.0.1:{second}"}
    one = kept(listen=listen, fault=fault, **channel_service())
    set_listeners(one, http=first)
    one.arm()
    with subprocess.Popen([TENURECTL, "--socket", str(one.socket_path), "reload"]) as asked:
        one.wait_dead()
        asked.kill()
    one.back()
    one.wait_serving("web")
    wait_until(lambda: refused(second) or serves(second), 20, "an answer, or an end")


def serves(port):
    try:
        return bool(http_get(port, timeout=1).text)
    except OSError:
        return False


@pytest.mark.parametrize("fault", ["save:1", "saved:1", "save:2"])
def test_killed_while_listeners_change(kept, load, fault):  # pylint: disable=redefined-outer-name
    """Whoever is told what changes, and whoever is turned away, that is written down first."""
    first, second, third = free_port(), free_port(), free_port()
    listen = {"http": f"127.0.0.1:{first}", "admin": f"127.0.0.1:{second}"}
    one = kept(listen=listen, fault=fault, **channel_service())
    pid = ask(first)["pid"]
    traffic = load(first, clients=CLIENTS)
    set_listeners(one, http=first, more=third)
    one.arm()
    asked = Waiting(one, "reload")
    one.wait_dead()
    one.back()
    assert asked.end().code == 0
    wait_until(lambda: refused(second), 20, "the end of the second listener")
    wait_until(lambda: ask(third)["listeners"] == ["http", "more"], 20, "two listeners")
    assert ask(third)["pid"] == pid
    assert_clean(traffic.stop(), min_requests=50)


def test_the_channel_outlives_an_exec(kept):  # pylint: disable=redefined-outer-name
    one = kept(**channel_service())
    pid = ask(one.port)["pid"]
    one.ctl("reexec")
    second = free_port()
    set_listeners(one, http=one.port, admin=second)
    one.reload()
    assert ask(second)["pid"] == pid
    one.upgrade("web")
    one.wait_generation_gone(1)
    assert "generation 1: worker 0 has ended (exit status 0)" in one.log
