"""A fixed list of instances per agent, watched by their readiness."""

from __future__ import annotations

__all__ = ["FixedInstances"]

from collections.abc import Iterable

import trio

from relay.instances.probe import READY, probe
from relay.policy.catalog import Address, Agent
from relay.policy.interfaces import Places

# Seconds between probes of an instance that was ready and of one that was not: a
# session waits for the second, so it is short; the first only finds silent deaths.
PROBE_READY = 5.0
PROBE_UNREADY = 0.25
# How long a caller may be kept for the very first look at the instances.
FIRST_LOOK = 2.5
# A waiting caller looks again at the latest after this, since another node that
# shares the store may have freed an instance.
LOOK_AGAIN = 0.5


class FixedInstances:
    """`relay.policy.interfaces.InstancePool` over the URLs in the configuration."""

    def __init__(self, agents: Iterable[Agent]) -> None:
        self._agents = {agent.name: agent for agent in agents}
        self._state: dict[str, str] = {
            url: "not probed yet" for agent in self._agents.values() for url in agent.instances
        }
        self._last_used: dict[str, int] = dict.fromkeys(self._state, 0)
        self._uses = 0
        self._changed = trio.Event()
        self._known = trio.Event()
        self._unknown = set(self._state)
        self._doubts: dict[str, trio.Event] = {}  # set when a ready instance is no longer

    async def run(self) -> None:
        """Probe every instance for as long as the daemon runs."""
        async with trio.open_nursery() as nursery:
            if not self._state:
                self._known.set()
            for agent in self._agents.values():
                for url in agent.instances:
                    nursery.start_soon(self._watch, agent, url)

    async def _watch(self, agent: Agent, url: str) -> None:
        while True:
            await self._probe(agent, url)
            if self._state[url] == READY:
                self._doubts[url] = trio.Event()
                with trio.move_on_after(PROBE_READY):
                    await self._doubts[url].wait()
            if self._state[url] != READY:
                await trio.sleep(PROBE_UNREADY)

    async def _probe(self, agent: Agent, url: str) -> None:
        state = await probe(Address.of(url), agent.ready_path)
        self._unknown.discard(url)
        if not self._unknown:
            self._known.set()
        self._found(url, state)

    def _found(self, url: str, state: str) -> None:
        if state == self._state[url]:
            return
        self._state[url] = state
        if state != READY and url in self._doubts:
            self._doubts[url].set()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_known(self) -> None:
        with trio.move_on_after(FIRST_LOOK):
            await self._known.wait()

    def places(self, agent: Agent) -> Places:
        # Least recently used first: load spreads and a bot has the longest rest.
        ready = [url for url in agent.instances if self._state[url] == READY]
        return Places(tuple(sorted(ready, key=self._last_used.__getitem__)))

    def want(self, agent: Agent, waiting: int) -> None:
        """There are as many as there are."""

    async def wait_change(self, agent: Agent) -> None:
        with trio.move_on_after(LOOK_AGAIN):
            await self._changed.wait()

    def taken(self, instance: str, session_id: str) -> None:
        if instance in self._last_used:  # it may have been in an earlier configuration only
            self._uses += 1
            self._last_used[instance] = self._uses

    def failed(self, instance: str, reason: str) -> None:
        if self._state.get(instance) == READY:
            self._found(instance, reason)

    async def wait_settled(
        self, agent: Agent, instance: str, session_id: str, *, deaf: bool
    ) -> None:
        if deaf:
            await trio.sleep(agent.stopping_time)
        await trio.sleep(agent.settle_time)
        if instance in self._state and agent.sessions_per_instance == 1:
            # A bot of one session says after each whether it can take the next. One of
            # many goes on being ready, and the regular probe finds out if it does not.
            await self._probe(agent, instance)

    async def has_failed(self, instance: str) -> bool:
        return False  # whose process it is cannot be seen

    def freed(self, instance: str, session_id: str) -> None:
        self._wake()

    def reconciled(self) -> None:
        """Probes alone say what a fixed instance is fit for."""

    def statistics(self) -> dict[str, dict[str, str]]:
        return {
            name: {url: self._state[url] for url in agent.instances}
            for name, agent in self._agents.items()
        }
