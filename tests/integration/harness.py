# SPDX-License-Identifier: Apache-2.0
"""What the integration tests stand on: where the programs are, ports, plain HTTP, the worker and the
load. The daemon itself is in daemon.py."""

import json
import os
import random
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

BUILD = Path(os.environ.get("top_builddir", Path(__file__).resolve().parents[2] / "build"))


def program(variable, default):
    return os.environ.get(variable, str(BUILD / default))


TENURED = program("TENURED", "tenured")
TENURECTL = program("TENURECTL", "tenurectl")
WORKER = program("TENURE_WORKER", "tests/worker")
LOAD = program("TENURE_LOAD", "tests/load")
DELAY_LINE = program("TENURE_DELAY_LINE", "tests/delay_line")

IS_ROOT = os.geteuid() == 0
SANITIZERS = Path(TENURED).exists() and b"__asan_init" in Path(TENURED).read_bytes()


def clean_environment(**more):
    """This process's, without what a service manager or another daemon may have put there."""
    ours = ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "TENURE", "MAINPID", "INVOCATION_ID", "JOURNAL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept.update(more)
    return kept


def wait_until(condition, timeout=10.0, what="the condition", every=0.005):
    """Returns the first true value of condition()."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain for {what}")
        time.sleep(every)


def socket_paths(directory):
    """All that are bound, or were, to a path below this one."""
    return [
        Path(below) / name
        for below, _, names in os.walk(directory)
        for name in names
        if stat.S_ISSOCK(os.lstat(Path(below) / name).st_mode)
    ]


# ---- ports ----

_given = set()


def free_port(hosts=("127.0.0.1", "::1")):
    """A port nobody has on any of these hosts, below the range that connect() takes its own from, and
    not given to another test of this run."""
    first, last = _port_range()
    for _ in range(1000):
        port = random.randrange(first, last)
        if port not in _given and all(_is_free(host, port) for host in hosts):
            _given.add(port)
            return port
    raise AssertionError("no free port")


def _port_range():
    """Where several run side by side (pytest-xdist), each has ports of its own."""
    n = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    i = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return 20000 + i * 10000 // n, 20000 + (i + 1) * 10000 // n


def free_ports(n):
    return [free_port() for _ in range(n)]


def _is_free(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            # Also when this machine has no IPv6: then nobody else has the port there either.
            return family == socket.AF_INET6 and not has_ipv6()
    return True


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# ---- HTTP ----


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body
        self.text = body.decode(errors="replace")

    @property
    def generation(self):
        return self._number("x-tenure-generation")

    @property
    def worker(self):
        return self._number("x-tenure-worker")

    @property
    def pid(self):
        return self._number("x-pid")

    def _number(self, name):
        return int(self.headers[name]) if name in self.headers else None


def connect(address, source=None, timeout=5.0):
    """A connected socket. address: a port of 127.0.0.1, (host, port), or "unix:PATH" / "unix:@NAME"."""
    if isinstance(address, str):
        path = address.removeprefix("unix:")
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address = "\0" + path[1:] if path.startswith("@") else path
    else:
        address = ("127.0.0.1", address) if isinstance(address, int) else address
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        client = socket.socket(family, socket.SOCK_STREAM)
        if source:
            client.bind((source, 0))
    client.settimeout(timeout)
    try:
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def http_get(address, path="/", source=None, timeout=5.0):
    """One request on a connection of its own; the whole reply."""
    with connect(address, source, timeout) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while more := client.recv(65536):
            data += more
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        raise ConnectionError(f"no reply, only {data!r}")
    lines = head.decode().split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Reply(int(lines[0].split()[1]), headers, body)


def load_target(address):
    """The same address as the load generator wants it."""
    if isinstance(address, (int, str)):
        return str(address)
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# ---- programs ----


class Program:
    """A program in the background, its output in files, ended at the latest by __exit__."""

    def __init__(self, command, directory, name, env=None, netns=None, stdin=None, pass_fds=(), cwd=None):
        self.command = (netns.prefix() if netns else []) + [str(word) for word in command]
        self.out_path = Path(directory) / f"{name}.out"
        self.err_path = Path(directory) / f"{name}.err"
        self.name = name
        self.spawn = {
            "env": env if env is not None else clean_environment(),
            "stdin": stdin if stdin is not None else subprocess.DEVNULL,
            "pass_fds": pass_fds,
            "cwd": cwd,
        }
        self.process = None

    def start(self):
        # Appending, so that a test may start it again and still have all that was said.
        with open(self.out_path, "ab") as out, open(self.err_path, "ab") as err:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=err, **self.spawn)
        return self

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, *_):
        self.kill()

    @property
    def pid(self):
        return self.process.pid

    @property
    def out(self):
        return self.out_path.read_text(errors="replace")

    @property
    def err(self):
        return self.err_path.read_text(errors="replace")

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, timeout=30.0):
        """The exit status, negative for a signal."""
        return self.process.wait(timeout)

    def stop(self, timeout=30.0):
        """TERM, then the exit status."""
        if self.is_running():
            self.signal()
        return self.wait(timeout)

    def kill(self):
        if self.is_running():
            self.process.kill()
            self.process.wait()


class Worker(Program):
    """The test worker by itself, on a port of its own."""

    def __init__(self, directory, *options, address=None, name="worker", env=None, **more):
        self.address = free_port() if address is None else address
        command = [WORKER, "--listen", load_target(self.address), *options]
        super().__init__(command, directory, name, env=clean_environment(**(env or {})), **more)

    def wait_listening(self, timeout=5.0):
        def answers():
            assert self.is_running(), f"worker ended with {self.process.returncode}: {self.err}"
            try:
                connect(self.address).close()
            except OSError:
                return False
            return True

        wait_until(answers, timeout, f"a worker on {self.address}")
        return self


class Load(Program):
    """The load generator in the background.

    Load(directory, address, clients=16, keepalive=True).start()
    load.wait_for(generation=2); result = load.stop(); assert_clean(result)

    Keywords are its options: True is a flag, a list repeats the option, "_" stands for "-"."""

    _count = 0

    def __init__(self, directory, address, netns=None, env=None, **options):
        Load._count += 1
        name = f"load{Load._count}"
        self.live_path = Path(directory) / f"{name}.live"
        self.failures_path = Path(directory) / f"{name}.failures"
        # A test that breaks must not leave load behind for ever.
        options.setdefault("duration", "600s")
        command = [LOAD, "--live", self.live_path, "--failures-to", self.failures_path]
        for key, value in options.items():
            option = "--" + key.replace("_", "-")
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if item is True:
                    command.append(option)
                elif item is not None and item is not False:
                    command += [option, str(item)]
        command.append(load_target(address))
        super().__init__(command, directory, name, env=env, netns=netns)
        self.result = None

    def live(self):
        """What was counted up to about 20 ms ago."""
        try:
            return json.loads(self.live_path.read_text())
        except FileNotFoundError:
            return {"requests": 0, "ok": 0, "failed": 0, "generations": {}}

    def wait_for(self, requests=None, ok=None, generation=None, count=1, failed=None, timeout=30.0):
        """Until there were so many requests, or good ones, or `count` answered by this generation; all
        that are given must be met. Numbers count from the start of the load."""

        def met():
            live = self.live()
            if requests is not None and live["requests"] < requests:
                return None
            if ok is not None and live["ok"] < ok:
                return None
            if failed is not None and live["failed"] < failed:
                return None
            if generation is not None and live["generations"].get(str(generation), 0) < count:
                return None
            if not self.is_running():
                raise AssertionError(f"the load ended by itself: {live} {self.err}")
            return live

        what = f"load: requests={requests} ok={ok} failed={failed} generation={generation}"
        try:
            return wait_until(met, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; so far {self.live()}") from None

    def wait_more(self, n, timeout=30.0):
        """Until n more good answers have come."""
        return self.wait_for(ok=self.live()["ok"] + n, timeout=timeout)

    def stop(self, timeout=30.0):
        """No new requests; waits for those under way. Returns the result, see assert_clean()."""
        if self.result is None:
            super().stop(timeout)
            self._read()
        return self.result

    def finish(self, timeout=60.0):
        """Waits for the end that --duration or --requests set."""
        self.wait(timeout)
        self._read()
        return self.result

    def _read(self):
        code = self.process.returncode
        assert code in (0, 1), f"load ended with {code}: {self.err}"
        self.result = Result(json.loads(self.out), self.failure_lines())
        assert code == (1 if self.result["failed"] else 0)

    def failure_lines(self):
        try:
            return self.failures_path.read_text().splitlines()
        except FileNotFoundError:
            return []


class Result(dict):
    """What the load printed; generations and workers by number, and a line for each failure."""

    def __init__(self, data, failure_lines):
        super().__init__(data)
        self.failure_lines = failure_lines
        self.generations = {
            int(name): n for name, n in data["generations"].items() if name != "none"
        }

    def summary(self):
        keys = ("requests", "ok", "failed", "failures", "generations", "largest_gap_usec", "not_started")
        lines = "\n  ".join(self.failure_lines[:20])
        return f"{ {key: self[key] for key in keys} }\n  {lines}"


def run_load(directory, address, within=60.0, **options):
    """Load in the foreground, ended by its own --requests or --duration."""
    with Load(directory, address, **options) as load:
        return load.finish(within)


def assert_clean(result, min_requests=1, generations=None):
    """No request failed, and there were enough of them, from these generations and no others."""
    assert result["failed"] == 0, f"requests failed: {result.summary()}"
    assert result["not_started"] == 0, f"the load itself was late: {result.summary()}"
    assert result["ok"] == result["requests"] >= min_requests, f"too few: {result.summary()}"
    if generations is not None:
        assert set(result.generations) <= set(generations), result.summary()
        # A load that itself stood still does not see one that served for a moment.
        if result.get("largest_gap_usec", 0) < 50_000:
            assert set(result.generations) == set(generations), result.summary()
