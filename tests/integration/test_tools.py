# SPDX-License-Identifier: Apache-2.0
"""The tools themselves: a test that cannot fail proves nothing, so every kind of failure is provoked
here and must be counted as what it was."""

import os
import signal
import socket
import struct
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

from harness import (
    LOAD,
    WORKER,
    Load,
    Program,
    assert_clean,
    clean_environment,
    free_port,
    has_ipv6,
    http_get,
    run_load,
    wait_until,
)
from processes import Process, descendants, end_strays, is_alive

# ---- a server that does exactly what a test says ----


@contextmanager
def server(serve):
    """serve(connection, peer, n) is called for each connection, n counting from 0."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    stop = threading.Event()

    def handle(connection, peer, n):
        with connection:
            connection.settimeout(10)
            try:
                serve(connection, peer, n)
            except OSError:
                pass

    def loop():
        n = 0
        while True:
            connection, peer = listener.accept()
            if stop.is_set():
                connection.close()
                return
            threading.Thread(target=handle, args=(connection, peer, n), daemon=True).start()
            n += 1

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        stop.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()
        listener.close()


REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# ---- the load generator: each kind of failure ----


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/reset", "reset-before-reply"),
        ("/reset?mid=1", "reset-mid-reply"),
        ("/eof", "eof-before-reply"),
        ("/short", "short-reply"),
        ("/never", "timeout"),
        ("/status?code=503", "bad-status"),
        ("/garbage", "other"),
    ],
)
@pytest.mark.parametrize("keepalive", [False, True])
def test_failure_kinds(worker, tmp_path, path, kind, keepalive):
    address = worker().address
    result = run_load(
        tmp_path, address, path=path, requests=20, clients=4, timeout="300ms", keepalive=keepalive
    )
    assert result["failures"] == {kind: 20}
    assert result["failed"] == result["requests"] == 20 and result["ok"] == 0
    assert len(result.failure_lines) == 20
    assert all(kind in line for line in result.failure_lines)


def test_good_and_bad_are_told_apart(worker, tmp_path):
    result = run_load(tmp_path, worker().address, path=["/", "/eof", "/", "/short"], requests=40)
    assert result["failures"] == {"eof-before-reply": 10, "short-reply": 10}
    assert result["ok"] == 20


def test_refused(tmp_path):
    result = run_load(tmp_path, free_port(), requests=10)
    assert result["failures"] == {"refused": 10}
    result = run_load(tmp_path, f"unix:{tmp_path}/nobody", requests=10)
    assert result["failures"] == {"refused": 10}


def test_killed_worker(worker, tmp_path):
    """What was under way ends with EOF or a reset, what comes after is refused."""
    one = worker()
    with Load(tmp_path, one.address, path="/slow?ms=300", clients=8) as load:
        load.wait_for(requests=8)
        time.sleep(0.1)
        one.kill()
        time.sleep(0.2)
        result = load.stop()
    kinds = result["failures"]
    assert kinds["refused"] > 0
    assert kinds.get("eof-before-reply", 0) + kinds.get("reset-before-reply", 0) == 8


def test_closed_queue_is_a_reset(tmp_path):
    """Connections that nobody accepted when their listener goes."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    port = listener.getsockname()[1]
    timer = threading.Timer(0.3, listener.close)
    timer.start()
    result = run_load(tmp_path, port, requests=4, clients=4)
    timer.join()
    assert result["failures"] == {"reset-before-reply": 4}


def test_crash_in_mid_request(worker, tmp_path):
    one = worker()
    result = run_load(tmp_path, one.address, path="/crash?mid=1", requests=1, clients=1)
    assert result["failures"] == {"short-reply": 1}
    assert one.wait() == -signal.SIGKILL


# ---- kept connections ----


def test_idle_close_is_no_failure(tmp_path):
    """The server ends the connection while no request is under way: seen, and a new one is made."""

    def serve(connection, _peer, _n):
        connection.recv(4096)
        connection.sendall(REPLY)
        time.sleep(0.02)

    with server(serve) as port:
        result = run_load(tmp_path, port, keepalive=True, think="100ms", requests=10, clients=2)
    assert_clean(result, 10)
    # The two last ones may be ended by the load's own end.
    assert 8 <= result["idle_closed"] <= 10
    assert result["connections"] == 10


def test_idle_close_is_seen_without_think_time(tmp_path):
    """FIN comes with the reply, unannounced: the next request must go to a new connection."""

    def serve(connection, _peer, _n):
        connection.recv(4096)
        connection.sendall(REPLY)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(4096)

    with server(serve) as port:
        result = run_load(tmp_path, port, keepalive=True, think="5ms", requests=20, clients=2)
    assert_clean(result, 20)
    assert result["connections"] == 20


def test_close_under_way_is_a_failure(tmp_path):
    """The request was sent, and only then the server closed: lost, and told to be of a kept one."""

    def serve(connection, _peer, _n):
        connection.recv(4096)
        connection.sendall(REPLY)
        connection.recv(4096)

    with server(serve) as port:
        result = run_load(tmp_path, port, keepalive=True, requests=10, clients=1)
    assert result["ok"] == 5
    assert result["failures"] == {"eof-before-reply": 5}
    assert result["failed_reused"] == 5


def test_idle_reset_is_a_failure(tmp_path):
    def serve(connection, _peer, _n):
        connection.recv(4096)
        connection.sendall(REPLY)
        time.sleep(0.02)
        reset(connection)

    with server(serve) as port:
        result = run_load(tmp_path, port, keepalive=True, think="100ms", requests=3, clients=1)
    assert result["ok"] == 3
    assert set(result["failures"]) == {"reset-idle"}


def test_requests_per_connection(worker, tmp_path):
    result = run_load(
        tmp_path, worker().address, keepalive=True, requests_per_connection=10, requests=100, clients=1
    )
    assert_clean(result, 100)
    assert result["connections"] == 10


def test_connection_close_is_honoured(tmp_path):
    def serve(connection, _peer, _n):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    with server(serve) as port:
        result = run_load(tmp_path, port, keepalive=True, requests=20)
    assert_clean(result, 20)
    assert result["connections"] == 20


# ---- replies of all shapes ----


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: yes\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200\r\ncontent-length: 3\r\n\r\nabc",
    ],
)
@pytest.mark.parametrize("byte_by_byte", [False, True])
def test_reply_shapes(tmp_path, reply, byte_by_byte):
    def serve(connection, _peer, _n):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.recv(4096)
        for i in range(len(reply)) if byte_by_byte else []:
            connection.sendall(reply[i : i + 1])
        if not byte_by_byte:
            connection.sendall(reply)

    with server(serve) as port:
        assert_clean(run_load(tmp_path, port, requests=10, clients=2), 10)


@pytest.mark.parametrize(
    "reply, kind",
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", "short-reply"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "other"),
        (b"HTTP/1.1 200 OK\r\n", "short-reply"),
        (b"HTTP/2 200\r\n\r\n", "other"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 9000, "other"),
    ],
)
def test_bad_replies(tmp_path, reply, kind):
    def serve(connection, _peer, _n):
        connection.recv(4096)
        connection.sendall(reply)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(4096)

    with server(serve) as port:
        result = run_load(tmp_path, port, requests=5, clients=1)
    assert result["failures"] == {kind: 5}


# ---- measuring ----


def test_latency(worker, tmp_path):
    result = run_load(tmp_path, worker().address, path="/slow?ms=50", requests=40, clients=4)
    latency = result["latency_usec"]
    assert 50000 <= latency["p50"] < 100000
    assert latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]


def stall(one, seconds):
    one.signal(signal.SIGSTOP)
    time.sleep(seconds)
    one.signal(signal.SIGCONT)


def test_open_loop_omits_nothing(worker, load):
    """A stall of half a second in two: a quarter of all requests were due in it."""
    one = worker()
    running = load(one.address, rate=400)
    running.wait_for(ok=300)
    stall(one, 0.5)
    running.wait_for(ok=750)
    result = running.stop()
    assert_clean(result, 750)
    assert result["latency_usec"]["p90"] > 100000
    assert 450000 < result["largest_gap_usec"] < 900000


def test_closed_loop_sees_the_gap(worker, load):
    one = worker()
    running = load(one.address, clients=1, keepalive=True)
    running.wait_for(ok=1000)
    stall(one, 0.5)
    running.wait_more(1000)
    result = running.stop()
    assert_clean(result, 2000)
    assert result["latency_usec"]["p99"] < 100000 < result["latency_usec"]["max"]
    assert 450000 < result["largest_gap_usec"] < 900000


def test_rate_is_kept(worker, tmp_path):
    result = run_load(tmp_path, worker().address, rate=500, duration="2s")
    assert_clean(result, 950)
    assert result["requests"] <= 1010


def test_too_slow_to_keep_the_rate_is_told(worker, tmp_path):
    result = run_load(
        tmp_path, worker().address, rate=1000, clients=2, path="/slow?ms=20", duration="1s"
    )
    assert result["not_started"] > 500


def test_generations_and_workers(worker, tmp_path, load):
    env = {"TENURE_GENERATION": "7", "TENURE_WORKER": "3"}
    one = worker(env=env)
    running = load(one.address)
    begin = time.monotonic() * 1e6
    running.wait_for(generation=7, count=50)
    result = running.stop()
    assert_clean(result, 50, generations=[7])
    assert set(result["workers"]) == {"7.3"} and set(result["pids"]) == {str(one.pid)}
    times = result["generation_times"]["7"]
    assert begin - 1e6 < times["first_connect_usec"] < times["first_reply_usec"] < begin + 5e6
    assert times["first_reply_usec"] < times["last_reply_usec"]
    with pytest.raises(AssertionError):
        assert_clean(result, generations=[8])
    with pytest.raises(AssertionError):
        assert_clean(result, min_requests=result["ok"] + 1)
    with pytest.raises(AssertionError):
        assert_clean(run_load(tmp_path, one.address, path=["/", "/eof"], requests=2))


def test_a_server_without_our_headers(tmp_path):
    def serve(connection, _peer, _n):
        connection.recv(4096)
        connection.sendall(REPLY)

    with server(serve) as port:
        result = run_load(tmp_path, port, requests=10)
    assert_clean(result, 10)
    assert result["generations"] == {"none": 10} and result["workers"] == {}


# ---- where it connects to, and from ----


def test_sources(tmp_path):
    peers = []

    def serve(connection, peer, _n):
        peers.append(peer[0])
        connection.recv(4096)
        connection.sendall(REPLY)

    with server(serve) as port:
        assert_clean(run_load(tmp_path, port, source="127.0.0.2,127.0.0.8-127.0.0.10", requests=40))
        assert set(peers) == {"127.0.0.2", "127.0.0.8", "127.0.0.9", "127.0.0.10"}
        peers.clear()
        assert_clean(run_load(tmp_path, port, sources=300, requests=600))
        assert len(set(peers)) == 300


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_ipv6(worker, tmp_path):
    one = worker(address=("::1", free_port()))
    assert_clean(run_load(tmp_path, one.address, requests=200), 200)


@pytest.mark.parametrize("name", ["unix:{}/socket", "unix:@tenure-test-{}"])
def test_unix(worker, tmp_path, name):
    address = name.format(tmp_path if "/" in name else os.getpid())
    one = worker(address=address)
    assert_clean(run_load(tmp_path, address, requests=200), 200)
    assert_clean(run_load(tmp_path, address, requests=200, keepalive=True), 200)
    assert http_get(address).text.startswith("generation none")
    assert one.stop() == 0


def test_full_unix_queue_is_waited_for(worker, tmp_path):
    """A blocking connect() waits there, so the load does."""
    one = worker(
        "--backlog", "1", "--accept-delay", "5ms", "--accept-batch", "1", address=f"unix:{tmp_path}/s"
    )
    assert_clean(run_load(tmp_path, one.address, requests=100, clients=32), 100)


def test_send_delay(worker, tmp_path):
    result = run_load(tmp_path, worker().address, send_delay="100ms", requests=8, clients=4)
    assert_clean(result, 8)
    assert result["latency_usec"]["p50"] >= 100000


def test_linger0(worker, tmp_path):
    assert_clean(run_load(tmp_path, worker().address, linger0=True, requests=500), 500)


def test_stop_waits_for_what_is_under_way(worker, load):
    running = load(worker().address, path="/slow?ms=400", clients=10)
    time.sleep(0.2)
    result = running.stop()
    assert_clean(result, 10)


@pytest.mark.parametrize(
    "args", [[], ["--bogus", "80"], ["--rate", "x", "80"], ["99999"], ["--timeout", "5x", "80"]]
)
def test_usage(args):
    done = subprocess.run([LOAD, *args], capture_output=True, check=False, timeout=10)
    assert done.returncode == 2 and done.stderr and not done.stdout


# ---- the worker's good manners ----


def given(listener, directory, *options, name="given", env=None):
    """A worker that was given the listener as descriptor 3, as a service manager would."""
    script = 'exec 3<&0 0</dev/null; LISTEN_PID=$$ exec "$@"'
    return Program(
        ["sh", "-c", script, "sh", WORKER, *options],
        directory,
        name,
        env=clean_environment(LISTEN_FDS="1", LISTEN_FDNAMES="http", **(env or {})),
        stdin=listener.fileno(),
    )


@pytest.fixture
def listener():
    # Not port 0: the kernel would choose another one when the socket listens again after a shutdown.
    with socket.create_server(("127.0.0.1", free_port()), backlog=1024) as made:
        yield made


@pytest.mark.parametrize("options", [{}, {"keepalive": True}, {"keepalive": True, "think": "20ms"}])
@pytest.mark.parametrize("exclusive", [False, True])
def test_handover_on_a_shared_queue(listener, tmp_path, load, options, exclusive):
    """New worker first, then TERM to the old one: the shared queue loses nothing."""
    flags = ["--epoll-exclusive"] if exclusive else []
    port = listener.getsockname()[1]
    old = given(listener, tmp_path, *flags, name="w0", env={"TENURE_GENERATION": "0"}).start()
    running = load(port, clients=16, **options)
    running.wait_for(generation=0, count=100)
    for n in range(1, 6):
        new = given(listener, tmp_path, *flags, name=f"w{n}", env={"TENURE_GENERATION": str(n)}).start()
        wait_until(lambda pid=new.pid: http_get(port).pid == pid, what="the new worker to answer")
        assert old.stop() == 0
        # What an exclusive waiter may have been woken for, and left: see to it.
        listener.shutdown(socket.SHUT_WR)
        running.wait_for(generation=n, count=100)
        old = new
    result = running.stop()
    assert old.stop() == 0
    assert_clean(result, 500, generations=range(6))


def test_descriptors(listener, tmp_path):
    with given(listener, tmp_path, "--fail-if-fds") as one:
        port = listener.getsockname()[1]
        lines = http_get(port, "/fds").text.splitlines()
        assert [line.split()[0] for line in lines] == ["0", "1", "2", "3"]
        assert http_get(port, "/listeners").text == "3 http\n"
        assert one.stop() == 0


def test_unexpected_descriptor_is_told(listener, tmp_path):
    with open("/dev/null", "rb") as extra:
        command = [WORKER, "--fail-if-fds", "--stdin"]
        one = Program(command, tmp_path, "w", stdin=listener.fileno(), pass_fds=[extra.fileno()])
        with one:
            assert one.wait() == 93
            assert f"unexpected descriptor {extra.fileno()} inherited /dev/null" in one.err


def test_wrong_listen_pid(listener, tmp_path):
    command = ["sh", "-c", 'exec 3<&0; LISTEN_PID=1 exec "$@"', "sh", WORKER]
    env = clean_environment(LISTEN_FDS="1")
    with Program(command, tmp_path, "w", env=env, stdin=listener.fileno()) as one:
        assert one.wait() == 94


def test_stdin_and_fd(listener, tmp_path):
    port = listener.getsockname()[1]
    with Program([WORKER, "--stdin"], tmp_path, "w1", stdin=listener.fileno()) as one:
        wait_until(lambda: http_get(port).pid == one.pid)
        assert one.stop() == 0
    number = listener.fileno()
    with Program([WORKER, "--fd", number], tmp_path, "w2", pass_fds=[number]) as one:
        wait_until(lambda: http_get(port).pid == one.pid)
        assert one.stop() == 0


def test_requests_under_way_are_finished(worker, load):
    one = worker()
    running = load(one.address, path="/slow?ms=500", requests=8, clients=8)
    running.wait_for(requests=0)
    time.sleep(0.2)
    one.signal(signal.SIGTERM)
    assert_clean(running.finish(), 8)
    assert one.wait() == 0


# ---- the worker's bad manners ----


@pytest.fixture
def notes(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver, {"NOTIFY_SOCKET": str(tmp_path / "notify")}


def test_ready(worker, notes):
    receiver, env = notes
    begin = time.monotonic()
    one = worker("--ready-delay", "300ms", "--status", "warm", env=env)
    assert receiver.recv(4096) == b"READY=1\nSTATUS=warm"
    assert 0.3 <= time.monotonic() - begin < 2
    one.signal(signal.SIGTERM)
    assert receiver.recv(4096) == b"STOPPING=1"


def test_ready_before_accept_and_never(worker, notes):
    receiver, env = notes
    one = worker("--ready-before-accept", "400ms", env=env)
    assert receiver.recv(4096).startswith(b"READY=1")
    with pytest.raises(TimeoutError):
        http_get(one.address, timeout=0.1)
    assert http_get(one.address, timeout=2).status == 200
    assert one.stop() == 0
    assert receiver.recv(4096) == b"STOPPING=1"

    two = worker("--never-ready", "--notify-errno", "5", env=env)
    assert receiver.recv(4096) == b"ERRNO=5"
    assert http_get(two.address).status == 200
    receiver.settimeout(0.2)
    with pytest.raises(TimeoutError):
        receiver.recv(4096)


def test_watchdog(worker, notes):
    receiver, env = notes
    worker("--watchdog", "--watchdog-stop-after", "250ms", env={**env, "WATCHDOG_USEC": "100000"})
    time.sleep(0.6)
    receiver.setblocking(False)
    pets = 0
    try:
        while True:
            pets += receiver.recv(4096) == b"WATCHDOG=1"
    except BlockingIOError:
        pass
    assert 3 <= pets <= 6


@pytest.mark.parametrize(
    "options, status",
    [
        (["--exit-at-once", "--exit-code", "7"], 7),
        (["--exit-after", "100ms"], 1),
        (["--crash-after", "100ms"], -signal.SIGKILL),
        (["--crash-after", "100ms", "--crash-how", "segv"], -signal.SIGSEGV),
        (["--crash-after", "100ms", "--crash-how", "abort"], -signal.SIGABRT),
        (["--die-after-ready", "100ms", "--exit-code", "3"], 3),
        (["--nonsense"], 2),
    ],
)
def test_ends(worker, options, status):
    assert worker(*options, wait=False).wait(5) == status


@pytest.mark.parametrize("option", ["--ignore-term", "--hang-after=0", "--never-exit"])
def test_deaf_to_term(worker, option):
    one = worker(*option.split("="))
    time.sleep(0.1)
    one.signal(signal.SIGTERM)
    time.sleep(0.3)
    assert one.is_running()
    if option == "--ignore-term":
        assert http_get(one.address).status == 200


def test_exits_at_once_on_term(worker, load):
    one = worker("--exit-on-term-at-once")
    running = load(one.address, path="/slow?ms=1000", clients=4, requests=4)
    time.sleep(0.3)
    assert one.stop() == 0
    assert running.finish()["failures"] == {"eof-before-reply": 4}


@pytest.mark.strays
@pytest.mark.parametrize("option", ["--fork-grandchild", "--double-fork"])
def test_grandchild(worker, option):
    one = worker(option)
    parent = one.pid if option == "--fork-grandchild" else os.getpid()

    def find():
        below = descendants(os.getpid())
        return [p for p in below if p.pid != one.pid and p.ppid == parent and p.state != "Z"]

    strays = wait_until(find)
    assert one.stop() == 0
    os.kill(strays[0].pid, signal.SIGTERM)
    time.sleep(0.1)
    assert is_alive(strays[0].pid) and Process.read(strays[0].pid).ppid == os.getpid()
    # It holds the listener, whose queue nobody serves.
    with pytest.raises(TimeoutError):
        http_get(one.address, timeout=0.2)
    assert [p.pid for p in end_strays()] == [strays[0].pid]


def test_listeners_treated_badly(listener, tmp_path):
    port = listener.getsockname()[1]
    with given(listener, tmp_path, "--shutdown-listener", "200ms"):
        wait_until(lambda: http_get(port).status == 200)
        wait_until(lambda: listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0)
        with pytest.raises(ConnectionRefusedError):
            http_get(port)
    listener.listen(1024)
    own = free_port()
    with given(listener, tmp_path, "--listen-own", f"127.0.0.1:{own}", name="own") as one:
        wait_until(lambda: _answers(own))
        assert http_get(own).pid == one.pid
        with pytest.raises(TimeoutError):
            http_get(port, timeout=0.2)


def _answers(address):
    try:
        return http_get(address).status == 200
    except OSError:
        return False


def test_output(worker):
    one = worker("--write-lines", "1000", "--write-text", "end", "--print-env", "--flood-stdout", "1M")
    time.sleep(0.5)
    assert "line 1000 of 1000\nend" in one.err
    assert "PATH=" in one.out
    assert 200000 < len(one.out) < 2000000


def test_manners_file(worker, tmp_path):
    manners = tmp_path / "manners"
    manners.write_text(
        "--if-generation 2 --exit-at-once --exit-code 12\n"
        "--if-generation 3 --if-worker 1 --exit-at-once --exit-code 13\n"
        f"--if-generation 4 --if-first {tmp_path}/flag --exit-at-once --exit-code 14\n"
        "--unhealthy # for all\n"
    )

    def run(generation, index, wait=True):
        env = {"TENURE_GENERATION": str(generation), "TENURE_WORKER": str(index)}
        return worker("--manners", str(manners), env=env, wait=wait)

    assert run(2, 0, wait=False).wait() == 12
    assert run(3, 1, wait=False).wait() == 13
    assert run(4, 0, wait=False).wait() == 14
    for generation, index in ((1, 0), (3, 0), (4, 0)):
        assert http_get(run(generation, index).address, "/up").status == 503


def test_other_paths(worker):
    address = worker(env={"COLOUR": "red"}).address
    assert http_get(address, "/up").text == "up\n"
    assert http_get(address, "/env?COLOUR").text == "red\n"
    assert http_get(address, "/env?NONE").status == 404
    assert "COLOUR=red\n" in http_get(address, "/env").text
    assert http_get(address, "/cwd").text == os.getcwd() + "\n"
    assert http_get(address, "/peer", source="127.0.0.9").text == "127.0.0.9\n"
    assert http_get(address, "/exe").text == os.path.realpath(WORKER) + "\n"
    assert f"uid {os.getuid()} {os.geteuid()}" in http_get(address, "/user").text
    assert len(http_get(address, "/big?bytes=3000000").body) == 3000000
    assert http_get(address, "/nothing").status == 404
