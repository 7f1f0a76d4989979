# SPDX-License-Identifier: Apache-2.0
"""Taking over where more happens: the daemon dies or is replaced meanwhile, the new generation fails when it
has connections already, several addresses, sockets that others share."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from daemon import FAILED, NOT_PERMITTED, worker_service
from harness import IS_ROOT, Worker, assert_clean, connect, free_port, http_get, wait_until
from own_keeper import OwnKeeper
from test_adopt import assert_path_back, old, socket_of, stopped  # noqa: F401  pylint: disable=unused-import
from upgrades import quick

# pylint: disable=redefined-outer-name

# Listens as the arguments say, each "ADDRESS:PORT[,reuseport]", and answers nobody.
LISTENER = """import socket, sys, time
made = []
for text in sys.argv[1:]:
    address, _, reuse = text.partition(",")
    host, _, port = address.rpartition(":")
    one = socket.socket()
    if reuse:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((host, int(port)))
    one.listen()
    made.append(one)
print("listening", flush=True)
time.sleep(600)
"""


@pytest.fixture
def listener(old, tmp_path):
    """listener("127.0.0.1:80", ...): a program that listens there."""
    path = tmp_path / "listener.py"
    path.write_text(LISTENER)

    def make(*addresses):
        one = old([sys.executable, path, *addresses], int(addresses[0].partition(",")[0].rpartition(":")[2]))
        # Another may have answered.
        wait_until(lambda: "listening" in one.out, what="the listener")
        return one

    return make


# ---- the daemon ends meanwhile ----


@pytest.fixture
def kept(no_strays):  # pylint: disable=unused-argument
    """A daemon with a keeper, and a service that does not run."""
    made = []

    def make(listen, *options, **keys):
        keys.setdefault("upgrade", quick())
        service = worker_service(listen, *options, autostart=False, **keys)
        one = OwnKeeper({"services": {"web": service}})
        made.append(one)
        return one.start()

    yield make
    for one in made:
        one.remove()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_killed_before(kept, load, tmp_path, kind):
    """SIGKILL while the new generation starts: the next daemon goes on, with the same process."""
    address = free_port() if kind == "tcp" else f"unix:{tmp_path}/web.sock"
    with Worker(tmp_path, address=address) as server:
        server.wait_listening()
        listen = f"127.0.0.1:{address}" if kind == "tcp" else address
        one = kept(listen, "--ready-delay", "2s", ready="notify")
        running = load(address, clients=8)
        running.wait_more(100)
        one.ctl("adopt", "web", "--pid", server.pid, "--detach")
        one.crash_daemon()
        adopted = one.service()["generations"][0]
        assert adopted["adopted"] and adopted["workers"][0]["pid"] == server.pid
        running.wait_for(generation=2, count=200)
        assert server.wait(20) == 0
        one.wait_generation_gone(1)
        one.upgrade()
        running.wait_for(generation=3)
        result = running.stop()
        if kind == "unix" and result["failed"]:
            # With --detach nobody else waits for the path to vanish.
            assert set(result["failures"]) == {"refused"} and result["failed"] < 200, result.summary()
        else:
            assert_clean(result, 300)
        assert one.stop() == 0


@pytest.mark.parametrize("how", ["killed", "reexec"])
def test_drains_meanwhile(kept, load, worker, how):
    """While the old process drains: it is waited for as before, and ended if it does not end."""
    server = worker("--ignore-term")
    one = kept(f"127.0.0.1:{server.address}",
        drain={"settle": "50ms", "idle_wait": "0s", "timeout": "3s", "kill_after": "500ms"})
    running = load(server.address, clients=8)
    running.wait_more(100)
    one.ctl("adopt", "web", "--pid", server.pid)
    assert server.is_running()
    if how == "killed":
        one.crash_daemon()
    else:
        one.ctl("reexec")
    draining = one.service()["generations"][0]
    assert draining["adopted"] and draining["workers"][0]["pid"] == server.pid
    assert server.wait(20) == -signal.SIGKILL
    one.wait_generation_gone(1)
    one.upgrade()
    running.wait_for(generation=3)
    assert_clean(running.stop(), 200)
    assert one.stop() == 0


def test_killed_for_good(daemon, load, worker):
    """Without a keeper nothing of ours is left, and the old process goes on."""
    server = worker()
    one = stopped(daemon, f"127.0.0.1:{server.address}", "--ready-delay", "60s", ready="notify")
    running = load(server.address, clients=8)
    running.wait_more(100)
    one.ctl("adopt", "web", "--pid", server.pid, "--detach")
    strays = one.pids()
    one.crash()
    for pid in strays:
        if pid != server.pid:
            os.kill(pid, signal.SIGKILL)
    running.wait_more(500)
    assert server.is_running()
    assert_clean(running.stop(), 500)


# ---- the new one fails when it has connections already ----


@pytest.mark.parametrize("strategy", ["blue-green", "canary", "rolling"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_fails_in_soak(daemon, load, tmp_path, strategy, kind):
    """Verification says no: the old process has all the connections again, and is as it was."""
    if kind == "unix" and strategy == "canary":
        pytest.skip("one queue has no shares")
    address = free_port() if kind == "tcp" else f"unix:{tmp_path}/web.sock"
    verdict = tmp_path / "verdict"
    with Worker(tmp_path, address=address) as server:
        server.wait_listening()
        listen = f"127.0.0.1:{address}" if kind == "tcp" else address
        upgrade = {"strategy": strategy, "soak": "500ms",
            "verify": {"command": ["test", "!", "-e", str(verdict)], "interval": "100ms"}}
        one = stopped(daemon, listen, ready="notify", upgrade=upgrade)
        running = load(address, clients=8)
        running.wait_more(100)
        verdict.touch()
        failed = one.ctl("adopt", "web", "--pid", server.pid, check=None)
        assert failed.code != 0 and "verif" in failed.err, failed
        wait_until(lambda: one.service()["state"] == "stopped", what="the service to be stopped")
        running.wait_more(300)
        assert server.is_running()
        verdict.unlink()
        one.ctl("adopt", "web", "--pid", server.pid)
        assert server.wait(20) == 0
        running.wait_more(300)
        result = running.stop()
        if kind == "unix":
            assert_path_back(result, 500)
        else:
            assert_clean(result, 500)


def test_rollback(daemon, load, worker):
    """To the process itself, as long as it is kept warm; then it goes on alone."""
    server = worker()
    one = stopped(daemon, f"127.0.0.1:{server.address}", upgrade={**quick(), "keep_warm": "60s"})
    running = load(server.address, clients=8)
    running.wait_more(100)
    one.ctl("adopt", "web", "--pid", server.pid)
    running.wait_for(generation=2, count=100)
    assert server.is_running()
    assert one.service()["generations"][0]["executable"] == os.path.realpath(os.environ["TENURE_WORKER"])
    one.ctl("rollback", "web")
    wait_until(lambda: len(one.service()["generations"]) == 0, 20, "the service to have let it go")
    running.wait_more(300)
    assert server.is_running()
    assert_clean(running.stop(), 300)
    # There is no way back to what is not ours any more.
    one.ctl("adopt", "web", "--pid", server.pid)
    one.ctl("stop", "web")
    assert server.wait(20) == 0
    one.ctl("start", "web")
    gone = one.ctl("rollback", "web", "--to", "3", check=FAILED)
    assert "no generation 3" in gone.err


def test_recreate(daemon, worker):
    """It would be ended first."""
    server = worker()
    one = stopped(daemon, f"127.0.0.1:{server.address}", upgrade="recreate")
    refused = one.ctl("adopt", "web", "--pid", server.pid, check=FAILED)
    assert "recreate" in refused.err
    assert server.is_running() and one.service()["generations"] == []


# ---- which sockets ----


def test_several_addresses(daemon, load, worker):
    ports = [free_port() for _ in range(3)]
    server = worker("--listen", f"127.0.0.1:{ports[1]}", "--listen", f"127.0.0.1:{ports[2]}", address=ports[0])
    both = {"a": f"127.0.0.1:{ports[0]}", "b": f"127.0.0.1:{ports[1]}"}
    one = stopped(daemon, both)
    # One of its addresses would be closed with it.
    refused = one.ctl("adopt", "web", "--pid", server.pid, check=FAILED)
    assert f"listens on tcp:127.0.0.1:{ports[2]}" in refused.err and "--address" in refused.err
    one.config["services"]["web"]["listen"]["c"] = f"127.0.0.1:{ports[2]}"
    one.write_config()
    one.reload()
    running = [load(port, clients=4) for port in ports]
    for each in running:
        each.wait_more(50)
    one.ctl("adopt", "web", "--pid", server.pid)
    for each in running:
        each.wait_for(generation=2, count=100)
    assert server.wait(20) == 0
    one.upgrade()
    for each in running:
        each.wait_for(generation=3)
        assert_clean(each.stop(), 100)


def test_one_of_several(daemon, load, worker):
    """--address takes only that one. What the service listens on besides is new."""
    ports = [free_port() for _ in range(3)]
    server = worker("--listen", f"127.0.0.1:{ports[1]}", address=ports[0])
    one = stopped(daemon, {"a": f"127.0.0.1:{ports[0]}", "new": f"127.0.0.1:{ports[2]}"})
    running = load(ports[0], clients=4)
    running.wait_more(50)
    one.ctl("adopt", "web", "--pid", server.pid, "--address", f"127.0.0.1:{ports[0]}")
    running.wait_for(generation=2, count=100)
    assert http_get(ports[2]).status == 200
    assert server.wait(20) == 0
    assert_clean(running.stop(), 100)
    with pytest.raises(OSError):
        connect(ports[1]).close()


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")
def test_ipv6(daemon, load, old, tmp_path):
    """[::], as servers bind it: with IPv4 and without."""
    port = free_port()
    script = tmp_path / "v6.py"
    script.write_text(
        "import http.server, socket, socketserver, sys\n"
        "class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):\n"
        "    address_family, request_queue_size, daemon_threads = socket.AF_INET6, 128, True\n"
        "    def server_bind(self):\n"
        "        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)\n"
        "        super().server_bind()\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('Content-Length', '0'); self.end_headers()\n"
        "    def log_message(self, *_): pass\n"
        "Server(('::', int(sys.argv[1])), Handler).serve_forever()\n"
    )
    server = old([sys.executable, script, port], port)
    one = stopped(daemon, {"http": {"address": f"[::]:{port}", "v6only": True}})
    refused = one.ctl("adopt", "web", "--pid", server.pid, check=FAILED)
    assert "v6only: false" in refused.err
    one.config["services"]["web"]["listen"]["http"]["v6only"] = False
    one.write_config()
    one.reload()
    running = load(port, clients=8)
    running.wait_more(100)
    one.ctl("adopt", "web", "--pid", server.pid)
    running.wait_for(generation=2, count=100)
    server.wait(20)
    assert_clean(running.stop(), 200)


def test_shared_by_others(daemon, listener):
    """Another process has a socket of its own there: its queue would not be ours."""
    port = free_port()
    server, other = (listener(f"127.0.0.1:{port},reuseport") for _ in range(2))
    one = stopped(daemon, f"127.0.0.1:{port}")
    refused = one.ctl("adopt", "web", "--pid", server.pid, check=FAILED)
    assert "SO_REUSEPORT" in refused.err and "queue of its own" in refused.err, refused
    assert one.service()["generations"] == [] and one.call("Listeners")["listeners"] == []
    # Both are as they were.
    for each in (server, other):
        with socket_of(each.pid, port) as its:
            assert its.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1


def test_came_as_group(daemon, load, old, tmp_path):
    """One socket with SO_REUSEPORT is no hindrance, and keeps it when it is let go of."""
    port = free_port()
    script = tmp_path / "server.py"
    script.write_text(
        "import http.server, socket, socketserver, sys\n"
        "class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):\n"
        "    request_queue_size, daemon_threads = 128, True\n"
        "    def server_bind(self):\n"
        "        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
        "        super().server_bind()\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('Content-Length', '0'); self.end_headers()\n"
        "    def log_message(self, *_): pass\n"
        "Server(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n"
    )
    server = old([sys.executable, script, port], port)
    one = stopped(daemon, f"127.0.0.1:{port}", "--ready-delay", "60s", ready="notify")
    running = load(port, clients=8)
    running.wait_more(100)
    one.ctl("adopt", "web", "--pid", server.pid, "--detach")
    running.wait_more(100)
    one.ctl("stop", "web")
    wait_until(lambda: one.service()["state"] == "stopped", what="the service to be stopped")
    running.wait_more(200)
    with socket_of(server.pid, port) as its:
        assert its.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
    one.config["services"]["web"]["command"] = worker_service(0)["command"]
    one.config["services"]["web"].pop("ready")
    one.write_config()
    one.reload()
    one.ctl("adopt", "web", "--pid", server.pid)
    running.wait_for(generation=4, count=100)
    server.wait(20)
    assert_clean(running.stop(), 400)


def test_blocking_accept(daemon, load, old, tmp_path):
    """A server that waits in accept(2), of a socket that its successor shares with it."""
    path = tmp_path / "web.sock"
    script = tmp_path / "server.py"
    script.write_text(
        "import socket, sys, threading\n"
        "listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen(128)\n"
        "def serve(one):\n"
        "    with one:\n"
        "        one.recv(4096)\n"
        "        one.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "while True:\n"
        "    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()\n"
    )
    server = old([sys.executable, script, path], f"unix:{path}")
    one = stopped(daemon, f"unix:{path}", "--ready-delay", "60s", ready="notify")
    running = load(f"unix:{path}", clients=4)
    running.wait_more(100)
    one.ctl("adopt", "web", "--pid", server.pid, "--detach")
    running.wait_more(200)
    one.ctl("abort", "web")
    wait_until(lambda: one.service()["state"] == "stopped", what="the service to be stopped")
    running.wait_more(200)
    assert server.is_running(), server.err
    assert_clean(running.stop(), 400)
    path.unlink()


# ---- who may ----


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="needs root")
def test_not_an_operator(daemon, load):
    """The owner of the process can take its sockets, but the daemon does not do as it says. And a group belongs
    to the user of its first socket, also when that is gone."""
    port = free_port()
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    one = stopped(daemon, f"127.0.0.1:{port}")
    with subprocess.Popen([*command, os.environ["TENURE_WORKER"], "--listen", f"127.0.0.1:{port}"], cwd="/") as server:
        try:
            def answers():
                try:
                    return http_get(port).status == 200
                except OSError:
                    return False
            wait_until(answers, what="the server")
            ask = [*command, os.environ["TENURECTL"], "--socket", str(one.socket_path), "adopt", "web", "--pid",
                str(server.pid)]
            done = subprocess.run(ask, capture_output=True, text=True, check=False)
            assert done.returncode == NOT_PERMITTED and "operator" in done.stderr, done
            # As an operator it can.
            one.config["control"]["operators"] = ["nobody"]
            one.write_config()
            one.reload()
            running = load(port, clients=4)
            done = subprocess.run(ask, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done
            assert server.wait(20) == 0
            one.wait_generation_gone(1)
            for number in (3, 4):
                one.upgrade()
                running.wait_for(generation=number, count=50)
            one.ctl("reexec")
            one.upgrade()
            running.wait_for(generation=5, count=50)
            assert_clean(running.stop(), 150)
            assert one.call("Listeners")["listeners"][0]["kind"] == "group"
        finally:
            server.kill()
