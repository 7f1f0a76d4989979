# SPDX-License-Identifier: Apache-2.0
"""What the README says of systemd is true: its commands are run, by root in a build folder, and say what it
shows. The rest of it is tested in tests/integration/."""

import importlib.util
import os
from pathlib import Path

import pytest

import machine
from harness import wait_until

SPEC = importlib.util.spec_from_file_location(
    "integration_readme", machine.SOURCE / "tests" / "integration" / "test_readme.py"
)
readme = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(readme)


@pytest.fixture
def shell(tmp_path):
    """In a folder with what a reader has there who has built it in the source folder."""
    (tmp_path / "Makefile").write_text(
        f"install:\n\t@$(MAKE) --no-print-directory -C {machine.BUILD} install\n"
    )
    (tmp_path / "conf").symlink_to(machine.SOURCE / "conf")
    one = readme.Shell(tmp_path)
    yield one
    one.close()


def write(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


@pytest.mark.skipif(machine.has_own_prefix(), reason="installs where systemd does not look")
@pytest.mark.skipif("TENURE_SYSTEMD_ROOT" in os.environ, reason="`make install` is for this machine's root")
def test_with_systemd(shell, clean_machine):  # pylint: disable=unused-argument
    n_run = 0
    shell.run("unset MAKEFLAGS MFLAGS MAKELEVEL")
    for note, kind, text in readme.blocks():
        if note.startswith("systemd file: "):
            write(note.removeprefix("systemd file: "), text)
        elif note == "systemd" and kind == "console":
            for command in readme.commands(text):
                output = shell.run(command.text)
                readme.assert_same(command.text, output, command.expected)
                n_run += 1
                # Between two commands a person gives it time to start, and the journal to be written.
                wait_until(lambda: machine.show("tenured", "ActiveState") != "activating", 10)
                machine.journal("-n1")
    assert n_run > 15
