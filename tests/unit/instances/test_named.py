"""Instances that are found by name: who joins, who leaves, and what a failure changes.

The bots and the name server are tables; time is virtual, since nothing but trio waits.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from relay.instances import fixed, instance
from relay.instances.dns import LookupFailure
from relay.instances.fixed import FIRST_LOOK, FIRST_PROBES, FixedInstances
from relay.instances.named import RETRY
from relay.policy.catalog import Address, Agent, DnsName, Trust
from relay.policy.health import PROBE_READY, READY, Failure
from relay.policy.names import Found, Rank
from tests.helpers.desk import Log

NAME, OTHER = "dns+http://bots:7860", "dns+srv+http://more"
A, B, C = (f"http://127.0.0.{n}:7860" for n in (1, 2, 3))
FIXED = "http://127.0.0.9:1"
BOT = Agent("bot", "acme", (NAME,), dns_interval=10.0)


class World:
    """What names stand for, how bots answer, and what was logged."""

    def __init__(self) -> None:
        self.names: dict[str, Found | str] = {"bots": Found((A, B)), "more": Found()}
        self.says: dict[str, str] = {}
        self.looks: Counter[str] = Counter()
        self.servers: set[str] = set()
        self.probes: list[tuple[float, str]] = []
        self.probing = 0
        self.most_probing = 0
        self.log: list[tuple[str, dict[str, Any]]] = []

    async def look(self, name: DnsName, server: str) -> Found:
        self.looks[name.name] += 1
        self.servers.add(server)
        await trio.lowlevel.checkpoint()
        found = self.names[name.name]
        if isinstance(found, str):
            raise LookupFailure(found)
        return found

    async def probe(self, address: Address, path: str, trust: Trust) -> str:
        self.probes.append((trio.current_time(), address.url))
        self.probing += 1
        self.most_probing = max(self.probing, self.most_probing)
        await trio.sleep(0.01)
        self.probing -= 1
        return self.says.get(address.url, READY)

    async def capabilities(self, address: Address, trust: Trust) -> None:
        await trio.lowlevel.checkpoint()

    def event(self, name: str, **fields: object) -> None:
        self.log.append((name, fields))

    warning = event

    def said(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.log if event == name]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(fixed, "Resolver", lambda: world)
    monkeypatch.setattr(instance, "probe", world.probe)
    monkeypatch.setattr(instance, "ask_capabilities", world.capabilities)
    return world


async def running(world: World, nursery: trio.Nursery, *agents: Agent) -> FixedInstances:
    log = Log()
    log.event = log.warning = world.event  # type: ignore[method-assign]
    pool = FixedInstances(agents or (BOT,), log, lambda: 0.0)
    nursery.start_soon(pool.run)
    for agent in agents or (BOT,):
        await pool.wait_known(agent)
    return pool


def ready(pool: FixedInstances, agent: Agent = BOT) -> set[str]:
    return set(pool.places(agent).ready)


async def test_a_name_stands_for_its_instances(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    mixed = Agent("bot", "acme", (FIXED, NAME, OTHER), dns_server="127.0.0.1:8600")
    world.names["more"] = Found((B, C))
    pool = await running(world, nursery, mixed)
    assert ready(pool, mixed) == {FIXED, A, B, C}
    assert world.servers == {"127.0.0.1:8600"}
    shown = pool.statistics()["bot"]
    assert (shown[NAME], shown[OTHER], shown[B]) == ("2 instances", "2 instances", READY)
    assert pool.details()["bot"][B] == {
        "state": READY, "failures": 0, "foundBy": [NAME, OTHER], "capabilities": None,
    }  # fmt: skip
    # one that two names have stays for as long as one of them has it
    world.names["bots"] = Found((A,))
    await trio.sleep(10.0)
    assert ready(pool, mixed) == {FIXED, A, B, C}
    world.names["more"] = Found()
    await trio.sleep(10.0)
    assert ready(pool, mixed) == {FIXED, A}


async def test_who_joins_is_asked_first_and_who_leaves_gets_no_more(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(world, nursery)
    world.names["bots"], world.says[C] = Found((B, C)), "answered 503"
    await trio.sleep(BOT.dns_interval + 1)
    assert ready(pool) == {B}
    assert pool.statistics() == {"bot": {NAME: "2 instances", B: READY, C: "answered 503"}}
    world.says[C] = READY
    await trio.sleep(2.0)
    assert ready(pool) == {B, C}
    (first, second) = world.said("dns_answer")
    assert (first["instances"], first["joined"], first["gone"]) == (2, [A, B], [])
    assert (second["instances"], second["joined"], second["gone"]) == (2, [C], [A])
    # nobody watches it any more, and what is said of it is not heard
    probes = [url for _, url in world.probes].count(A)
    await trio.sleep(60.0)
    assert [url for _, url in world.probes].count(A) == probes
    pool.taken(A, "s")
    pool.failed(A, Failure.SILENT)
    await pool.wait_settled(BOT, A, "s", deaf=False)
    assert A not in pool.statistics()["bot"]


async def test_an_address_that_comes_back_may_be_another_bot(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(world, nursery)
    for _ in range(5):
        pool.failed(A, Failure.SILENT)
    world.names["bots"] = Found((B,))
    await trio.sleep(BOT.dns_interval)
    world.names["bots"], world.says[A] = Found((A, B)), "answered 503"
    await trio.sleep(BOT.dns_interval)
    assert pool.statistics()["bot"][A] == "answered 503"
    world.says[A] = READY
    await trio.sleep(2.0)
    assert ready(pool) == {A, B}


async def test_ranks_are_those_of_the_last_answer(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    mixed = Agent("bot", "acme", (FIXED, NAME, OTHER))
    world.names["more"] = Found((B, C), ranks={B: Rank(0, 0.5), C: Rank(1, 1.0)})
    pool = await running(world, nursery, mixed)
    await trio.sleep(3 * mixed.dns_interval)  # a name without ranks takes none away
    assert pool.places(mixed).ranks == {B: Rank(0, 0.5), C: Rank(1, 1.0)}
    world.names["more"] = Found((C,), ranks={C: Rank(0, 1.0)})
    await trio.sleep(mixed.dns_interval)
    assert ready(pool, mixed) == {FIXED, A, B, C}
    assert pool.places(mixed).ranks == {C: Rank(0, 1.0)}


@pytest.mark.parametrize("looks", [1, 50])
async def test_names_that_cannot_be_looked_up_keep_what_they_stood_for(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery, looks: int
) -> None:
    pool = await running(world, nursery)
    world.names["bots"] = "SERVFAIL"
    await trio.sleep(BOT.dns_interval + looks * RETRY)
    assert ready(pool) == {A, B}
    assert pool.statistics()["bot"][NAME] == "SERVFAIL; 2 instances kept"
    assert pool.details()["bot"][NAME] == {
        "state": "SERVFAIL; 2 instances kept", "failing": True, "instances": 2, "leftOut": 0,
        "shared": [],
    }  # fmt: skip
    (line,) = world.said("dns_failed")  # once, however long it lasts
    assert line == {"agent": "bot", "entry": NAME, "reason": "SERVFAIL", "kept": 2}
    # probes go on to say who is alive
    world.says[A] = "cannot connect"
    await trio.sleep(PROBE_READY + 0.1)
    assert ready(pool) == {B}
    world.names["bots"] = Found((B,))
    await trio.sleep(RETRY)
    assert pool.statistics() == {"bot": {NAME: "1 instance", B: READY}}
    assert len(world.said("dns_answer")) == 2


async def test_a_name_that_has_no_address_stands_for_nobody(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(world, nursery)
    world.names["bots"] = Found()
    await trio.sleep(BOT.dns_interval)
    assert ready(pool) == set()
    assert pool.statistics() == {"bot": {NAME: "0 instances"}}


async def test_a_daemon_starts_without_its_name_server(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world.names["bots"] = "timed out"
    start = trio.current_time()
    pool = await running(world, nursery)
    assert trio.current_time() - start < FIRST_LOOK
    assert pool.statistics() == {"bot": {NAME: "timed out; 0 instances kept"}}
    world.names["bots"] = Found((A,))
    await trio.sleep(RETRY + 0.1)
    assert ready(pool) == {A}


@pytest.mark.parametrize(
    ("ttl", "looks"), [(None, 10), (0.0, 10), (2.0, 50), (0.01, 100), (3600.0, 10)]
)
async def test_how_often_a_name_is_looked_up(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery, ttl: float | None, looks: int
) -> None:
    world.names["bots"] = Found((A,), ttl=ttl)
    await running(world, nursery)
    await trio.sleep(0.5)
    before = world.looks["bots"]
    await trio.sleep(100.0)
    assert world.looks["bots"] - before == looks


async def test_an_instance_belongs_to_one_agent(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Two would give it two sessions at a time; it moves on when the first lets it go."""
    one, two = BOT, Agent("two", "acme", (OTHER,), dns_interval=10.0)
    three = Agent("three", "acme", (C,))
    world.names["more"] = Found((C,))
    pool = await running(world, nursery, one, two, three)
    world.names["more"] = Found((B, C))
    await trio.sleep(21.0)
    assert (ready(pool, one), ready(pool, two), ready(pool, three)) == ({A, B}, set(), {C})
    assert [line["instances"] for line in world.said("dns_shared")] == [(C,), (B, C)]
    shown: Any = pool.details()["two"][OTHER]
    assert shown["shared"] == [B, C]
    world.names["bots"] = Found((A,))
    await trio.sleep(21.0)
    assert (ready(pool, one), ready(pool, two)) == ({A}, {B})
    assert len(world.said("dns_shared")) == 2


async def test_hundreds_are_not_asked_all_at_once(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    many = tuple(f"http://127.0.1.{n}:1" for n in range(200))
    world.names["bots"] = Found(many, ("http://127.0.9.1:1",))
    pool = await running(world, nursery)
    assert ready(pool) == set(many)
    times = [time for time, _ in world.probes]
    assert 0.5 < max(times) - min(times) <= FIRST_PROBES
    assert world.most_probing <= fixed.MAX_PROBES
    (line,) = world.said("dns_left_out")
    assert (line["count"], line["left_out"]) == (1, ("http://127.0.9.1:1",))
    await trio.sleep(100.0)
    assert len(world.said("dns_left_out")) == len(world.said("dns_answer")) == 1


async def test_dead_ones_do_not_use_up_descriptors(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.names["bots"] = Found(tuple(f"http://127.0.1.{n}:1" for n in range(200)))

    async def hang(address: Address, path: str, trust: Trust) -> str:
        await World.probe(world, address, path, trust)
        with trio.fail_after(60):
            world.probing += 1
            await trio.sleep(2.0)
            world.probing -= 1
        return "no answer within 2 s"

    monkeypatch.setattr(instance, "probe", hang)
    await running(world, nursery)
    await trio.sleep(30.0)
    assert world.most_probing <= fixed.MAX_PROBES


# Another configuration.


async def test_a_name_that_is_gone_is_not_looked_up_any_more(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(world, nursery)
    assert ready(pool) == {A, B}
    other = Agent("bot", "acme", (FIXED,))
    pool.configure([other])
    await pool.wait_known(other)
    assert ready(pool, other) == {FIXED}
    looks = world.looks["bots"]
    await trio.sleep(100)
    assert world.looks["bots"] == looks
    assert set(pool.details()["bot"]) == {FIXED}


async def test_a_name_keeps_its_instances_and_is_looked_up_as_it_says_now(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(world, nursery, Agent("bot", "acme", (NAME,), dns_interval=3600.0))
    looks = world.looks["bots"]
    other = Agent("bot", "acme", (NAME,), dns_interval=1.0, dns_server="10.0.0.53:53")
    pool.configure([other])
    assert ready(pool, other) == {A, B}
    await trio.sleep(5)
    assert world.looks["bots"] >= looks + 4
    assert "10.0.0.53:53" in world.servers
    pool.configure([other])
    looks = world.looks["bots"]
    await trio.sleep(5)
    assert world.looks["bots"] <= looks + 6, "one look at a time"


async def test_who_lists_an_instance_has_it(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pool = await running(world, nursery)
    new = Agent("new", "acme", (A,))
    pool.configure([BOT, new])
    await pool.wait_known(new)
    assert (ready(pool), ready(pool, new)) == ({B}, {A})
    await trio.sleep(BOT.dns_interval)
    assert (ready(pool), ready(pool, new)) == ({B}, {A})
    pool.configure([BOT])
    await trio.sleep(BOT.dns_interval)
    assert ready(pool) == {A, B}


async def test_a_name_that_is_not_known_yet_may_have_any_instance(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """So that what drains is not forgotten while the name system is away."""
    world.names["bots"] = "timed out"
    pool = await running(world, nursery)
    assert not pool.gone(A)
    world.names["bots"] = Found((B,))
    await trio.sleep(RETRY + 1)
    assert pool.gone(A)
    assert not pool.gone(B)
    world.names["bots"] = "timed out"
    await trio.sleep(BOT.dns_interval + 1)
    assert not pool.gone(B)
