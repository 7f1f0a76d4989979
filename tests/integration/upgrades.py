# SPDX-License-Identifier: Apache-2.0
"""What the tests of upgrades share: quick configurations, and what may be said of a load's result."""

from harness import assert_clean

# What clients see of a process that dies: the requests it had accepted, and nothing else.
IN_FLIGHT = {"reset-before-reply", "reset-mid-reply", "eof-before-reply", "short-reply"}

CLIENTS = 8


def quick(strategy="blue-green", **more):
    """An upgrade that does not wait for anything but readiness."""
    return {"strategy": strategy, "soak": "0s", **more}


def per_worker(port, host="127.0.0.1"):
    """`listen` of one TCP listener with a socket for each worker."""
    return {"http": {"address": f"{host}:{port}", "sockets": "per-worker"}}


def web_config(daemon):
    return daemon.config["services"]["web"]


def set_release(daemon, release):
    """A new release as the configuration shows it: /env?RELEASE tells which one answers."""
    web_config(daemon).setdefault("environment", {})["RELEASE"] = str(release)
    daemon.write_config()


def set_drain(daemon, **keys):
    web_config(daemon)["drain"].update(keys)
    daemon.write_config()


def generation_times(result):
    return {int(number): times for number, times in result["generation_times"].items()}


def assert_only_in_flight(result, n_killed, clients=CLIENTS):
    """Only requests that a killed process had accepted failed: at most one of each client a kill."""
    assert set(result["failures"]) <= IN_FLIGHT, result.summary()
    assert result["failed"] <= n_killed * clients, result.summary()
    assert result["not_started"] == 0, result.summary()


def assert_in_order(result, slack_usec=100_000):
    """Each generation got its last new connection when the next one got its first, but for what a busy
    machine does between a client's look at the clock and its connect()."""
    times = generation_times(result)
    for number in sorted(times)[1:]:
        if number - 1 not in times:
            continue
        late = times[number - 1]["last_connect_usec"] - times[number]["first_connect_usec"]
        assert late <= slack_usec, f"generation {number - 1} by {late} us: {times}"


def upgrade_many(daemon, load, n, service="web", **expected):
    """n upgrades, each of which has to answer before the next one begins. Returns the load's result, in
    which every generation from the first one on must be."""
    first = daemon.service(service)["generation"]
    for number in range(first + 1, first + n + 1):
        # With very many connections that were, looking whether an old one still has some takes longer
        # than an upgrade does; and only so many may live at once.
        daemon.wait_generation_gone(number - 4, service)
        daemon.upgrade(service)
        load.wait_for(generation=number)
    daemon.wait_serving(service, first + n)
    load.wait_more(200)  # that each of its workers has some
    result = load.stop()
    assert_clean(result, generations=range(1, first + n + 1), **expected)
    return result
