"""WebSocket and HTTP bytes as the bench's own processes need them, and nothing more.

Written for speed on small messages: no objects per frame, one big-integer XOR
per mask. Kept apart from `relay.protocol` on purpose, so that a fault there
cannot hide itself by being on both sides of a measurement.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "BINARY",
    "CLOSE",
    "HEAD_END",
    "MAX_FRAME",
    "MAX_HEAD",
    "PING",
    "PONG",
    "BadFrame",
    "Head",
    "accept_key",
    "client_frame",
    "frame_at",
    "parse_head",
    "server_header",
    "upgrade_request",
    "xor",
]

# First bytes of whole (FIN) frames, RFC 6455 §5.2.
FIN = 0x80
BINARY, CLOSE, PING, PONG = FIN | 0x2, FIN | 0x8, FIN | 0x9, FIN | 0xA
RESERVED_BITS = 0x70
CONTROL_BIT = 0x08
MASK_BIT = 0x80
MAX_CONTROL = 125  # RFC 6455 §5.5
# More than any scenario sends; bounds what a peer can make a process hold.
MAX_FRAME = 2 << 20
HEAD_END = b"\r\n\r\n"
MAX_HEAD = 16 << 10
ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
# Words of 4 bytes up to which the repeating pattern is kept: 64 KiB, so that the
# cache never holds more than 64 of those.
CACHED_WORDS = 16 << 10


class BadFrame(Exception):
    """Bytes that are no acceptable frame.

    Args:
        code: the close code to answer with, RFC 6455 §7.4.1.
        reason: what was wrong.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Head(NamedTuple):
    """A message head: the words of its first line, and its fields by lower-case name."""

    first: list[bytes]
    fields: dict[bytes, bytes]


def xor(payload: bytes | bytearray | memoryview, key: int) -> bytes:
    """Mask or unmask a payload (RFC 6455 §5.3); the key is its 4 bytes read little-endian."""
    size = len(payload)
    words = (size + 3) >> 2
    pattern = key * (_ones(words) if words <= CACHED_WORDS else _make_ones(words))
    mixed = int.from_bytes(payload, "little") ^ pattern
    return mixed.to_bytes(words << 2, "little")[:size]


def client_frame(first: int, payload: bytes, key: int) -> bytes:
    """A whole masked frame; `first` is one of BINARY, CLOSE, PING, PONG."""
    header = server_header(first, len(payload))
    marked = bytes((first, header[1] | MASK_BIT)) + header[2:]
    return marked + key.to_bytes(4, "little") + xor(payload, key)


@lru_cache(maxsize=256)
def server_header(first: int, size: int) -> bytes:
    """The header of an unmasked frame, with the shortest length form (RFC 6455 §5.2)."""
    if size < 126:
        return bytes((first, size))
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def frame_at(
    data: bytes | bytearray | memoryview, start: int, stop: int, *, masked: bool
) -> tuple[int, int, int, int] | None:
    """Find the frame that begins at `start` in data[start:stop].

    Returns:
        (first byte, mask key, index of the payload, index after it), a plain tuple
        because this runs once per message; None while the frame is incomplete.

    Raises:
        BadFrame: reserved bits, a mask where none belongs or the reverse, a control
            frame that is fragmented or too long, or more than MAX_FRAME bytes.
    """
    if stop - start < 2:
        return None
    first, second = data[start], data[start + 1]
    size = second & 0x7F
    body = start + 2
    if first & RESERVED_BITS:
        raise BadFrame(1002, "reserved bits are set and no extension was agreed")
    if (second >= MASK_BIT) is not masked:
        raise BadFrame(1002, "the frame is masked" if second >= MASK_BIT else "no mask")
    if first & CONTROL_BIT and (first < FIN or size > MAX_CONTROL):
        raise BadFrame(1002, "a control frame is fragmented or too long")
    if size >= 126:
        body += 2 if size == 126 else 8
        if stop < body:
            return None
        size = int.from_bytes(data[start + 2 : body], "big")
        if size > MAX_FRAME:
            raise BadFrame(1009, f"a frame of {size} bytes; expected at most {MAX_FRAME}")
    key = 0
    if masked:
        body += 4
        if stop < body:
            return None
        key = int.from_bytes(data[body - 4 : body], "little")
    end = body + size
    return (first, key, body, end) if end <= stop else None


def accept_key(key: bytes) -> bytes:
    """`Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 §4.2.2)."""
    digest = hashlib.sha1(key + ACCEPT_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest)


def upgrade_request(host: str, target: str, key: bytes, token: str | None) -> bytes:
    """A WebSocket opening handshake (RFC 6455 §4.1) without extensions."""
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key.decode('ascii')}",
        "Sec-WebSocket-Version: 13",
    ]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def parse_head(data: bytes) -> Head:
    """Take a head apart; data ends before the empty line.

    Raises:
        ValueError: the first line has not three parts, or a field has no colon.
    """
    first, *lines = data.split(b"\r\n")
    words = first.split(b" ", 2)
    if len(words) < 2:
        raise ValueError("the first line of a head has too few words")
    fields = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise ValueError("a header line has no colon")
        fields[name.strip().lower()] = value.strip()
    return Head(words, fields)


def _make_ones(words: int) -> int:
    """The number whose product with a key repeats that key `words` times."""
    return int.from_bytes(b"\x01\x00\x00\x00" * words, "little")


_ones = lru_cache(maxsize=64)(_make_ones)
