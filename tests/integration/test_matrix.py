# SPDX-License-Identifier: Apache-2.0
"""Every server that is known, upgraded ten times under load: the table of conf/servers.md."""

import pytest

from harness import free_port
from matrix import AT_ONCE, GOES_ON, counts, drain_signal, manner_alone, start_server, upgrade_server, write_row
from servers import CANNOT, MORE, SERVERS, find
from upgrades import IN_FLIGHT

ALL = {**SERVERS, **MORE}
N_UPGRADES = 10
N_KEPT_UPGRADES = 5


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
@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].alone is not None])
def test_kept_for_ever(daemon, load, tmp_path, name):
    """Clients that never end their connections meet the signal: some of their requests are lost where the server, also
    without tenured, closes a kept connection without a word, or never tells its client to go. No other request is."""
    server = ALL[name]
    manner = manner_alone(server, tmp_path, drain_signal(daemon, server))  # nothing else runs meanwhile
    one = start_server(daemon, server, drain={"idle_wait": "300ms", "timeout": "3s", "max_generations": 8})
    running = load(one.port, clients=4, think="2ms", keepalive=True)
    for number in range(2, N_KEPT_UPGRADES + 2):
        running.wait_more(50)
        one.wait_generation_gone(number - 2, timeout=60)
        one.upgrade()
    one.wait_generation_gone(N_KEPT_UPGRADES, timeout=60)
    result = running.stop()
    assert result["failed"] == result["failed_reused"], result.summary()
    assert set(result["failures"]) <= IN_FLIGHT | {"reset-idle"}, result.summary()
    assert result["failed"] == 0 or manner in (AT_ONCE, GOES_ON), (manner, result.summary())
    write_row(f"{name}.kept", **counts(result), manner=manner, met=4 * N_KEPT_UPGRADES)


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
        "environment": {"XDG_DATA_HOME": str(one.directory), "XDG_CONFIG_HOME": str(one.directory)},
        "handoff": ["listen-fds", "stdin", "nginx"], "ready": {"timeout": "5s"}, "restart": {"policy": "never"},
    }}}
    one.write_config()
    one.start()
    one.wait_log(server.says, timeout=20)
    assert "is in service" not in one.log
    write_row(name, version=server.found_version(), cannot=server.why)
