# SPDX-License-Identifier: Apache-2.0
"""Real servers, each with its own preset and the least that it needs besides: what the tests of presets
start. Every one answers "hello from generation N", or "hello" where its configuration has no variables."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import BUILD, IS_ROOT, clean_environment, free_port
from harness import Program as Background


def find(program, optional=False):
    """The path of a server, whose name may be a pattern. Debian's rather than one of the user's own. In CI all of
    them are there but for large ones; elsewhere a missing one is said."""
    folders = (os.environ["PATH"] + ":/usr/local/sbin:/usr/sbin:/sbin").split(":")
    found = sorted(path for folder in folders for path in glob.glob(f"{folder}/{program}"))
    path = shutil.which(found[-1]) if found else None
    if path is None:
        missing(program, optional)
    return path


def missing(what, optional=False):
    if os.environ.get("CI") == "true" and not optional:
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed")


def node_modules(package, optional=False):
    """The folder that npm has installed this package into: of $NODE_PATH or below the build directory."""
    folders = [*os.environ.get("NODE_PATH", "").split(":"), str(BUILD / "node_modules")]
    for folder in filter(None, folders):
        if os.path.exists(f"{folder}/{package}/package.json"):
            return folder
    return missing(f"{package} of npm", optional)


class Program:
    """What is told by a program and its files."""

    optional = False

    def fill(self, text, directory, port):
        text = text.replace("PORT", str(port)).replace("DIR", str(directory))
        return text.replace("PROGRAM", find(self.program, self.optional))

    def write_files(self, directory, port):
        for name, text in self.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.fill(text, directory, port))
            path.chmod(0o755)

    def found_version(self):
        """The first number with a dot that it says of itself."""
        program = find(self.program, self.optional)
        said = subprocess.run([word.replace("PROGRAM", program) for word in self.version or ["PROGRAM", "--version"]],
                              capture_output=True, text=True, check=False)
        return re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)[0]


@dataclass
class Server(Program):
    """One of Debian's packages, or of npm's."""

    preset: str  # None: its keys say how it gets its sockets
    program: str
    command: list
    files: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)
    tells: bool = True  # the generation
    host: str = "127.0.0.1"
    build: list = field(default_factory=list)
    protocol: str = "http"
    npm: str = None  # a package of npm's that it is made of
    version: list = None  # what prints it, if not --version does
    optional: bool = False  # not needed to test everything that is ours
    remark: str = ""  # for the table
    # More words with which it binds its own port (also in $ALONE), and is a child of who starts it; None: it keeps no
    # connections, or is another one's way of being started.
    alone: list = None
    hosted: list = field(default_factory=list)  # more words with which tenured starts it

    def build_in(self, directory):
        program = find(self.program, self.optional)
        subprocess.run(
            [word.replace("PROGRAM", program) for word in self.build], cwd=directory, check=True, capture_output=True,
            env={**os.environ, "GOCACHE": str(directory / "go"), "GO111MODULE": "off"},
        )

    def service(self, directory, port):
        """Its service, with its files in the directory. "PORT" and "DIR" in them are replaced."""
        self.write_files(directory, port)
        if self.build:
            self.build_in(directory)
        service = {
            "preset": self.preset or "none",
            "command": [self.fill(word, directory, port) for word in [*self.command, *self.hosted]],
            "directory": str(directory),
            "listen": f"{self.host}:{port}",
            "upgrade": {"soak": "100ms"},
        }
        if self.npm:
            service["environment"] = {"NODE_PATH": node_modules(self.npm, self.optional)}
        service.update(self.keys)
        service["drain"] = {"settle": "100ms", **self.keys.get("drain", {})}
        return service

    def start_alone(self, directory):
        """Without tenured, on a port of its own: the process, the port."""
        port = free_port()
        self.write_files(directory, port)
        if self.build:
            self.build_in(directory)
        more = {"NODE_PATH": node_modules(self.npm, self.optional)} if self.npm else {}
        command = [self.fill(word, directory, port) for word in [*self.command, *self.alone]]
        server = Background(command, directory, "alone", env=clean_environment(ALONE=str(port), **more), cwd=directory)
        server.spawn["start_new_session"] = True  # it ends with its group
        return server.start(), port

    def found_version(self):
        if self.npm is None:
            return super().found_version()
        folder = node_modules(self.npm, self.optional)
        return json.loads(Path(f"{folder}/{self.npm}/package.json").read_text())["version"]

    @property
    def handoff(self):
        """For the table."""
        return f"`preset: {self.preset}`" if self.preset else f"`handoff: {self.keys['handoff']}`"


WSGI = """import os
def application(environ, start_response):
    body = f"hello from generation {os.environ.get('TENURE_GENERATION')}\\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = """import os
BODY = f"hello from generation {os.environ.get('TENURE_GENERATION')}\\n".encode()
async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
"""

# Reads its request to the end before it answers.
ASGI_THAT_READS = ASGI.replace("    headers =", "    await receive()\n    headers =")

RACK = """BODY = "hello from generation #{ENV['TENURE_GENERATION']}\\n"
run lambda { |env| [200, {'Content-Type' => 'text/plain', 'Content-Length' => BODY.bytesize.to_s}, [BODY]] }
"""

NGINX = """worker_processes 2;
error_log stderr notice;
pid DIR/nginx.pid;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path DIR/nginx-tmp;
  proxy_temp_path DIR/nginx-tmp;
  fastcgi_temp_path DIR/nginx-tmp;
  uwsgi_temp_path DIR/nginx-tmp;
  scgi_temp_path DIR/nginx-tmp;
  server { listen 127.0.0.1:PORT; location / { return 200 "hello\\n"; } }
}
"""

HAPROXY = """defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend http
  bind 127.0.0.1:PORT
  http-request return status 200 content-type text/plain string "hello\\n"
"""

LIGHTTPD = """server.systemd-socket-activation = "enable"
server.document-root = "DIR"
server.port = PORT
server.errorlog = "/dev/stderr"
index-file.names = ("hello.txt")
"""

NODE = """const http = require('http')
const body = `hello from generation ${process.env.TENURE_GENERATION}\\n`
http.createServer((request, response) => response.end(body)).listen(process.env.ALONE || { fd: 3 })
"""

NODE_CLUSTER = """const cluster = require('cluster')
const http = require('http')
if (cluster.isPrimary) {
  for (let i = 0; i < 2; i++) cluster.fork()
} else {
  const body = `hello from generation ${process.env.TENURE_GENERATION}\\n`
  http.createServer((request, response) => response.end(body)).listen(process.env.ALONE || { fd: 3 })
}
"""

PHP_FPM = """[global]
error_log = /proc/self/fd/2
process_control_timeout = 10s
[www]
listen = 127.0.0.1:PORT
pm = static
pm.max_children = 8
clear_env = no
catch_workers_output = yes
"""

PHP = """<?php echo "hello from generation " . getenv("TENURE_GENERATION") . "\\n";
"""

GO = """package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	listener, err := net.FileListener(os.NewFile(3, "http"))
	if port := os.Getenv("ALONE"); port != "" {
		listener, err = net.Listen("tcp", "127.0.0.1:"+port)
	}
	if err != nil {
		panic(err)
	}
	body := "hello from generation " + os.Getenv("TENURE_GENERATION") + "\\n"
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, body)
	})}
	done := make(chan struct{})
	go func() {
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		<-term
		server.Shutdown(context.Background())
		close(done)
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		panic(err)
	}
	<-done
}
"""

RUST = """use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::io::FromRawFd;

fn serve(mut stream: TcpStream, body: String) {
    let mut text = Vec::new();
    let mut some = [0u8; 4096];
    loop {
        match stream.read(&mut some) {
            Ok(0) | Err(_) => return,
            Ok(n) => text.extend_from_slice(&some[..n]),
        }
        while let Some(end) = text.windows(4).position(|w| w == b"\\r\\n\\r\\n") {
            let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
            let close = head.contains("connection: close");
            let reply = format!(
                "HTTP/1.1 200 OK\\r\\nContent-Length: {}\\r\\n{}\\r\\n{}",
                body.len(), if close { "Connection: close\\r\\n" } else { "" }, body);
            if stream.write_all(reply.as_bytes()).is_err() || close {
                return;
            }
            text.drain(..end + 4);
        }
    }
}

fn main() {
    let listener = match std::env::var("ALONE") {
        Ok(port) => TcpListener::bind(format!("127.0.0.1:{}", port)).unwrap(),
        Err(_) => unsafe { TcpListener::from_raw_fd(3) },
    };
    let body = format!("hello from generation {}\\n", std::env::var("TENURE_GENERATION").unwrap_or_default());
    for stream in listener.incoming().flatten() {
        let body = body.clone();
        std::thread::spawn(move || serve(stream, body));
    }
}
"""

NODE_PACKAGE = {
    "express": """const app = require('express')()
app.get('/', (request, response) => response.send(body))
app.listen(LISTEN)
""",
    "fastify": """const app = require('fastify')()
app.get('/', (request, reply) => reply.send(body))
app.listen(LISTEN)
process.on('SIGTERM', () => app.close())
""",
    "koa": """const app = new (require('koa'))()
app.use((context) => { context.body = body })
app.listen(LISTEN)
""",
}

# fastify wants an object.
NODE_LISTEN = {"fastify": "process.env.ALONE ? { port: process.env.ALONE } : { fd: 3 }"}
NODE_BODY = "const body = `hello from generation ${process.env.TENURE_GENERATION}\\n`\n"

PSGI = """my $body = "hello from generation $ENV{TENURE_GENERATION}\\n";
sub { [200, ['Content-Type' => 'text/plain', 'Content-Length' => length $body], [$body]] };
"""

PGBOUNCER = """[databases]
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = PORT
unix_socket_dir =
auth_type = any
"""

UWSGI = ["uwsgi", "--plugin", "python3", "--processes", "2", "--protocol", "http", "--wsgi-file", "app.py",
         "--disable-logging", "--add-header", "Connection: close"]
UWSGI_ENDS = ["--master", "--hook-master-start", "unix_signal:15 gracefully_kill_them_all"]


def of_npm(package):
    listen = NODE_LISTEN.get(package, "process.env.ALONE || { fd: 3 }")
    text = NODE_BODY + NODE_PACKAGE[package].replace("LISTEN", listen)
    return Server("node", "node", ["node", "server.js"], {"server.js": text}, npm=package, alone=[])


# These come with presets: each of them is upgraded by `make check`.
SERVERS = {
    "gunicorn": Server("gunicorn", "gunicorn", ["gunicorn", "--workers", "2", "app:application"],
        {"app.py": WSGI}),
    "uvicorn": Server("uvicorn", "uvicorn", ["uvicorn", "--no-access-log", "app:application"],
        {"app.py": ASGI}, alone=["--port", "PORT"]),
    "puma": Server("puma", "puma", ["puma", "--quiet", "--threads", "5:5", "config.ru"], {"config.ru": RACK},
        remark="`--threads 5:5`: see below",
        alone=["--bind", "tcp://127.0.0.1:PORT"]),
    "unicorn": Server("unicorn", "unicorn", ["unicorn", "config.ru"], {"config.ru": RACK}),
    "nginx": Server("nginx", "nginx", ["nginx", "-e", "stderr", "-p", "DIR", "-c", "DIR/nginx.conf"],
        {"nginx.conf": NGINX}, tells=False, version=["PROGRAM", "-v"], alone=["-g", "daemon off;"]),
    "haproxy": Server("haproxy", "haproxy", ["haproxy", "-db", "-f", "haproxy.cfg"],
        {"haproxy.cfg": HAPROXY}, tells=False, version=["PROGRAM", "-v"], alone=[]),
    "lighttpd": Server("lighttpd", "lighttpd", ["lighttpd", "-f", "lighttpd.conf"],
        {"lighttpd.conf": LIGHTTPD, "hello.txt": "hello\n"}, tells=False, version=["PROGRAM", "-v"], alone=["-D"]),
    "node": Server("node", "node", ["node", "server.js"], {"server.js": NODE}, alone=[]),
    "node-cluster": Server("node", "node", ["node", "cluster.js"], {"cluster.js": NODE_CLUSTER},
        remark="module cluster, two workers", alone=[]),
    "php-fpm": Server("php-fpm", "php-fpm*", ["PROGRAM", "--fpm-config", "DIR/php-fpm.conf", "-R"],
        {"php-fpm.conf": PHP_FPM, "hello.php": PHP}, protocol="fastcgi",
        remark="FastCGI; a kept connection has a child of its own"),
    "uwsgi": Server("uwsgi", "uwsgi", UWSGI, {"app.py": WSGI},
        remark="`--add-header \"Connection: close\"`: see below"),
    "go": Server("go", "go", ["./server"], {"server.go": GO},
        build=["PROGRAM", "build", "-o", "server", "server.go"], version=["PROGRAM", "version"], optional=True,
        alone=[]),
    "rust": Server("rust", "rustc", ["./server"], {"server.rs": RUST},
        build=["PROGRAM", "-o", "server", "server.rs"], optional=True, alone=[]),
}

# And these without, or of the same presets: `make check-long` upgrades them too.
MORE = {
    "express": of_npm("express"),
    "fastify": of_npm("fastify"),
    "koa": of_npm("koa"),
    "haproxy (fd@)": Server(None, "haproxy", ["haproxy", "-db", "-f", "haproxy.cfg"],
        {"haproxy.cfg": HAPROXY.replace("bind 127.0.0.1:PORT", 'bind "fd@${FD}"')},
        {"handoff": "arguments", "environment": {"FD": "{fd:http}"}, "drain": {"signal": "USR1", "idle_wait": "60s"}},
        tells=False, version=["PROGRAM", "-v"], remark='`bind "fd@${FD}"`'),
    "hypercorn": Server(None, "hypercorn", ["hypercorn", "app:application"],
        {"app.py": ASGI_THAT_READS}, {"handoff": "arguments", "drain": {"idle_wait": "10s"}},
        hosted=["--bind", "fd://{fd:http}"],
        version=[sys.executable, "-c", "import importlib.metadata as m; print(m.version('hypercorn'))"],
        remark="an application that reads its request: see below", alone=["--bind", "127.0.0.1:PORT"]),
    "starman": Server(None, "starman", ["starman", "--workers", "10", "app.psgi"], {"app.psgi": PSGI},
        {"handoff": "server-starter", "drain": {"signal": "QUIT", "idle_wait": "10s"}},
        remark="a kept connection has a worker of its own: more workers than those",
        alone=["--listen", "127.0.0.1:PORT"]),
    "uwsgi (zerg)": Server(None, "uwsgi", [*UWSGI, *UWSGI_ENDS, "--zerg", "{socket:uwsgi-zerg}"], {"app.py": WSGI},
        {"handoff": "uwsgi-zerg", "drain": {"idle_wait": "10s"}}),
    "pgbouncer": Server(None, "pgbouncer", ["PROGRAM", "pgbouncer.ini"], {"pgbouncer.ini": PGBOUNCER},
        {"handoff": "listen-fds", "drain": {"signal": "INT", "idle_wait": "10s"},
         **({"user": "nobody"} if IS_ROOT else {})},
        tells=False, protocol="postgres",
        remark="queries to its own console; it sets TCP_DEFER_ACCEPT, so an upgrade takes 2 s: `tcp_defer_accept = 0`"),
}


@dataclass
class Cannot(Program):
    """A server that takes no socket from anybody, as it comes from Debian."""

    program: str
    command: list
    files: dict
    says: str  # in the log, a pattern
    why: str  # for the table
    version: list = None


APACHE = """ServerRoot DIR
DefaultRuntimeDir DIR
PidFile DIR/apache2.pid
ServerName localhost
ErrorLog /dev/stderr
Listen 127.0.0.1:PORT
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
DocumentRoot DIR
"""

CADDYFILE = """{
  admin off
}
:PORT {
  bind fd/3
  respond "hello"
}
"""

CANNOT = {
    "apache2": Cannot("apache2", ["apache2", "-DFOREGROUND", "-d", "DIR", "-f", "DIR/apache2.conf"],
        {"apache2.conf": APACHE},
        r"make_sock: could not bind to address 127\.0\.0\.1:\d+",
        "Debian's is built without socket activation: it does not look at LISTEN_FDS, and binds its own",
        ["PROGRAM", "-v"]),
    "caddy": Cannot("caddy", ["caddy", "run", "--config", "DIR/Caddyfile"], {"Caddyfile": CADDYFILE},
        r"unsupported network type: fd",
        "2.6 does not know `bind fd/3`; `preset: caddy` is for later ones, by their documentation",
        ["PROGRAM", "version"]),
    "memcached": Cannot("memcached", ["memcached", "-l", "127.0.0.1", "-p", "PORT", "-u", "nobody"], {},
        r"failed to listen on .*: Address already in use",
        "it has no way to be given a socket, and its memory would not survive an upgrade", ["PROGRAM", "--version"]),
}


def config_of(server, daemon):
    """The configuration of a daemon that serves it as "web"; its port."""
    port = free_port()
    return {"services": {"web": server.service(daemon.directory, port)}}, port
