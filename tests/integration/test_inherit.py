# SPDX-License-Identifier: Apache-2.0
"""Sockets that come from a service manager: handed to workers, upgraded like our own, and given back as
they came."""

import os
import shutil
import signal
import socket
import stat
import sys

import pytest

from daemon import ROLLED_BACK, worker_service
from harness import assert_clean, free_port, has_ipv6, http_get, wait_until
from udp import ask, assert_none_lost, bound, listeners, pause, passing
from upgrades import quick, web_config

NOBODY = 65534

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


@pytest.fixture
def made():
    """made(socket) is closed with the test."""
    sockets = []

    def keep(new):
        sockets.append(new)
        return new

    yield keep
    for one in sockets:
        one.close()


def inheriting(*names, **keys):
    """A service "web" that inherits these names."""
    options = keys.pop("options", ())
    more = keys.pop("listener", {})
    keys.setdefault("ready", "notify")
    keys.setdefault("upgrade", quick())
    listen = {name: {"inherit": name, **more} for name in names}
    return {"services": {"web": worker_service(listen, *options, **keys)}}


def reuse_port(one):
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


# ---- upgrades ----


@pytest.mark.sanitize
@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_tcp(daemon, load, made, sockets, reuse):
    given = made(bound("tcp", ("127.0.0.1", free_port()), reuse_port=reuse))
    port = given.getsockname()[1]
    # Who came before the daemon waits in its queue.
    early = made(socket.create_connection(("127.0.0.1", port)))
    one = passing(
        daemon, [("web", given)], inheriting("web", workers=3, listener={"sockets": sockets})
    )
    one.wait_serving()
    entry = listeners(one)["web"]
    assert entry["origin"] == "inherited" and entry["kind"] == "group", entry
    assert entry["address"] == f"tcp:127.0.0.1:{port}"
    early.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert early.recv(1000).startswith(b"HTTP/1.1 200")
    running = load(port, clients=8)
    running.wait_for(generation=1, count=100)
    for number in range(2, 8):
        one.upgrade()
        running.wait_for(generation=number)
    one.ctl("rollback", "web")
    running.wait_more(100)
    # To the one that still drained, or to a new one that is made like it.
    assert one.service()["generation"] in (6, 8)
    result = running.stop()
    assert_clean(result, 500)
    assert set(range(1, 8)) <= set(result.generations)
    assert one.stop() == 0
    assert reuse_port(given) == reuse


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_udp(daemon, udp_load, made, sockets, reuse):
    given = made(bound("udp", ("127.0.0.1", free_port()), reuse_port=reuse))
    port = given.getsockname()[1]
    early = made(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    early.sendto(b"early", ("127.0.0.1", port))
    early.settimeout(15)
    one = passing(
        daemon, [("dns", given)], inheriting("dns", workers=2, listener={"sockets": sockets})
    )
    one.wait_serving()
    assert early.recv(100).endswith(b"early")
    entry = listeners(one)["dns"]
    assert (entry["origin"], entry["kind"]) == ("inherited", "group"), entry
    running = udp_load(port)
    running.wait_for(generation=1, count=200)
    for number in range(2, 12):
        one.upgrade()
        running.wait_for(generation=number)
    assert_none_lost(one, running.stop(), 1000, range(1, 12))
    assert one.stop() == 0
    assert reuse_port(given) == reuse


def test_failed_upgrade(daemon, udp_load, made):
    given = made(bound("udp", ("127.0.0.1", free_port())))
    config = inheriting("dns", options=["--if-generation", "2", "--exit-at-once"])
    config["services"]["web"]["restart"] = {"limit": {"starts": 2}}
    one = passing(daemon, [("dns", given)], config)
    one.wait_serving()
    running = udp_load(given.getsockname()[1])
    running.wait_for(generation=1, count=200)
    one.upgrade(check=ROLLED_BACK)
    running.wait_more(200)
    one.upgrade()
    running.wait_for(generation=3)
    assert_none_lost(one, running.stop(), 400, [1, 3])


def test_unix(daemon, load, made, tmp_path):
    """Held, as our own are; the path is not ours to remove."""
    path = tmp_path / "web.sock"
    given = made(bound("unix", str(path)))
    one = passing(daemon, [("web", given)], inheriting("web", workers=2))
    one.wait_serving()
    entry = listeners(one)["web"]
    assert entry["kind"] == "held" and "Unix" in entry["reason"]
    running = load(f"unix:{path}", clients=4)
    running.wait_for(generation=1, count=100)
    for number in range(2, 5):
        one.upgrade()
        running.wait_for(generation=number)
    assert_clean(running.stop(), 200, generations=range(1, 5))
    assert one.stop() == 0
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    path.unlink()


@needs_ipv6
def test_several_of_one_name(daemon, made):
    """As from a socket unit with several Listen...= lines: each is handed over, under that name."""
    port = free_port()
    four = made(bound("tcp", ("127.0.0.1", port)))
    six = made(bound("tcp", ("::1", port)))
    datagrams = made(bound("udp", ("127.0.0.1", port)))
    one = passing(
        daemon,
        [("web", four), ("other", made(bound("tcp", ("127.0.0.1", 0)))), ("web", six), ("web", datagrams)],
        inheriting("web", options=["--print-env"], workers=1, output="tee"),
    )
    one.wait_serving()
    entries = one.call("Listeners", service="web")["listeners"]
    assert [entry["address"] for entry in entries] == [
        f"tcp:127.0.0.1:{port}",
        f"tcp:[::1]:{port}",
        f"udp:127.0.0.1:{port}",
    ]
    assert len({entry["name"] for entry in entries}) == 3
    one.wait_log(r"LISTEN_FDNAMES=web:web:web")
    for _ in range(2):
        generation = one.service()["generation"]
        assert http_get(("127.0.0.1", port)).generation == generation
        assert http_get(("::1", port)).generation == generation
        assert ask(port)[0] == generation
        one.upgrade()
    one.wait_log(r'the socket "other" \(tcp:127.0.0.1:[0-9]+\) came, but no service asks for it')


# ---- socket options ----


def options_of(one, name="web"):
    return {option["key"]: option for option in listeners(one)[name]["options"]}


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_options(daemon, load, made, sockets):
    """What the unit has set holds for the further sockets too, unless the configuration says something
    else; what that has set is taken back."""
    given = made(bound("tcp", ("127.0.0.1", free_port())))
    came = {
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
        (socket.SOL_SOCKET, socket.SO_RCVBUF): 131072,
        (socket.IPPROTO_IP, socket.IP_TOS): 16,
        (socket.IPPROTO_IP, socket.IP_TTL): 33,
        (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 100,
    }
    for (level, name), value in came.items():
        given.setsockopt(level, name, value)
    more = [(socket.IPPROTO_TCP, socket.TCP_KEEPCNT), (socket.IPPROTO_IP, 49), (socket.IPPROTO_IP, 24)]
    before = {which: given.getsockopt(*which) for which in [*came, *more]}
    config = inheriting("web", workers=2, listener={"sockets": sockets, "ttl": 44, "keepcnt": 7})
    one = passing(daemon, [("web", given)], config)
    one.wait_serving()
    running = load(given.getsockname()[1], clients=4)
    running.wait_for(generation=1)
    listener = web_config(one)["listen"]["web"]
    for number in range(2, 6):
        if number == 4:
            # In place: the unit's own value comes back.
            del listener["ttl"]
            one.write_config()
            one.reload()
        found = options_of(one)
        actual = {key: found[key]["actual"] for key in ("keepalive", "tos", "ttl", "nodelay", "keepidle", "keepcnt")}
        assert actual == {
            "keepalive": "true", "tos": "16", "ttl": "44" if number < 4 else "33", "nodelay": "true",
            "keepidle": "1m40s", "keepcnt": "7",
        }  # fmt: skip
        assert found["rcvbuf"]["actual"] == "256K"
        assert found["keepalive"]["note"] == "as its socket came"
        # The test's worker makes it so; and nobody else changed anything.
        assert found.pop("nonblocking")["note"] == "not asked for: set by a worker"
        assert not [o for o in found.values() if "differ" in (o["note"] or "") or "worker" in (o["note"] or "")], found
        one.upgrade()
        running.wait_for(generation=number)
    assert_clean(running.stop(), 100, generations=range(1, 6))
    assert one.stop() == 0
    assert {which: given.getsockopt(*which) for which in before} == before


@needs_ipv6
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_ipv6_only(daemon, made, kind):
    """The further sockets take no IPv4 either, which is somebody else's."""
    port = free_port()
    given = made(socket.socket(socket.AF_INET6, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM))
    given.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    given.bind(("::", port))
    if kind == "tcp":
        given.listen()
    made(bound(kind, ("0.0.0.0", port)))
    one = passing(daemon, [("web", given)], inheriting("web", workers=2))
    one.wait_serving()
    entry = listeners(one)["web"]
    assert (entry["kind"], entry["foreign"]) == ("group", []), entry
    for number in range(2, 4):
        one.upgrade()
        if kind == "tcp":
            assert http_get(("::1", port)).generation == number


@pytest.mark.root
def test_option_that_cannot_be_copied(daemon, made):
    """It takes a capability: told, and no reason not to serve."""
    os.seteuid(NOBODY)
    try:
        given = made(bound("tcp", ("127.0.0.1", free_port())))
    finally:
        os.seteuid(0)
    given.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
    one = passing(daemon, [("web", given)], inheriting("web"), start=False, wrap=as_nobody())
    one.directory.chmod(0o777)
    os.chown(one.config_path, NOBODY, NOBODY)
    one.start()
    one.wait_serving()
    entry = listeners(one)["web"]
    assert entry["kind"] == "group", entry["reason"]
    one.wait_log("an option that its socket came with cannot be given to those beside it: mark")
    one.upgrade()
    assert http_get(given.getsockname()[1]).generation == 2


# ---- the way back ----


def test_goes_back_as_it_came(daemon, made):
    """Who connects while nobody serves waits in the queue, for the next start, or for the service
    manager; with no program that would lead elsewhere."""
    given = made(bound("tcp", ("127.0.0.1", free_port()), listen=77))
    port = given.getsockname()[1]
    one = passing(daemon, [("web", given)], inheriting("web", workers=2, listener={"backlog": 200}))
    one.wait_serving()
    one.upgrade()
    before = one.fd_count()
    for _ in range(3):
        one.ctl("stop", "web")
        assert not listeners(one)
        assert reuse_port(given) == 0
        waiting = [made(socket.create_connection(("127.0.0.1", port))) for _ in range(20)]
        one.ctl("start", "web")
        one.wait_serving()
        for client in waiting:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
    # The stop left its snapshots, no sockets.
    assert one.fd_count() <= before + 6
    assert one.stop() == 0
    waiting = [made(socket.create_connection(("127.0.0.1", port))) for _ in range(20)]
    given.settimeout(5)
    for _ in waiting:
        given.accept()[0].close()
    # TCP_INFO: tcpi_sacked of a listening socket is its backlog.
    info = given.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
    assert int.from_bytes(info[28:32], sys.byteorder) == 77
    assert not (os.get_blocking(given.fileno()) is False and given.gettimeout() is None)


def test_datagrams_wait_for_the_next_start(daemon, made):
    given = made(bound("udp", ("127.0.0.1", free_port())))
    port = given.getsockname()[1]
    one = passing(daemon, [("dns", given)], inheriting("dns"))
    one.wait_serving()
    one.upgrade()
    one.ctl("stop", "web")
    client = made(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.settimeout(15)
    for i in range(10):
        client.sendto(b"%d" % i, ("127.0.0.1", port))
    one.ctl("start", "web")
    answers = {client.recv(100).split()[3] for _ in range(10)}
    assert answers == {b"%d" % i for i in range(10)}


def test_another_service_takes_it(daemon, made):
    """A reload that moves the name to another service."""
    given = made(bound("tcp", ("127.0.0.1", free_port())))
    port = given.getsockname()[1]
    one = passing(daemon, [("web", given)], inheriting("web"))
    one.wait_serving()
    del one.config["services"]["web"]
    one.config["services"]["idle"] = worker_service(free_port())
    one.write_config()
    one.reload()
    wait_until(lambda: [s["name"] for s in one.services()] == ["idle"], 20, "web to be gone")
    one.config["services"]["next"] = inheriting("web")["services"]["web"]
    one.write_config()
    one.reload()
    one.wait_serving("next")
    assert http_get(port).status == 200


# ---- what came, and what did not ----


def test_did_not_come(daemon, made):
    """The error names what was wanted, what came, and the key of the socket unit; others are served."""
    port = free_port()
    config = inheriting("https")
    config["services"]["other"] = worker_service(port)
    one = passing(daemon, [("http", made(bound("tcp", ("127.0.0.1", 0))))], config)
    one.wait_serving("other")
    reason = one.service("web")["lastFailure"]["reason"]
    for part in ('no socket "https" came', '"http" (tcp:127.0.0.1:', "FileDescriptorName=https"):
        assert part in reason, reason


def test_nothing_came(daemon):
    config = inheriting("https")
    config["services"]["other"] = worker_service(free_port())
    one = daemon(config)
    one.wait_serving("other")
    reason = one.service("web")["lastFailure"]["reason"]
    assert "none at all" in reason and "FileDescriptorName=https" in reason, reason


def test_reload_takes_what_came_at_the_start(daemon, udp_load, made):
    """And what nobody asks for is kept open, untouched."""
    given = made(bound("udp", ("127.0.0.1", free_port())))
    more = made(bound("tcp", ("127.0.0.1", free_port())))
    one = passing(daemon, [("dns", given), ("more", more)], inheriting("dns"))
    one.wait_serving()
    one.wait_log('the socket "more"')
    running = udp_load(given.getsockname()[1])
    running.wait_for(generation=1, count=200)
    waiting = made(socket.create_connection(more.getsockname()))
    web_config(one)["listen"]["more"] = {"inherit": "more"}
    one.write_config()
    one.reload()
    one.wait_serving()
    waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert waiting.recv(1000).startswith(b"HTTP/1.1 200")
    running.wait_for(generation=2)
    assert_none_lost(one, running.stop(), 200, [1, 2])
    # And leaves it again.
    del web_config(one)["listen"]["more"]
    one.write_config()
    one.reload()
    one.wait_serving()
    wait_until(lambda: set(listeners(one)) == {"dns"}, what="the listener to be let go")
    waiting = made(socket.create_connection(more.getsockname()))
    more.settimeout(5)
    more.accept()[0].close()


def test_not_a_socket(daemon, made, tmp_path):
    file = made(open(tmp_path / "file", "w", encoding="utf-8"))  # pylint: disable=consider-using-with
    given = made(bound("tcp", ("127.0.0.1", free_port())))
    one = passing(daemon, [("odd", file), ("web", given)], inheriting("web"))
    one.wait_serving()
    one.wait_log('"odd".* is no socket')
    assert http_get(given.getsockname()[1]).status == 200


def test_workers_do_not_get_the_rest(daemon, made):
    """Exactly their own: not what came beside it, nor LISTEN_PID of the daemon."""
    given = made(bound("tcp", ("127.0.0.1", free_port())))
    more = made(bound("tcp", ("127.0.0.1", 0)))
    one = passing(
        daemon, [("more", more), ("web", given)], inheriting("web", options=["--fail-if-fds"])
    )
    one.wait_serving()
    assert http_get(given.getsockname()[1]).status == 200


# ---- whose socket it is ----


def as_nobody():
    return [shutil.which("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@pytest.mark.root
def test_of_another_user(daemon, load, made):
    """An ordinary user cannot join root's socket: it is held, and says so; still nothing gets lost."""
    given = made(bound("tcp", ("127.0.0.1", free_port())))
    one = passing(daemon, [("web", given)], inheriting("web", workers=2), start=False, wrap=as_nobody())
    one.directory.chmod(0o777)
    os.chown(one.config_path, NOBODY, NOBODY)
    one.start()
    one.wait_serving()
    entry = listeners(one)["web"]
    assert entry["kind"] == "held" and "another user's socket" in entry["reason"], entry
    assert reuse_port(given) == 0
    running = load(given.getsockname()[1], clients=4)
    running.wait_for(generation=1, count=100)
    for number in range(2, 5):
        one.upgrade()
        running.wait_for(generation=number)
    assert_clean(running.stop(), 100)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_root_joins_another_users(daemon, made, kind):
    """The group is its first socket's user's, so root's further sockets are made his."""
    os.seteuid(NOBODY)
    try:
        given = made(bound(kind, ("127.0.0.1", free_port())))
    finally:
        os.seteuid(0)
    assert os.fstat(given.fileno()).st_uid == NOBODY
    port = given.getsockname()[1]
    one = passing(daemon, [("web", given)], inheriting("web", workers=2))
    one.wait_serving()
    assert listeners(one)["web"]["kind"] == "group"
    for number in range(2, 5):
        one.upgrade()
        assert (ask(port)[0] if kind == "udp" else http_get(port).generation) == number


# ---- systemd's own tool ----


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="no systemd-socket-activate")
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_socket_activate(daemon, made, kind):
    """systemd-socket-activate starts the daemon when somebody comes; who came is served."""
    port = free_port()
    wrap = [shutil.which("systemd-socket-activate"), f"--listen=127.0.0.1:{port}", "--fdname=web"]
    wrap += ["--datagram"] if kind == "udp" else []
    one = daemon(inheriting("web", workers=2), start=False, wrap=wrap)
    one.start(wait=False)

    def come():
        assert one.is_running(), one.log
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        client.settimeout(15)
        try:
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return made(client) if client.recv(1000) else None
        except ConnectionRefusedError:
            client.close()
            return None

    wait_until(come, 20, "an answer")
    one.wait_control()
    one.wait_serving()
    assert listeners(one)["web"]["kind"] == "group"
    one.upgrade()
    assert (ask(port)[0] if kind == "udp" else http_get(port).generation) == 2


def test_crash_keeps_the_queue(daemon, made):
    """A worker of an inherited socket that dies leaves its queue to the next."""
    given = made(bound("udp", ("127.0.0.1", free_port())))
    port = given.getsockname()[1]
    one = passing(daemon, [("dns", given)], inheriting("dns", restart={"backoff": {"from": "1s"}}))
    one.wait_serving()
    client = made(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.settimeout(15)
    for _ in range(3):
        os.kill(one.pids()[0], signal.SIGKILL)
        pause(0.05)
        for i in range(5):
            client.sendto(b"%d" % i, ("127.0.0.1", port))
        assert {client.recv(100).split()[3] for _ in range(5)} == {b"%d" % i for i in range(5)}
