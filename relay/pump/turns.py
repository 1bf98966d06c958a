"""How long a pump's turns take."""

from __future__ import annotations

__all__ = ["Turns"]

from typing import Final

from relay.pump.channel import SHORT_TURN, TURN_CLASSES

# A turn's class is the length in bits of how often it holds the shortest.
BY_CLASS: Final = 1 / SHORT_TURN
LAST: Final = TURN_CLASSES - 1


class Turns:
    """The turns so far. Whoever ends one adds to `count` and `busy`, and calls `note` when it
    was not shorter than `usual`: most are.

    Attributes:
        busy, longest, usual: seconds.
    """

    __slots__ = ("_long", "busy", "count", "longest", "usual")

    def __init__(self) -> None:
        self.count = 0
        self.busy = self.longest = 0.0
        self.usual = 0.0  # what is shorter is neither the longest nor in a class of its own
        self._long = [0] * TURN_CLASSES  # of the first class only some

    def note(self, took: float) -> None:
        """A turn took so many seconds."""
        if took > self.longest:
            self.longest = took
            self.usual = min(took, SHORT_TURN)
        number = int(took * BY_CLASS).bit_length()
        self._long[number if number < LAST else LAST] += 1

    def classes(self) -> tuple[int, ...]:
        """How many turns there were of each length, see `TURN_CLASSES`."""
        return (self.count - sum(self._long[1:]), *self._long[1:])
