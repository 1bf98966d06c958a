"""Calls given to pumps: to the one with the fewest, and to another one if that can't take it.

A pump that has died is followed by another one in a moment. Nothing was written to a call
that no pump has taken, so it waits for that moment.
"""

from __future__ import annotations

__all__ = ["Giving"]

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from relay.pump.channel import Adopt, Hold
from relay.server.pump_link import Link
from relay.server.pump_offers import not_taken

# The next pump is started at once: an interpreter's start, on a busy machine a second.
# Longer, and something keeps pumps from starting or living.
NEXT_PUMP_WAIT = 3.0
POLL = 0.02


class Giving:
    """Hands calls over.

    Args:
        takers: the pumps that take calls now.
        note: a pump is about to be given a call.
        left: one has not taken it.
    """

    def __init__(
        self,
        takers: Callable[[], list[Link]],
        note: Callable[[Link, Adopt | Hold], None],
        left: Callable[[Link], Awaitable[None]],
    ) -> None:
        self._takers = takers
        self._note = note
        self._left = left
        self._under_way = 0

    async def require(self) -> None:
        """Return when a pump can take a call, as far as is known; see `give`."""
        with self._counted():
            until = trio.current_time() + NEXT_PUMP_WAIT
            while not (links := self._takers()) and await _may_wait(until):
                pass
            if all(link.full for link in links):
                raise not_taken({"pump_full" for _ in links})

    async def give(self, message: Adopt | Hold, fds: tuple[int, ...]) -> None:
        """Give a call's descriptors to a pump.

        Raises:
            Refusal: 503, no pump took it: `pump_full`, or `no_pump` when none came alive.
        """
        with self._counted():
            until = trio.current_time() + NEXT_PUMP_WAIT
            while causes := await self._offer(message, fds):
                if "pump_full" in causes or not await _may_wait(until):
                    raise not_taken(causes)

    async def wait_done(self) -> None:
        """Return when no call is on its way to a pump; the caller sees to it that none follows."""
        while self._under_way:
            await trio.sleep(POLL)

    async def _offer(self, message: Adopt | Hold, fds: tuple[int, ...]) -> set[str]:
        """Offer it to one pump after the other; why none has taken it, empty if one has."""
        causes = set()
        for link in sorted(self._takers(), key=lambda each: len(each.tunnels)):
            cause = "pump_full"
            if not link.full:
                self._note(link, message)
                cause = await link.offer(message, fds)
            if not cause:
                return set()
            causes.add(cause)
            await self._left(link)
        return causes or {"no_pump"}

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


async def _may_wait(until: float) -> bool:
    """Wait a moment, if there is still time; whether there was."""
    await trio.sleep(POLL)
    return trio.current_time() < until
