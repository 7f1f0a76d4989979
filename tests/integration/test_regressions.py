# SPDX-License-Identifier: Apache-2.0
"""What went wrong once."""

import os
import signal
import sys
import time

import pytest

from harness import assert_clean, connect, free_port, http_get, wait_until
from daemon import IN_PROGRESS
from processes import Process
from upgrades import CLIENTS, per_worker, quick, set_release, web_config

# Names its grandchild as the main process and leaves; the child between them lives on.
FOREIGN_MAIN = """
import os, socket, time
def notify(text):
    name = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect("\\0" + name[1:] if name[0] == "@" else name)
        s.send(text.encode())
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    grandchild = os.fork()
    if grandchild == 0:
        time.sleep(0.3)
        os._exit(0)
    os.write(w, str(grandchild).encode())
    time.sleep(20)
    os._exit(0)
notify("MAINPID=" + os.read(r, 20).decode() + "\\nREADY=1")
time.sleep(0.1)
os._exit(0)
"""

# Its main process joins the supervisor's own process group, and ends.
GROUP_OF_OURS = """
import os, socket, time
ours = os.getpgid(os.getppid())
main = os.fork()
if main == 0:
    os.setpgid(0, ours)
    time.sleep(0.3)
    os._exit(0)
name = os.environ["NOTIFY_SOCKET"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.connect("\\0" + name[1:] if name[0] == "@" else name)
    s.send(f"MAINPID={main}\\nREADY=1".encode())
time.sleep(0.1)
os._exit(0)
"""


@pytest.mark.sanitize
@pytest.mark.parametrize("program", [FOREIGN_MAIN, GROUP_OF_OURS], ids=["foreign", "our-group"])
def test_main_process_in_disguise(daemon, program):
    """A main process that is no child of ours cannot be waited for, which ended the event loop; one in
    the group of the daemon took the daemon with it when the group was ended."""
    one = daemon(
        {
            "services": {
                "web": {
                    "command": [sys.executable, "-c", program],
                    "listen": f"127.0.0.1:{free_port()}",
                    "ready": {"by": "notify", "accept": False},
                    "drain": {"settle": "50ms", "timeout": "5s"},
                }
            }
        }
    )
    one.wait_log("started again in")
    assert one.is_running()


def test_children_ignored_by_who_started_us(daemon):
    """With SIGCHLD ignored the kernel reaps, and there is nothing left to wait for."""
    port = free_port()
    one = daemon(start=False, wrap=["/bin/sh", "-c", 'trap "" CHLD; exec "$@"', "sh"])
    one.config = {"services": {"web": {"command": ["/bin/sleep", "0.2"], "listen": f"127.0.0.1:{port}",
                  "ready": {"by": "delay", "delay": "10ms", "accept": False}}}}  # fmt: skip
    one.write_config()
    one.start()
    one.wait_log("started again in")
    assert one.is_running()


@pytest.mark.parametrize("workers", [4, 8])
def test_many_sockets_shut_down_at_once(web, load, workers):
    """Those that were shut down left the kernel's array in an order that counts: in which they are found
    again does not."""
    port = free_port()
    one = web(workers=workers, port=port, listen=per_worker(port), upgrade=quick())
    for number in range(2, 8):
        one.manners.set(f"--if-generation {number} --shutdown-listener 150ms")
        one.upgrade()
        one.wait_serving(generation=number)
        one.wait_generation_gone(number - 1)
        time.sleep(0.4)
        running = load(port, clients=CLIENTS)
        running.wait_more(300)
        assert_clean(running.stop(), 300, generations=[number])


@pytest.mark.parametrize("before, after", [("shared", "per-worker"), ("per-worker", "shared")])
def test_sockets_changed_by_reload(web, load, before, after):
    """Sockets are shared or not for a whole generation, whatever the next one wants."""
    port = free_port()
    listen = {"http": {"address": f"127.0.0.1:{port}", "sockets": before}}
    one = web(workers=4, port=port, listen=listen, upgrade=quick())
    running = load(port, clients=CLIENTS)
    running.wait_for(ok=100)
    web_config(one)["listen"]["http"]["sockets"] = after
    one.write_config()
    one.reload()
    running.wait_for(generation=2)
    one.wait_serving(generation=2)
    one.wait_generation_gone(1)
    assert_clean(running.stop(), 100, generations=[1, 2])
    # Each replaced once: who comes anew gets what its predecessor had.
    for pid in one.pids(generation=2):
        process = Process.read(pid)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda p=process: not p.is_alive(), what="its end")
    one.wait_serving(generation=2)
    running = load(port, clients=CLIENTS, timeout="1s")
    running.wait_more(500)
    assert_clean(running.stop(), 500, generations=[2])
    # And the next release as well.
    running = load(port, clients=CLIENTS, timeout="1s")
    running.wait_for(ok=100)
    one.upgrade()
    running.wait_for(generation=3)
    one.wait_serving(generation=3)
    assert_clean(running.stop(), 100, generations=[2, 3])


def test_queued_restart_is_of_what_serves_then(web):
    """It was queued while generation 1 served; when its turn came, 2 did."""
    one = web(
        "--ready-delay", "300ms", upgrade=quick(overlap="queue"),
        environment={"RELEASE": "old"},
    )  # fmt: skip
    set_release(one, "new")
    one.ctl("upgrade", "web", "--detach")
    one.ctl("restart", "web", "--detach")
    one.wait_serving(generation=3)
    assert http_get(one.port, "/env?RELEASE").text == "new\n"


def test_refused_upgrade_leaves_no_listener(web):
    """An address nobody serves must refuse, not keep its clients waiting."""
    port, more = free_port(), free_port()
    one = web("--ready-delay", "500ms", port=port, listen={"http": f"127.0.0.1:{port}"}, upgrade=quick())
    one.ctl("upgrade", "web", "--detach")
    web_config(one)["listen"]["more"] = f"127.0.0.1:{more}"
    one.write_config()
    one.upgrade(check=IN_PROGRESS)
    with pytest.raises(ConnectionRefusedError):
        connect(more)
    one.wait_serving(generation=2)


def test_unix_socket_shut_down_in_mid_rollout(web):
    """The next generation was given the dead socket too: it is replaced when the rollout is over."""
    one = web("--ready-delay", "800ms", start=False)
    path = one.directory / "web.sock"
    web_config(one).update(listen=f"unix:{path}", upgrade=quick(), ready={"by": "notify"})
    one.write_config()
    one.manners.set("--if-generation 1 --shutdown-listener 1500ms")
    one.start()
    one.wait_serving(generation=1)
    time.sleep(0.3)
    one.ctl("upgrade", "web", "--detach")
    one.wait_log("bound anew")
    one.wait_serving(generation=3)
    assert http_get(f"unix:{path}").status == 200


def test_no_reload_while_stopping(web):
    """A service that is added after TERM would be served for ever."""
    port = free_port()
    one = web("--term-delay", "700ms")
    one.config["services"]["more"] = {**web_config(one), "listen": f"127.0.0.1:{port}"}
    one.write_config()
    os.kill(one.pid, signal.SIGTERM)
    os.kill(one.pid, signal.SIGHUP)
    assert one.wait(10) == 0
