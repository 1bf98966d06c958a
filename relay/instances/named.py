"""Names that stand for instances, looked up again and again."""

from __future__ import annotations

__all__ = ["Name"]

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

from relay.instances.dns import LookupFailure, Resolver
from relay.policy.catalog import Agent, DnsName
from relay.policy.health import spread
from relay.policy.interfaces import Log
from relay.policy.names import MAX_ADDRESSES, Found, next_look

# After a look that failed, the next one: names may come back sooner than they change.
RETRY = 2.0
# Of a long list a log line shows so many.
MAX_SHOWN = 20


@dataclass(slots=True, eq=False)
class Name:
    """One entry of an agent's `instances`, and what is known of it.

    Attributes:
        found: the last answer; None before the first.
        shared: of its instances, those that are another agent's.
        failure: why the last look failed; None if it did not.
        scope: cancel it and nobody looks any more.
    """

    agent: Agent
    entry: str
    name: DnsName
    found: Found | None = None
    shared: tuple[str, ...] = ()
    failure: str | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def looked(self) -> bool:
        """Whether it was looked up, with whatever result."""
        return self.found is not None or self.failure is not None

    @property
    def described(self) -> str:
        """Its state in a few words."""
        count = len(self.found.urls) if self.found is not None else 0
        many = f"{count} instance{'' if count == 1 else 's'}"
        if self.failure is not None:
            return f"{self.failure}; {many} kept"
        return many if self.found is not None else "not looked up yet"

    async def watch(
        self,
        resolver: Resolver,
        listed: Callable[[Name, tuple[str, ...]], tuple[str, ...]],
        log: Log,
        jitter: Callable[[], float],
    ) -> None:
        """Look it up until the scope is cancelled.

        Args:
            listed: takes what it stands for now, returns those that are another agent's. Called
                after each look, with the last known instances when it failed.
            jitter: numbers from 0 up to 1.
        """
        with self.scope:
            while True:
                try:
                    found = await resolver.look(self.name, self.agent.dns_server)
                except LookupFailure as error:
                    self._failed(str(error), log)
                    wait = min(self.agent.dns_interval, RETRY)
                else:
                    self._answered(found, log)
                    wait = next_look(self.agent.dns_interval, found.ttl)
                self._share(listed(self, self.found.urls if self.found else ()), log)
                await trio.sleep(spread(wait, jitter()))

    def _failed(self, why: str, log: Log) -> None:
        if self.failure is None:
            kept = len(self.found.urls) if self.found else 0
            log.warning(
                "dns_failed", agent=self.agent.name, entry=self.entry, reason=why, kept=kept
            )
        self.failure = why

    def _answered(self, found: Found, log: Log) -> None:
        before = self.found or Found()
        joined, gone = _less(found.urls, before.urls), _less(before.urls, found.urls)
        if joined or gone or not self.looked or self.failure is not None:
            log.event(
                "dns_answer",
                agent=self.agent.name,
                entry=self.entry,
                instances=len(found.urls),
                joined=joined[:MAX_SHOWN],
                gone=gone[:MAX_SHOWN],
            )
        if found.left_out and found.left_out != before.left_out:
            log.warning(
                "dns_left_out",
                agent=self.agent.name,
                entry=self.entry,
                most=MAX_ADDRESSES,
                count=len(found.left_out),
                left_out=found.left_out[:MAX_SHOWN],
            )
        self.found, self.failure = found, None

    def _share(self, shared: tuple[str, ...], log: Log) -> None:
        if _less(shared, self.shared):
            log.warning(
                "dns_shared",
                agent=self.agent.name,
                entry=self.entry,
                count=len(shared),
                instances=shared[:MAX_SHOWN],
            )
        self.shared = shared


def _less(these: Iterable[str], those: Iterable[str]) -> list[str]:
    without = set(those)
    return [each for each in these if each not in without]
