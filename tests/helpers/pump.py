"""A pump driven by hand over real socket pairs: scripted peers, a settable clock, frames."""

from __future__ import annotations

import gc
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from relay.pump.channel import Adopt, Finished
from relay.pump.pump import Pump
from tests.helpers.pollers import POLLERS, ready

MASK = b"\x11\x22\x33\x44"
BINARY, CLOSE = 0x2, 0x8
# Turns after which a pump that still finds events is said to spin: far more than any
# transfer of these tests takes.
MOST_TURNS = 20_000
# How long silence is listened to: the kernel may deliver over loopback a moment later.
PAUSE = 0.0005


class Frame(NamedTuple):
    """One frame as the wire shows it, unmasked."""

    opcode: int
    payload: bytes
    masked: bool
    final: bool
    start: int

    @property
    def code(self) -> int:
        return int.from_bytes(self.payload[:2], "big")

    @property
    def reason(self) -> str:
        return self.payload[2:].decode()


def frame(
    payload: bytes, *, masked: bool = False, opcode: int = BINARY, final: bool = True
) -> bytes:
    """A frame's bytes (RFC 6455 section 5.2)."""
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes((opcode | 0x80 * final, bit | size))
    elif size < 65536:
        head = struct.pack("!BBH", opcode | 0x80 * final, bit | 126, size)
    else:
        head = struct.pack("!BBQ", opcode | 0x80 * final, bit | 127, size)
    if not masked:
        return head + payload
    return head + MASK + _apply_mask(payload, MASK)


def close(code: int | None, reason: str = "", *, masked: bool = False) -> bytes:
    """A Close frame's bytes; None is a Close without a code."""
    payload = b"" if code is None else code.to_bytes(2, "big") + reason.encode()
    return frame(payload, masked=masked, opcode=CLOSE)


def split(data: bytes | bytearray) -> tuple[list[Frame], bytes]:
    """The whole frames of a stream, and what is left."""
    frames, data, start = [], bytes(data), 0
    while len(data) - start >= 2:
        first, second = data[start], data[start + 1]
        size, at = second & 0x7F, start + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        mask = data[at : at + 4] if second & 0x80 else b""
        at += len(mask)
        if at + size > len(data):
            break
        payload = _apply_mask(data[at : at + size], mask) if mask else data[at : at + size]
        frames.append(Frame(first & 0x0F, payload, bool(mask), bool(first & 0x80), start))
        start = at + size
    return frames, data[start:]


def _apply_mask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def tcp_pair(buffer: int = 0) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection over loopback, with buffers of `buffer` bytes or so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        near = socket.socket()
        if buffer:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        near.connect(listener.getsockname())
        far, _address = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    return near, far


def unix_pair(buffer: int = 0) -> tuple[socket.socket, socket.socket]:
    """Both ends of a Unix stream connection."""
    near, far = socket.socketpair()
    if buffer:
        for sock in (near, far):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    return near, far


PAIRS: dict[str, Callable[[int], tuple[socket.socket, socket.socket]]] = {
    "tcp": tcp_pair,
    "unix": unix_pair,
}


class Peer:
    """A client or a bot: writes as fast as it may, collects what comes and how it ended.

    Attributes:
        end: "" while the other side may still send, then "fin" or "reset".
        reading: set to False to stall.
    """

    def __init__(self, sock: socket.socket, *, masked: bool) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.masked = masked
        self.received = bytearray()
        self.unsent = b""
        self.end = ""
        self.reading = True

    def send(self, data: bytes) -> None:
        self.unsent += data
        self.push()

    def say(self, payload: bytes) -> None:
        self.send(frame(payload, masked=self.masked))

    def close_frame(self, code: int | None, reason: str = "") -> None:
        self.send(close(code, reason, masked=self.masked))

    def push(self) -> bool:
        before = len(self.unsent)
        try:
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.unsent = b""
        return len(self.unsent) < before

    def poll(self) -> bool:
        """Write and read what is possible; whether anything moved."""
        if self.sock.fileno() < 0:
            return False
        moved = self.push()
        while self.reading and not self.end:
            try:
                data = self.sock.recv(262144)
            except BlockingIOError:
                break
            except OSError:
                self.end = "reset"
                return True
            if not data:
                self.end = "fin"
            self.received += data
            moved = True
        return moved

    def shut(self) -> None:
        """Send FIN and go on reading."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the pump has reset this side already

    def reset(self) -> None:
        """Vanish with a reset."""
        if self.sock.fileno() >= 0 and self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def frames(self) -> list[Frame]:
        """What came, as frames; nothing may be left over."""
        frames, rest = split(self.received)
        assert not rest, f"inside a frame: {rest[:20]!r}"
        return frames

    def payloads(self) -> list[bytes]:
        return [each.payload for each in self.frames() if each.opcode != CLOSE]

    def closes(self) -> list[tuple[int, str]]:
        """Codes and reasons of the Close frames that came, masked as they must be."""
        frames = self.frames()
        assert all(each.opcode != CLOSE for each in frames[:-1]), "something after a Close"
        assert all(each.masked is not self.masked for each in frames)
        return [(each.code, each.reason) for each in frames if each.opcode == CLOSE]


@dataclass
class Call:
    """A tunnel's two peers."""

    name: str
    client: Peer
    bot: Peer


@dataclass
class Rig:
    """A pump, its clock, its calls and the reports it has given."""

    pump: Pump
    now: float = 1000.0
    calls: list[Call] = field(default_factory=list)
    reports: list[Finished] = field(default_factory=list)

    def call(self, name: str = "call", kind: str = "tcp", buffer: int = 0, **adopt: Any) -> Call:
        """A new tunnel; `buffer` bounds the sockets' buffers."""
        (client, downstream), (bot, upstream) = PAIRS[kind](buffer), PAIRS[kind](buffer)
        call = Call(name, Peer(client, masked=True), Peer(bot, masked=False))
        self.adopt(call, downstream, upstream, **adopt)
        return call

    def call_from_lost_client(self, said: bytes, **adopt: Any) -> Call:
        """A tunnel whose client has said a last thing and reset before the adoption."""
        (client, downstream), (bot, upstream) = tcp_pair(), tcp_pair()
        call = Call("call", Peer(client, masked=True), Peer(bot, masked=False))
        call.client.send(said)
        call.client.reset()
        self.adopt(call, downstream, upstream, **adopt)
        return call

    def adopt(
        self, call: Call, downstream: socket.socket, upstream: socket.socket, **fields: Any
    ) -> None:
        self.calls.append(call)
        message = Adopt(tunnel=call.name, session=f"session of {call.name}", **fields)
        self.pump.adopt(message, downstream, upstream)

    def poll(self) -> bool:
        return sum(peer.poll() for call in self.calls for peer in (call.client, call.bot)) > 0

    def turn(self) -> None:
        self.pump.turn(0)
        self.reports += self.pump.take_reports()

    def quiet(self, wait: float = 0.0) -> bool:
        """Whether a turn would find nothing to do."""
        return not ready(self.pump, wait)

    def settle(self) -> None:
        """Turn until nothing moves any more; fails if the pump goes on finding events."""
        silent = 0
        for _ in range(MOST_TURNS):
            moved = self.poll()
            if self.quiet(0.0 if moved else PAUSE):
                silent = 0 if moved else silent + 1
                if silent == 2:
                    break
            else:
                silent = 0
                self.turn()
        else:
            raise AssertionError("the pump finds events without end")
        self.reports += self.pump.take_reports()

    def advance(self, seconds: float) -> None:
        """Let time pass, with the sweeps that belong to it."""
        self.now += seconds
        self.turn()
        self.settle()

    def talk(self, call: Call) -> None:
        """One message each way, the first of a call, so that it is known to work."""
        call.client.say(b"hello")
        call.bot.say(b"there")
        self.settle()
        assert call.bot.payloads() == [b"hello"]
        assert call.client.payloads() == [b"there"]

    def ended(self, cause: str, code: int | None, reason: str = "") -> None:
        """The only tunnel has ended, and its report says so."""
        report = self.report()
        assert (report.cause, report.code, report.reason) == (cause, code, reason)
        assert self.pump.tunnels == self.pump.closing == {}

    def report(self) -> Finished:
        """The only report."""
        self.settle()
        (report,) = self.reports
        return report


@contextmanager
def rig(poller: str = "own") -> Iterator[Rig]:
    """A rig; afterwards every descriptor of pump and peers must be closed, and no other.

    As in a pump's process the collector rests: what it finds of earlier tests would be
    counted as closed by this one.
    """
    collects = gc.isenabled()
    gc.disable()
    before = open_descriptors()
    made: Rig = Rig(Pump(lambda: made.now, POLLERS[poller]))
    try:
        yield made
    finally:
        made.pump.close()
        for call in made.calls:
            call.client.sock.close()
            call.bot.sock.close()
        if collects:
            gc.enable()
    assert open_descriptors() == before


def open_descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
