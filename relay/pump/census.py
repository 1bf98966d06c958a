"""A look at a pump: its sums, and the calls that have been quiet for longest.

To find those it visits every tunnel, spread over turns so that no call waits for it. Without
any that are wanted, as for metrics, it visits none.

Law: a step looks at `AT_A_TIME` tunnels at most, whatever their number.
"""

from __future__ import annotations

__all__ = ["AT_A_TIME", "Census", "live"]

import heapq
from typing import TYPE_CHECKING

from relay.pump.channel import Live, View

if TYPE_CHECKING:
    from relay.pump.pump import Pump
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


class Census:
    """One look, begun now; see the module.

    Args:
        most: how many tunnels to tell of singly, those first whose client has been
            quiet for longest.
    """

    def __init__(self, pump: Pump, most: int) -> None:
        self._pump = pump
        self._most = most
        self._unseen = list(pump.tunnels) if most else []
        self._quietest: list[tuple[float, str]] = []

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
        return View(calls, self._pump.totals())

    def _visit(self, name: str, now: float) -> None:
        tunnel = self._pump.tunnels.get(name)
        if tunnel is None:
            return  # it has ended meanwhile
        entry = (now - tunnel.from_client.last_read, name)
        if len(self._quietest) < self._most:
            heapq.heappush(self._quietest, entry)
        else:
            heapq.heappushpop(self._quietest, entry)
