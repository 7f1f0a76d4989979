# SPDX-License-Identifier: Apache-2.0
"""The delay line itself: packets take as long as they should, and none is lost."""

import os
import re
import sys

import pytest

from harness import Worker, assert_clean, free_port, run_load
from netns import DelayLine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun here"),
]


@pytest.fixture
def line(tmp_path):
    with DelayLine(tmp_path, "10ms") as made:
        yield made


def test_round_trip(line):
    for address in (line.address_b, line.address6_b):
        script = f"""
import socket, time
family = socket.AF_INET6 if ":" in "{address}" else socket.AF_INET
for _ in range(5):
    begin = time.monotonic()
    try:
        socket.create_connection(("{address}", 9), 5)
    except ConnectionRefusedError:
        print(round((time.monotonic() - begin) * 1000))
"""
        times = [int(word) for word in line.a.run([sys.executable, "-c", script]).split()]
        assert len(times) == 5
        assert all(20 <= msec < 60 for msec in times), times


@pytest.mark.parametrize("version", [4, 6])
def test_load_over_it(line, tmp_path, version):
    address = (line.address_a if version == 4 else line.address6_a, free_port())
    with Worker(tmp_path, address=address, netns=line.a) as worker:
        host, port = address
        at = re.escape(f"[{host}]:{port}" if version == 6 else f"{host}:{port}")
        while not re.search(at, line.a.run(["ss", "-Hltn"])):
            assert worker.is_running(), worker.err
        result = run_load(tmp_path, address, netns=line.b, clients=200, requests=4000)
        assert worker.stop() == 0
    assert_clean(result, 4000)
    # The handshake is one round trip, request and reply another.
    assert 40000 <= result["latency_usec"]["p50"] < 80000
    assert 20000 <= result["connect_usec"]["p50"] < 50000
    packets = line.stop()
    assert packets["dropped"] == 0
    assert packets["a_to_b"] > 8000 and packets["b_to_a"] > 8000


def test_nothing_is_left(tmp_path):
    with DelayLine(tmp_path) as line:
        pids = [line.a.holder.pid, line.b.holder.pid, line.program.pid]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
