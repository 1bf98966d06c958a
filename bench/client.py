"""One client of a bot or of the relay, as steps: start a session, connect, echo, close."""

from __future__ import annotations

import base64
import errno
import json
import os
import random
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench import wire
from bench.steps import READ, WRITE, Steps

__all__ = [
    "KEY_VARIABLE",
    "Caller",
    "Channel",
    "Door",
    "Place",
    "Refused",
    "raise_descriptor_limit",
]

# API keys travel to worker processes in the environment: a command line is public.
KEY_VARIABLE = "RELAY_BENCH_KEY"
CHUNK = 64 << 10
MAX_BODY = 64 << 10
START_BODY = b'{"transport":"websocket"}'
GOING_AWAY = (1000).to_bytes(2, "big")


class Refused(Exception):
    """An answer other than the one that was asked for; the text is a short label for counting."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL points: the address to connect to, the Host field, the request target."""

    address: tuple[str, int]
    host: str
    target: str

    @classmethod
    def of(cls, url: str) -> Place:
        """Raises ValueError unless the URL is http://host:port/… or ws://host:port/…"""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "ws") or not parts.hostname:
            raise ValueError(f"{url!r}; expected http://host:port/… or ws://host:port/…")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls((parts.hostname, parts.port or 80), parts.netloc, target)


@dataclass(frozen=True, slots=True)
class Door:
    """How calls and requests get in.

    Args:
        ws_url: calls connect here, as they are or with a token.
        start_url: calls begin with a POST here, with `key`.
        key: API key for `start_url`.
        token: makes a token for a call at `ws_url`; None where that takes none.
        http_url: base of the origin's HTTP paths; None where they are behind a session
            (`start_url` less "/start" plus "/sessions/{id}", with `key`).
        metrics_url: what a monitoring system fetches; None where there is nothing to fetch.
    """

    ws_url: str | None = None
    start_url: str | None = None
    key: str = ""
    http_url: str | None = None
    token: Callable[[], str] | None = None
    metrics_url: str | None = None


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as the machine's hard limit does."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Channel:
    """A non-blocking socket with what was received beyond what was asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.held = bytearray()

    @classmethod
    def open(cls, place: Place) -> Steps[Channel]:
        """Connect. Raises OSError."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(place.address)
            if code == errno.EINPROGRESS:
                yield sock, WRITE
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def close(self) -> None:
        """Close the socket; calling it twice is harmless."""
        self.sock.close()

    def send(self, data: bytes) -> Steps[None]:
        """Write everything. Raises OSError."""
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                yield self.sock, WRITE

    def read_head(self) -> Steps[wire.Head]:
        """The next message head. Raises Refused at the end of the stream, ValueError."""
        while (end := self.held.find(wire.HEAD_END)) < 0:
            if len(self.held) > wire.MAX_HEAD:
                raise ValueError("a head is too long")
            yield from self._more()
        head = wire.parse_head(bytes(self.held[:end]))
        del self.held[: end + len(wire.HEAD_END)]
        return head

    def read_exactly(self, size: int) -> Steps[bytes]:
        """The next `size` bytes. Raises Refused at the end of the stream."""
        while len(self.held) < size:
            yield from self._more()
        data = bytes(self.held[:size])
        del self.held[:size]
        return data

    def read_frame(self) -> Steps[tuple[int, bytes]]:
        """The next frame: its first byte and payload. Raises Refused, BadFrame."""
        while (found := wire.frame_at(self.held, 0, len(self.held), masked=False)) is None:
            yield from self._more()
        first, _, body, end = found
        payload = bytes(self.held[body:end])
        del self.held[:end]
        return first, payload

    def _more(self) -> Steps[None]:
        """Wait for bytes and hold them. Most answers are not there yet, so waiting comes first."""
        yield self.sock, READ
        data = self.sock.recv(CHUNK)
        if not data:
            raise Refused("connection closed")
        self.held += data


class Caller:
    """Makes one call after another; keeps the HTTP connection for /start alive between them."""

    def __init__(self, door: Door, seed: int) -> None:
        self._random = random.Random(seed)
        self._key = door.key
        self._start = Place.of(door.start_url) if door.start_url else None
        self._ws = Place.of(door.ws_url) if door.ws_url else None
        self._token = door.token
        self._http: Channel | None = None

    def close(self) -> None:
        """Close the HTTP connection."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def start(self) -> Steps[tuple[Place, str | None]]:
        """Where to connect and with which token; asks the relay where only that has tokens.

        Raises:
            Refused: the answer was not 200.
        """
        if self._ws is not None:
            return self._ws, self._token() if self._token else None
        place, token, _ = yield from self.start_session()
        return place, token

    def start_session(self) -> Steps[tuple[Place, str, str]]:
        """The same of a relay, and the id of the session.

        Raises:
            Refused: the answer was not 200.
        """
        status, body = yield from self.post_start()
        if status != 200:
            raise Refused(f"start {status}")
        answer = json.loads(body)
        return Place.of(answer["wsUrl"]), str(answer["token"]), str(answer["sessionId"])

    def post_start(self) -> Steps[tuple[int, bytes]]:
        """One POST /start on the kept connection: the answer's status and body."""
        assert self._start is not None
        try:
            if self._http is None:
                self._http = yield from Channel.open(self._start)
            yield from self._http.send(self._start_request(self._start))
            head = yield from self._http.read_head()
            size = int(head.fields.get(b"content-length", b"-1"))
            if not 0 <= size <= MAX_BODY:
                raise Refused("start without a usable length")
            body = yield from self._http.read_exactly(size)
        except BaseException:
            self.close()
            raise
        if head.fields.get(b"connection", b"").lower() == b"close":
            self.close()
        return int(head.first[1]), body

    def attach(self, place: Place, token: str | None) -> Steps[Channel]:
        """Connect and upgrade. Raises Refused when the answer is not a right 101."""
        key = base64.b64encode(self._random.randbytes(16))
        channel = yield from Channel.open(place)
        try:
            yield from channel.send(wire.upgrade_request(place.host, place.target, key, token))
            head = yield from channel.read_head()
            if head.first[1] != b"101":
                raise Refused(f"upgrade {head.first[1].decode('latin-1')}")
            if head.fields.get(b"sec-websocket-accept") != wire.accept_key(key):
                raise Refused("upgrade with a wrong accept key")
        except BaseException:
            channel.close()
            raise
        return channel

    def echo(self, channel: Channel, size: int) -> Steps[None]:
        """Send one random message and read it back. Raises Refused when it came back changed."""
        payload = self._random.randbytes(size)
        key = self._random.getrandbits(32)
        yield from channel.send(wire.client_frame(wire.BINARY, payload, key))
        first, answer = yield from channel.read_frame()
        if first != wire.BINARY or answer != payload:
            raise Refused("echo changed")

    def hang_up(self, channel: Channel) -> Steps[None]:
        """Send Close, read the answering Close, close."""
        try:
            key = self._random.getrandbits(32)
            yield from channel.send(wire.client_frame(wire.CLOSE, GOING_AWAY, key))
            first, _ = yield from channel.read_frame()
            if first != wire.CLOSE:
                raise Refused("no Close in answer to Close")
        finally:
            channel.close()

    def _start_request(self, place: Place) -> bytes:
        return (
            f"POST {place.target} HTTP/1.1\r\nHost: {place.host}\r\n"
            f"Authorization: Bearer {self._key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(START_BODY)}\r\n\r\n"
        ).encode("ascii") + START_BODY
