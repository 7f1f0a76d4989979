# SPDX-License-Identifier: Apache-2.0
"""Very many connections at rest, and what it costs to count them."""

import multiprocessing
import os
import re
import resource
import socket
import time

from daemon import Daemon, worker_service
from harness import free_port, wait_until
from upgrades import per_worker

N = int(os.environ.get("TENURE_CROWD", "50000"))
WORKERS = 5
PER_PROCESS = 10_000


def _hold(pipe, port, n, source):
    """Connects n times, each time with a request that has its answer, and stays until told to end."""
    clients = []
    try:
        for _ in range(n):
            client = socket.socket()
            # Each address has about 28,000 ports of its own.
            client.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            client.bind((source, 0))
            client.connect(("127.0.0.1", port))
            clients.append(client)
        # The last one was accepted: so were those before it in its queue, or soon will be.
        clients[-1].sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        pipe.send(len(clients) if clients[-1].recv(4096) else 0)
        pipe.recv()
    except (OSError, EOFError) as error:
        pipe.send(str(error))
    os._exit(0)  # all of them at once


class Crowd:
    def __init__(self, port, n=N):
        self.parts = []
        for i in range(0, n, PER_PROCESS):
            ours, theirs = multiprocessing.Pipe()
            source = f"127.0.1.{1 + i // PER_PROCESS}"
            args = (theirs, port, min(PER_PROCESS, n - i), source)
            process = multiprocessing.Process(target=_hold, args=args, daemon=True)
            process.start()
            theirs.close()
            self.parts.append((process, ours))

    def __enter__(self):
        for process, pipe in self.parts:
            assert pipe.poll(120), "no connections within two minutes"
            made = pipe.recv()
            assert isinstance(made, int) and made > 0, made
            assert process.is_alive()
        return self

    def __exit__(self, *_):
        for process, pipe in self.parts:
            try:
                pipe.send("end")
            except OSError:
                pass
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


def enough_descriptors():
    """Whether this many can be had at all; the soft limit is raised for those who are started here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Hashes spread them over the workers nearly evenly.
    return hard >= max(PER_PROCESS, N // WORKERS) * 1.2 + 100


WALK = re.compile(
    r"(\d+) connections of \d+ workers counted by ([\d.]+) ms of work within ([\d.]+) ms, "
    r"at most ([\d.]+) ms at a time"
)


def round_trips(connection, seconds):
    """How long the daemon takes for a question that costs it nothing, in milliseconds, the longest last."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        connection.call("org.varlink.service.GetInfo")
        times.append((time.monotonic() - begun) * 1000)
    return sorted(times)


def measure(n=N, looks=5):
    """With n connections on one service: of each look the work, the time it took from its begin and the
    longest piece, all in ms; the longest round trip of a control call beside it, and without."""
    port = free_port()
    service = worker_service(
        per_worker(port), workers=WORKERS, limits={"nofile": max(1024, int(n / WORKERS * 1.2) + 100)}
    )
    service["listen"]["http"]["backlog"] = 4096
    one = Daemon({"services": {"web": service}})
    one.command.append("--debug")
    try:
        one.start()
        one.wait_serving()
        with Crowd(port, n):
            wait_until(
                lambda: one.service()["generations"][0]["connections"] == n, 60, f"{n} to be counted", every=0.5
            )
            with one.varlink() as quiet, one.varlink() as asking:
                steady = round_trips(quiet, 2)
                beside, listed = [], []
                before = len(WALK.findall(one.log))
                for _ in range(looks):
                    time.sleep(2.5)  # a count as dear as this one is used again for two seconds
                    begun = time.monotonic()
                    asking.send("io.tenured.Supervisor.List", {})
                    beside += round_trips(quiet, 0.7)
                    found = asking.reply()["services"][0]["generations"][0]["connections"]
                    assert found == n, found
                    listed.append(time.monotonic() - begun)
                beside.sort()
            walks = [tuple(float(word) for word in walk) for walk in WALK.findall(one.log)[before:]]
        one.stop()
    finally:
        one.remove()
    return {
        "connections": n,
        "looks": len(walks),
        "work": max(walk[1] for walk in walks),
        "within": max(walk[2] for walk in walks),
        "longest": max(walk[3] for walk in walks),
        "longest_median": sorted(walk[3] for walk in walks)[len(walks) // 2],
        "steady_p99": steady[int(len(steady) * 0.99)],
        "steady_longest": steady[-1],
        "beside_p99": beside[int(len(beside) * 0.99)],
        "beside_longest": beside[-1],
    }
