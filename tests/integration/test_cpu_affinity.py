# SPDX-License-Identifier: Apache-2.0
"""`cpu_affinity`: workers stay on their CPUs, and with sockets of their own they get the connections that
arrive there. On loopback a connection arrives on the CPU its client runs on."""

import os
import re
from contextlib import contextmanager

import pytest

from canaries import canary, finish, kill_worker, open_canary
from daemon import BAD_CONFIG, ROLLED_BACK
from harness import assert_clean, free_port, http_get
from upgrades import assert_only_in_flight, per_worker, quick, set_release, web_config

CPUS = sorted(os.sched_getaffinity(0))

several_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="this machine has one CPU for us")


@contextmanager
def running_on(cpu):
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, set(CPUS))


def ask(port):
    """Who answered, the CPU on which the connection arrives, and where the worker may run."""
    reply = http_get(port, "/cpu")
    incoming, allowed = reply.text.split()
    return reply, int(incoming), allowed


def check_placed(port, generations, times=60):
    """From each CPU that has a worker to this worker and no other; what arrives elsewhere may go to any.
    generations: how many workers each of those that are seen has."""
    seen = set()
    for i, cpu in enumerate(CPUS[: max(generations.values())]):
        with running_on(cpu):
            for _ in range(times):
                reply, incoming, allowed = ask(port)
                n = generations[reply.generation]
                assert reply.worker == i or (i >= n and reply.worker < n), (
                    f"from CPU {cpu} (incoming {incoming}) to worker {reply.worker}"
                )
                assert incoming == cpu
                assert allowed == str(CPUS[reply.worker])
                seen.add(reply.generation)
    assert seen == set(generations)


def cpus_shown(one, generation=None):
    return [worker["cpus"] for worker in one.workers(generation=generation)]


@several_cpus
def test_each_cpu_has_its_worker(web, load):
    n = min(len(CPUS), 4)
    port = free_port()
    one = web(
        port=port, listen=per_worker(port), workers=n, cpu_affinity="per-worker",
        upgrade=canary("50%"),
    )  # fmt: skip
    running = load(port, clients=4, think="1ms")
    assert cpus_shown(one) == [str(cpu) for cpu in CPUS[:n]]
    assert re.search(rf"^ +1\.0 .* {CPUS[0]} ", one.ctl("status", "web").out, re.MULTILINE)
    check_placed(port, {1: n})
    # Both generations are placed, whatever their shares.
    assert open_canary(one, 50) == 2
    ready = sum(worker["state"] == "ready" for worker in one.workers(generation=2))
    check_placed(port, {1: n, 2: ready})
    finish(one, 2)
    check_placed(port, {2: n})
    # Who comes in the place of a worker has its CPU, too.
    kill_worker(one, 2, 1)
    check_placed(port, {2: n})
    result = running.stop()
    assert_only_in_flight(result, 1, 4)


@several_cpus
def test_a_cpu_without_a_worker(web, load):
    """Connections from there go to the others."""
    port = free_port()
    one = web(
        port=port, listen=per_worker(port), workers=1, cpu_affinity="per-worker", upgrade=quick()
    )
    running = load(port, clients=4, think="1ms")
    for cpu in CPUS:
        with running_on(cpu):
            assert {ask(port)[0].worker for _ in range(20)} == {0}
    one.ctl("scale", "web", 2)
    one.wait_serving()
    check_placed(port, {1: 2})
    one.ctl("scale", "web", 1)
    one.wait_serving()
    for cpu in CPUS:
        with running_on(cpu):
            assert {ask(port)[0].worker for _ in range(20)} == {0}
    running.wait_for(ok=300)
    assert_clean(running.stop(), 300)


@several_cpus
def test_more_workers_than_cpus(web, load):
    """Workers that share a CPU share what arrives there."""
    n = 2 * len(CPUS)
    if n > 32:
        pytest.skip("a machine of many CPUs")
    port = free_port()
    one = web(port=port, listen=per_worker(port), workers=n, cpu_affinity="per-worker")
    running = load(port, clients=4, think="1ms")
    assert cpus_shown(one) == [str(cpu) for cpu in CPUS] * 2
    for i, cpu in enumerate(CPUS):
        with running_on(cpu):
            assert {ask(port)[0].worker for _ in range(80)} == {i, i + len(CPUS)}
    running.wait_for(ok=300)
    assert_clean(running.stop(), 300)


def test_a_set_of_cpus(web, load):
    last = CPUS[-1]
    one = web(cpu_affinity=str(last), workers=2, upgrade=quick())
    running = load(one.port, clients=4, think="1ms")
    assert cpus_shown(one) == [str(last)] * 2
    assert {ask(one.port)[2] for _ in range(20)} == {str(last)}
    # The next generation's are its own, in another way of writing.
    web_config(one)["cpu_affinity"] = CPUS
    one.write_config()
    one.reload()
    one.wait_serving(generation=2)
    expected = ask(one.port)[2]
    assert set(cpus_shown(one, 2)) == {expected} != {str(last)} or len(CPUS) == 1
    del web_config(one)["cpu_affinity"]
    one.write_config()
    one.reload()
    one.wait_serving(generation=3)
    assert cpus_shown(one, 3) == [None] * 2
    running.wait_for(ok=300)
    assert_clean(running.stop(), 300)


def test_a_cpu_that_is_not_there(web, load):
    """Said in the error, with those that are; the old generation serves on."""
    one = web(upgrade=quick())
    running = load(one.port, clients=4, think="1ms")
    web_config(one)["cpu_affinity"] = "1000-1001"
    set_release(one, 2)
    said = one.upgrade(check=ROLLED_BACK)
    text = said.out + said.err
    assert "cpu_affinity" in text and "1000-1001" in text, text
    assert "no such CPU" in one.log
    one.wait_serving(generation=1)
    running.wait_for(ok=300)
    assert_clean(running.stop(), 300, generations=[1])


def test_not_a_set_of_cpus(web):
    one = web(upgrade=quick())
    for wrong in ("3-1", "fast", "", "99999", [-1]):
        web_config(one)["cpu_affinity"] = wrong
        one.write_config()
        said = one.ctl("check", one.config_path, check=BAD_CONFIG)
        assert "cpu_affinity" in said.out + said.err
