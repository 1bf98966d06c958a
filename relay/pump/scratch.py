"""The memory that a pump reads into, and what it knows of reads that are one whole frame."""

from __future__ import annotations

__all__ = ["READ_SIZE", "Scratch"]

from relay.protocol.frames import first_word

# One read and so the most that a transfer holds. An audio message is below 3 KiB; bulk
# transfers gain 30 to 60 % over reads of 64 KiB, and nothing more beyond this (measured).
READ_SIZE = 256 * 1024
# Sizes of reads that a pump remembers: those of messages of a call, which has one, or some
# dozens where its codec varies them. Each costs 300 bytes. The first word of shorter frames
# does not tell their size.
SHAPES = range(134, 4097)
MOST_SHAPES = 1024


class Scratch:
    """What a pump reads into, and what it knows of reads that are one whole frame.

    Attributes:
        word: its first four bytes as a number.
        shapes: by the size of a read: the memory to send, and the first words of one whole
            frame, from a client and from a bot.
    """

    __slots__ = ("data", "shapes", "view", "word")

    def __init__(self) -> None:
        self.data = bytearray(READ_SIZE)
        self.view = memoryview(self.data)
        self.word = self.view[:4].cast("I")
        self.shapes: dict[int, tuple[memoryview, tuple[int, int]]] = {}

    def learn(self, size: int) -> None:
        """Remember the shape of a read, so that the next one costs little."""
        if size in SHAPES and len(self.shapes) < MOST_SHAPES:
            words = (first_word(size, masked=True), first_word(size, masked=False))
            self.shapes[size] = (self.view[:size], words)
