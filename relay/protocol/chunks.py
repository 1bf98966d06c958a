"""How a message's body is framed: a length, chunks, or until the connection ends.

RFC 9112 sections 6.3 and 7.1, read strictly: a bare line feed, a space beside a chunk's
size or an extension that is none is where two readers differ about the end of a body,
so all of these are faults here.

Laws:
- The verdict is that of the bytes, not of how they were cut into reads, and what stands in
  front of a fault is given out.
- What has passed has one reading, and framing that carries nothing is bounded: a line, all
  extensions beyond what the data pays for, and all trailers.
"""

from __future__ import annotations

__all__ = [
    "LAST_CHUNK",
    "Body",
    "ChunkedBody",
    "LengthBody",
    "UntilClosed",
    "chunk",
    "last_chunk",
]

import re
from collections.abc import Iterable

Field = tuple[bytes, bytes]

# Extensions may outweigh twice the data by so much: who signs each chunk of some
# kilobytes fits, who sends nothing but extensions is stopped.
MAX_EXTENSIONS = 16 * 1024
# All trailers together: checksums and a status fit.
MAX_TRAILERS = 8 * 1024

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
# No space anywhere: senders must not write any (RFC 9112 section 7.1.1), readers differ.
EXTENSION = rb";%s(?:=(?:%s|%s))?+" % (TOKEN, TOKEN, QUOTED)
# Sixteen digits are what a program prints that has a number of 64 bits.
SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:%s)*+)\r\n" % EXTENSION)
MAX_DIGITS = 16
# How such a line may begin, so that what is no chunk at all is not waited for.
SIZE_BEGINNING = re.compile(rb"[0-9A-Fa-f]{1,16}+(?:[;\r].*)?", re.DOTALL)
TRAILER_LINE = re.compile(rb"(%s):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r\n" % TOKEN)
CRLF = b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"
# Fields that say where a message ends or goes: RFC 9110 section 6.5.1 forbids them here.
NOT_IN_TRAILERS = frozenset((b"content-length", b"transfer-encoding", b"host"))


class LengthBody:
    """A body of a known number of bytes, of none too.

    Attributes:
        left: how many have not been taken.
        rest: what stood behind the end in the last bytes taken.
    """

    faulty = False
    trailers: tuple[Field, ...] = ()

    def __init__(self, length: int) -> None:
        self.left = length
        self.rest = b""

    @property
    def whole(self) -> bool:
        return self.left == 0

    def take(self, data: bytes) -> bytes:
        """The body's part of these bytes."""
        piece, self.rest = data[: self.left], data[self.left :]
        self.left -= len(piece)
        return piece


class UntilClosed:
    """The body of an answer that lasts until the connection ends (RFC 9112 section 6.3, 8)."""

    faulty = False
    rest = b""
    trailers: tuple[Field, ...] = ()

    def __init__(self) -> None:
        self.whole = False

    def take(self, data: bytes) -> bytes:
        """All of these bytes."""
        return data


class ChunkedBody:
    """A body in chunks, taken out of them as it comes.

    Attributes:
        whole: the last chunk and the trailers have come.
        faulty: the next byte is malformed; nothing more can be taken.
        trailers: names in lower case, values without spaces around them.
        rest: what stood behind the end in the last bytes taken.
    """

    def __init__(self) -> None:
        self.whole = self.faulty = False
        self.trailers: list[Field] = []
        self.rest = b""
        self._line = bytearray()
        self._left = 0
        self._behind_data = self._in_trailers = False
        self._extensions = self._trailers_size = 0

    def take(self, data: bytes) -> bytes:
        """The body's data in these bytes, up to the end or the first fault."""
        pieces = []
        at, end = 0, len(data)
        while at < end and not self.whole and not self.faulty:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                at += len(piece)
            else:
                found = data.find(b"\n", at)
                stop = found + 1 if found >= 0 else end
                self.faulty = not self._take(data[at:stop])
                at = stop
        self.rest = data[at:] if self.whole else b""
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take(self, piece: bytes) -> bool:
        """Add a piece of a line, or its end; whether the line can still be a right one."""
        line = self._line
        line += piece
        if self._longest < len(line) - len(CRLF):
            return False
        if not line.endswith(b"\n"):
            return self._may_become_right()
        if self._behind_data:
            right = line == CRLF
            self._behind_data = False
        else:
            right = self._take_trailer(line) if self._in_trailers else self._take_size(line)
        line.clear()
        return right

    def _may_become_right(self) -> bool:
        if self._behind_data:
            return self._line == b"\r"
        return self._in_trailers or bool(SIZE_BEGINNING.fullmatch(self._line[: MAX_DIGITS + 1]))

    @property
    def _longest(self) -> int:
        """Bytes that the line at hand may have in front of its end."""
        if self._behind_data:
            return 0
        if self._in_trailers:
            return MAX_TRAILERS - self._trailers_size
        return MAX_DIGITS + MAX_EXTENSIONS - self._extensions

    def _take_size(self, line: bytearray) -> bool:
        found = SIZE_LINE.fullmatch(line)
        if found is None:
            return False
        size = int(found[1], 16)
        self._extensions += len(found[2])
        if self._extensions > MAX_EXTENSIONS:
            return False
        self._extensions = max(0, self._extensions - 2 * size)
        self._left = size
        self._behind_data = size > 0
        self._in_trailers = size == 0
        return True

    def _take_trailer(self, line: bytearray) -> bool:
        if line == CRLF:
            self.whole = True
            return True
        self._trailers_size += len(line)
        found = TRAILER_LINE.fullmatch(line)
        if found is None:
            return False
        name = bytes(found[1]).lower()
        self.trailers.append((name, bytes(found[2])))
        return name not in NOT_IN_TRAILERS


Body = LengthBody | ChunkedBody | UntilClosed


def chunk(data: bytes) -> bytes:
    """One chunk; data must not be empty, since an empty chunk is the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def last_chunk(trailers: Iterable[Field]) -> bytes:
    """The end of a chunked body with its trailers."""
    lines = b"".join([b"%s: %s\r\n" % field for field in trailers])
    return b"0\r\n%s\r\n" % lines
