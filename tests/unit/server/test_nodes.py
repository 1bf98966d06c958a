"""Several nodes' desks on one store: who is called dead, when, and what is done about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from relay.errors import StoreError
from relay.policy.sessions import SessionEnd, SessionState
from relay.pump.channel import Figures, Finished
from relay.server.nodes import BEAT, Nodes
from tests.helpers.desk import AGENT, A, Desk, active, admit, open_desk

RESERVED, WAITING, ACTIVE, ENDED = SessionState
TIMEOUT = 10.0


class Homes:
    """Runtime directories, and what lives there."""

    def __init__(self) -> None:
        self.control: set[str] = set()
        self.pumps: set[str] = set()
        self.left: list[Finished] = []

    def control_lives(self, place: str) -> bool:
        return place in self.control

    def pumps_live(self, place: str) -> bool:
        return place in self.pumps

    def reports(self, place: str) -> list[Finished]:
        return self.left


class Calls:
    """What a daemon carries, and what it was told to end."""

    def __init__(self) -> None:
        self.live: set[str] = set()
        self.ended: list[tuple[str, str]] = []

    def sessions(self) -> set[str]:
        return self.live

    async def end(self, session_id: str, why: str) -> bool:
        self.ended.append((session_id, why))
        return True


class Pair:
    """Two desks on one store; `here` looks after `there`."""

    def __init__(self, here: Desk, there: Desk) -> None:
        self.here, self.there = here, there
        self.homes, self.calls = Homes(), Calls()
        self.nodes = Nodes(
            "/run/here",
            self.homes,
            here.breakable,  # type: ignore[arg-type]
            here.keeper,
            self.calls,  # type: ignore[arg-type]
            here.rules,
            here.log,
        )

    async def pass_time(self, seconds: float, *, there_beats: bool = False) -> None:
        """Let `here` look as often as it does, and `there` live or be silent."""
        for _ in range(int(seconds / BEAT)):
            await trio.sleep(BEAT)
            if there_beats:
                await self.there.store.beat()
            await self.nodes.look()


@asynccontextmanager
async def pair(path: Path) -> AsyncIterator[Pair]:
    async with (
        open_desk(path, node="here", node_timeout=TIMEOUT) as here,
        open_desk(path, node="there") as there,
    ):
        both = Pair(here, there)
        await here.store.join("/run/here", both.homes.control_lives)
        await there.store.join("/run/there", both.homes.control_lives)
        yield both


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


async def test_a_silent_node_that_holds_its_lock_lives(
    path: Path, autojump_clock: MockClock
) -> None:
    """It hangs, or its disk does: what it carries goes on."""
    async with pair(path) as both:
        await active(both.there, "s")
        both.homes.control.add("/run/there")
        await both.pass_time(100)
        assert await both.here.state("s") is ACTIVE
        both.homes.control.clear()
        await both.nodes.look()
        assert await both.here.state("s") is ENDED


async def test_a_dead_node_is_given_its_time(path: Path, autojump_clock: MockClock) -> None:
    """A supervisor starts it again; and a clock that is set makes nobody older."""
    async with pair(path) as both:
        await active(both.there, "s")
        await both.pass_time(5)
        both.here.now += 1e6
        await both.pass_time(3)
        await both.there.store.beat()
        await both.pass_time(9)
        assert await both.here.state("s") is ACTIVE
        await both.pass_time(3)
        assert await both.here.state("s") is ENDED
        assert [(each.id, each.cause) for each in both.here.log.ended] == [("s", "lost")]
        await both.here.until_free()
        assert both.here.pool.settling == [A]
        assert "node_died" in both.here.log.warnings


async def test_one_that_beats_is_never_looked_for(path: Path, autojump_clock: MockClock) -> None:
    async with pair(path) as both:
        await active(both.there, "s")
        await both.pass_time(50, there_beats=True)
        assert await both.here.state("s") is ACTIVE


async def test_the_next_caller_gets_the_place_of_a_dead_node(
    path: Path, autojump_clock: MockClock
) -> None:
    async with pair(path) as both:
        caller = await admit(both.there, await both.there.reserved())
        await both.there.keeper.place(caller)
        await both.pass_time(12)
        await both.here.until_free()
        again = await admit(both.here, caller.session.id, caller.nonce)
        assert await both.here.keeper.place(again) == A


async def test_ends_that_its_pumps_left_are_recorded(path: Path, autojump_clock: MockClock) -> None:
    async with pair(path) as both:
        for name in ("known", "unknown"):
            both.there.pool.ready_now[:] = [f"http://{name}"]
            await active(both.there, name)
        none = Figures()
        report = Finished("known", "known", "bot_closed", 4001, "bye", 2.5, none, none)
        both.homes.left.append(report)
        both.homes.pumps.add("/run/there")
        await both.pass_time(20)
        assert both.here.log.ended == []
        both.homes.pumps.clear()
        await both.nodes.look()
        ended = {each.id: (each.cause, each.close_code) for each in both.here.log.ended}
        assert ended == {"known": ("bot_closed", 4001), "unknown": ("lost", None)}


async def test_a_store_that_is_away_makes_nobody_dead(
    path: Path, autojump_clock: MockClock
) -> None:
    async with pair(path) as both:
        await active(both.there, "s")
        both.here.nursery.start_soon(both.nodes.run)
        both.here.breakable.broken = True
        await trio.sleep(100)
        both.here.breakable.broken = False
        await both.there.store.beat()
        await trio.sleep(TIMEOUT - 2 * BEAT)
        assert await both.here.state("s") is ACTIVE
        await trio.sleep(4 * BEAT)
        assert await both.here.state("s") is ENDED


async def test_one_that_was_called_dead_joins_again_and_ends_its_calls(
    path: Path, autojump_clock: MockClock
) -> None:
    """Its directory was removed, so that its lock could not be found."""
    async with pair(path) as both:
        await active(both.here, "carried")
        await both.there.store.beat()
        (dead,) = await both.there.store.beat() or []
        await both.there.keeper.take_over(dead, pumps=False, ends={})
        both.calls.live |= {"carried"}
        await both.nodes.look()
        assert both.calls.ended == [("carried", "drain")]
        assert await both.here.store.beat() is not None


async def test_a_name_that_another_node_has_taken_is_told_each_time(
    path: Path, autojump_clock: MockClock
) -> None:
    async with pair(path) as both, open_desk(path, node="here") as double:
        await double.store.join("/run/copy", both.homes.control_lives)
        both.homes.control.add("/run/copy")
        for _ in range(2):
            await both.nodes.look()
        assert both.here.log.warnings.count("node_twice") == 2
        both.homes.control.clear()
        await both.nodes.look()
        assert await both.here.store.beat() is not None


async def test_a_session_over_http_is_not_given_out_at_once(
    path: Path, autojump_clock: MockClock
) -> None:
    """Its bot may not have heard of the end: closing the request does not stop it."""
    async with pair(path) as both:
        session = await both.there.keeper.reserve(AGENT, "s", "webrtc")
        caller = await both.there.keeper.admit(AGENT, "s", None, session.expires, "webrtc")
        await both.there.keeper.place(caller)
        await both.there.keeper.activate(caller)
        found = await both.here.store.get("s")
        assert found is not None
        assert found.pumped
        await both.pass_time(12)
        await both.here.until_free()
        assert both.here.pool.deaf == ["s"]


async def test_a_lease_that_was_settling_is_carried_on(
    path: Path, autojump_clock: MockClock
) -> None:
    async with pair(path) as both:
        await active(both.there, "s")
        await both.there.store.end("s", SessionEnd("bot_closed"), both.there.now)
        both.here.breakable.broken = True
        with pytest.raises(StoreError):
            await both.nodes.look()
        both.here.breakable.broken = False
        await both.pass_time(12)
        await both.here.until_free()
        assert both.here.log.ended == []
