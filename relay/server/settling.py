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
        # Each with the time, by trio's clock, before which it can't be over.
        self._resting: dict[trio.CancelScope, float] = {}
        self._successor: Successor | None = None

    def begin(
        self, agent: Agent | None, instance: str, session_id: str, *, deaf: bool = False
    ) -> None:
        """Free an instance when it has settled; one that nobody may use any more at once."""
        self._nursery.start_soon(self._settle, agent, instance, session_id, deaf)

    def hand_over(self, successor: Successor) -> None:
        """From now on the next process does it; it finds those that rest by their leases."""
        self._successor = successor
        for scope in self._resting:
            scope.cancel()

    def end(self, seconds: float) -> None:
        """Let those go that can settle within so many seconds, and give up the others now.

        Whoever is the node next finds them by their leases.
        """
        self._nursery.cancel_scope.deadline = end = trio.current_time() + seconds
        for scope, earliest in self._resting.items():
            if earliest > end:
                scope.cancel()

    async def _settle(
        self, agent: Agent | None, instance: str, session_id: str, deaf: bool
    ) -> None:
        if self._successor is not None:
            name = agent.name if agent is not None else ""
            await self._successor.settle(session_id, instance, name, deaf=deaf)
            return
        with trio.CancelScope() as scope:
            self._resting[scope] = trio.current_time() + _rest(agent, deaf=deaf)
            try:
                if agent is not None:
                    await self._pool.wait_settled(agent, instance, session_id, deaf=deaf)
                await self._sides.wait_gone(session_id)
                await insist(partial(self._store.free, session_id, instance), self._log)
                self._pool.freed(instance, session_id)
            finally:
                del self._resting[scope]


def _rest(agent: Agent | None, *, deaf: bool) -> float:
    """How long an instance is left alone at least; a process of ours may be over any moment."""
    if agent is None or agent.command:
        return 0.0
    return agent.settle_time + (agent.stopping_time if deaf else 0.0)


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
