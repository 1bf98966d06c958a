"""A TCP forwarder that lies about echoes: the harness must catch each of its lies."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

__all__ = ["STALL", "Liar", "LyingRelay", "alter", "double", "drop", "stall", "swap"]

HEAD_END = b"\r\n\r\n"
CLOSE = 0x88
CHUNK = 256 << 10
TIMEOUT = 30.0  # seconds: every wait here ends by itself
STALL = 0.2

Lie = Callable[[bytes, bytes], bytes]


def drop(_first: bytes, second: bytes) -> bytes:
    """The first of two messages is lost."""
    return second


def double(first: bytes, second: bytes) -> bytes:
    """The first of two messages comes twice."""
    return first + first + second


def swap(first: bytes, second: bytes) -> bytes:
    """Two messages come in the wrong order."""
    return second + first


def alter(first: bytes, second: bytes) -> bytes:
    """One bit of the first message is another."""
    return first[:-1] + bytes((first[-1] ^ 1,)) + second


def fragment(first: bytes, second: bytes) -> bytes:
    """The first message comes in three fragments with pings between, which is no lie."""
    begin, payload = first[0] & 0x7F, first[4:]
    ping = b"\x89\x7d" + b"\xff" * 125
    pieces = payload[:3], payload[3:100], payload[100:]
    frames = (
        bytes((first_byte, len(piece))) + piece
        if len(piece) < 126
        else bytes((first_byte, 126)) + len(piece).to_bytes(2, "big") + piece
        for first_byte, piece in zip((begin, 0x00, 0x80), pieces, strict=True)
    )
    return ping.join(frames) + second


def lengthen(first: bytes, second: bytes) -> bytes:
    """The same, but with a byte more in the end."""
    return fragment(first, b"")[:-224] + b"\x80\x7e\x00\xdd" + first[-220:] + b"+" + second


def stall(first: bytes, second: bytes) -> bytes:
    """Nothing is passed on for a while. The wait is the fault, not a way to wait for something."""
    time.sleep(STALL)
    return first + second


class Liar:
    """What becomes of the bytes that an origin sends on one connection.

    Args:
        opening: bytes of the first echo, which is passed on as it is.
        frame: bytes of each echo after that, with its header.
        lie: what becomes of two echoes.
        every: each so many-th echo is lied about.
    """

    def __init__(self, opening: int, frame: int, lie: Lie, every: int) -> None:
        self._opening, self._frame, self._lie, self._every = opening, frame, lie, every
        self._held = b""
        self._opened = False
        self._seen, self._next = 0, every
        self.lies = 0

    def take(self, data: bytes) -> bytes:
        """Take what the origin has sent; what the client gets."""
        self._held += data
        if self._opened:
            return b"".join(self._told())
        end = self._held.find(HEAD_END)
        if end >= 0 and len(self._held) >= end + len(HEAD_END) + self._opening:
            self._opened, self._held = True, b""
        return data

    def _told(self) -> list[bytes]:
        out = []
        while True:
            before = min(len(self._held) // self._frame, self._next - self._seen - 1)
            out.append(self._cut(before))
            if self._seen != self._next - 1 or len(self._held) < 2 * self._frame:
                break
            two = self._cut(2)
            out.append(self._lie(two[: self._frame], two[self._frame :]))
            self._next += self._every
            self.lies += 1
        if self._held[:1] == bytes((CLOSE,)):
            out.append(self._held)
            self._held = b""
        return out

    def _cut(self, frames: int) -> bytes:
        size = frames * self._frame
        data, self._held = self._held[:size], self._held[size:]
        self._seen += frames
        return data


class LyingRelay:
    """Forwards connections to `origin`, with a Liar between; a context manager."""

    def __init__(self, origin: int, *, opening: int, frame: int, lie: Lie, every: int) -> None:
        self._origin = origin
        self._make: Callable[[], Liar] = lambda: Liar(opening, frame, lie, every)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._liars: list[Liar] = []
        self.port: int = self._listener.getsockname()[1]

    @property
    def lies(self) -> int:
        """How many have been told, on all connections."""
        return sum(liar.lies for liar in self._liars)

    def __enter__(self) -> LyingRelay:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A shutdown wakes whoever waits in accept or recv; a close alone would not.
        for sock in (self._listener, *self._sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(TIMEOUT)
        for sock in (self._listener, *self._sockets):
            sock.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the end of the test
                return
            origin = socket.create_connection(("127.0.0.1", self._origin), TIMEOUT)
            for sock in (client, origin):
                sock.settimeout(TIMEOUT)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(sock)
            liar = self._make()
            self._liars.append(liar)
            self._start(self._forward, client, origin, bytes)
            self._start(self._forward, origin, client, liar.take)

    def _forward(
        self, source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes]
    ) -> None:
        try:
            while data := source.recv(CHUNK):
                sink.sendall(change(data))
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one side has gone; the thread of the other direction sees it as well
