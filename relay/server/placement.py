"""Callers in line for an instance.

There is one line for callers with a reservation and one for those without: who was
promised a place must not stand behind somebody who was not.
"""

from __future__ import annotations

__all__ = ["Placement"]

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from relay.policy.catalog import Agent
from relay.policy.interfaces import InstancePool, Store
from relay.server.callers import Caller


class Placement:
    """Leases instances to waiting callers, and tells the pool how many wait."""

    def __init__(self, store: Store, pool: InstancePool, now: Callable[[], float]) -> None:
        self._store = store
        self._pool = pool
        self._now = now
        self._lines: dict[tuple[str, bool], trio.Lock] = {}
        self._wanted: Counter[str] = Counter()

    async def place(self, caller: Caller) -> str:
        """Wait, first come first served, for an instance and lease it; its base URL.

        The caller bounds the time. One that is cancelled has left the line, and holds
        what was leased to it until `give_back`.
        """
        await self._free_missed(caller)
        agent = caller.agent.name
        crowd = any(line.locked() for (name, _), line in self._lines.items() if name == agent)
        if not crowd and await self._try(caller):
            assert caller.instance is not None
            return caller.instance
        stored = await self._store.get(caller.session.id)
        promised = stored is not None and stored.reserved_until > self._now()
        line = self._lines.setdefault((agent, promised), trio.Lock())
        with self._wanting(caller.agent):
            async with line:
                while not await self._try(caller):
                    await self._pool.wait_change(caller.agent)
        assert caller.instance is not None
        return caller.instance

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

    async def _try(self, caller: Caller) -> bool:
        places = self._pool.places(caller.agent)
        with trio.CancelScope(shield=True):
            # Shielded: a lease that was given must be known here, to be let go again.
            caller.instance = await self._store.lease(
                caller.session.id, caller.agent, places, self._now()
            )
        if caller.instance is None:
            return False
        if caller.instance not in self._pool.places(caller.agent).ready:
            # It has ended, or begun to, while the store gave it away.
            caller.missed, caller.instance = caller.instance, None
            await self._free_missed(caller)
            return await self._try(caller)
        self._pool.taken(caller.instance, caller.session.id)
        return True
