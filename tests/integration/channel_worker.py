# SPDX-License-Identifier: Apache-2.0
"""A worker that speaks to its channel without libtenure, in the bytes of wire/channel.h. Any request is
answered by what it knows, as JSON; words behind "?" have it do things first. Arguments are manners."""

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import threading
import time

MANNERS = set(sys.argv[1:])
ACCEPTS = "drain listeners ping descriptors"

notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
channel = socket.socket(fileno=int(os.environ["TENURE_CHANNEL"]))
names = os.environ["LISTEN_FDNAMES"].split(":")
n_listeners = int(os.environ["TENURE_LISTENERS"])
assert os.environ["LISTEN_PID"] == str(os.getpid())
assert int(os.environ["LISTEN_FDS"]) == len(names) >= n_listeners
assert channel.type == socket.SOCK_SEQPACKET

listeners = {names[i]: socket.socket(fileno=3 + i) for i in range(n_listeners)}
given = [(names[i], 3 + i) for i in range(n_listeners, len(names))]
arrived, messages, pings = [], [], 0
waiting = selectors.DefaultSelector()
kept = []


def text_of(fd):
    try:
        return os.pread(fd, 100, 0).decode()
    except OSError:
        return "socket"


def say(text, fds=()):
    socket.send_fds(channel, [f"tenure/1 {text}\n".encode()], list(fds))


def memfd(text):
    fd = os.memfd_create(text)
    os.write(fd, text.encode())
    return fd


def do(word):
    verb, _, value = word.partition("=")
    if verb == "store":
        fd = memfd(value)
        say(f"store\nname={value}", [fd])
        os.close(fd)
    elif verb == "notify":
        fd = memfd(value)
        socket.send_fds(notify, [f"FDSTORE=1\nFDNAME={value}".encode()], [fd])
        os.close(fd)
    elif verb == "unstore":
        say(f"unstore\nname={value}")
    elif verb == "pairs":
        pairs = [socket.socketpair() for _ in range(int(value))]
        kept.extend(b for _, b in pairs)
        fds = [a.fileno() for a, _ in pairs]
        for at in range(0, len(fds), 253):
            say("store\nname=pair", fds[at : at + 253])
    elif verb == "linger":  # a connection whose last close waits for its client, which does not read
        with socket.create_server(("127.0.0.1", 0)) as server:
            kept.append(socket.create_connection(server.getsockname()))
            connection, _ = server.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, int(value)))
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection.send(bytes(65536))
        say("store\nname=linger", [connection.fileno()])
        threading.Thread(target=connection.close).start()
    elif verb == "hang":
        time.sleep(float(value))
    elif verb == "raw":
        channel.send(bytes.fromhex(value))


def answer(request, name):
    for word in request.split("?")[1].split("&") if "?" in request else []:
        do(word)
    return json.dumps(
        {
            "pid": os.getpid(),
            "generation": int(os.environ["TENURE_GENERATION"]),
            "worker": int(os.environ["TENURE_WORKER"]),
            "by": name,
            "listeners": sorted(listeners),
            "given": [[name, text_of(fd)] for name, fd in given],
            "arrived": [[name, text_of(fd)] for name, fd in arrived],
            "messages": messages,
            "pings": pings,
        }
    )


def serve(name):
    try:
        client, _ = listeners[name].accept()
    except BlockingIOError:
        return
    with client:
        client.setblocking(True)
        request = client.recv(4096).decode()
        if request:
            body = answer(request.split(" ")[1], name)
            generation = os.environ["TENURE_GENERATION"]
            head = f"Content-Length: {len(body)}\r\nX-Tenure-Generation: {generation}\r\nConnection: close"
            client.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}".encode())


def add(name, listener):
    listener.setblocking(False)
    listeners[name] = listener
    waiting.register(listener, selectors.EVENT_READ, name)


def handle(text, fds):
    """Done when it returns True."""
    global pings
    lines = text.split("\n")
    kind, values = lines[0].split(" ")[1], dict(line.split("=", 1) for line in lines[1:] if line)
    name = values.get("name")
    if kind != "ping":
        messages.append([kind, name])
    if kind == "ping" and "silent" not in MANNERS:
        pings += 1
        say(f"pong\nid={values['id']}")
    elif kind == "add" and "full" in MANNERS and sum(m == ["add", name] for m in messages) < 3:
        os.close(fds[0])  # as if there was no room for it
        say(f"closed\nname={name}")
    elif kind == "add":
        add(name, socket.socket(fileno=fds[0]))
        say(f"taken\nname={name}")
    elif kind == "remove":
        waiting.unregister(listeners[name])
        listeners.pop(name).close()
        say(f"closed\nname={name}")
    elif kind == "stored":
        arrived.extend((name, fd) for fd in fds)
    return kind == "drain"


def read_channel():
    data, fds, _, _ = socket.recv_fds(channel, 4096, 253)
    if not data:
        waiting.unregister(channel)
        messages.append(["end", None])
        return False
    return handle(data.decode(), fds)


for name, listener in list(listeners.items()):
    if "skips" not in MANNERS or name == "http":
        add(name, listener)
if "flood" in MANNERS:
    null = os.open("/dev/null", os.O_RDONLY)
    channel.setblocking(False)
    for i in range(20000):
        try:
            channel.send(b"\xff" * (i % 4000 + 1))
            socket.send_fds(channel, [b"tenure/1 store\nname=x\n"], [null] * 100)
        except OSError:
            time.sleep(0.001)
    channel.setblocking(True)
if "again" in MANNERS and os.fork() == 0:
    crowd = [memfd(str(i)) for i in range(1000)]
    while True:
        for at in range(0, 1000, 250):
            socket.send_fds(channel, [b"tenure/1 store\nname=x\n"], crowd[at : at + 250])
            socket.send_fds(notify, [b"FDSTORE=1\nFDNAME=x"], crowd[at : at + 250])
if "newer" in MANNERS:
    channel.send(b"tenure/2 hello\nversion=2\naccepts=drain\n")
elif "mute" not in MANNERS:
    say(f"hello\nversion={7 if 'both' in MANNERS else 1}\naccepts={ACCEPTS}")
if not MANNERS & {"mute", "deaf"}:
    waiting.register(channel, selectors.EVENT_READ, None)
notify.send(b"READY=1")
over = False
while not over:
    for key, _ in waiting.select():
        if key.data is None:
            over |= read_channel()
        elif key.data in listeners:
            serve(key.data)
