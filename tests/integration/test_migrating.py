# SPDX-License-Identifier: Apache-2.0
"""What conf/migrating.md says of start_server: the same worker, started by it and by `tenured run`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness import Program, assert_clean, clean_environment, connect, free_port, wait_until
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
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nX-Tenure-Generation: %s\\r\\n"
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


@pytest.fixture
def original(starter_worker, tmp_path):
    """original(port) starts the same worker, unchanged, under start_server itself."""
    program = shutil.which("start_server")
    if not program:
        pytest.skip("start_server is not installed")
    made = []

    def make(port):
        command = [program, "--port", f"127.0.0.1:{port}", "--interval", "1", "--", sys.executable, starter_worker]
        one = Program(command, tmp_path, "start_server", env=clean_environment(FLAVOUR="vanilla"))
        made.append(one)
        one.start()

        def answers():
            try:
                return get(port) == f"generation 1 of 127.0.0.1:{port} in vanilla"
            except OSError:
                return False

        wait_until(answers, 15, "start_server's worker")
        return one

    yield make
    for one in made:
        if one.is_running():
            one.signal(signal.SIGTERM)
            one.wait(20)
        one.kill()


def test_start_server_itself(original):
    """It says the same there."""
    port = free_port()
    one = original(port)
    one.signal(signal.SIGHUP)
    wait_until(lambda: get(port) == f"generation 2 of 127.0.0.1:{port} in vanilla", 15, "generation 2")


def test_start_server_taken_over(original, starter_worker, daemon, load):
    """With its worker: no request fails."""
    port = free_port()
    server = original(port)
    config = {"services": {"web": {
        "command": [sys.executable, str(starter_worker)], "listen": f"127.0.0.1:{port}", "handoff": "server-starter",
        "environment": {"FLAVOUR": "vanilla"}, "autostart": False, "upgrade": {"soak": "100ms"},
        "drain": {"settle": "50ms", "idle_wait": "1s"},
    }}}
    one = daemon(config)
    running = load(port, clients=4)
    running.wait_more(100)
    one.ctl("adopt", "web", "--pid", server.pid, "--signal", "SIGTERM")
    assert server.wait(20) == 0
    running.wait_for(generation=2, count=100)
    one.upgrade()
    running.wait_for(generation=3, count=100)
    assert_clean(running.stop(), 300)


# ---- the page ----


def fragments():
    """What stands in `...` in the columns for tenured.yaml."""
    page = (Path(os.environ["top_srcdir"]) / "conf" / "migrating.md").read_text()
    column = None
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|"):
            column = None
        elif column is None:
            column = cells.index(next(cell for cell in cells if "tenured.yaml" in cell))
        elif not line.startswith("|--"):
            for text in re.findall(r"`([^`]+)`", cells[column]):
                yield text, line


def test_page(tmp_path):
    """All that it says of tenured.yaml is right, by itself and in a service."""
    skeleton = {"command": "cat", "directory": str(tmp_path), "listen": 8080}
    checked = 0
    for text, line in fragments():
        key, colon, value = text.partition(": ")
        if not colon or not re.fullmatch("[a-z_]+", key) or key in ("control",):
            continue
        service = {k: json.dumps(v) for k, v in skeleton.items()}
        service[key] = value
        if key == "user":
            service["user"], service["group"] = "nobody", "nogroup"
        if key == "group":
            continue
        if "inherit" in value:
            service["command"] = json.dumps("cat")
        if key == "directory":
            service["directory"] = json.dumps(str(tmp_path))
        if key == "command":
            service["command"] = value if value[0] in "[\"" else json.dumps(value)
            service["handoff"] = "circus" if "circus" in value else "listen-fds"
        if key == "ready" and "einhorn" in value:
            service["handoff"] = "einhorn"
        if key == "handoff" and "circus" in value:
            service["command"] = json.dumps(["cat", "$(circus.sockets.http)"])
        if key == "env_file":
            service["env_file"] = "-" + value.lstrip("-")
        path = tmp_path / "tenured.yaml"
        path.write_text("services:\n  web:\n" + "".join(f"    {k}: {v}\n" for k, v in service.items()))
        done = subprocess.run([os.environ["TENURED"], "check", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "error" not in done.stderr, f"{line}\n{path.read_text()}{done.stderr}"
        checked += 1
    assert checked > 60


def test_page_names_options():
    """Every option of ours and every verb that the page names is there."""
    page = (Path(os.environ["top_srcdir"]) / "conf" / "migrating.md").read_text()
    usage = subprocess.run([os.environ["TENURED"], "--help"], capture_output=True, text=True, check=True).stdout
    for command in re.findall(r"^    (tenured run .*?) --(?: |$)", page, re.M):
        for option in re.findall(r"--[a-z-]+", command):
            assert option in usage, option
    for line in page.splitlines():
        cells = line.split(" | ")
        if line.startswith("| ") and len(cells) == 3:
            for option in re.findall(r"`(--[a-z-]+)", cells[1]):
                assert option in usage or option == "--strategy", line
    verbs = subprocess.run([os.environ["TENURECTL"], "help"], capture_output=True, text=True, check=True).stdout
    for verb in re.findall(r"tenurectl ([a-z]+)", page):
        assert re.search(rf"^  {verb}\b", verbs, re.M), verb


def test_page_start_server():
    """Every option of start_server is in the page, and the other way round."""
    program = shutil.which("start_server")
    if not program:
        pytest.skip("start_server is not installed")
    usage = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    there = set(re.findall(r"^  (--[a-z-]+)", usage.stdout + usage.stderr, re.M)) - {"--help", "--version"}
    page = (Path(os.environ["top_srcdir"]) / "conf" / "migrating.md").read_text()
    table = page[page.index("| start_server |"):page.index("What is different")]
    named = {option for line in table.splitlines()[2:] for option in re.findall(r"`(--[a-z-]+)", line.split(" | ")[0])}
    assert there == named
