"""Nodes on one store: this one says that it lives, and clears up after those that died.

A node is dead when its control process has been silent for `node_timeout`, by this
node's own clock, and holds its lock no more. Its pumps may live on with their calls:
those are left to them, and what only the control process held is taken over.
"""

from __future__ import annotations

__all__ = ["BEAT", "Homes", "Nodes"]

from collections.abc import Iterable
from typing import Protocol

import trio

from relay.errors import ConfigError, StoreError
from relay.policy.interfaces import Log, Store
from relay.policy.nodes import Neighbour
from relay.policy.sessions import SessionState
from relay.pump.channel import Finished
from relay.server.calls import Calls
from relay.server.ends import end_of
from relay.server.rules import Rules
from relay.server.sessions import SessionKeeper
from relay.server.side_tunnels import is_side

# Seconds between two signs of life: a few of them fit into the shortest `node_timeout`
# that makes sense, and a write a second costs nothing.
BEAT = 1.0


class Homes(Protocol):
    """The runtime directories of nodes on this machine; `daemon` wires it."""

    def control_lives(self, place: str) -> bool:
        """Whether a control process holds this directory."""

    def pumps_live(self, place: str) -> bool:
        """Whether a pump that was started there lives."""

    def reports(self, place: str) -> Iterable[Finished]:
        """What its pumps left to be recorded when they exited."""


class Nodes:
    """See the module; one per daemon.

    Args:
        place: this node's runtime directory.
        calls: what this daemon carries.
    """

    def __init__(
        self,
        place: str,
        homes: Homes,
        store: Store,
        keeper: SessionKeeper,
        calls: Calls,
        rules: Rules,
        log: Log,
    ) -> None:
        self._place = place
        self._homes = homes
        self._store = store
        self._keeper = keeper
        self._calls = calls
        self._rules = rules
        self._log = log
        # The last sign of life of each other node, and when it was seen first.
        self._seen: dict[str, tuple[Neighbour, float]] = {}

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        while True:
            await trio.sleep(BEAT)
            try:
                await self.look()
            except StoreError:
                pass  # the next look will do; nobody is called dead meanwhile

    async def look(self) -> None:
        """Say that this node lives, and see who else does.

        Raises:
            StoreError: neither can be done.
        """
        others = await self._store.beat()
        if others is None:
            await self._join_again()
            return
        now = trio.current_time()
        self._seen = {
            each.name: seen
            if (seen := self._seen.get(each.name)) is not None and seen[0] == each
            else (each, now)
            for each in others
        }
        for other, since in self._seen.values():
            silent = now - since >= self._rules.limits.node_timeout
            if silent and not self._homes.control_lives(other.place):
                await self._take_over(other)

    async def _take_over(self, dead: Neighbour) -> None:
        pumps = self._homes.pumps_live(dead.place)
        # They are read and left there: the node may come back in this moment.
        reports = () if pumps else self._homes.reports(dead.place)
        ends = {
            report.session: end_of(report)
            for report in reports
            if not is_side(report.tunnel, report.session)
        }
        estate = await self._keeper.take_over(dead, pumps=pumps, ends=ends)
        if estate is not None and (not pumps or estate.ended or estate.leases):
            sessions, leases = len(estate.ended), len(estate.leases)
            self._log.warning(
                "node_died",
                node=dead.name,
                place=dead.place,
                sessions=sessions,
                leases=leases,
                pumps=pumps,
            )

    async def _join_again(self) -> None:
        """Another node thought this one dead: its directory was removed under it."""
        self._log.warning("node_forgotten", place=self._place)
        try:
            await self._store.join(self._place, self._homes.control_lives)
        except ConfigError as error:
            self._log.warning("node_twice", error=str(error))
            return
        for session_id in self._calls.sessions():
            session = await self._store.get(session_id)
            if session is None or session.state is SessionState.ENDED:
                await self._calls.end(session_id, "drain")
