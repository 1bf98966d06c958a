"""Shares of a session's requests: who waits, who is told to come again, what its end cuts off."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from relay.errors import Refusal
from relay.policy.catalog import Catalog, Limits
from relay.server.rules import Rules
from relay.server.traffic import LINE_FACTOR, MAX_WAIT, Traffic


def traffic_of(share: int) -> Traffic:
    return Traffic(Rules(Catalog({}, {}), Limits(session_requests=share)))


async def test_a_share_is_of_one_session() -> None:
    traffic = traffic_of(2)
    assert [traffic.begin_now("a") for _ in range(3)] == [True, True, False]
    assert traffic.begin_now("b")
    assert traffic.count() == 3
    traffic.end("a")
    assert traffic.begin_now("a")
    for session in ("a", "a", "b"):
        traffic.end(session)
    assert traffic.count() == 0


async def test_the_line_is_first_come_first_served() -> None:
    traffic, served = traffic_of(1), list[int]()

    async def ask(number: int) -> None:
        await traffic.begin("a")
        served.append(number)

    assert traffic.begin_now("a")
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
        assert not traffic.begin_now("a")
        for number in range(2):
            traffic.end("a")
            await trio.testing.wait_all_tasks_blocked()
            assert served == list(range(number + 1))
    traffic.end("a")
    assert traffic.count() == 0


async def test_the_line_is_bounded_in_number_and_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    traffic, refusals = traffic_of(1), list[tuple[int, str, float]]()

    async def ask() -> None:
        try:
            await traffic.begin("a")
        except Refusal as refusal:
            refusals.append((refusal.status, refusal.cause, trio.current_time() - start))

    assert traffic.begin_now("a")
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(LINE_FACTOR + 1):
            nursery.start_soon(ask)
    assert refusals[0] == (429, "session_crowded", 0.0)
    assert refusals[1:] == [(503, "session_busy", MAX_WAIT)] * LINE_FACTOR
    assert traffic.count() == 1


async def test_who_is_cancelled_in_line_keeps_nothing() -> None:
    traffic = traffic_of(1)
    assert traffic.begin_now("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.begin, "a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    traffic.end("a")
    assert traffic.count() == 0


@pytest.mark.parametrize("grace", [0.0, 2.0])
async def test_the_end_of_a_session_cuts_off_its_own(
    grace: float, autojump_clock: trio.testing.MockClock
) -> None:
    traffic = traffic_of(10)
    start = trio.current_time()

    async def work(session: str) -> None:
        assert traffic.begin_now(session)
        with trio.move_on_after(10) as scope:
            traffic.watch(session, scope)
            await trio.sleep_forever()
        assert trio.current_time() - start == (grace if session == "a" else 10)
        traffic.unwatch(session, scope)
        traffic.end(session)

    async with trio.open_nursery() as nursery:
        for session in ("a", "a", "b"):
            nursery.start_soon(work, session)
        await trio.testing.wait_all_tasks_blocked()
        traffic.session_ended("a", grace)
        traffic.session_ended("unknown", grace)
    assert traffic.count() == 0
