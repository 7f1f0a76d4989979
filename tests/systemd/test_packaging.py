# SPDX-License-Identifier: Apache-2.0
"""What units/packaging.md says that a package does: the very lines are run, with a new program in place."""

import os
import re
import shutil
from pathlib import Path

import pytest

import machine
from harness import assert_clean, free_port, wait_until
from unit import web_config

STAGE = Path(os.environ["TENURE_STAGE"])
TEXT = (machine.SOURCE / "units" / "packaging.md").read_text()


def snippet(name):
    (text,) = re.findall(rf"<!-- {name} -->\n```sh\n(.*?)```", TEXT, re.S)
    return text


def install_needrestart_files():
    """Where needrestart looks, whatever the prefix."""
    for found in next(STAGE.rglob("etc/needrestart")).rglob("*"):
        if found.is_file():
            place = Path("/etc/needrestart", found.parent.name, found.name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, place)
            if machine.has_own_prefix():
                place.write_text(re.sub(r"\S+/tenurectl", f"{machine.PREFIX}/bin/tenurectl", place.read_text()))


@pytest.fixture
def program():
    """put(source) replaces the program; at the end it is as it was."""
    path = Path(machine.program())
    good = machine.TOOLS / "tenured.good"
    shutil.copy2(path, good)

    def put(source=good):
        new = path.with_suffix(".new")
        shutil.copy2(source, new)
        new.rename(path)
        return os.stat(path).st_ino

    yield put
    put()


@pytest.fixture
def units(unit, load):
    """units(name, ...): for each a unit under load."""

    def make(*names):
        made = []
        for name in names:
            one = unit(name=name, start=False)
            one.port = free_port()
            one.config = web_config(f"127.0.0.1:{one.port}", workers=2)
            one.write_config()
            one.start()
            one.before = (one.pid, sorted(one.pids()))
            one.load = load(one.port, clients=4)
            one.load.wait_more(50)
            made.append(one)
        return made

    return make


def executed(one):
    return os.stat(f"/proc/{one.pid}/exe").st_ino


def assert_only_the_program_is_new(one, inode):
    assert executed(one) == inode
    assert (one.pid, sorted(one.pids())) == one.before
    assert one.show("NRestarts") == "0" and one.show("ActiveState") == "active"
    one.load.wait_more(50)
    assert_clean(one.load.stop(), generations=[1])


def configure(*arguments):
    environment = {**os.environ, "PATH": f"{machine.PREFIX}/bin:/usr/bin:/bin"}
    return machine.run("sh", "-e", "-c", snippet("postinst"), "postinst", *arguments, env=environment)


def test_update(units, program):
    made = units(None, "hardened", "blog")
    inode = program()
    done = configure("configure", "0.0.1")
    assert done.stdout.count("replaced itself") == 3, done
    for one in made:
        assert_only_the_program_is_new(one, inode)


def test_update_to_a_program_that_is_not_fit(units, program, tmp_path):
    """It is said, and all goes on."""
    (one,) = units(None)
    before = executed(one)
    bad = tmp_path / "bad"
    bad.write_bytes(Path(machine.program()).read_bytes()[:50000])
    bad.chmod(0o755)
    program(bad)
    done = configure("configure", "0.0.1")
    assert "tenurectl: " in done.stderr and "replaced itself" not in done.stdout, done
    assert_only_the_program_is_new(one, before)


def test_without_a_daemon():
    assert configure("configure", "0.0.1").stderr == ""
    assert configure("triggered").stderr == ""


# ---- needrestart ----

# What of it reads and uses the files: its configuration evaluates them, and then it looks by name.
LOOK = r"""
our %nrconf = (restart_d => '/etc/needrestart/restart.d', override_rc => {qr(^dbus) => 0});
foreach my $fn (sort </etc/needrestart/conf.d/*.conf>) {
    eval do { local(@ARGV, $/) = $fn; <>};
    die "Error parsing $fn: $@" if($@);
}
foreach my $rc (@ARGV) {
    my $restart = 1;
    foreach my $re (keys %{$nrconf{override_rc}}) {
        $restart = $nrconf{override_rc}->{$re} if($rc =~ /$re/);
    }
    my $command = "$nrconf{restart_d}/$rc";
    print "$rc: ", !$restart ? 'left alone' : -x $command ? $command : 'restarted', "\n";
}
"""


def look(*units_):
    done = machine.run("perl", "-we", LOOK, *units_)
    assert not done.stderr, done.stderr
    return dict(line.split(": ") for line in done.stdout.splitlines())


@pytest.mark.skipif(not shutil.which("perl"), reason="needrestart is written in perl, which is not here")
def test_needrestart(units, program):
    install_needrestart_files()
    made = units(None, "blog")
    names = ["tenured.service", "tenured-hardened.service", "tenured@blog.service", "tenured@shop.service", "x.service"]
    place = "/etc/needrestart/restart.d"
    decided = look(*names)
    assert decided == {
        "tenured.service": f"{place}/tenured.service",
        "tenured-hardened.service": f"{place}/tenured-hardened.service",
        "tenured@blog.service": "left alone",
        "tenured@shop.service": "left alone",
        "x.service": "restarted",
    }
    machine.run("sh", "-e", "-c", snippet("needrestart"))
    decided = look(*names)
    assert decided["tenured@blog.service"] == f"{place}/tenured@blog.service"
    assert decided["tenured@shop.service"] == "left alone"
    inode = program()
    for one in made:
        machine.run(decided[one.unit])
        assert_only_the_program_is_new(one, inode)
    # Nobody is there to be replaced.
    machine.run(decided["tenured-hardened.service"])



@pytest.mark.skipif(not shutil.which("needrestart"), reason="needrestart is not installed")
def test_needrestart_itself(units, program):
    """A program that was replaced is as outdated as a library."""
    install_needrestart_files()
    (one,) = units(None)
    inode = program()
    done = machine.run("needrestart", "-r", "a", "-l", check=None)
    print(done.stdout, done.stderr)
    wait_until(lambda: executed(one) == inode, 10, "it to be replaced")
    assert_only_the_program_is_new(one, inode)
