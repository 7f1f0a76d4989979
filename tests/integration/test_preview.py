# SPDX-License-Identifier: Apache-2.0
"""upgrade.preview_from: one source address sees the new generation before all others, and `tenurectl
preview` says how to be it."""

import re
import shlex
import shutil
import subprocess

import pytest

from canaries import canary, finish, next_share, open_canary
from harness import assert_clean, free_port, has_ipv6, http_get, wait_until
from upgrades import CLIENTS, per_worker, quick, web_config

PREVIEW = "127.0.0.2"


def sees(address, source, n=20):
    """Which generations answer that source."""
    return {http_get(address, source=source).generation for _ in range(n)}


def commands(one):
    """What `tenurectl preview` prints: the first line, and the commands below it."""
    said = one.ctl("preview", "web")
    first, *rest = said.out.splitlines()
    return first, [line.strip() for line in rest]


def run(command):
    """The generation that the printed command line reaches."""
    words = shlex.split(command)
    assert words[0] == "curl"
    done = subprocess.run(
        [*words[:1], "-sS", "-i", "--max-time", "10", *words[1:]],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return int(re.search(r"^X-Tenure-Generation: (\d+)", done.stdout, re.MULTILINE).group(1))


needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_before_anybody_else(web, load, sockets):
    """At each share, and never before its upgrade or after it."""
    one = web(workers=2, upgrade=canary("1%", "50%", preview_from=PREVIEW))
    if sockets == "per-worker":
        web_config(one)["listen"] = per_worker(one.port)
        one.reload()
    old = one.service()["generation"]
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    assert sees(one.port, PREVIEW) == {old}
    new = open_canary(one, 1)
    assert one.service()["previewFrom"] == PREVIEW
    assert sees(one.port, PREVIEW) == {new}
    next_share(one, 50)
    assert sees(one.port, PREVIEW) == {new}
    one.ctl("abort", "web")
    assert sees(one.port, PREVIEW) == {old}
    one.wait_generation_gone(new)
    new = open_canary(one, 1)
    finish(one, new)
    assert sees(one.port, PREVIEW) == {new}
    assert_clean(running.stop(), 100)


def test_while_nobody_is_ready(web, load):
    """Its connections wait for the new one; the others go on with the old one."""
    one = web(workers=2, upgrade={**quick(), "preview_from": PREVIEW}, ready={"by": "notify", "timeout": "60s"})
    running = load(one.port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    one.manners.set("--if-generation 2 --boot-delay 1s")
    one.call("Upgrade", service="web")
    assert http_get(one.port, source=PREVIEW, timeout=20).generation == 2
    one.wait_serving(generation=2)
    assert_clean(running.stop(), 100)


def test_changed_meanwhile(web):
    """A reload moves the preview to another address, or ends it."""
    one = web(workers=1, upgrade=canary("1%", preview_from=PREVIEW))
    open_canary(one, 1)
    assert sees(one.port, PREVIEW) == {2}
    web_config(one)["upgrade"]["preview_from"] = "127.0.0.3"
    one.write_config()
    one.reload()
    assert sees(one.port, "127.0.0.3") == {2}
    assert sees(one.port, PREVIEW, 200) == {1} or http_share(one) > 0
    del web_config(one)["upgrade"]["preview_from"]
    one.write_config()
    one.reload()
    assert 1 in sees(one.port, "127.0.0.3")
    one.ctl("preview", "web", check=1)


def http_share(one):
    """The canary's own 1% may have met one of so many."""
    return one.service()["rollout"]["traffic"]


@needs_curl
@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0", "[::]"])
def test_printed_command(web, listen):
    """Dual-stack listeners see IPv4 clients as IPv4."""
    if listen == "[::]" and not has_ipv6():
        pytest.skip("no IPv6 here")
    port = free_port()
    one = web(workers=1, port=port, listen=f"{listen}:{port}", upgrade=canary("1%", preview_from=PREVIEW))
    first, (command,) = commands(one)
    assert "no upgrade is in progress" in first and "generation 1 answers" in first
    assert command == f"curl --interface {PREVIEW} http://127.0.0.1:{port}/"
    assert run(command) == 1
    open_canary(one, 1)
    first, (again,) = commands(one)
    assert "go to generation 2, whose upgrade is in progress" in first
    assert again == command and run(command) == 2
    one.ctl("abort", "web")
    first, _ = commands(one)
    assert "generation 1 answers" in first and run(command) == 1


@needs_curl
@pytest.mark.parametrize("listen", ["[::1]", "[::]"])
def test_printed_command_ipv6(web, listen):
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    port = free_port()
    one = web(workers=1, port=port, listen=f"{listen}:{port}", upgrade=canary("1%", preview_from="::1"))
    open_canary(one, 1)
    _, (command,) = commands(one)
    assert command == f"curl --interface ::1 'http://[::1]:{port}/'"
    assert run(command) == 2
    # IPv4 is not meant.
    if listen == "[::]":
        assert 1 in sees(port, "127.0.0.1", 100)


def test_listeners_without_preview(web):
    """Said of each, and why."""
    ports = free_port(), free_port()
    one = web(
        workers=1,
        listen={
            "http": f"127.0.0.1:{ports[0]}",
            "old": {"address": f"127.0.0.1:{ports[1]}", "steering": "off"},
            "six": f"[::1]:{ports[1]}",
            "dns": f"udp:127.0.0.1:{ports[0]}",
        },
        upgrade={**quick(), "preview_from": PREVIEW},
        ready={"by": "notify"},
    )
    _, lines = commands(one)
    assert lines[0] == f"curl --interface {PREVIEW} http://127.0.0.1:{ports[0]}/"
    assert lines[1].startswith("old (") and "one queue" in lines[1]
    assert lines[2].startswith("six (") and f"takes no connections from {PREVIEW}" in lines[2]
    assert lines[3].startswith("dns (") and "datagrams from" in lines[3]
    as_json = one.ctl("preview", "web", json=True).json
    assert as_json["previewFrom"] == PREVIEW
    assert [entry["name"] for entry in as_json["listeners"] if entry["command"]] == ["http"]


def test_not_configured(web):
    one = web(workers=1)
    said = one.ctl("preview", "web", check=1)
    assert "preview_from" in said.err and "tenurectl reload" in said.err
    assert one.service().get("previewFrom") is None
    assert one.ctl("preview", "nobody", check=1).err
    one.ctl("preview", check=2)
    wait_until(lambda: one.service()["state"] == "serving")
