# SPDX-License-Identifier: Apache-2.0
"""Real servers, each with its own preset and the least that it needs besides: what the tests of presets
start. Every one answers "hello from generation N", or "hello" where its configuration has no variables."""

import glob
import os
import shutil
import subprocess
from dataclasses import dataclass, field

import pytest

from harness import free_port


def find(program, optional=False):
    """The path of a server, whose name may be a pattern. In CI all of them are there but for large ones;
    elsewhere a missing one is said."""
    folders = (os.environ["PATH"] + ":/usr/local/sbin:/usr/sbin:/sbin").split(":")
    found = sorted(path for folder in folders for path in glob.glob(f"{folder}/{program}"))
    path = shutil.which(found[-1]) if found else None
    if path is None:
        if os.environ.get("CI") == "true" and not optional:
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return path


@dataclass
class Server:
    preset: str
    program: str
    command: list
    files: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)
    tells: bool = True  # the generation
    host: str = "127.0.0.1"
    build: list = field(default_factory=list)
    fastcgi: bool = False
    optional: bool = False  # not needed to test everything that is ours

    def service(self, directory, port):
        """Its service, with its files in the directory. "PORT" and "DIR" in them are replaced."""

        program = find(self.program, self.optional)

        def fill(text):
            text = text.replace("PORT", str(port)).replace("DIR", str(directory))
            return text.replace("PROGRAM", program)

        for name, text in self.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fill(text))
            path.chmod(0o755)
        if self.build:
            subprocess.run(
                [fill(word) for word in self.build], cwd=directory, check=True, capture_output=True,
                env={**os.environ, "GOCACHE": str(directory / "go"), "GO111MODULE": "off"},
            )
        service = {
            "preset": self.preset,
            "command": [fill(word) for word in self.command],
            "directory": str(directory),
            "listen": f"{self.host}:{port}",
            "upgrade": {"soak": "100ms"},
            "drain": {"settle": "100ms"},
        }
        service.update(self.keys)
        return service


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
http.createServer((request, response) => response.end(body)).listen({ fd: 3 })
"""

NODE_CLUSTER = """const cluster = require('cluster')
const http = require('http')
if (cluster.isPrimary) {
  for (let i = 0; i < 2; i++) cluster.fork()
} else {
  const body = `hello from generation ${process.env.TENURE_GENERATION}\\n`
  http.createServer((request, response) => response.end(body)).listen({ fd: 3 })
}
"""

PHP_FPM = """[global]
error_log = /proc/self/fd/2
process_control_timeout = 10s
[www]
listen = 127.0.0.1:PORT
pm = static
pm.max_children = 2
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
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    let body = format!("hello from generation {}\\n", std::env::var("TENURE_GENERATION").unwrap());
    for stream in listener.incoming().flatten() {
        let body = body.clone();
        std::thread::spawn(move || serve(stream, body));
    }
}
"""

# uwsgi's own HTTP ends each connection, and does not say so: a client that sends its next request meanwhile
# is reset, with tenured or without.
SERVERS = {
    "gunicorn": Server("gunicorn", "gunicorn", ["gunicorn", "--workers", "2", "app:application"],
        {"app.py": WSGI}),
    "uvicorn": Server("uvicorn", "uvicorn", ["uvicorn", "--no-access-log", "app:application"],
        {"app.py": ASGI}),
    "puma": Server("puma", "puma", ["puma", "--quiet", "config.ru"], {"config.ru": RACK}),
    "unicorn": Server("unicorn", "unicorn", ["unicorn", "config.ru"], {"config.ru": RACK}),
    "nginx": Server("nginx", "nginx", ["nginx", "-e", "stderr", "-p", "DIR", "-c", "DIR/nginx.conf"],
        {"nginx.conf": NGINX}, tells=False),
    "haproxy": Server("haproxy", "haproxy", ["haproxy", "-db", "-f", "haproxy.cfg"],
        {"haproxy.cfg": HAPROXY}, tells=False),
    "lighttpd": Server("lighttpd", "lighttpd", ["lighttpd", "-f", "lighttpd.conf"],
        {"lighttpd.conf": LIGHTTPD, "hello.txt": "hello\n"}, tells=False),
    "node": Server("node", "node", ["node", "server.js"], {"server.js": NODE}),
    "node-cluster": Server("node", "node", ["node", "cluster.js"], {"cluster.js": NODE_CLUSTER}),
    "php-fpm": Server("php-fpm", "php-fpm*", ["PROGRAM", "--fpm-config", "DIR/php-fpm.conf", "-R"],
        {"php-fpm.conf": PHP_FPM, "hello.php": PHP}, fastcgi=True),
    "uwsgi": Server("uwsgi", "uwsgi", ["uwsgi", "--plugin", "python3", "--processes", "2",
        "--protocol", "http", "--wsgi-file", "app.py", "--disable-logging", "--add-header", "Connection: close"],
        {"app.py": WSGI}),
    "go": Server("go", "go", ["./server"], {"server.go": GO},
        build=["go", "build", "-o", "server", "server.go"], optional=True),
    "rust": Server("rust", "rustc", ["./server"], {"server.rs": RUST},
        build=["rustc", "-o", "server", "server.rs"], optional=True),
}


def config_of(name, daemon):
    """The configuration of a daemon that serves it as "web"; its port."""
    port = free_port()
    return {"services": {"web": SERVERS[name].service(daemon.directory, port)}}, port
