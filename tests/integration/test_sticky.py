# SPDX-License-Identifier: Apache-2.0
"""`sticky: client`: who has been with the new generation stays there while its share grows."""

import json
import socket
import sys

import pytest

from canaries import assert_share, canary, finish, next_share, open_canary
from daemon import worker_service
from harness import assert_clean, free_port, http_get
from netns import Netns
from udp import ask as ask_udp
from udp import udp_web
from upgrades import set_release

STEPS = (5, 25, 50, 99)
CLIENTS = 1000
SOCKETS = pytest.mark.parametrize("sockets", ["shared", "per-worker"])


def sources(n=CLIENTS):
    """Neighbours, and others: 127.9.0.1, 127.9.0.2 ..., 127.10.0.1 ..."""
    return [f"127.{9 + i % 7}.{i // 7 // 250}.{1 + i // 7 % 250}" for i in range(n)]


def sticky(*steps):
    return canary(*(f"{step}%" for step in steps), sticky="client")


def ask(port, source, times=3):
    """The generations, and the workers, that answer this client: one of each."""
    replies = [http_get(port, source=source) for _ in range(times)]
    assert len({reply.generation for reply in replies}) == 1, f"{source} sees both"
    return replies[0].generation, {reply.worker for reply in replies}


def share_of(new, where):
    return {
        new: sum(generation == new for generation in where),
        new - 1: sum(generation == new - 1 for generation in where),
    }


@SOCKETS
def test_clients_stay(web, load, sockets):
    port = free_port()
    one = web(
        port=port, listen={"http": {"address": f"127.0.0.1:{port}", "sockets": sockets}},
        workers=2, upgrade=sticky(*STEPS),
    )  # fmt: skip
    running = load(port, clients=4, think="2ms")
    clients = sources()
    before, worker_of = {}, {}
    for step in STEPS:
        if step == STEPS[0]:
            assert open_canary(one, step) == 2
        else:
            next_share(one, step)
        for source in clients:
            generation, workers = ask(port, source)
            assert before.get(source) in (None, 1) or generation == 2, f"{source} went back at {step}%"
            before[source] = generation
            if sockets == "per-worker":
                assert len(workers) == 1, f"{source} sees workers {workers}"
                # Its worker, too, while the generation has the same ones: the new one starts its
                # second later.
                of = (source, generation, step if generation == 2 else None)
                assert worker_of.setdefault(of, workers) == workers
        assert_share(share_of(2, before.values()), 2, step)
    if sockets == "per-worker":
        of_old = [workers for (_, generation, _), workers in worker_of.items() if generation == 1]
        of_first = sum(workers == {0} for workers in of_old)
        assert_share({0: of_first, 1: len(of_old) - of_first}, 0, 50)
    finish(one, 2)
    assert {ask(port, source, 1)[0] for source in clients[:100]} == {2}
    running.wait_for(ok=300)
    assert_clean(running.stop(), 300)


def test_other_clients_each_time(web):
    """Not always the same ones are the first to try what is new."""
    one = web(upgrade=sticky(20, 100))
    clients = sources(600)
    first = []
    for number in (2, 3):
        set_release(one, number)
        assert open_canary(one, 20) == number
        first.append({source for source in clients if ask(one.port, source, 1)[0] == number})
        finish(one, number)
    both = len(first[0] & first[1])
    assert_share({1: both, 0: len(first[0]) - both}, 1, 20)


def test_back_again(web, load):
    """All of them return when the canary is aborted, and nobody was with the failed one."""
    one = web(upgrade=sticky(50))
    running = load(one.port, clients=4, think="2ms")
    assert open_canary(one, 50) == 2
    assert {ask(one.port, source, 1)[0] for source in sources(60)} == {1, 2}
    one.ctl("abort", "web")
    one.wait_serving(generation=1)
    assert {ask(one.port, source, 1)[0] for source in sources(60)} == {1}
    running.wait_for(ok=300)
    assert_clean(running.stop(), 300)


def test_without_sticky_they_are_drawn_anew(web):
    one = web(upgrade=canary("50%"))
    assert open_canary(one, 50) == 2
    both = 0
    for source in sources(30):
        both += len({http_get(one.port, source=source).generation for _ in range(6)}) == 2
    assert both > 15
    finish(one, 2)


def test_datagrams(daemon):
    """All that a client sends, from whatever port, goes to one worker of one generation."""
    one = udp_web(daemon, workers=2, sockets="per-worker", upgrade=sticky(25, 100))
    before = {source: ask_udp(one.port, source=source)[:2] for source in sources(300)}
    assert {worker for _, worker in before.values()} == {0, 1}
    assert open_canary(one, 25) == 2
    new = 0
    for source, (_, worker) in before.items():
        now = [ask_udp(one.port, source=source)[:2] for _ in range(3)]
        assert len(set(now)) == 1, f"{source} sees {now}"
        assert now[0][0] == 2 or now[0][1] == worker
        new += now[0][0] == 2
    assert_share({2: new, 1: len(before) - new}, 2, 25)
    finish(one, 2)


def test_flows_of_datagrams(daemon):
    """Without it a flow has one worker, and a client's flows have several."""
    one = udp_web(daemon, workers=2, sockets="per-worker")
    workers = set()
    for _ in range(30):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            seen = set()
            for _ in range(5):
                client.sendto(b"x", ("127.0.0.1", one.port))
                seen.add(client.recv(2048).split()[1])
            assert len(seen) == 1
            workers |= seen
    assert len(workers) == 2


# Clients of many networks, each of two addresses; prints a generation for each connection.
CLIENTS_OF_NETWORKS = """
import json, socket, sys
port, n = int(sys.argv[1]), int(sys.argv[2])
seen = []
for i in range(n):
    of_network = []
    for host in ("1", "beef:0:7"):
        for _ in range(2):
            client = socket.socket(socket.AF_INET6)
            client.settimeout(10)
            client.bind((f"fd00:1:{i // 200:x}:{i % 200:x}::{host}", 0))
            client.connect(("::1", port))
            client.sendall(b"GET / HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n")
            data = b""
            while more := client.recv(65536):
                data += more
            head = data.decode().lower()
            of_network.append(int(head.split("x-tenure-generation:")[1].split()[0]))
    seen.append(of_network)
print(json.dumps(seen))
"""


@pytest.mark.root
def test_networks_of_ipv6(daemon):
    n = 400
    with Netns() as netns:
        # Any address of this network is ours.
        netns.run(["ip", "-6", "route", "add", "local", "fd00:1::/32", "dev", "lo"])
        netns.sysctl("net.ipv6.ip_nonlocal_bind", 1)
        one = daemon(start=False, netns=netns)
        service = worker_service("[::]:8080", upgrade=sticky(*STEPS))
        one.config = {"services": {"web": service}}
        one.write_config()
        one.start()
        one.wait_serving()
        before = [1] * n
        for step in STEPS:
            if step == STEPS[0]:
                open_canary(one, step)
            else:
                next_share(one, step)
            seen = json.loads(netns.run([sys.executable, "-c", CLIENTS_OF_NETWORKS, 8080, n]))
            for i, of_network in enumerate(seen):
                assert len(set(of_network)) == 1, f"network {i} sees both: {of_network}"
                assert of_network[0] >= before[i], f"network {i} went back at {step}%"
                before[i] = of_network[0]
            assert_share(share_of(2, before), 2, step)
        finish(one, 2)
        one.stop()
