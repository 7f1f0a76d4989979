# SPDX-License-Identifier: Apache-2.0
"""What conf/servers.md says of servers: their own faults, shown where nobody else is."""

import dataclasses

import pytest

from harness import wait_until
from matrix import Kept, end_group, wait_port
from servers import ASGI, ASGI_THAT_READS, MORE, SERVERS, WSGI

pytestmark = pytest.mark.long


def alone(server, directory, **changes):
    """It runs: the process, its port."""
    return dataclasses.replace(server, **changes).start_alone(directory)


def closes_unsaid(server, directory, **changes):
    """It ends a connection that it has not said it would."""
    process, port = alone(server, directory, **changes)
    try:
        wait_port(process, port)
        kept = Kept(port)
        head = kept.get()
        assert head.startswith("http/1.1 200")
        return "connection: close" not in head and kept.is_closed(1)
    finally:
        end_group(process)


def test_uwsgi(tmp_path):
    words = ["uwsgi", "--plugin", "python3", "--http-socket", "127.0.0.1:PORT", "--wsgi-file", "app.py"]
    server = dataclasses.replace(SERVERS["uwsgi"], command=words, files={"app.py": WSGI}, alone=[])
    assert closes_unsaid(server, tmp_path)
    assert not closes_unsaid(server, tmp_path, alone=["--add-header", "Connection: close"])


def test_hypercorn(tmp_path):
    server = MORE["hypercorn"]
    assert closes_unsaid(server, tmp_path, files={"app.py": ASGI})
    assert not closes_unsaid(server, tmp_path, files={"app.py": ASGI_THAT_READS})


def test_puma(tmp_path, load):
    """Four clients that keep their connections, the first that come; one of them is not accepted while the others are
    busy, when there is no thread yet, although five are allowed."""
    lost = {"0:5": 0, "5:5": 0}
    for threads, n_tries in (("0:5", 5), ("5:5", 2)):
        for _ in range(n_tries):
            words = ["puma", "--threads", threads, "config.ru"]
            process, port = alone(SERVERS["puma"], tmp_path, command=words)
            try:
                wait_until(
                    lambda now=process: "Listening on" in now.out.rpartition("Puma starting")[2], 20, "puma")
                running = load(port, clients=4, think="2ms", keepalive=True, duration="6s")
                lost[threads] += running.finish()["failures"].get("timeout", 0)
            finally:
                end_group(process)
            if lost[threads]:
                break
    assert lost["0:5"] > 0 and lost["5:5"] == 0, lost
