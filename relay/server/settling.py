"""Instances whose session is over: freed when their bots have really ended."""

from __future__ import annotations

__all__ = ["RETRY_STORE", "Settling", "insist"]

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from relay.errors import StoreError
from relay.policy.catalog import Agent
from relay.policy.interfaces import InstancePool, Log, Store
from relay.server.handing import Successor
from relay.server.side_tunnels import SideTunnels

T = TypeVar("T")

# How often a store that failed is asked again to record something that must not be lost.
RETRY_STORE = 1.0


class Settling:
    """Lets instances go.

    Args:
        nursery: where that is done, in the background; it outlives connections.
    """

    def __init__(
        self,
        store: Store,
        pool: InstancePool,
        sides: SideTunnels,
        log: Log,
        nursery: trio.Nursery,
    ) -> None:
        self._store = store
        self._pool = pool
        self._sides = sides
        self._log = log
        self._nursery = nursery
        self._scopes: set[trio.CancelScope] = set()
        self._successor: Successor | None = None

    def begin(
        self, agent: Agent | None, instance: str, session_id: str, *, deaf: bool = False
    ) -> None:
        """Free an instance when it has settled; one that nobody may use any more at once."""
        self._nursery.start_soon(self._settle, agent, instance, session_id, deaf)

    def hand_over(self, successor: Successor) -> None:
        """From now on the next process does it; it finds those that rest by their leases."""
        self._successor = successor
        for scope in self._scopes:
            scope.cancel()

    async def _settle(
        self, agent: Agent | None, instance: str, session_id: str, deaf: bool
    ) -> None:
        if self._successor is not None:
            name = agent.name if agent is not None else ""
            await self._successor.settle(session_id, instance, name, deaf=deaf)
            return
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if agent is not None:
                    await self._pool.wait_settled(agent, instance, session_id, deaf=deaf)
                await self._sides.wait_gone(session_id)
                await insist(partial(self._store.free, session_id, instance), self._log)
                self._pool.freed(instance, session_id)
            finally:
                self._scopes.discard(scope)


async def insist(step: Callable[[], Awaitable[T]], log: Log) -> T:
    """Do something that must not be lost, however long the store is away."""
    told = False
    while True:
        try:
            return await step()
        except StoreError as error:
            if not told:
                log.failure("store", error)
            told = True
            await trio.sleep(RETRY_STORE)
