"""Callers in line for an instance.

There is one line for callers with a reservation and one for those without: who was
promised a place must not stand behind somebody who was not. Each is in the order of
the turns that the store has given, and its first asks for a place. Between nodes the
store says who comes first (`Wait.BEHIND`).
"""

from __future__ import annotations

__all__ = ["Placement"]

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from relay.policy.catalog import Agent
from relay.policy.interfaces import InstancePool, Store, Wait
from relay.server.callers import Caller
from relay.server.rules import Rules

# A place is left to another node's caller for so long. That one looks again within half
# a second; if it does not take the place, its node is dead or does not reach the instance.
DEFERENCE = 1.0


@dataclass(order=True, slots=True)
class Stander:
    """One who stands in line: by turn."""

    turn: int
    session_id: str
    first: trio.Event = field(default_factory=trio.Event, compare=False)


Line = list[Stander]


class Placement:
    """Leases instances to waiting callers, and tells the pool how many wait."""

    def __init__(
        self, rules: Rules, store: Store, pool: InstancePool, now: Callable[[], float]
    ) -> None:
        self._rules = rules
        self._store = store
        self._pool = pool
        self._now = now
        self._lines: dict[tuple[str, bool], Line] = {}
        self._wanted: Counter[str] = Counter()

    async def place(self, caller: Caller) -> str:
        """Wait, first come first served, for an instance and lease it; its base URL.

        The caller bounds the time. One that is cancelled has left the line, and holds
        what was leased to it until `give_back`.
        """
        await self._free_missed(caller)
        agent = caller.agent.name
        crowd = any(line for (name, _), line in self._lines.items() if name == agent)
        if crowd or await self._try(caller) is not None:
            await self._stand_in_line(caller)
        assert caller.instance is not None
        return caller.instance

    async def _stand_in_line(self, caller: Caller) -> None:
        stored = await self._store.get(caller.session.id)
        promised = stored is not None and stored.reserved_until > self._now()
        turn = stored.turn if stored is not None else 0
        line = self._lines.setdefault((caller.agent.name, promised), [])
        with self._wanting(caller.agent), _standing(line, Stander(turn, caller.session.id)) as me:
            behind_since = None
            while True:
                while line[0] is not me:
                    me.first = trio.Event()
                    await me.first.wait()
                patient = behind_since is None or trio.current_time() - behind_since < DEFERENCE
                why = await self._try(caller, defer=patient)
                if why is None:
                    return
                if why is Wait.FULL:
                    behind_since = None
                elif behind_since is None:
                    behind_since = trio.current_time()
                await self._pool.wait_change(caller.agent)

    @contextmanager
    def _wanting(self, agent: Agent) -> Iterator[None]:
        """Tell the pool of a caller who waits for a place, for as long as the block lasts."""
        self._wanted[agent.name] += 1
        self._pool.want(agent, self._wanted[agent.name])
        try:
            yield
        finally:
            self._wanted[agent.name] -= 1
            self._pool.want(agent, self._wanted[agent.name])

    async def _free_missed(self, caller: Caller) -> None:
        """Nothing has reached a bot there, so there is nothing to settle."""
        missed = caller.missed
        if missed is not None:
            await self._store.free(caller.session.id, missed)
            caller.missed = None
            self._pool.freed(missed, caller.session.id)

    async def _try(self, caller: Caller, *, defer: bool = True) -> Wait | None:
        """Lease an instance for the caller; why not, where that cannot be."""
        agent = caller.agent
        together = self._rules.catalog.max_together(agent)
        places, now = self._pool.places(agent), self._now()
        with trio.CancelScope(shield=True):
            # Shielded: a lease that was given must be known here, to be let go again.
            instance = await self._store.lease(
                caller.session.id, agent, places, now, together, defer=defer
            )
        if isinstance(instance, Wait):
            return instance
        if instance not in self._pool.places(agent).ready:
            # It has ended, or begun to, while the store gave it away.
            caller.missed = instance
            await self._free_missed(caller)
            return await self._try(caller, defer=defer)
        caller.instance = instance
        caller.queued = trio.current_time() - caller.since
        started = self._pool.started_at(instance)
        caller.cold = started is not None and started >= caller.since
        self._pool.taken(instance, caller.session.id)
        return None


@contextmanager
def _standing(line: Line, stander: Stander) -> Iterator[Stander]:
    """Stand in a line for as long as the block lasts; who is first then, is told."""
    insort(line, stander)
    line[0].first.set()
    try:
        yield stander
    finally:
        line.remove(stander)
        if line:
            line[0].first.set()
