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
        self._agents: dict[str, Agent] = {}
        self._log = log
        self._jitter = jitter
        self._instances: dict[str, Instance] = {}
        self._of: dict[str, dict[str, Instance]] = {}
        self._names: dict[tuple[str, str], Name] = {}
        self._held_back: frozenset[str] = frozenset()
        self._uses = 0
        self._wanted: set[str] = set()
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._resolver = Resolver()
        self._limiter = trio.CapacityLimiter(MAX_PROBES)
        self.configure(agents)

    async def run(self) -> None:
        """Look names up and probe every instance for as long as the daemon runs."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._watch(list(self._instances.values()))
            for name in self._names.values():
                self._look(name)
            await trio.sleep_forever()

    # Which instances there are.

    def configure(self, agents: Iterable[Agent]) -> None:
        """Have the instances of these agents from now on; what stays keeps what is known of it."""
        self._agents = {agent.name: agent for agent in agents}
        entries = [(agent, entry) for agent in self._agents.values() for entry in agent.instances]
        self._drop({(agent.name, entry) for agent, entry in entries})
        for agent in self._agents.values():
            self._of.setdefault(agent.name, {})
        fresh = []
        for agent, entry in entries:
            found = DnsName.of(entry)
            if found is not None:
                self._find(agent, entry, found)
                continue
            instance = self._instances.get(entry)
            if instance is not None and instance.agent.name != agent.name:
                self._remove(instance)  # who lists an instance has it, who found it has not
                instance = None
            if instance is None:
                instance = self._add(agent, entry)
                fresh.append(instance)
            instance.entries.add(entry)
        self._watch(fresh)
        self._wake()

    def _drop(self, wanted: set[tuple[str, str]]) -> None:
        """Let go of what these agents' names and entries do not stand for."""
        for key in self._names.keys() - wanted:
            self._names.pop(key).scope.cancel()
        for each in list(self._instances.values()):
            name = each.agent.name
            each.entries = {entry for entry in each.entries if (name, entry) in wanted}
            if each.entries:
                each.agent = self._agents[name]
            else:
                self._remove(each)
        for name in self._of.keys() - self._agents.keys():
            del self._of[name]

    def _find(self, agent: Agent, entry: str, found: DnsName) -> None:
        """Have a name looked up as its agent says now."""
        name = self._names.get((agent.name, entry))
        if name is None:
            name = self._names[agent.name, entry] = Name(agent, entry, found)
        else:
            before, name.agent = name.agent, agent
            if (before.dns_server, before.dns_interval) == (agent.dns_server, agent.dns_interval):
                return
            name.scope.cancel()
            name.scope = trio.CancelScope()
        self._look(name)

    def _look(self, name: Name) -> None:
        if self._nursery is not None:
            arguments = (self._resolver, self._listed, self._log, self._jitter)
            self._nursery.start_soon(name.watch, *arguments)

    def _remove(self, instance: Instance) -> None:
        """Calls there go on; nothing is left to know of it but their leases."""
        instance.scope.cancel()
        del self._instances[instance.url], self._of[instance.agent.name][instance.url]

    def _add(self, agent: Agent, url: str) -> Instance:
        instance = Instance(url, agent, self._became, wanted=agent.name in self._wanted)
        self._instances[url] = self._of[agent.name][url] = instance
        return instance

    def _listed(self, name: Name, urls: tuple[str, ...]) -> tuple[str, ...]:
        """Take over what a name stands for; those that are another agent's are not."""
        agent, entry = name.agent, name.entry
        if self._names.get((agent.name, entry)) is not name:
            return ()  # dropped while its answer was on its way
        now = set(urls)
        for each in list(self._of[agent.name].values()):
            if each.url not in now and entry in each.entries:
                each.entries.discard(entry)
                each.rank = None
            if not each.entries:
                self._remove(each)
        fresh = [self._add(agent, url) for url in urls if url not in self._instances]
        ranks = name.found.ranks if name.found is not None else {}
        for url in now & self._of[agent.name].keys():
            each = self._of[agent.name][url]
            each.entries.add(entry)
            each.rank = ranks.get(url, each.rank)
        self._watch(fresh)
        self._wake()
        return tuple(url for url in urls if url not in self._of[agent.name])

    def _watch(self, instances: list[Instance]) -> None:
        if self._nursery is None:
            return  # `run` does it
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
        if described(health) != described(before):
            self._wake()

    def _is_known(self, agent: Agent) -> bool:
        """Whether all that an agent has was looked at."""
        names = [name for (owner, _), name in self._names.items() if owner == agent.name]
        instances = self._of_agent(agent)
        asked = all(each.health.says != UNASKED for each in instances)
        return asked and all(name.looked for name in names)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # What the server asks.

    async def wait_known(self, agent: Agent) -> None:
        with trio.move_on_after(FIRST_LOOK):
            while not self._is_known(agent):
                await self._changed.wait()

    def places(self, agent: Agent) -> Places:
        # Least recently used first: load spreads and a bot has the longest rest.
        here = [each for each in self._of_agent(agent) if each.url not in self._held_back]
        here.sort(key=lambda each: each.used)
        ranks = {each.url: each.rank for each in here if each.rank is not None}
        return Places(tuple(chosen({each.url: each.health for each in here})), ranks=ranks)

    def _of_agent(self, agent: Agent) -> Iterable[Instance]:
        """None for an agent that was configured when its caller came, and is no longer."""
        return self._of.get(agent.name, {}).values()

    def hold_back(self, instances: frozenset[str]) -> None:
        self._held_back = instances
        self._wake()

    def gone(self, instance: str) -> bool:
        unknown = any(name.found is None for name in self._names.values())
        return instance not in self._instances and not unknown

    def want(self, agent: Agent, waiting: int) -> None:
        """There are as many as there are, but those that are not ready are asked more often."""
        wanted = waiting > 0
        if wanted == (agent.name in self._wanted):
            return
        self._wanted ^= {agent.name}
        for each in self._of_agent(agent):
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
        for name in self._names.values():
            found[name.agent.name][name.entry] = name.described
        for each in self._instances.values():
            found[each.agent.name][each.url] = described(each.health)
        return found

    def details(self) -> dict[str, dict[str, dict[str, object]]]:
        found: dict[str, dict[str, dict[str, object]]] = {name: {} for name in self._agents}
        for name in self._names.values():
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
