"""Desks of several nodes over one store: callers, calls, crashes and lapses in any order.

Laws
1. No bot ever has more sessions than it may hold, whoever has died meanwhile.
2. Who has waited longest on a living node is served first, promises apart.
3. Every session ends exactly once, and every call that nobody disturbs is served whole.
4. When everybody has gone and the dead have been cleared up after, nothing is left.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from relay.errors import Refusal, RelayError, StoreError
from relay.policy.catalog import Agent, Catalog, Limits, Organization
from relay.policy.interfaces import SessionFilter
from relay.policy.sessions import SessionEnd, SessionState
from relay.pump.channel import Finished
from relay.server.callers import Caller
from relay.server.nodes import Nodes
from relay.server.rules import Rules
from relay.server.sessions import SessionKeeper
from relay.server.traffic import Traffic
from relay.store.sqlite import SQLiteStore
from tests.helpers.desk import Log, Pool

URLS = ("http://a:1", "http://b:2")
AGENT = Agent("bot", "acme", URLS, attach_timeout=20.0)
CATALOG = Catalog({"acme": Organization("acme", (), (), ())}, {"bot": AGENT})
NODES = 3
TIMEOUT = 3.0
RULES = Rules(CATALOG, Limits(node_timeout=TIMEOUT, session_requests=9))
# Long enough for everything that follows from a step at once, and for a look around.
MOMENT = 0.1


class CrashingStore:
    """A store that is gone, with its whole process, after so many calls."""

    def __init__(self, store: SQLiteStore, node: Node) -> None:
        self._store = store
        self._node = node
        self.calls_left: int | None = None

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._store, name)

        async def call(*arguments: Any, **more: Any) -> Any:
            if self.calls_left == 0:
                self._node.crash()
            if not self._node.alive:
                raise StoreError("this process is dead")
            if self.calls_left is not None:
                self.calls_left -= 1
            return await step(*arguments, **more)

        return call


@dataclass
class Call:
    """One caller on its way: waits, or is in a call on an instance."""

    name: str
    node: Node
    caller: Caller | None = None
    promised: bool = False
    instance: str | None = None
    active: bool = False


@dataclass
class Node:
    """One control process over its pumps."""

    world: World
    name: str
    alive: bool = False
    pumps: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    lives: int = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        real = SQLiteStore(self.world.path, self.name)
        self.alive = self.pumps = True
        self.lives += 1
        self.store = CrashingStore(real, self)
        self.log = log = Log()
        self.pool = Pool(*self.world.ready)
        self.pool.may_settle.set()
        self.scope = trio.CancelScope()
        try:
            with self.scope:
                async with trio.open_nursery() as self.nursery:
                    await self._serve()
                    task_status.started()
        finally:
            self.world.ended.update(session.id for session in log.ended)
            real.close()
            self.lives -= 1

    async def _serve(self) -> None:
        store: Any = self.store
        self.keeper = SessionKeeper(
            RULES, store, self.pool, Traffic(RULES), self.log, self.world.now, self.nursery
        )
        await store.join(self.name, self.world.control_lives)
        await self.keeper.reconcile({call.name for call in self.world.carried(self)})
        nodes = Nodes(
            self.name,
            self.world,
            store,
            self.keeper,
            self.world,
            RULES,
            self.log,  # type: ignore[arg-type]
        )
        self.nursery.start_soon(nodes.run)

    def crash(self) -> None:
        self.alive = False
        self.scope.cancel()

    async def serve(self, call: Call, promised: bool) -> None:
        """What the front door does with a caller, as far as the desk is concerned."""
        keeper = self.keeper  # of this life: the node may crash and have another meanwhile
        try:
            if promised:
                await keeper.reserve(AGENT, call.name, "websocket")
            now = self.world.now()
            call.caller = await keeper.admit(AGENT, call.name, f"n-{call.name}", now + 300)
            call.promised = promised
        except RelayError as error:
            if self.alive and not isinstance(error, Refusal):
                raise
            self.world.forget(call)
            return
        try:
            with trio.move_on_after(AGENT.attach_timeout), call.caller.scope:
                call.instance = await keeper.place(call.caller)
                self.world.placed(call)
                await keeper.activate(call.caller)
                call.active = True
        except RelayError as error:
            if self.alive and not isinstance(error, Refusal):
                raise
        finally:
            if not call.active:
                self.world.forget(call)
                with trio.CancelScope(shield=True):
                    await keeper.give_back(call.caller, SessionEnd("client_left"))


class World:
    """The nodes, the callers, the bots; it is also what nodes know of runtime directories."""

    def __init__(self, path: Path, nursery: trio.Nursery) -> None:
        self.path = path
        self.nursery = nursery
        self.ready = list(URLS)
        self.nodes = [Node(self, f"node-{number}") for number in range(NODES)]
        self.calls: list[Call] = []
        self.ended: Counter[str] = Counter()
        self.names = 0

    def now(self) -> float:
        return 1000.0 + trio.current_time()

    def _node(self, place: str) -> Node:
        return next(node for node in self.nodes if node.name == place)

    def control_lives(self, place: str) -> bool:
        return self._node(place).alive

    def pumps_live(self, place: str) -> bool:
        node = self._node(place)
        return node.alive or (node.pumps and bool(self.carried(node)))

    def reports(self, place: str) -> list[Finished]:
        return []

    def sessions(self) -> set[str]:
        return set()

    def carried(self, node: Node) -> list[Call]:
        """The calls in a node's pumps."""
        return [call for call in self.calls if call.node is node and call.active]

    def placed(self, call: Call) -> None:
        """Laws 1 and 2, at the moment in which a bot is given a caller."""
        there = [each for each in self.calls if each.instance == call.instance]
        assert there == [call], f"{call.instance} has {[each.name for each in there]}"
        if not call.promised:
            earlier = self.calls[: self.calls.index(call)]
            passed = [
                each.name
                for each in earlier
                if each.instance is None and each.caller is not None and each.node.alive
            ]
            assert not passed, f"{call.name} was served before {passed}"

    def forget(self, call: Call) -> None:
        """It is over, unless a crash has swept it away already."""
        self.calls = [each for each in self.calls if each is not call]

    # Steps.

    async def start(self, node: Node) -> None:
        if not node.alive:
            await self.nursery.start(node.run)

    def come(self, node: Node, promised: bool) -> None:
        self.names += 1
        call = Call(f"s{self.names}", node)
        self.calls.append(call)
        node.nursery.start_soon(node.serve, call, promised)

    async def leave(self, call: Call) -> None:
        """Hang up: while waiting, or in the call."""
        if not call.active:
            if call.caller is not None:
                call.caller.scope.cancel()
            return
        self.forget(call)
        if call.node.alive:
            end = SessionEnd("client_closed")
            call.node.nursery.start_soon(call.node.keeper.end, call.name, end)

    async def stop(self, node: Node, call: Call) -> None:
        with contextlib.suppress(StoreError):
            if node.alive and await node.keeper.stop(call.name) is SessionState.ACTIVE:
                await self.leave(call)

    def crash(self, node: Node, pumps: bool, after: int) -> None:
        """Kill the control process: now, or in the midst of what it does next."""
        if after and node.alive:
            node.store.calls_left = after
            return
        if node.alive:
            node.crash()
        if not pumps:
            node.pumps = False
            self.calls = [call for call in self.calls if call.node is not node]


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        async with trio.open_nursery() as nursery:
            world = World(Path(folder) / "relay.db", nursery)
            for node in world.nodes:
                await world.start(node)
            yield world
            nursery.cancel_scope.cancel()


async def play(steps: list[tuple[Any, ...]]) -> None:
    async with open_world() as world:
        for name, number, *more in steps:
            node = world.nodes[number % NODES]
            chosen = world.calls[more[0] % len(world.calls)] if world.calls and more else None
            if name == "come":
                await world.start(node)
                world.come(node, bool(more[0]))
            elif name == "leave" and chosen is not None:
                await world.leave(chosen)
            elif name == "stop" and chosen is not None:
                await world.stop(node, chosen)
            elif name == "crash":
                world.crash(node, bool(more[0] % 2), more[0] // 2)
            elif name == "pass":
                await trio.sleep(number)
            await trio.sleep(MOMENT)
        await end(world)


async def end(world: World) -> None:
    """Everybody goes; one node lives on, and looks after what the others have left."""
    await world.start(world.nodes[0])
    world.nodes[0].store.calls_left = None
    for call in list(world.calls):
        await world.leave(call)
    await trio.sleep(MOMENT)
    for node in world.nodes[1:]:
        world.crash(node, pumps=False, after=0)
    await trio.sleep(3 * TIMEOUT)
    await trio.sleep(300)
    keeper, store = world.nodes[0].keeper, world.nodes[0].store
    await keeper.sweep()
    sessions, _ = await store.find(SessionFilter(limit=1000))
    assert await store.leases() == []
    assert {each.id for each in sessions if each.state is not SessionState.ENDED} == set()
    assert not keeper._callers
    assert not any(keeper._placement._lines.values())
    world.nodes[0].crash()
    while any(node.lives for node in world.nodes):  # one may be in a thread of the store
        await trio.sleep(MOMENT)
    assert set(world.ended.values()) <= {1}
    assert set(world.ended) == {each.id for each in sessions}


node = st.integers(0, NODES - 1)
which = st.integers(0, 9)
come = st.tuples(st.just("come"), node, st.sampled_from([0, 0, 1]))
leave = st.tuples(st.just("leave"), st.just(0), which)
STEPS = st.one_of(
    *[come] * 4,
    *[leave] * 2,
    st.tuples(st.just("stop"), node, which),
    st.tuples(st.just("crash"), node, which),
    st.tuples(st.just("pass"), st.sampled_from([1, 5, 30])),
)


@given(st.lists(STEPS, max_size=25))
def test_callers_calls_and_crashes_in_any_order(steps: list[tuple[Any, ...]]) -> None:
    trio.run(play, steps, clock=MockClock(autojump_threshold=0))


# The later caller is where the place becomes free, and hears of it first.
@example([("come", 2, 0), ("come", 2, 0), ("come", 1, 0), ("come", 2, 0), ("leave", 0, 0)])
@given(st.lists(come | leave, min_size=5, max_size=18))
def test_nobody_is_passed_in_line(steps: list[tuple[Any, ...]]) -> None:
    trio.run(play, steps, clock=MockClock(autojump_threshold=0))
