"""Who may have which instance: counted within a transaction.

Instances of a command are of the node that has started them, and only that node's
leases and promises count there. Every other instance may be used by all nodes.
"""

from __future__ import annotations

__all__ = ["Demand"]

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from relay.policy.catalog import Agent
from relay.policy.interfaces import Places, Reservation, Wait
from relay.policy.names import Rank

# Unix time may be set back. A promise by a session that seems to have been made later
# than now by so many seconds counts no more: it would hold a place until the clock is there
# again. The clocks of a machine's processes are one, so no session is younger than now.
SET_BACK = 60.0

# Whose leases and promises count: everybody's, or one node's.
SCOPE = "agent = :agent AND (:shared OR node = :node)"
HELD = f"SELECT instance, count(*) FROM leases WHERE {SCOPE} GROUP BY instance"
LEASED = "EXISTS (SELECT 1 FROM leases WHERE leases.session = sessions.id)"
PROMISE = "(reserved_until > :now AND created <= :latest)"
# Places that are promised to callers who have not been placed yet.
PROMISED = f"""
SELECT count(*) FROM sessions
WHERE {SCOPE} AND state IN ('reserved', 'waiting') AND {PROMISE} AND id <> :id AND NOT {LEASED}
"""
# Sessions that have a place, or are promised one.
ADMITTED = f"""
SELECT count(*) FROM sessions WHERE state IN ('reserved', 'waiting', 'active') AND id <> :id
AND (state = 'active' OR {PROMISE} OR (state = 'waiting' AND {LEASED})) AND
"""
OF_AGENT = ADMITTED + "agent = :agent"
OF_ORGANIZATION = ADMITTED + "organization = :organization"
CALLER = (
    f"SELECT {PROMISE}, turn FROM sessions WHERE id = :id AND state = 'waiting' AND node = :node"
)
# Callers of other nodes who have waited longer and have no better right.
BEFORE = f"""
SELECT count(*) FROM sessions WHERE agent = :agent AND state = 'waiting' AND node <> :node
AND turn < :turn AND NOT {PROMISE} AND NOT {LEASED}
"""
OWN = "SELECT instance FROM leases WHERE session = :id"
LAST = "SELECT instance, leased FROM uses WHERE agent = :agent"


@dataclass(frozen=True)
class Demand:
    """One session that asks for a place with an agent, on one node, at a moment.

    Attributes:
        together: sessions that the organization may have at a time, 0 for any.
    """

    db: sqlite3.Connection
    node: str
    session: str
    agent: Agent
    places: Places
    now: float
    together: int = 0

    @property
    def shared(self) -> bool:
        """Whether other nodes may use the agent's instances too."""
        return not self.agent.command

    def reserved(self) -> Reservation:
        """Whether a place may be promised to the session."""
        held = self._held()
        if not held and not self.places.any():
            return Reservation.NONE_READY
        if self._room(held) <= self._count(PROMISED):
            return Reservation.FULL
        return Reservation.HELD if self._allowed() > 0 else Reservation.CAPPED

    def leased(self, *, defer: bool) -> str | Wait:
        """The instance for the session, which waits; see `Store.lease`."""
        row = self._all(CALLER)
        if not row:
            return Wait.FULL
        promised, turn = row[0]
        held = self._held()
        if not promised:
            spare = min(self._room(held) - self._count(PROMISED), self._allowed())
            if spare <= 0:
                return Wait.FULL
            if defer and self.shared and spare <= self._count(BEFORE, turn=turn):
                return Wait.BEHIND
        own = {url for (url,) in self._all(OWN)}
        most = self.agent.sessions_per_instance
        free = (url for url in self.places.ready if held.get(url, 0) < most and url not in own)
        return self._choose(free) or Wait.FULL

    def _choose(self, free: Iterable[str]) -> str | None:
        """The first, or of those that several nodes use the one that has rested longest, as far
        as their ranks are the same."""
        if not self.shared:
            return next(iter(free), None)
        last: dict[str, float] = dict(self._all(LAST))
        ranks, even = self.places.ranks, Rank()
        return min(
            free,
            key=lambda url: ranks.get(url, even).turn(self.now - last.get(url, 0.0)),
            default=None,
        )

    def _held(self) -> dict[str, int]:
        """Sessions per instance."""
        return dict(self._all(HELD))

    def _room(self, held: dict[str, int]) -> int:
        """How many sessions the instances that are ready, or can be, can still take."""
        most = self.agent.sessions_per_instance
        ready = sum(max(0, most - held.get(url, 0)) for url in self.places.ready)
        return self.places.startable * most + ready

    def _allowed(self) -> float:
        """How many further sessions the agent and its organization may have."""
        caps = ((self.agent.max_sessions, OF_AGENT), (self.together, OF_ORGANIZATION))
        return min((cap - self._count(query) for cap, query in caps if cap), default=float("inf"))

    def _count(self, query: str, **more: object) -> int:
        ((count,),) = self._all(query, **more)
        return int(count)

    def _all(self, query: str, **more: object) -> list[Any]:
        values = {
            "id": self.session,
            "node": self.node,
            "agent": self.agent.name,
            "organization": self.agent.organization,
            "shared": self.shared,
            "now": self.now,
            "latest": self.now + SET_BACK,
        }
        return self.db.execute(query, values | more).fetchall()
