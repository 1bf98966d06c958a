"""The memory that a pump reads into, and what it knows of reads that are one whole frame."""

from __future__ import annotations

__all__ = ["LONGEST", "READ_OF_CALLS", "READ_SIZE", "READ_WITHIN", "Scratch", "Shapes"]

from typing import Final

from relay.protocol.frame_headers import BINARY, TEXT, first_word

# One read and so the most that a transfer holds. An audio message is below 3 KiB; bulk gains 30
# to 60 % over reads of 64 KiB and nothing more beyond this. A loopback segment has 65 483 bytes:
# these sizes are just below four, two and one, since a write of 256 KiB would end in a fifth
# of 212 bytes, which is as much work for the receiver as a full one.
READ_SIZE = 255 * 1024
# In the midst of a message that is longer than a read: what was read is still in the core's
# cache when it is written. Two messages of 1 MiB, ratio to nginx, 1.02 before, 1.16 after.
READ_WITHIN = 127 * 1024
# Whoever else is served waits for one of them at most: some 50 us, or 3 ms of tiny frames once.
READ_OF_CALLS = 63 * 1024
# Sizes of reads that a pump remembers: those of messages of a call, which has one, or some
# dozens where its codec varies them. Each costs 300 bytes. The first word of shorter frames
# does not tell their size.
SHAPES = range(134, 4097)
LONGEST: Final = SHAPES.stop
MOST_SHAPES = 1024

# How the first four bytes of a read are compared: as a number that the interpreter has ready,
# unlike an integer of this size. Two are equal only if the bytes are, and no number at all,
# which equals nothing, would be the beginning of a frame over 32 KiB.
WORD: Final = "f"
# By the size of a read: the first word that makes it one whole message, and the memory to send.
Shapes = list[tuple[float, memoryview] | None]


class Scratch:
    """What a pump reads into, and what it knows of reads that are one whole frame.

    Attributes:
        word: its first four bytes as a number.
        known: how many shapes are remembered.
    """

    __slots__ = ("_shapes", "data", "known", "view", "word")

    def __init__(self) -> None:
        self.data = bytearray(READ_SIZE)
        self.view = memoryview(self.data)
        self.word = self.view[:4].cast(WORD)
        self.known = 0
        # From clients and from bots, text and binary.
        kinds = [(masked, opcode) for masked in (False, True) for opcode in (TEXT, BINARY)]
        self._shapes: dict[tuple[bool, int], Shapes] = {
            kind: [None] * SHAPES.stop for kind in kinds
        }

    def shapes(self, size: int, *, masked: bool) -> Shapes:
        """The shapes of the kind that was just read; this one is among them from now on."""
        opcode = TEXT if self.data[0] & 0x0F == TEXT else BINARY
        shapes = self._shapes[masked, opcode]
        if size in SHAPES and shapes[size] is None and self.known < MOST_SHAPES:
            self.known += 1
            word = memoryview(first_word(size, masked=masked, opcode=opcode)).cast(WORD)[0]
            shapes[size] = (word, self.view[:size])
        return shapes
