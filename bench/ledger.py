"""What one call has sent and what came back: order and content of every echo; pure.

Theory: message `sequence` of call `index` is a pure function of both (a head
with index, sequence and due time, then bytes that only this call has), so an
echo is compared with what must have been sent, without keeping what was sent.

Laws: after any series of echoes, `lost` + `intact` + `changed` = sent, as long as
nothing came that was never sent; an echo counts in exactly one column.
"""

from __future__ import annotations

import random
import struct

__all__ = ["Ledger"]

HEAD = struct.Struct("<IIQ")  # call, sequence, due time in ns
SEED = 20_001


class Ledger:
    """One call's account.

    Args:
        index: the call's number; its content differs from every other call's.
        size: bytes of payload per message, at least the head's.
        first_due: nanoseconds on any clock at which message 0 is due.
        period: nanoseconds between two messages.
    """

    __slots__ = (
        "_missing",
        "_padding",
        "changed",
        "duplicated",
        "expected",
        "first_due",
        "index",
        "intact",
        "period",
        "reordered",
        "sent",
    )

    def __init__(self, index: int, size: int, first_due: int, period: int) -> None:
        if size < HEAD.size:
            raise ValueError(f"a message of {size} bytes; expected at least {HEAD.size}")
        self.index, self.first_due, self.period = index, first_due, period
        self._padding = random.Random(SEED + index).randbytes(size - HEAD.size)
        self._missing: set[int] = set()
        self.sent = self.expected = self.intact = 0
        self.changed = self.duplicated = self.reordered = 0

    def due(self, sequence: int) -> int:
        """When a message is to be sent, in nanoseconds."""
        return self.first_due + sequence * self.period

    def message(self, sequence: int) -> bytes:
        """The payload of a message."""
        return HEAD.pack(self.index, sequence, self.due(sequence)) + self._padding

    def accept_next(self) -> int:
        """Count the echo that was expected, found equal; returns its sequence."""
        sequence = self.expected
        self.expected = sequence + 1
        self.intact += 1
        return sequence

    def judge(self, payload: bytes) -> int | None:
        """Count an echo in its column.

        Returns:
            Its sequence when it is intact (also when late or early); None when it was
            changed, came twice or was never sent.
        """
        sequence = self._sequence_of(payload)
        if sequence is None:
            # It stands in for the one that was expected, which thereby is not lost as well.
            self.changed += 1
            self.expected = min(self.expected + 1, self.sent)
            return None
        if sequence == self.expected:
            return self.accept_next()
        if sequence > self.expected:
            self._missing.update(range(self.expected, sequence))
            self.expected = sequence + 1
        elif sequence in self._missing:
            self._missing.remove(sequence)
            self.reordered += 1
        else:
            self.duplicated += 1
            return None
        self.intact += 1
        return sequence

    @property
    def lost(self) -> int:
        """Messages sent of which nothing has come back (yet)."""
        return len(self._missing) + self.sent - self.expected

    def _sequence_of(self, payload: bytes) -> int | None:
        """The sequence of an intact message of this call; None for anything else."""
        if len(payload) < HEAD.size:
            return None
        sequence = int(HEAD.unpack_from(payload)[1])
        known = sequence < self.sent and payload == self.message(sequence)
        return sequence if known else None
