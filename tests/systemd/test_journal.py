# SPDX-License-Identifier: Apache-2.0
"""What the journal has of services: whose it is, in fields that can be asked for; and that nobody waits for
it."""

import os
import re
import signal
import time

import machine
from harness import assert_clean, free_port, http_get, wait_until
from unit import web_config


def start(unit, *options, **keys):
    one = unit(start=False)
    one.port = free_port()
    one.config = web_config(f"127.0.0.1:{one.port}", *options, **keys)
    one.write_config()
    return one.start()


def test_lines_of_workers(unit):
    one = start(unit, "--write-text", "<3>disk is full\\n", "--write-lines", "3", workers=2)
    wait_until(lambda: len(one.entries("-t", "web")) >= 6, 10, "the lines")
    entries = one.entries("-t", "web")
    assert {entry["TENURED_WORKER"] for entry in entries} == {"0", "1"}
    assert {entry["TENURED_GENERATION"] for entry in entries} == {"1"}
    assert {entry["TENURED_SERVICE"] for entry in entries} == {"web"}
    # In the unit's log too, and known to be of it.
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {"tenured.service"}
    one.upgrade()
    wait_until(lambda: one.entries("TENURED_GENERATION=2", "TENURED_WORKER=1", "-t", "web"), 10, "the next ones")


def test_events(unit):
    one = start(unit, "--if-generation", "2", "--exit-code", "3", "--exit-at-once")
    one.upgrade(check=6)
    (entry,) = one.entries("TENURED_EVENT=rolled-back")
    assert entry["TENURED_SERVICE"] == "web" and entry["TENURED_GENERATION"] == "2"
    assert entry["PRIORITY"] == "3" and entry["SYSLOG_IDENTIFIER"] == "tenured"
    assert "exited before it was ready" in entry["MESSAGE"]
    # It can be searched for by its id, and explained.
    text = one.journal("-x", f"MESSAGE_ID={entry['MESSAGE_ID']}")
    assert "A rollout was rolled back" in text and "man:tenured(8)" in text, text
    assert "journalctl -t web TENURED_GENERATION=2" in text, text
    assert one.entries("TENURED_EVENT=generation-serving")


def test_the_catalog_is_whole():
    """Each id has its explanation, and each explanation an id."""
    header = (machine.SOURCE / "src" / "daemon" / "message_id.h").read_text()
    ids = re.findall(r'X\("[a-z-]+", "([0-9a-f]{32})"\)', header)
    catalog = (machine.SOURCE / "units" / "tenured.catalog").read_text()
    assert len(set(ids)) == len(ids) > 10
    assert sorted(re.findall(r"^-- ([0-9a-f]{32})$", catalog, re.M)) == sorted(ids)
    for one in ids:
        text = machine.run("journalctl", "--catalog", "--list-catalog", one).stdout
        assert one in text and "tenured" in text, text


def test_journal_that_does_not_read(unit, load):
    """What it has no room for is lost; the daemon and the workers go on."""
    one = start(unit, "--write-lines", "20000", workers=2)
    journald = int(machine.show("systemd-journald.service", "MainPID"))
    running = load(one.port, clients=4)
    os.kill(journald, signal.SIGSTOP)
    try:
        for generation in (2, 3, 4):
            began = time.monotonic()
            assert one.ctl("upgrade", "web", check=None).code == 0
            running.wait_for(generation=generation)
            assert time.monotonic() - began < 30
        assert http_get(one.port).generation == 4
    finally:
        os.kill(journald, signal.SIGCONT)
    assert_clean(running.stop(), 10)
    one.upgrade()
    wait_until(lambda: "lines of output were dropped" in one.log, 10, "the count of what was lost")
