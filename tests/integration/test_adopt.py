# SPDX-License-Identifier: Apache-2.0
"""Servers that were started by somebody else, and are taken over while they run: under load, with no failed
request; and let go of, as they were, when that comes to nothing."""

import ctypes
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from daemon import FAILED, NOT_PERMITTED, ROLLED_BACK, TIMED_OUT, USAGE, worker_service
from harness import (
    IS_ROOT,
    TENURECTL,
    Program,
    Worker,
    assert_clean,
    clean_environment,
    connect,
    free_port,
    http_get,
    wait_until,
)
from processes import descendants, is_alive
from servers import NGINX, WSGI, find
from udp import assert_none_lost
from upgrades import quick

SYSCALL = ctypes.CDLL(None, use_errno=True).syscall
PIDFD_GETFD = 438

PYTHON_SERVER = """import http.server, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"old\\n")
    def log_message(self, *_):
        pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def old(tmp_path, no_strays):  # pylint: disable=unused-argument
    """old(command, address) starts a server that tenured knows nothing of."""
    made = []

    def make(command, address, env=None):
        one = Program(command, tmp_path, f"old{len(made)}", env=clean_environment(**(env or {})))
        made.append(one)
        one.start()

        def answers():
            assert one.is_running(), one.err
            try:
                connect(address).close()
            except OSError:
                return False
            return True

        wait_until(answers, 10, "the old server")
        return one

    yield make
    for one in made:
        one.kill()


def stopped(daemon, listen, *options, **keys):
    """A daemon with a service "web" that does not run yet."""
    keys.setdefault("upgrade", quick())
    config = {"services": {"web": worker_service(listen, *options, autostart=False, **keys)}}
    one = daemon(config)
    assert one.service()["state"] == "stopped"
    return one


def assert_path_back(result, min_requests):
    """Clean, but for those that came while a path that the old server had removed was not yet back: as root it
    takes microseconds, otherwise until the daemon has its turn."""
    if result["failed"]:
        assert set(result["failures"]) == {"refused"} and result["failed"] <= (1 if IS_ROOT else 200), result.summary()
        assert result["ok"] >= min_requests
    else:
        assert_clean(result, min_requests)


def socket_of(pid, port):
    """The socket that this process listens with: our own descriptor of it."""
    pidfd = os.pidfd_open(pid)
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            fd = SYSCALL(PIDFD_GETFD, pidfd, int(entry), 0)
            if fd < 0 or not stat.S_ISSOCK(os.fstat(fd).st_mode):
                if fd >= 0:
                    os.close(fd)
                continue
            one = socket.socket(fileno=fd)
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and one.getsockname()[1] == port:
                return one
            one.close()
    finally:
        os.close(pidfd)
    raise AssertionError(f"process {pid} does not listen on {port}")


@pytest.mark.sanitize
@pytest.mark.parametrize("keepalive", [False, True])
def test_tcp(daemon, load, worker, keepalive):
    server = worker()
    one = stopped(daemon, f"127.0.0.1:{server.address}", workers=2)
    running = load(server.address, clients=8, keepalive=keepalive)
    running.wait_more(200)
    one.ctl("adopt", "web", "--pid", server.pid)
    running.wait_for(generation=2, count=200)
    assert server.wait(20) == 0
    one.wait_generation_gone(1)
    # The lane that the old socket was in is made anew, and used again.
    for number in (3, 4, 5):
        one.upgrade()
        running.wait_for(generation=number)
    assert_clean(running.stop(), 500)
    assert one.service()["generation"] == 5


def test_status_meanwhile(daemon, load, worker):
    server = worker()
    one = stopped(daemon, f"127.0.0.1:{server.address}", "--ready-delay", "1500ms", ready="notify")
    running = load(server.address, clients=4)
    one.ctl("adopt", "web", "--pid", server.pid, "--detach")
    now = one.service()
    adopted, new = now["generations"]
    assert (adopted["number"], adopted["adopted"], adopted["traffic"]) == (1, True, 100.0)
    assert [w["pid"] for w in adopted["workers"]] == [server.pid]
    assert (new["number"], new["adopted"], new["traffic"]) == (2, False, 0.0)
    assert now["state"] == "upgrading"
    assert "taken over" in one.ctl("status", check=None).out
    one.wait_serving(generation=2)
    running.wait_for(generation=2, count=100)
    assert server.wait(20) == 0
    assert_clean(running.stop(), 100)


@pytest.mark.parametrize("how", ["fails", "aborted", "stopped", "daemon"])
def test_let_go(daemon, load, worker, how):
    """The old process goes on as if nothing had been, with its socket as it was."""
    server = worker()
    options = ["--exit-at-once"] if how == "fails" else ["--ready-delay", "60s"]
    one = stopped(daemon, f"127.0.0.1:{server.address}", *options, ready="notify",
        restart={"limit": {"starts": 2}})
    running = load(server.address, clients=8)
    running.wait_more(200)
    if how == "fails":
        failed = one.ctl("adopt", "web", "--pid", server.pid, check=ROLLED_BACK)
        assert "exit" in failed.err
    else:
        one.ctl("adopt", "web", "--pid", server.pid, "--detach")
        running.wait_more(200)
        if how == "aborted":
            one.ctl("abort", "web")
        elif how == "stopped":
            one.ctl("stop", "web")
        else:
            assert one.stop() == 0
    if how != "daemon":
        wait_until(lambda: one.service()["state"] == "stopped", what="the service to be stopped")
        assert one.call("Listeners")["listeners"] == []
    running.wait_more(500)
    assert server.is_running()
    with socket_of(server.pid, server.address) as its:
        # It is no group any more.
        assert its.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
    assert_clean(running.stop(), 500)
    if how == "daemon":
        return
    if how == "aborted":
        # And once more, to the end.
        one.config["services"]["web"]["command"] = worker_service(0)["command"]
        one.config["services"]["web"].pop("ready")
        one.write_config()
        one.reload()
        running = load(server.address, clients=8)
        one.ctl("adopt", "web", "--pid", server.pid)
        running.wait_more(200)
        assert server.wait(20) == 0
        assert_clean(running.stop(), 200)


def test_ends_by_itself(daemon, load, worker):
    """Who waits in its queue is served by the configured command."""
    server = worker()
    one = stopped(daemon, f"127.0.0.1:{server.address}", "--ready-delay", "500ms", ready="notify")
    running = load(server.address, clients=1)
    running.wait_more(50)
    running.stop()
    one.ctl("adopt", "web", "--pid", server.pid, "--detach")
    server.kill()
    assert http_get(server.address, timeout=20).status == 200
    one.wait_serving(generation=2)


def test_reexec(daemon, load, worker):
    server = worker()
    one = stopped(daemon, f"127.0.0.1:{server.address}", "--ready-delay", "2s", ready="notify")
    running = load(server.address, clients=8)
    running.wait_more(100)
    one.ctl("adopt", "web", "--pid", server.pid, "--detach")
    one.ctl("reexec")
    adopted = one.service()["generations"][0]
    assert adopted["adopted"] and adopted["workers"][0]["pid"] == server.pid
    running.wait_for(generation=2, count=200)
    assert server.wait(20) == 0
    one.ctl("reexec")
    one.upgrade()
    running.wait_for(generation=3)
    assert_clean(running.stop(), 300)


def test_unix(daemon, load, tmp_path):
    path = tmp_path / "web.sock"
    server = Worker(tmp_path, address=f"unix:{path}").start()
    try:
        server.wait_listening()
        one = stopped(daemon, f"unix:{path}", ready="notify")
        running = load(f"unix:{path}", clients=4)
        running.wait_more(100)
        before = os.lstat(path).st_ino
        one.ctl("adopt", "web", "--pid", server.pid)
        running.wait_for(generation=2, count=100)
        assert server.wait(20) == 0
        one.wait_generation_gone(1)
        running.wait_more(100)
        assert os.lstat(path).st_ino == before
        one.upgrade()
        running.wait_for(generation=3)
        assert_path_back(running.stop(), 300)
        one.ctl("stop", "web")
        assert list(tmp_path.glob("*.sock*")) + list(tmp_path.glob(".*.sock*")) == []
    finally:
        server.kill()


def test_udp(daemon, udp_load, tmp_path):
    port = free_port()
    env = {"TENURE_GENERATION": "0", "TENURE_WORKER": "0"}
    server = Worker(tmp_path, address=f"udp:127.0.0.1:{port}", env=env).start()
    try:
        running = udp_load(port)
        one = stopped(daemon, {"dns": f"udp:127.0.0.1:{port}"}, ready="notify")
        running.wait_for(ok=200)
        one.ctl("adopt", "web", "--pid", server.pid)
        running.wait_for(generation=2, count=200)
        assert server.wait(20) == 0
        one.upgrade()
        running.wait_for(generation=3)
        assert_none_lost(one, running.stop(), 400, [0, 2, 3])
    finally:
        server.kill()


# ---- real servers ----


def test_python(daemon, load, old, tmp_path):
    port = free_port()
    script = tmp_path / "server.py"
    script.write_text(PYTHON_SERVER)
    server = old([sys.executable, str(script), str(port)], port)
    one = stopped(daemon, f"127.0.0.1:{port}")
    running = load(port, clients=8)
    running.wait_more(200)
    # It has no graceful end: its connections are waited for before the signal.
    one.ctl("adopt", "web", "--pid", server.pid)
    running.wait_for(generation=2, count=200)
    assert server.wait(20) == -signal.SIGTERM
    assert_clean(running.stop(), 400)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_gunicorn(daemon, load, old, tmp_path, kind):
    find("gunicorn")
    port, path = free_port(), tmp_path / "web.sock"
    address = port if kind == "tcp" else f"unix:{path}"
    bind = f"127.0.0.1:{port}" if kind == "tcp" else f"unix:{path}"
    (tmp_path / "app.py").write_text(WSGI)
    server = old(["gunicorn", "--workers", "2", "--chdir", tmp_path, "--bind", bind, "app:application"], address)
    config = {"services": {"web": {
        "preset": "gunicorn", "command": ["gunicorn", "--workers", "2", "app:application"],
        "directory": str(tmp_path), "listen": bind, "autostart": False, "upgrade": quick(),
        "drain": {"settle": "100ms"},
    }}}
    one = daemon(config)
    running = load(address, clients=2 if kind == "unix" else 8)
    running.wait_more(100)
    one.ctl("adopt", "web", "--pid", server.pid)
    assert server.wait(40) == 0
    running.wait_more(200)
    result = running.stop()
    if kind == "tcp":
        assert_clean(result, 200)
    else:
        assert_path_back(result, 200)
    one.upgrade()


def test_nginx(daemon, load, old, tmp_path):
    """Of several processes the first one is told to go; the others follow it."""
    find("nginx")
    port = free_port()
    (tmp_path / "nginx.conf").write_text(NGINX.replace("PORT", str(port)).replace("DIR", str(tmp_path)))
    command = ["nginx", "-e", "stderr", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-g", "daemon off;"]
    server = old(command, port)
    wait_until(lambda: len(descendants(server.pid)) >= 2, what="nginx's workers")
    one = daemon(start=False)
    (one.directory / "nginx.conf").write_text(
        NGINX.replace("PORT", str(port)).replace("DIR", str(one.directory)))
    one.config = {"services": {"web": {
        "preset": "nginx", "directory": str(one.directory), "listen": f"127.0.0.1:{port}", "autostart": False,
        "command": ["nginx", "-e", "stderr", "-p", str(one.directory), "-c", str(one.directory / "nginx.conf")],
        "upgrade": quick(), "drain": {"settle": "100ms"},
    }}}
    one.write_config()
    one.start()
    running = load(port, clients=8)
    alive = load(port, clients=8, keepalive=True)
    running.wait_more(200)
    one.ctl("adopt", "web", "--pid", server.pid, "--signal", "SIGQUIT")
    assert server.wait(40) == 0
    running.wait_more(200)
    one.upgrade()
    running.wait_more(200)
    assert_clean(running.stop(), 400)
    assert_clean(alive.stop(), 100)


# ---- what is refused ----


def test_refused(daemon, worker):
    server = worker()
    one = stopped(daemon, "127.0.0.1:%d" % free_port())
    asked = one.ctl("adopt", "web", check=USAGE)
    assert "--pid" in asked.err
    asked = one.ctl("adopt", "web", "--pid", server.pid, check=FAILED)
    assert f"tcp:127.0.0.1:{server.address}" in asked.err and "--address" in asked.err
    asked = one.ctl("adopt", "web", "--pid", server.pid, "--address", "127.0.0.1:1", check=FAILED)
    assert f"but on tcp:127.0.0.1:{server.address}" in asked.err
    asked = one.ctl("adopt", "web", "--pid", os.getpid(), "--address", "127.0.0.1:1", check=FAILED)
    asked = one.ctl("adopt", "web", "--pid", 2**30, check=FAILED)
    assert "there is no process" in asked.err
    asked = one.ctl("adopt", "web", "--pid", server.pid, "--signal", "SIGFOO", check=USAGE)
    with pytest.raises(Exception, match="descriptors"):
        one.call("Adopt", service="web", pid=server.pid)
    assert server.is_running() and one.service()["generations"] == []
    one.ctl("start", "web")
    asked = one.ctl("adopt", "web", "--pid", server.pid, check=FAILED)
    assert "runs already" in asked.err


def test_reuseport(daemon, old, tmp_path):
    """Each of several sockets at an address has a queue of its own: not both can be taken over."""
    port = free_port()
    script = tmp_path / "two.py"
    script.write_text(
        "import socket, sys, time\n"
        "made = []\n"
        "for _ in range(2):\n"
        "    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
        "    s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); made.append(s)\n"
        "time.sleep(600)\n"
    )
    server = old([sys.executable, script, port], port)
    one = stopped(daemon, f"127.0.0.1:{port}")
    asked = one.ctl("adopt", "web", "--pid", server.pid, check=FAILED)
    assert "reuseport" in asked.err.lower(), asked
    assert one.service()["generations"] == []


def test_not_the_leader(daemon, old, tmp_path):
    """Who has started it would start another. And who has started tenured would end with it."""
    port = free_port()
    script = tmp_path / "leader.py"
    script.write_text(
        "import os, socket, sys, time\n"
        "s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "os.fork()\n"
        "time.sleep(600)\n"
    )
    server = old([sys.executable, script, port], port)
    one = stopped(daemon, f"127.0.0.1:{port}")
    (child,) = descendants(server.pid)
    asked = one.ctl("adopt", "web", "--pid", child.pid, check=FAILED)
    assert f"--pid {server.pid}" in asked.err, asked
    with socket.create_server(("127.0.0.1", 0)) as ours:
        address = f"127.0.0.1:{ours.getsockname()[1]}"
        asked = one.ctl("adopt", "web", "--pid", os.getpid(), "--address", address, check=FAILED)
        assert "has started tenured" in asked.err, asked
    assert one.service()["generations"] == []
    connect(port).close()
    os.kill(child.pid, signal.SIGKILL)


def test_another_server_has_the_path(daemon, old, tmp_path):
    """The path leads to another: nobody would reach the new generation, and its stop would remove that one's path."""
    path = tmp_path / "web.sock"
    script = tmp_path / "one.py"
    script.write_text(
        "import os, socket, sys, time\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "while True: time.sleep(1)\n"
    )
    first = old([sys.executable, script, path], f"unix:{path}")
    path.unlink()
    second = old([sys.executable, script, path], f"unix:{path}")
    one = stopped(daemon, f"unix:{path}", ready="notify")
    asked = one.ctl("adopt", "web", "--pid", first.pid, check=FAILED)
    assert "not the socket of process" in asked.err and str(path) in asked.err, asked
    assert one.service()["generations"] == [] and first.is_running()
    one.ctl("adopt", "web", "--pid", second.pid)
    assert one.service()["generation"] == 2


def test_too_many(daemon, old, tmp_path):
    """None is left out silently: it would end with the process. With an address only that one counts."""
    port = free_port()
    script = tmp_path / "many.py"
    script.write_text(
        "import socket, sys, time\n"
        "made = [socket.create_server(('127.0.0.1', 0)) for _ in range(100)]\n"
        "made.append(socket.create_server(('127.0.0.1', int(sys.argv[1]))))\n"
        "time.sleep(600)\n"
    )
    server = old([sys.executable, script, port], port)
    one = stopped(daemon, f"127.0.0.1:{port}")
    asked = one.ctl("adopt", "web", "--pid", server.pid, check=FAILED)
    assert "more than 63 sockets" in asked.err, asked
    assert one.service()["generations"] == []
    one.ctl("adopt", "web", "--pid", server.pid, "--address", f"127.0.0.1:{port}")
    assert one.service()["generation"] == 2


@pytest.mark.parametrize("options", [[], ["--timeout", "200ms"]])
def test_what_is_left_behind(daemon, old, tmp_path, options):
    """Who looks after the path has nothing of the caller's, and no socket of the server's, which may close it."""
    path = tmp_path / "web.sock"
    script = tmp_path / "slow.py"
    script.write_text(
        "import signal, socket, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "while True: time.sleep(1)\n"
    )
    server = old([sys.executable, script, path], f"unix:{path}")
    soak = {"soak": "1s"} if options else {}
    one = stopped(daemon, f"unix:{path}", ready="notify", drain={"timeout": "60s"}, upgrade=quick(**soak))
    with (tmp_path / "lock").open("w") as lock:
        command = [TENURECTL, "--socket", str(one.socket_path), "adopt", "web", "--pid", str(server.pid)]
        done = subprocess.run(
            [*command, *options], check=False, pass_fds=[lock.fileno()], cwd=tmp_path, capture_output=True
        )
    assert done.returncode == (TIMED_OUT if options else 0), done
    guards = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                if str(one.socket_path).encode() in file.read().split(b"\0"):
                    guards.append(int(entry))
        except OSError:
            pass
    guards = [pid for pid in guards if os.path.samefile(f"/proc/{pid}/exe", TENURECTL)]
    assert len(guards) == 1
    files = [os.readlink(f"/proc/{guards[0]}/fd/{fd}") for fd in os.listdir(f"/proc/{guards[0]}/fd")]
    # The file, its directory, and a socket by which tenurectl could have called it off.
    assert sorted(file for file in files if file.startswith("/") and file != "/dev/null") == [str(tmp_path), str(path)]
    assert sum(file.startswith("socket:") for file in files) == 1, files
    assert not any(file.startswith("pipe:") for file in files), files
    assert os.readlink(f"/proc/{guards[0]}/cwd") == "/"
    server.kill()
    wait_until(lambda: not is_alive(guards[0]), 10, "the end of it")


def test_removed_meanwhile(daemon, load, worker):
    """The service goes from the configuration while it takes over: the old process goes on."""
    server = worker()
    one = stopped(daemon, f"127.0.0.1:{server.address}", upgrade=quick(soak="60s"))
    running = load(server.address, clients=4)
    one.ctl("adopt", "web", "--pid", server.pid, "--detach")
    running.wait_for(generation=2, count=50)
    del one.config["services"]["web"]
    one.write_config()
    # Of a rollout's end, which takes back what it had been configured for.
    assert one.reload().out == "web: removed\n"
    one.wait_log("reload: web: remove")
    running.wait_more(100)
    assert_clean(running.stop(), 100)
    assert server.is_running()


@pytest.mark.root
def test_not_permitted(daemon, worker):
    """The sockets of a process are for those who could trace it."""
    server = worker()
    one = stopped(daemon, f"127.0.0.1:{server.address}")
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", os.environ["TENURECTL"],
        "--socket", str(one.socket_path), "adopt", "web", "--pid", str(server.pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == NOT_PERMITTED and "as root" in done.stderr, done
