# SPDX-License-Identifier: Apache-2.0
"""A program with libtenure under systemd itself, without tenured: it takes systemd's socket, says that it is
ready, and what it stores is systemd's to keep over a restart."""

import re
import shutil

import machine
import pytest
from harness import connect, free_port, http_get, wait_until

SERVICE = """[Service]
Type=notify
NotifyAccess=main
ExecStart={program}
FileDescriptorStoreMax=100
"""
SOCKET = "[Socket]\nListenStream=127.0.0.1:{port}\n"


def ask(client):
    """How many requests were answered, ever."""
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    text = b""
    while not re.search(rb"request (\d+)\n", text):
        more = client.recv(4096)
        assert more, f"the connection ended after {text!r}"
        text += more
    assert b"generation 0," in text
    return int(re.search(rb"request (\d+)\n", text)[1])


@pytest.fixture
def port(clean_machine):  # pylint: disable=unused-argument
    program, number = machine.TOOLS / "epoll", free_port()
    shutil.copy(machine.BUILD / "examples" / "epoll", program)
    machine.write_unit("test-epoll.service", SERVICE.format(program=program))
    machine.write_unit("test-epoll.socket", SOCKET.format(port=number))
    machine.systemctl("start", "test-epoll.socket")
    return number


@pytest.mark.sanitize
def test_under_systemd(port):
    assert machine.show("test-epoll.service", "ActiveState") == "inactive"
    assert "request 1\n" in http_get(port).text
    # Type=notify: it has said so.
    wait_until(lambda: machine.show("test-epoll.service", "ActiveState") == "active", 20, "READY=1")
    clients = [connect(port, timeout=20) for _ in range(5)]
    counts = [ask(client) for client in clients]
    pid = machine.show("test-epoll.service", "MainPID")
    for _ in range(2):
        # Its memory, and every client that is connected, wait in systemd's store.
        machine.systemctl("restart", "test-epoll.service")
        counts += [ask(client) for client in clients]
    assert counts == list(range(2, 17))
    assert machine.show("test-epoll.service", "MainPID") != pid
    for client in clients:
        client.close()
    machine.systemctl("stop", "test-epoll.service", "test-epoll.socket")
