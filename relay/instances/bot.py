"""One launched bot from its start to its end.

STARTING until its readiness route says yes, READY until it is to end or is in doubt,
ENDING until nothing of it is left.
"""

from __future__ import annotations

__all__ = ["Bot", "State"]

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import trio

from relay.instances.files import Record
from relay.instances.probe import READY, probe
from relay.instances.process import Process
from relay.policy.catalog import Address, Agent

HOST = "127.0.0.1"
UNASKED = "not probed yet"
# A caller waits for this; a bot that is not up yet refuses the connection at no cost.
PROBE_AGAIN = 0.1


class State(Enum):
    STARTING = "starting"
    READY = "ready"
    ENDING = "ending"


@dataclass(slots=True, eq=False)
class Bot:
    """What is known of a bot, and its life.

    Attributes:
        agent: as it is configured now.
        changed: called when it may be worth looking at again.
        first_ready: called once, when it has become ready.
        health: what the last probe said.
        sessions: those that have a lease on it.
        used: when it was given a session last, in the order of such events.
        ready_after: seconds from its start, once it was ready.
        outdated: it takes no new session and ends with its last.
        retiring: it is to end now.
        stuck: it could not be killed.
        grace: the time between SIGTERM and SIGKILL.
    """

    record: Record
    process: Process
    agent: Agent
    changed: Callable[[], None]
    first_ready: Callable[[Bot], None]
    state: State = State.STARTING
    health: str = UNASKED
    sessions: set[str] = field(default_factory=set)
    used: int = 0
    outdated: bool = False
    retiring: bool = False
    stuck: bool = False
    since: float = field(default_factory=trio.current_time)
    ready_after: float | None = None
    grace: trio.CancelScope = field(default_factory=trio.CancelScope)
    gone: trio.Event = field(default_factory=trio.Event)
    _stirred: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.record.port}"

    @property
    def offered(self) -> bool:
        """Whether it may be given a session, as far as is known here."""
        return self.state is State.READY and not self.outdated

    @property
    def described(self) -> str:
        """Its state in a few words."""
        if self.state is State.STARTING:
            return f"starting: {self.health}"
        return "outdated" if self.outdated and self.state is State.READY else self.state.value

    def doubt(self, reason: str) -> None:
        """It is not ready until a probe says so again."""
        if self.state is State.READY:
            self.state, self.health = State.STARTING, reason
            self._stir()

    def retire(self) -> None:
        """End it."""
        self.retiring = True
        self._stir()

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = trio.Event()

    async def run(self, may_begin: trio.Event) -> str | None:
        """Watch over it until nothing of it is left.

        Args:
            may_begin: set when it is known whether it holds sessions.

        Returns:
            Why it ended, unless it was told to.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.process.watch)
            why = await self._serve(may_begin)
            self.state = State.ENDING
            self.changed()
            self.grace.deadline = min(
                self.grace.deadline, trio.current_time() + self.agent.stop_timeout
            )
            if not await self.process.end(self.grace):
                why, self.stuck = "it can't be killed", True
                nursery.cancel_scope.cancel()
        return why

    async def _serve(self, may_begin: trio.Event) -> str | None:
        """Return when it has exited, has failed or is to end; why, in the first two cases."""
        why: str | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_exit, nursery.cancel_scope)
            await may_begin.wait()
            why = await self._be_ready()
            nursery.cancel_scope.cancel()
        if self.process.exited.is_set() and not self.retiring:
            return _exit_text(self.process.status)
        return why

    async def _cancel_at_exit(self, scope: trio.CancelScope) -> None:
        await self.process.exited.wait()
        scope.cancel()

    async def _be_ready(self) -> str | None:
        while True:
            if not await self._becomes_ready():
                return f"not ready within {self.agent.start_timeout:g} s: {self.health}"
            if self.retiring:
                return None
            if self.ready_after is None:
                self.ready_after = trio.current_time() - self.since
                self.first_ready(self)
            self.state, self.health = State.READY, READY
            self.changed()
            await self._stirred.wait()

    async def _becomes_ready(self) -> bool:
        """False when it was not ready in time; one that holds a session is given all of it."""
        if self.sessions and self.health == UNASKED:
            return True  # an adopted one, which may well say that it takes no other
        until = trio.current_time() + self.agent.start_timeout
        while not self.retiring:
            self.health = await probe(Address.of(self.url), self.agent.ready_path)
            if self.health == READY:
                return True
            if trio.current_time() >= until and not self.sessions:
                return False
            with trio.move_on_after(PROBE_AGAIN):
                await self._stirred.wait()
        return True


def _exit_text(status: int | None) -> str:
    if status is None:
        return "it exited"
    return f"killed by signal {-status}" if status < 0 else f"it exited with status {status}"
