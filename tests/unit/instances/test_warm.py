"""The pool of launched bots: those that are there before anybody calls, and their end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.instances import bot as bot_module
from relay.instances import launched as module
from relay.instances import probe as probe_module
from relay.instances.launched import LaunchedInstances
from relay.policy import scaling
from relay.policy.capabilities import Capability
from relay.policy.catalog import Agent
from relay.policy.interfaces import Places
from tests.helpers.launched_pool import (
    Stage,
    a_ready_one,
    count,
    open_stage,
    settle,
    until,
)

KEPT = {"reuse_process": True}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with open_stage(tmp_path) as stage:
        yield stage


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is done from time to time is done often."""
    for name, seconds in {"PROBE_IDLE": 0.02, "PROBE_SILENT": 0.02, "SILENT_GRACE": 0.02}.items():
        monkeypatch.setattr(bot_module, name, seconds)
    monkeypatch.setattr(module, "TEND", 0.02)
    monkeypatch.setattr(probe_module, "PROBE_TIMEOUT", 0.5)


async def ready(pool: LaunchedInstances, agent: Agent, number: int) -> tuple[str, ...]:
    """Wait until exactly so many bots are there, all of them ready."""

    def all_ready() -> bool:
        return len(pool.places(agent).ready) == number == count(pool)

    await until(all_ready)
    return pool.places(agent).ready


# Ahead of those who call.


async def test_bots_are_ready_before_anybody_calls(stage: Stage) -> None:
    agent = stage.agent(min_agents=2, max_agents=3)
    async with stage.running(agent) as pool:
        first, _ = await ready(pool, agent, 2)
        assert pool.places(agent).startable == 1
        pool.taken(first, "s")  # nobody asked for more than two
        await settle(pool, agent, first, "s")
        assert first not in await ready(pool, agent, 2)


async def test_what_is_taken_is_started_anew(stage: Stage) -> None:
    agent = stage.agent(min_agents=1, spare_places=1, max_agents=2)
    async with stage.running(agent) as pool:
        (first,) = await ready(pool, agent, 1)
        pool.taken(first, "s")
        assert count(pool) == 1  # not in the way of who takes it
        await until(lambda: len(pool.places(agent).ready) == 2)
        (second,) = set(pool.places(agent).ready) - {first}
        pool.taken(second, "t")
        assert pool.places(agent).startable == 0
        await settle(pool, agent, first, "s")
        await until(lambda: len(pool.places(agent).ready) == 2)
        assert len(stage.log.of("bot_started")) == 3


async def test_nothing_is_started_ahead_before_it_is_known_what_is_there(stage: Stage) -> None:
    agent = stage.agent(min_agents=2)
    async with stage.control(agent, reconciled=False) as pool:
        pool._scalers["bot"].waiting = 1
        await until(lambda: count(pool))
        assert count(pool) == 1  # for who waits; the same look starts what is to be ahead
        pool.reconciled()
        await ready(pool, agent, 2)
        await pool.end(trio.Event())


async def test_those_of_an_earlier_control_process_count(stage: Stage) -> None:
    agent = stage.agent(min_agents=2, spare_places=2, max_agents=3)
    async with stage.control(agent) as pool:
        before = await ready(pool, agent, 2)
        children = [bot.process._child for bot in pool._bots.values()]
    async with stage.running(agent) as pool:
        assert set(await ready(pool, agent, 2)) == set(before)
        assert pool.started_at(before[0]) is None
        pool.taken(before[0], "s")
        await until(lambda: len(pool.places(agent).ready) == 3)
    assert len(stage.log.of("bot_started")) == 3
    for child in children:  # in the place of init
        assert child is not None
        child.wait()


async def test_at_the_end_of_the_daemon_nobody_is_expected(stage: Stage) -> None:
    """Whoever is here already is served still."""
    agent = stage.agent(min_agents=1, spare_places=1)
    async with stage.running(agent) as pool:
        (url,) = await ready(pool, agent, 1)
        pool.drain()
        pool.taken(url, "s")
        await settle(pool, agent, url, "s")
        assert pool._scalers["bot"].ahead() == 0
        assert await a_ready_one(pool, agent) != url


async def test_when_a_bot_was_started(stage: Stage) -> None:
    agent = stage.agent(min_agents=1)
    before = trio.current_time()
    async with stage.running(agent) as pool:
        (url,) = await ready(pool, agent, 1)
        started = pool.started_at(url)
        assert started is not None
        assert before <= started <= trio.current_time()
        assert pool.started_at("http://127.0.0.1:1") is None


# Too many.


async def test_who_is_not_needed_any_more_ends(stage: Stage) -> None:
    """The longest idle first, and never one with a session."""
    agent = stage.agent(min_agents=1, spare_places=0, idle_retirement=0.1, **KEPT)
    async with stage.running(agent) as pool:
        pool.want(agent, 3)
        urls = await ready(pool, agent, 3)
        for url in urls:
            pool.taken(url, url)
        pool.want(agent, 0)
        busy, longest, latest = urls
        await settle(pool, agent, longest, longest)
        await settle(pool, agent, latest, latest)
        await until(lambda: not pool.knows(longest))
        await until(lambda: not pool.knows(latest))  # the one in a call is enough
        await settle(pool, agent, busy, busy)
        assert await ready(pool, agent, 1) == (busy,)
    assert [line["status"] for line in stage.log.of("bot_ended")] == [-15] * 3


async def test_while_somebody_waits_nobody_ends(stage: Stage) -> None:
    agent = stage.agent(idle_retirement=0.0)
    async with stage.running(agent) as pool:
        pool.want(agent, 1)
        (url,) = await ready(pool, agent, 1)
        pool._scalers["bot"].retire_idle()
        assert pool.places(agent) == Places((url,), 9)
        pool.want(agent, 0)
        await until(lambda: count(pool) == 0)


async def test_who_is_to_end_is_not_offered(stage: Stage) -> None:
    agent = stage.agent("--stubborn", idle_retirement=0.0, stop_timeout=1.0, max_agents=1)
    async with stage.running(agent) as pool:
        pool.want(agent, 1)
        await ready(pool, agent, 1)
        pool.want(agent, 0)
        await until(lambda: not pool.places(agent).ready)
        assert count(pool) == 1
        assert pool.places(agent) == Places((), 0)


# Dead or silent.


async def test_one_that_dies_idle_is_replaced_later_and_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Becoming ready alone does not show that the command is not broken; a session does."""
    monkeypatch.setattr(scaling, "BACKOFF_FIRST", 0.05)
    agent = stage.agent(min_agents=1, **KEPT)
    async with stage.running(agent) as pool:
        for number in (1, 2):
            (url,) = await ready(pool, agent, 1)
            os.kill(stage.pids()[0], signal.SIGKILL)
            await until(lambda number=number: len(stage.log.of("bot_failed")) == number)
        (url,) = await ready(pool, agent, 1)
        pool.taken(url, "s")
        await settle(pool, agent, url, "s")
        os.kill(stage.pids()[0], signal.SIGKILL)
        await until(lambda: len(stage.log.of("bot_failed")) == 3)
    assert [line["wait"] for line in stage.log.of("bot_failed")] == [0.05, 0.1, 0.05]
    assert {line["reason"] for line in stage.log.of("bot_failed")} == {"killed by signal 9"}


async def test_one_that_hangs_is_replaced_unless_it_has_a_session(stage: Stage) -> None:
    agent = stage.agent(min_agents=2, max_agents=3, stop_timeout=3600.0, **KEPT)
    async with stage.running(agent) as pool:
        busy, idle = await ready(pool, agent, 2)
        pool.taken(busy, "s")
        for pid in stage.pids():
            os.kill(pid, signal.SIGSTOP)
        await until(lambda: not pool.knows(idle))
        assert pool.statistics()["bot"][busy] == "ready"
        await until(lambda: len(pool.places(agent).ready) == 2)
        hung = {line["pid"] for line in stage.log.of("bot_started")[:2]} & set(stage.pids())
        for pid in hung:
            os.kill(pid, signal.SIGCONT)
        await settle(pool, agent, busy, "s")
        assert busy in await ready(pool, agent, 2)
    (line,) = stage.log.of("bot_failed")
    assert line["reason"] == "no sign of life: no answer within 0.5 s"


async def test_one_that_pauses_is_not_offered_meanwhile(stage: Stage) -> None:
    agent = stage.agent(min_agents=1, max_agents=1, **KEPT)
    async with stage.running(agent) as pool:
        (url,) = await ready(pool, agent, 1)
        (pid,) = stage.pids()
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: not pool.places(agent).ready)
        os.kill(pid, signal.SIGCONT)
        assert await ready(pool, agent, 1) == (url,)
    assert stage.log.of("bot_failed") == []


async def test_who_waits_does_not_wait_for_a_silent_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_module, "PROBE_SILENT", 3600.0)
    agent = stage.agent(max_agents=2, **KEPT)
    async with stage.running(agent) as pool:
        url = await a_ready_one(pool, agent)
        async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream:
            await stream.send_all(b"GET /deaf HTTP/1.1\r\n\r\n")
            assert await stream.receive_some()
        pool.failed(url, "cannot connect")
        assert await a_ready_one(pool, agent) != url
        assert pool.knows(url)


async def test_the_end_does_not_wait_for_an_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TEND", 3600.0)
    monkeypatch.setattr(probe_module, "PROBE_TIMEOUT", 3600.0)
    agent = stage.agent(stop_timeout=0.1)
    async with stage.running(agent) as pool:
        await a_ready_one(pool, agent)
        os.kill(stage.pids()[0], signal.SIGSTOP)
        await trio.testing.wait_all_tasks_blocked(0.05)  # it is being asked
    (line,) = stage.log.of("bot_ended")
    assert line["status"] == -9


async def test_one_that_is_idle_says_what_it_can_do(stage: Stage) -> None:
    agent = stage.agent(min_agents=1)
    async with stage.running(agent) as pool:
        (url,) = await ready(pool, agent, 1)
        await until(lambda: pool.details()["bot"][url]["capabilities"] is not None)
        websocket = {"transport.websocket": Capability(available=True)}
        assert pool.details()["bot"][url]["capabilities"] == websocket


# What they use.


async def test_memory_and_processor_time_of_all_processes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEASURE", 0.02)
    agent = stage.agent("--child", min_agents=1)
    async with stage.running(agent) as pool:
        (url,) = await ready(pool, agent, 1)
        await until(lambda: pool.details()["bot"][url]["processes"] == 2)
        figures: dict[str, Any] = pool.details()["bot"][url]
        assert figures.pop("state") == "ready"
        assert figures["pid"] == stage.log.of("bot_started")[0]["pid"]
        assert figures["sessions"] == 0
        assert 1e6 < figures["pssBytes"] <= figures["rssBytes"] < 1e9
        assert 0 <= figures["cpuSeconds"] < 60
        assert 0 <= figures["ageSeconds"] < 60
    assert pool.details() == {"bot": {}}
