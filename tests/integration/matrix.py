# SPDX-License-Identifier: Apache-2.0
"""A real server (servers.py) upgraded under load, and what came of it as the table of servers shows it."""

import json
import os
from pathlib import Path

from fastcgi import fastcgi_get
from harness import BUILD, assert_clean, http_get
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


def upgrade_server(daemon, load, server, n):
    """n upgrades under both loads, without a failed request. The results of the loads."""
    one = daemon(start=False)
    one.config, one.port = config_of(server, one)
    one.write_config()
    one.start()
    one.wait_serving(generation=1, timeout=60)
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
