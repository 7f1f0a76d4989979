# SPDX-License-Identifier: Apache-2.0
"""Fixtures. `daemon` makes daemons and ends them with all checks; `load` makes load. After each test
nothing may be alive below the test process."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

# pylint: disable=wrong-import-position
import harness
import processes
from daemon import Daemon, Manners, end_all, worker_service
from udp import UdpLoad


def pytest_configure():
    processes.become_subreaper()


def pytest_runtest_setup(item):
    if item.get_closest_marker("root") and not harness.IS_ROOT:
        pytest.skip("needs root")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """What the daemons said, beside the failure."""
    outcome = yield
    report = outcome.get_result()
    setattr(item, "failed_" + report.when, report.failed)
    if report.failed:
        for running in getattr(item, "daemons", []):
            if running.err_path.exists():
                report.sections.append((f"log of {running.directory}", running.log[-20000:]))
                config = json.dumps(running.config) if running.config else "no configuration"
                report.sections.append((f"configuration of {running.directory}", config))


# What no other run makes good: run-pytest.sh does not run such a test again.
FINAL = ("requests failed", "Sanitizer", "runtime error:")
EXIT_FINAL = 10


def pytest_runtest_logreport(report):
    if report.failed and any(words in str(report.longrepr) for words in FINAL):
        pytest_runtest_logreport.final = True


pytest_runtest_logreport.final = False


def pytest_sessionfinish(session):
    if pytest_runtest_logreport.final and session.exitstatus == pytest.ExitCode.TESTS_FAILED:
        session.exitstatus = EXIT_FINAL


@pytest.fixture(autouse=True)
def no_strays(request, tmp_path):
    """The last check of each test, after the fixtures that end things: no process and no
    path of a socket is left. Those in a daemon's directory it looks for itself."""
    yield
    strays = processes.end_strays()
    if request.node.get_closest_marker("strays") or getattr(request.node, "failed_call", False):
        return
    assert not strays, f"left alive: {strays}"
    # Programs of the tests' own leave theirs.
    paths = harness.socket_paths(tmp_path) if getattr(request.node, "daemons", None) else []
    assert not paths, f"left behind: {paths}"


@pytest.fixture
def daemon(request, no_strays):  # pylint: disable=unused-argument
    """daemon(config) starts one. At the end of a test that passed it must end well on TERM."""
    made = request.node.daemons = []

    def make(config=None, start=True, **more):
        new = Daemon(config, **more)
        made.append(new)
        return new.start() if start else new

    yield make
    end_all(made, request)


@pytest.fixture
def web(daemon):
    """web() starts a daemon with one service "web" of test workers on a port of its own. The result is
    the daemon, with .port and .manners; arguments are the workers' options, keywords are keys of the
    service, `top` are keys beside "services"."""

    def make(*options, port=None, listen=None, top=None, start=True, env=None, **keys):
        new = daemon(start=False, env=env)
        new.port = port or harness.free_port()
        new.manners = Manners(new.directory)
        service = worker_service(
            listen or f"127.0.0.1:{new.port}", *options, manners=new.manners, **keys
        )
        new.config = {"services": {"web": service}, **(top or {})}
        new.write_config()
        if start:
            new.start()
            new.wait_serving("web")
        return new

    return make


@pytest.fixture
def udp_load(tmp_path, no_strays):  # pylint: disable=unused-argument
    """udp_load(address, sockets=16, window=4, rate=20000) starts load, ended with the test."""
    made = []

    def make(address, **options):
        made.append(UdpLoad(tmp_path, address, **options))
        return made[-1].start()

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def load(tmp_path, no_strays):  # pylint: disable=unused-argument
    """load(address, clients=16) starts load; it is ended with the test at the latest."""
    made = []

    def make(address, **options):
        new = harness.Load(tmp_path, address, **options)
        made.append(new)
        return new.start()

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def worker(tmp_path, no_strays):  # pylint: disable=unused-argument
    """worker("--ready-delay", "1s") starts a test worker by itself and waits until it listens."""
    made = []

    def make(*options, wait=True, **more):
        new = harness.Worker(tmp_path, *options, name=f"worker{len(made)}", **more)
        made.append(new)
        new.start()
        return new.wait_listening() if wait else new

    yield make
    for one in made:
        one.kill()
