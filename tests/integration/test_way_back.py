# SPDX-License-Identifier: Apache-2.0
"""After a failure, and after going back, what the service is said to be is what serves."""

import time

import pytest

from daemon import ROLLED_BACK
from harness import assert_clean, connect, free_port, http_get
from upgrades import CLIENTS, quick, set_release, web_config


def changes(one):
    """What reload would do to the service, and why."""
    (change,) = one.call("Diff")["changes"]
    return change["action"], change["reasons"]


@pytest.mark.parametrize("strategy", ["blue-green", "recreate"])
def test_failed_reload_is_tried_again(web, load, strategy):
    """Else the second one would say that nothing differs, with the old release in service."""
    new = free_port()
    one = web(workers=2, upgrade=quick(strategy))
    port = one.port
    web_config(one)["listen"] = {"http": f"127.0.0.1:{port}", "new": f"127.0.0.1:{new}"}
    web_config(one)["environment"] = {"RELEASE": "new"}
    one.manners.set("--if-generation 2 --exit-at-once", "--if-generation 3 --exit-at-once")
    one.write_config()
    running = load(port, clients=CLIENTS, think="1ms")
    for generation in 2, 3:
        one.reload(check=ROLLED_BACK)
        one.wait_serving(generation=1)
        one.wait_generation_gone(generation)
        action, reasons = changes(one)
        assert action == "upgrade" and "environment" in reasons
        # Nobody serves it, so nobody is kept waiting there.
        with pytest.raises(ConnectionRefusedError):
            connect(new)
    one.reload()
    one.wait_serving(generation=4)
    assert changes(one) == ("none", [])
    assert http_get(new, "/env?RELEASE").text == "new\n"
    running.wait_for(generation=4)
    assert_clean(running.stop(), 100)


def test_abort_and_program_not_found(web):
    one = web(upgrade=quick(soak="30s"))
    set_release(one, "aborted")
    one.reload("--detach")
    one.ctl("abort", "web")
    one.wait_serving(generation=1)
    assert changes(one) == ("upgrade", ["environment"])
    web_config(one)["command"] = "./not-there"
    one.write_config()
    one.reload(check=None)
    action, reasons = changes(one)
    assert action == "upgrade" and "command" in reasons


@pytest.mark.parametrize("warm", ["30s", "0s"])
def test_rollback_is_no_agreement_with_the_file(web, warm):
    one = web(upgrade=quick(keep_warm=warm))
    set_release(one, "regretted")
    one.reload()
    assert changes(one) == ("none", [])
    one.ctl("rollback", "web")
    assert changes(one) == ("upgrade", ["environment"])
    one.reload()
    assert changes(one) == ("none", [])
    assert http_get(one.port, "/env?RELEASE").text == "regretted\n"


def test_rollback_and_restart_keep_the_number_of_workers(web, load):
    """It was changed after the generation had been made."""
    one = web(workers=1, upgrade=quick())
    set_release(one, "second")
    one.upgrade()
    web_config(one)["workers"] = 3
    one.write_config()
    one.reload()
    one.wait_serving(generation=2)
    running = load(one.port, clients=CLIENTS, think="1ms")
    one.ctl("restart", "web")
    assert one.wait_serving(generation=3)["workersWanted"] == 3
    one.ctl("rollback", "web", "--to", "1")
    assert one.wait_serving(generation=4)["workersWanted"] == 3
    running.wait_for(generation=4)
    assert_clean(running.stop(), 100)


def test_rollback_does_not_soak(web):
    """What is left serves until then."""
    one = web(workers=4, upgrade={"strategy": "rolling", "soak": "5s"})
    set_release(one, "regretted")
    one.upgrade("web", "--soak", "0s")
    one.wait_generation_gone(1)
    before = time.monotonic()
    one.ctl("rollback", "web")
    assert time.monotonic() - before < 4
    assert http_get(one.port).generation == 3
