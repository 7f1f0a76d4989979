# SPDX-License-Identifier: Apache-2.0
"""What a service can listen on: IPv6, both families, Unix sockets, several at once, and what is in the
way."""

import os
import signal
import socket
import stat

import pytest

from daemon import worker_service
from harness import WORKER, assert_clean, connect, free_port, has_ipv6, http_get, wait_until
from upgrades import CLIENTS, assert_in_order, per_worker, quick, upgrade_many, web_config

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


def listeners(one, service="web"):
    return {entry["name"]: entry for entry in one.call("Listeners", service=service)["listeners"]}


# ---- IPv6 ----


@needs_ipv6
@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_ipv6(web, load, sockets):
    port = free_port()
    listen = per_worker(port, "[::1]") if sockets == "per-worker" else f"[::1]:{port}"
    one = web(workers=2, port=port, listen=listen, upgrade=quick())
    running = load(("::1", port), clients=CLIENTS)
    running.wait_for(ok=100)
    assert_in_order(upgrade_many(one, running, 5, min_requests=500))


@needs_ipv6
def test_both_families(web, load):
    """[::] takes IPv4 as well, and both are steered."""
    port = free_port()
    one = web(workers=2, port=port, listen=f"[::]:{port}", upgrade=quick())
    four, six = load(port, clients=4), load(("::1", port), clients=4)
    four.wait_for(ok=100)
    for number in range(2, 7):
        one.upgrade()
        four.wait_for(generation=number)
        six.wait_for(generation=number)
    for running in (four, six):
        result = running.stop()
        assert_clean(result, 500, generations=range(1, 7))
        assert_in_order(result)


@needs_ipv6
def test_ipv6_only(web):
    port = free_port()
    one = web(workers=1, port=port, listen={"http": {"address": f"[::]:{port}", "v6only": True}})
    assert http_get(("::1", port)).generation == 1
    with pytest.raises(ConnectionRefusedError):
        connect(port)
    assert one.service()["healthy"]


# ---- Unix sockets ----


def unix_address(one, kind):
    if kind == "abstract":
        return f"unix:@tenured-test-{os.getpid()}-{one.directory.name}"
    return f"unix:{one.directory}/web.sock"


def unix_web(web, kind, *options, **keys):
    one = web(*options, start=False, ready={"by": "notify"}, upgrade=quick(), **keys)
    one.address = unix_address(one, kind)
    web_config(one)["listen"] = one.address
    one.write_config()
    one.start()
    one.wait_serving()
    return one


@pytest.mark.sanitize
@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_unix(web, load, kind):
    one = unix_web(web, kind, workers=2)
    running = load(one.address, clients=CLIENTS)
    running.wait_for(ok=100)
    result = upgrade_many(one, running, 10, min_requests=500)
    assert set(result.generations) == set(range(1, 12))
    entry = listeners(one)["http"]
    assert entry["kind"] == "held" and "Unix" in entry["reason"]


def test_unix_path_is_not_replaced(web, load):
    """Upgrades keep the socket; who had it connects to it still."""
    one = unix_web(web, "path", workers=1)
    path = one.directory / "web.sock"
    before = os.stat(path)
    running = load(one.address, clients=CLIENTS, think="1ms")
    for _ in range(3):
        one.upgrade()
        one.ctl("restart", "web")
    after = os.stat(path)
    assert (before.st_ino, before.st_dev) == (after.st_ino, after.st_dev)
    assert_clean(running.stop(), 10)


def test_unix_mode(web):
    one = web(start=False, ready={"by": "notify"})
    path = one.directory / "web.sock"
    web_config(one)["listen"] = {"http": {"address": f"unix:{path}", "mode": "0600"}}
    one.write_config()
    one.start()
    one.wait_serving()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert one.stop() == 0
    assert not path.exists()


def test_unix_path_left_by_the_dead(web):
    """A path that nobody listens on is taken over, one that somebody listens on is not."""
    one = web(start=False, ready={"by": "notify"})
    path = one.directory / "web.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    web_config(one)["listen"] = f"unix:{path}"
    one.write_config()
    one.start()
    one.wait_serving()
    assert http_get(f"unix:{path}").generation == 1


def test_unix_path_that_is_something_else(web):
    one = web(start=False, ready={"by": "notify"})
    path = one.directory / "web.sock"
    path.write_text("precious")
    web_config(one)["listen"] = f"unix:{path}"
    one.write_config()
    one.expect_exit = 1
    one.start(wait=False)
    assert one.wait(10) != 0
    assert "not a socket" in one.log
    assert path.read_text() == "precious"
    one.expect_exit = one.process.returncode


def test_unix_worker_unlinks(web, load):
    """A worker that removes "its" path on its way out: the address is back at once."""
    one = unix_web(web, "path", "--unlink", workers=1)
    running = load(one.address, clients=CLIENTS, think="1ms")
    running.wait_for(ok=50)
    path = one.directory / "web.sock"
    before = os.stat(path)
    for number in range(2, 5):
        one.upgrade()
        one.wait_generation_gone(number - 1)
        wait_until(lambda: can_connect(one.address), what="the path")
    assert os.stat(path).st_ino == before.st_ino
    os.kill(one.pids()[0], signal.SIGTERM)
    one.wait_log("had been removed, perhaps by a worker")
    wait_until(lambda: can_connect(one.address), what="the path")
    result = running.stop()
    # Between its unlink and the end of the worker it was not there.
    assert set(result["failures"]) <= {"other", "refused"}, result.summary()
    assert result["failed"] < result["ok"], result.summary()
    assert one.stop() == 0
    assert not any(one.directory.glob(".web.sock*"))


def can_connect(address):
    try:
        connect(address).close()
        return True
    except OSError:
        return False


def test_unix_shut_down(web, load):
    """A Unix socket cannot be revived: it is bound anew, and its workers are replaced."""
    one = unix_web(web, "path", workers=2)
    one.manners.set(f"--if-first {one.directory}/did --shutdown-listener 200ms")
    one.upgrade()
    one.wait_log("bound anew")
    one.wait_serving()
    running = load(one.address, clients=CLIENTS, think="1ms")
    running.wait_for(ok=200)
    one.upgrade()
    assert_clean(running.stop(), 200)


def test_unix_exits_at_once_on_term(web, load):
    """The queue is shared with the old generation: what it accepts at the last moment is its own."""
    one = unix_web(web, "path", workers=2)
    running = load(one.address, clients=CLIENTS, think="1ms")
    for number in range(2, 5):
        one.upgrade()
        one.wait_generation_gone(number - 1)
    running.wait_for(ok=150, generation=4)
    assert_clean(running.stop(), 100)


# ---- several, and kinds of handing over ----


def test_several(web, load):
    ports = [free_port() for _ in range(3)]
    one = web(workers=2, start=False, upgrade=quick())
    unix = f"unix:{one.directory}/admin.sock"
    web_config(one)["listen"] = {
        "public": f"127.0.0.1:{ports[0]}",
        "private": {"address": f"127.0.0.1:{ports[1]}", "sockets": "per-worker"},
        "held": {"address": f"127.0.0.1:{ports[2]}", "steering": "off"},
        "admin": unix,
    }
    one.write_config()
    one.start()
    one.wait_serving()
    found = listeners(one)
    assert {name: entry["kind"] for name, entry in found.items()} == {
        "public": "group", "private": "group", "held": "held", "admin": "held",
    }  # fmt: skip
    assert found["private"]["sockets"] == "perWorker"
    addresses = [*ports, unix]
    running = [load(address, clients=3, think="1ms") for address in addresses]
    for number in range(2, 6):
        one.upgrade()
        for load_of_one in running:
            load_of_one.wait_for(generation=number)
    for load_of_one in running:
        assert_clean(load_of_one.stop(), 50, generations=range(1, 6))


def test_held_tcp(web, load):
    """steering: off: one queue, which always has an owner."""
    port = free_port()
    one = web(
        workers=2, port=port, listen={"http": {"address": f"127.0.0.1:{port}", "steering": "off"}},
        ready="notify", upgrade=quick(),
    )  # fmt: skip
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    upgrade_many(one, running, 10, min_requests=500)


def test_by_number_in_the_arguments(web):
    """{fd:NAME}, for programs that know nothing of LISTEN_FDS."""
    one = web(start=False, handoff=["arguments"], upgrade=quick())
    web_config(one)["command"] = [WORKER, "--fd", "{fd:http}"]
    one.write_config()
    one.start()
    one.wait_serving()
    env = http_get(one.port, "/env").text
    assert "LISTEN_FDS" not in env
    one.upgrade()
    assert http_get(one.port).generation == 2


def test_as_standard_input(web):
    one = web(start=False, handoff=["stdin"], upgrade=quick())
    web_config(one)["command"] = [WORKER, "--stdin"]
    one.write_config()
    one.start()
    one.wait_serving()
    assert http_get(one.port, "/fds").text.splitlines()[0].startswith("0 inherited socket:")
    one.upgrade()
    assert http_get(one.port).generation == 2


# ---- what is in the way ----


def test_port_is_taken(web, worker):
    """The error names who has it, and nothing is started."""
    other = worker()
    one = web(port=other.address, start=False)
    one.start(wait=False)
    assert one.wait(10) != 0
    one.expect_exit = one.process.returncode
    assert f":{other.address}" in one.log and str(other.pid) in one.log, one.log
    assert http_get(other.address).generation is None


def test_no_silent_share(web):
    """Not even with somebody of the same user who would share."""
    port = free_port()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        one = web(port=port, start=False)
        one.start(wait=False)
        assert one.wait(10) != 0
        one.expect_exit = one.process.returncode


def test_restart_over_time_wait(web, load):
    """The daemon comes back at once on a port that has just been in use."""
    one = web(workers=1)
    running = load(one.port, clients=CLIENTS)
    running.wait_for(ok=500)
    running.stop()
    assert one.stop() == 0
    one.start()
    one.wait_serving()
    assert http_get(one.port).status == 200


def test_services_are_apart(daemon, load):
    """An upgrade of one does not touch the other."""
    ports = free_port(), free_port()
    one = daemon(
        {
            "services": {
                "a": worker_service(f"127.0.0.1:{ports[0]}", workers=2, upgrade=quick()),
                "b": worker_service(f"127.0.0.1:{ports[1]}", workers=2, upgrade=quick()),
            }
        }
    )
    one.wait_serving("a")
    one.wait_serving("b")
    pids = one.pids("b")
    running = [load(port, clients=4) for port in ports]
    for number in range(2, 6):
        one.upgrade("a")
        running[0].wait_for(generation=number)
    assert one.pids("b") == pids
    one.ctl("upgrade", "a", "b")
    running[1].wait_for(generation=2)
    assert_clean(running[0].stop(), 100, generations=range(1, 7))
    assert_clean(running[1].stop(), 100, generations=[1, 2])
