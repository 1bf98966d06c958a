"""All instances of a node: each agent's come from its own source."""

from __future__ import annotations

__all__ = ["Instances"]

from collections.abc import Collection, Mapping

import trio

from relay.instances.files import BotFiles
from relay.instances.fixed import FixedInstances
from relay.instances.launched import LaunchedInstances
from relay.policy.catalog import Agent
from relay.policy.health import Failure
from relay.policy.interfaces import Log, Places


class Instances:
    """`relay.policy.interfaces.InstancePool` over both sources.

    Args:
        agents: all that are configured.
        environment: what launched bots inherit.
    """

    def __init__(
        self, agents: Collection[Agent], files: BotFiles, environment: Mapping[str, str], log: Log
    ) -> None:
        fixed, launched = _by_source(agents)
        self._fixed = FixedInstances(fixed, log)
        self._launched = LaunchedInstances(launched, files, environment, log)
        self._commands = {agent.name for agent in launched}
        self._waiting: dict[str, int] = {}

    def configure(self, agents: Collection[Agent], environment: Mapping[str, str]) -> None:
        """Have these agents' instances from now on. Calls on others go on.

        Launched bots that are not wanted any more end with their last session.
        """
        fixed, launched = _by_source(agents)
        self._commands = {agent.name for agent in launched}
        self._fixed.configure(fixed)
        self._launched.configure(launched, environment)
        for agent in agents:  # who waits may wait for another source now
            self.want(agent, self._waiting.get(agent.name, 0))

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

    async def wait_known(self, agent: Agent) -> None:
        await self._of(agent).wait_known(agent)

    def hold_back(self, instances: frozenset[str]) -> None:
        self._fixed.hold_back(instances)
        self._launched.hold_back(instances)

    def gone(self, instance: str) -> bool:
        return self._fixed.gone(instance) and self._launched.gone(instance)

    def places(self, agent: Agent) -> Places:
        return self._of(agent).places(agent)

    def want(self, agent: Agent, waiting: int) -> None:
        self._waiting[agent.name] = waiting
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
        source = self._launched if self._launched.knows(instance) else self._of(agent)
        await source.wait_settled(agent, instance, session_id, deaf=deaf)

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
        # As it is now: a caller's agent may have been configured otherwise when it came.
        return self._launched if agent.name in self._commands else self._fixed

    def _at(self, instance: str) -> FixedInstances | LaunchedInstances:
        return self._launched if self._launched.knows(instance) else self._fixed


def _by_source(agents: Collection[Agent]) -> tuple[list[Agent], list[Agent]]:
    """Those whose instances are somebody else's, and those whose are launched."""
    fixed = [agent for agent in agents if not agent.command]
    return fixed, [agent for agent in agents if agent.command]
