"""The daemon's desk over a real store, with a pool and a log that tests look into."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.errors import Refusal, StoreError
from relay.policy.catalog import Agent, Catalog, Limits, Organization
from relay.policy.health import Failure
from relay.policy.interfaces import Places, Store
from relay.policy.sessions import Session, SessionState
from relay.server.callers import Caller
from relay.server.rules import Rules
from relay.server.sessions import SessionKeeper
from relay.server.traffic import Traffic
from relay.store.sqlite import SQLiteStore

A, B = "http://127.0.0.1:1", "http://127.0.0.1:2"
AGENT = Agent("bot", "acme", (A,), attach_timeout=30.0)
START = 1000.0
# Real waits of a test that goes well take milliseconds; this is for one that does not.
PATIENCE = 10.0


class Pool:
    """Instances that are ready as the test says, and settle when it says so."""

    def __init__(self, *ready: str) -> None:
        self.ready_now = list(ready)
        self.used: list[str] = []
        self.settling: list[str] = []
        self.deaf: list[str] = []
        self.frees = 0
        self.wanted = 0
        self.dead: set[str] = set()
        self.started: dict[str, float] = {}
        self.is_reconciled = False
        self.may_settle = trio.Event()
        self.changed = trio.Event()

    async def wait_known(self, agent: Agent) -> None:
        await trio.lowlevel.checkpoint()

    def places(self, agent: Agent) -> Places:
        return Places(tuple(self.ready_now))

    def want(self, agent: Agent, waiting: int) -> None:
        self.wanted = waiting

    async def wait_change(self, agent: Agent) -> None:
        with trio.move_on_after(0.02):  # a wake-up between a look and this wait is not lost
            await self.changed.wait()

    def taken(self, instance: str, session_id: str) -> None:
        self.used.append(instance)

    def failed(self, instance: str, failure: Failure) -> None:
        self.ready_now.remove(instance)

    def served(self, instance: str) -> None: ...

    async def wait_settled(
        self, agent: Agent, instance: str, session_id: str, *, deaf: bool
    ) -> None:
        self.settling.append(instance)
        self.deaf += [session_id] if deaf else []
        await self.may_settle.wait()

    def started_at(self, instance: str) -> float | None:
        return self.started.get(instance)

    async def has_failed(self, instance: str) -> bool:
        return instance in self.dead

    def freed(self, instance: str, session_id: str) -> None:
        self.frees += 1
        self.changed.set()
        self.changed = trio.Event()

    def hold_back(self, instances: frozenset[str]) -> None: ...

    def gone(self, instance: str) -> bool:
        return instance not in self.ready_now

    def reconciled(self) -> None:
        self.is_reconciled = True

    def statistics(self) -> dict[str, dict[str, str]]:
        return {}

    def details(self) -> dict[str, dict[str, dict[str, object]]]:
        return {}


class Log:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.ended: list[Session] = []
        self.failures: list[BaseException] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        self.warnings: list[str] = []

    def event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))

    def warning(self, name: str, **fields: object) -> None:
        self.warnings.append(name)

    def failure(self, name: str, error: BaseException, **fields: object) -> None:
        self.failures.append(error)

    def exchange(self, fields: dict[str, object]) -> None: ...

    def session_end(self, session: Session) -> None:
        self.ended.append(session)


class Breakable:
    """A store that fails while `broken`, before anything is done."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        self.broken = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        step = getattr(self._store, name)

        async def call(*arguments: Any, **more: Any) -> Any:
            if self.broken:
                await trio.lowlevel.checkpoint()
                raise StoreError("the disk is away")
            return await step(*arguments, **more)

        return call


class Desk:
    """A keeper with everything around it."""

    def __init__(
        self, store: SQLiteStore, nursery: trio.Nursery, limits: Limits, agents: tuple[Agent, ...]
    ) -> None:
        self.store = store
        self.breakable = Breakable(store)
        self.pool = Pool(*agents[0].instances)
        self.log = Log()
        self.now = START
        self.nursery = nursery
        organization = Organization("acme", (), (), ())
        catalog = Catalog({"acme": organization}, {agent.name: agent for agent in agents})
        front: Store = self.breakable  # type: ignore[assignment]
        self.rules = rules = Rules(catalog, limits)
        traffic = Traffic(rules)
        self.keeper = SessionKeeper(
            rules, front, self.pool, traffic, self.log, lambda: self.now, nursery
        )

    def break_store(self) -> None:
        """Let the store fail; it comes back by itself where a test would wait for ever."""
        self.breakable.broken = True
        self.nursery.start_soon(self._mend)

    async def _mend(self) -> None:
        await trio.sleep(PATIENCE * 2)
        self.breakable.broken = False

    async def reserved(self, agent: Agent = AGENT) -> str:
        """A session as /start makes it."""
        return (await self.keeper.reserve(agent, str(uuid.uuid4()), "websocket")).id

    async def state(self, name: str) -> SessionState | None:
        found = await self.store.get(name)
        return found.state if found else None

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for something that background tasks do."""
        with trio.fail_after(PATIENCE):
            while not await condition():
                await trio.sleep(0.001)

    async def until_free(self) -> None:
        """Wait until no instance is leased."""

        async def free() -> bool:
            return await self.store.leases() == []

        await self.until(free)


@asynccontextmanager
async def open_desk(
    path: Path, *agents: Agent, settled: bool = True, node: str = "node-1", **limits: Any
) -> AsyncIterator[Desk]:
    """A desk on the store at `path`; instances settle at once unless told otherwise."""
    store = SQLiteStore(path, node)
    try:
        async with trio.open_nursery() as nursery:
            desk = Desk(store, nursery, Limits(**limits), agents or (AGENT,))
            if settled:
                desk.pool.may_settle.set()
            yield desk
            nursery.cancel_scope.cancel()
    finally:
        store.close()


async def admit(desk: Desk, name: str, nonce: str | None = "", agent: Agent = AGENT) -> Caller:
    """A caller with a token of its own, or with none for `nonce=None`."""
    token = f"n-{name}" if nonce == "" else nonce
    return await desk.keeper.admit(agent, name, token, desk.now + 300)


async def active(desk: Desk, name: str, agent: Agent = AGENT) -> Caller:
    caller = await admit(desk, name, agent=agent)
    await desk.keeper.place(caller)
    await desk.keeper.activate(caller)
    return caller


async def refusal_of(step: Awaitable[object]) -> tuple[int, str]:
    with pytest.raises(Refusal) as refused:
        await step
    return refused.value.status, refused.value.cause


class Line:
    """Callers that wait for places, and in which order they got them."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.placed: list[str] = []
        self.joined = 0

    async def join(self, caller: Caller) -> None:
        """Start waiting; returns when this caller stands in its line."""
        self.desk.nursery.start_soon(self._wait, caller)

        async def stands() -> bool:
            lines = self.desk.keeper._placement._lines.values()
            return len(self.placed) + sum(map(len, lines)) == self.joined

        self.joined += 1
        await self.desk.until(stands)

    async def _wait(self, caller: Caller) -> None:
        with caller.scope:
            await self.desk.keeper.place(caller)
            self.placed.append(caller.session.id)

    async def until_placed(self, *names: str) -> None:
        async def placed() -> bool:
            return len(self.placed) >= len(names)

        await self.desk.until(placed)
        assert self.placed == list(names)
