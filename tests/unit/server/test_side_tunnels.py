"""Side tunnels in the daemon's books: bounded, reached when their session ends, and no session."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.policy.catalog import Catalog, Limits
from relay.policy.sessions import SessionEnd, SessionState
from relay.pump.channel import Figures, Finished
from relay.server.calls import Calls, Frames
from relay.server.pumps import Pumps
from relay.server.rules import Rules
from relay.server.side_tunnels import SideTunnel, SideTunnels
from tests.helpers.desk import Desk, Log, active, open_desk

MOST = 2
RULES = Rules(Catalog({}, {}), Limits(max_side_tunnels=MOST))
SESSIONS, NAMES = ("s1", "s2"), ("a", "b", "c")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("open", "leave", "carried", "ended", "lost", "end")),
        st.sampled_from(SESSIONS),
        st.sampled_from(NAMES),
    ),
    max_size=30,
)


class Told:
    """Who was told what."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, str]] = []

    async def __call__(self, tunnel: str, why: str) -> None:
        await trio.lowlevel.checkpoint()
        self.orders.append((tunnel, why))


def report(session: str, tunnel: str, cause: str = "client_closed") -> Finished:
    return Finished(tunnel, session, cause, 1000, "", 1.5, Figures(messages=3), Figures())


@given(STEPS)
def test_books(steps: list[tuple[str, str, str]]) -> None:
    """Against a plain table: who is there, who is told, and that no session has too many."""
    trio.run(play, steps)


async def play(steps: list[tuple[str, str, str]]) -> None:
    log, told = Log(), Told()
    sides = SideTunnels(RULES, log)
    there: dict[str, dict[str, SideTunnel]] = {name: {} for name in SESSIONS}
    carried: set[tuple[str, str]] = set()
    for step, session, name in steps:
        mine = there[session]
        side = mine.get(name) or SideTunnel(name, session, trio.CancelScope())
        if step == "open" and name not in mine:
            if len(mine) < MOST:
                sides.open(side)
                mine[name] = side
            else:
                with pytest.raises(Refusal):
                    sides.open(side)
        elif step == "carried" and (name in mine or len(mine) < MOST):
            sides.carried(name, session, told)
            mine[name] = side
            carried.add((session, name))
        elif step == "end":
            told.orders.clear()
            await sides.end(session, "stop")
            assert sorted(told.orders) == sorted((n, "stop") for s, n in carried if s == session)
            assert all(each.over for each in mine.values() if (session, each.name) not in carried)
        elif step in ("leave", "ended", "lost"):
            lines = len(log.events)
            if step == "leave":
                sides.leave(side)
            elif step == "ended":
                sides.ended(report(session, name))
            else:
                sides.lost(name, session)
            wanted = step == "ended" or (step == "lost" and name in mine)
            assert len(log.events) == lines + wanted
            mine.pop(name, None)
            carried.discard((session, name))
        assert sorted(sides.sessions()) == sorted(name for name in SESSIONS if there[name])
        assert sides.count() == len(carried)


async def test_the_end_of_a_session_calls_off_who_is_on_the_way() -> None:
    sides = SideTunnels(RULES, Log())
    side, other = SideTunnel("a", "s1"), SideTunnel("a", "s2")
    for each in (side, other):
        sides.open(each)
    with side.scope:
        await sides.end("s1", "session ended")
        await trio.sleep_forever()
    assert (side.over, other.over) == (True, False)


async def test_the_end_of_a_side_tunnel_is_not_its_sessions(tmp_path: Path) -> None:
    async with open_desk(tmp_path / "relay.db") as desk:
        await active(desk, "one")
        told = Told()
        desk.keeper.sides.carried("side", "one", told)
        await desk.keeper.tunnel_ended(report("one", "side"))
        assert await desk.state("one") is SessionState.ACTIVE
        assert len(await desk.store.leases()) == 1
        assert desk.log.ended == []
        ((name, fields),) = desk.log.events
        assert (name, fields["session_id"], fields["tunnel"]) == (
            "side_tunnel_ended",
            "one",
            "side",
        )
        await desk.keeper.tunnel_ended(report("one", "one"))
        assert await desk.state("one") is SessionState.ENDED
        assert told.orders == []  # it was gone before


async def test_an_instance_is_not_free_while_a_side_tunnel_is_there(tmp_path: Path) -> None:
    async with open_desk(tmp_path / "relay.db") as desk:
        await active(desk, "one")
        told = Told()
        desk.keeper.sides.carried("side", "one", told)
        await desk.keeper.end("one", SessionEnd("client_closed"))
        assert told.orders == [("side", "session ended")]

        async def settled() -> bool:
            return bool(desk.pool.settling)

        await desk.until(settled)
        await trio.testing.wait_all_tasks_blocked()
        assert len(await desk.store.leases()) == 1
        desk.keeper.sides.ended(report("one", "side", "session_ended"))
        await desk.until_free()


class NoPumps:
    """No pump at all."""

    async def connect(self, index: int) -> socket.socket:
        raise AssertionError("nobody connects")

    def living(self) -> set[int]:
        return set()

    def spooled(self) -> list[Finished]:
        return []


def calls_of(desk: Desk) -> Calls:
    pumps = Pumps(1, NoPumps(), desk.keeper, desk.log)
    frames = Frames(desk.keeper, desk.log, desk.nursery)
    return Calls(pumps, frames, desk.keeper.sides)


async def test_strays_are_those_whose_session_has_ended(tmp_path: Path) -> None:
    async with open_desk(tmp_path / "relay.db") as desk:
        calls, told = calls_of(desk), Told()
        await active(desk, "elsewhere")
        for session in ("elsewhere", "unknown"):
            calls.sides.carried(f"side of {session}", session, told)
        await calls.end_strays(desk.store)
        assert told.orders == [("side of unknown", "session ended")]
        # As another daemon on the store does, of which this one hears nothing.
        await desk.store.end("elsewhere", SessionEnd("client_closed"), desk.now)
        await calls.end_strays(desk.store)
        assert ("side of elsewhere", "session ended") in told.orders
