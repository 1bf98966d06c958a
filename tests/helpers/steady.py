"""Calls that talk steadily while something is done to what carries them, and the bot behind it.

Each call sends messages at a fixed rate; the bot sends every one back. What comes back must
be what was sent, in order; how long it took is kept by phase. Two processes of their own, so
that the test's work delays nobody:

    python -m tests.helpers.steady bot
    python -m tests.helpers.steady calls PORT PATH CALLS RATE [AUTHORITY]

With a file of authorities to trust the calls go through TLS.

The second one prints `open` when every call is, begins a phase for each line on its stdin,
and prints a JSON object for an empty line or the end of its stdin.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
PATIENCE = 30.0
# A message: call, number, when it was sent; then bytes that follow from the first two.
HEAD = struct.Struct("!IId")
SIZE = 100
PATTERN = bytes(range(256)) * 2
BINARY = 0x82
# What is under way when the sending ends has so long to come back.
REST = 3.0


def filler(call: int, number: int) -> bytes:
    start = (call * 31 + number * 7) % 256
    return PATTERN[start : start + SIZE - HEAD.size]


@dataclass
class Call:
    """One call, from its client's side."""

    number: int
    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)
    sent: int = 0
    echoed: int = 0

    def send(self, now: float) -> None:
        payload = HEAD.pack(self.number, self.sent, now) + filler(self.number, self.sent)
        self.sent += 1
        # A mask of zeros is a mask; messages are small and read at once, so none is held.
        if self.sock.send(bytes((BINARY, 0x80 | SIZE)) + bytes(4) + payload) != SIZE + 6:
            raise BlockingIOError("a message was taken in part")

    def take(self, now: float, delays: list[float]) -> None:
        """What has come; raises ValueError for anything but the next echo."""
        try:
            data = self.sock.recv(65536)
            while isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
                data += self.sock.recv(65536)
        except ssl.SSLWantReadError:
            return
        if not data:
            raise ConnectionError("the call has ended")
        self.received += data
        while len(self.received) >= SIZE + 2:
            if self.received[:2] != bytes((BINARY, SIZE)):
                raise ValueError(f"no frame of ours: {bytes(self.received[:20])!r}")
            payload = bytes(self.received[2 : SIZE + 2])
            del self.received[: SIZE + 2]
            call, number, sent_at = HEAD.unpack_from(payload)
            if (call, number) != (self.number, self.echoed) or payload[HEAD.size :] != filler(
                call, number
            ):
                raise ValueError(f"message {number} of call {call} for {self.echoed}")
            self.echoed += 1
            delays.append(now - sent_at)


def _calls(port: int, path: str, count: int, rate: float, authority: str = "") -> None:
    tls = ssl.create_default_context(cafile=authority) if authority else None
    poller = select.epoll()
    calls: dict[int, Call] = {}
    for number in range(count):
        sock = _open(port, path, tls)
        calls[sock.fileno()] = Call(number, sock)
        poller.register(sock, select.EPOLLIN)
    turn = deque(calls.values())
    os.set_blocking(0, False)
    poller.register(0, select.EPOLLIN)
    print("open", flush=True)
    phases: dict[str, list[float]] = {"": []}
    delays, cut, wrong = phases[""], 0, list[str]()
    step = 1 / (rate * count)
    due, ends = time.monotonic(), float("inf")
    while (now := time.monotonic()) < ends and turn:
        if ends == float("inf"):
            while due <= now:
                try:
                    turn[0].send(time.monotonic())
                except OSError:
                    pass  # its end is read below
                turn.rotate(-1)
                due += step
        elif all(call.sent == call.echoed for call in turn):
            break
        for fd, _mask in poller.poll(min(max(0.0, due - time.monotonic()), 0.05)):
            if fd == 0:
                line = sys.stdin.readline()
                if line.strip():
                    delays = phases.setdefault(line.strip(), [])
                else:
                    poller.unregister(0)
                    ends = time.monotonic() + REST
                continue
            call = calls[fd]
            try:
                call.take(time.monotonic(), delays)
            except (OSError, ValueError) as error:
                cut += isinstance(error, OSError)
                if isinstance(error, ValueError):
                    wrong.append(str(error))
                poller.unregister(fd)
                turn.remove(call)
    print(
        json.dumps(
            {
                "calls": count,
                "cut": cut,
                "wrong": wrong[:5],
                "messages": sum(call.sent for call in calls.values()),
                "lost": sum(call.sent - call.echoed for call in calls.values()),
                "phases": {name: _figures(each) for name, each in phases.items() if each},
            }
        ),
        flush=True,
    )


def _figures(delays: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(delays)
    at = {name: ordered[int((len(ordered) - 1) * part)] for name, part in PARTS.items()}
    return {"messages": len(ordered), **{name: round(at[name] * 1000, 3) for name in at}}


PARTS = {"p50": 0.5, "p99": 0.99, "worst": 1.0}


def _open(port: int, path: str, tls: ssl.SSLContext | None) -> socket.socket:
    """A call that has been answered."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        sock = tls.wrap_socket(sock, server_hostname="127.0.0.1")
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: Upgrade"]
    lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""]
    sock.sendall("\r\n".join(lines).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(1)  # nothing of the call itself
        if not data:
            break
        head += data
    assert head.startswith(b"HTTP/1.1 101 "), head
    sock.setblocking(False)
    return sock


def _bot() -> None:
    """Say what is asked about readiness, and send every message back."""
    poller = select.epoll()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    poller.register(listener, select.EPOLLIN)
    print(listener.getsockname()[1], flush=True)
    talks: dict[int, tuple[socket.socket, bytearray, list[bool]]] = {}
    while True:
        for fd, _mask in poller.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                talks[sock.fileno()] = (sock, bytearray(), [False])
                poller.register(sock, select.EPOLLIN)
                continue
            sock, received, upgraded = talks[fd]
            try:
                data = sock.recv(65536)
                received += data
                open_still = bool(data) and _answer(sock, received, upgraded)
            except OSError:
                open_still = False
            if not open_still:
                poller.unregister(fd)
                del talks[fd]
                sock.close()


def _answer(sock: socket.socket, received: bytearray, upgraded: list[bool]) -> bool:
    """Whether the connection goes on."""
    if not upgraded[0]:
        head, end, rest = bytes(received).partition(b"\r\n\r\n")
        if not end:
            return True
        key = re.search(rb"(?im)^sec-websocket-key:[ \t]*(.*?)\r?$", head)
        if key is None:
            status = b"200 OK" if head.startswith(b"GET /readyz") else b"404 Not Found"
            sock.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            return False
        accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
        sock.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        upgraded[0] = True
        received[:] = rest
    while len(received) >= SIZE + 6:
        if received[:2] != bytes((BINARY, 0x80 | SIZE)):
            return False
        mask, payload = bytes(received[2:6]), bytes(received[6 : SIZE + 6])
        del received[: SIZE + 6]
        if any(mask):
            plain = int.from_bytes(payload, "big") ^ int.from_bytes(mask * (SIZE // 4), "big")
            payload = plain.to_bytes(SIZE, "big")
        sock.send(bytes((BINARY, SIZE)) + payload)
    return not received or received[0] == BINARY


# What a test uses.


@contextmanager
def _child(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.steady", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@contextmanager
def steady_bot() -> Iterator[str]:
    """The host:port of a bot that sends everything back."""
    with _child("bot") as child:
        assert child.stdout is not None
        yield f"127.0.0.1:{child.stdout.readline().strip()}"


class Steady:
    """Calls that go on; see the module."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def phase(self, name: str) -> None:
        """What comes back from now on belongs to this phase."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{name}\n")
        self._child.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Stop talking; what became of the calls."""
        out, _ = self._child.communicate(timeout=PATIENCE)
        found: dict[str, Any] = json.loads(out)
        return found


@contextmanager
def steady_calls(
    port: int, path: str, calls: int, rate: float, *authority: Path
) -> Iterator[Steady]:
    """Calls that are open and talk, until `end`; through TLS with an authority to trust."""
    with _child("calls", port, path, calls, rate, *authority) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        yield Steady(child)


if __name__ == "__main__":
    if sys.argv[1] == "bot":
        _bot()
    else:
        _calls(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), *sys.argv[6:])
