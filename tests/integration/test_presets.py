# SPDX-License-Identifier: Apache-2.0
"""Servers that know nothing of tenured, each started from its preset and upgraded under load."""

import threading
import time

import pytest

from fastcgi import fastcgi_get
from harness import assert_clean, http_get
from servers import SERVERS, config_of

N_UPGRADES = 2


class FastCgiLoad:
    """Requests to a FastCGI server, a connection for each, by some threads."""

    def __init__(self, port, script, clients=4):
        self.port, self.script = port, script
        self.ok, self.failures, self.stopped = 0, [], False
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.stopped:
            try:
                text = fastcgi_get(self.port, self.script)
                assert text.startswith("hello"), text
                self.ok += 1
            except Exception as error:  # pylint: disable=broad-except
                self.failures.append(repr(error))
            time.sleep(0.002)

    def wait_more(self, n, timeout=30.0):
        until, wanted = time.monotonic() + timeout, self.ok + n
        while self.ok < wanted:
            assert time.monotonic() < until, f"{self.ok} of {wanted}, {self.failures[:5]}"
            time.sleep(0.01)

    def stop(self):
        self.stopped = True
        for thread in self.threads:
            thread.join()
        assert not self.failures, self.failures[:10]


def start(daemon, name, **keys):
    one = daemon(start=False)
    one.config, one.port = config_of(name, one)
    one.config["services"]["web"].update(keys)
    one.write_config()
    one.start()
    one.wait_serving(generation=1, timeout=60)
    return one


def text_of(one, server):
    if server.fastcgi:
        return fastcgi_get(one.port, str(one.directory / "hello.php"))
    return http_get(one.port).text


@pytest.mark.parametrize("name", SERVERS)
def test_upgrades(daemon, load, name):
    server = SERVERS[name]
    one = start(daemon, name)
    loads = (
        [FastCgiLoad(one.port, str(one.directory / "hello.php"))]
        if server.fastcgi
        else [
            load(one.port, clients=4, think="2ms"),
            load(one.port, clients=4, think="2ms", keepalive=True, requests_per_connection=50),
        ]
    )
    try:
        for running in loads:
            running.wait_more(50)
        for number in range(2, N_UPGRADES + 2):
            one.upgrade()
            expected = f"hello from generation {number}\n" if server.tells else "hello\n"
            assert text_of(one, server) == expected
            for running in loads:
                running.wait_more(50)
        for number in range(1, N_UPGRADES + 1):
            one.wait_generation_gone(number, timeout=60)
    finally:
        results = [running.stop() for running in loads]
    for result in results:
        if result is not None:
            assert_clean(result)


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
