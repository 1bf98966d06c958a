"""One launched bot from its start to its end.

STARTING until its readiness route says yes, READY until it is to end or is in doubt,
ENDING until nothing of it is left. One that is idle is asked again from time to time; one
that carries a session is left alone, whatever it says.
"""

from __future__ import annotations

__all__ = ["Bot", "State"]

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import trio

from relay.instances.files import Record
from relay.instances.probe import READY, answers, ask_capabilities, probe
from relay.instances.process import Process
from relay.instances.usage import Usage
from relay.policy.capabilities import Capability
from relay.policy.catalog import Address, Agent

HOST = "127.0.0.1"
UNASKED = "not probed yet"
INTERRUPTED = "asked no more"
# A caller waits for this; a bot that is not up yet refuses the connection at no cost.
PROBE_AGAIN = 0.1
# An idle bot waits for its next caller, who should not be the one to find out that it hangs.
PROBE_IDLE = 5.0
# One that was ready, is idle and says nothing any more is asked so often, at this distance,
# before it is given up: a pause for a second or two (a garbage collection, a page-in) passes.
SILENT_MOST = 3
PROBE_SILENT = 1.0
# What hangs without a session has nothing to bring to an end, and somebody may need its place.
SILENT_GRACE = 2.0
# A bot that dies without a session before it has been ready for so long has failed to
# start: a command that ends a moment after its readiness is broken too.
YOUNG = 10.0


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
        used: when it was given a session last, in the order of such events; 0 for never.
        idle_since: since when it has had no session, in seconds of trio's clock.
        since: when it was started here or adopted, likewise.
        adopted: when it was started is an earlier control process's knowledge.
        ready_after: seconds from `since`, once it was ready.
        silent: probes without an answer, since it was idle and ready.
        proven: it has been given a session, or is not young any more, and that was noted.
        usage: what its processes used at the last look; None before the first.
        capabilities: what it says of itself, if it does and has been idle for a while.
        outdated: it was started in another way than its agent's bots are now.
        held_back: an operator lets it drain.
        retiring: it is to end now.
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
    adopted: bool = False
    outdated: bool = False
    held_back: bool = False
    retiring: bool = False
    since: float = field(default_factory=trio.current_time)
    idle_since: float = field(default_factory=trio.current_time)
    ready_after: float | None = None
    silent: int = 0
    proven: bool = False
    usage: Usage | None = None
    capabilities: dict[str, Capability] | None = None
    grace: trio.CancelScope = field(default_factory=trio.CancelScope)
    gone: trio.Event = field(default_factory=trio.Event)
    _asked: bool = False
    _watched: bool = False  # it was ready, and has not been given a session to end since
    _looking: trio.CancelScope = field(default_factory=trio.CancelScope)
    _stirred: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.record.port}"

    @property
    def young(self) -> bool:
        """Whether it has not been ready for long."""
        ready = self.ready_after
        return ready is None or trio.current_time() - self.since - ready < YOUNG

    @property
    def staying(self) -> bool:
        """Whether it is neither ending nor to end soon."""
        return self.state is not State.ENDING and not self.retiring and self.wanted

    @property
    def wanted(self) -> bool:
        """Whether it may get another session; otherwise it ends with its last."""
        return not (self.outdated or self.held_back)

    @property
    def offered(self) -> bool:
        """Whether it may be given a session, as far as is known here."""
        return self.state is State.READY and self.staying

    @property
    def described(self) -> str:
        """Its state in a few words."""
        if self.state is State.STARTING:
            return f"starting: {self.health}"
        return "outdated" if self.outdated and self.state is State.READY else self.state.value

    @property
    def started(self) -> float | None:
        """When its process was started, in seconds of trio's clock; None if not known."""
        return None if self.adopted else self.since

    @property
    def figures(self) -> dict[str, object]:
        """What is known of its processes; the last four are None before they were looked at."""
        age = None if self.started is None else round(trio.current_time() - self.started, 3)
        used = self.usage
        return {
            "pid": self.process.known.pid,
            "sessions": len(self.sessions),
            "ageSeconds": age,
            "capabilities": self.capabilities,
            "processes": None if used is None else used.processes,
            "rssBytes": None if used is None else used.rss,
            "pssBytes": None if used is None else used.pss,
            "cpuSeconds": None if used is None else used.cpu,
        }

    def take(self, session: str, use: int) -> None:
        """It is given a session; `use` counts such events over all bots."""
        self.sessions.add(session)
        self.used = use

    def release(self, session: str) -> None:
        """A session has left it."""
        if session in self.sessions:
            self.sessions.discard(session)
            self.idle_since = trio.current_time()

    def doubt(self, reason: str) -> None:
        """It is not ready until a probe says so again."""
        if self.state is State.READY:
            self.state, self.health = State.STARTING, reason
            self._stir()

    def settle(self, session: str) -> None:
        """Its only session is over; it says itself when it can take the next, in its own time."""
        self.release(session)
        self._watched = False
        self.doubt("settling")

    def retire(self) -> None:
        """End it."""
        self.retiring = True
        self._looking.cancel()
        self._stir()

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = trio.Event()

    async def serve(self, may_begin: trio.Event) -> str | None:
        """Return when it has exited, has failed or is to end; `process.watch` runs meanwhile.

        Args:
            may_begin: set when it is known whether it holds sessions.

        Returns:
            Why it is to end, unless it was told to.
        """
        why: str | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_exit, nursery.cancel_scope)
            await may_begin.wait()
            why = await self._be_ready()
            nursery.cancel_scope.cancel()
        self.state = State.ENDING
        if self.process.exited.is_set() and not self.retiring:
            return _exit_text(self.process.status)
        return why

    async def end(self) -> bool:
        """Wait until nothing of it is left; False when it can't be killed."""
        patience = self.agent.stop_timeout
        if self.silent >= SILENT_MOST:
            patience = min(SILENT_GRACE, patience)
        self.grace.deadline = min(self.grace.deadline, trio.current_time() + patience)
        return await self.process.end(self.grace)

    async def _cancel_at_exit(self, scope: trio.CancelScope) -> None:
        await self.process.exited.wait()
        scope.cancel()

    async def _be_ready(self) -> str | None:
        while True:
            why = await self._become_ready()
            if why is not None or self.retiring:
                return why
            if self.ready_after is None:
                self.ready_after = trio.current_time() - self.since
                self.first_ready(self)
            self.state, self.health = State.READY, READY
            self._watched, self.silent = True, 0
            self.changed()
            await self._stay_ready()

    async def _become_ready(self) -> str | None:
        """Why it is given up, if it is; one that holds a session is given all the time."""
        if self.sessions and self.health == UNASKED:
            return None  # an adopted one, which may well say that it takes no other
        until = trio.current_time() + self.agent.start_timeout
        while not self.retiring:
            self.health = await self._look()
            if self.health == READY:
                return None
            silent = self._watched and not self.sessions and not answers(self.health)
            self.silent = self.silent + 1 if silent else 0
            if self.silent >= SILENT_MOST:
                return f"no sign of life: {self.health}"
            if trio.current_time() >= until and not self.sessions:
                return f"not ready within {self.agent.start_timeout:g} s: {self.health}"
            with trio.move_on_after(PROBE_SILENT if silent else PROBE_AGAIN):
                await self._stirred.wait()
        return None

    async def _stay_ready(self) -> None:
        """Return when it is in doubt, or is to end."""
        while self.state is State.READY and not self.retiring:
            with trio.move_on_after(PROBE_IDLE):
                await self._stirred.wait()
                continue
            if not self.sessions:
                health = await self._look()
                if health != READY and not self.sessions:
                    self.doubt(health)
                elif not self._asked and not self.sessions:
                    await self._ask()

    async def _look(self) -> str:
        with trio.CancelScope() as self._looking:
            return await probe(Address.of(self.url), self.agent.ready_path)
        return INTERRUPTED

    async def _ask(self) -> None:
        """Ask what it can do, once, when no caller is in a hurry for it."""
        self._asked = True
        with trio.CancelScope() as self._looking:
            self.capabilities = await ask_capabilities(Address.of(self.url))


def _exit_text(status: int | None) -> str:
    if status is None:
        return "it exited"
    return f"killed by signal {-status}" if status < 0 else f"it exited with status {status}"
