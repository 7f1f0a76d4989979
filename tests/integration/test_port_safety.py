# SPDX-License-Identifier: Apache-2.0
"""Other programs at our port. Another user's cannot join; one of our own user that does is reported,
gets nothing, and disturbs nothing by coming and going."""

import os
import random
import sys
import threading

import pytest

from canaries import kill_worker
from daemon import worker_service
from harness import IS_ROOT, Program, assert_clean, free_port, has_ipv6, http_get, wait_until
from udp import udp_web
from upgrades import CLIENTS, assert_only_in_flight, per_worker, quick, upgrade_many

NOBODY, STRANGER = 65534, 65533

# Binds the addresses it is given, a line for each that worked or did not; then counts who comes.
JOINER = """
import select, socket, sys
kind, *wanted = sys.argv[1:]
sockets = []
for text in wanted:
    host, port, flags = text.rsplit("/", 2)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    if "r" in flags:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if "a" in flags:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int("6" in flags))
    try:
        one.bind((host, int(port)))
        if kind == "tcp":
            one.listen(128)
        one.setblocking(False)
        sockets.append(one)
        print("joined", text, flush=True)
    except OSError as error:
        print("refused", text, error.errno, flush=True)
print("done", flush=True)
count = 0
poll = select.poll()
for one in sockets:
    poll.register(one, select.POLLIN)
while sockets:
    for fd, _ in poll.poll():
        one = next(s for s in sockets if s.fileno() == fd)
        try:
            one.accept()[0].close() if kind == "tcp" else one.recv(2048)
        except OSError:
            continue
        count += 1
        print("got", count, flush=True)
"""


def as_user(uid):
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


class Stranger(Program):
    """Stranger(directory, "127.0.0.1", 8080): joins if it can. flags: "r" SO_REUSEPORT, "a" SO_REUSEADDR,
    "6" IPV6_V6ONLY."""

    _count = 0

    def __init__(self, directory, host, port, flags="r", kind="tcp", uid=None, n=1):
        Stranger._count += 1
        wanted = [f"{host}/{port}/{flags}"] * n
        command = [sys.executable, "-c", JOINER, kind, *wanted]
        if uid is not None and uid != os.geteuid():
            command = [*as_user(uid), *command]
        super().__init__(command, directory, f"stranger{Stranger._count}")

    def lines(self, word):
        return [line.split() for line in self.out.splitlines() if line.startswith(word)]

    def start(self):
        super().start()

        def tried():
            assert self.is_running() or self.lines("done"), self.err
            return self.lines("done")

        wait_until(tried, what="a stranger")
        return self

    @property
    def joined(self):
        return len(self.lines("joined"))

    @property
    def got(self):
        return len(self.lines("got"))


def foreign(one, name="http"):
    """What Listeners tells of strangers; it looks again if the last look is some seconds old."""
    listeners = one.call("Listeners", service="web")["listeners"]
    return next(entry["foreign"] for entry in listeners if entry["name"] == name)


def wait_foreign(one, n, name="http"):
    def told():
        found = foreign(one, name)
        return found if len(found) == n else None

    # An empty list is what is waited for, too.
    wait_until(lambda: told() is not None, 20, f"{n} strangers to be found", every=0.2)
    return foreign(one, name)


def n_reports(one):
    return one.log.count("has a socket of its own on")


# ---- another user ----


def attempts(host):
    """All the ways to an address that overlaps with ours."""
    hosts = [host, "0.0.0.0", "127.0.0.1"]
    if has_ipv6():
        hosts += ["::"] + (["::1"] if ":" in host else [])
    return [(h, flags) for h in dict.fromkeys(hosts) for flags in ("", "a", "r", "ra")]


@pytest.mark.root
@pytest.mark.parametrize("uid, others", [(0, [STRANGER, NOBODY]), (NOBODY, [STRANGER, 0])])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::]"])
def test_no_other_user(daemon, load, uid, others, host):
    """Not even root joins a group of another user."""
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    port = free_port()
    one = daemon(start=False, wrap=as_user(uid) if uid else ())
    os.chown(one.directory, uid, uid)
    one.config = {
        "services": {
            "web": worker_service(per_worker(port, host), workers=2, upgrade=quick(), **(
                {"user": "nobody"} if uid == 0 else {}
            )),
        }
    }  # fmt: skip
    one.write_config()
    one.start()
    one.wait_serving()
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    for other in others:
        for their_host, flags in attempts(host.strip("[]")):
            with Stranger(one.directory, their_host, port, flags, uid=other) as stranger:
                assert stranger.joined == 0, f"uid {other} joined by {their_host} {flags}"
                assert stranger.lines("refused")[0][2] == "98", stranger.out  # EADDRINUSE
    # Nor while sockets come and go.
    stop = threading.Event()
    joined = []

    def keep_trying():
        while not stop.is_set():
            with Stranger(one.directory, host.strip("[]"), port, "r", uid=others[0], n=20) as stranger:
                joined.append(stranger.joined)

    trying = threading.Thread(target=keep_trying)
    trying.start()
    try:
        result = upgrade_many(one, running, 3)
        one.ctl("scale", "web", 4)
    finally:
        stop.set()
        trying.join()
    assert joined and sum(joined) == 0
    assert result["failed"] == 0
    assert foreign(one) == []
    assert n_reports(one) == 0


# ---- the daemon's own user ----


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_found_and_reported(web, load, sockets):
    port = free_port()
    one = web(
        port=port, listen={"http": {"address": f"127.0.0.1:{port}", "sockets": sockets}},
        workers=2, upgrade=quick(),
    )  # fmt: skip
    running = load(port, clients=CLIENTS)
    assert foreign(one) == []
    with Stranger(one.directory, "127.0.0.1", port) as stranger:
        assert stranger.joined == 1
        found = wait_foreign(one, 1)[0]
        assert found["uid"] == os.geteuid() and found["pid"] == stranger.pid
        assert found["program"].startswith("python")
        assert found["address"] == f"tcp:127.0.0.1:{port}"
        text = one.ctl("listeners").out
        assert f"(pid {stranger.pid}, uid {os.geteuid()}) has a socket of its own on" in text
        assert one.call("Events", since=0)["events"][-1]["event"] == "foreign-socket"
        # Once, however often it is looked.
        for _ in range(3):
            one.upgrade("web")
        assert n_reports(one) == 1
        assert f"pid {stranger.pid}" in one.log and f"127.0.0.1:{port}, too: it gets no connections" in one.log
        running.wait_more(500)
        assert stranger.got == 0
    wait_foreign(one, 0)
    assert "has no socket on" in one.log
    running.wait_more(100)
    assert_clean(running.stop(), 500)


def test_a_shared_queue_is_not_shared_with_strangers(web):
    """Without lanes nothing would keep connections from them, so they cannot join at all."""
    port = free_port()
    one = web(port=port, listen={"http": {"address": f"127.0.0.1:{port}", "steering": False}})
    with Stranger(one.directory, "127.0.0.1", port, "ra") as stranger:
        assert stranger.joined == 0
    one.upgrade("web")
    with Stranger(one.directory, "0.0.0.0", port, "ra") as stranger:
        assert stranger.joined == 0
    assert http_get(port).generation == 2


def test_more_specific(web):
    """It is not in the group, and gets what is for its address: the kernel's rule, so it is reported."""
    port = free_port()
    one = web(port=port, listen=f"0.0.0.0:{port}")
    with Stranger(one.directory, "127.0.0.1", port) as stranger:
        assert stranger.joined == 1
        assert wait_foreign(one, 1)[0]["address"] == f"tcp:127.0.0.1:{port}"
        assert "the more specific address" in one.log
        assert http_get(("127.0.0.2", port)).generation == 1
        assert stranger.got == 0
    wait_foreign(one, 0)


def test_a_worker_with_a_socket_of_its_own(web):
    """As programs do that are told the port instead of the socket."""
    one = web(start=False)
    one.config["services"]["web"]["command"] = [
        sys.executable, "-c", JOINER, "tcp", f"127.0.0.1/{one.port}/r",
    ]  # fmt: skip
    one.config["services"]["web"]["ready"] = {"by": "delay", "delay": "100ms", "accept": False}
    one.write_config()
    one.start()
    one.wait_serving()
    wait_foreign(one, 1)
    assert "one of its own processes, python" in one.log
    assert "have it use the socket that it is given" in one.log


class Crowd:
    """Strangers that come and go without a pause, from some sockets at a time."""

    def __init__(self, one, port, kind="tcp", seed=1):
        self.one, self.port, self.kind = one, port, kind
        self.random = random.Random(seed)
        self.present, self.past, self.stop = [], [], threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.stop.is_set():
            if len(self.present) < 4 and (not self.present or self.random.random() < 0.6):
                n = self.random.randrange(1, 4)
                new = Stranger(self.one.directory, "127.0.0.1", self.port, kind=self.kind, n=n)
                self.present.append(new.start())
            else:
                self._leave(self.random.randrange(len(self.present)))

    def _leave(self, i):
        gone = self.present.pop(i)
        gone.kill()
        self.past.append(gone)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        while self.present:
            self._leave(0)

    def check(self):
        everybody = [*self.present, *self.past]
        assert sum(s.joined for s in everybody) >= 5
        assert all(s.joined == len(s.lines("joined")) and not s.lines("refused") for s in everybody)
        assert sum(s.got for s in everybody) == 0


def test_come_and_go_under_load(web, load):
    """While sockets are added behind them, and used, and strangers leave from among ours."""
    port = free_port()
    one = web(port=port, listen=per_worker(port), workers=2, upgrade=quick())
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=200)
    with Crowd(one, port) as crowd:
        for n in (3, 4, 6, 8):
            running.wait_more(1000)
            one.ctl("scale", "web", n)
            one.wait_serving()
            one.upgrade("web")
            running.wait_for(generation=one.service()["generation"])
        for n in (5, 2, 6):
            one.ctl("scale", "web", n)
            one.wait_serving()
            running.wait_more(1000)
        one.upgrade("web")
        one.wait_serving()
    running.wait_more(500)
    crowd.check()
    assert n_reports(one) > 0
    assert "can only be guessed" not in one.log
    assert_clean(running.stop(), 5000)


def test_a_worker_shuts_a_socket_down_beside_a_stranger(web, load):
    """The stranger moves into its place in the group, which is named by the program until it is seen."""
    port = free_port()
    one = web(port=port, listen=per_worker(port), workers=4, upgrade=quick())
    with Stranger(one.directory, "127.0.0.1", port) as stranger:
        assert stranger.joined == 1
        wait_foreign(one, 1)
        one.manners.set("--if-worker 1 --shutdown-listener 300ms")
        one.upgrade("web")
        one.wait_log("shut the socket of listener http down")
        one.manners.set()
        # It is where one of ours was: had the daemon not seen it, a quarter would be its own.
        before = stranger.got
        running = load(port, clients=CLIENTS)
        running.wait_for(ok=2000)
        assert stranger.got == before
        kill_worker(one, 2, 0)
        assert_only_in_flight(running.stop(), 1)


def test_datagrams(daemon):
    """A UDP socket is a member as soon as it is bound."""
    one = udp_web(daemon, sockets="per-worker", workers=2)
    with Stranger(one.directory, "127.0.0.1", one.port, kind="udp") as stranger:
        assert stranger.joined == 1
        assert wait_foreign(one, 1, "dns")[0]["pid"] == stranger.pid
        assert "it gets no datagrams" in one.log
        one.ctl("scale", "web", 4)
        one.upgrade("web")
        one.wait_serving()
        assert stranger.got == 0
    wait_foreign(one, 0, "dns")


@pytest.mark.skipif(not IS_ROOT, reason="needs root")
def test_group_of_a_daemon_without_rights(daemon, load):
    """As an ordinary user the daemon finds its own user's strangers, too."""
    port = free_port()
    one = daemon(start=False, wrap=as_user(NOBODY))
    os.chown(one.directory, NOBODY, NOBODY)
    one.config = {"services": {"web": worker_service(per_worker(port), workers=2, upgrade=quick())}}
    one.write_config()
    one.start()
    one.wait_serving()
    running = load(port, clients=CLIENTS)
    with Stranger(one.directory, "127.0.0.1", port, uid=NOBODY) as stranger:
        assert stranger.joined == 1
        found = wait_foreign(one, 1)[0]
        assert (found["uid"], found["pid"]) == (NOBODY, stranger.pid)
        running.wait_more(300)
        assert stranger.got == 0
    assert_clean(running.stop(), 300)
