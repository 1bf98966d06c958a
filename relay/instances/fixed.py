"""Instances that somebody else runs: listed by URL or found by name, watched by their readiness."""

from __future__ import annotations

__all__ = ["FixedInstances"]

import random
from collections.abc import Callable, Iterable

import trio

from relay.instances.dns import Resolver
from relay.instances.instance import Instance
from relay.instances.named import Name
from relay.policy.catalog import Agent, DnsName
from relay.policy.health import (
    UNASKED,
    Failure,
    Health,
    chosen,
    described,
    expected,
    served,
)
from relay.policy.interfaces import Log, Places

# How long a caller may be kept for the very first look at the instances.
FIRST_LOOK = 2.5
# A waiting caller looks again at the latest after this, since another node that
# shares the store may have freed an instance.
LOOK_AGAIN = 0.5
# First probes of instances that become known together are so far apart, and all of them
# begin within FIRST_PROBES: callers wait for them.
PROBE_STEP = 0.005
FIRST_PROBES = 1.0
# Probes at a time; they fit into the descriptors that connections can't use.
MAX_PROBES = 48


class FixedInstances:
    """`relay.policy.interfaces.InstancePool` over the `instances` of the configuration.

    Law: an instance is one base URL and belongs to one agent, however many entries find it.

    Args:
        jitter: numbers from 0 up to 1.
    """

    def __init__(
        self, agents: Iterable[Agent], log: Log, jitter: Callable[[], float] = random.random
    ) -> None:
        self._agents = {agent.name: agent for agent in agents}
        self._log = log
        self._jitter = jitter
        self._instances: dict[str, Instance] = {}
        self._of: dict[str, dict[str, Instance]] = {name: {} for name in self._agents}
        self._names: list[Name] = []
        self._uses = 0
        self._wanted: set[str] = set()
        self._changed = trio.Event()
        self._known = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._limiter = trio.CapacityLimiter(MAX_PROBES)
        for agent in self._agents.values():
            for entry in agent.instances:
                if (name := DnsName.of(entry)) is not None:
                    self._names.append(Name(agent, entry, name))
                else:
                    self._add(agent, entry).entries.add(entry)

    async def run(self) -> None:
        """Look names up and probe every instance for as long as the daemon runs."""
        resolver = Resolver()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._watch(list(self._instances.values()))
            self._note_known()
            for name in self._names:
                nursery.start_soon(name.watch, resolver, self._listed, self._log, self._jitter)
            await trio.sleep_forever()

    # Which instances there are.

    def _add(self, agent: Agent, url: str) -> Instance:
        instance = Instance(url, agent, self._became, wanted=agent.name in self._wanted)
        self._instances[url] = self._of[agent.name][url] = instance
        return instance

    def _listed(self, name: Name, urls: tuple[str, ...]) -> tuple[str, ...]:
        """Take over what a name stands for; those that are another agent's are not."""
        agent, entry = name.agent, name.entry
        now = set(urls)
        for each in list(self._of[agent.name].values()):
            if each.url not in now:
                each.entries.discard(entry)
            if not each.entries:
                # Calls there go on; nothing is left to know of it but their leases.
                each.scope.cancel()
                del self._instances[each.url], self._of[agent.name][each.url]
        fresh = [self._add(agent, url) for url in urls if url not in self._instances]
        for url in now & self._of[agent.name].keys():
            self._of[agent.name][url].entries.add(entry)
        self._watch(fresh)
        self._note_known()
        return tuple(url for url in urls if url not in self._of[agent.name])

    def _watch(self, instances: list[Instance]) -> None:
        assert self._nursery is not None
        step = min(PROBE_STEP, FIRST_PROBES / max(1, len(instances)))
        for place, each in enumerate(instances):
            self._nursery.start_soon(each.watch, place * step, self._limiter, self._jitter)

    # What is known of them.

    def _became(self, instance: Instance, before: Health) -> None:
        health = instance.health
        if health.aside != before.aside:
            name, url = instance.agent.name, instance.url
            if health.aside is None:
                self._log.event("instance_back", agent=name, instance=url)
            else:
                wait = round(health.aside - trio.current_time(), 3)
                self._log.warning(
                    "instance_aside",
                    agent=name,
                    instance=url,
                    reason=health.why,
                    failures=health.failures,
                    wait=wait,
                )
        self._note_known()
        if described(health) != described(before):
            self._wake()

    def _note_known(self) -> None:
        if self._known.is_set() or not all(name.looked for name in self._names):
            return
        if all(each.health.says != UNASKED for each in self._instances.values()):
            self._known.set()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # What the server asks.

    async def wait_known(self) -> None:
        with trio.move_on_after(FIRST_LOOK):
            await self._known.wait()

    def places(self, agent: Agent) -> Places:
        # Least recently used first: load spreads and a bot has the longest rest.
        instances = sorted(self._of[agent.name].values(), key=lambda each: each.used)
        return Places(tuple(chosen({each.url: each.health for each in instances})))

    def want(self, agent: Agent, waiting: int) -> None:
        """There are as many as there are, but those that are not ready are asked more often."""
        wanted = waiting > 0
        if wanted == (agent.name in self._wanted):
            return
        self._wanted ^= {agent.name}
        for each in self._of[agent.name].values():
            each.wanted = wanted
            each.stir()

    async def wait_change(self, agent: Agent) -> None:
        with trio.move_on_after(LOOK_AGAIN):
            await self._changed.wait()

    def taken(self, instance: str, session_id: str) -> None:
        if instance in self._instances:  # it may have been in an earlier configuration only
            self._uses += 1
            self._instances[instance].used = self._uses

    def failed(self, instance: str, failure: Failure) -> None:
        if (each := self._instances.get(instance)) is not None:
            each.failed(failure, self._jitter())

    def served(self, instance: str) -> None:
        if (each := self._instances.get(instance)) is not None:
            each.become(served(each.health))

    async def wait_settled(
        self, agent: Agent, instance: str, session_id: str, *, deaf: bool
    ) -> None:
        if deaf:
            await trio.sleep(agent.stopping_time)
        await trio.sleep(agent.settle_time)
        each = self._instances.get(instance)
        if each is not None and agent.sessions_per_instance == 1:
            # A bot of one session says after each whether it can take the next. One of
            # many goes on being ready, and the regular probe finds out if it does not.
            each.become(expected(each.health))
            await each.probe()

    async def has_failed(self, instance: str) -> bool:
        return False  # whose process it is cannot be seen

    def freed(self, instance: str, session_id: str) -> None:
        self._wake()

    def reconciled(self) -> None:
        """Probes alone say what an instance of somebody else is fit for."""

    def started_at(self, instance: str) -> float | None:
        return None

    def statistics(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {name: {} for name in self._agents}
        for name in self._names:
            found[name.agent.name][name.entry] = name.described
        for each in self._instances.values():
            found[each.agent.name][each.url] = described(each.health)
        return found

    def details(self) -> dict[str, dict[str, dict[str, object]]]:
        found: dict[str, dict[str, dict[str, object]]] = {name: {} for name in self._agents}
        for name in self._names:
            found[name.agent.name][name.entry] = {
                "state": name.described,
                "failing": name.failure is not None,
                "instances": len(name.found.urls) if name.found is not None else 0,
                "leftOut": len(name.found.left_out) if name.found is not None else 0,
                "shared": list(name.shared),
            }
        for each in self._instances.values():
            found[each.agent.name][each.url] = {
                "state": described(each.health),
                "failures": each.health.failures,
                "foundBy": sorted(each.entries),
                "capabilities": each.capabilities,
            }
        return found
