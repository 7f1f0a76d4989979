# SPDX-License-Identifier: Apache-2.0
"""What a unit forbids looks like any other refusal of the kernel: the message names the directive."""

import re
import time

import pytest

import machine
from daemon import worker_service
from harness import free_port, http_get

def start(unit, service, name=None, drop_in=None):
    """With a second service, so that there is a daemon that can be asked."""
    one = unit(name=name, start=False)
    one.port = free_port()
    one.config = {"services": {"web": service, "other": worker_service(f"127.0.0.1:{one.port}")}}
    one.write_config()
    if drop_in:
        machine.drop_in(one.unit, f"[Service]\n{drop_in}\n")
    one.start()
    assert http_get(one.port).status == 200
    return one


def failure(one):
    deadline = time.monotonic() + 10
    while not (found := one.service("web").get("lastFailure")):
        assert time.monotonic() < deadline, one.log
        time.sleep(0.05)
    return found["reason"]


@pytest.mark.parametrize(
    "keys, drop_in, expected",
    [
        ({"output": "/usr/web.log"}, None, r"/usr/web.log: Read-only.*ReadWritePaths=/usr"),
        ({"listen": "unix:/etc/web.sock"}, None, r"Read-only.*ReadWritePaths=/etc"),
        ({"listen": "unix:/data/web.sock"}, None, r"no directory /data|Read-only"),
        ({"user": "nobody", "group": "nogroup"}, "CapabilityBoundingSet=~CAP_SETUID CAP_SETGID",
         r"CapabilityBoundingSet=.*CAP_SETUID"),
        ({"limits": {"nofile": 2000000}}, None, r"LimitNOFILE=.*CAP_SYS_RESOURCE"),
        ({"listen": {"http": {"address": "unix:/run/web.sock", "owner": "nobody"}}},
         "CapabilityBoundingSet=~CAP_CHOWN", r"CapabilityBoundingSet=.*CAP_CHOWN"),
        ({"listen": {"http": {"address": 0, "debug": True}}}, None, r"CapabilityBoundingSet=CAP_NET_ADMIN"),
        ({"listen": 81}, "CapabilityBoundingSet=~CAP_NET_BIND_SERVICE",
         r"CapabilityBoundingSet=CAP_NET_BIND_SERVICE"),
        ({"command": ["/home/web/bin/web"]}, "ProtectHome=yes", r"ProtectHome="),
        ({"directory": "/tmp/web"}, "PrivateTmp=yes", r"PrivateTmp="),
    ],
)
def test_messages(unit, keys, drop_in, expected):
    keys = {**keys}
    listen = keys.pop("listen", free_port())
    if isinstance(listen, dict) and listen["http"]["address"] == 0:
        listen["http"]["address"] = f"127.0.0.1:{free_port()}"
    service = {**worker_service(listen), **keys}
    one = start(unit, service, drop_in=drop_in)
    reason = failure(one)
    assert re.search(expected, reason), reason
    assert "web" in one.log


def test_address_family(unit):
    one = start(unit, worker_service(f"[::1]:{free_port()}"),
                drop_in="RestrictAddressFamilies=\nRestrictAddressFamilies=AF_INET AF_UNIX AF_NETLINK")
    assert "RestrictAddressFamilies=" in failure(one)


def test_another_user_without_root(unit):
    """A service of a hardened unit has no user of its own."""
    one = start(unit, worker_service(free_port(), user="nobody", group="nogroup"), name="hardened")
    reason = failure(one)
    assert "User=" in reason and 'leave "user"' in reason, reason


def test_control_socket(unit):
    one = unit(name="hardened", start=False)
    command = f"{machine.program()} -c {one.config_path} --socket /srv/control.sock"
    machine.drop_in(one.unit, f"[Service]\nExecStart=\nExecStart={command}\n")
    one.config = {"services": {"web": worker_service(free_port())}}
    one.write_config()
    assert one.systemctl("start", check=None).returncode != 0
    assert "/srv/control.sock" in one.log and "ReadWritePaths=/srv" in one.log, one.log
