# SPDX-License-Identifier: Apache-2.0
"""Live restore of everything a service can have, one by one: kinds of listeners, shares of canaries,
what is warm, recycled, watched, stored or scaled; and what workers did while no daemon was there."""

import json
import os
import re
import signal
import socket
import sys
import time

import pytest
from canaries import wait_phase
from harness import assert_clean, free_port, http_get, wait_until
from keeper import Waiting, kept, wait_settled  # pylint: disable=unused-import
from processes import all_processes
from udp import UdpLoad, bound, listeners
from upgrades import CLIENTS, per_worker, quick

# pylint: disable=redefined-outer-name


def crash_and_back(web):
    web.crash()
    web.back()


def uncounted(web):
    """The service without what counts or passes by itself."""

    def strip(value):
        if isinstance(value, dict):
            moving = {"connections", "measured", "memory", "usec", "sinceUsec", "queue", "soakEndUsec"}
            return {k: strip(v) for k, v in value.items() if k not in moving and not k.endswith("Usec")}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(web.service())


# ---- listeners ----


@pytest.mark.sanitize
def test_unix(kept, load, tmp_path):
    path = tmp_path / "web.sock"
    web = kept(workers=2, listen=f"unix:{path}", upgrade=quick(), ready={"by": "delay", "delay": "50ms"})
    before, inode = uncounted(web), os.stat(path).st_ino
    traffic = load(f"unix:{path}", clients=CLIENTS)
    traffic.wait_more(100)
    crash_and_back(web)
    traffic.wait_more(100)
    assert uncounted(web) == before
    assert os.stat(path).st_ino == inode
    web.upgrade("web")
    wait_settled(web, 2)
    traffic.wait_for(generation=2)
    assert_clean(traffic.stop(), generations=[1, 2])
    # The path is watched as before.
    path.unlink()
    web.upgrade("web")
    wait_until(path.exists, 5, "the path to be there again")
    wait_settled(web, 3)


def test_abstract_name(kept, load):
    name = f"@tenured-test-{os.getpid()}-{free_port()}"
    web = kept(workers=1, listen=f"unix:{name}", upgrade=quick(), ready={"by": "delay", "delay": "50ms"})
    traffic = load(f"unix:{name}", clients=4)
    traffic.wait_more(50)
    crash_and_back(web)
    web.upgrade("web")
    wait_settled(web, 2)
    traffic.wait_for(generation=2)
    assert_clean(traffic.stop())


@pytest.mark.sanitize
@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_udp(kept, tmp_path, sockets):
    port = free_port()
    listen = {"dns": {"address": f"udp:127.0.0.1:{port}", "sockets": sockets, "rcvbuf": "512K"}}
    web = kept(workers=3, listen=listen, upgrade=quick(), ready="notify")
    traffic = UdpLoad(tmp_path, port).start()
    try:
        traffic.wait_more(100)
        pids = sorted(web.pids())
        for _ in range(2):
            crash_and_back(web)
            traffic.wait_more(200)
            web.wait_serving("web", generation=1)
        assert sorted(web.pids()) == pids
        for generation in (2, 3):
            web.upgrade("web")
            wait_settled(web, generation)
            traffic.wait_for(generation=generation)
            crash_and_back(web)
        assert_clean(traffic.stop())
    finally:
        traffic.kill()


@pytest.mark.sanitize
@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_inherited(kept, load, tmp_path, kind, again):
    """A socket unit passes its socket to each daemon, a keeper may pass it to the first only."""
    port, path = free_port(), str(tmp_path / "given.sock")
    given = bound(kind, ("127.0.0.1", port) if kind == "tcp" else path)
    address = port if kind == "tcp" else f"unix:{path}"
    ready = {} if kind == "tcp" else {"ready": {"by": "delay", "delay": "50ms"}}
    web = kept(
        workers=2, listen={"web": {"inherit": "web"}}, upgrade=quick(), given=[("web", given)], **ready
    )
    before = listeners(web)["web"]["kind"]
    traffic = load(address, clients=CLIENTS)
    traffic.wait_more(100)
    web.crash()
    if not again:
        web.given = []
    web.back()
    traffic.wait_more(100)
    web.wait_serving("web", generation=1)
    assert listeners(web)["web"]["kind"] == before
    for generation in (2, 3):
        web.upgrade("web")
        wait_settled(web, generation)
        traffic.wait_for(generation=generation)
    assert_clean(traffic.stop())
    # It goes back as it came.
    web.stop()
    client = socket.socket(given.family, socket.SOCK_STREAM)
    client.connect(("127.0.0.1", port) if kind == "tcp" else path)
    accepted, _ = given.accept()
    accepted.close()
    client.close()
    given.close()
    if kind == "unix":
        os.unlink(path)


def test_held_and_options(kept, load):
    port = free_port()
    listen = {"web": {"address": f"127.0.0.1:{port}", "steering": False, "nodelay": True, "backlog": 77}}
    web = kept(workers=2, listen=listen, upgrade=quick(), ready={"by": "delay", "delay": "50ms"})
    before = listeners(web)["web"]
    traffic = load(port, clients=4)
    traffic.wait_more(50)
    crash_and_back(web)
    after = listeners(web)["web"]
    for key in ("kind", "reason", "address", "options", "backlog"):
        assert after.get(key) == before.get(key), key
    # A reload that changes nothing changes nothing.
    assert "unchanged" in web.reload().out
    web.upgrade("web")
    wait_settled(web, 2)
    assert_clean(traffic.stop())


def test_strangers(kept, load):
    """A program of the same user has joined the group; guards are in the array."""
    web = kept(workers=2, listen=None, upgrade=quick())
    stranger = socket.socket()
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    stranger.bind(("127.0.0.1", web.port))
    stranger.listen()
    web.upgrade("web")
    wait_settled(web, 2)
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    crash_and_back(web)
    traffic.wait_more(100)
    web.upgrade("web")
    wait_settled(web, 3)
    # It goes while nobody looks, and another comes.
    web.crash()
    stranger.close()
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind(("127.0.0.1", web.port))
    other.listen()
    traffic.wait_more(100)
    web.back()
    traffic.wait_more(100)
    web.upgrade("web")
    wait_settled(web, 4)
    traffic.wait_for(generation=4)
    other.close()
    web.upgrade("web")
    traffic.wait_for(generation=5)
    assert_clean(traffic.stop())


# ---- a rollout ----


def test_paused_canary(kept, load):
    """Shares are as they were, and it stays paused until somebody promotes it."""
    upgrade = {"strategy": "canary", "steps": ["30%", "100%"], "soak": "100ms", "sticky": "client"}
    web = kept(workers=2, upgrade=upgrade)
    traffic = load(web.port, clients=CLIENTS)
    web.ctl("upgrade", "web", "--detach", "--pause-at", "30%")
    wait_phase(web, "paused")
    shares = [(g["number"], g["traffic"]) for g in web.service()["generations"]]
    pids = sorted(web.pids())
    for _ in range(3):
        crash_and_back(web)
        traffic.wait_more(100)
    now = web.service()
    assert now["rollout"]["phase"] == "paused"
    assert [(g["number"], g["traffic"]) for g in now["generations"]] == shares
    assert sorted(web.pids()) == pids
    web.ctl("promote", "web")
    wait_settled(web, 2)
    assert_clean(traffic.stop())


def test_aborted_while_nobody_was_there(kept, load):
    """The new release dies meanwhile: the rollout fails as it always would."""
    web = kept(workers=2, upgrade=quick(soak="20s"), ready="notify")
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    web.manners.set("--if-generation 2 --never-ready")
    web.ctl("upgrade", "web", "--detach")
    wait_until(lambda: len(web.pids(generation=2)) == 2, 10, "new workers")
    pids = web.pids(generation=2)
    web.crash()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    web.back()
    wait_settled(web, 1)
    assert "rolled back to generation 1: worker" in web.log
    assert_clean(traffic.stop(), generations=[1])


def test_recreate_goes_back(kept, load):
    """Killed when the old generation is to get its sockets again."""
    web = kept(workers=2, upgrade=quick("recreate"), fault="effect-swap-lanes:1")
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    web.manners.set("--if-generation 2 --exit-at-once")
    web.arm()
    asked = Waiting(web, "upgrade", "web", "--detach")
    web.wait_dead()
    web.back()
    assert asked.end().code == 0
    wait_settled(web, 1)
    traffic.wait_more(100)
    assert_clean(traffic.stop(), generations=[1])


def test_queued_upgrade(kept):
    web = kept(workers=1, upgrade=quick(soak="2s"))
    web.ctl("upgrade", "web", "--detach")
    web.config["services"]["web"]["upgrade"]["overlap"] = "queue"
    web.write_config()
    web.ctl("upgrade", "web", "--detach")
    wait_until(lambda: "upgrade queued" in web.log, 5, "the queue")
    crash_and_back(web)
    wait_settled(web, 3)


def test_history_and_rollback(kept):
    web = kept(workers=1, upgrade=quick())
    web.upgrade("web")
    wait_settled(web, 2)
    history = web.ctl("history", "web", json=True).json
    crash_and_back(web)
    assert web.ctl("history", "web", json=True).json == history
    web.ctl("rollback", "web")
    wait_settled(web, 3)
    assert http_get(web.port).status == 200


def test_events_go_on(kept):
    """Their numbers are never used again."""
    web = kept(workers=1, upgrade=quick())

    def last():
        return web.call("Events", since=0)["events"][-1]["sequence"]

    before = last()
    crash_and_back(web)
    web.upgrade("web")
    assert last() > before


def test_what_is_gone_by_then_is_forgotten(kept):
    """A generation whose last worker ended while nobody was there is in no later state."""
    web = kept(
        "--if-generation", "1", "--never-exit", workers=1, upgrade=quick(),
        drain={"timeout": "60s", "idle_wait": "0s"},
    )
    old = web.pids()[0]
    web.upgrade("web")
    wait_until(lambda: web.generation(1)["workers"][0]["state"] == "draining", 10, "the drain")
    time.sleep(0.3)  # it is told to go
    web.crash()
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{old}"), 10, "it to be gone")
    # So that its end is known before anything is written down.
    for name in web.store.names():
        if name[1] == "p":
            web.store.drop(name)
    web.back()
    wait_settled(web, 2)
    web.upgrade("web")
    wait_settled(web, 3)
    crash_and_back(web)
    wait_settled(web, 3)
    assert "not used" not in web.log


# ---- what is looked after ----


def test_scaled(kept):
    web = kept(workers=1)
    web.ctl("scale", "web", "3")
    web.wait_serving("web")
    crash_and_back(web)
    assert len(web.wait_serving("web")["generations"][0]["workers"]) == 3
    assert web.ctl("diff", "--exit-code", check=None).code == 1


def test_stopped(kept):
    web = kept(workers=1)
    web.ctl("stop", "web")
    crash_and_back(web)
    assert web.service()["state"] == "stopped"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", web.port))
    web.ctl("start", "web")
    web.wait_serving("web")


def test_watchdog_goes_on(kept):
    """Its time begins anew; a worker that hangs is found all the same."""
    web = kept("--watchdog", workers=2, watchdog="500ms", ready="notify")
    pids = web.pids()
    web.crash()
    # As long as nobody is there it is held against nobody.
    time.sleep(1)
    web.back()
    web.wait_serving("web", generation=1)
    time.sleep(1)
    assert sorted(web.pids()) == sorted(pids)
    os.kill(pids[0], signal.SIGSTOP)
    wait_until(lambda: "missed its watchdog" in web.log, 10, "the watchdog")
    wait_until(lambda: len(set(web.pids()) - {pids[0]}) == 2, 10, "another worker")


def test_recycling_goes_on(kept, load):
    web = kept(workers=2, recycle={"after": "2s"}, upgrade=quick())
    first = set(web.pids())
    traffic = load(web.port, clients=CLIENTS)
    for _ in range(4):
        time.sleep(0.7)
        crash_and_back(web)
        web.service()
    wait_until(lambda: not first & set(web.pids()), 30, "all of the first to be replaced")
    assert web.service()["generation"] == 1
    assert_clean(traffic.stop(), generations=[1])


def test_cpu_affinity(kept):
    cpus = sorted(os.sched_getaffinity(0))
    web = kept(workers=len(cpus), listen=per_worker(free_port()), cpu_affinity="per-worker")
    placed = {pid: os.sched_getaffinity(pid) for pid in web.pids()}
    crash_and_back(web)
    web.wait_serving("web", generation=1)
    assert {pid: os.sched_getaffinity(pid) for pid in web.pids()} == placed
    victim = web.pids()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in web.pids() and len(web.pids()) == len(cpus), 10, "another one")
    new = next(pid for pid in web.pids() if pid not in placed)
    wait_until(lambda: os.sched_getaffinity(new) == placed[victim], 5, "its CPU")


def test_output_goes_on(kept):
    """What workers write is heard, also what they wrote meanwhile."""
    web = kept("--write-lines", "3", workers=1, output="tee", upgrade=quick())
    pid = web.pids()[0]
    web.crash()
    with open(f"/proc/{pid}/fd/2", "a") as err:  # pylint: disable=unspecified-encoding
        err.write("while nobody was there\n")
    web.back()
    wait_until(lambda: "web.1.0 | while nobody was there" in web.log, 5, "the line")
    assert len(re.findall("web.1.0 . while nobody was there", web.log)) == 1


# ---- processes ----


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_ends_while_nobody_is_there(kept, load, how):
    web = kept(workers=3, upgrade=quick())
    pids = web.pids()
    web.crash()
    os.kill(pids[0], signal.SIGTERM if how == "exit" else signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{pids[0]}"), 10, "it to be gone")
    web.back()
    web.wait_serving("web", generation=1)
    assert set(web.pids()) > set(pids[1:])
    # How it ended, where the kernel tells; else it is said that this is not known.
    assert re.search(r"worker \d ended \((exit status 0|signal 9|ended while)", web.log), web.log
    traffic = load(web.port)
    traffic.wait_more(100)
    assert_clean(traffic.stop())


@pytest.mark.parametrize("status", ["3", "0"])
def test_exit_status_of_one_that_was_taken_back(kept, status):
    web = kept("--exit-after", "3s", "--exit-code", status, workers=1)
    web.crash()
    web.back()
    web.wait_serving("web", generation=1)
    known = re.compile(rf"worker 0 ended \((exit status {status}|ended while)")
    wait_until(lambda: known.search(web.log), 10, "its end")


def test_its_pid_is_another_process_by_now(kept):
    """Known by its pidfd, and by when it was started: nobody else is touched."""
    web = kept(workers=2)
    pids = web.pids()
    web.crash()
    for name in web.store.names():
        if name[1] == "p":
            web.store.drop(name)
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{pids[0]}"), 10, "it to be gone")
    web.back()
    web.wait_serving("web", generation=1)
    assert pids[1] in web.pids()
    assert len(web.pids()) == 2


def test_children_of_workers(kept):
    """One that left its group and its worker is ended with its generation."""
    web = kept("--double-fork", workers=1, upgrade=quick())
    pid = web.pids()[0]
    web.crash()
    web.back()
    web.upgrade("web")
    wait_settled(web, 2)
    assert not os.path.exists(f"/proc/{pid}")
    web.manners.set("--if-generation 99")
    assert "left behind" in web.log


@pytest.mark.parametrize("what", ["verify", "ready"])
def test_commands_of_checks(kept, what):
    """They are begun anew; nobody waits for the earlier ones any more."""
    web = kept(workers=1, upgrade=quick())
    marker = f"600.{os.getpid()}{web.port}"

    def sleeping():
        return [p for p in all_processes() if marker in p.command]

    service = web.config["services"]["web"]
    if what == "verify":
        service["upgrade"] = quick(soak="100ms", verify={"command": ["sleep", marker], "timeout": "1h"})
    else:
        service["ready"] = {"by": "exec", "command": ["sleep", marker], "timeout": "1h"}
    web.write_config()
    web.ctl("upgrade", "web", "--detach")
    wait_until(sleeping, 10, "the command")
    first = [p.pid for p in sleeping()]
    web.crash()
    assert [p.pid for p in sleeping()] == first
    web.back()
    wait_until(lambda: sleeping() and not set(first) & {p.pid for p in sleeping()}, 10, "another one")
    web.ctl("abort", "web")
    wait_until(lambda: not sleeping(), 10, "its end")


# ---- what workers have stored ----

STORING = """
import json, os, socket, struct, sys, threading
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
names = os.environ["LISTEN_FDNAMES"].split(":")
n = int(os.environ["LISTEN_FDS"])
assert n == len(names) and os.environ["LISTEN_PID"] == str(os.getpid())
listener = socket.socket(fileno=3)
def say(text, fds=()):
    socket.send_fds(notify, [text.encode()], list(fds))
kept = []
def answer(request):
    words = request.split("?")[-1].split("&") if "?" in request else []
    for word in words:
        verb, _, name = word.partition("=")
        if verb == "file":
            fd = os.memfd_create(name); os.write(fd, name.encode())
            say(f"FDSTORE=1\\nFDNAME={name}", [fd]); os.close(fd)
        elif verb == "pair":
            a, b = socket.socketpair(); kept.append(b)
            say(f"FDSTORE=1\\nFDNAME={name}", [a.fileno()]); a.close()
        elif verb == "nopoll":
            a, b = socket.socketpair()
            say(f"FDSTORE=1\\nFDPOLL=0\\nFDNAME={name}", [a.fileno()]); a.close(); b.close()
        elif verb == "remove":
            say(f"FDSTOREREMOVE=1\\nFDNAME={name}")
        elif verb == "hangup":
            kept.clear()
    texts = {}
    for i in range(1, n):
        try:
            texts[names[i]] = os.pread(3 + i, 100, 0).decode()
        except OSError:
            texts[names[i]] = "socket"
    return json.dumps({"pid": os.getpid(), "generation": os.environ["TENURE_GENERATION"], "stored": texts})
say("READY=1")
while True:
    client, _ = listener.accept()
    request = client.recv(4096).decode()
    if not request:  # a probe
        client.close()
        continue
    request = request.split(" ")[1]
    body = answer(request)
    client.sendall(f"HTTP/1.0 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}".encode())
    client.close()
"""


def stored_by(web):
    return json.loads(http_get(web.port).text)


def respawn(web):
    pid = stored_by(web)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: web.pids() and pid not in web.pids(), 10, "another process")
    web.wait_serving("web")
    return stored_by(web)["stored"]


@pytest.mark.sanitize
def test_descriptors_of_workers(kept):
    web = kept(command=[sys.executable, "-c", STORING], workers=1, upgrade=quick())
    assert stored_by(web)["stored"] == {}
    http_get(web.port, "/?file=a&file=b&pair=c&nopoll=d")
    # The same process does not get them; the next one in its place does.
    assert stored_by(web)["stored"] == {}
    assert respawn(web) == {"a": "a", "b": "b", "d": "socket"}  # c's other end went with the process
    assert [name[1] for name in web.store.names()].count("w") == 3
    # Over the daemon's end, and its worker's.
    crash_and_back(web)
    assert respawn(web) == {"a": "a", "b": "b", "d": "socket"}
    pid = stored_by(web)["pid"]
    web.crash()
    os.kill(pid, signal.SIGKILL)
    web.back()
    web.wait_serving("web")
    assert stored_by(web)["stored"] == {"a": "a", "b": "b", "d": "socket"}
    # The successor is also who comes with the next generation.
    http_get(web.port, "/?remove=a")
    web.upgrade("web")
    wait_settled(web, 2)
    now = stored_by(web)
    assert now["generation"] == "2" and now["stored"] == {"b": "b", "d": "socket"}
    # A service that was stopped begins with nothing.
    web.ctl("stop", "web")
    assert "w" not in [name[1] for name in web.store.names()]
    web.ctl("start", "web")
    web.wait_serving("web")
    assert stored_by(web)["stored"] == {}


def test_too_many_descriptors_of_workers(kept):
    web = kept(
        command=[sys.executable, "-c", STORING], workers=1, upgrade=quick(), limits={"nofile": 8192}
    )
    for i in range(0, 1040, 40):
        http_get(web.port, "/?" + "&".join(f"file=f{k}" for k in range(i, i + 40)))
    wait_until(lambda: "stores more than 1024 descriptors" in web.log, 5, "the warning")
    assert len(respawn(web)) == 1024


# ---- the way out and back ----


def test_detach(kept, load):
    """on_terminate: detach: TERM leaves everything to the next daemon."""
    web = kept(workers=3, upgrade=quick(), top={"on_terminate": "detach"})
    pids = sorted(web.pids())
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    web.note_orphans()
    web.signal(signal.SIGTERM)
    assert web.process.wait(10) == 0
    web.note_orphans()
    traffic.wait_more(100)
    web.back()
    web.wait_serving("web", generation=1)
    assert sorted(web.pids()) == pids
    traffic.wait_more(100)
    web.config["on_terminate"] = "stop"
    web.write_config()
    web.reload()
    assert_clean(traffic.stop(), generations=[1])
