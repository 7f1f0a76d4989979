# SPDX-License-Identifier: Apache-2.0
"""Live restore when what there is to go on with is damaged, too new, cut off, too much for the keeper,
or not there at all: never a refused connection."""

import os
import signal
import socket
import time

import pytest
from daemon import BAD_CONFIG, DONE, FAILED
from harness import assert_clean, free_port, wait_until
from keeper import kept, wait_settled  # pylint: disable=unused-import
from processes import is_alive
from upgrades import CLIENTS, per_worker, quick

# pylint: disable=redefined-outer-name

SLOT = 256 << 20  # STATE_FILE_SLOT_MAX


def slots(fd):
    """Where each slot of the state begins, and how long what is in it is."""
    for begin in (0, SLOT):
        data = os.pread(fd, 1 << 20, begin).rstrip(b"\0")
        if data:
            yield begin, len(data)


def damage(fd):
    for begin, length in slots(fd):
        os.pwrite(fd, b"\xff" * 8, begin + min(length, 200) // 2)


def newer(fd):
    for begin, _ in slots(fd):
        os.pwrite(fd, b"\x7f", begin + 8)


def cut(fd):
    """Not at the end of a write, as a kill would have it."""
    for begin, length in slots(fd):
        os.pwrite(fd, b"\0" * (length // 2), begin + 64 + length // 4)


def empty(fd):
    for begin, length in slots(fd):
        os.pwrite(fd, b"\0" * length, begin)


def check_blind(web, load, how, log, clients=CLIENTS):
    """A daemon without a state that it could use starts anew beside what serves."""
    before = sorted(web.pids())
    traffic = load(web.port, clients=clients)
    traffic.wait_more(100)
    web.crash()
    how(web)
    web.back()
    web.wait_serving("web")
    if log:
        assert log in web.log
    traffic.wait_more(200)
    wait_until(lambda: "what an earlier daemon had left has ended" in web.log, 30, "the old ones to end")
    assert not set(web.pids()) & set(before)
    # All as ever, also the places in the kernel's array.
    for generation in (2, 3):
        web.upgrade("web")
        wait_settled(web, generation)
        traffic.wait_for(generation=generation)
    assert_clean(traffic.stop())
    assert "strangers" not in web.log.split("earlier daemon are there")[-1], web.log


@pytest.mark.sanitize
@pytest.mark.parametrize(
    "how,log",
    [
        (damage, "the saved state is not used: it is damaged"),
        (newer, "the saved state is not used: a newer version of tenured wrote it"),
        (cut, "the saved state is not used: it is damaged"),
        (empty, "the saved state is not used: it is empty"),
    ],
)
@pytest.mark.parametrize("own_sockets", [False, True])
def test_state_that_cannot_be_used(kept, load, how, log, own_sockets):
    port = free_port()
    listen = per_worker(port) if own_sockets else f"127.0.0.1:{port}"
    web = kept(workers=3, upgrade=quick(), listen=listen)
    web.port = port
    check_blind(web, load, lambda web: how(web.store.fd("s")), log)


def test_no_state(kept, load):
    web = kept(workers=2, upgrade=quick())
    check_blind(web, load, lambda web: web.store.drop(web.store.name("s")), None)


def test_state_that_says_what_cannot_be(kept, load):
    """Its bytes are good, and there are no such workers."""
    web = kept(workers=2, upgrade=quick())

    def lie(web):
        fd = web.store.fd("s")
        for begin, _ in slots(fd):
            data = bytearray(os.pread(fd, 1 << 20, begin).rstrip(b"\0"))
            at = data.rfind(b'"n_workers":2')
            if at < 0:
                continue
            data[at + 12] = ord("7")
            os.pwrite(fd, rechecked(data), begin)

    check_blind(web, load, lie, "the saved state is not used: what it says cannot be")


@pytest.mark.parametrize("value", ["/nonexistent/env", "/up"])
def test_state_that_lacks_what_must_be(kept, load, value):
    """Every byte of it is as it was written, by somebody who knows no better."""
    web = kept(workers=2, upgrade=quick(), env_file="-/nonexistent/env", ready={"by": "http", "path": "/up"})

    def forget(web):
        fd, was = web.store.fd("s"), f'"path":"{value}"'.encode()
        now = b'"path":null'.ljust(len(was))
        for begin, _ in slots(fd):
            data = bytearray(os.pread(fd, 1 << 20, begin).rstrip(b"\0"))
            assert was in data
            os.pwrite(fd, rechecked(data.replace(was, now)), begin)

    check_blind(web, load, forget, "the saved state is not used: what it says cannot be")


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def rechecked(data):
    """The same batches with checksums that are right."""
    data = bytearray(data) + b"\0" * 64
    at = 0
    while data[at : at + 8] == b"TENURES\n":
        length = int.from_bytes(data[at + 24 : at + 32], "little")
        data[at + 32 : at + 36] = b"\0" * 4
        crc = crc32c(data[at : at + 64 + length])
        data[at + 32 : at + 36] = crc.to_bytes(4, "little")
        at += 64 + (length + 63) // 64 * 64
    return bytes(data)


@pytest.mark.parametrize("own_sockets", [False, True])
@pytest.mark.parametrize("serving", [False, True])
def test_killed_while_the_old_ones_end(kept, load, own_sockets, serving):
    """The next daemon has a state that it can use, and goes on with what the one before had to take blindly."""
    port = free_port()
    listen = per_worker(port) if own_sockets else f"127.0.0.1:{port}"
    drain = {"settle": "1500ms", "idle_wait": "300ms"}
    web = kept(workers=3, upgrade=quick(), listen=listen, drain=drain)
    web.port = port
    before = sorted(web.pids())
    traffic = load(port, clients=CLIENTS)
    traffic.wait_more(100)
    web.crash()
    damage(web.store.fd("s"))
    if not serving:
        web.manners.set("--ready-delay 1500ms")
    web.back()
    if serving:
        web.wait_serving("web")
        traffic.wait_more(100)
    for _ in range(2):
        web.crash()
        web.back()
    assert web.log.count("are still ending") == 2
    assert all(is_alive(pid) for pid in before)
    web.wait_serving("web")
    after = sorted(web.pids())
    assert not set(before) & set(after)
    wait_until(lambda: "what an earlier daemon had left has ended" in web.log, 30, "the old ones to end")
    assert not any(is_alive(pid) for pid in before)
    traffic.wait_more(200)
    # There is nothing of it any more.
    web.crash()
    web.back()
    web.wait_serving("web")
    assert sorted(web.pids()) == after and web.log.count("are still ending") == 2
    web.upgrade("web")
    wait_settled(web, 2)
    traffic.wait_for(generation=2)
    assert_clean(traffic.stop())


def test_unix_and_held_without_a_state(kept, load, tmp_path):
    """One queue is taken over as it is."""
    port = free_port()
    path = tmp_path / "web.sock"
    listen = {"unix": f"unix:{path}", "held": {"address": f"127.0.0.1:{port}", "steering": False}}
    web = kept(workers=2, upgrade=quick(), listen=listen, ready={"by": "delay", "delay": "100ms"})
    web.port = port
    traffic = load(f"unix:{path}", clients=4)
    traffic.wait_more(50)
    inode = os.stat(path).st_ino
    check_blind(web, load, lambda web: damage(web.store.fd("s")), "it is damaged", clients=4)
    assert os.stat(path).st_ino == inode
    assert_clean(traffic.stop())


def test_old_ones_serve_until_the_new_ones_do(kept, load):
    """One queue, and a program that takes its time: it is not left without anybody meanwhile."""
    port = free_port()
    listen = {"held": {"address": f"127.0.0.1:{port}", "steering": False}}
    web = kept(workers=2, upgrade=quick(), listen=listen, ready={"by": "notify"}, drain={"idle_wait": "100ms"})
    web.port = port
    before = web.pids()
    traffic = load(port, clients=4)
    traffic.wait_more(50)
    web.crash()
    damage(web.store.fd("s"))
    web.manners.set("--ready-delay 3s")
    web.back()
    time.sleep(1.5)
    assert web.service()["state"] == "starting" and all(is_alive(pid) for pid in before)
    traffic.wait_more(100)
    web.wait_serving("web")
    wait_until(lambda: not any(is_alive(pid) for pid in before), 30, "the old ones to end")
    assert_clean(traffic.stop())


def test_killed_before_anything_was_saved(kept):
    """There are sockets in the store, no state, and nobody who served."""
    web = kept(workers=2, upgrade=quick())
    web.crash()
    for name in web.store.names():
        if name[1] not in "l":
            web.store.drop(name)
    for pid in web.orphans:
        os.kill(pid, 9)
    web.back()
    web.wait_serving("web")
    wait_until(lambda: "has ended" in web.log, 30, "the old sockets to be closed")
    socket.create_connection(("127.0.0.1", web.port)).close()


# ---- the keeper has no room, or has lost something ----


@pytest.mark.sanitize
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("own_sockets", [False, True])
def test_full_store(kept, load, own_sockets, told):
    """Room for the sockets, and for hardly anything else."""
    port = free_port()
    limit = 14 if own_sockets else 12
    web = kept(
        workers=4,
        upgrade=quick(),
        listen=per_worker(port) if own_sockets else f"127.0.0.1:{port}",
        limit=limit,
        env={"FDSTORE": str(limit)} if told else None,
    )
    web.port = port
    pids = sorted(web.pids())
    if told:
        assert "the keeper's store is full" in web.log
    traffic = load(port, clients=CLIENTS)
    traffic.wait_more(100)
    assert len(web.store.names()) <= limit
    web.crash()
    traffic.wait_more(100)
    web.back()
    web.wait_serving("web", generation=1)
    if told:
        # What matters most had room: the others are found by what was written down.
        assert sorted(web.pids()) == pids
    traffic.wait_more(100)
    web.upgrade("web")
    wait_settled(web, 2)
    traffic.wait_for(generation=2)
    assert_clean(traffic.stop())


@pytest.mark.parametrize("kind", "pnode")
def test_a_kind_is_missing(kept, load, kind):
    """What was given to the keeper is not all there."""
    web = kept(workers=2, upgrade=quick(), command=None)
    pids = sorted(web.pids())
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    web.crash()
    for name in web.store.names():
        if name[1] == kind:
            web.store.drop(name)
    web.back()
    web.wait_serving("web", generation=1)
    assert sorted(web.pids()) == pids
    # They are watched as before.
    os.kill(pids[0], 9)
    wait_until(lambda: pids[0] not in web.pids() and len(web.pids()) == 2, 10, "a new worker")
    web.upgrade("web")
    wait_settled(web, 2)
    result = traffic.stop()
    assert result["failed"] <= CLIENTS


def test_the_listening_sockets_are_missing(kept, load):
    """Workers have them still."""
    web = kept(workers=2, upgrade=quick())
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    web.crash()
    for name in web.store.names():
        if name[1] == "l":
            web.store.drop(name)
    traffic.wait_more(100)
    web.back()
    web.wait_serving("web", generation=1)
    traffic.wait_more(100)
    web.upgrade("web")
    wait_settled(web, 2)
    assert_clean(traffic.stop())


def test_configuration_with_errors(kept, load):
    """What runs goes on, whatever the file says by now."""
    web = kept(workers=2, upgrade=quick())
    traffic = load(web.port, clients=CLIENTS)
    traffic.wait_more(100)
    web.crash()
    web.write_config("services: {web: {commando: 7}}\n")
    web.back()
    web.wait_serving("web", generation=1)
    assert "what runs goes on" in web.log
    traffic.wait_more(100)
    web.write_config()
    web.reload()
    assert_clean(traffic.stop(), generations=[1])


BAD = "services: {web: {commando: 7}}\n"


def hold(web):
    """Neither the state nor the file can be used."""
    web.crash()
    damage(web.store.fd("s"))
    web.write_config(BAD)
    web.back()
    wait_until(lambda: "STATUS" in web.store.state and "READY" in web.store.state, 10, "it to be ready")
    assert "what an earlier daemon left serves on" in web.log


@pytest.mark.parametrize("own_sockets", [False, True])
def test_neither_state_nor_configuration(kept, load, tmp_path, own_sockets):
    """It does not give up, for then the keeper would: everything is held until the file is right."""
    port = free_port()
    listen = {**per_worker(port)} if own_sockets else {"http": f"127.0.0.1:{port}"}
    listen["unix"] = f"unix:{tmp_path / 'web.sock'}"
    web = kept(workers=2, upgrade=quick(), listen=listen)
    web.port = port
    good, before = web.config_path.read_text(), sorted(web.pids())
    traffic = load(port, clients=CLIENTS)
    local = load(f"unix:{tmp_path / 'web.sock'}", clients=4)
    traffic.wait_more(100)
    web.store.state.clear()
    hold(web)
    assert "cannot be used" in web.store.state["STATUS"]
    # It can be asked, and said what is wrong; or die in its turn.
    assert web.ctl("status", check=None).code in (DONE, FAILED)
    assert web.ctl("reload", check=None).code == BAD_CONFIG
    assert web.ctl("reexec", check=None).code == FAILED
    web.store.state.clear()
    web.crash()
    web.back()
    wait_until(lambda: "READY" in web.store.state, 10, "it to be ready")
    web.signal(signal.SIGHUP)
    traffic.wait_more(100)
    local.wait_more(50)
    assert all(is_alive(pid) for pid in before)
    web.write_config(good)
    web.reload()
    web.wait_serving("web")
    traffic.wait_more(100)
    wait_until(lambda: "what an earlier daemon had left has ended" in web.log, 30, "the old ones to end")
    assert not any(is_alive(pid) for pid in before)
    after = sorted(web.pids())
    web.crash()
    web.back()
    web.wait_serving("web")
    assert sorted(web.pids()) == after
    web.upgrade("web")
    wait_settled(web, 2)
    local.wait_more(50)
    assert_clean(traffic.stop())
    assert_clean(local.stop())


def test_stopped_while_everything_is_held(kept):
    web = kept(workers=2)
    before = web.pids()
    web.store.state.clear()
    hold(web)
    assert all(is_alive(pid) for pid in before)
    web.stop()
    assert not any(is_alive(pid) for pid in before)
    assert not web.store.names()


def test_restarted_while_everything_is_held(kept, load):
    """With the file put right: the usual start beside what serves."""
    web = kept(workers=2, upgrade=quick())
    good, before = web.config_path.read_text(), web.pids()
    traffic = load(web.port, clients=CLIENTS)
    web.store.state.clear()
    hold(web)
    web.crash()
    web.write_config(good)
    web.back()
    web.wait_serving("web")
    wait_until(lambda: not any(is_alive(pid) for pid in before), 30, "the old ones to end")
    assert_clean(traffic.stop())
