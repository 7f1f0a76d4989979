# SPDX-License-Identifier: Apache-2.0
"""These tests run inside of a systemd that was booted for them (./guest). They install the build, and
leave the machine after each test as it was before."""

import os
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

# pylint: disable=wrong-import-position
import machine

os.environ["TENURE_WORKER"] = str(machine.TOOLS / "worker")

import harness
import processes
from unit import Unit


def pytest_sessionstart():
    assert Path("/run/systemd/system").is_dir(), "to be run by tests/run-systemd.sh"
    processes.become_subreaper()
    machine.install()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    setattr(item, "failed_" + report.when, report.failed)
    if report.failed and getattr(item, "since", None):
        text = machine.journal("--since", item.since, "-o", "short-precise")
        report.sections.append(("journal", text[-20000:]))


@pytest.fixture(autouse=True)
def clean_machine(request):
    request.node.since = f"@{time.time():.6f}"
    yield
    pids = [pid for unit in machine.our_units() for pid in machine.processes(unit)]
    machine.clean_up()
    machine.wait_until_gone(pids)
    left = machine.our_units()
    assert not left, left


@pytest.fixture
def unit(request, clean_machine):  # pylint: disable=unused-argument
    """unit(config, name=None) starts one. At the end of a test that passed it must stop well."""
    made = []

    def make(config=None, name=None, start=True):
        new = Unit(config, name)
        made.append(new)
        return new.start() if start else new

    yield make
    for one in reversed(made):
        if not getattr(request.node, "failed_call", False) and one.show("ActiveState") == "active":
            one.stop()
        one.remove()


@pytest.fixture
def load(tmp_path):
    made = []

    def make(address, **options):
        made.append(harness.Load(tmp_path, address, **options))
        return made[-1].start()

    yield make
    for one in made:
        one.kill()
