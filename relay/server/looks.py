"""What a pump carries, asked for when somebody wants to see it."""

from __future__ import annotations

__all__ = ["LOOK_AGE", "LOOK_TIMEOUT", "Looks", "Seen"]

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from relay.pump.channel import Live, Totals, View

# A pump answers within milliseconds, with thousands of tunnels within some hundred of
# them; one that is that busy is shown as it was.
LOOK_TIMEOUT = 1.0
# An answer serves everybody who asks within this time: consoles, scrapes, a live list.
LOOK_AGE = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """The answer to a look: at `at`, with up to `most` calls."""

    at: float = float("-inf")
    most: int = 0
    calls: tuple[Live, ...] = ()
    totals: Totals | None = None


@dataclass(slots=True)
class Looks:
    """Looks at one pump, one after the other.

    Attributes:
        last: the latest answer.
    """

    last: Seen = field(default_factory=Seen)
    _one: trio.Lock = field(default_factory=trio.Lock)
    _most: int = 0
    _parts: list[Live] = field(default_factory=list)
    _answered: trio.Event = field(default_factory=trio.Event)

    async def look(self, most: int, ask: Callable[[int], Awaitable[bool]]) -> Seen:
        """How the pump stands; as it stood before, when it does not answer in time.

        Args:
            ask: sends the question for so many calls; whether it could.
        """
        async with self._one:
            if trio.current_time() - self.last.at > LOOK_AGE or self.last.most < most:
                self._most, self._parts, self._answered = most, [], trio.Event()
                with trio.move_on_after(LOOK_TIMEOUT):
                    if await ask(most):
                        await self._answered.wait()
            return self.last

    def take(self, view: View) -> None:
        """A part of the answer has come."""
        self._parts += view.calls
        if view.totals is not None:
            self.last = Seen(trio.current_time(), self._most, tuple(self._parts), view.totals)
            self._parts = []
            self._answered.set()
