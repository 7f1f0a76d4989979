# SPDX-License-Identifier: Apache-2.0
"""drain.idle_wait: programs that cannot stop gracefully get their signal when their last connection is
gone, and lose nothing."""

import os
import re
import shutil
import signal
import time

import pytest

from harness import Program, assert_clean, connect, free_port, http_get, wait_until
from test_connections import connections, counts, talk, wait_counts
from upgrades import per_worker, quick

N_UPGRADES = 10
# The bound is for clients that never end; these do.
DRAIN = {"settle": "100ms", "idle_wait": "60s", "timeout": "5s"}


def needs(program):
    path = shutil.which(program)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return path


# It dies of TERM at once, in the middle of whatever its threads are doing.
BLUNT = """
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(0.02)
        self.send_response(200)
        self.send_header("X-Tenure-Generation", os.environ["TENURE_GENERATION"])
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\\n")
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = __import__("socket").socket(fileno=3)
Server().serve_forever()
"""


def blunt(daemon, port, listen=None, drain=None, upgrade=None, workers=2):
    one = daemon({"services": {"web": {
        "command": ["/usr/bin/python3", "-c", BLUNT], "workers": workers,
        "listen": listen or port, "ready": {"by": "http", "path": "/"},
        "upgrade": upgrade or quick(), "drain": {**DRAIN, **(drain or {})},
    }}})  # fmt: skip
    one.wait_serving(timeout=30)
    return one


def both_loads(load, port):
    """A connection for each request, and connections that are kept for a while and end by themselves."""
    return [
        load(port, clients=6, think="2ms"),
        load(port, clients=6, think="2ms", keepalive=True, requests_per_connection=20),
    ]


def upgrade_all(one, loads, n=N_UPGRADES, timeout=60):
    for number in range(2, n + 2):
        one.upgrade("web", timeout=timeout)
        for running in loads:
            running.wait_more(20, timeout=timeout)
        # One after the other, so that what is measured is the end of each.
        one.wait_generation_gone(number - 1, timeout=timeout)
    results = [running.stop() for running in loads]
    for result in results:
        assert_clean(result, min_requests=20 * n)
    return results


@pytest.mark.parametrize("strategy, sockets", [
    pytest.param("blue-green", "shared", id="blue-green"),
    pytest.param("rolling", "per-worker", id="rolling-per-worker"),
])
def test_no_graceful_stop_at_all(daemon, load, strategy, sockets):
    port = free_port()
    listen = per_worker(port) if sockets == "per-worker" else port
    one = blunt(daemon, port, listen, upgrade=quick(strategy))
    loads = both_loads(load, port)
    for running in loads:
        running.wait_for(ok=50)
    upgrade_all(one, loads, n=6)


def test_without_it_requests_are_lost(daemon, load):
    """The test itself is tested: the same server, told to go at once."""
    port = free_port()
    one = blunt(daemon, port, drain={"idle_wait": "0s"})
    loads = both_loads(load, port)
    for running in loads:
        running.wait_for(ok=50)
    for number in range(2, 32):
        one.upgrade()
        one.wait_generation_gone(number - 1)
        if any(running.live()["failed"] for running in loads):
            break
    assert sum(running.stop()["failed"] for running in loads) > 0


def test_bounded(web):
    """Clients that never end are waited for as long as is asked, and no longer."""
    one = web(upgrade=quick(), drain={"settle": "50ms", "idle_wait": "1500ms", "timeout": "5s"})
    with connections(one.port, 3) as clients:
        one.upgrade()
        begun = time.monotonic()
        time.sleep(0.7)
        assert counts(one)[0].get(1) == 3
        for client in clients:
            talk(client)  # still served
        one.wait_generation_gone(1, timeout=15)
        assert time.monotonic() - begun > 1.2


def test_at_once_without_connections(web):
    """Nobody waits for nothing."""
    one = web(workers=4, upgrade=quick(), drain={"settle": "50ms", "idle_wait": "60s", "timeout": "5s"})
    for number in range(2, 5):
        begun = time.monotonic()
        one.upgrade()
        one.wait_generation_gone(number - 1, timeout=15)
        assert time.monotonic() - begun < 10


def test_each_worker_for_itself(web):
    """The one with a connection stays, the others go."""
    one = web(workers=3, upgrade=quick(), drain={"settle": "50ms", "idle_wait": "60s", "timeout": "5s"})
    with connections(one.port, 1) as clients:
        busy = int(re.search(r"(?i)^x-tenure-worker: (\d+)", talk(clients[0]), re.M)[1])
        one.upgrade()
        wait_until(
            lambda: [w["index"] for w in one.workers("web", 1) if w.get("pid")] == [busy],
            what="the other two to go",
        )
        talk(clients[0])
    one.wait_generation_gone(1, timeout=15)


def test_unix_connections_count(web):
    """Beside a TCP listener: who came in by the Unix socket is waited for as well."""
    one = web(start=False)
    path = str(one.directory / "web.sock")
    one.config["services"]["web"]["listen"] = {
        "http": {"address": f"127.0.0.1:{one.port}"}, "admin": {"address": f"unix:{path}"},
    }  # fmt: skip
    one.config["services"]["web"]["upgrade"] = quick()
    one.config["services"]["web"]["drain"] = {"settle": "50ms", "idle_wait": "60s", "timeout": "5s"}
    one.write_config()
    one.start()
    one.wait_serving()
    with connections(f"unix:{path}", 2) as clients:
        one.upgrade()
        time.sleep(1)
        wait_counts(one, {1: 2, 2: 0})
        for client in clients:
            assert re.search(r"(?i)^x-tenure-generation: 1", talk(client), re.M)
    one.wait_generation_gone(1, timeout=15)


# ---- nginx ----

NGINX = """
daemon off;
worker_processes 2;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    # Longer than the clients keep theirs: they end them.
    keepalive_timeout 60s;
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{ return 200 "ok\\n"; }}
    }}
}}
"""


def nginx_config(directory, port):
    path = directory / "nginx.conf"
    path.write_text(NGINX.format(directory=directory, port=port))
    return path


def keepalive_load(load, port):
    return load(port, clients=32, think="3ms", keepalive=True, requests_per_connection=100)


def test_nginx_loses_none(daemon, load):
    """As a worker that is left alone until its clients have gone. It takes its socket as from an earlier
    nginx, by the number of its descriptor."""
    needs("nginx")
    port = free_port()
    one = daemon(start=False)
    config = nginx_config(one.directory, port)
    one.config = {"services": {"web": {
        # A pid file for each: the old one removes its own at its end.
        "command": ["sh", "-c", f'exec nginx -p {one.directory} -c {config} -e stderr '
                    f'-g "pid {one.directory}/nginx.$TENURE_GENERATION.pid;"'],
        "environment": {"NGINX": "3;"},
        # It does not make the sockets so that it was given, and its workers all wait for the same one.
        "listen": {"http": {"address": f"127.0.0.1:{port}", "nonblocking": True}},
        "ready": "/", "upgrade": quick(), "drain": {**DRAIN, "signal": "SIGQUIT"},
    }}}  # fmt: skip
    one.write_config()
    one.start()
    one.wait_serving()
    running = keepalive_load(load, port)
    running.wait_for(ok=500)
    # Each of the connections is one of its workers', which are children of its master.
    generations, workers = wait_until(
        lambda: (found := counts(one)) and (found[0][1] or 0) > 0 and found, what="connections"
    )
    assert generations[1] <= 32 and workers == {(1, 0): generations[1]}
    result = upgrade_all(one, [running])[0]
    assert result["connections"] > 32 * 2, result.summary()


def test_nginx_by_itself(tmp_path, load):
    """For comparison, a figure only: what its own reload does to the same clients."""
    needs("nginx")
    port = free_port()
    config = nginx_config(tmp_path, port)
    command = ["nginx", "-p", tmp_path, "-c", config, "-e", "stderr", "-g", f"pid {tmp_path}/nginx.pid;"]
    with Program(command, tmp_path, "nginx") as server:

        def answers():
            assert server.is_running(), server.err
            try:
                return http_get(port, timeout=1.0).status == 200
            except OSError:
                return False

        wait_until(answers, 10, "nginx")
        running = keepalive_load(load, port)
        running.wait_for(ok=500)
        for _ in range(N_UPGRADES):
            server.signal(signal.SIGHUP)
            running.wait_more(2000)
        result = running.stop()
        assert result["ok"] > 0
        print(f"nginx's own reload, {N_UPGRADES} times: {result['failed']} of {result['requests']} "
              f"requests failed: {result['failures']}")
        server.signal(signal.SIGQUIT)
        server.wait()


# ---- Node ----

NODE = """
const http = require('http')
http.createServer((request, response) => {
  response.setHeader('X-Tenure-Generation', process.env.TENURE_GENERATION)
  setTimeout(() => response.end('ok\\n'), 20)
}).listen({ fd: 3 })
"""


@pytest.mark.parametrize("sockets", ["shared", "per-worker"])
def test_node(daemon, load, sockets):
    """Its plain server has no graceful stop: TERM ends it in mid-request."""
    needs("node")
    port = free_port()
    one = daemon(start=False)
    script = one.directory / "server.js"
    script.write_text(NODE)
    one.config = {"services": {"web": {
        "command": ["node", str(script)], "workers": 2,
        "listen": per_worker(port) if sockets == "per-worker" else f"127.0.0.1:{port}",
        "ready": "/", "upgrade": quick("rolling" if sockets == "per-worker" else "blue-green"),
        "drain": dict(DRAIN),
    }}}  # fmt: skip
    one.write_config()
    one.start()
    one.wait_serving(timeout=30)
    loads = both_loads(load, port)
    for running in loads:
        running.wait_for(ok=50)
    upgrade_all(one, loads, n=5)


def test_a_connection_that_says_nothing(web):
    """One that was accepted and never spoke holds the signal back like any other."""
    one = web(upgrade=quick(), drain={"settle": "50ms", "idle_wait": "60s", "timeout": "5s"})
    with connect(one.port) as client:
        wait_counts(one, {1: 1})
        one.upgrade()
        time.sleep(1)
        wait_counts(one, {1: 1, 2: 0})
        talk(client)
    one.wait_generation_gone(1, timeout=15)
