"""Bots that the daemon starts itself: on demand, one process per session unless told otherwise.

A bot is STARTING until its readiness route says yes, READY until it is to end, ENDING
until nothing of it is left. It lives on when the control process dies; the next one
finds it by its record (`instances.files`) and adopts it.
"""

from __future__ import annotations

__all__ = ["LaunchedInstances"]

import contextlib
import os
import secrets
import socket
from collections.abc import Iterable, Mapping
from hashlib import sha256

import msgspec
import trio

from relay.instances.bot import HOST, Bot, State
from relay.instances.files import BotFiles, Record
from relay.instances.process import Process, end_marked
from relay.policy.catalog import Agent
from relay.policy.interfaces import Log, Places
from relay.policy.scaling import Counts, backoff, missing, startable

# A waiting caller looks again at the latest after this, as with fixed instances.
LOOK_AGAIN = 0.5
# A bot that prints without pause may be this long over its log's bound.
TRIM_LOGS = 0.2
# A bot that dies younger than this without having held a session has failed to start.
YOUNG = 10.0
# Between the end of a dying process's connection and its own pass milliseconds.
DYING = 0.1
# How long the daemon's own end waits for bots when somebody is in a hurry.
HURRY = 2.0
# Of what a bot said last before it failed: the line that names the error.
MAX_SAID = 300


class LaunchedInstances:
    """`relay.policy.interfaces.InstancePool` over processes of this machine.

    Args:
        agents: those with a command.
        environment: what bots inherit.
    """

    def __init__(
        self, agents: Iterable[Agent], files: BotFiles, environment: Mapping[str, str], log: Log
    ) -> None:
        self._agents = {agent.name: agent for agent in agents}
        self._files = files
        self._environment = environment
        self._log = log
        self._bots: dict[str, Bot] = {}
        self._waiting: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._uses = 0
        self._changed = trio.Event()
        self._reconciled = trio.Event()
        self._closed = False
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Adopt the bots that are there, then start and end them as asked, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for record in self._files.records():
                self._adopt(record, nursery)
            nursery.start_soon(self._tend)
            task_status.started()

    async def end(self, hurry: trio.Event) -> None:
        """End every bot, and start none any more; returns when they are gone."""
        self._closed = True
        for bot in self._bots.values():
            bot.retire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hurry_at, hurry)
            for bot in list(self._bots.values()):
                await bot.gone.wait()
            nursery.cancel_scope.cancel()

    async def _hurry_at(self, hurry: trio.Event) -> None:
        await hurry.wait()
        for bot in self._bots.values():
            bot.grace.deadline = min(bot.grace.deadline, trio.current_time() + HURRY)

    # What the server asks.

    async def wait_known(self) -> None:
        await self._reconciled.wait()

    def places(self, agent: Agent) -> Places:
        ready = [bot for bot in self._of(agent) if bot.offered]
        ready.sort(key=lambda bot: bot.used)
        return Places(tuple(bot.url for bot in ready), self._startable(agent))

    def _startable(self, agent: Agent) -> int:
        counts = self._counts(agent)
        if self._closed or self._held_back(agent):
            return counts.starting
        return startable(counts, agent.max_agents)

    def want(self, agent: Agent, waiting: int) -> None:
        self._waiting[agent.name] = waiting
        self._scale(agent)

    async def wait_change(self, agent: Agent) -> None:
        with trio.move_on_after(LOOK_AGAIN):
            await self._changed.wait()

    def taken(self, instance: str, session_id: str) -> None:
        if (bot := self._bots.get(instance)) is not None:
            self._uses += 1
            bot.used = self._uses
            bot.sessions.add(session_id)

    def failed(self, instance: str, reason: str) -> None:
        bot = self._bots.get(instance)
        if bot is not None:
            bot.doubt(reason)

    async def wait_settled(
        self, agent: Agent, instance: str, session_id: str, *, deaf: bool
    ) -> None:
        bot = self._bots.get(instance)
        if bot is None:
            return
        alone = agent.sessions_per_instance == 1
        # A process of its own that has not heard of the end is not asked to finish first.
        rest = agent.stopping_time if deaf else max(agent.settle_time, DYING)
        if deaf and alone:
            rest = 0.0
        with trio.move_on_after(rest):
            await bot.gone.wait()
        if not agent.reuse_process or (deaf and alone) or (bot.outdated and alone):
            bot.retire()
        elif alone:
            bot.sessions.discard(session_id)
            bot.doubt("settling")  # it says itself whether it can take the next
        if bot.retiring:
            await bot.gone.wait()

    async def has_failed(self, instance: str) -> bool:
        bot = self._bots.get(instance)
        if bot is None:
            return False
        with trio.move_on_after(DYING):
            await bot.process.exited.wait()
        # A status that cannot be read is not that of a server that goes on after its call.
        return bot.process.exited.is_set() and bot.process.status != 0

    def freed(self, instance: str, session_id: str) -> None:
        bot = self._bots.get(instance)
        if bot is not None:
            bot.sessions.discard(session_id)
            if bot.outdated and not bot.sessions:
                bot.retire()
        self._wake()

    def reconciled(self) -> None:
        for bot in self._bots.values():
            if bot.outdated and not bot.sessions:
                bot.retire()
        self._reconciled.set()

    def statistics(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {name: {} for name in self._agents}
        for bot in self._bots.values():
            found.setdefault(bot.record.agent, {})[bot.url] = bot.described
        return found

    def knows(self, instance: str) -> bool:
        return instance in self._bots

    # How many there are, and how many there should be.

    def _of(self, agent: Agent) -> list[Bot]:
        return [bot for bot in self._bots.values() if bot.record.agent == agent.name]

    def _counts(self, agent: Agent) -> Counts:
        bots = self._of(agent)
        fresh = [bot for bot in bots if bot.state is State.STARTING and not bot.outdated]
        room = sum(agent.sessions_per_instance - len(bot.sessions) for bot in bots if bot.offered)
        return Counts(sum(not bot.sessions for bot in fresh), max(0, room), len(bots))

    def _held_back(self, agent: Agent) -> bool:
        return trio.current_time() < self._not_before.get(agent.name, 0.0)

    def _scale(self, agent: Agent) -> None:
        """Start what is missing, if it may be."""
        if self._closed or self._nursery is None:
            return
        while not self._held_back(agent):
            waiting, counts = self._waiting.get(agent.name, 0), self._counts(agent)
            if not missing(waiting, counts, agent.max_agents, agent.sessions_per_instance):
                return
            self._start(agent, self._nursery)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # One bot from its start to its end.

    def _start(self, agent: Agent, nursery: trio.Nursery) -> None:
        record = Record(secrets.token_hex(6), agent.name, self._free_port(), _digest(agent))
        log = -1
        try:
            self._files.write(record)
            log = self._files.open_log(record)
            process = Process.start(
                record.id,
                [word.replace("{port}", str(record.port)) for word in agent.command],
                agent.cwd,
                {**self._environment, **dict(agent.env), "PORT": str(record.port)},
                log,
            )
        except OSError as error:
            self._files.remove(record)
            self._count_failure(record, f"{error.strerror}: {error.filename}")
            return
        finally:
            if log >= 0:
                os.close(log)
        record = msgspec.structs.replace(record, process=process.known)
        with contextlib.suppress(OSError):  # without the pid it is found by its mark
            self._files.write(record)
        self._log.event("bot_started", agent=agent.name, bot=record.id, pid=process.known.pid)
        self._add(Bot(record, process, agent, self._wake, self._first_ready), nursery)

    def _adopt(self, record: Record, nursery: trio.Nursery) -> None:
        """Take over a bot of an earlier control process, or see that nothing of it is left."""
        process = Process.adopt(record.id, record.process)
        if process is None:
            nursery.start_soon(self._clear, record)
            return
        agent = self._agents.get(record.agent) or Agent(record.agent, "", ())
        bot = Bot(record, process, agent, self._wake, self._first_ready)
        bot.outdated = record.launch != _digest(agent)
        bot.ready_after = 0.0  # when it was started is the other process's knowledge
        self._log.event("bot_adopted", agent=agent.name, bot=record.id, pid=process.known.pid)
        self._add(bot, nursery)

    def _add(self, bot: Bot, nursery: trio.Nursery) -> None:
        self._bots[bot.url] = bot
        nursery.start_soon(self._keep, bot)

    def _first_ready(self, bot: Bot) -> None:
        name = bot.record.agent
        self._failures.pop(name, None)
        seconds = round(bot.ready_after or 0.0, 3)
        self._log.event("bot_ready", agent=name, bot=bot.record.id, seconds=seconds)

    async def _clear(self, record: Record) -> None:
        """The first process is gone; what it has started may not be."""
        await end_marked(record.id)
        self._files.remove(record)

    async def _keep(self, bot: Bot) -> None:
        why = await bot.run(self._reconciled)
        del self._bots[bot.url]
        await self._trim(bot)
        status = bot.process.status
        name, mark = bot.record.agent, bot.record.id
        young = trio.current_time() - bot.since < YOUNG
        if why is None or (status == 0 and bot.sessions):
            self._log.event("bot_ended", agent=name, bot=mark, status=status)
        elif not bot.sessions and (bot.ready_after is None or young):
            self._count_failure(bot.record, why)
        else:
            self._log.warning(
                "bot_lost", agent=name, bot=mark, reason=why, sessions=len(bot.sessions)
            )
        if not bot.stuck:  # what is left of it is the next daemon's to find
            self._files.remove(bot.record)
        bot.gone.set()
        self._wake()

    def _free_port(self) -> int:
        """A port that is free now; a bot that loses the race for it is started again."""
        while True:
            with socket.socket() as sock:
                sock.bind((HOST, 0))
                port: int = sock.getsockname()[1]
            if f"http://{HOST}:{port}" not in self._bots:
                return port

    def _count_failure(self, record: Record, reason: str) -> None:
        """A start has failed: leave the command alone for a while."""
        name = record.agent
        self._failures[name] = self._failures.get(name, 0) + 1
        wait = backoff(self._failures[name])
        self._not_before[name] = trio.current_time() + wait
        said = self._files.tail(record).rpartition("\n")[2][:MAX_SAID]
        log = str(self._files.log(record))
        self._log.warning(
            "bot_failed", agent=name, bot=record.id, reason=reason, said=said, log=log, wait=wait
        )

    async def _tend(self) -> None:
        """Bound the logs; start what could not be started before."""
        while True:
            await trio.sleep(TRIM_LOGS)
            for bot in list(self._bots.values()):
                await self._trim(bot)
            for agent in self._agents.values():
                self._scale(agent)

    async def _trim(self, bot: Bot) -> None:
        if self._files.is_long(bot.record, bot.agent.log_size):
            await trio.to_thread.run_sync(self._files.trim, bot.record, bot.agent.log_size)


def _digest(agent: Agent) -> str:
    """Names a way of starting a bot: when it changes, running bots are outdated."""
    parts = (agent.command, agent.cwd, agent.env, agent.ready_path)
    return sha256(msgspec.json.encode(parts)).hexdigest()
