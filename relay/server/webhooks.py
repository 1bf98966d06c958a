"""Tells organizations of their sessions: takes events from the outbox and posts them.

Nothing of a call waits for this: the events are rows that were written with the session's
moves, and one task for each receiver comes for them. An event is removed after the
receiver's answer, so one whose answer nobody saw is told again, with the same id.
"""

from __future__ import annotations

__all__ = ["POLL", "Deliveries", "Post", "Webhooks"]

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from random import random

import trio

from relay.errors import StoreError
from relay.policy.catalog import Webhook
from relay.policy.interfaces import Log
from relay.policy.webhooks import (
    Answer,
    Counts,
    Event,
    Outbox,
    Outcome,
    asked_wait,
    fields,
    message,
    outcome_of,
    wait,
)
from relay.server.settling import insist

# Seconds between looks at the outbox: an event waits so long at most.
POLL = 0.5
# Receivers answer in a moment, or seldom at all; who would have nothing under way waits so
# long for that.
REST = 5.0
REST_POLL = 0.02

# Posts fields and a body to a URL: the answer, or what went wrong.
Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Answer | str]]


class Gate:
    """Whether attempts may be begun, and how many looks at the outbox are under way."""

    def __init__(self) -> None:
        self.open = True
        self.inside = 0

    @contextmanager
    def passed(self) -> Iterator[None]:
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


class Deliveries:
    """Tells every organization that wants it of its sessions.

    Args:
        tell: has the store write what is to be told to these organizations.
        now: unix seconds.
    """

    def __init__(
        self,
        outbox: Outbox,
        tell: Callable[[Collection[str]], Awaitable[None]],
        log: Log,
        counts: Counts,
        now: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._tell = tell
        self._log = log
        self._counts = counts
        self._now = now
        self._gate = Gate()
        self._post: Post | None = None
        self._hooks: Mapping[str, Webhook] = {}
        self._running: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery

    async def run(self, hooks: Mapping[str, Webhook]) -> None:
        """Do so until cancelled, for organizations that the store knows of already."""
        async with trio.open_nursery() as self._nursery:
            self._begin(hooks)
            await trio.sleep_forever()

    def follow(self, hooks: Mapping[str, Webhook]) -> None:
        """Tell these from now on; what waits for one that has changed goes to the new address."""
        if hooks.keys() != self._hooks.keys():
            self._nursery.start_soon(insist, partial(self._tell, list(hooks)), self._log)
        self._begin(hooks)

    @asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Nothing is begun within the block, nor under way but what takes longer than `REST`.

        What was under way when this process gave up its node would be told twice.
        """
        self._gate.open = False
        try:
            with trio.move_on_after(REST):
                while self._gate.inside:
                    await trio.sleep(REST_POLL)
            yield
        finally:
            self._gate.open = True

    def _begin(self, hooks: Mapping[str, Webhook]) -> None:
        for name in [name for name in self._running if hooks.get(name) != self._hooks[name]]:
            self._running.pop(name).cancel()
        self._hooks = hooks
        for name in hooks.keys() - self._running.keys():
            scope = self._running[name] = trio.CancelScope()
            self._nursery.start_soon(self._deliver, name, hooks[name], scope)

    async def _deliver(self, name: str, hook: Webhook, scope: trio.CancelScope) -> None:
        if self._post is None:
            from relay.server.webhook_client import poster  # large, and seldom needed

            self._post = poster()
        with scope:
            one = Webhooks(name, hook, self._outbox, self._post, self._log, self._counts, self._now)
            await one.run(self._gate)


class Webhooks:
    """One organization's receiver; see the module.

    Args:
        post: raises nothing and answers in a bounded time.
        now: unix seconds.
        share: a random number from 0 to 1.
    """

    def __init__(
        self,
        organization: str,
        hook: Webhook,
        outbox: Outbox,
        post: Post,
        log: Log,
        counts: Counts,
        now: Callable[[], float],
        share: Callable[[], float] = random,
    ) -> None:
        self._organization = organization
        self._hook = hook
        self._outbox = outbox
        self._post = post
        self._log = log
        self._counts = counts
        self._now = now
        self._share = share
        self._is_gone = False
        self._is_failing = False

    async def run(self, gate: Gate) -> None:
        """Deliver until cancelled, as far as the gate is open."""
        released = False
        while True:
            with suppress(StoreError):  # the next look will do; what waits is safe there
                if not released:
                    await self._outbox.release(self._organization)
                    released = True
                if gate.open:
                    with gate.passed():
                        if await self.look():
                            continue
            await trio.sleep(POLL)

    async def look(self) -> bool:
        """Deliver what is due, some at a time; whether there was anything.

        Raises:
            StoreError: the outbox can't be used.
        """
        if self._is_gone:
            await self._clear()
            return False
        claimed = await self._outbox.claim(self._organization, self._now())
        self._counts.webhooks_waiting(self._organization, claimed.waiting)
        for kind in claimed.old:
            self._counts.webhook(kind, Outcome.GIVEN_UP)
        for kind in claimed.over:
            self._counts.webhook(kind, Outcome.DROPPED)
        if claimed.old or claimed.over:
            self._log.warning(
                "webhooks_dropped",
                organization=self._organization,
                old=len(claimed.old),
                over=len(claimed.over),
            )
        async with trio.open_nursery() as nursery:
            for event in claimed.events:
                nursery.start_soon(self._try, event)
        return bool(claimed.events)

    async def _try(self, event: Event) -> None:
        try:
            await self._deliver(event)
        except Exception as error:
            # Calls go on, whatever this is; the claim lapses, and in the end its time is over.
            self._log.failure("bug", error, session_id=event.session.id)

    async def _deliver(self, event: Event) -> None:
        body = message(event)
        head = fields(event, body, self._hook.secret, self._now())
        answer = await self._post(self._hook.url, head, body)
        status = answer.status if isinstance(answer, Answer) else None
        outcome = outcome_of(status, event.attempts)
        self._counts.webhook(event.type, outcome)
        self._tell(outcome, answer)
        # A claim that cannot be given up lapses, and the event is told once more.
        with suppress(StoreError):
            if outcome is Outcome.FAILED:
                now, seconds = self._now(), wait(event.attempts, self._share())
                if isinstance(answer, Answer):
                    seconds = max(seconds, asked_wait(answer.retry_after, now))
                await self._outbox.put_off(event, now + seconds)
            else:
                await self._outbox.remove(event)

    def _tell(self, outcome: Outcome, answer: Answer | str) -> None:
        """One line when a receiver begins to fail, one when it takes events again."""
        if outcome is Outcome.DELIVERED:
            if self._is_failing:
                self._log.event("webhook_back", organization=self._organization)
            self._is_failing = False
        elif outcome is Outcome.GONE:
            if not self._is_gone:
                self._log.warning("webhook_gone", organization=self._organization)
            self._is_gone = True
        elif not self._is_failing:
            reason = answer if isinstance(answer, str) else f"answered {answer.status}"
            self._log.warning("webhook_failed", organization=self._organization, reason=reason)
            self._is_failing = True

    async def _clear(self) -> None:
        for kind in await self._outbox.clear(self._organization):
            self._counts.webhook(kind, Outcome.GONE)
        self._counts.webhooks_waiting(self._organization, 0)
