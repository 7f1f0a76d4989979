# SPDX-License-Identifier: Apache-2.0
"""Every server that is known, upgraded ten times under load: the table of conf/servers.md."""

import pytest

from harness import free_port
from matrix import counts, upgrade_server, write_row
from servers import CANNOT, MORE, SERVERS, find

ALL = {**SERVERS, **MORE}
N_UPGRADES = 10


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_ten_upgrades(daemon, load, name):
    server = ALL[name]
    closing, keeping = upgrade_server(daemon, load, server, N_UPGRADES)
    write_row(
        name, preset=server.preset, handoff=server.handoff, version=server.found_version(),
        upgrades=N_UPGRADES, closing=counts(closing), keeping=counts(keeping), remark=server.remark,
    )


@pytest.mark.long
@pytest.mark.parametrize("name", CANNOT)
def test_cannot(daemon, name):
    """It is given a socket in every way that does without its help, listens nowhere but on its own, and says so."""
    server, port = CANNOT[name], free_port()
    find(server.program)
    one = daemon(start=False)
    server.write_files(one.directory, port)
    command = [server.fill(word, one.directory, port) for word in server.command]
    one.config = {"services": {"web": {
        "preset": "none", "command": command, "directory": str(one.directory), "listen": f"127.0.0.1:{port}",
        "handoff": ["listen-fds", "stdin", "nginx"], "ready": {"timeout": "5s"}, "restart": {"policy": "never"},
    }}}
    one.write_config()
    one.start()
    one.wait_log(server.says, timeout=20)
    assert "is in service" not in one.log
    write_row(name, version=server.found_version(), cannot=server.why)
