"""One side of an exchange: a connected socket that is read and written with few turns of the loop.

What can be done at once is done at once; only what would block waits, and the wait is
where other tasks get their turn. A write that goes through whole has none: whoever
writes again and again without reading between takes a `trio.lowlevel.checkpoint`.
A connection that is broken reads as ended and does not take anything.

The file descriptor belongs to somebody else, who closes it when nobody waits here.
"""

from __future__ import annotations

__all__ = ["SCRATCH", "Leg"]

import os

import trio

# Where bytes are read that go on at once: whoever reads into it has passed them on, or
# has copied what is left, before it waits. One for all, so that an exchange that moves
# nothing holds nothing. Larger reads gained nothing on loopback.
SCRATCH = memoryview(bytearray(256 * 1024))


class Leg:
    """A non-blocking stream socket, with one reader and one writer at a time.

    Attributes:
        broken: a read has met its end by a failure: it was reset, and not closed.
    """

    __slots__ = ("broken", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.broken = False

    async def wait_readable(self) -> None:
        """Return when a read has something to say."""
        await trio.lowlevel.wait_readable(self.fd)

    async def wait_writable(self) -> None:
        """Return when a write may take something."""
        await trio.lowlevel.wait_writable(self.fd)

    def read_now(self, most: int) -> bytes | None:
        """What is here, up to `most` bytes; b"" at the end, None for nothing yet."""
        try:
            return os.read(self.fd, most)
        except BlockingIOError:
            return None
        except OSError:
            self.broken = True
            return b""

    def read_into(self, view: memoryview) -> int | None:
        """The same into a buffer: how many bytes, 0 at the end, None for nothing yet."""
        try:
            return os.readv(self.fd, [view])
        except BlockingIOError:
            return None
        except OSError:
            self.broken = True
            return 0

    def write_now(self, data: bytes | memoryview) -> int | None:
        """How many bytes the socket took, perhaps 0; None when it is broken."""
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            return None

    async def read(self, most: int) -> bytes:
        """Wait for bytes, up to `most`; b"" at the end."""
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            data = self.read_now(most)
            if data is not None:
                return data
