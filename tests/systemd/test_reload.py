# SPDX-License-Identifier: Apache-2.0
"""`systemctl reload` at moments when the daemon is not at rest: it comes back with the truth, and soon."""

import subprocess
import time

from harness import assert_clean, http_get, wait_until
from survival import ARMED, CLIENTS, kill_daemon, survivor, wait_back, wait_settled
from upgrades import set_release


def begin(one, verb):
    return subprocess.Popen(
        ["systemctl", verb, one.unit], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )


def reload_begins(one, release):
    """One whose upgrade takes a while."""
    set_release(one, release)
    one.manners.set("--ready-delay 3s")
    reload = begin(one, "reload")
    wait_until(lambda: one.service()["rollout"], 10, "the upgrade to begin")
    return reload


def ended(process, within):
    out, _ = process.communicate(timeout=within)
    return process.returncode, out


def test_while_it_starts(unit):
    """systemd takes it for the start that goes on, of any service: it waits for that, and the file is as it was
    read. Then a reload is one."""
    one = survivor(unit, ready="notify", start=False)
    one.manners.set("--ready-delay 1500ms")
    start = begin(one, "start")
    wait_until(lambda: one.show("ActiveState") == "activating" and one.pid, 10, "the start")
    wait_until(one.socket_path.exists, 10, "the control socket")
    set_release(one, 2)
    one.systemctl("reload")
    assert ended(start, 10) == (0, "")
    assert http_get(one.port).generation == 1
    # What is to be done is not forgotten.
    assert "upgrade" in one.ctl("diff").out
    one.systemctl("reload")
    assert http_get(one.port).generation == 2


def test_while_there_is_no_daemon(unit, load):
    """Refused with the reason; what runs goes on."""
    one = survivor(unit, settings="RestartSec=3s")
    traffic = load(one.port, clients=CLIENTS)
    before = kill_daemon(one)
    wait_until(lambda: one.show("SubState") == "auto-restart", 10, "the pause")
    done = one.systemctl("reload", check=None, timeout=2)
    assert done.returncode != 0 and "not active" in done.stdout + done.stderr, done
    wait_back(one, before)
    one.systemctl("reload")
    assert_clean(traffic.stop())


def test_daemon_dies_in_its_middle(unit, load):
    """It fails, with a reason; systemd starts no other daemon before it has come back, so that must be soon. The
    upgrade goes on with the next one."""
    one = survivor(unit, ready="notify", workers=2)
    traffic = load(one.port, clients=CLIENTS)
    reload = reload_begins(one, 2)
    pid, began = kill_daemon(one), time.monotonic()
    code, said = ended(reload, 20)
    assert code != 0 and "failed" in said, said
    wait_back(one, pid)
    assert time.monotonic() - began < 4
    assert "before it answered" in one.log and "tenurectl status" in one.log, one.log
    wait_settled(one, 2)
    traffic.wait_for(generation=2)
    # And it is the same as ever.
    one.manners.set()
    set_release(one, 3)
    one.systemctl("reload")
    assert http_get(one.port).generation == 3
    assert_clean(traffic.stop(), generations=[1, 2, 3])


def test_restart_in_its_middle(unit, load):
    """systemd makes one job of both, which is done when the next daemon is there; the upgrade goes on."""
    one = survivor(unit, ready="notify", workers=2)
    traffic = load(one.port, clients=CLIENTS)
    reload = reload_begins(one, 2)
    one.systemctl("restart")
    ended(reload, 10)
    wait_settled(one, 2)
    traffic.wait_for(generation=2)
    assert_clean(traffic.stop(), generations=[1, 2])


def test_daemon_dies_at_once(unit, load):
    """Each time before it is ready: no job of systemd's makes that a stop."""
    one = survivor(unit, workers=2, fault="restored:1", settings="RestartSec=50ms")
    pids = sorted(one.pids())
    traffic = load(one.port, clients=CLIENTS)
    ARMED.touch()
    restart = begin(one, "restart")
    wait_until(lambda: int(one.show("NRestarts")) >= 3, 20, "it to die some times")
    traffic.wait_more(100)
    ARMED.unlink()
    restart.communicate(timeout=20)
    one.wait_state("active")
    assert sorted(one.pids()) == pids
    traffic.wait_more(50)
    assert_clean(traffic.stop(), generations=[1])
