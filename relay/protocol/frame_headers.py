"""The parts of a WebSocket frame's header (RFC 6455 section 5.2), read and written."""

from __future__ import annotations

__all__ = ["BINARY", "RSV", "RSV_DEFLATE", "TEXT", "Violation", "close_frame", "first_word"]

from dataclasses import dataclass
from typing import Final

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
DATA_OPCODES = frozenset((CONTINUATION, TEXT, BINARY))
OPCODES = DATA_OPCODES | {CLOSE, PING, PONG}

FIN = 0x80
MASK = 0x80
RSV = 0x70
RSV_DEFLATE = 0x40  # RFC 7692 section 6: permessage-deflate owns RSV1 on a message's first frame

# The bytes of a header that are read before its length is known: two, and two of the
# extended length. A read that is no longer takes the slow way.
FIXED_HEADER = 4
MAX_CONTROL = 125  # RFC 6455 section 5.5
MAX_REASON = MAX_CONTROL - 2
MAX_LENGTH = 2**63 - 1  # RFC 6455 section 5.2: the most significant bit is 0
LEAST_LONG = 65_536  # RFC 6455 section 5.2: what is shorter has no length of eight bytes

PROTOCOL_ERROR = 1002
MESSAGE_TOO_BIG = 1009
NO_STATUS = 1005  # RFC 6455 section 7.4.1: a Close without a code; never sent

Bytes = bytes | bytearray | memoryview

# What the first byte says of a frame that is passed over without a look at its parts: nothing,
# a control frame, a message's end, more of it to come. Tables for where one may begin, for the
# same with compression, and for where one is to be continued.
OTHER, CONTROL, ENDS, OPENS = range(4)


def _firsts(kinds: dict[int, int]) -> bytes:
    kinds = {**kinds, FIN | PING: CONTROL, FIN | PONG: CONTROL}
    return bytes(kinds.get(first, OTHER) for first in range(256))


_PLAIN = {FIN | TEXT: ENDS, FIN | BINARY: ENDS, TEXT: OPENS, BINARY: OPENS}
STARTS: Final = _firsts(_PLAIN)
STARTS_DEFLATE: Final = _firsts({**_PLAIN, **{RSV_DEFLATE | k: v for k, v in _PLAIN.items()}})
CONTINUES: Final = _firsts({FIN | CONTINUATION: ENDS, CONTINUATION: OPENS})


@dataclass(frozen=True, slots=True)
class Violation:
    """A header that ends the connection: the close code and why."""

    code: int
    reason: str


def header_size(head: bytes) -> int:
    """Bytes of a header, as far as its beginning tells: of its first two, then of all."""
    if len(head) < 2:
        return 2
    length = head[1] & 0x7F
    extended = 0 if length < 126 else 2 if length == 126 else 8
    return 2 + extended + (4 if head[1] & MASK else 0)


def payload_length(head: bytes) -> int:
    """Payload bytes of the frame with this whole header."""
    length = head[1] & 0x7F
    if length < 126:
        return length
    return int.from_bytes(head[2:4] if length == 126 else head[2:10], "big")


def first_word(size: int, *, masked: bool, opcode: int) -> bytes:
    """The first four bytes of a whole message's frame.

    Args:
        size: bytes of the frame with its header; 134 to 65 539, where those four tell it.
        opcode: `TEXT` or `BINARY`.
    """
    length = size - (8 if masked else 4)
    return bytes((FIN | opcode, 126 | (MASK if masked else 0))) + length.to_bytes(2, "big")


def close_frame(code: int, reason: str, mask: bytes | None) -> bytes:
    """A Close frame with `code` and as much of `reason` as fits (RFC 6455 section 5.5.1).

    Args:
        code: 1005 makes a Close without a code, which is what stands for it.
        mask: four random bytes for a frame toward a server, None toward a client.
    """
    text = reason.encode()[:MAX_REASON].decode("utf-8", "ignore").encode()
    payload = b"" if code == NO_STATUS else code.to_bytes(2, "big") + text
    if mask is None:
        return bytes((FIN | CLOSE, len(payload))) + payload
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes((FIN | CLOSE, MASK | len(payload))) + mask + masked
