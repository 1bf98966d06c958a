"""The daemon's desk: who is let in, lines for instances, leases and when they are let go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from relay.errors import Refusal
from relay.policy.catalog import Agent
from relay.policy.interfaces import Wait
from relay.policy.sessions import SessionEnd, SessionState
from relay.server.callers import Caller
from relay.server.sessions import CLAIM_MARGIN
from tests.helpers.desk import (
    AGENT,
    PATIENCE,
    A,
    B,
    Line,
    active,
    admit,
    open_desk,
    refusal_of,
)

TWO = Agent("bot", "acme", (A, B))
END = SessionEnd("no_instance")
RESERVED, WAITING, ACTIVE, ENDED = SessionState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


# Reserving and admitting.


async def test_a_start_is_refused_when_full_or_not_ready(path: Path) -> None:
    async with open_desk(path) as desk:
        name = await desk.reserved()
        assert await desk.state(name) is RESERVED
        assert await refusal_of(desk.reserved()) == (429, "at_capacity")
        desk.now += 30
        assert await desk.state(await desk.reserved()) is RESERVED
        desk.now += 30
        desk.pool.ready_now.clear()
        assert await refusal_of(desk.reserved()) == (400, "not_ready")


async def test_a_token_is_for_one_caller_at_a_time(path: Path) -> None:
    async with open_desk(path) as desk:
        name = await desk.reserved()
        caller = await admit(desk, name)
        assert await refusal_of(admit(desk, name)) == (403, "token_used")
        assert await refusal_of(admit(desk, name, "another")) == (403, "session_over")
        desk.now += AGENT.attach_timeout + CLAIM_MARGIN  # the claim lapses, the caller is here
        assert await refusal_of(admit(desk, name)) == (403, "token_used")
        await desk.keeper.give_back(caller, END)
        again = await admit(desk, name)
        await desk.keeper.place(again)
        await desk.keeper.activate(again)
        assert await refusal_of(admit(desk, name)) == (403, "token_used")
        assert await refusal_of(admit(desk, name, "another")) == (403, "session_over")


async def test_a_crowd_does_not_pass_the_bound_of_those_who_wait(path: Path) -> None:
    async with open_desk(path, max_waiting=3) as desk:
        outcomes: list[object] = []

        async def come(name: str) -> None:
            try:
                outcomes.append(await admit(desk, name))
            except Refusal as refusal:
                outcomes.append(refusal.status)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(come, f"s{number}")
        callers = [each for each in outcomes if isinstance(each, Caller)]
        assert len(callers) == 3
        assert outcomes.count(429) == 7
        # whoever leaves, by whatever way, makes room; a refused one takes none
        await desk.keeper.give_back(callers[0], END)
        await desk.keeper.place(callers[1])
        await desk.keeper.activate(callers[1])
        name = callers[1].session.id
        for _ in range(5):
            assert await refusal_of(admit(desk, name)) == (403, "token_used")
        await admit(desk, "t1")
        await admit(desk, "t2")
        assert await refusal_of(admit(desk, "t3")) == (429, "at_capacity")


# Lines.


async def test_first_come_first_served(path: Path) -> None:
    async with open_desk(path) as desk:
        holder = await active(desk, "holder")
        line = Line(desk)
        callers = [await admit(desk, f"s{number}") for number in range(5)]
        for caller in callers:
            await line.join(caller)
        await desk.keeper.end(holder.session.id, END)
        for number, caller in enumerate(callers):
            await line.until_placed(*(f"s{n}" for n in range(number + 1)))
            await desk.keeper.give_back(caller, END)


async def test_a_newcomer_does_not_pass_those_who_wait(path: Path) -> None:
    async with open_desk(path) as desk:
        holder = await active(desk, "holder")
        line = Line(desk)
        await line.join(await admit(desk, "first"))
        # free in the store, and the line has not heard of it yet
        await desk.store.end(holder.session.id, END, desk.now)
        newcomer = await admit(desk, "newcomer")
        await desk.store.free(holder.session.id, A)
        await line.join(newcomer)
        await line.until_placed("first")


async def test_a_promised_place_is_not_behind_a_line(path: Path) -> None:
    async with open_desk(path) as desk:
        name = await desk.reserved()
        line = Line(desk)
        for number in range(3):
            await line.join(await admit(desk, f"s{number}"))
        assert line.placed == []
        with trio.fail_after(PATIENCE):
            assert await desk.keeper.place(await admit(desk, name)) == A


async def test_a_promised_caller_waits_for_an_instance_that_comes_back(path: Path) -> None:
    async with open_desk(path) as desk:
        name = await desk.reserved()
        desk.pool.ready_now.clear()
        line = Line(desk)
        await line.join(await admit(desk, "other"))
        await line.join(await admit(desk, name))
        desk.pool.ready_now.append(A)
        desk.pool.freed(A, "s")
        await line.until_placed(name)


async def test_who_leaves_the_line_gives_the_place_up_at_once(path: Path) -> None:
    async with open_desk(path) as desk:
        holder = await active(desk, "holder")
        line = Line(desk)
        callers = [await admit(desk, f"s{number}") for number in range(3)]
        for caller in callers:
            await line.join(caller)
        for leaver in callers[:2]:  # the head, and the one who is next then
            leaver.scope.cancel()
            await desk.keeper.give_back(leaver, END)
        await desk.keeper.end(holder.session.id, END)
        await line.until_placed("s2")
        assert await desk.state("s0") is RESERVED
        assert (await admit(desk, "s0")).instance is None


async def test_attaching_ends_at_its_time(path: Path) -> None:
    async with open_desk(path) as desk:
        await active(desk, "holder")
        caller = await admit(desk, "s")
        with trio.move_on_after(0.05) as scope:
            await desk.keeper.place(caller)
        assert scope.cancelled_caught
        assert caller.instance is None
        await desk.keeper.give_back(caller, END)
        assert await desk.state("s") is RESERVED
        assert await desk.store.leases() == [("holder", A)]


async def test_wherever_a_caller_is_cancelled_its_instance_comes_back(path: Path) -> None:
    async with open_desk(path) as desk:
        for checkpoints in range(40):
            caller = await admit(desk, f"s{checkpoints}")
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_cancel_after, scope, checkpoints)
                    await desk.keeper.place(caller)
            await desk.keeper.give_back(caller, END)
            await desk.until_free()
        assert not any(line.locked() for line in desk.keeper._placement._lines.values())


async def _cancel_after(scope: trio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()


# Trying another instance.


async def test_an_instance_without_a_bot_is_free_at_the_next_try(path: Path) -> None:
    """The place of a caller who goes elsewhere counts once: promises to others hold."""
    async with open_desk(path, TWO, settled=False) as desk:
        caller = await admit(desk, await desk.reserved(TWO), agent=TWO)
        assert await desk.keeper.place(caller) == A
        desk.pool.failed(A, "cannot connect")
        desk.keeper.let_go(caller)
        assert await desk.keeper.place(caller) == B
        assert await desk.store.leases() == [(caller.session.id, B)]
        assert desk.pool.settling == []


async def test_a_later_lease_survives_the_settling_of_an_earlier_one(path: Path) -> None:
    """A bot refused, the token is used again at once: the second bot stays held."""
    async with open_desk(path, TWO, settled=False) as desk:
        name = await desk.reserved(TWO)
        first = await admit(desk, name, agent=TWO)
        assert await desk.keeper.place(first) == A
        await desk.keeper.give_back(first, SessionEnd("bot_refused"))
        second = await admit(desk, name, agent=TWO)
        assert await desk.keeper.place(second) == B
        await desk.keeper.activate(second)
        desk.pool.may_settle.set()

        async def freed() -> bool:
            return await desk.store.leases() == [(name, B)]

        await desk.until(freed)
        assert await desk.keeper.place(await admit(desk, "other", agent=TWO)) == A


async def test_a_caller_that_leaves_after_a_miss_holds_nothing(path: Path) -> None:
    async with open_desk(path) as desk:
        caller = await admit(desk, "s")
        await desk.keeper.place(caller)
        desk.keeper.let_go(caller)
        await desk.keeper.give_back(caller, END)
        await desk.until_free()


@pytest.mark.parametrize("checkpoints", [None, *range(0, 30, 3)])
async def test_an_instance_that_ends_while_it_is_given_away(
    path: Path, checkpoints: int | None
) -> None:
    """The pool ends it between its offer and the store's answer: the caller gets another one."""
    async with open_desk(path, TWO) as desk:

        async def lease(*arguments: Any, **more: Any) -> str | Wait:
            given = await desk.store.lease(*arguments, **more)
            if given == A and A in desk.pool.ready_now:
                desk.pool.ready_now.remove(A)
            return given

        desk.breakable.lease = lease
        caller = await admit(desk, "s", agent=TWO)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                if checkpoints is not None:
                    nursery.start_soon(_cancel_after, scope, checkpoints)
                assert await desk.keeper.place(caller) == B
                assert desk.pool.used == [B]
                assert await desk.store.leases() == [("s", B)]
        await desk.keeper.give_back(caller, END)
        await desk.until_free()
