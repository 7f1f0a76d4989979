# SPDX-License-Identifier: Apache-2.0
"""The control socket as any Varlink client sees it, who may do what there, and what a hostile one can
do: nothing to others. All of it while a load runs of which no request may fail."""

import json
import os
import random
import socket
import struct
import time

import pytest

from daemon import NOT_PERMITTED, ROLLED_BACK
from harness import TENURECTL, assert_clean, http_get, wait_until
from interface import Interface, text
from upgrades import quick
from varlink import SUPERVISOR, Varlink, VarlinkError

SERVICE = "org.varlink.service"

# Nobody on a Debian system, with a group of the same name.
NOBODY, NOGROUP = 65534, 65534

INTERFACE = Interface(text(SUPERVISOR))


@pytest.fixture
def loaded(web, load):
    """loaded(...) is web(...) with a load, of which nothing failed in the end, and the daemon answers."""
    made = []

    def make(*options, **keys):
        keys.setdefault("upgrade", quick())
        one = web(*options, **keys)
        running = load(one.port, clients=4, think="1ms")
        running.wait_for(ok=20)
        made.append((one, running))
        return one

    yield make
    for one, running in made:
        assert one.is_running(), one.log
        INTERFACE.check_reply("List", one.call("List", timeout=10))
        running.wait_more(20)
        assert_clean(running.stop())


def checked(one, method, more=False, **parameters):
    """A call whose replies fit the interface: the last one, or all of them."""
    with one.varlink() as connection:
        try:
            if not more:
                reply = connection.call(method, parameters)
                INTERFACE.check_reply(method, reply)
                return reply
            replies = list(connection.call(method, parameters, more=True))
        except VarlinkError as error:
            if error.error.startswith(SUPERVISOR):
                INTERFACE.check_error(error.name, error.parameters)
            raise
    for reply in replies:
        INTERFACE.check_reply(method, reply)
    return replies


def refused(one, method, **parameters):
    """The error that a call ends with."""
    with pytest.raises(VarlinkError) as caught:
        checked(one, method, **parameters)
    return caught.value


def as_user(uid, gid, function, groups=(), meanwhile=None):
    """function() in a process of that user: what it returns, as JSON carries it. meanwhile() in this one."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = {"raised": "nothing"}
        try:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            answer = {"value": function()}
        except BaseException as error:  # pylint: disable=broad-except
            answer = {"raised": repr(error)}
        finally:
            os.write(writing, json.dumps(answer).encode())
            os._exit(0)
    os.close(writing)
    if meanwhile:
        meanwhile()
    with os.fdopen(reading) as file:
        answer = json.load(file)
    os.waitpid(pid, 0)
    assert "value" in answer, answer
    return answer["value"]


def outcome(path, method, **parameters):
    """"done", or the error's name."""
    with Varlink(path, timeout=10) as connection:
        try:
            connection.call(method, parameters)
        except VarlinkError as error:
            if error.error.startswith(SUPERVISOR):
                INTERFACE.check_error(error.name, error.parameters)
            return error.name
    return "done"


# ---- what every Varlink service has ----


@pytest.mark.sanitize
def test_introspection(loaded):
    one = loaded()
    with one.varlink() as connection:
        info = connection.call(f"{SERVICE}.GetInfo")
        assert info["vendor"] == "tenured" and info["product"] == "tenured"
        assert info["version"] and isinstance(info["url"], str)
        assert sorted(info["interfaces"]) == [SUPERVISOR, SERVICE]
        for name in (SUPERVISOR, SERVICE):
            reply = connection.call(f"{SERVICE}.GetInterfaceDescription", {"interface": name})
            assert reply == {"description": text(name)}
        for method, parameters, name, error in [
            (f"{SERVICE}.GetInterfaceDescription", {"interface": "a.b"}, "InterfaceNotFound", {"interface": "a.b"}),
            ("a.b.C", None, "InterfaceNotFound", {"interface": "a.b"}),
            (f"{SUPERVISOR}.Nonsense", None, "MethodNotFound", {"method": f"{SUPERVISOR}.Nonsense"}),
            (f"{SERVICE}.List", None, "MethodNotFound", {"method": f"{SERVICE}.List"}),
            (f"{SERVICE}.GetInterfaceDescription", None, "InvalidParameter", {"parameter": "interface"}),
            ("List", {"service": 1}, "InvalidParameter", {"parameter": "service"}),
            ("List", {"nonsense": 1}, "InvalidParameter", {"parameter": "nonsense"}),
            ("Scale", {"service": "web"}, "InvalidParameter", {"parameter": "workers"}),
            ("Scale", {"service": "web", "workers": 1.5}, "InvalidParameter", {"parameter": "workers"}),
            ("Upgrade", {"service": "web", "steps": [5, "x"]}, "InvalidParameter", {"parameter": "steps[1]"}),
            ("Upgrade", {"service": "web", "steps": [50, 5]}, "InvalidParameter", {"parameter": "steps"}),
            ("Upgrade", {"service": "web", "strategy": "best"}, "InvalidParameter", {"parameter": "strategy"}),
            ("Upgrade", {"service": "web", "overlap": "no"}, "InvalidParameter", {"parameter": "overlap"}),
            ("Upgrade", {"service": "web", "soakUsec": -1}, "InvalidParameter", {"parameter": "soakUsec"}),
            ("Upgrade", {"service": "web", "pauseAt": 0}, "InvalidParameter", {"parameter": "pauseAt"}),
            ("Upgrade", {"service": "web", "pauseAt": 1e300}, "InvalidParameter", {"parameter": "pauseAt"}),
            ("Events", {"since": -1}, "InvalidParameter", {"parameter": "since"}),
        ]:
            with pytest.raises(VarlinkError) as caught:
                connection.call(method, parameters)
            assert (caught.value.error, caught.value.parameters) == (f"{SERVICE}.{name}", error)
        # The connection goes on after each of them, and nothing came of any.
        assert connection.call("List")["services"][0]["generation"] == 1


def test_every_method(loaded):
    """Each method with as little as it needs, and each reply as the interface says."""
    one = loaded()
    called = set()

    def call(method, **parameters):
        called.add(method)
        return checked(one, method, **parameters)

    services = call("List")["services"]
    assert [service["name"] for service in services] == ["web"]
    assert call("List", service="web")["services"][0]["state"] == "serving"
    listener = call("Listeners")["listeners"][0]
    assert (listener["service"], listener["kind"], listener["origin"]) == ("web", "group", "own")
    assert listener["address"] == f"tcp:127.0.0.1:{one.port}"
    assert call("Events", since=0)["events"][0]["sequence"] == 1
    assert call("Events")["events"] == []
    assert [change["action"] for change in call("Diff")["changes"]] == ["none"]
    assert [entry["generation"] for entry in call("History", service="web")["entries"]] == [1]

    # Without "more" it is answered when it was accepted.
    assert call("Upgrade", service="web")["progress"]["done"] is False
    one.wait_serving(generation=2)
    assert call("Restart", service="web")["progress"]["done"] is False
    one.wait_serving(generation=3)
    call("Scale", service="web", workers=2)
    wait_until(lambda: len(one.pids(generation=3)) == 2, what="two workers")
    assert one.service()["scaled"] is True
    one.wait_generation_gone(1)
    assert call("Rollback", service="web")["progress"]["done"] is False
    one.wait_serving(generation=4)

    call("Upgrade", service="web", strategy="canary", steps=[20, 100], soakUsec=0, pauseAt=20)
    wait_until(lambda: (one.service()["rollout"] or {}).get("phase") == "paused", what="a pause")
    rollout = checked(one, "List")["services"][0]["rollout"]
    assert (rollout["fromGeneration"], rollout["toGeneration"], rollout["traffic"]) == (4, 5, 20.0)
    again = refused(one, "Upgrade", service="web")
    assert (again.name, again.parameters["generation"]) == ("RolloutInProgress", 5)
    assert call("Abort", service="web") == {}
    one.wait_serving(generation=4)
    last = checked(one, "History", service="web")["entries"][-1]
    assert last["generation"] == 5 and last.get("servingUsec") is None
    assert "aborted" in last["outcome"] + str(last.get("reason"))

    call("Upgrade", service="web", strategy="canary", steps=[20, 100], soakUsec=60_000_000)
    wait_until(lambda: (one.service()["rollout"] or {}).get("traffic") == 20, what="the first step")
    assert call("Pause", service="web") == {}
    assert call("Promote", service="web", full=True) == {}
    wait_until(lambda: one.service()["generations"][-1]["traffic"] == 100, what="all traffic")
    call("Abort", service="web")
    one.wait_serving(generation=4)

    assert [change["action"] for change in call("Reload")["changes"]] == ["scale"]
    wait_until(lambda: one.service()["scaled"] is False, what="the configured number")
    assert call("Start", service="web")["progress"]["done"] is True
    # The one that answers is the next one.
    call("Reexec")
    assert one.service()["generation"] == 4
    assert call("Take", service="web", listeners=["http"])["names"] == ["http"]
    # Adopt needs descriptors beside it: test_adopt.py.
    assert called == set(INTERFACE.methods) - {"Stop", "Adopt"}


def test_stop_and_start(web):
    one = web(upgrade=quick())
    checked(one, "Stop", more=True, service="web")
    service = checked(one, "List")["services"][0]
    assert (service["state"], service.get("generation"), service["generations"]) == ("stopped", None, [])
    assert checked(one, "Listeners")["listeners"] == []
    assert refused(one, "Restart", service="web").name == "NotRunning"
    assert refused(one, "Scale", service="web", workers=2).name == "NotRunning"
    # Stopped is what it should be.
    assert checked(one, "Stop", service="web")["progress"]["done"] is True
    for number, method in [(2, "Start"), (3, "Upgrade")]:
        replies = checked(one, method, more=True, service="web")
        assert [reply["progress"]["done"] for reply in replies][-1] is True
        assert http_get(one.port).generation == number
        checked(one, "Stop", more=True, service="web")


def test_typed_errors(loaded):
    one = loaded()
    for method, (given, _) in INTERFACE.methods.items():
        if "service" not in given:
            continue
        parameters = {"service": "wbe"}
        if method == "Scale":
            parameters["workers"] = 1
        if method == "Adopt":
            parameters["pid"] = 1
        error = refused(one, method, **parameters)
        assert error.name == "NoSuchService", method
        assert error.parameters == {"service": "wbe", "known": ["web"]}, method
    for method in ("Promote", "Pause", "Abort"):
        assert refused(one, method, service="web").name == "NoRollout"
    error = refused(one, "Rollback", service="web", to=77)
    assert (error.name, error.parameters) == ("NoSuchGeneration", {"service": "web", "generation": 77})

    one.write_config("services: {web: {comand: x, listen: 99999}}\n")
    for method, parameters in [("Reload", {}), ("Diff", {}), ("Upgrade", {"service": "web"})]:
        error = refused(one, method, **parameters)
        assert error.name == "InvalidConfiguration"
        problems = error.parameters["problems"]
        assert {problem["file"] for problem in problems} == {str(one.config_path)}
        assert [(p["line"], p["column"]) for p in problems if "comand" in p["message"]] == [(1, 18)]
        assert len(problems) >= 2
    one.write_config()

    one.manners.set("--exit-at-once --exit-code 7 --write-text last-words")
    with pytest.raises(VarlinkError) as caught:
        checked(one, "Upgrade", more=True, service="web")
    assert caught.value.name == "RolledBack"
    told = caught.value.parameters
    assert (told["generation"], told["worker"], told["status"]) == (2, 0, "exit status 7")
    failure = checked(one, "List", service="web")["services"][0]["lastFailure"]
    for field in ("generation", "worker", "status", "reason", "output"):
        assert failure.get(field) == told.get(field), field
    one.manners.set()


# ---- the order of things on one connection ----


def test_more(loaded):
    one = loaded()
    with one.varlink() as connection:
        connection.send("Upgrade", {"service": "web"}, more=True)
        messages = []
        while not messages or messages[-1].get("continues"):
            messages.append(connection.receive())
        for message in messages:
            assert set(message) <= {"parameters", "continues"}
            INTERFACE.check_reply("Upgrade", message["parameters"])
        assert len(messages) > 1
        done = [message["parameters"]["progress"]["done"] for message in messages]
        assert done == [False] * (len(messages) - 1) + [True]
        assert messages[-1]["parameters"]["progress"]["generation"] == 2
        assert one.service()["generation"] == 2
        # Where "more" adds nothing there is one reply.
        connection.send("List", more=True)
        assert "continues" not in connection.receive()


def test_events_follow(loaded):
    one = loaded()
    with one.varlink() as all_of_them, one.varlink() as new_ones, one.varlink() as others:
        everything = all_of_them.call("Events", {"since": 0}, more=True)
        fresh = new_ones.call("Events", {"service": "web"}, more=True)
        first = next(everything)["events"]
        assert first and next(fresh)["events"] == []
        one.upgrade()

        def collect(replies, found):
            while not any((e["event"], e.get("generation")) == ("rollout-done", 2) for e in found):
                reply = next(replies)
                INTERFACE.check_reply("Events", reply)
                found += reply["events"]
            return found

        seen = collect(everything, list(first))
        assert [event["sequence"] for event in seen] == list(range(1, len(seen) + 1))
        later = collect(fresh, [])
        since = later[0]["sequence"]
        assert later == [event for event in seen if event["sequence"] >= since and event.get("service")]
        assert later[0]["event"] == "rollout-started"
        # From the middle on.
        middle = seen[len(seen) // 2]["sequence"]
        rest = others.call("Events", {"since": middle})["events"]
        assert rest[: len(seen) - middle] == seen[middle:]


def test_oneway(loaded):
    one = loaded()
    with one.varlink() as connection:
        connection.send("Scale", {"service": "web", "workers": 2}, oneway=True)
        connection.send("Nonsense", oneway=True)
        connection.send("List")
        # The only reply is that of the last call.
        assert connection.reply()["services"][0]["workersWanted"] == 2
        connection.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.receive()
    with one.varlink() as connection:
        connection.send("Upgrade", {"service": "web"}, oneway=True)
    # Also when its client has gone.
    one.wait_serving(generation=2)


def test_pipelining(loaded):
    one = loaded()
    calls = []
    for i in range(60):
        method = ("List", "Diff", "Nonsense")[i % 3]
        calls.append(json.dumps({"method": f"{SUPERVISOR}.{method}"}).encode() + b"\0")

    def check(connection):
        for i in range(60):
            message = connection.receive()
            if i % 3 == 2:
                assert message["error"] == f"{SERVICE}.MethodNotFound"
            else:
                assert ("services", "changes")[i % 3] in message["parameters"]

    with one.varlink() as connection:
        connection.send_bytes(b"".join(calls))
        check(connection)
    # Cut anywhere.
    dice = random.Random(1)
    with one.varlink() as connection:
        data = b"".join(calls)
        while data:
            n = dice.choice((1, 3, 17, 400))
            connection.send_bytes(data[:n])
            data = data[n:]
        check(connection)
    # The client that has said all it wants still gets its answers.
    with one.varlink() as connection:
        connection.send_bytes(b"".join(calls))
        connection.socket.shutdown(socket.SHUT_WR)
        check(connection)
        assert connection.receive() is None


def test_client_that_leaves(loaded):
    """What it began goes on."""
    one = loaded("--ready-delay", "300ms")
    for number in (2, 3):
        with one.varlink() as connection:
            connection.send("Upgrade", {"service": "web"}, more=True)
            if number == 3:
                connection.receive()
            else:
                wait_until(lambda: one.service()["rollout"], what="a rollout")
        one.wait_serving(generation=number)


# ---- who may do what ----


@pytest.mark.root
def test_roles(loaded):
    one = loaded()
    path = one.socket_path

    def outcomes(**user):
        methods = {
            "List": {},
            "Events": {},
            "Scale": {"service": "web", "workers": 1},
            "Reload": {},
        }
        return as_user(
            NOBODY, NOGROUP, lambda: [outcome(path, name, **given) for name, given in methods.items()], **user
        )

    def control(**keys):
        one.config["control"] = {"socket": str(path), **keys}
        one.write_config()
        one.reload()

    look_only = ["done", "done", "NotPermitted", "NotPermitted"]
    everything = ["done"] * 4
    nothing = ["NotPermitted"] * 4
    assert outcomes() == look_only
    control(operators=["nobody"])
    assert outcomes() == everything
    # Changes are logged with who asked for them.
    assert "asked for by nobody (pid " in one.log
    control(operators=["@12345"])
    assert outcomes() == look_only
    assert outcomes(groups=[12345]) == everything
    control(observers=["root"])
    assert outcomes() == nothing
    control(observers=["@12345"], operators=["daemon"])
    assert outcomes() == nothing
    assert outcomes(groups=[12345]) == look_only
    # Nobody's own errors are not told either.
    assert as_user(NOBODY, NOGROUP, lambda: outcome(path, "List", service="wbe")) == "NotPermitted"
    control(mode="0600")
    with pytest.raises(AssertionError, match="PermissionError"):
        outcomes()


@pytest.mark.root
def test_roles_change_under_a_connection(loaded):
    one = loaded()
    control = one.config["control"] = {"socket": str(one.socket_path), "operators": ["nobody"]}
    one.write_config()
    one.reload()

    def try_until_refused():
        n = 0
        with Varlink(one.socket_path, timeout=10) as connection:
            try:
                for n in range(10000):
                    connection.call("Scale", {"service": "web", "workers": 1})
                    time.sleep(0.01)
            except VarlinkError as error:
                return [n, error.name]
        return [n, None]

    def take_away():
        one.wait_log("scaling to 1 worker asked for by nobody")
        del control["operators"]
        one.write_config()
        one.reload()

    n, name = as_user(NOBODY, NOGROUP, try_until_refused, meanwhile=take_away)
    assert n > 0 and name == "NotPermitted"


@pytest.mark.root
def test_not_permitted_by_tenurectl(loaded):
    one = loaded()
    command = [TENURECTL, "--socket", str(one.socket_path), "upgrade", "web"]
    code = as_user(NOBODY, NOGROUP, lambda: os.spawnv(os.P_WAIT, TENURECTL, command))
    assert code == NOT_PERMITTED
    assert one.service()["generation"] == 1


# ---- limits, and those who mean harm ----

CALL_LIST = json.dumps({"method": f"{SUPERVISOR}.List"}).encode() + b"\0"

NOT_A_CALL = [
    b"\0",
    b"nonsense\0",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\0",
    b"{}\0",
    b"[]\0",
    b"null\0",
    b'"io.tenured.Supervisor.List"\0',
    b'{"method": 1}\0',
    b'{"method": null}\0',
    b'{"method": "io.tenured.Supervisor.List", "parameters": []}\0',
    b'{"method": "io.tenured.Supervisor.List", "more": "yes"}\0',
    b'{"method": "io.tenured.Supervisor.List"\0',
    b'{"method": "io.tenured.Supervisor.List"} {}\0',
    b'{"method": "io.tenured.Supervisor.List", "method": "io.tenured.Supervisor.List"}\0',
    b'{"method": "io.tenured.Supervisor.\xff\xfe"}\0',
    b'{"parameters": {"service": "web"}}\0',
    b"[" * 100000 + b"\0",
    b'{"a":' * 10000 + b"1" + b"}" * 10000 + b"\0",
    bytes(range(1, 256)) * 8 + b"\0",
]


@pytest.mark.sanitize
def test_garbage(loaded):
    """What is no call costs its sender the connection, and nobody else anything."""
    one = loaded()
    one.call("List")
    with one.no_fd_leak():
        for data in NOT_A_CALL:
            with one.varlink(timeout=5) as connection:
                connection.send_bytes(data)
                assert connection.receive() is None, data[:100]
            assert one.call("List")["services"]
        # With a call before it, which is answered, and one behind it, which is not.
        for data in NOT_A_CALL:
            with one.varlink(timeout=5) as connection:
                connection.send_bytes(CALL_LIST + data + CALL_LIST)
                assert connection.reply()["services"]
                assert connection.receive() is None, data[:100]
    # Many complaints at once are a few lines.
    assert one.log.count("control: connection") < 10


def test_strange_values(loaded):
    """Calls with values at the edge of what JSON can say: refused, each with its own error."""
    one = loaded()
    with one.varlink() as connection:
        for method, parameters in [
            ("Scale", {"service": "web", "workers": -1}),
            ("Scale", {"service": "web", "workers": 0}),
            ("Scale", {"service": "web", "workers": 2**31}),
            ("Scale", {"service": "web", "workers": 2**63 - 1}),
            ("Scale", {"service": "web", "workers": -(2**63)}),
            ("Scale", {"service": "web", "workers": 1e308}),
            ("Rollback", {"service": "web", "to": -1}),
            ("Rollback", {"service": "web", "to": 2**32 + 1}),
            ("Rollback", {"service": "web", "to": 2**63 - 1}),
            ("Upgrade", {"service": "web", "steps": []}),
            ("Upgrade", {"service": "web", "steps": [1] * 1000}),
            ("Upgrade", {"service": "web", "steps": [1e-300, 100]}),
            ("Upgrade", {"service": "web", "steps": [-5, 100]}),
            ("Upgrade", {"service": "web", "pauseAt": 100.1}),
            ("List", {"service": ""}),
            ("List", {"service": "\u0001\u001b[2J"}),
            ("List", {"service": "w" * 500000}),
            ("History", {"service": "../../etc/passwd"}),
        ]:
            with pytest.raises(VarlinkError):
                connection.call(method, parameters)
        # The last event there can be is not there yet.
        assert connection.call("Events", {"since": 2**63 - 1}) == {"events": []}
        now = connection.call("List")["services"][0]
    assert (now["generation"], now["workersWanted"], len(now["generations"])) == (1, 1, 1)


def test_numbers_too_large(loaded):
    """Beyond what the parser of the other side has: no call, or a refused one, but never another number."""
    one = loaded()
    for number in ("99999999999999999999", "-99999999999999999999", "1e999", "NaN", "0x10", "1_000"):
        call = f'{{"method":"{SUPERVISOR}.Scale","parameters":{{"service":"web","workers":{number}}}}}'
        with one.varlink(timeout=5) as connection:
            connection.send_bytes(call.encode() + b"\0")
            message = connection.receive()
            assert message is None or "error" in message
    assert one.service()["workersWanted"] == 1


def test_long_message(loaded):
    one = loaded()
    limit = 1 << 20
    with one.no_fd_leak():
        with one.varlink(timeout=10) as connection:
            # Just below the limit it is a call.
            padding = " " * (limit - len(CALL_LIST) - 10)
            connection.send_bytes(CALL_LIST[:-1] + padding.encode() + b"\0")
            assert connection.reply()["services"]
        with one.varlink(timeout=10) as connection:
            try:
                for _ in range(64):
                    connection.send_bytes(b" " * (1 << 16))
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert connection.receive() is None
    one.wait_log("its message is too long")


def test_random_bytes(loaded):
    """For three seconds, messages that were good calls once. A failure tells the seed."""
    one = loaded()
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    base = [
        *({"method": f"{SUPERVISOR}.{name}", "parameters": {"service": "none"}} for name in ("List", "Upgrade", "Stop")),
        {"method": f"{SUPERVISOR}.Scale", "parameters": {"service": "none", "workers": 1}},
        {"method": f"{SUPERVISOR}.Diff", "more": True},
        {"method": f"{SERVICE}.GetInterfaceDescription", "parameters": {"interface": SERVICE}},
    ]
    with one.no_fd_leak():
        deadline = time.monotonic() + 3
        n = 0
        while time.monotonic() < deadline:
            message = bytearray(json.dumps(dice.choice(base)).encode() + b"\0")
            for _ in range(dice.randrange(1, 6)):
                at = dice.randrange(len(message) - 1)
                message[at] = dice.choice((dice.randrange(256), *b'{}[]",:0\x00\\u\xff'))
            with one.varlink(timeout=5) as connection:
                try:
                    connection.send_bytes(bytes(message) * dice.randrange(1, 4))
                    connection.socket.shutdown(socket.SHUT_WR)
                    while connection.receive() is not None:
                        pass
                except (BrokenPipeError, ConnectionResetError):
                    pass
            n += 1
    assert n > 100
    services = one.call("List")["services"]
    assert [service["state"] for service in services] == ["serving"]


def fill_connections(path, n):
    """How many of n connections the daemon keeps."""
    kept = []
    try:
        for _ in range(n):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(path))
            kept.append(client)
        time.sleep(0.3)
        refused = 0
        for client in kept:
            client.setblocking(False)
            try:
                refused += client.recv(1) == b""
            except BlockingIOError:
                pass
            except ConnectionResetError:
                refused += 1
        return n - refused
    finally:
        for client in kept:
            client.close()


def test_many_connections(loaded):
    """Operators have 16 above the 256 of all; what is more is closed, and afterwards all is as before."""
    one = loaded()
    with one.no_fd_leak():
        assert fill_connections(one.socket_path, 600) == 256 + 16
        assert one.call("List")["services"]
        # Thousands, one after the other.
        for _ in range(2000):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(one.socket_path))
            client.close()
        assert one.call("List")["services"]


@pytest.mark.root
def test_many_connections_of_a_user(loaded):
    """A user's crowd neither locks out operators nor other users."""
    one = loaded()
    with one.no_fd_leak():

        def crowd():
            return fill_connections(one.socket_path, 100)

        assert as_user(NOBODY, NOGROUP, crowd) == 32

        reading, writing = os.pipe()

        def crowd_for_a_while():
            clients = [socket.socket(socket.AF_UNIX) for _ in range(100)]
            for client in clients:
                client.connect(str(one.socket_path))
            os.write(writing, b"all there")
            time.sleep(1)
            return True

        def look():
            assert os.read(reading, 100) == b"all there"
            assert one.call("List", timeout=5)["services"]
            assert as_user(1, 1, lambda: outcome(one.socket_path, "List")) == "done"

        as_user(NOBODY, NOGROUP, crowd_for_a_while, meanwhile=look)
        os.close(reading)
        os.close(writing)


def test_half_messages(loaded):
    """Those who begin a message and go to sleep keep nobody waiting."""
    one = loaded()
    halves = [one.varlink() for _ in range(50)]
    try:
        for i, connection in enumerate(halves):
            connection.send_bytes(CALL_LIST[: 1 + i % (len(CALL_LIST) - 1)])
        started = time.monotonic()
        one.upgrade()
        assert one.call("List", timeout=1)["services"][0]["generation"] == 2
        assert time.monotonic() - started < 5
        # They may go on.
        halves[0].send_bytes(CALL_LIST[1:])
        assert halves[0].reply()["services"]
    finally:
        for connection in halves:
            connection.close()


def test_slow_readers(loaded):
    """A reader of events that does not read, and one that asks for much and reads none of it, lose
    nothing for others; the first has all of them in order when it reads again."""
    one = loaded()
    with one.varlink() as sleeper, one.varlink() as glutton, one.varlink() as reader:
        for connection in (sleeper, reader):
            connection.send("Events", {"since": 0}, more=True)
        glutton.socket.settimeout(0.5)
        try:
            # Until both its buffers and ours are full.
            for _ in range(100000):
                glutton.send_bytes(CALL_LIST * 100)
        except TimeoutError:
            pass
        else:
            pytest.fail("the daemon takes any number of calls that nobody reads the answers of")
        n_awake = len(reader.reply()["events"])
        for number in range(2, 8):
            one.upgrade()
            while True:
                events = reader.reply()["events"]
                n_awake += len(events)
                if any(event["event"] == "rollout-done" for event in events):
                    break
            assert one.service()["generation"] == number
        found = []
        while len(found) < n_awake:
            found += [event["sequence"] for event in sleeper.reply()["events"]]
        assert found == list(range(1, len(found) + 1))


# ---- notify sockets ----


def notify_address(one, generation=1):
    pid = one.pids(generation=generation)[0]
    with open(f"/proc/{pid}/environ", "rb") as file:
        for entry in file.read().split(b"\0"):
            if entry.startswith(b"NOTIFY_SOCKET="):
                address = entry.removeprefix(b"NOTIFY_SOCKET=")
                return b"\0" + address[1:] if address.startswith(b"@") else address
    raise AssertionError("no NOTIFY_SOCKET")


def test_notify_spam(loaded):
    """A worker that says ten nonsensical things each millisecond is upgraded like any other."""
    one = loaded("--spam-notify", ready={"by": "notify"})
    for number in range(2, 5):
        one.upgrade()
        assert one.service()["generation"] == number
        assert one.call("List", timeout=5)["services"]
    one.manners.set("--never-ready")
    one.config["services"]["web"]["ready"]["timeout"] = "1s"
    one.write_config()
    one.upgrade(check=ROLLED_BACK)
    one.manners.set()


def test_notify_of_strangers(loaded):
    """Only the worker itself and its descendants are listened to, whatever others say and bring along."""
    one = loaded("--status", "own words", ready={"by": "notify", "timeout": "2s"})
    assert one.workers()[0]["status"] == "own words"

    def say(address, data, fds=()):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            stranger.settimeout(5)
            rights = struct.pack(f"{len(fds)}i", *fds)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if fds else []
            stranger.sendmsg([data], ancillary, 0, address)

    address = notify_address(one)
    with one.no_fd_leak(), open("/dev/null", "rb") as null:
        for data in (
            b"STATUS=other words",
            b"STOPPING=1",
            b"MAINPID=1",
            b"ERRNO=5",
            b"WATCHDOG=trigger",
            b"READY=1\nSTATUS=other words\n",
            b"FDSTORE=1\nFDNAME=x",
            b"BARRIER=1",
            b"",
            b"\0" * 1000,
            b"STATUS=" + b"x" * 60000,
            bytes(range(256)) * 16,
        ):
            say(address, data)
            say(address, data, [null.fileno()] * 10)
        for _ in range(1000):
            say(address, b"STATUS=other words", [null.fileno()] * 20)
    assert one.workers()[0]["status"] == "own words"

    # A stranger cannot make one ready.
    one.manners.set("--never-ready")
    one.ctl("upgrade", "web", "--detach")
    wait_until(lambda: one.pids(generation=2), what="a worker of generation 2")
    address = notify_address(one, 2)
    for _ in range(20):
        say(address, b"READY=1")
        time.sleep(0.01)
    assert one.service()["rollout"]["toGeneration"] == 2
    one.wait_serving(generation=1)
    reason = one.service()["lastFailure"]["reason"]
    assert "never said READY=1" in reason
    one.manners.set()
