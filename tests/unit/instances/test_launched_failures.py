"""The pool of launched bots: what it makes of bots that fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from relay.instances import launched
from relay.policy import scaling
from relay.policy.interfaces import Places
from tests.helpers.launched_pool import Stage, a_ready_one, open_stage, settle, until


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with open_stage(tmp_path) as stage:
        yield stage


async def test_a_command_that_fails_is_left_alone_for_longer_and_longer(stage: Stage) -> None:
    agent = stage.agent("--exit", "1")
    async with stage.running(agent) as pool:
        pool.want(agent, 1)
        await until(lambda: len(stage.log.of("bot_failed")) == 2)
        assert pool.places(agent) == Places()
        assert stage.pids() == []
    first, second = stage.log.of("bot_failed")
    assert (first["wait"], second["wait"]) == (0.5, 1.0)
    assert (first["reason"], first["said"]) == ("it exited with status 1", "this bot is broken")


async def test_a_failure_that_has_passed_is_forgotten(stage: Stage) -> None:
    agent = stage.agent("--rival", str(stage.folder / "first"))
    async with stage.running(agent) as pool:
        url = await a_ready_one(pool, agent)
        pool.taken(url, "s")
        await settle(pool, agent, url, "s")
        (stage.folder / "first").unlink()
        pool.want(agent, 1)
        await until(lambda: len(stage.log.of("bot_failed")) == 2)
        pool.want(agent, 0)
    assert [line["wait"] for line in stage.log.of("bot_failed")] == [0.5, 0.5]


async def test_a_bot_that_does_not_become_ready_is_ended(stage: Stage) -> None:
    agent = stage.agent("--gate", str(stage.folder / "never"), start_timeout=0.1)
    async with stage.running(agent) as pool:
        pool.want(agent, 1)
        pool.want(agent, 0)
        (url,) = pool.statistics()["bot"]
        await until(lambda: stage.log.of("bot_failed"))
        await until(lambda: not pool.knows(url))
    (line,) = stage.log.of("bot_failed")
    assert line["reason"] == "not ready within 0.1 s: cannot connect"


async def test_none_is_tried_while_one_that_failed_ends(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "BACKOFF_FIRST", 3600.0)
    monkeypatch.setattr(scaling, "BACKOFF_MOST", 3600.0)
    monkeypatch.setattr(launched, "TEND", 0.01)
    agent = stage.agent("--stubborn", "--gate", "never", start_timeout=0.1, stop_timeout=0.5)
    async with stage.running(agent) as pool:
        pool.want(agent, 1)
        await until(lambda: pool.statistics() == {"bot": {}})
        pool.want(agent, 0)
    assert len(stage.log.of("bot_started")) == len(stage.log.of("bot_failed")) == 1


async def test_a_folder_that_cannot_be_written_is_a_failed_start(stage: Stage) -> None:
    (stage.folder / "bots").write_text("no folder")
    agent = stage.agent()
    async with stage.running(agent) as pool:
        pool.want(agent, 1)
        assert pool.places(agent) == Places()
        assert stage.pids() == []
    assert "File exists" in stage.log.of("bot_failed")[0]["reason"]


async def test_a_bot_that_nobody_can_reach_is_asked_again(stage: Stage) -> None:
    agent = stage.agent(reuse_process=True)
    async with stage.running(agent) as pool:
        url = await a_ready_one(pool, agent)
        pool.taken(url, "s")
        pool.failed(url, "cannot connect")
        pool.freed(url, "s")
        assert pool.places(agent).ready == ()
        assert pool.statistics()["bot"][url] == "starting: cannot connect"
        assert await a_ready_one(pool, agent) == url


async def test_a_bot_with_calls_that_nobody_else_can_reach(stage: Stage) -> None:
    """It is not offered again before a probe has reached it, and its calls go on."""
    agent = stage.agent(reuse_process=True, sessions_per_instance=2, start_timeout=0.2)
    async with stage.running(agent) as pool:
        url = await a_ready_one(pool, agent)
        pool.taken(url, "s")
        pool.taken(url, "t")
        async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream:
            await stream.send_all(b"GET /deaf HTTP/1.1\r\n\r\n")
            assert await stream.receive_some()
        pool.failed(url, "cannot connect")
        pool.freed(url, "s")
        await trio.testing.wait_all_tasks_blocked()
        assert pool.places(agent).ready == ()
        assert pool.knows(url)
