"""A look at every tunnel of a pump, spread over turns so that no call waits for it.

Laws
1. A step looks at `AT_A_TIME` tunnels at most, whatever their number.
2. The sums never shrink from one census to the next, although calls begin and end
   during it: each tunnel counts once, as it stood when it was looked at or ended.
"""

from __future__ import annotations

__all__ = ["AT_A_TIME", "Census", "Sums", "live"]

import heapq
from typing import TYPE_CHECKING

from relay.pump.channel import GAP_CLASSES, Figures, Live, Totals, View

if TYPE_CHECKING:
    from relay.pump.pump import Pump
    from relay.pump.transfer import Transfer
    from relay.pump.tunnel import Tunnel

# Some 100 us of work in a turn, a tenth of what a burst of calls makes one last anyway.
AT_A_TIME = 32


def live(tunnel: Tunnel, now: float) -> Live:
    """A tunnel as it stands."""
    return Live(
        tunnel=tunnel.adopt.tunnel,
        session=tunnel.adopt.session,
        seconds=round(now - tunnel.started, 6),
        from_client=tunnel.from_client.figures(now),
        from_bot=tunnel.from_bot.figures(now),
    )


class Sums:
    """What many transfers of one direction have carried."""

    __slots__ = ("bytes", "gaps", "held_time", "messages")

    def __init__(self) -> None:
        self.bytes = 0
        self.messages = 0
        self.held_time = 0.0
        self.gaps = [0] * GAP_CLASSES

    def add(self, transfer: Transfer, now: float) -> None:
        self.bytes += transfer.bytes
        self.messages += transfer.tracker.messages
        self.held_time += transfer.held_time + (now - transfer.held_since if transfer.held else 0)
        for index, count in enumerate(transfer.gaps or ()):
            self.gaps[index] += count

    def plus(self, other: Sums, sign: int = 1) -> Sums:
        """The sum of both, or with a sign of -1 their difference."""
        both = Sums()
        both.bytes = self.bytes + sign * other.bytes
        both.messages = self.messages + sign * other.messages
        both.held_time = self.held_time + sign * other.held_time
        both.gaps = [a + sign * b for a, b in zip(self.gaps, other.gaps, strict=True)]
        return both

    def figures(self) -> Figures:
        return Figures(
            bytes=self.bytes,
            messages=self.messages,
            held_time=round(max(0.0, self.held_time), 6),
            gaps=tuple(self.gaps),
        )


class Census:
    """One look, begun now; see the module.

    Args:
        most: how many tunnels to tell of singly, those first whose client has been
            quiet for longest.
    """

    def __init__(self, pump: Pump, most: int) -> None:
        self._pump = pump
        self._most = most
        self._unseen = set(pump.tunnels)
        self._seen: set[str] = set()
        self._client, self._bot = Sums(), Sums()
        # Seen, and since they have ended, in the pump's own sums too.
        self._twice_client, self._twice_bot = Sums(), Sums()
        self._quietest: list[tuple[float, str]] = []

    def left(self, tunnel: Tunnel, now: float) -> None:
        """A tunnel has ended: the pump's own sums count it from now on."""
        name = tunnel.adopt.tunnel
        self._unseen.discard(name)
        if name in self._seen:
            self._twice_client.add(tunnel.from_client, now)
            self._twice_bot.add(tunnel.from_bot, now)

    def step(self) -> View | None:
        """Look at some more tunnels, then tell of some more; None while there is nothing to tell.

        The last `View` of a census is the one with totals, and the pump's census is over.
        """
        now = self._pump.now()
        if self._unseen:
            for _ in range(min(AT_A_TIME, len(self._unseen))):
                self._visit(self._unseen.pop(), now)
            return None
        calls: list[Live] = []
        while self._quietest and len(calls) < AT_A_TIME:
            _, name = self._quietest.pop()
            tunnel = self._pump.tunnels.get(name)
            if tunnel is not None:
                calls.append(live(tunnel, now))
        if self._quietest:
            return View(calls, None)
        self._pump.census = None
        return View(calls, self._totals())

    def _visit(self, name: str, now: float) -> None:
        tunnel = self._pump.tunnels[name]
        self._seen.add(name)
        self._client.add(tunnel.from_client, now)
        self._bot.add(tunnel.from_bot, now)
        entry = (now - tunnel.from_client.last_read, name)
        if len(self._quietest) < self._most:
            heapq.heappush(self._quietest, entry)
        elif self._most:
            heapq.heappushpop(self._quietest, entry)

    def _totals(self) -> Totals:
        pump = self._pump
        client = pump.ended_client.plus(self._client).plus(self._twice_client, -1)
        bot = pump.ended_bot.plus(self._bot).plus(self._twice_bot, -1)
        return pump.totals(client.figures(), bot.figures())
