"""The pool of launched bots with real processes and without a daemon around it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from relay.instances import process
from relay.instances.files import BotFiles
from relay.instances.launched import LaunchedInstances
from relay.policy.catalog import Agent
from tests.helpers.launched import NAUGHTY_BOT

PATIENCE = 10.0


class Log:
    """Keeps what was said about bots."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def event(self, name: str, **fields: object) -> None:
        self.lines.append({"event": name, **fields})

    warning = event

    def __getattr__(self, name: str) -> Callable[..., None]:
        raise AssertionError(f"nothing is to be said with {name}")

    def of(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == name]


class Stage:
    """A folder, a log, and agents whose bots run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = Log()
        self.pools: list[LaunchedInstances] = []

    def agent(self, *faults: str, **fields: Any) -> Agent:
        words = (sys.executable, "-S", NAUGHTY_BOT, "--port", "{port}", *faults)
        usual: dict[str, Any] = {"settle_time": 0.0, "stop_timeout": 5.0, "start_timeout": 10.0}
        fields = usual | {"cwd": str(self.folder), "command": words} | fields
        return Agent("bot", "acme", **fields)

    @asynccontextmanager
    async def control(
        self, *agents: Agent, reconciled: bool = True
    ) -> AsyncIterator[LaunchedInstances]:
        """A control process's pool, until the end of the block, at which bots are left alone."""
        files = BotFiles(self.folder / "bots")
        log: Any = self.log
        pool = LaunchedInstances(agents, files, dict(os.environ), log)
        self.pools.append(pool)
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            if reconciled:
                pool.reconciled()
            yield pool
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def running(self, *agents: Agent) -> AsyncIterator[LaunchedInstances]:
        """The same, and the bots are ended with the block."""
        async with self.control(*agents) as pool:
            try:
                yield pool
            finally:
                with trio.fail_after(PATIENCE, shield=True):
                    await pool.end(trio.Event())

    def pids(self) -> list[int]:
        marks = {line["bot"] for line in self.log.of("bot_started")}
        return [pid for mark in marks for pid in process._marked(mark)]


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.005)


def count(pool: LaunchedInstances) -> int:
    """How many bots there are, those that end too."""
    return sum(map(len, pool.statistics().values()))


async def a_ready_one(pool: LaunchedInstances, agent: Agent) -> str:
    """Wait, as a caller does, for a bot that can be given to him."""
    pool.want(agent, 1)
    await until(lambda: pool.places(agent).ready)
    pool.want(agent, 0)
    return pool.places(agent).ready[0]


async def settle(
    pool: LaunchedInstances, agent: Agent, url: str, session: str, *, deaf: bool = False
) -> None:
    with trio.fail_after(PATIENCE):
        await pool.wait_settled(agent, url, session, deaf=deaf)
    pool.freed(url, session)


@contextmanager
def open_stage(folder: Path) -> Iterator[Stage]:
    """A stage on which no process is left in the end."""
    stage = Stage(folder)
    yield stage
    left = stage.pids()
    for pid in left:
        os.kill(pid, 9)
    assert left == []
