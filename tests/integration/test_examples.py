# SPDX-License-Identifier: Apache-2.0
"""The workers in examples/: each runs by its own configuration (with another port, and without the
waits that are meant for the open network), and is upgraded under load."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import assert_clean, connect, free_port, http_get, wait_until

SOURCE = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2])) / "examples"
BUILT = Path(os.environ.get("top_builddir", SOURCE.parent)) / "examples"

N_UPGRADES = 10


def needs(program, in_ci=True):
    if shutil.which(program) is None:
        if in_ci and os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")


def built(name, package):
    if not (BUILT / name).exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} was not built: {package} is not installed")
        pytest.skip(f"{name} was not built: {package} was not there when configure ran")


class Example:
    def __init__(self, daemon, name, **keys):
        self.name = name
        self.daemon = daemon(start=False)
        self.port = free_port()
        for path in SOURCE.iterdir():
            shutil.copy(path, self.daemon.directory)
        for program in ("epoll", "libuv"):
            if (BUILT / program).exists():
                shutil.copy(BUILT / program, self.daemon.directory)
        self.text = (SOURCE / f"{name}.yaml").read_text()
        self.replace(r"127\.0\.0\.1:\d+", f"127.0.0.1:{self.port}")
        self.replace(r"soak: \w+", "soak: 100ms")
        for key, value in keys.items():
            self.text += f"    {key}: {value}\n"
        self.text += f"control: {{socket: {self.daemon.socket_path}}}\n"

    def replace(self, pattern, new):
        self.text, n = re.subn(pattern, new, self.text)
        assert n == 1, self.text

    def start(self):
        if "    drain:" in self.text:
            self.replace(r"drain: \{", "drain: {settle: 100ms, max_generations: 8, ")
        else:
            drain = "    drain: {settle: 100ms, max_generations: 8}\ncontrol:"
            self.text = self.text.replace("control:", drain, 1)
        self.daemon.write_config(self.text)
        self.daemon.start()
        self.daemon.wait_serving("app", generation=1, timeout=30)
        return self

    def upgrade_many(self, load, n=N_UPGRADES, **options):
        run = load(self.port, clients=8, **options)
        run.wait_for(ok=50)
        for number in range(2, n + 2):
            self.daemon.upgrade("app")
            self.daemon.wait_generation_gone(number - 3, "app")
            run.wait_for(generation=number)
        result = run.stop()
        assert_clean(result, min_requests=100, generations=range(1, n + 2))


@pytest.mark.parametrize(
    "name, program",
    [
        ("python", "python3"),
        ("node", "node"),
        ("perl", "perl"),
        ("shell", "perl"),
        ("go", "go"),
    ],
)
def test_with_nothing_but_the_environment(daemon, load, name, program):
    # Debian's golang is larger than everything else together.
    needs(program, in_ci=name != "go")
    example = Example(daemon, name)
    if name == "go":
        subprocess.run(
            ["go", "build", "-o", "go-worker", "go.go"],
            cwd=example.daemon.directory,
            env={**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off"},
            check=True,
            timeout=300,
        )
    example.start().upgrade_many(load)


@pytest.mark.parametrize("name, package", [("epoll", "libc6-dev"), ("libuv", "libuv1-dev")])
@pytest.mark.parametrize("keepalive", [False, True])
def test_with_libtenure(daemon, load, name, package, keepalive):
    built(name, package)
    Example(daemon, name).start().upgrade_many(load, keepalive=keepalive)


def number_after(text, word):
    return int(re.search(rf"{word} (\d+)", text)[1])


def get(client):
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    data = b""
    while not data.endswith(b"\n") or b"hello" not in data:
        more = client.recv(4096)
        assert more, f"the connection ended after {data!r}"
        data += more
    return data.decode()


def test_connections_and_state_survive_upgrades(daemon):
    """A client's connection and what its worker has counted in a memfd go from process to process."""
    example = Example(daemon, "epoll")
    example.replace("workers: 2", "workers: 1")
    example.start()
    clients = [connect(example.port) for _ in range(20)]
    counts = [number_after(get(client), "request") for client in clients]
    assert counts == list(range(1, 21))
    for generation in range(2, 6):
        example.daemon.upgrade("app")
        example.daemon.wait_generation_gone(generation - 1, "app")
        for client in clients:
            text = get(client)
            assert number_after(text, "generation") == generation, text
            counts.append(number_after(text, "request"))
    assert counts == list(range(1, 101))
    with example.daemon.no_fd_leak():
        for client in clients:
            client.close()
        wait_until(lambda: http_get(example.port).status == 200, 5, "an answer")


def test_by_hand(tmp_path):
    """Without tenured it binds its port itself, and ends on TERM."""
    assert tmp_path.exists()
    try:
        connect(8080).close()
        pytest.skip("something listens on port 8080")
    except OSError:
        pass
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LISTEN_", "NOTIFY_"))}
    with subprocess.Popen([BUILT / "epoll"], env=environment) as process:
        try:
            wait_until(lambda: not connect_fails(8080), 10, "port 8080")
            assert "generation 0" in http_get(8080).body.decode()
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


def connect_fails(port):
    try:
        connect(port).close()
        return False
    except OSError:
        return True
