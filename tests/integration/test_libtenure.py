# SPDX-License-Identifier: Apache-2.0
"""libtenure as its users have it: installed, found by pkg-config, linked either way, and run by whoever
passes sockets."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import connect, free_port, http_get, wait_until
from test_examples import SOURCE, Example

BUILD = Path(os.environ.get("top_builddir", SOURCE.parent))
# Each target that puts a part of the library in place.
TARGETS = ["install-libLTLIBRARIES", "install-includeHEADERS", "install-pkgconfigDATA"]


def run(*command, **more):
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=120, check=False, **more,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


class Installed:
    def __init__(self, stage):
        self.stage = stage
        plain = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        run(os.environ.get("MAKE", "make"), "-C", BUILD, *TARGETS, f"DESTDIR={stage}", env=plain)
        self.pc = next(stage.rglob("tenure.pc"))
        self.libdir = self.pc.parent.parent

    def pkg_config(self, *options):
        env = {**os.environ, "PKG_CONFIG_PATH": str(self.pc.parent), "PKG_CONFIG_SYSROOT_DIR": str(self.stage)}
        return run("pkg-config", *options, "tenure", env=env).split()

    def build(self, source, target, static=False):
        flags = self.pkg_config(*(["--static"] if static else []), "--cflags", "--libs")
        assert all(str(self.stage) in flag for flag in flags if flag[:2] in ("-I", "-L")), flags
        compiler = os.environ.get("CC", "cc").split()
        run(*compiler, "-Wall", "-Werror", *(["-static"] if static else []), source, "-o", target, *flags)
        return target


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("stage"))


def test_what_is_installed(installed):
    names = {path.name for path in installed.stage.rglob("*") if not path.is_dir()}
    assert names == {"tenure.h", "tenure.pc", "libtenure.a", "libtenure.la", "libtenure.so",
                     "libtenure.so.0", "libtenure.so.0.0.0"}
    header = next(installed.stage.rglob("tenure.h")).read_text()
    assert "#include \"" not in header
    assert re.fullmatch(r"\d+\.\d+\.\d+", installed.pkg_config("--modversion")[0])


@pytest.mark.parametrize("static", [False, True], ids=["shared", "static"])
def test_built_by_an_outside_user(installed, daemon, load, static):
    example = Example(daemon, "epoll")
    program = example.daemon.directory / "epoll"
    program.unlink(missing_ok=True)
    installed.build(SOURCE / "epoll.c", program, static)
    needs = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", program))
    assert ("libtenure.so.0" in needs) != static, needs
    if not static:
        example.text = example.text.replace(
            "    listen:", f"    environment: {{LD_LIBRARY_PATH: {installed.libdir}}}\n    listen:", 1)
        assert "LD_LIBRARY_PATH" in example.text
    example.start().upgrade_many(load, n=3, keepalive=True)


def test_by_socket_activation(installed, tmp_path, no_strays):  # pylint: disable=unused-argument
    """Whoever sets what systemd sets: the same program serves that socket, without a word of tenured."""
    activate = shutil.which("systemd-socket-activate")
    if not activate:
        pytest.skip("systemd-socket-activate is not installed")
    program, port = installed.build(SOURCE / "epoll.c", tmp_path / "epoll"), free_port()
    with subprocess.Popen(
        [activate, "-l", f"127.0.0.1:{port}", "-E", f"LD_LIBRARY_PATH={installed.libdir}", str(program)],
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(lambda: answers(port), 10, "an answer")
            with connect(port) as client:
                for _ in range(2):
                    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert b"generation 0" in client.recv(4096)
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


def answers(port):
    try:
        return "generation 0" in http_get(port).text
    except OSError:
        return False
