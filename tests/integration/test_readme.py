# SPDX-License-Identifier: Apache-2.0
"""The README is true: every command in it is run, in order, and says what the README shows; the
demonstration's transcript is what the demonstration prints.

Commands are the lines after "$ " in fenced `console` blocks; what follows until the next one is their
output, where "..." stands for any lines. A comment before a block says what it is besides that:
<!-- file: NAME --> its text is written to NAME, <!-- demo --> the demonstration prints it, <!-- systemd -->
and <!-- systemd file: NAME --> the same in tests/systemd/, <!-- not run: WHY --> for blocks that another
test covers or that need another machine."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from harness import BUILD, IS_ROOT, TENURECTL, TENURED, clean_environment, free_port

SOURCE = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2]))
README = SOURCE / "README.md"
BLOCK = re.compile(r"(?:^<!-- (?P<note>.*?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
MARK = "@@@ "


class Command:
    def __init__(self, text):
        self.text, self.expected = text, []


def blocks():
    return [(m["note"] or "", m["kind"], m["text"]) for m in BLOCK.finditer(README.read_text())]


def commands(text):
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        else:
            assert found, f"output before any command: {line}"
            found[-1].expected.append(line)
    return found


def simplify(line):
    """Without what is different each time: times, processes, counts, ports."""
    line = re.sub(r"\bpid \d+", "pid #", line)
    line = re.sub(r"\b\d+(\.\d+)?(ms|s|m|h)(\d+s)?(?![a-z])", "#t", line)
    # Workers of a generation start at the same time: any of them may be first.
    line = re.sub(r"worker (\d+\.)?\d+", r"worker \1#", line)
    line = re.sub(r"\d{4,}|\d+ generations", "#", line)
    return re.sub(r"\s+", " ", line).strip()


def assert_same(command, output, expected):
    """Line by line; "..." is any lines."""
    want = [simplify(line) for line in expected]
    # Of which root is warned, and nobody else.
    have = [simplify(line) for line in output if not re.search("warning: .* runs as root", line)]
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in want)
    if not re.fullmatch(pattern, "".join(line + "\n" for line in have)):
        says, prints = "\n".join(expected), "\n".join(output)
        raise AssertionError(f"$ {command}\n--- README says\n{says}\n--- but it printed\n{prints}")


class Shell:
    """One bash, as a reader of the README has it."""

    def __init__(self, directory, user=None):
        wrap = ["runuser", "-u", user, "--"] if user else []
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [*wrap, "bash", "--norc", "--noprofile"],
            cwd=directory,
            env=clean_environment(NO_COLOR="1", TERM="dumb", LC_ALL="C.UTF-8"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.run("set -m")

    def run(self, command):
        """The lines it printed."""
        self.process.stdin.write(f'{command}\necho "{MARK}$?" \n(exit ${{PIPESTATUS[0]}})\n')
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.startswith(MARK):
                return lines
            lines.append(line.rstrip("\n"))
        raise AssertionError(f"the shell ended in: {command}\n" + "\n".join(lines))

    def wait_up(self):
        """Between two commands a person gives a daemon time to start; here it is waited for."""
        deadline = time.monotonic() + 10
        while "0" not in self.run("tenurectl --quiet wait --timeout 10s web 2>/dev/null; echo $?"):
            assert time.monotonic() < deadline, "the daemon did not start"
            time.sleep(0.02)

    def wait_paused(self):
        """The same for an upgrade that goes on by itself until it pauses."""
        deadline = time.monotonic() + 30
        while not any("paused" in line for line in self.run("tenurectl status")):
            assert time.monotonic() < deadline, "the upgrade did not pause"
            time.sleep(0.02)

    def close(self):
        # Its jobs have process groups of their own.
        self.process.stdin.write("kill $(jobs -p) 2>/dev/null; wait\nexit\n")
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(params=["nobody", None] if IS_ROOT else [None])
def checkout(request):
    """What a reader has: a checkout with a build folder in it; and who the reader is. Copies, for a build
    folder may be where others cannot look, and a source folder read-only."""
    directory = Path(tempfile.mkdtemp(prefix="tenured-readme-"))
    directory.chmod(0o755)
    (directory / "build").mkdir()
    for program in (TENURED, TENURECTL):
        shutil.copy(program, directory / "build")
    shutil.copytree(SOURCE / "conf", directory / "conf")
    for path in directory.rglob("*"):
        path.chmod(path.stat().st_mode | 0o200)
    if request.param:
        for path in (directory, *directory.rglob("*")):
            shutil.chown(path, request.param)
    yield directory, request.param
    shutil.rmtree(directory)


def test_the_blocks_are_known():
    kinds = {kind for _, kind, _ in blocks()}
    assert kinds <= {"c", "console", "ini", "sh", "yaml", "text"}, kinds
    for note, kind, text in blocks():
        assert not note or re.match(r"file: \S+$|demo$|not run: .+|systemd( file: \S+)?$", note), note
        if kind in ("c", "sh"):
            assert note.startswith("not run: "), f"nobody runs this:\n{text}"


def test_what_is_named_is_there():
    """Links, and in the code's README each file that is named."""
    code = SOURCE / "src" / "README.md"
    for page in (README, code):
        for link in re.findall(r"\]\((?!https:)(.*?)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"
    for name in re.findall(r"\b(?:[a-z]+/)+[a-z_]+\.[ch]\b", code.read_text()):
        assert any((parent / name).exists() for parent in (SOURCE, SOURCE / "src")), f"{code}: {name}"


def test_the_two_commands():
    """They are what CI runs, and autogen.sh knows them."""
    shown = "".join(text for _, kind, text in blocks() if kind == "sh")
    script = (SOURCE / "autogen.sh").read_text()
    for verb in ("demo", "check"):
        assert f"./autogen.sh {verb}" in shown
        assert re.search(rf"^{verb}\)", script, re.M)


def test_five_minutes(checkout, no_strays):  # pylint: disable=unused-argument
    port = str(free_port())
    directory, user = checkout
    for path in (directory / "conf").glob("*.yaml"):
        path.write_text(path.read_text().replace("8080", port))
    shell = Shell(directory, user)
    try:
        n_run = 0
        for note, kind, text in blocks():
            text = text.replace("8080", port)
            if note.startswith("file: "):
                path = Path(shell.run("pwd")[0]) / note.removeprefix("file: ")
                path.write_text(text)
                path.chmod(0o644)
                if user:
                    shutil.chown(path, user)
            elif kind == "console" and not note:
                for command in commands(text):
                    output = shell.run(command.text)
                    assert_same(command.text, output, command.expected)
                    n_run += 1
                    # Also before the script that new workers are to run is changed in place.
                    if command.text.endswith("&") or command.text == "tenurectl reload":
                        shell.wait_up()
                    if "--pause-at" in command.text:
                        shell.wait_paused()
        assert n_run > 10
    finally:
        shell.close()


def test_demonstration():
    (transcript,) = [text for note, _, text in blocks() if note == "demo"]
    done = subprocess.run(
        ["sh", str(SOURCE / "tests" / "demo.sh"), str(BUILD)],
        env=clean_environment(LC_ALL="C.UTF-8"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    expected = [line for line in transcript.splitlines() if line.strip()]
    # Who runs it is not the same everywhere, nor how many requests a machine can do.
    who = re.compile(r"run by .*")
    lines, expected = ([who.sub("run by #", line) for line in part] for part in (lines, expected))
    assert_same("./autogen.sh demo", lines, expected)
