# SPDX-License-Identifier: Apache-2.0
"""Each convention by which programs are told their sockets: with workers that read it as its own programs do,
and with these programs themselves where they are to be had. All upgraded under load."""

import json
import os
import re
import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from daemon import BAD_CONFIG, ROLLED_BACK
from harness import TENURED, assert_clean, free_port, http_get, wait_until
from own_keeper import OwnKeeper
from servers import HAPROXY, NGINX, RACK, WSGI, find

WORKER = Path(__file__).resolve().parent / "dialect_worker.py"
PYTHON = sys.executable
SOURCE = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2]))

QUICK = {"upgrade": {"soak": "0s"}, "drain": {"settle": "50ms", "idle_wait": "500ms"}}


def service_of(command, listen, **keys):
    drain = {**QUICK["drain"], **keys.pop("drain", {})}
    return {"command": command, "listen": listen, **QUICK, "drain": drain, **keys}


def start(daemon, command, listen, **keys):
    one = daemon(start=False)
    one.config = {"services": {"web": service_of(command, listen, **keys)}}
    one.write_config()
    one.start()
    one.wait_serving(generation=1, timeout=30)
    return one


def worker(*words):
    return [PYTHON, str(WORKER), *words]


def upgrade_under_load(one, load, address, n=2, **options):
    """Two loads, n upgrades, no failure."""
    loads = [
        load(address, clients=4, think="2ms", **options),
        load(address, clients=4, think="2ms", keepalive=True, requests_per_connection=20, **options),
    ]
    for running in loads:
        running.wait_more(20)
    for _ in range(n):
        one.upgrade()
        for running in loads:
            running.wait_more(20)
    for number in range(1, n + 1):
        one.wait_generation_gone(number)
    for running in loads:
        assert_clean(running.stop())


# Convention of the worker, handoff, more keys of the service
CONVENTIONS = [
    ("listen-fds", ["listen-fds"], {}),
    ("dinit", ["dinit"], {}),
    ("server-starter", ["server-starter"], {}),
    ("einhorn", ["einhorn"], {"ready": "einhorn-ack"}),
    ("einhorn-yaml", ["einhorn"], {"ready": "einhorn-ack"}),
    ("einhorn-fd", ["einhorn"], {"ready": "einhorn-ack"}),
    ("einhorn-silent", ["einhorn"], {}),
    ("nginx", ["nginx"], {}),
    ("unicorn", ["unicorn"], {}),
    ("gunicorn", ["gunicorn"], {}),
    ("puma", ["puma"], {}),
    ("php-fpm", ["php-fpm"], {}),
    ("uwsgi", ["uwsgi"], {}),
    ("stdin", ["inetd"], {}),
    ("notification-fd", ["s6"], {"ready": {"by": "fd", "number": 3}}),
    ("pipevar", ["dinit"], {"ready": {"by": "fd", "variable": "READY_FD"}}),
]


@pytest.mark.parametrize("name, handoff, keys", CONVENTIONS, ids=[c[0] for c in CONVENTIONS])
def test_convention(daemon, load, name, handoff, keys):
    port = free_port()
    one = start(daemon, worker(name), f"127.0.0.1:{port}", handoff=handoff, workers=2, **keys)
    upgrade_under_load(one, load, port)
    ended_by = "SIGUSR2" if handoff == ["einhorn"] else "SIGTERM"
    assert set(re.findall(r"told to end by (\w+)", one.log)) == {ended_by}


NUMBERED = ["listen-fds", "server-starter", "nginx", "gunicorn", "puma", "einhorn", "php-fpm", "unicorn"]


@pytest.mark.parametrize("name", [n for n in NUMBERED if n != "einhorn"] + ["einhorn-silent"])
def test_many_listeners(daemon, load, name):
    """TCP of both families and a Unix path, in the order that they are written in."""
    ports = [free_port(), free_port()]
    one = daemon(start=False)
    path = one.directory / "web.sock"
    listen = {"v6": f"[::1]:{ports[0]}", "v4": f"127.0.0.1:{ports[1]}", "path": f"unix:{path}"}
    handoff = [name.removesuffix("-silent")]
    one.config = {"services": {"web": service_of(worker(name), listen, handoff=handoff)}}
    one.write_config()
    one.start()
    one.wait_serving(generation=1)
    loads = [load(address, clients=2, think="2ms") for address in (("::1", ports[0]), ports[1], f"unix:{path}")]
    for running in loads:
        running.wait_more(10)
    one.upgrade()
    for running in loads:
        running.wait_more(10)
    one.wait_generation_gone(1)
    for running in loads:
        assert_clean(running.stop())
    # In some order: how php-fpm's and the others' are parsed is up to them, but all three are there.
    assert json.loads(http_get(ports[1]).text)["fds"] == [3, 4, 5]


def test_several_at_once(daemon, load):
    port = free_port()
    handoff = [*NUMBERED, "stdin", "circus"]
    command = worker("everything", "$(circus.sockets.HTTP)")
    one = start(daemon, command, f"127.0.0.1:{port}", handoff=handoff)
    upgrade_under_load(one, load, port, n=1)
    # unicorn itself would take both.
    assert "would have each socket twice" in one.ctl("check", one.config_path).err


@pytest.mark.parametrize("words, handoff", [
    (["{fd:b}", "{fd:a}"], ["arguments"]),
    (["$(circus.sockets.b)", "((circus.sockets.A))"], ["circus"]),
])
def test_arguments(daemon, load, words, handoff):
    ports = [free_port(), free_port()]
    listen = {"a": f"127.0.0.1:{ports[0]}", "b": f"127.0.0.1:{ports[1]}"}
    one = start(daemon, worker("words", *words), listen, handoff=handoff)
    assert json.loads(http_get(ports[0]).text)["fds"] == [4, 3]
    upgrade_under_load(one, load, ports[1], n=1)


def test_einhorns_old_arguments(daemon, load):
    """srv:HOST:PORT is the number of the listener there."""
    ports = [free_port(), free_port()]
    command = worker("words", f"srv:localhost:{ports[1]},r", f"srv:127.0.0.1:{ports[0]}")
    listen = {"a": f"127.0.0.1:{ports[0]}", "b": f"127.0.0.1:{ports[1]}"}
    one = start(daemon, command, listen, handoff=["einhorn"])
    assert json.loads(http_get(ports[0]).text)["fds"] == [4, 3]
    upgrade_under_load(one, load, ports[1], n=1)


def test_callers_sockets_are_not_passed_on(daemon):
    """What tenured was itself told by one of these is nobody else's."""
    one = daemon(
        start=False, args=["run", "--listen", f"127.0.0.1:{free_port()}", "--", "sh", "-c",
                           "env >seen; exec sleep 60"],
        env={"SERVER_STARTER_PORT": "80=3", "EINHORN_FD_0": "4", "NGINX": "5;", "MINE": "1"},
    )
    one.spawn["cwd"] = one.directory
    one.start(wait=False)
    wait_until(lambda: "MINE" in (one.directory / "seen").read_text() if (one.directory / "seen").exists() else 0)
    seen = (one.directory / "seen").read_text()
    assert not re.search("SERVER_STARTER|EINHORN|NGINX", seen), seen
    one.signal()
    one.signal()
    one.wait()


# ---- readiness that comes with a convention


@pytest.mark.parametrize("name, handoff, ready, reason", [
    ("einhorn-silent", "einhorn", "einhorn-ack", "never wrote worker:ack"),
    ("stdin", "s6", {"by": "fd", "number": 3}, "never wrote a line to descriptor 3"),
    ("half-a-word", "s6", {"by": "fd", "number": 3}, "never wrote a line to descriptor 3"),
    ("dinit", "dinit", {"by": "fd", "variable": "READY_FD"}, "descriptor that $READY_FD names"),
])
def test_never_ready(daemon, load, name, handoff, ready, reason):
    """It accepts, and says nothing: the old one serves on, and the reason is told."""
    port = free_port()
    one = start(daemon, worker(name), f"127.0.0.1:{port}", handoff=handoff)
    running = load(port, clients=4, think="2ms")
    running.wait_more(20)
    by = {"by": ready} if isinstance(ready, str) else ready
    one.config["services"]["web"]["ready"] = {**by, "timeout": "1s"}
    one.write_config()
    bad = one.upgrade(check=ROLLED_BACK)
    assert reason in bad.err, bad
    running.wait_more(20)
    assert_clean(running.stop(), generations=[1])


@pytest.mark.parametrize("first, name, handoff, ready", [
    ("stdin", "notification-fd", "s6", {"by": "fd", "number": 3}),
    ("einhorn", "einhorn", "einhorn", {"by": "einhorn-ack"}),
    ("einhorn-fd", "einhorn-fd", "einhorn", {"by": "einhorn-ack"}),
])
def test_ready_outlives_the_daemon(daemon, first, name, handoff, ready):
    """A worker that is about to say it when the daemon replaces itself is heard by the next."""
    port = free_port()
    first_ready = ready if name == first else "accept"
    one = start(daemon, worker(first), f"127.0.0.1:{port}", handoff=handoff, ready=first_ready)
    go = one.directory / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.05; done; exec {PYTHON} {WORKER} {name}"
    web = one.config["services"]["web"]
    web.update(command=["sh", "-c", script], ready={**ready, "timeout": "30s"})
    one.write_config()
    one.upgrade("web", "--detach")
    wait_until(lambda: one.pids(generation=2), what="the new worker")
    one.ctl("reexec")
    go.touch()
    one.wait_serving(generation=2, timeout=30)


@pytest.mark.parametrize("first, name, handoff, ready", [
    ("stdin", "notification-fd", "s6", {"by": "fd", "number": 3}),
    ("einhorn", "einhorn-late", "einhorn", {"by": "einhorn-ack"}),
])
def test_ready_outlives_a_killed_daemon(no_strays, first, name, handoff, ready):
    """The same when it is killed, and its keeper starts another."""
    # pylint: disable=unused-argument
    one = OwnKeeper()
    go = one.directory / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.05; done; exec {PYTHON} {WORKER} {name}"
    web = service_of(worker(first), f"127.0.0.1:{free_port()}", handoff=handoff)
    one.config = {"services": {"web": web}}
    one.write_config()
    with one:
        one.wait_serving(generation=1)
        web.update(command=["sh", "-c", script], ready={**ready, "timeout": "30s"})
        one.write_config()
        one.upgrade("web", "--detach")
        wait_until(lambda: one.pids(generation=2), what="the new worker")
        one.crash_daemon()
        go.touch()
        one.wait_serving(generation=2, timeout=30)


def test_strangers_at_einhorns_socket(daemon, load):
    """They get nothing, keep nobody waiting, and cannot speak for a worker."""
    port = free_port()
    one = start(daemon, worker("einhorn"), f"127.0.0.1:{port}", handoff="einhorn", ready="einhorn-ack")
    path = str(one.directory / "control-einhorn.sock")
    strangers = []
    for _ in range(500):
        strangers.append(socket.socket(socket.AF_UNIX))
        strangers[-1].connect(path)
    upgrade_under_load(one, load, port, n=1)
    one.config["services"]["web"].update(
        command=worker("einhorn-silent"), ready={"by": "einhorn-ack", "timeout": "2s"})
    one.write_config()
    one.upgrade("web", "--detach")
    pid = wait_until(lambda: one.pids(generation=3), what="the new worker")[0]
    with socket.socket(socket.AF_UNIX) as liar:
        liar.connect(path)
        with suppress(BrokenPipeError):
            liar.sendall(json.dumps({"command": "worker:ack", "pid": pid}).encode() + b"\n")
        one.wait_log("never wrote worker:ack")
    for stranger in strangers:
        stranger.close()
    assert one.log.count("gets nothing from its socket") <= 2
    assert one.service()["generation"] == 2


def test_no_descriptors_left_for_who_asks(daemon):
    """Who knocks waits, and the daemon goes on with all else: here, to its end."""
    one = start(daemon, worker("einhorn"), f"127.0.0.1:{free_port()}", handoff="einhorn", ready="einhorn-ack")
    one.wait_serving(generation=1)
    _, hard = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (3, hard))
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(str(one.directory / "control-einhorn.sock"))
        one.wait_log("workers that ask for their sockets wait: Too many open files")
        one.signal()
        one.wait_log("workers finish what they have")
        resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (hard, hard))
        one.wait()


def test_hoarders_at_einhorns_socket(daemon):
    """Workers of one service that take many places there leave some to the others."""
    ports = [free_port(), free_port()]
    one = daemon(start=False)
    keys = {"handoff": "einhorn", "ready": {"by": "einhorn-ack", "timeout": "8s"}}
    one.config = {"services": {
        "bad": service_of(worker("einhorn-hoard"), ports[0], limits={"nofile": 8192}, **{**keys, "ready": "accept"}),
        "web": service_of(worker("einhorn"), ports[1], **keys),
    }}
    one.write_config()
    one.start()
    one.wait_serving("web", generation=1)
    one.wait_serving("bad", generation=1, timeout=60)
    assert json.loads(http_get(ports[0]).text)["env"]["HOARD"] == "4200"
    # Nobody of them is turned out before ten seconds have passed.
    one.upgrade("web")


# ---- wrappers


WRAPPED = "{python} {worker} listen-fds"
RIGHT = "sh -c 'unset LISTEN_PIDFDID; LISTEN_PID=$$ exec \"$0\" \"$@\"' {python} {worker} listen-fds"


def wrapper(directory, line):
    """A script that runs the server as a child and waits for it."""
    path = directory / "wrapper.sh"
    line = line.format(python=PYTHON, worker=WORKER)
    path.write_text(f"#!/bin/sh\ntrap 'kill $pid' TERM\n{line} &\npid=$!\nwait $pid\nwait $pid\n")
    path.chmod(0o755)
    return str(path)


def test_wrapper_that_forks(daemon, load, tmp_path):
    """LISTEN_PID set anew by the last process before the server: the way that the manual shows."""
    port = free_port()
    one = start(daemon, [wrapper(tmp_path, RIGHT)], f"127.0.0.1:{port}")
    upgrade_under_load(one, load, port)


def test_wrapper_that_forks_is_told_of(daemon):
    port = free_port()
    one = start(daemon, worker("listen-fds"), f"127.0.0.1:{port}")
    # The server waits on, with sockets that it does not take, as many do.
    program = one.directory / "server.py"
    program.write_text("import os, time\nassert int(os.environ['LISTEN_PID']) != os.getpid()\ntime.sleep(60)\n")
    one.config["services"]["web"].update(
        command=[wrapper(one.directory, f"{PYTHON} {program}")], ready={"timeout": "1s"})
    one.write_config()
    bad = one.upgrade(check=ROLLED_BACK)
    assert "it accepted no connection" in bad.err and "which is not its own" in bad.err, bad
    assert "sh -c 'unset LISTEN_PIDFDID; LISTEN_PID=$$ exec \"$0\" \"$@\"'" in bad.err, bad


def test_wrapped_server_of_its_own_socket(daemon):
    """One that listens elsewhere because of that is told both."""
    port, own = free_port(), free_port()
    one = start(daemon, worker("listen-fds"), f"127.0.0.1:{port}")
    program = one.directory / "server.py"
    program.write_text(
        f"import socket, time\ns = socket.create_server(('127.0.0.1', {own}))\ntime.sleep(60)\n")
    one.config["services"]["web"].update(
        command=[wrapper(one.directory, f"{PYTHON} {program}")], ready={"timeout": "1s"})
    one.write_config()
    bad = one.upgrade(check=ROLLED_BACK)
    assert f"it listens on its own tcp:127.0.0.1:{own}" in bad.err and "which is not its own" in bad.err, bad


# ---- the programs themselves


def test_server_starter_library(daemon, load):
    """Perl's Server::Starter itself reads it."""
    find("start_server")
    one = daemon(start=False)
    port = free_port()
    (one.directory / "worker.pl").write_text(r"""
use strict; use Server::Starter qw(server_ports); use IO::Socket::INET;
my $ports = server_ports();
my ($name) = keys %$ports;
die "named $name" unless $name =~ /^127\.0\.0\.1:\d+$/ && keys %$ports == 1;
my $listen = IO::Socket::INET->new; $listen->fdopen($ports->{$name}, 'w') or die $!;
$SIG{CHLD} = 'IGNORE'; my $end = 0; $SIG{TERM} = sub { exit 0 };
while (1) {
	my $c = $listen->accept or next;
	my $text = ''; while ($text !~ /\r\n\r\n/) { sysread($c, $text, 4096, length $text) or last }
	my $body = "hello from generation $ENV{SERVER_STARTER_GENERATION}\n";
	syswrite $c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
	close $c;
}
""")
    one.config = {"services": {"web": service_of(
        ["perl", "worker.pl"], f"127.0.0.1:{port}", handoff="server-starter")}}
    one.write_config()
    one.start()
    one.wait_serving(generation=1)
    running = load(port, clients=4)
    running.wait_more(20)
    for number in (2, 3):
        one.upgrade()
        assert http_get(port).text == f"hello from generation {number}\n"
    assert_clean(running.stop())


PSGI = r"""my $body = "hello from generation $ENV{TENURE_GENERATION}\n";
sub { [200, ['Content-Type' => 'text/plain', 'Content-Length' => length $body], [$body]] };
"""


def test_starman_itself(daemon, load):
    """A server of its family."""
    of_program(daemon, load, "starman", ["starman", "--workers", "2", "app.psgi"], ["server-starter"],
               {"app.psgi": PSGI}, "hello from generation 3\n", drain={"signal": "QUIT", "idle_wait": "10s"})


def of_program(daemon, load, program, command, handoff, files=(), text=None, **keys):
    find(program)
    one = daemon(start=False)
    port = free_port()

    def fill(word):
        return word.replace("PORT", str(port)).replace("DIR", str(one.directory))

    for name, content in dict(files).items():
        (one.directory / name).write_text(fill(content))
    listen = {"http": {"address": f"127.0.0.1:{port}", **keys.pop("options", {})}}
    one.config = {"services": {"web": service_of(
        [fill(word) for word in command], listen, directory=str(one.directory), handoff=handoff,
        preset="none", **keys)}}
    one.write_config()
    one.start()
    one.wait_serving(generation=1, timeout=30)
    upgrade_under_load(one, load, port)
    if text:
        assert http_get(port).text == text
    return one


def test_gunicorn_itself(daemon, load):
    of_program(daemon, load, "gunicorn", ["gunicorn", "app:application"], ["gunicorn"], {"app.py": WSGI},
               "hello from generation 3\n")


def test_unicorn_itself(daemon, load):
    of_program(daemon, load, "unicorn", ["unicorn", "config.ru"], ["unicorn"], {"config.ru": RACK},
               "hello from generation 3\n", drain={"signal": "QUIT"})


def test_puma_itself(daemon, load):
    of_program(daemon, load, "puma", ["puma", "--bind", "tcp://127.0.0.1:PORT", "config.ru"], ["puma"],
               {"config.ru": RACK}, "hello from generation 3\n")


def test_nginx_itself(daemon, load):
    of_program(daemon, load, "nginx", ["nginx", "-e", "stderr", "-p", "DIR", "-c", "DIR/nginx.conf"],
               ["nginx"], {"nginx.conf": NGINX}, options={"nonblocking": True},
               drain={"signal": "QUIT", "idle_wait": "10s"})


UWSGI = ["uwsgi", "--plugin", "python3", "--master", "--protocol", "http", "--wsgi-file", "app.py",
         "--disable-logging", "--add-header", "Connection: close", "--hook-master-start", "unix_signal:15 gracefully_kill_them_all"]


def test_uwsgi_by_upstart(daemon, load):
    of_program(daemon, load, "uwsgi", UWSGI, ["uwsgi"], {"app.py": WSGI}, "hello from generation 3\n")


def test_uwsgi_as_a_zerg(daemon, load):
    of_program(daemon, load, "uwsgi", [*UWSGI, "--zerg", "{socket:uwsgi-zerg}"], ["uwsgi-zerg"],
               {"app.py": WSGI}, "hello from generation 3\n")


def test_haproxy_pulls(daemon, load):
    """Unmodified, with its own binds: it takes the sockets from us as from a predecessor."""
    one = of_program(daemon, load, "haproxy", ["haproxy", "-db", "-f", "haproxy.cfg", "-x", "{socket:haproxy}"],
                     ["haproxy"], {"haproxy.cfg": HAPROXY}, drain={"signal": "USR1", "idle_wait": "10s"})
    path = one.socket_path.parent / "control-haproxy.sock"
    # Who is no worker gets nothing.
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(5)
        stranger.connect(str(path))
        with suppress(BrokenPipeError, ConnectionResetError):
            stranger.sendall(b"_getsocks\n")
            assert stranger.recv(100) == b""
    one.wait_log("gets nothing from its socket")


def test_haproxy_by_number(daemon, load):
    text = HAPROXY.replace("bind 127.0.0.1:PORT", 'bind "fd@${FD}"')
    of_program(daemon, load, "haproxy", ["haproxy", "-db", "-f", "haproxy.cfg"], ["arguments"],
               {"haproxy.cfg": text}, environment={"FD": "{fd:http}"},
               drain={"signal": "USR1", "idle_wait": "10s"})


REPLY = r"""#!/bin/sh
while IFS= read -r line; do
	[ "$line" != "$(printf '\r')" ] || break
done
body="hello from generation $TENURE_GENERATION"
printf 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' ${#body} "$body"
"""


def test_s6_itself(daemon):
    """s6-ipcserverd takes the socket on 0 and writes its newline where it is told to. Without load: told to
    end, it leaves those who answer alone, and they end with it."""
    find("s6-ipcserverd")
    one = daemon(start=False)
    path = one.directory / "web.sock"
    (one.directory / "reply").write_text(REPLY)
    (one.directory / "reply").chmod(0o755)
    one.config = {"services": {"web": service_of(
        ["sh", "-c", "exec s6-ipcserverd -1 ./reply 1>&3 3>&-"], f"unix:{path}", handoff="s6",
        directory=str(one.directory), ready={"by": "fd", "number": 3})}}
    one.write_config()
    one.start()
    one.wait_serving(generation=1)
    assert http_get(f"unix:{path}").text == "hello from generation 1"
    for number in (2, 3):
        one.upgrade()
        one.wait_generation_gone(number - 1)
        assert http_get(f"unix:{path}").text == f"hello from generation {number}"


@pytest.mark.root
@pytest.mark.parametrize("name, handoff, words", [
    ("einhorn", "einhorn", []), ("einhorn-yaml", "einhorn", []), ("stdin", "inetd", []),
])
def test_as_another_user(daemon, load, name, handoff, words):
    """Workers of another user reach the socket beside the control socket, where they may enter."""
    port = free_port()
    keys = {"ready": "einhorn-ack"} if handoff == "einhorn" else {}
    one = start(daemon, worker(name, *words), f"127.0.0.1:{port}", handoff=handoff, user="nobody", **keys)
    upgrade_under_load(one, load, port, n=1)


def test_run(daemon, load):
    """The same without a file: what start_server's users write."""
    port = free_port()
    one = daemon(start=False)
    one.command = [
        TENURED, "--no-keeper", "run", "--socket", str(one.socket_path), "--listen", f"127.0.0.1:{port}",
        "--handoff", "server-starter", "--handoff", "nginx", "--preset", "node", "--name", "web",
        "--soak", "0s", "--settle", "50ms", "--", *worker("server-starter")]
    one.start()
    one.wait_serving()
    env = json.loads(http_get(port).text)["env"]
    assert env["NGINX"] == "3;" and "LISTEN_FDS" not in env
    upgrade_under_load(one, load, port, n=1)


def test_check_refuses(daemon):
    """What cannot be told to a program is an error of the configuration, with what would help."""
    one = daemon(start=False)
    one.config = {"services": {"web": {
        "command": "x", "listen": [8080, "udp:8080"], "handoff": ["server-starter", "puma", "stdin"]}}}
    one.write_config()
    said = one.ctl("check", one.config_path, check=BAD_CONFIG).err
    for text in ('are both "8080" to Server::Starter', "puma takes no datagram sockets", "exactly one listener"):
        assert text in said, said


def test_the_manual_has_every_word(daemon):
    """Its table of presets is what `tenurectl presets` says; its table of conventions has each word that the
    configuration knows."""
    one = daemon(start=False)
    manual = (SOURCE / "conf" / "tenured.yaml.5.scd").read_text()
    plain = re.sub(r"\\(.)", r"\1", manual[manual.index("# PRESETS"):])
    for preset in json.loads(one.ctl("presets", "--json").out):
        words = " ".join(word for pair in preset["arguments"] for word in pair if word.startswith("-")) or "-"
        row = [f"|  *{preset['name']}*", ", ".join(preset["handoff"]), words, preset.get("signal", "SIGTERM")]
        assert "\n:  ".join(row) + "\n" in plain, row
    one.config = {"services": {"web": {"command": "x", "listen": 8080, "handoff": "nosuch"}}}
    one.write_config()
    said = one.ctl("check", one.config_path, check=BAD_CONFIG).err
    known = re.search(r"is not one of ([a-z, -]+)", said)[1].split(", ")
    assert len(known) > 10
    handoff = manual[manual.index("# HANDOFF"):manual.index("# PRESETS")]
    for word in known:
        assert re.search(rf"^\|  .*\*{word}\*", handoff, re.M), word
