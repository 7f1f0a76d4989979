# SPDX-License-Identifier: Apache-2.0
"""Multicast and broadcast: no steering reaches them, so their sockets are shared by both generations;
each datagram to the group is answered once, also over an upgrade."""

import json
import sys

import pytest

from harness import Program, free_port, wait_until
from netns import Netns
from udp import listeners, udp_web
from upgrades import quick, web_config

# Sends numbered datagrams to the group, no more under way than `window`, and counts the echoes.
SENDER = """
import json, select, signal, socket, sys, time
host, port, interface, window, live = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
six = ":" in host
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
index = socket.if_nametoindex(interface)
if six:
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
elif host.startswith("2") and not host.endswith(".255"):
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("0.0.0.0") * 2 + index.to_bytes(4, sys.byteorder))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
else:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
sent, seen, generations, waiting, written = 0, {}, {}, {}, 0
deadline = time.monotonic() + 120
while time.monotonic() < deadline and not (stop and not waiting):
    while not stop and len(waiting) < window:
        s.sendto(b"%d" % sent, (host, port))
        waiting[sent] = time.monotonic()
        sent += 1
    if select.select([s], [], [], 0.05)[0]:
        generation, _, _, number = s.recv(2048).decode().split()
        seen[int(number)] = seen.get(int(number), 0) + 1
        generations[generation] = generations.get(generation, 0) + 1
        waiting.pop(int(number), None)
    lost = [n for n, at in waiting.items() if time.monotonic() - at > 5]
    if lost:
        break
    if time.monotonic() - written > 0.02:
        written = time.monotonic()
        with open(live + ".new", "w") as f:
            json.dump(generations, f)
        import os
        os.rename(live + ".new", live)
print(json.dumps({"sent": sent, "lost": len(waiting), "twice": sum(n - 1 for n in seen.values()), "generations": generations}))
"""


@pytest.fixture
def netns():
    with Netns() as one:
        # The kernel's own loopback device takes part in neither without these.
        one.run(["ip", "link", "add", "dummy0", "type", "veth", "peer", "name", "dummy1"])
        for name in ("lo", "dummy0", "dummy1"):
            one.run(["ip", "link", "set", name, "up", "multicast", "on"])
        one.run(["ip", "address", "add", "10.98.0.1/24", "dev", "dummy0"])
        one.run(["ip", "address", "add", "fd00:98::1/64", "dev", "dummy0", "nodad"])
        one.wait_for_routes("dummy0")
        yield one


class Sender(Program):
    def __init__(self, directory, netns, host, port, interface="dummy0", window=8):
        self.live_path = directory / "sender.live"
        command = [sys.executable, "-c", SENDER, host, port, interface, window, self.live_path]
        super().__init__(command, directory, "sender", netns=netns)

    def wait_for(self, generation, count=50):
        def met():
            assert self.is_running(), self.out + self.err
            try:
                return json.loads(self.live_path.read_text()).get(str(generation), 0) >= count
            except FileNotFoundError:
                return False

        wait_until(met, 20, f"{count} echoes of generation {generation}")

    def result(self):
        assert self.stop() == 0, self.err
        return json.loads(self.out.splitlines()[-1])


def check(daemon, netns, tmp_path, host, listen, reason, address):
    """Upgrades while the group is sent to; nothing is lost, nothing is answered twice."""
    port = free_port()
    one = udp_web(daemon, start=False, netns=netns, port=port, workers=2, upgrade=quick("blue-green"))
    web_config(one)["listen"] = {"dns": {"address": f"udp:{address}:{port}", **listen}}
    one.write_config()
    one.start()
    one.wait_serving()
    entry = listeners(one)["dns"]
    assert entry["kind"] == "held" and reason in entry["reason"], entry
    with Sender(tmp_path, netns, host, port) as sender:
        sender.wait_for(1)
        for number in range(2, 7):
            one.upgrade()
            one.wait_generation_gone(number - 1)
            sender.wait_for(number)
        result = sender.result()
    assert (result["lost"], result["twice"]) == (0, 0), result
    assert set(result["generations"]) == {str(n) for n in range(1, 7)}
    assert all(queue["dropped"] == 0 for queue in listeners(one)["dns"]["queue"])


@pytest.mark.root
def test_group(daemon, netns, tmp_path):
    listen = {"multicast": {"group": "239.1.2.3", "interface": "dummy0"}}
    check(daemon, netns, tmp_path, "239.1.2.3", listen, "multicast", "0.0.0.0")


@pytest.mark.root
def test_group_of_ipv6(daemon, netns, tmp_path):
    listen = {"multicast": {"group": "ff05::1:3", "interface": "dummy0"}}
    check(daemon, netns, tmp_path, "ff05::1:3", listen, "multicast", "[::]")


@pytest.mark.root
def test_bound_to_the_group(daemon, netns, tmp_path):
    """The address itself is the group's: only what is sent to it comes."""
    listen = {"multicast": {"group": "239.1.2.3", "interface": "dummy0"}}
    check(daemon, netns, tmp_path, "239.1.2.3", listen, "multicast", "239.1.2.3")


@pytest.mark.root
def test_broadcast(daemon, netns, tmp_path):
    check(daemon, netns, tmp_path, "10.98.0.255", {"broadcast": True}, "broadcast", "0.0.0.0")


@pytest.mark.root
def test_two_groups(daemon, netns, tmp_path):
    groups = [{"group": "239.1.2.3", "interface": "dummy0"}, {"group": "239.1.2.4", "interface": "dummy0"}]
    port = free_port()
    one = udp_web(daemon, start=False, netns=netns, port=port)
    web_config(one)["listen"] = {"dns": {"address": f"udp:0.0.0.0:{port}", "multicast": groups}}
    one.write_config()
    one.start()
    one.wait_serving()
    for host in ("239.1.2.3", "239.1.2.4"):
        with Sender(tmp_path, netns, host, port) as sender:
            sender.live_path.unlink(missing_ok=True)
            sender.wait_for(1)
            result = sender.result()
            assert (result["lost"], result["twice"]) == (0, 0), result
