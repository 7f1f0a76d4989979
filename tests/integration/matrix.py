# SPDX-License-Identifier: Apache-2.0
"""A real server (servers.py) upgraded under load, and what came of it as the table of servers shows it."""

import json
import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

import processes
from fastcgi import fastcgi_get
from harness import BUILD, assert_clean, connect, http_get, wait_until
from servers import config_of
from thread_load import fastcgi_load, postgres_load

# Per connection, of the clients that keep theirs.
KEPT = 50
RESULTS = Path(os.environ.get("TENURE_SERVERS_TO", BUILD / "tests" / "servers"))


def script(one):
    return str(one.directory / "hello.php")


def loads_of(server, one, load):
    """The load of a connection for each request, and that of kept connections. The pauses leave the machine to the
    servers: what fails then is their doing or ours."""
    if server.protocol == "fastcgi":
        return [fastcgi_load(one.port, script(one)), fastcgi_load(one.port, script(one), requests_per_connection=KEPT)]
    if server.protocol == "postgres":
        return [postgres_load(one.port), postgres_load(one.port, requests_per_connection=KEPT)]
    return [
        load(one.port, clients=4, think="5ms"),
        load(one.port, clients=4, think="5ms", keepalive=True, requests_per_connection=KEPT),
    ]


def text_of(server, one):
    if server.protocol == "fastcgi":
        return fastcgi_get(one.port, script(one))
    return http_get(one.port).text


def check_generation(server, one, number):
    """It is the new one that answers."""
    assert one.service()["generation"] == number
    if server.protocol != "postgres":
        assert text_of(server, one) == (f"hello from generation {number}\n" if server.tells else "hello\n")


def start_server(daemon, server, drain=()):
    """A daemon with it as its only service; drain: more keys of this name."""
    one = daemon(start=False)
    one.config, one.port = config_of(server, one)
    one.config["services"]["web"]["drain"].update(drain)
    one.write_config()
    one.start()
    one.wait_serving(generation=1, timeout=60)
    return one


def upgrade_server(daemon, load, server, n):
    """n upgrades under both loads, without a failed request. The results of the loads."""
    one = start_server(daemon, server)
    loads = loads_of(server, one, load)
    try:
        for running in loads:
            running.wait_more(50)
        for number in range(2, n + 2):
            one.wait_generation_gone(number - 3, timeout=60)
            one.upgrade()
            check_generation(server, one, number)
            for running in loads:
                running.wait_more(50)
        for number in range(1, n + 1):
            one.wait_generation_gone(number, timeout=60)
    finally:
        results = [running.stop() for running in loads]
    for result in results:
        assert_clean(result, 50 * (n + 1))
    return results


def counts(result):
    return {key: result[key] for key in ("requests", "failed", "connections", "idle_closed")}


def write_row(name, **row):
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"name": name, **row}) + "\n")


# ---- what a server does with kept connections when it is told to end

AT_ONCE = "closes them at once"
WITH_ANSWER = "ends them with their next answer"
GOES_ON = "lets them go on"


class Kept:
    """A connection of a client that keeps it."""

    def __init__(self, port):
        self.socket = connect(port, timeout=5)

    def get(self):
        """The head of the answer in lower case, None if it was closed instead."""
        data = b""
        try:
            self.socket.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            while not data.endswith(b"\n") or b"hello" not in data.partition(b"\r\n\r\n")[2]:
                more = self.socket.recv(65536)
                if not more:
                    return None
                data += more
        except (ConnectionResetError, BrokenPipeError):
            return None
        return data.partition(b"\r\n\r\n")[0].decode().lower()

    def is_closed(self, within):
        """That nobody has asked for anything."""
        return bool(select.select([self.socket], [], [], within)[0])


def wait_port(process, port):
    def answers():
        assert process.is_running(), process.err
        try:
            return http_get(port)
        except OSError:
            return None

    wait_until(answers, 30, f"{process.name}")


def manner_alone(server, directory, number):
    """Of the server itself, without tenured: what becomes of a kept connection after this signal."""
    process, port = server.start_alone(directory)
    try:
        wait_port(process, port)
        kept = Kept(port)
        for _ in range(2):
            head = kept.get()
            assert head and "connection: close" not in head, head
        process.signal(number)
        if kept.is_closed(0.5):
            return AT_ONCE
        head = kept.get()
        if head is None:
            return AT_ONCE
        if "connection: close" in head:
            return WITH_ANSWER
        time.sleep(0.1)
        return GOES_ON if kept.get() else AT_ONCE
    finally:
        end_group(process)


def end_group(process):
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    processes.end_strays()


def drain_signal(daemon, server):
    """The signal, as the preset or its own configuration has it."""
    said = server.keys.get("drain", {}).get("signal")
    if said is None and server.preset:
        said = daemon(start=False, config={"services": {}}).ctl("presets", server.preset, json=True).json.get("signal")
    return getattr(signal, "SIG" + (said or "TERM").removeprefix("SIG"))
