"""The pool of launched bots: what it offers, what it starts, when it ends what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from relay.instances import launched as module
from relay.policy.interfaces import Places
from tests.helpers.launched_pool import (
    PATIENCE,
    Stage,
    a_ready_one,
    count,
    open_stage,
    settle,
    until,
)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with open_stage(tmp_path) as stage:
        yield stage


# From a start to an end.


async def test_a_bot_is_started_for_who_waits(stage: Stage) -> None:
    agent = stage.agent(max_agents=2)
    async with stage.running(agent) as pool:
        assert pool.places(agent) == Places((), 2)
        assert stage.pids() == []
        pool.want(agent, 1)
        assert pool.places(agent) == Places((), 2)  # one that starts, one that may
        assert count(pool) == 1
        pool.want(agent, 1)
        assert count(pool) == 1
        url = await a_ready_one(pool, agent)
        assert pool.knows(url)
        assert pool.places(agent) == Places((url,), 1)
        assert pool.statistics() == {"bot": {url: "ready"}}
        pool.taken(url, "s")
        pool.want(agent, 1)  # the next one
        assert count(pool) == 2
        pool.want(agent, 0)
        await settle(pool, agent, url, "s")
        assert not pool.knows(url)
        assert len(stage.log.of("bot_ended")) == 1
    assert pool.places(agent) == Places()
    assert [line["event"] for line in stage.log.lines].count("bot_ended") == 2


async def test_what_a_bot_is_told(stage: Stage) -> None:
    env = (("OWN", "value"), ("PORT", "1"), ("RELAY_INSTANCE", "x"))
    async with stage.running(stage.agent(env=env)) as pool:
        url = await a_ready_one(pool, stage.agent(env=env))
        (pid,) = stage.pids()
        lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    port = url.rpartition(":")[2]
    assert {"OWN=value", f"PORT={port}"} <= set(lines)
    assert f"RELAY_INSTANCE={stage.log.lines[0]['bot']}" in lines
    assert words[words.index("--port") + 1] == port


async def test_ready_ones_least_recently_used_first(stage: Stage) -> None:
    agent = stage.agent(reuse_process=True, sessions_per_instance=2)
    async with stage.running(agent) as pool:
        pool.want(agent, 4)
        await until(lambda: len(pool.places(agent).ready) == 2)
        pool.want(agent, 0)
        first, second = pool.places(agent).ready
        pool.taken(first, "s")
        assert pool.places(agent).ready == (second, first)
        pool.taken(second, "s")
        assert pool.places(agent).ready == (first, second)


async def test_a_change_wakes_who_waits_for_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN", 3600.0)
    agent = stage.agent(stop_timeout=1.0)
    async with stage.running(agent) as pool:
        pool.want(agent, 1)
        with trio.fail_after(PATIENCE):
            while not pool.places(agent).ready:
                await pool.wait_change(agent)
        (url,) = pool.places(agent).ready
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.wait_change, agent)
            await trio.testing.wait_all_tasks_blocked()
            pool.freed(url, "s")


async def test_a_waiter_is_not_kept_for_ever(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.01)
    agent = stage.agent()
    async with stage.running(agent) as pool:
        with trio.fail_after(PATIENCE):
            await pool.wait_change(agent)


async def test_an_instance_that_is_not_known(stage: Stage) -> None:
    """It may have been there under another control process."""
    agent = stage.agent()
    async with stage.running(agent) as pool:
        pool.taken("http://127.0.0.1:1", "s")
        pool.failed("http://127.0.0.1:1", "cannot connect")
        await settle(pool, agent, "http://127.0.0.1:1", "s")
        assert not pool.knows("http://127.0.0.1:1")


# A process that is kept.


async def test_a_kept_process_says_when_it_can_take_the_next(stage: Stage) -> None:
    agent = stage.agent(reuse_process=True, max_agents=1)
    async with stage.running(agent) as pool:
        url = await a_ready_one(pool, agent)
        pool.taken(url, "s")
        await settle(pool, agent, url, "s")
        assert pool.places(agent) == Places((), 1)  # it is asked first
        assert pool.statistics()["bot"][url].startswith("starting: ")
        assert await a_ready_one(pool, agent) == url
        assert len(stage.log.of("bot_ready")) == 1


async def test_a_kept_process_of_many_is_left_alone(stage: Stage) -> None:
    agent = stage.agent(reuse_process=True, sessions_per_instance=2)
    async with stage.running(agent) as pool:
        url = await a_ready_one(pool, agent)
        pool.taken(url, "one")
        pool.taken(url, "two")
        await settle(pool, agent, url, "one")
        assert pool.places(agent).ready == (url,)
        pool.want(agent, 1)  # there is room for him
        assert count(pool) == 1
        pool.want(agent, 2)
        assert count(pool) == 2


async def test_a_kept_process_that_has_not_heard_of_the_end(stage: Stage) -> None:
    """Alone it is ended at once; with others it gets time to finish."""
    alone = stage.agent(reuse_process=True, stopping_time=3600.0)
    async with stage.running(alone) as pool:
        url = await a_ready_one(pool, alone)
        pool.taken(url, "s")
        await settle(pool, alone, url, "s", deaf=True)
        assert not pool.knows(url)
    many = msgspec.structs.replace(alone, sessions_per_instance=2, stopping_time=0.01)
    async with stage.running(many) as pool:
        url = await a_ready_one(pool, many)
        pool.taken(url, "s")
        await settle(pool, many, url, "s", deaf=True)
        assert pool.places(many).ready == (url,)


async def test_who_is_placed_before_the_last_one_is_counted_out(stage: Stage) -> None:
    """The store may give a freed place away before the pool hears that it was freed."""
    agent = stage.agent(reuse_process=True, max_agents=2)
    async with stage.running(agent) as pool:
        url = await a_ready_one(pool, agent)
        pool.taken(url, "last")
        await pool.wait_settled(agent, url, "last", deaf=False)
        await until(lambda: pool.places(agent).ready)
        pool.taken(url, "next")
        pool.freed(url, "last")
        pool.want(agent, 1)  # a third one, for whom there is no room there
        assert count(pool) == 2


# The end.


async def test_the_end_ends_all_and_starts_nothing(stage: Stage) -> None:
    agent = stage.agent()
    async with stage.running(agent) as pool:
        url = await a_ready_one(pool, agent)
        pool.taken(url, "s")
        pool.want(agent, 1)
        assert count(pool) == 2
        await pool.end(trio.Event())
        assert stage.pids() == []
        assert pool.places(agent) == Places()
        pool.want(agent, 1)
        assert stage.pids() == []
    assert [line["event"] for line in stage.log.lines[-2:]] == ["bot_ended"] * 2


async def test_in_a_hurry_nobody_is_asked_twice(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HURRY", 0.01)
    agent = stage.agent("--stubborn", stop_timeout=3600.0)
    async with stage.control(agent) as pool:
        await a_ready_one(pool, agent)
        hurry = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.end, hurry)
            await trio.testing.wait_all_tasks_blocked()
            assert count(pool) == 1
            hurry.set()
            nursery.cancel_scope.deadline = trio.current_time() + PATIENCE
        assert stage.pids() == []
    (line,) = stage.log.of("bot_ended")
    assert line["status"] == -9


# Another configuration, and drains.


async def test_bots_of_another_command_end_with_their_last_session(stage: Stage) -> None:
    before = stage.agent(max_agents=3)
    after = stage.agent(max_agents=3, env=(("NEW", "1"),))
    async with stage.running(before) as pool:
        pool.want(before, 2)
        await until(lambda: len(pool.places(before).ready) == 2)
        pool.want(before, 0)
        busy, idle = pool.places(before).ready
        pool.taken(busy, "s")
        pool.configure([after], {})
        await until(lambda: not pool.knows(idle))
        assert pool.statistics()["bot"] == {busy: "outdated"}
        new = await a_ready_one(pool, after)
        assert new not in (busy, idle)
        # Back again: it is as good as before.
        pool.configure([before], {})
        await until(lambda: not pool.knows(new))  # which is outdated in its turn
        assert pool.statistics()["bot"] == {busy: "ready"}
        pool.configure([after], {})
        await settle(pool, before, busy, "s")
        assert not pool.knows(busy)
    assert len(stage.log.of("bot_ended")) == 3


async def test_bots_of_an_agent_that_is_gone_finish(stage: Stage) -> None:
    agent = stage.agent()
    async with stage.running(agent) as pool:
        url = await a_ready_one(pool, agent)
        pool.taken(url, "s")
        pool.configure([], {})
        assert pool.statistics() == {"bot": {url: "outdated"}}
        pool.freed(url, "s")  # as the desk does without an agent
        await until(lambda: not pool.knows(url))
        assert pool.statistics() == {}
        assert stage.pids() == []


async def test_bots_inherit_what_is_configured_now(stage: Stage) -> None:
    agent = stage.agent()
    async with stage.running(agent) as pool:
        pool.configure([agent], {"ONLY": "this"})
        await a_ready_one(pool, agent)
        (pid,) = stage.pids()
        lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    assert {line.partition("=")[0] for line in lines if line} == {"ONLY", "PORT", "RELAY_INSTANCE"}


async def test_a_drained_bot_ends_when_it_is_idle(stage: Stage) -> None:
    agent = stage.agent(max_agents=2, sessions_per_instance=2)
    async with stage.running(agent) as pool:
        busy = await a_ready_one(pool, agent)
        pool.taken(busy, "s")
        assert pool.places(agent) == Places((busy,), 1)
        pool.hold_back(frozenset({busy}))
        # Its second place is no room: another one is started for who waits.
        assert pool.places(agent) == Places((), 1)
        idle = await a_ready_one(pool, agent)
        assert idle != busy
        pool.hold_back(frozenset({busy, idle}))
        await until(lambda: not pool.knows(idle))
        assert pool.gone(idle)
        pool.hold_back(frozenset())
        assert pool.places(agent).ready == (busy,)
        pool.hold_back(frozenset({busy}))
        assert not pool.gone(busy)
        pool.freed(busy, "s")
        await until(lambda: not pool.knows(busy))


async def test_a_drain_is_known_to_the_next_control_process(stage: Stage) -> None:
    agent = stage.agent(max_agents=2)
    async with stage.control(agent) as pool:
        url = await a_ready_one(pool, agent)
        child = pool._bots[url].process._child
    async with stage.control(agent, reconciled=False) as pool:
        pool.hold_back(frozenset({url}))
        pool.taken(url, "s")
        pool.reconciled()
        assert not pool.places(agent).ready
        pool.freed(url, "s")
        await until(lambda: not pool.knows(url))
    assert child is not None
    child.wait()  # in the place of init
