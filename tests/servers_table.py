#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""usage: servers_table.py DIRECTORY > conf/servers.md

The table of servers, of what tests/integration/test_matrix.py has written into the directory. It fails when a server
is not in there: a table of some of them is none."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "integration"))

from servers import CANNOT, MORE, SERVERS  # pylint: disable=wrong-import-position

HEAD = """# Servers

Real servers, each started by tenured from its preset (`tenurectl presets`) or from what is written out here, and upgraded {n} times
under two loads at once: clients that make a connection for each request, and clients that keep one for 50 requests.
A request failed if it was refused, reset, cut short, answered wrongly or not at all within 5 s; also when a connection was reset between two
requests, and when it was closed while the request was on its way. *Closed while idle* counts kept connections that the server ended
between two requests, without having said so: no request failed by that, the client's next one went to a new connection.

`make servers-table` runs them all and writes this page.

| server | version | from | upgrades | requests, a connection each | requests, kept connections | failed | closed while idle | remarks |
|---|---|---|---:|---:|---:|---:|---:|---|
"""

KEPT_HEAD = """
## Clients that never leave

Whoever keeps a connection for longer than `drain.idle_wait` meets the signal with it. Up to {met} connections of clients that ask every 2 ms and
never leave did so here, by `idle_wait: 300ms` (presets have 10 to 60 s). *Alone* is what the server itself, started without tenured, does with a
connection nobody asks on when it gets the signal. To close such a connection at once loses a request that is on its way to it: most clients make it
again, as HTTP lets them (RFC 9112, 9.3.1), but here each counts; where few are lost it is a matter of luck how many. No other request was: that is
what the test asks for. A server that does not handle its signal, as the programs for node, express, koa and rust here, loses a request of many such
connections. None is lost when `idle_wait` is long enough for clients to leave: by themselves, or because the server ends a kept connection after
so many requests or so long a time.

| server | alone | requests | lost | of connections, at most |
|---|---|---:|---:|---:|
"""

FAULTS = """
## Faults of their own

Each is shown without tenured by tests/integration/test_server_faults.py.

- **uwsgi** 2.0, as an HTTP server, closes a connection after its answer and does not say so in it. A client that keeps connections may send its next
  request into that. `--add-header "Connection: close"` says it.
- **hypercorn** 0.13 does the same when the application answers before it has read the request to its end (`await receive()`).
- **puma** 5.6 with fewer threads at first than it may have (`--threads 0:5`, its default) does not accept one of four connections for more than 5 s
  while the other three are kept and busy. `--threads 5:5` is as it should be.
"""

CANNOT_HEAD = """
## Those that cannot

They take no listening socket from anybody, as they come from Debian 12. The service does not get ready.

| server | version | why |
|---|---|---|
"""


def remarks(row):
    closing, keeping = row["closing"], row["keeping"]
    words = [row["remark"]] if row["remark"] else []
    # A connection for each request, although the clients would have kept them.
    if keeping["connections"] > keeping["requests"] * 0.9 and keeping["idle_closed"] == 0:
        words.append("ends each connection with its answer, and says so")
    assert closing["failed"] == 0 and keeping["failed"] == 0, row
    return "; ".join(words)


def line(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def table(rows):
    text = HEAD.format(n=rows[next(iter(SERVERS))]["upgrades"])
    for name in [*SERVERS, *MORE]:
        row = rows[name]
        closing, keeping = row["closing"], row["keeping"]
        text += line(
            name, row["version"], row["handoff"], row["upgrades"], closing["requests"], keeping["requests"],
            closing["failed"] + keeping["failed"], keeping["idle_closed"], remarks(row),
        )
    kept = {name: rows[f"{name}.kept"] for name in [*SERVERS, *MORE] if {**SERVERS, **MORE}[name].alone is not None}
    text += KEPT_HEAD.format(met=next(iter(kept.values()))["met"])
    for name, row in kept.items():
        text += line(name, row["manner"], row["requests"], row["failed"], row["met"])
    text += FAULTS + CANNOT_HEAD
    for name in CANNOT:
        text += line(name, rows[name]["version"], rows[name]["cannot"])
    return text


def main(directory):
    rows = {}
    for path in Path(directory).glob("*.json"):
        row = json.loads(path.read_text())
        rows[row["name"]] = row
    wanted = [*SERVERS, *MORE, *CANNOT]
    wanted += [f"{name}.kept" for name, server in {**SERVERS, **MORE}.items() if server.alone is not None]
    missing = [name for name in wanted if name not in rows]
    if missing:
        sys.exit(f"{directory}: not tested: {', '.join(missing)}; no table of the others")
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
