"""The daemon's desk: giving back, ends, stops, restarts, and a store that goes away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from relay.errors import StoreError
from relay.policy.catalog import Agent, Catalog
from relay.policy.sessions import SessionEnd, SessionState
from relay.pump.channel import Figures, Finished
from relay.server import settling as module
from tests.helpers.desk import (
    AGENT,
    PATIENCE,
    START,
    A,
    B,
    Desk,
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


# Giving back and ending.


async def test_an_instance_is_free_when_it_has_settled(path: Path) -> None:
    async with open_desk(path, settled=False) as desk:
        caller = await admit(desk, "s")
        await desk.keeper.place(caller)
        await desk.keeper.give_back(caller, SessionEnd("bot_refused"))
        assert await desk.state("s") is RESERVED
        line = Line(desk)
        await line.join(await admit(desk, "next"))
        assert (desk.pool.settling, line.placed) == ([A], [])
        desk.pool.may_settle.set()
        await line.until_placed("next")
        assert desk.pool.used == [A, A]
        assert desk.pool.frees == 1


async def test_a_caller_without_a_token_ends_with_its_cause(path: Path) -> None:
    async with open_desk(path) as desk:
        caller = await admit(desk, "s", None)
        await desk.keeper.place(caller)
        await desk.keeper.give_back(caller, SessionEnd("bot_refused"))
        assert [(each.id, each.cause) for each in desk.log.ended] == [("s", "bot_refused")]
        await desk.until_free()


async def test_the_end_of_a_tunnel_is_recorded_with_its_figures(path: Path) -> None:
    async with open_desk(path) as desk:
        caller = await active(desk, "s")
        desk.now += 12
        figures = Figures(10, 2, 0.5, 0.0)
        report = Finished("s", "s", "bot_closed", 4007, "bye", 12.0, figures, Figures())
        for _ in range(2):  # a report may come twice
            await desk.keeper.tunnel_ended(report)
        await desk.until_free()
        (ended,) = desk.log.ended
        assert (ended.state, ended.cause, ended.close_code) == (ENDED, "bot_closed", 4007)
        assert (ended.started, ended.ended) == (START, START + 12)
        assert (
            msgspec.json.decode(msgspec.json.encode(figures))
            == msgspec.json.decode(ended.figures)["client"]
        )
        assert ended == await desk.store.get(caller.session.id)


async def test_an_agent_that_left_the_configuration_frees_at_once(path: Path) -> None:
    async with open_desk(path, settled=False) as desk:
        await active(desk, "s")
        desk.rules.catalog = Catalog({}, {})
        await desk.keeper.end("s", END)
        await desk.until_free()
        assert desk.pool.settling == []


async def test_at_the_end_only_what_may_settle_in_time_is_waited_for(path: Path) -> None:
    two = msgspec.structs.replace(TWO, settle_time=0.5, stopping_time=30.0)
    async with open_desk(path, two, settled=False) as desk:
        settling = desk.keeper.settling
        for name, deaf in (("call", False), ("bot", True)):
            await active(desk, name, two)
            await desk.store.end(name, END, START)
            settling.begin(two, desk.pool.used[-1], name, deaf=deaf)

        async def both_rest() -> bool:
            return len(desk.pool.settling) == 2

        await desk.until(both_rest)
        settling.end(PATIENCE)
        desk.pool.may_settle.set()  # also for one that would still be waited for

        async def one_is_free() -> bool:
            return desk.pool.frees == 1

        await desk.until(one_is_free)
        assert [name for name, _ in await desk.store.leases()] == ["bot"]


# Stopping.


async def test_a_reserved_session_is_stopped_here(path: Path) -> None:
    async with open_desk(path) as desk:
        name = await desk.reserved()
        assert await desk.keeper.stop(name) is RESERVED
        assert [each.cause for each in desk.log.ended] == ["stopped"]
        assert await desk.keeper.stop(name) is None
        assert await refusal_of(admit(desk, name)) == (403, "session_over")
        await desk.reserved()  # its place is free


async def test_a_waiting_session_is_called_off(path: Path) -> None:
    async with open_desk(path) as desk:
        await active(desk, "holder")
        caller = await admit(desk, "s")
        line = Line(desk)
        await line.join(caller)
        assert await desk.keeper.stop("s") is WAITING
        assert caller.scope.cancel_called
        await desk.keeper.give_back(caller, SessionEnd("client_left"))
        assert [(each.id, each.cause) for each in desk.log.ended] == [("s", "stopped")]


async def test_a_stopped_session_is_not_activated(path: Path) -> None:
    async with open_desk(path) as desk:
        caller = await admit(desk, "s")
        await desk.keeper.place(caller)
        await desk.store.request_stop("s")  # by another node: nobody has told this one
        assert await refusal_of(desk.keeper.activate(caller)) == (403, "session_stopped")
        await desk.keeper.give_back(caller, SessionEnd("stopped"))
        await desk.keeper.sweep()
        assert [(each.id, each.cause) for each in desk.log.ended] == [("s", "stopped")]
        await desk.until_free()


async def test_an_active_session_is_the_pumps_to_end(path: Path) -> None:
    async with open_desk(path) as desk:
        await active(desk, "s")
        assert await desk.keeper.stop("s") is ACTIVE
        assert await desk.state("s") is ACTIVE
        assert await desk.keeper.stop("unknown") is None


# After a restart.


async def test_reconciling_after_a_restart(path: Path) -> None:
    four = msgspec.structs.replace(AGENT, instances=(A, B), sessions_per_instance=2)
    gone = Agent("gone", "acme", ("http://gone",))
    async with open_desk(path, four, gone, settled=False) as before:
        for name in ("live", "lost"):
            await active(before, name, four)
        await before.keeper.place(await admit(before, "attaching", agent=four))
        await active(before, "settling", four)
        await before.store.end("settling", END, START)
        before.pool.ready_now[:] = gone.instances
        await active(before, "gone", gone)
        assert len(await before.store.leases()) == 5
    async with open_desk(path, four) as after:
        await after.keeper.reconcile({"live"})

        async def only_live() -> bool:
            return await after.store.leases() == [("live", A)]

        await after.until(only_live)
        assert await after.state("live") is ACTIVE
        assert await after.state("attaching") is RESERVED
        assert {(each.id, each.cause) for each in after.log.ended} == {
            ("lost", "lost"),
            ("gone", "lost"),
        }
        # its caller lost the connection with the old daemon and comes again
        assert await after.keeper.place(await admit(after, "attaching", agent=four)) == A


async def test_sweeping_ends_what_nobody_claimed(path: Path) -> None:
    async with open_desk(path) as desk:
        name = await desk.reserved()
        await desk.keeper.sweep()
        assert desk.log.ended == []
        desk.now += 300
        await desk.keeper.sweep()
        assert [(each.id, each.cause) for each in desk.log.ended] == [(name, "unused")]


# A store that goes away and comes back.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_STORE", 0.005)


async def failed_some(desk: Desk) -> None:
    """Wait until the store has been asked in vain, then let it come back."""

    async def told() -> bool:
        return len(desk.log.failures) > 0

    await desk.until(told)
    await trio.sleep(0.02)
    assert all(isinstance(error, StoreError) for error in desk.log.failures)
    desk.breakable.broken = False


@pytest.mark.usefixtures("impatient")
async def test_an_end_is_recorded_when_the_store_is_back(path: Path) -> None:
    async with open_desk(path) as desk:
        await active(desk, "s")
        desk.break_store()
        desk.nursery.start_soon(desk.keeper.end, "s", END)
        await failed_some(desk)
        await desk.until_free()
        assert [each.cause for each in desk.log.ended] == ["no_instance"]
        assert len(desk.log.failures) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("nonce", "stopped", "left"),
    [("", False, RESERVED), (None, False, ENDED), ("", True, ENDED)],
)
async def test_giving_back_is_done_when_the_store_is_back(
    path: Path, nonce: str | None, stopped: bool, left: SessionState
) -> None:
    """The caller is not kept for it: it gets its answer now."""
    async with open_desk(path) as desk:
        caller = await admit(desk, "s", nonce)
        await desk.keeper.place(caller)
        caller.stopped = stopped
        desk.break_store()
        with trio.fail_after(PATIENCE):
            await desk.keeper.give_back(caller, END)
        assert await desk.state("s") is WAITING
        await failed_some(desk)
        await desk.until_free()

        async def done() -> bool:
            return await desk.state("s") is left

        await desk.until(done)
        if left is RESERVED:
            await admit(desk, "s")


async def test_callers_are_told_when_the_store_is_away(path: Path) -> None:
    async with open_desk(path, max_waiting=1) as desk:
        caller: Any = await admit(desk, "s")
        desk.break_store()
        with pytest.raises(StoreError):
            await desk.keeper.place(caller)
        desk.breakable.broken = False
        await desk.keeper.give_back(caller, END)
        desk.break_store()
        for step in (desk.reserved, lambda: admit(desk, "t"), lambda: desk.keeper.stop("s")):
            with pytest.raises(StoreError):
                await step()
        desk.breakable.broken = False
        assert await desk.keeper.place(await admit(desk, "t")) == A


async def test_the_end_of_the_daemon_does_not_wait_for_the_store(path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_desk(path) as desk:
            caller = await admit(desk, "s")
            await desk.keeper.place(caller)
            desk.break_store()
            await desk.keeper.give_back(caller, END)
    async with open_desk(path) as desk:
        await desk.keeper.reconcile(set())
        await desk.until_free()
        assert await desk.state("s") is RESERVED
