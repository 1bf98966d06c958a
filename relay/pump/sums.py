"""What a pump has carried in one direction, counted as it is carried.

Every transfer adds to the sums of its direction, so that nobody has to visit the tunnels to
know them: to walk through thousands costs the calls more than to count, since it takes what
they need out of the processor's caches.
"""

from __future__ import annotations

__all__ = ["Sums"]

from relay.pump.channel import GAP_CLASSES, Figures


class Sums:
    """The sums of one direction since the pump's start; they never shrink.

    Attributes:
        bytes, messages: passed on.
        gaps: by class, see `channel.Figures`.
    """

    __slots__ = ("_begun", "_ended", "_holding", "bytes", "gaps", "messages")

    def __init__(self) -> None:
        self.bytes = 0
        self.messages = 0
        self.gaps = [0] * GAP_CLASSES
        # What is held now has been held for so long: as often as `_holding` says until now,
        # less the times at which that began.
        self._holding = 0
        self._begun = 0.0
        self._ended = 0.0

    def hold(self, now: float) -> None:
        """A transfer begins to hold bytes."""
        self._holding += 1
        self._begun += now

    def let_go(self, since: float, now: float) -> None:
        """One that has held some since `since` does so no more."""
        self._holding -= 1
        self._begun -= since
        self._ended += now - since

    def figures(self, now: float) -> Figures:
        """As they stand; without what is the largest or longest of something."""
        held = self._ended + self._holding * now - self._begun
        return Figures(
            bytes=self.bytes,
            messages=self.messages,
            held_time=round(max(0.0, held), 6),
            gaps=tuple(self.gaps),
        )
