# SPDX-License-Identifier: Apache-2.0
"""Servers that know nothing of tenured, upgraded under load by the examples in conf/: these very files,
with another port and without the waits that are meant for the open network."""

import os
import re
import shutil
import signal
import socket
import threading
from pathlib import Path

import pytest

from daemon import ROLLED_BACK
from harness import Program, assert_clean, connect, free_port, http_get, wait_until

CONF = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2])) / "conf"

N_UPGRADES = 10


def needs(program):
    """The path of a server. In CI all of them are there; elsewhere a missing one is said."""
    path = shutil.which(program)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return path


def with_key(text, section, key, value):
    """`text` with section.key set, in the style of the examples: a section is one flow mapping."""
    inside = re.search(rf"^    {section}: \{{(.*)\}}", text, re.MULTILINE)
    if inside is None:
        assert not re.search(rf"^    {section}:", text, re.MULTILINE), f"{section} is not a map:\n{text}"
        return text.rstrip("\n") + f"\n    {section}: {{{key}: {value}}}\n"
    others = [item for item in inside[1].split(", ") if not item.startswith(key + ":")]
    new = ", ".join([*others, f"{key}: {value}"])
    return text[: inside.start(1)] + new + text[inside.end(1) :]


class Example:
    """One file of conf/ and a daemon that serves it. `edits` are (file, old, new), done first."""

    def __init__(self, daemon, name, edits=()):
        self.daemon = daemon(start=False)
        self.port = free_port()
        for path in CONF.iterdir():
            shutil.copy(path, self.daemon.directory)
        for edit in edits:
            self.edit(*edit)
        text = (CONF / f"{name}.yaml").read_text()
        self.service = re.search(r"^services:\n  (\w+):$", text, re.MULTILINE)[1]
        pattern = r"^(    listen: |      http: \{address: )(\"?(?:127.0.0.1:)?)(\d+)\b"
        old = re.search(pattern, text, re.MULTILINE)
        text, n = re.subn(pattern, rf"\g<1>\g<2>{self.port}", text, flags=re.MULTILINE)
        assert n == 1, text
        for path in self.daemon.directory.glob(f"{name}.c*f*"):  # where it has its own addresses
            path.write_text(path.read_text().replace(f":{old[3]};", f":{self.port};"))
        # On loopback nothing is under way for longer.
        text = with_key(text, "upgrade", "soak", "100ms")
        text = with_key(text, "drain", "settle", "100ms")
        text = re.sub(r"\bkeep_warm: \w+", "keep_warm: 500ms", text)
        text += f"control: {{socket: {self.daemon.socket_path}}}\n"
        self.daemon.write_config(text)
        self.daemon.start()
        self.daemon.wait_serving(self.service, generation=1, timeout=30)

    def edit(self, file, old, new):
        """In one step: a server may read the file at any time."""
        path = self.daemon.directory / file
        text = path.read_text()
        assert old in text
        changed = path.with_suffix(".new")
        changed.write_text(text.replace(old, new))
        shutil.copymode(path, changed)
        changed.rename(path)

    def text(self):
        reply = http_get(self.port)
        assert reply.status == 200
        return reply.text


def two_loads(load, port):
    """A connection for each request, and connections that are kept for a while and end by themselves."""
    return [
        load(port, clients=4, think="2ms"),
        load(port, clients=4, think="2ms", keepalive=True, requests_per_connection=50),
    ]


def stop_clean(loads, **expected):
    results = [one.stop() for one in loads]
    for result in results:
        assert_clean(result, **expected)
    return results


# Every server, its program, and whether its page tells the generation.
SERVERS = [
    pytest.param("gunicorn", "gunicorn", True, id="gunicorn"),
    pytest.param("node", "node", True, id="node"),
    pytest.param("lighttpd", "lighttpd", False, id="lighttpd"),
    pytest.param("haproxy", "haproxy", False, id="haproxy"),
    pytest.param("nginx", "nginx", False, id="nginx"),
    pytest.param("hello", "python3", True, id="python"),
    pytest.param("canary", "python3", True, id="canary"),
]


@pytest.mark.parametrize("name, program, tells", SERVERS)
def test_upgrades(daemon, load, name, program, tells):
    needs(program)
    example = Example(daemon, name)
    loads = two_loads(load, example.port)
    for one in loads:
        one.wait_for(ok=50)
    for number in range(2, N_UPGRADES + 2):
        # No more than four may live at once (drain.max_generations), and kept connections have time.
        if number > 4:
            example.daemon.wait_generation_gone(number - 4, example.service)
        example.daemon.upgrade(example.service)
        expected = f"hello from generation {number}\n" if tells else "hello\n"
        assert example.text() == expected
        for one in loads:
            one.wait_more(20)
    assert example.daemon.service(example.service)["generation"] == N_UPGRADES + 1
    # The old ones end in their own time; what they still have belongs to the test.
    for number in range(1, N_UPGRADES + 1):
        example.daemon.wait_generation_gone(number, example.service)
    stop_clean(loads, min_requests=N_UPGRADES * 20)


@pytest.mark.parametrize("name, program, file, other", [
    pytest.param("lighttpd", "lighttpd", "lighttpd.conf", "other.txt", id="lighttpd"),
    pytest.param("haproxy", "haproxy", "haproxy.cfg", "other", id="haproxy"),
])
def test_fingerprint(daemon, load, name, program, file, other):
    """A server whose own configuration changed is upgraded by a reload, and not otherwise; one that
    refuses it is not seen by clients."""
    needs(program)
    example = Example(daemon, name)
    (example.daemon.directory / "other.txt").write_text("other\n")
    running = load(example.port, clients=4, think="2ms")
    running.wait_for(ok=50)
    example.daemon.reload()
    assert example.daemon.service(example.service)["generation"] == 1

    example.edit(file, "hello.txt" if name == "lighttpd" else "hello", other)
    example.daemon.reload()
    assert example.text() == "other\n"
    assert example.daemon.service(example.service)["generation"] == 2

    path = example.daemon.directory / file
    path.write_text(path.read_text() + "nonsense {\n")
    bad = example.daemon.reload(check=ROLLED_BACK)
    assert "generation 3" in bad.out + bad.err
    # What the server said of it is shown.
    assert "nonsense" in bad.out + bad.err or file in bad.out + bad.err, bad
    assert example.text() == "other\n"
    assert example.daemon.service(example.service)["generation"] == 2
    running.wait_more(50)
    stop_clean([running])


def test_gunicorn_import_fails(daemon, load):
    """gunicorn's master lives on for a while when the application cannot be imported."""
    needs("gunicorn")
    said = ("hello_wsgi.py", "import os\n", "import os\nprint('imported', flush=True)\n")
    example = Example(daemon, "gunicorn", [said])
    running = load(example.port, clients=4, think="2ms")
    running.wait_for(ok=50)
    # Either of its two workers imports the application by itself, and its master gives up if one cannot.
    wait_until(lambda: example.daemon.log.count("imported") == 2, what="both workers to have the application")
    example.edit("hello_wsgi.py", "import os\n", "import os\nimport no_such_module\n")
    bad = example.daemon.upgrade(example.service, check=ROLLED_BACK)
    # Its last words are shown. Behind the reason come tracebacks of its own, of varying length.
    assert "Worker failed to boot" in bad.err
    assert "No module named 'no_such_module'" in example.daemon.log
    assert example.text() == "hello from generation 1\n"
    example.edit("hello_wsgi.py", "import no_such_module\n", "")
    example.daemon.upgrade(example.service)
    assert example.text() == "hello from generation 3\n"
    running.wait_more(50)
    stop_clean([running])


SLOW_NODE = ("hello.js", "response.end(body)", "setTimeout(() => response.end(body), 200)")


def test_node_slow_requests(daemon, load):
    """Every old process has requests under way when it has lost its share, and TERM would end them."""
    needs("node")
    example = Example(daemon, "node", edits=[SLOW_NODE])
    running = load(example.port, clients=16)
    running.wait_for(ok=32)
    for number in range(2, 5):
        example.daemon.upgrade(example.service)
        assert example.text() == f"hello from generation {number}\n"
    for number in range(1, 4):
        example.daemon.wait_generation_gone(number, example.service)
    stop_clean([running], min_requests=60)


# ---- faults of the servers themselves, shown without tenured: the reason why the examples wait for idle
# connections before the signal


class Alone(Program):
    """A server with a listening socket of ours, as a child of this test."""

    def __init__(self, directory, command, listener):
        self.listener = listener
        # Only the process itself can know the pid that is to be in LISTEN_PID.
        script = 'exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ FD=3 exec "$@"'
        super().__init__(
            ["sh", "-c", script, "sh", *command], directory, "server", stdin=listener, cwd=directory
        )

    def wait_answers(self):
        def answers():
            assert self.is_running(), self.err
            try:
                return http_get(self.listener.getsockname()[1], timeout=1.0).status == 200
            except OSError:
                return False

        wait_until(answers, 10, "the server")


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_node_alone_dies_of_term_in_mid_request(tmp_path, listener):
    needs("node")
    (tmp_path / "slow.js").write_text((CONF / "hello.js").read_text().replace(*SLOW_NODE[1:]))
    with Alone(tmp_path, ["node", "slow.js", "3"], listener) as server:
        server.wait_answers()
        with connect(listener.getsockname()[1]) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            # The worst moment: the request is being worked on.
            threading.Timer(0.1, server.signal).start()
            try:
                assert client.recv(1000) == b""
            except ConnectionResetError:
                pass
        assert server.wait() == -signal.SIGTERM


@pytest.mark.parametrize("command, number", [
    pytest.param("lighttpd -D -f lighttpd.conf", signal.SIGINT, id="lighttpd"),
    pytest.param("haproxy -db -f haproxy.cfg", signal.SIGUSR1, id="haproxy"),
])
def test_alone_closes_idle_connections(tmp_path, listener, command, number):
    """Told to end, it closes connections that clients keep, whose next request may be under way."""
    needs(command.split()[0])
    for path in CONF.iterdir():
        shutil.copy(path, tmp_path)
    with Alone(tmp_path, command.split(), listener) as server:
        server.wait_answers()
        with connect(listener.getsockname()[1], timeout=15) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            assert server.is_running()
            server.signal(number)
            # Without "Connection: close" in the reply the client may go on at any time.
            assert client.recv(1000) == b""
