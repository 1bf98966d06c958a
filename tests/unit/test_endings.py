"""How the daemon ends: who is told when, in a virtual time, and what a hurry changes."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from relay.endings import END_MARGIN, MAX_LISTED, TELL_EVERY, Ending, end_calls, wait_end
from relay.policy.catalog import Limits
from tests.helpers.desk import Log


class Node:
    """Calls that end so long after they were told to, and everything around them."""

    def __init__(self, calls: int, takes: float = 0.0, **limits: float) -> None:
        self.limits = Limits(**limits)  # type: ignore[arg-type]
        self.log = Log()
        self.ending = False
        self.successor = None
        self.alone = trio.Event()
        self.alone.set()
        self.live = {f"call-{number:03}" for number in range(calls)}
        self.takes = takes
        self.told: list[tuple[float, str]] = []
        self.told_all: list[float] = []
        self.pool_drains = False
        # Stands for the front, its calls, its pool and its listener.
        self.calls = self.pool = self.listener = self

    def sessions(self) -> set[str]:
        return set(self.live)

    def any(self) -> bool:
        return bool(self.live)

    async def end(self, session: str, why: str) -> bool:
        assert why == "drain"
        self.told.append((round(trio.current_time(), 6), session))
        await trio.sleep(self.takes)
        self.live.discard(session)
        return True

    async def end_all(self) -> None:
        self.told_all.append(round(trio.current_time(), 6))
        self.live.clear()

    def drain(self) -> None:
        self.pool_drains = True

    def end_idle(self) -> None: ...

    def finishing(self) -> bool:
        return False

    async def wait_end(self, ending: Ending) -> float:
        """As the daemon does; when it is over."""
        node: Any = self
        await wait_end(ending, node, node, node)
        return trio.current_time()

    async def end_calls(self, ending: Ending) -> float:
        node: Any = self
        await end_calls(ending, node)
        return trio.current_time()


@pytest.fixture
def ending() -> Ending:
    """An end that has begun."""
    ending = Ending()
    ending.begun.set()
    return ending


async def test_calls_are_waited_for_and_told(ending: Ending, autojump_clock: MockClock) -> None:
    node = Node(MAX_LISTED + 5, drain_timeout=100)
    start = trio.current_time()
    assert await node.wait_end(ending) - start == pytest.approx(100)
    assert (node.ending, node.pool_drains) == (True, True)
    lines = [fields for name, fields in node.log.events if name == "draining"]
    assert len(lines) == 100 // TELL_EVERY + 1
    assert [line["calls"] for line in lines] == [MAX_LISTED + 5] * len(lines)
    assert lines[0]["sessions"] == sorted(node.live)[:MAX_LISTED]
    left = [float(str(line["seconds"])) for line in lines]
    assert left == pytest.approx([100, 70, 40, 10], abs=1)


async def test_without_calls_nothing_is_waited_for_or_told(
    ending: Ending, autojump_clock: MockClock
) -> None:
    node = Node(0)
    start = trio.current_time()
    assert await node.wait_end(ending) == start
    assert await node.end_calls(ending) == start
    assert node.log.events == []


async def test_the_last_call_ends_the_wait(ending: Ending, autojump_clock: MockClock) -> None:
    node = Node(2)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            for _ in range(2):
                await trio.sleep(3)
                node.live.pop()

        nursery.start_soon(leave)
        assert await node.wait_end(ending) - start == pytest.approx(6, abs=0.2)


async def test_the_closes_are_spread_evenly(ending: Ending, autojump_clock: MockClock) -> None:
    node = Node(100, takes=0.5, close_spread=10)
    start = trio.current_time()
    over = await node.end_calls(ending)
    assert [session for _, session in node.told] == [f"call-{n:03}" for n in range(100)]
    assert [at - start for at, _ in node.told] == pytest.approx([n / 10 for n in range(100)])
    # Then the others, of which there may be some: those that have begun meanwhile.
    assert node.told_all == [pytest.approx(start + 9.9 + 0.5)]
    assert over == pytest.approx(start + 9.9 + 0.5)


async def test_one_call_does_not_wait(ending: Ending, autojump_clock: MockClock) -> None:
    node = Node(1, close_spread=3600)
    start = trio.current_time()
    assert await node.end_calls(ending) == pytest.approx(start)


async def test_a_spread_of_nothing(ending: Ending, autojump_clock: MockClock) -> None:
    node = Node(500, close_spread=0)
    start = trio.current_time()
    assert await node.end_calls(ending) == pytest.approx(start)
    assert len(node.told) == 500


async def test_a_pump_that_is_stuck_delays_no_other(
    ending: Ending, autojump_clock: MockClock
) -> None:
    node = Node(10, takes=5.0, close_spread=1)
    start = trio.current_time()
    await node.end_calls(ending)
    assert node.told[-1][0] == pytest.approx(start + 0.9)


@pytest.mark.parametrize("after", [0.0, 0.3, 7.0])
async def test_a_hurry_ends_the_rest_at_once(
    ending: Ending, after: float, autojump_clock: MockClock
) -> None:
    node = Node(10, close_spread=10)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def hurry() -> None:
            await trio.sleep(after)
            ending.hurry.set()

        if after:
            nursery.start_soon(hurry)
        else:
            ending.hurry.set()
        over = await node.end_calls(ending)
    assert over == pytest.approx(start + after)
    assert len(node.told) in (int(after) + bool(after), int(after))
    assert node.told_all == [pytest.approx(start + after)]


async def test_a_call_that_does_not_end_is_waited_for_boundedly(
    ending: Ending, autojump_clock: MockClock
) -> None:
    class Deaf(Node):
        async def end(self, session: str, why: str) -> bool:
            return False

        async def end_all(self) -> None: ...

    node = Deaf(1, close_timeout=3)
    start = trio.current_time()
    assert await node.end_calls(ending) - start == pytest.approx(3 + END_MARGIN)
