# SPDX-License-Identifier: Apache-2.0
"""Servers that know nothing of tenured, each started from its preset and upgraded under load."""

import os
import re
from pathlib import Path

import pytest

from matrix import upgrade_server
from servers import CANNOT, MORE, SERVERS, config_of


def start(daemon, name, **keys):
    one = daemon(start=False)
    one.config, one.port = config_of(SERVERS[name], one)
    one.config["services"]["web"].update(keys)
    one.write_config()
    one.start()
    one.wait_serving(generation=1, timeout=60)
    return one


@pytest.mark.parametrize("name", SERVERS)
def test_upgrades(daemon, load, name):
    upgrade_server(daemon, load, SERVERS[name], n=2)


def test_the_list(daemon):
    """Offline, as text and as JSON, of all and of one."""
    one = daemon(start=False, config={"services": {}})
    text = one.ctl("presets").out
    listed = one.ctl("presets", "--json").json
    assert {server.preset for server in SERVERS.values()} <= {preset["name"] for preset in listed}
    for preset in listed:
        assert preset["name"] in text
        alone = one.ctl("presets", preset["name"], json=True).json
        assert alone == preset
        shown = one.ctl("presets", preset["name"]).out
        assert f"preset: {preset['name']}" in shown and f"handoff: [{', '.join(preset['handoff'])}]" in shown
        # Who says that it was tested is tested here.
        assert preset["tested"] == (preset["name"] in {s.preset for s in SERVERS.values()}), preset["name"]
    bad = one.ctl("presets", "ngnix", check=2)
    assert 'did you mean "nginx"?' in bad.err


def test_answers_at_once(daemon, load):
    """uvicorn does not ask for TCP_NODELAY on a socket that it is given: a kept connection would wait for 40 ms for
    each answer, that of a client's delayed acknowledgement."""
    one = start(daemon, "uvicorn")
    usual = load(one.port, clients=1, keepalive=True, requests=100).finish()
    one.config["services"]["web"]["listen"] = {"http": {"address": f"127.0.0.1:{one.port}", "nodelay": False}}
    one.write_config()
    one.reload()
    one.upgrade()
    slow = load(one.port, clients=1, keepalive=True, requests=20).finish()
    assert usual["latency_usec"]["p50"] < slow["latency_usec"]["p50"] / 2, (usual, slow)


def test_the_table(daemon):
    """conf/servers.md has a row for each server, and each preset in the version that `tenurectl presets` names."""
    page = (Path(os.environ["top_srcdir"]) / "conf" / "servers.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] != "server"]
    kept = [name for name, server in {**SERVERS, **MORE}.items() if server.alone is not None]
    assert [row[0] for row in rows] == [*SERVERS, *MORE, *kept, *CANNOT]
    versions = {}
    for row in rows[: len(SERVERS) + len(MORE)]:
        if preset := re.fullmatch(r"`preset: (\S+)`", row[2]):
            versions.setdefault(preset[1], []).append(row[1])
            assert row[3] == "10" and row[6] == "0", row
    for preset in daemon(start=False, config={"services": {}}).ctl("presets", "--json").json:
        name = preset["name"]
        assert (name in versions) == preset["tested"], name
        if name in versions:
            text = daemon(start=False, config={"services": {}}).ctl("presets", name).out
            assert any(version.startswith(said) for version in versions[name]
                       for said in re.findall(r"\d+(?:\.\d+)+", text.split("tested with:")[1].split("\n")[0])), name
        else:
            assert name in CANNOT


@pytest.mark.parametrize("command, first_line, preset", [
    (["gunicorn", "a:b"], None, "gunicorn"),
    (["python3", "-m", "uvicorn", "a:b"], None, "uvicorn"),
    (["bundle", "exec", "puma"], None, "puma"),
    (["./server"], "#!/usr/bin/env node", "node"),
    (["./server"], "#!/bin/sh", None),
    (["./none"], None, None),
])
def test_hint(daemon, command, first_line, preset):
    """check names the line to add, and is content with it, or with none."""
    one = daemon(start=False)
    if first_line:
        (one.directory / "server").write_text(first_line + "\n")
        (one.directory / "server").chmod(0o755)
    one.config = {"services": {"web": {"command": command, "listen": 8080}}}
    one.write_config()
    path = one.config_path
    said = one.ctl("check", path)
    assert (f"write preset: {preset}" in said.err) == (preset is not None), said
    for other in filter(None, [preset, "none"]):
        one.config["services"]["web"]["preset"] = other
        one.write_config()
        assert "write preset" not in one.ctl("check", path).err


def test_what_is_written_wins(daemon):
    """A preset fills in what is missing, and nothing else; the daemon sees plain values."""
    one = start(daemon, "gunicorn", drain={"settle": "100ms", "idle_wait": "200ms", "signal": "INT"})
    one.upgrade()
    one.wait_generation_gone(1, timeout=30)
    assert "Handling signal: int" in one.log
    one.config["services"]["web"]["preset"] = "none"
    one.write_config()
    # gunicorn's preset has the default handoff: the workers are what they were.
    assert one.call("Diff")["changes"][0]["action"] in ("none", "update")
