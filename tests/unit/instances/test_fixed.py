"""A fixed list of instances: which are ready, in which order, and who is told of a change.

The bots are a table of answers; time is virtual, since nothing but trio waits.
"""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.instances import fixed
from relay.instances.fixed import FIRST_LOOK, LOOK_AGAIN, PROBE_READY, PROBE_UNREADY, FixedInstances
from relay.instances.probe import READY
from relay.policy.catalog import Address, Agent

A, B, C = (f"http://127.0.0.1:{port}" for port in (1, 2, 3))
BOT = Agent("bot", "acme", (A, B, C))


class Bots:
    """Answers probes by what `says` holds for an address, and counts them."""

    def __init__(self) -> None:
        self.says = dict.fromkeys((A, B, C), READY)
        self.silent: set[str] = set()
        self.probes: Counter[str] = Counter()

    async def probe(self, address: Address, path: str) -> str:
        url = f"http://{address.authority}"
        self.probes[url] += 1
        await trio.lowlevel.checkpoint()
        if url in self.silent:
            await trio.sleep_forever()
        return self.says[url]


@pytest.fixture
def bots(monkeypatch: pytest.MonkeyPatch) -> Bots:
    bots = Bots()
    monkeypatch.setattr(fixed, "probe", bots.probe)
    return bots


async def running(nursery: trio.Nursery, *agents: Agent) -> FixedInstances:
    pool = FixedInstances(agents or (BOT,))
    nursery.start_soon(pool.run)
    await pool.wait_known()
    return pool


async def test_ready_ones_least_recently_used_first(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bots.says[B] = "answered 503"
    pool = await running(nursery)
    assert pool.places(BOT).ready == (A, C)
    pool.taken(A, "s")
    assert pool.places(BOT).ready == (C, A)
    pool.taken(C, "s")
    assert pool.places(BOT).ready == (A, C)
    bots.says[B] = READY
    await trio.sleep(PROBE_UNREADY * 2)
    assert pool.places(BOT).ready == (B, A, C)
    assert pool.statistics() == {"bot": {A: READY, B: READY, C: READY}}


async def test_before_the_first_look_nothing_is_ready(bots: Bots) -> None:
    pool = FixedInstances([BOT])
    assert pool.places(BOT).ready == ()
    assert pool.statistics() == {"bot": dict.fromkeys((A, B, C), "not probed yet")}
    assert not bots.probes


async def test_the_first_look_is_bounded(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bots.silent.add(C)
    start = trio.current_time()
    pool = await running(nursery)
    assert trio.current_time() - start == pytest.approx(FIRST_LOOK)
    assert pool.places(BOT).ready == (A, B)
    bots.silent.clear()


async def test_the_first_look_is_over_when_all_have_answered(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bots.says[A] = "cannot connect"
    start = trio.current_time()
    pool = await running(nursery)
    await pool.wait_known()
    assert trio.current_time() == start
    await running(nursery, Agent("empty", "acme", ()))
    assert trio.current_time() == start


async def test_a_failed_instance_is_looked_at_again_soon(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(nursery)
    await trio.sleep(1.0)
    before = bots.probes[B]
    pool.failed(B, "cannot connect")
    assert pool.places(BOT).ready == (A, C)
    assert pool.statistics()["bot"][B] == "cannot connect"
    await trio.sleep(PROBE_UNREADY / 2)
    assert pool.places(BOT).ready == (A, C)
    await trio.sleep(PROBE_UNREADY)
    assert bots.probes[B] == before + 1
    assert B in pool.places(BOT).ready


async def test_only_a_ready_instance_of_ours_can_fail(bots: Bots) -> None:
    pool = FixedInstances([BOT])
    pool.failed(A, "cannot connect")
    pool.failed("http://elsewhere", "cannot connect")
    assert pool.statistics()["bot"][A] == "not probed yet"


async def test_how_often_instances_are_looked_at(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bots.says[A] = "cannot connect"
    await running(nursery)
    before = Counter(bots.probes)
    await trio.sleep(20.1)
    seen = bots.probes - before
    assert seen[B] == int(20 / PROBE_READY)
    assert seen[A] == int(20 / PROBE_UNREADY)


async def test_a_change_wakes_who_waits_for_it(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bots.says[A] = "cannot connect"
    pool = await running(nursery)

    async def waited(cause: object) -> float:
        start = trio.current_time()
        async with trio.open_nursery() as inner:
            inner.start_soon(pool.wait_change, BOT)
            await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
            if callable(cause):
                cause()
        return trio.current_time() - start

    assert await waited(lambda: pool.freed(A, "s")) == 0
    assert await waited(lambda: pool.failed(B, "cannot connect")) == 0
    assert await waited(None) <= LOOK_AGAIN
    await trio.sleep(1.1)  # between two probes of A
    bots.says[A] = READY
    assert await waited(None) < PROBE_UNREADY
    await trio.sleep(1.0)
    assert await waited(None) == pytest.approx(LOOK_AGAIN)


async def test_an_instance_of_one_session_settles_and_is_asked(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(nursery)
    bots.says[A] = "answered 503"
    start, before = trio.current_time(), bots.probes[A]
    await pool.wait_settled(BOT, A, "s", deaf=False)
    assert trio.current_time() - start == pytest.approx(BOT.settle_time)
    assert bots.probes[A] == before + 1
    assert pool.places(BOT).ready == (B, C)
    # and found ready as soon as it says so, not at the next leisurely probe
    bots.says[A] = READY
    await trio.sleep(PROBE_UNREADY * 1.5)
    assert A in pool.places(BOT).ready


async def test_an_instance_of_many_sessions_only_settles(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    many = Agent("many", "acme", (A,), sessions_per_instance=3, settle_time=1.5)
    pool = await running(nursery, many)
    start, before = trio.current_time(), bots.probes[A]
    await pool.wait_settled(many, A, "s", deaf=False)
    assert trio.current_time() - start == pytest.approx(1.5)
    assert bots.probes[A] == before


async def test_an_instance_that_left_the_list_only_settles(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(nursery)
    await pool.wait_settled(BOT, "http://127.0.0.1:9", "s", deaf=False)
    assert bots.probes["http://127.0.0.1:9"] == 0


async def test_agents_see_their_own_instances(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    one, two = Agent("one", "acme", (A, B)), Agent("two", "acme", (C,))
    pool = await running(nursery, one, two)
    pool.taken(C, "s")
    assert (pool.places(one).ready, pool.places(two).ready) == ((A, B), (C,))
    assert list(pool.statistics()) == ["one", "two"]
