"""All instances of a node: each agent's come from its own source."""

from __future__ import annotations

__all__ = ["Instances"]

import trio

from relay.instances.fixed import FixedInstances
from relay.instances.launched import LaunchedInstances
from relay.policy.catalog import Agent
from relay.policy.health import Failure
from relay.policy.interfaces import Places


class Instances:
    """`relay.policy.interfaces.InstancePool` over both sources."""

    def __init__(self, fixed: FixedInstances, launched: LaunchedInstances) -> None:
        self._fixed = fixed
        self._launched = launched

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Started once the launched bots that are there already have been found."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fixed.run)
            await nursery.start(self._launched.run)
            task_status.started()

    def drain(self) -> None:
        """Start bots for callers who are here already, and no others."""
        self._launched.drain()

    async def end(self, hurry: trio.Event) -> None:
        await self._launched.end(hurry)

    async def wait_known(self) -> None:
        await self._launched.wait_known()
        await self._fixed.wait_known()

    def places(self, agent: Agent) -> Places:
        return self._of(agent).places(agent)

    def want(self, agent: Agent, waiting: int) -> None:
        self._of(agent).want(agent, waiting)

    async def wait_change(self, agent: Agent) -> None:
        await self._of(agent).wait_change(agent)

    def taken(self, instance: str, session_id: str) -> None:
        self._at(instance).taken(instance, session_id)

    def failed(self, instance: str, failure: Failure) -> None:
        self._at(instance).failed(instance, failure)

    def served(self, instance: str) -> None:
        self._fixed.served(instance)  # a process of ours is judged by its readiness alone

    async def wait_settled(
        self, agent: Agent, instance: str, session_id: str, *, deaf: bool
    ) -> None:
        await self._of(agent).wait_settled(agent, instance, session_id, deaf=deaf)

    async def has_failed(self, instance: str) -> bool:
        return await self._at(instance).has_failed(instance)

    def freed(self, instance: str, session_id: str) -> None:
        self._fixed.freed(instance, session_id)
        self._launched.freed(instance, session_id)

    def reconciled(self) -> None:
        self._launched.reconciled()

    def statistics(self) -> dict[str, dict[str, str]]:
        return self._fixed.statistics() | self._launched.statistics()

    def details(self) -> dict[str, dict[str, dict[str, object]]]:
        found = self._fixed.details()
        for agent, instances in self._launched.details().items():
            found.setdefault(agent, {}).update(instances)
        return found

    def started_at(self, instance: str) -> float | None:
        return self._at(instance).started_at(instance)

    def _of(self, agent: Agent) -> FixedInstances | LaunchedInstances:
        return self._launched if agent.command else self._fixed

    def _at(self, instance: str) -> FixedInstances | LaunchedInstances:
        return self._launched if self._launched.knows(instance) else self._fixed
