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

CANNOT_HEAD = """
## Those that cannot

They take no listening socket from anybody, as they come from Debian 12. tenured says so when it starts them.

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
    text += CANNOT_HEAD
    for name in CANNOT:
        text += line(name, rows[name]["version"], rows[name]["cannot"])
    return text


def main(directory):
    rows = {}
    for path in Path(directory).glob("*.json"):
        row = json.loads(path.read_text())
        rows[row["name"]] = row
    missing = [name for name in [*SERVERS, *MORE, *CANNOT] if name not in rows]
    if missing:
        sys.exit(f"{directory}: not tested: {', '.join(missing)}; no table of the others")
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
