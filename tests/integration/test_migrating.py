# SPDX-License-Identifier: Apache-2.0
"""What conf/migrating.md says of start_server: the same worker, started by it and by `tenured run`."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness import assert_clean, clean_environment, connect, free_port, wait_until
from test_run import tenured_run  # noqa: F401  pylint: disable=unused-import

# As the workers of start_server are: sockets by SERVER_STARTER_PORT, its number by
# SERVER_STARTER_GENERATION, and SIGTERM is the end.
STARTER_WORKER = """import os, signal, socket, sys, threading
spec = [entry.split("=") for entry in os.environ["SERVER_STARTER_PORT"].split(";")]
address, fd = spec[0]
generation = os.environ["SERVER_STARTER_GENERATION"]
listener = socket.socket(fileno=int(fd))
listener.settimeout(0.05)
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
body = ("generation %s of %s in %s" % (generation, address, os.environ.get("FLAVOUR"))).encode()
def serve(connection):
    with connection:
        connection.settimeout(5)
        data = b""
        while b"\\r\\n\\r\\n" not in data:
            more = connection.recv(4096)
            if not more:
                return
            data += more
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nX-Generation: %s\\r\\n"
            b"Content-Length: %d\\r\\n\\r\\n%s" % (generation.encode(), len(body), body))
threads = []
while not ending:
    try:
        connection = listener.accept()[0]
    except (socket.timeout, BlockingIOError):
        continue
    thread = threading.Thread(target=serve, args=(connection,))
    thread.start()
    threads = [t for t in threads if t.is_alive()] + [thread]
for thread in threads:
    thread.join()
"""


def get(port):
    with connect(port) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while more := one.recv(4096):
            data += more
    return data.partition(b"\r\n\r\n")[2].decode()


@pytest.fixture
def starter_worker():
    # An ordinary user runs it, and may not look into the folders of pytest's.
    with tempfile.TemporaryDirectory(prefix="tenured-starter-") as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "worker.py"
        path.write_text(STARTER_WORKER)
        path.chmod(0o755)
        yield path


def test_start_server_by_tenured(tenured_run, starter_worker, load):  # noqa: F811
    """`start_server --port 127.0.0.1:PORT -- COMMAND` with SIGHUP becomes `tenured run --listen
    127.0.0.1:PORT --handoff server-starter -- COMMAND` with SIGHUP."""
    port = free_port()
    one = tenured_run("--listen", f"127.0.0.1:{port}", "--handoff", "server-starter", "--soak", "0s", "--settle",
        "50ms", "--", sys.executable, starter_worker, env={"FLAVOUR": "vanilla"})
    assert get(port) == f"generation 1 of 127.0.0.1:{port} in vanilla"
    running = load(port, clients=4)
    running.wait_more(100)
    for number in (2, 3):
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: get(port).startswith(f"generation {number} "), 15, f"generation {number}")
    running.wait_more(100)
    assert_clean(running.stop(), 200)


def test_start_server_itself(starter_worker, tmp_path):
    """The same worker, unchanged, under the original: it says the same."""
    original = shutil.which("start_server")
    if not original:
        pytest.skip("start_server is not installed")
    port = free_port()
    environment = clean_environment(FLAVOUR="vanilla")
    with subprocess.Popen([original, "--port", f"127.0.0.1:{port}", "--", sys.executable, starter_worker],
            env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path) as server:
        try:
            def answers():
                try:
                    return get(port) == f"generation 1 of 127.0.0.1:{port} in vanilla"
                except OSError:
                    return False
            wait_until(answers, 15, "start_server's worker")
        finally:
            server.terminate()
            server.wait(20)


def test_page():
    """Every option of ours that the page names is one."""
    page = (Path(os.environ["top_srcdir"]) / "conf" / "migrating.md").read_text()
    usage = subprocess.run([os.environ["TENURED"], "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--listen", "--workers", "--handoff", "--ready", "--drain", "--settle", "--soak"):
        assert option in page, option
        assert option in usage, option
