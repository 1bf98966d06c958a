"""One instance that is not the daemon's own process: watched by its readiness."""

from __future__ import annotations

__all__ = ["Instance"]

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from relay.instances.probe import ask_capabilities, probe
from relay.policy.capabilities import Capability
from relay.policy.catalog import Address, Agent
from relay.policy.health import READY, Failure, Health, failed, next_probe, probed
from relay.policy.names import Rank


@dataclass(slots=True, eq=False)
class Instance:
    """What is known of an instance, and who keeps knowing it.

    Attributes:
        agent: whose sessions it holds.
        changed: called with its health of before when that has changed.
        entries: of the configuration, by which it was found.
        rank: among those of its agent, as the last answer said that has one for it.
        used: when it was given a session last, in the order of such events.
        wanted: a caller waits for an instance of its agent.
        capabilities: what the bot says of itself, if it does.
        scope: cancel it and nobody watches any more.
    """

    url: str
    agent: Agent
    changed: Callable[[Instance, Health], None]
    entries: set[str] = field(default_factory=set)
    health: Health = field(default_factory=Health)
    rank: Rank | None = None
    used: int = 0
    wanted: bool = False
    capabilities: dict[str, Capability] | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _asked: bool = False
    _probed_at: float = 0.0
    _stirred: trio.Event = field(default_factory=trio.Event)

    def become(self, health: Health) -> None:
        """Take note of its health, and act on it."""
        before, self.health = self.health, health
        if health != before:
            self.changed(self, before)
            self.stir()

    def failed(self, failure: Failure, jitter: float) -> None:
        """It did not take a call."""
        if failure is Failure.UNREACHABLE:
            self._asked = False  # what can be connected later may be another process
        self.become(failed(self.health, failure, trio.current_time(), jitter))

    def stir(self) -> None:
        """Think again of when to probe."""
        self._stirred.set()
        self._stirred = trio.Event()

    async def watch(
        self, delay: float, limiter: trio.CapacityLimiter, jitter: Callable[[], float]
    ) -> None:
        """Probe it, first after `delay` seconds, until the scope is cancelled.

        Args:
            limiter: bounds the probes at a time.
            jitter: numbers from 0 up to 1.
        """
        with self.scope:
            await trio.sleep(delay)
            while True:
                async with limiter:
                    await self.probe()
                    await self._ask_once()
                await self._rest(jitter())

    async def probe(self) -> None:
        """Ask it now whether it is ready."""
        says = await probe(Address.of(self.url), self.agent.ready_path, self.agent.trust)
        self._probed_at = trio.current_time()
        self._asked = self._asked and says != Failure.UNREACHABLE
        self.become(probed(self.health, says, self._probed_at))

    async def _ask_once(self) -> None:
        if self.health.says == READY and not self._asked:
            self._asked = True
            self.capabilities = await ask_capabilities(Address.of(self.url), self.agent.trust)

    async def _rest(self, jitter: float) -> None:
        while True:
            due = next_probe(self.health, self._probed_at, wanted=self.wanted, jitter=jitter)
            with trio.move_on_at(due):
                await self._stirred.wait()
                continue
            return
