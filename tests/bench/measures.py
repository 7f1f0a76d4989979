# SPDX-License-Identifier: Apache-2.0
"""How each quantity is measured. Times are in milliseconds unless their name says otherwise."""

import json
import os
import signal
import statistics
import subprocess
import threading
import time
from pathlib import Path

from harness import WORKER, Load, clean_environment, http_get, run_load
from processes import memory_kib
from supervisors import PREFORK, Tenured
from varlink import Varlink

CLIENTS = 8


def median(values):
    return statistics.median(values) if values else None


# ---- upgrades under load ----


def bare(workers, options=()):
    """Until workers that nobody supervises are all ready."""
    done = subprocess.run(
        [PREFORK, "--workers", str(workers), "--bare", "--", WORKER, *map(str, options)],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=True,
    )
    return json.loads(done.stdout)["all_usec"] / 1e3


def upgrades(supervisor, n, pause=0.0, beside=None, **load_options):
    """n upgrades under load. Returns the load's result and for each upgrade the time from the request
    until no connection was begun that the old generation answered. beside() is called after each."""
    load_options.setdefault("clients", CLIENTS)
    asked = []
    with Load(supervisor.directory, supervisor.address, **load_options) as load:
        load.wait_for(ok=200)
        first = supervisor.generation
        for _ in range(n):
            asked.append(supervisor.upgrade())
            load.wait_for(generation=supervisor.generation)
            time.sleep(pause)
            if beside:
                beside()
        result = load.stop()
    times = result["generation_times"]
    took = [
        times[str(first + i)]["last_connect_usec"] / 1e3 - at * 1e3 for i, at in enumerate(asked)
    ]
    return result, took


def overhead(supervisor, n, options=()):
    """A dict: took, the medians of upgrades(); bare and bare_loaded, the worker's own time; failed."""
    own = [bare(supervisor.workers, options) for _ in range(n)]
    loaded, took, results = [], [], []
    with supervisor:
        for _ in range(n):
            # Each under a load of its own: the largest gap is one upgrade's.
            result, one = upgrades(
                supervisor, 1, 0.15, lambda: loaded.append(bare(supervisor.workers, options))
            )
            took += one
            results.append(result)
    return {
        "took": median(took),
        "bare": median(own),
        "bare_loaded": median(loaded),
        "failed": sum(result["failed"] for result in results),
        "requests": sum(result["requests"] for result in results),
        "gap": median([result["largest_gap_usec"] / 1e3 for result in results]),
    }


def latency(rounds, seconds, every):
    """Open loop at a third of what can be had: rounds of steady and upgraded runs in turn."""
    steady, upgraded = [], []
    with Tenured() as supervisor:
        place = supervisor.directory, supervisor.address
        rate = int(run_load(*place, clients=CLIENTS, duration="2s")["rps"] / 3)
        for _ in range(rounds):
            steady.append(run_load(*place, rate=rate, duration=f"{seconds}s"))
            with Load(*place, rate=rate, duration=f"{seconds}s") as load:
                n = 0
                while load.is_running():
                    time.sleep(every)
                    if load.is_running():
                        supervisor.upgrade()
                        n += 1
                upgraded.append(load.finish())

    def middle(results, key, of=None):
        return median([(r[of][key] if of else r[key]) for r in results]) / 1e3

    return {
        "rate": rate,
        "upgrades": n * rounds,
        "failed": sum(r["failed"] for r in steady + upgraded),
        "steady_p999": middle(steady, "p99.9", "latency_usec"),
        "upgraded_p999": middle(upgraded, "p99.9", "latency_usec"),
        "steady_gap": middle(steady, "largest_gap_usec"),
        "upgraded_gap": middle(upgraded, "largest_gap_usec"),
    }


# ---- start, and a killed worker ----


class ReadyEvent(threading.Thread):
    """When the daemon said that a worker is ready, by its own event."""

    def __init__(self, supervisor):
        super().__init__(daemon=True)
        self.connection = Varlink(supervisor.daemon.socket_path, timeout=20.0)
        self.connection.send("Events", {}, more=True)
        self.at = None
        self.start()
        time.sleep(0.05)

    def run(self):
        while message := self.connection.receive():
            for event in message["parameters"]["events"]:
                if event["event"] == "worker-ready":
                    self.at = time.monotonic()
                    self.connection.close()
                    return


def first_other_reply(supervisor, pid):
    while True:
        try:
            reply = http_get(supervisor.address, timeout=10.0)
        except OSError:
            continue
        if reply.pid != pid:
            return time.monotonic()


def start_and_kill(make, n):
    """Medians: from the start of the supervisor to the first reply, from the SIGKILL of its only worker
    to the first reply by another, and to the daemon's word that this one is ready (None for peers)."""
    started, replaced, ready = [], [], []
    for _ in range(n):
        supervisor = make(workers=1)
        supervisor.prepare()
        begin = time.monotonic()
        supervisor.launch()
        try:
            supervisor.wait_serving()
            started.append((time.monotonic() - begin) * 1e3)
            time.sleep(supervisor.proving_time)
            event = ReadyEvent(supervisor) if isinstance(supervisor, Tenured) else None
            pid = http_get(supervisor.address).pid
            at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            replaced.append((first_other_reply(supervisor, pid) - at) * 1e3)
            if event:
                event.join(20.0)
                ready.append((event.at - at) * 1e3)
        finally:
            supervisor.stop()
    return {"start": median(started), "replaced": median(replaced), "ready": median(ready)}


# ---- at rest ----


def switches(pid):
    """How often it has been woken since its start."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise KeyError(pid)


def memory(supervisor, field="Pss"):
    return sum(memory_kib(pid, field) for pid in supervisor.pids())


def at_rest(makes, seconds):
    """For each supervisor with 4 workers and nothing to do: memory in KiB, and how often it woke."""
    running = {}
    try:
        for make in makes:
            supervisor = make()
            running[supervisor.name] = supervisor
            supervisor.start()
        # What a start leaves to be done is over by then.
        time.sleep(2.0)
        found = {name: {"pss": memory(s)} for name, s in running.items()}
        before = {name: sum(map(switches, s.pids())) for name, s in running.items()}
        time.sleep(seconds)
        for name, s in running.items():
            found[name]["wakeups"] = sum(map(switches, s.pids())) - before[name]
        return found
    finally:
        for supervisor in running.values():
            supervisor.stop()


def growth(few=4, many=64):
    """KiB that the daemon grows by for each worker more: (PSS, its own dirty memory)."""
    sizes = {}
    for n in (few, many):
        with Tenured(workers=n) as supervisor:
            time.sleep(1.0)
            sizes[n] = [memory(supervisor, field) for field in ("Pss", "Private_Dirty")]
    return [(b - a) / (many - few) for a, b in zip(sizes[few], sizes[many])]
