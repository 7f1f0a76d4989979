# SPDX-License-Identifier: Apache-2.0
"""Reload under load: listeners come and go, services come and go, and a bad configuration changes
nothing."""

import json
import signal
import socket
from shutil import copy2

import pytest

from daemon import BAD_CONFIG, ROLLED_BACK, worker_service
from harness import assert_clean, connect, free_port, http_get, wait_until
from upgrades import CLIENTS, per_worker, quick, set_release, web_config


def is_refused(address):
    try:
        connect(address).close()
        return False
    except ConnectionResetError:
        return False  # it was just closed
    except ConnectionRefusedError:
        return True


@pytest.mark.sanitize
def test_listeners_come_and_go(web, load):
    """The one that stays is served without a gap, by whichever generation has it."""
    ports = [free_port() for _ in range(3)]
    one = web(workers=2, port=ports[0], listen={"stays": f"127.0.0.1:{ports[0]}"}, upgrade=quick())
    running = load(ports[0], clients=CLIENTS)
    running.wait_for(ok=100)

    listen = web_config(one)["listen"]
    listen["second"] = f"127.0.0.1:{ports[1]}"
    listen["third"] = {"address": f"127.0.0.1:{ports[2]}", "sockets": "per-worker"}
    one.write_config()
    one.reload()
    one.wait_serving(generation=2)
    assert [http_get(port).generation for port in ports] == [2, 2, 2]
    second = load(ports[1], clients=2, think="1ms")
    second.wait_for(ok=20)
    assert_clean(second.stop(), 20, generations=[2])

    del listen["second"]
    one.write_config()
    one.reload()
    one.wait_serving(generation=3)
    one.wait_generation_gone(2)
    wait_until(lambda: is_refused(ports[1]), what="its end")
    assert [http_get(port).generation for port in (ports[0], ports[2])] == [3, 3]

    # Its number in the list is not what a listener is.
    web_config(one)["listen"] = {"third": listen["third"], "stays": listen["stays"]}
    one.write_config()
    one.reload()
    one.wait_serving(generation=4)
    names = http_get(ports[0], "/env?LISTEN_FDNAMES").text.strip()
    assert names == "third:stays"
    running.wait_for(generation=4)
    assert_clean(running.stop(), 500, generations=[1, 2, 3, 4])


def test_add_and_drop_twenty_times(web, load):
    ports = free_port(), free_port()
    one = web(workers=2, port=ports[0], listen={"stays": f"127.0.0.1:{ports[0]}"}, upgrade=quick())
    running = load(ports[0], clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    listen = web_config(one)["listen"]
    for number in range(2, 22):
        if "other" in listen:
            del listen["other"]
        else:
            listen["other"] = f"127.0.0.1:{ports[1]}"
        one.write_config()
        one.reload()
        one.wait_serving(generation=number)
        one.wait_generation_gone(number - 1)
        if "other" in listen:
            assert http_get(ports[1]).generation == number
        else:
            wait_until(lambda: is_refused(ports[1]), what="its end")
    assert_clean(running.stop(), 500)


def test_moves_to_another_port(web, load):
    """Clients of the old port are served until the new generation is in service."""
    ports = free_port(), free_port()
    one = web(workers=2, port=ports[0], upgrade=quick())
    running = load(ports[0], clients=CLIENTS)
    running.wait_for(ok=100)
    web_config(one)["listen"] = f"127.0.0.1:{ports[1]}"
    one.manners.set("--if-generation 2 --ready-delay 500ms")
    one.write_config()
    one.signal(signal.SIGHUP)
    wait_until(lambda: len(one.pids(generation=2)) == 2, what="generation 2")
    running.wait_more(200)
    assert_clean(running.stop(), 200, generations=[1])
    one.wait_serving(generation=2)
    one.wait_generation_gone(1)
    assert http_get(ports[1]).generation == 2
    wait_until(lambda: is_refused(ports[0]), what="the old port's end")


def test_failed_upgrade_with_a_new_listener(web, load):
    """The old generation goes on without it, and it does not stay open."""
    ports = free_port(), free_port()
    one = web(workers=2, port=ports[0], listen={"stays": f"127.0.0.1:{ports[0]}"}, upgrade=quick())
    running = load(ports[0], clients=CLIENTS, think="1ms")
    web_config(one)["listen"]["new"] = f"127.0.0.1:{ports[1]}"
    one.manners.set("--if-generation 2 --exit-at-once")
    one.write_config()
    one.reload(check=ROLLED_BACK)
    one.wait_generation_gone(2)
    one.wait_serving(generation=1)
    one.manners.set()
    one.upgrade()
    assert http_get(ports[1]).generation == 3
    running.wait_for(generation=3)
    assert_clean(running.stop(), 100, generations=[1, 3])


def test_sockets_kind_changes(web, load):
    """From one socket for all to one each, and back: another listener on the same address cannot be
    bound beside the old one, so it is said what to do, or it is done without a refused connection."""
    port = free_port()
    one = web(workers=2, port=port, listen={"http": {"address": f"127.0.0.1:{port}"}}, upgrade=quick())
    running = load(port, clients=CLIENTS, think="1ms")
    running.wait_for(ok=100)
    for listen in (per_worker(port), {"http": f"127.0.0.1:{port}"}):
        web_config(one)["listen"] = listen
        one.write_config()
        one.ctl("reload", check=None)
        running.wait_more(200)
        one.wait_serving()
    assert_clean(running.stop(), 500)


def test_backlog_changes_in_place(web, load):
    port = free_port()
    one = web(workers=2, port=port, listen={"http": {"address": f"127.0.0.1:{port}", "backlog": 64}})
    running = load(port, clients=CLIENTS, think="1ms")
    pids = one.pids()
    web_config(one)["listen"]["http"]["backlog"] = 128
    one.write_config()
    one.reload()
    assert one.call("Listeners", service="web")["listeners"][0]["backlog"] == 128
    queues = one.call("Listeners", service="web")["listeners"][0]["queue"]
    assert {queue["limit"] for queue in queues} == {128}
    assert one.pids() == pids
    running.wait_more(50)
    assert_clean(running.stop(), 50, generations=[1])


def test_only_what_changed_is_upgraded(daemon, load):
    ports = [free_port() for _ in range(3)]
    services = {
        name: worker_service(f"127.0.0.1:{port}", upgrade=quick()) for name, port in zip("abc", ports)
    }
    one = daemon({"services": services})
    for name in "abc":
        one.wait_serving(name)
    running = [load(port, clients=3, think="1ms") for port in ports]
    for each in running:
        each.wait_for(ok=20)
    pids = {name: one.pids(name) for name in "abc"}
    services["b"]["environment"] = {"RELEASE": "2"}
    services["c"]["drain"]["settle"] = "60ms"
    one.write_config()
    diff = one.ctl("diff", "--exit-code", check=1).out
    assert "b" in diff and "environment" in diff
    assert {name: one.service(name)["generation"] for name in "abc"} == {"a": 1, "b": 1, "c": 1}
    said = one.reload().out
    assert "a: unchanged, not upgraded" in said, said
    one.wait_serving("b", 2)
    assert one.pids("a") == pids["a"] and one.pids("c") == pids["c"]
    assert one.ctl("diff", "--exit-code")
    running[1].wait_for(generation=2)
    for each in running:
        assert_clean(each.stop(), 20)


def test_services_come_and_go(daemon, load):
    ports = free_port(), free_port()
    one = daemon({"services": {"a": worker_service(f"127.0.0.1:{ports[0]}", upgrade=quick())}})
    one.wait_serving("a")
    running = load(ports[0], clients=3, think="1ms")
    with one.no_fd_leak():
        for _ in range(3):
            one.config["services"]["b"] = worker_service(f"127.0.0.1:{ports[1]}", upgrade=quick())
            one.write_config()
            one.reload()
            one.wait_serving("b")
            assert http_get(ports[1]).status == 200
            del one.config["services"]["b"]
            one.write_config()
            one.reload()
            wait_until(lambda: is_refused(ports[1]), what="its end")
            wait_until(lambda: len(one.services()) == 1, what="it to be forgotten")
    assert_clean(running.stop(), 20, generations=[1])


def test_bad_configuration_changes_nothing(web, load):
    """Whatever is wrong with it, and also when it is found out as late as at the bind."""
    one = web(workers=2, upgrade=quick())
    running = load(one.port, clients=CLIENTS, think="1ms")
    pids = one.pids()
    good = json.dumps(one.config)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        bad = {
            "not yaml": ("services: [", BAD_CONFIG),
            "unknown key": (good.replace('"workers"', '"workes"'), BAD_CONFIG),
            "nonsense": (good.replace('"workers": 2', '"workers": -2'), BAD_CONFIG),
            "empty": ("", BAD_CONFIG),
            "cut off": ("# The services of this machine\n", BAD_CONFIG),
            "port is taken": (good.replace(f"127.0.0.1:{one.port}", f"127.0.0.1:{taken}"), 1),
            "no such program": (good.replace("tests/worker", "tests/wroker"), None),
        }
        with one.no_fd_leak():
            for what, (text, code) in bad.items():
                one.write_config(text)
                refused = one.ctl("reload", check=None)
                assert refused.code != 0, what
                assert code is None or refused.code == code, (what, refused)
                assert refused.err, what
    assert one.pids() == pids and one.service()["generation"] == 1
    one.write_config()
    assert "unchanged" in one.reload().out
    running.wait_more(100)
    assert_clean(running.stop(), 100, generations=[1])


def test_hup_with_a_bad_configuration(web):
    one = web(workers=1)
    pids = one.pids()
    one.write_config("services: {web: {comand: x}}")
    one.signal(signal.SIGHUP)
    one.wait_log("did you mean")
    assert one.pids() == pids


def test_upgrade_all(web):
    one = web(workers=1, upgrade=quick())
    one.reload()
    assert one.service()["generation"] == 1
    one.reload("--upgrade")
    assert one.service()["generation"] == 2


def test_changed_executable_is_an_upgrade(web, load, tmp_path):
    """What is on disk is compared with what runs: the file's identity, and the fingerprint's."""

    program, revision = tmp_path / "web", tmp_path / "REVISION"
    one = web(workers=2, upgrade=quick(), start=False)
    copy2(web_config(one)["command"][0], program)
    revision.write_text("1")
    web_config(one)["command"][0] = str(program)
    web_config(one)["fingerprint"] = [str(revision)]
    one.write_config()
    one.start()
    one.wait_serving()
    running = load(one.port, clients=CLIENTS, think="1ms")
    assert "unchanged" in one.reload().out
    new = tmp_path / "new"
    copy2(program, new)
    new.rename(program)
    assert one.service()["pending"] == ["executable"]
    one.reload()
    one.wait_serving(generation=2)
    revision.write_text("22")
    assert one.service()["pending"]
    one.reload()
    one.wait_serving(generation=3)
    assert one.service()["pending"] == []
    running.wait_for(generation=3)
    assert_clean(running.stop(), 100)


def test_reload_during_a_rollout(web, load):
    """What it cannot do now it says; what runs goes on."""
    one = web(workers=2, upgrade=quick(soak="10s"))
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.ctl("upgrade", "web", "--detach")
    running.wait_for(generation=2)
    set_release(one, "later")
    refused = one.ctl("reload", check=None)
    assert refused.code != 0
    assert one.service()["rollout"]["toGeneration"] == 2
    one.ctl("promote", "--full", "web")
    one.wait_serving(generation=2)
    web_config(one)["upgrade"]["soak"] = "0s"
    one.write_config()
    one.reload()
    one.wait_serving(generation=3)
    assert http_get(one.port, "/env?RELEASE").text == "later\n"
    running.wait_for(generation=3)
    assert_clean(running.stop(), 100, generations=[1, 2, 3])
