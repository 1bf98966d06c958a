"""A fixed list of instances: which are ready, in which order, and who is told of a change.

The bots are a table of answers; time is virtual, since nothing but trio waits.
"""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.instances import instance as module
from relay.instances.fixed import FIRST_LOOK, LOOK_AGAIN, FixedInstances
from relay.policy.capabilities import Capability
from relay.policy.catalog import Address, Agent, Trust
from relay.policy.health import PROBE_READY, PROBE_UNREADY, PROBE_UNREADY_MOST, READY, Failure
from tests.helpers.desk import Log

A, B, C, D = (f"http://127.0.0.1:{port}" for port in (1, 2, 3, 4))
BOT = Agent("bot", "acme", (A, B, C))


class Bots:
    """Answers probes by what `says` holds for an address, and counts them."""

    def __init__(self) -> None:
        self.says = dict.fromkeys((A, B, C, D), READY)
        self.silent: set[str] = set()
        self.probes: Counter[str] = Counter()
        self.capable: dict[str, dict[str, Capability]] = {}
        self.asked: Counter[str] = Counter()

    async def probe(self, address: Address, path: str, trust: Trust) -> str:
        url = address.url
        self.probes[url] += 1
        await trio.lowlevel.checkpoint()
        if url in self.silent:
            await trio.sleep_forever()
        return self.says[url]

    async def capabilities(self, address: Address, trust: Trust) -> dict[str, Capability] | None:
        self.asked[address.url] += 1
        await trio.lowlevel.checkpoint()
        return self.capable.get(address.url)


@pytest.fixture
def bots(monkeypatch: pytest.MonkeyPatch) -> Bots:
    bots = Bots()
    monkeypatch.setattr(module, "probe", bots.probe)
    monkeypatch.setattr(module, "ask_capabilities", bots.capabilities)
    return bots


def pool_of(*agents: Agent) -> FixedInstances:
    return FixedInstances(agents, Log(), lambda: 0.0)


async def running(nursery: trio.Nursery, *agents: Agent) -> FixedInstances:
    pool = pool_of(*agents or (BOT,))
    nursery.start_soon(pool.run)
    for agent in agents or (BOT,):
        await pool.wait_known(agent)
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
    pool = pool_of(BOT)
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
    await pool.wait_known(BOT)
    assert trio.current_time() - start < PROBE_UNREADY
    start = trio.current_time()
    await running(nursery, Agent("empty", "acme", ()))
    assert trio.current_time() == start


async def test_an_instance_that_failed_a_call_is_set_aside(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(nursery)
    pool.failed(B, Failure.UNREACHABLE)
    assert pool.places(BOT).ready == (A, C)
    assert pool.statistics()["bot"][B] == "set aside: cannot connect"
    await trio.sleep(0.49)
    assert pool.places(BOT).ready == (A, C)
    await trio.sleep(0.02)
    assert B in pool.places(BOT).ready
    # the second time in a row takes longer, unless a call was taken meanwhile
    pool.failed(B, Failure.UNREACHABLE)
    await trio.sleep(0.9)
    assert pool.places(BOT).ready == (A, C)
    await trio.sleep(0.2)
    pool.served(B)
    pool.failed(B, Failure.UNREACHABLE)
    await trio.sleep(0.51)
    assert B in pool.places(BOT).ready


async def test_an_instance_comes_back_only_with_a_good_probe(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(nursery)
    pool.failed(B, Failure.SILENT)
    bots.says[B] = "answered 503"
    await trio.sleep(6.0)
    assert pool.places(BOT).ready == (A, C)
    assert pool.statistics()["bot"][B] == "set aside: does not answer calls, answered 503"
    bots.says[B] = READY
    await trio.sleep(PROBE_UNREADY_MOST)
    assert B in pool.places(BOT).ready


async def test_settling_does_not_bring_it_back_early(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(nursery)
    pool.failed(B, Failure.SILENT)
    await pool.wait_settled(BOT, B, "s", deaf=False)
    assert pool.places(BOT).ready == (A, C)


async def test_where_everybody_refuses_they_are_offered_all_the_same(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """It may be the callers; a bot that answers nobody is not offered."""
    pool = await running(nursery)
    for _ in range(3):
        pool.failed(A, Failure.REFUSED)
        pool.failed(B, Failure.REFUSED)
    assert pool.places(BOT).ready == (C,)
    pool.failed(C, Failure.SILENT)
    assert pool.places(BOT).ready == (A, B)


async def test_instances_that_are_not_ours_are_left_alone(bots: Bots) -> None:
    pool = pool_of(BOT)
    before = pool.statistics()
    pool.failed("http://elsewhere", Failure.UNREACHABLE)
    pool.served("http://elsewhere")
    pool.taken("http://elsewhere", "s")
    assert pool.statistics() == before


async def test_how_often_instances_are_looked_at(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bots.says[A] = "cannot connect"
    pool = await running(nursery)
    await trio.sleep(19.0)

    async def seen(seconds: float) -> Counter[str]:
        before = Counter(bots.probes)
        await trio.sleep(seconds)
        return bots.probes - before

    assert (await seen(20.0))[B] == int(20 / PROBE_READY)
    assert (await seen(20.0))[A] == int(20 / PROBE_UNREADY_MOST)
    pool.want(BOT, 1)
    assert (await seen(20.1))[A] == 1 + int(20 / PROBE_UNREADY)  # one at once
    pool.want(BOT, 2)
    pool.want(BOT, 0)
    assert (await seen(20.0))[A] == int(20 / PROBE_UNREADY_MOST)
    bots.says[A] = READY
    await seen(PROBE_UNREADY_MOST)
    assert (await seen(20.0))[A] == int(20 / PROBE_READY)


async def test_callers_that_come_and_go_do_not_put_a_probe_off(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bots.says[A] = "cannot connect"
    pool = await running(nursery)
    await trio.sleep(1.0)
    before = bots.probes[A]
    for _ in range(100):
        pool.want(BOT, 1)
        await trio.sleep(PROBE_UNREADY / 10)
        pool.want(BOT, 0)
    assert bots.probes[A] - before >= 9


async def test_capabilities_are_asked_for_once(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    daily = {"transport.daily": Capability(available=False, reason="no key")}
    bots.capable[A] = daily
    bots.says[C] = "answered 503"
    pool = await running(nursery)
    await trio.sleep(20.0)
    assert bots.asked == {A: 1, B: 1}
    shown = pool.details()["bot"]
    assert shown[A] == {"state": READY, "failures": 0, "foundBy": [A], "capabilities": daily}
    assert shown[B] == {"state": READY, "failures": 0, "foundBy": [B], "capabilities": None}
    # busy is the same bot still; one that could not be connected may be another
    bots.says[A], bots.says[B] = "answered 503", "cannot connect"
    bots.capable.clear()
    await trio.sleep(10.0)
    bots.says[A] = bots.says[B] = READY
    await trio.sleep(10.0)
    assert bots.asked == {A: 1, B: 2}
    pool.failed(A, Failure.UNREACHABLE)
    await trio.sleep(1.0)
    assert bots.asked == {A: 2, B: 2}


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
    assert await waited(lambda: pool.failed(B, Failure.UNREACHABLE)) == 0
    assert await waited(None) <= LOOK_AGAIN
    pool.want(BOT, 1)
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


async def test_one_that_was_busy_for_long_is_asked_often_when_it_settles(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bots.says[A] = "answered 503"
    pool = await running(nursery)
    await trio.sleep(60.0)
    await pool.wait_settled(BOT, A, "s", deaf=False)
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


# Another configuration.


async def test_what_stays_keeps_what_is_known_of_it(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(nursery)
    pool.taken(A, "s")
    pool.failed(B, Failure.BROKEN)
    before = dict(bots.probes)
    other = Agent("bot", "acme", (B, A, D), ready_path="/healthz")
    pool.configure([other])
    # Without a probe, the one that was set aside is, and the least recently used is first.
    assert pool.places(other).ready == (A,)
    await pool.wait_known(other)
    assert pool.places(other).ready == (D, A)
    assert bots.probes[A] == before[A]
    assert pool.gone(C)
    assert [pool.gone(url) for url in (A, B, D)] == [False] * 3
    assert set(pool.details()["bot"]) == {A, B, D}


async def test_an_agent_that_is_gone_has_no_places(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A caller of it may be in line still."""
    pool = await running(nursery)
    pool.want(BOT, 1)
    pool.configure([])
    assert not pool.places(BOT).any()
    await pool.wait_known(BOT)
    await pool.wait_change(BOT)
    pool.want(BOT, 0)
    assert pool.details() == {}
    seen = sum(bots.probes.values())
    await trio.sleep(60)
    assert sum(bots.probes.values()) == seen, "nobody is probed any more"


async def test_an_instance_changes_its_agent(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(nursery)
    first, second = Agent("bot", "acme", (A,)), Agent("new", "acme", (B, C))
    pool.configure([first, second])
    await pool.wait_known(second)
    assert pool.places(first).ready == (A,)
    assert set(pool.places(second).ready) == {B, C}


async def test_instances_that_drain_are_no_places(
    bots: Bots, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(nursery)
    pool.hold_back(frozenset({A, C, "http://elsewhere:1"}))
    assert pool.places(BOT).ready == (B,)
    start = trio.current_time()
    async with trio.open_nursery() as waiting:
        waiting.start_soon(pool.wait_change, BOT)
        await wait_all_tasks_blocked()
        pool.hold_back(frozenset())
    assert trio.current_time() == start, "who waits is woken"
    assert pool.places(BOT).ready == (A, B, C)
