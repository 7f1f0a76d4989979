# SPDX-License-Identifier: Apache-2.0
"""The machine under test: what `make install` of the build has put there, and its systemd."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

BUILD = Path(os.environ["top_builddir"])
SOURCE = Path(os.environ["top_srcdir"])
# Where to put what an installation into a prefix of its own has put elsewhere.
PREFIX = Path("/usr/local")
PLACES = {
    "systemd/system": "/usr/lib/systemd/system",
    "sysusers.d": "/usr/lib/sysusers.d",
    "tmpfiles.d": "/usr/lib/tmpfiles.d",
    "systemd/catalog": "/usr/lib/systemd/catalog",
}
CONFIG = Path("/etc/tenured")
DROP_INS = Path("/etc/systemd/system")
# Also for those who may not look into home directories.
TOOLS = Path("/usr/local/lib/tenured-tests")


def run(*command, check=True, timeout=120, **more):
    """To its end; check: the exit status that it must have, None for any."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=timeout,
        check=False,
        **more,
    )
    expected = 0 if check is True else check
    if expected is not None:
        says = f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == expected, says
    return done


def install():
    """Once, into the guest, whose files are gone with it."""
    stage = Path(os.environ["TENURE_STAGE"])
    if has_own_prefix():
        _move(stage)
    else:
        # Not the stage itself, whose mode "/" would then have.
        for found in stage.iterdir():
            shutil.copytree(found, Path("/", found.name), dirs_exist_ok=True, symlinks=True)
    TOOLS.mkdir(parents=True, exist_ok=True)
    for tool in ("worker",):
        shutil.copy(BUILD / "tests" / tool, TOOLS)
    _suit_the_build()
    run("systemd-sysusers")
    run("systemd-tmpfiles", "--create", "tenured.conf")
    run("journalctl", "--update-catalog")
    systemctl("daemon-reload")


def _staged_unit():
    return next(Path(os.environ["TENURE_STAGE"]).rglob("lib/systemd/system/tenured.service")).read_text()


def program():
    """Where the daemon is, as the unit has it."""
    place = re.search(r"^ExecStart=(\S+)", _staged_unit(), re.M)[1]
    return str(PREFIX / "sbin" / "tenured") if has_own_prefix() else place


def has_own_prefix():
    """As `make distcheck` installs it: nothing is where systemd looks."""
    return not re.search(r"^ExecStart=/usr/(local/)?sbin/", _staged_unit(), re.M)


def _move(stage):
    """From its own prefix to the usual places."""
    old = Path(re.search(r"^ExecStart=(\S+)/sbin/", _staged_unit(), re.M)[1])
    shutil.copytree(stage / old.relative_to("/"), PREFIX, dirs_exist_ok=True, symlinks=True)
    for folder, place in PLACES.items():
        for found in (PREFIX / "lib" / folder).glob("tenured*"):
            text = found.read_text().replace(f"{old}/etc/", "/etc/").replace(str(old), str(PREFIX))
            Path(place, found.name).write_text(text)
            found.unlink()


def _suit_the_build():
    """A leak checker traces its own process, which the units forbid."""
    if b"__asan_init" in (BUILD / "tenured").read_bytes():
        for unit in ("tenured", "tenured@", "tenured-hardened"):
            directory = Path(f"/run/systemd/system/{unit}.service.d")
            directory.mkdir(parents=True)
            (directory / "sanitizers.conf").write_text("[Service]\nSystemCallFilter=\n")


def systemctl(*arguments, check=True, **more):
    return run("systemctl", "--no-pager", *arguments, check=check, **more)


def show(unit, name):
    return systemctl("show", "--value", "-p", name, unit).stdout.strip()


def version():
    return int(re.search(r"systemd (\d+)", run("systemctl", "--version").stdout)[1])


def journal(*arguments):
    run("journalctl", "--sync")
    return run("journalctl", "--no-pager", "--quiet", *arguments).stdout


def drop_in(unit, text, name="test"):
    """As `systemctl edit` leaves it."""
    directory = DROP_INS / f"{unit}.d"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.conf").write_text(text)
    systemctl("daemon-reload")


def write_unit(name, text):
    (DROP_INS / name).write_text(text)
    systemctl("daemon-reload")


def our_units():
    text = systemctl("list-units", "--all", "--plain", "--no-legend", "--full").stdout
    units = [line.split()[0] for line in text.splitlines() if line.split()]
    return [unit for unit in units if unit.startswith(("tenured", "test-"))]


def control_group(unit):
    path = show(unit, "ControlGroup")
    return Path("/sys/fs/cgroup" + path) if path else None


def cgroups_below(top):
    """It and those below; they may go away meanwhile, which os.walk() does not mind."""
    return [Path(directory) for directory, _, _ in os.walk(top)]


def processes(unit):
    """Pids in the unit's cgroup and those below."""
    top = control_group(unit)
    if not top or not top.exists():
        return []
    found = []
    for directory in cgroups_below(top):
        try:
            found += [int(pid) for pid in (directory / "cgroup.procs").read_text().split()]
        except OSError:
            pass
    return sorted(set(found))


def clean_up():
    """As if nobody had ever used it."""
    units = our_units()
    sockets = [unit for unit in units if unit.endswith(".socket")]
    services = [unit for unit in units if unit.endswith(".service")]
    if sockets:
        systemctl("stop", *sockets, check=None)
    if services:
        systemctl("stop", *services, check=None)
    systemctl("reset-failed", check=None)
    changed = False
    for place in (CONFIG, DROP_INS):
        for path in place.glob("*"):
            changed |= place == DROP_INS
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    if changed:
        systemctl("daemon-reload")


def wait_until_gone(pids, timeout=10.0):
    deadline = time.monotonic() + timeout
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.01)
