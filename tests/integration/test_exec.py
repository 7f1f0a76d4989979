# SPDX-License-Identifier: Apache-2.0
"""tenurectl exec: a command with the user, directory, environment and listeners of a service."""

import os
import subprocess

import pytest

from daemon import FAILED, NOT_PERMITTED, worker_service
from harness import TENURECTL, free_port
from upgrades import quick

SETPRIV = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def test_environment(web):
    one = web(environment={"RELEASE": "seven", "EMPTY": ""}, upgrade=quick())
    lines = one.ctl("exec", "web", "--", "sh", "-c", "echo $RELEASE; pwd; echo \"[$LISTEN_FDS]\"").out.splitlines()
    assert lines == ["seven", str(one.directory.resolve()), "[]"]
    one.wait_log("web: its environment asked for by")
    # The exit status is the command's.
    one.ctl("exec", "web", "--", "sh", "-c", "exit 23", check=23)
    # As with env(1): there is none, and there is one that cannot be run.
    for command in ("/nonexistent", "nonexistent-command"):
        nothing = one.ctl("exec", "web", "--", command, check=127)
        assert command in nothing.err
    assert "/etc/passwd" in one.ctl("exec", "web", "--", "/etc/passwd", check=126).err


def test_listener(web):
    one = web(listen={"http": f"127.0.0.1:{free_port()}", "admin": f"127.0.0.1:{free_port()}"}, upgrade=quick())
    script = (
        "import os, socket\n"
        "assert os.environ['LISTEN_PID'] == str(os.getpid())\n"
        "print(os.environ['LISTEN_FDS'], os.environ['LISTEN_FDNAMES'])\n"
        "for fd in range(3, 3 + int(os.environ['LISTEN_FDS'])):\n"
        "    s = socket.socket(fileno=fd)\n"
        "    print(s.getsockname()[1], s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))\n"
    )
    before = one.fd_count()
    lines = one.ctl("exec", "web", "--take", "admin", "--take", "http", "--", "python3", "-c", script).out.splitlines()
    ports = {entry["name"]: entry["address"].rpartition(":")[2] for entry in one.call("Listeners")["listeners"]}
    assert lines == ["2 admin:http", f"{ports['admin']} 1", f"{ports['http']} 1"]
    assert one.fd_count() == before
    unknown = one.ctl("exec", "web", "--take", "dns", "--", "true", check=FAILED)
    assert "no listener dns" in unknown.err


def test_stopped(daemon):
    service = worker_service(f"127.0.0.1:{free_port()}", autostart=False, environment={"RELEASE": "1"})
    one = daemon({"services": {"web": service}})
    assert one.ctl("exec", "web", "printenv", "RELEASE").out == "1\n"


@pytest.mark.root
def test_user(daemon):
    service = worker_service(f"127.0.0.1:{free_port()}", user="nobody", environment={"SECRET": "s3cret"})
    one = daemon({"services": {"web": service}})
    one.wait_serving()
    out = one.ctl("exec", "web", "--", "sh", "-c", "id -u; echo $USER").out
    assert out.split() == ["65534", "nobody"]
    # Who may only look is not told what the environment says.
    command = [*SETPRIV, TENURECTL, "--socket", str(one.socket_path), "exec", "web", "--", "env"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == NOT_PERMITTED and "s3cret" not in done.stdout + done.stderr
    # An operator who is not root, for a service of another user.
    one.config["services"]["web"]["user"] = "daemon"
    one.config["control"]["operators"] = ["nobody"]
    one.write_config()
    one.reload()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == NOT_PERMITTED and "as root" in done.stderr, done
    assert os.geteuid() == 0
