"""Bots that the daemon starts itself: ahead of their callers as far as it is told to, and on
demand; one process per session unless told otherwise.

A bot is STARTING until its readiness route says yes, READY until it is to end, ENDING
until nothing of it is left. It lives on when the control process dies; the next one
finds it by its record (`instances.files`) and adopts it.
"""

from __future__ import annotations

__all__ = ["LaunchedInstances"]

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

import trio

from relay.instances.bot import Bot
from relay.instances.files import BotFiles, Record, launch_of
from relay.instances.launch import free_port, launch
from relay.instances.process import Process, end_marked
from relay.instances.scaler import Scaler
from relay.instances.usage import measure
from relay.policy.catalog import Agent
from relay.policy.interfaces import Log, Places

T = TypeVar("T")

# A waiting caller looks again at the latest after this, as with fixed instances.
LOOK_AGAIN = 0.5
# A bot that prints without pause may be this long over its log's bound, and one that is to
# be ready for the next caller is started so much later, out of the way of the present one.
TEND = 0.2
# Memory and processor time change slowly, and looking at them stops a bot for a moment.
MEASURE = 15.0
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
        self._files = files
        self._drained: frozenset[str] = frozenset()
        self._log = log
        self._bots: dict[str, Bot] = {}
        self._scalers: dict[str, Scaler] = {}
        self._uses = 0
        self._changed = trio.Event()
        self._reconciled = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.configure(agents, environment)

    def configure(self, agents: Iterable[Agent], environment: Mapping[str, str]) -> None:
        """Start bots like this from now on; others that run end with their last session."""
        self._environment = environment
        wanted = {agent.name: agent for agent in agents}
        for name in wanted.keys() | self._scalers.keys():
            agent = wanted.get(name, Agent(name, ""))
            self._scalers.setdefault(name, Scaler(agent)).configure(agent)
        for bot in self._bots.values():
            # One of an agent that is gone ends as that agent said.
            bot.agent = wanted.get(bot.record.agent, bot.agent)
            bot.outdated = bot.record.launch != launch_of(self._scaler(bot.record).agent)
        self._retire_unwanted()
        self._wake()

    def hold_back(self, instances: frozenset[str]) -> None:
        self._drained = instances
        for bot in self._bots.values():
            bot.held_back = bot.url in instances
        self._retire_unwanted()
        self._wake()

    def gone(self, instance: str) -> bool:
        return instance not in self._bots

    def _retire_unwanted(self) -> None:
        """End bots that get no session any more and have none."""
        if self._reconciled.is_set():
            for bot in self._bots.values():
                if not bot.wanted and not bot.sessions:
                    bot.retire()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Adopt the bots that are there, then start and end them as asked, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for record in self._files.records():
                self._adopt(record)
            nursery.start_soon(self._tend)
            nursery.start_soon(self._measure)
            task_status.started()

    def drain(self) -> None:
        """Start bots for callers who are here already, and no others."""
        for scaler in self._scalers.values():
            scaler.drain()

    async def end(self, hurry: trio.Event) -> None:
        """End every bot, and start none any more; returns when they are gone."""
        for scaler in self._scalers.values():
            scaler.close()
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

    async def wait_known(self, agent: Agent) -> None:
        await self._reconciled.wait()

    def places(self, agent: Agent) -> Places:
        scaler = self._scalers[agent.name]
        ready = [bot for bot in scaler.bots if bot.offered]
        ready.sort(key=lambda bot: bot.used)
        return Places(tuple(bot.url for bot in ready), scaler.startable())

    def want(self, agent: Agent, waiting: int) -> None:
        scaler = self._scalers[agent.name]
        scaler.waiting = waiting
        self._start_missing(scaler)

    async def wait_change(self, agent: Agent) -> None:
        with trio.move_on_after(LOOK_AGAIN):
            await self._changed.wait()

    def taken(self, instance: str, session_id: str) -> None:
        if (bot := self._bots.get(instance)) is not None:
            self._uses += 1
            bot.take(session_id, self._uses)
            self._scaler(bot.record).forget_failures()

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
        if not agent.reuse_process or (deaf and alone) or (not bot.wanted and alone):
            bot.retire()
        elif alone:
            bot.settle(session_id)
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
            bot.release(session_id)
            self._retire_unwanted()
        self._wake()

    def reconciled(self) -> None:
        self._reconciled.set()
        self._retire_unwanted()

    def started_at(self, instance: str) -> float | None:
        bot = self._bots.get(instance)
        return None if bot is None else bot.started

    def statistics(self) -> dict[str, dict[str, str]]:
        return {
            name: {bot.url: bot.described for bot in scaler.bots}
            for name, scaler in self._scalers.items()
            if scaler.bots or scaler.agent.command
        }

    def details(self) -> dict[str, dict[str, dict[str, object]]]:
        return {
            name: {url: {"state": state, **self._bots[url].figures} for url, state in bots.items()}
            for name, bots in self.statistics().items()
        }

    def knows(self, instance: str) -> bool:
        return instance in self._bots

    # As many as there should be.

    def _start_missing(self, scaler: Scaler) -> None:
        """Start bots for those who wait, if any may be started."""
        while scaler.missing():
            self._start(scaler.agent)

    async def _start_ahead(self, scaler: Scaler) -> None:
        """Start bots for those who have not called yet."""
        while scaler.ahead():
            self._start(scaler.agent)
            # A start takes a millisecond, in which nobody else is served.
            await trio.lowlevel.checkpoint()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # One bot from its start to its end.

    def _start(self, agent: Agent) -> None:
        port = free_port(lambda url: url in self._bots or url in self._drained)
        record = Record(secrets.token_hex(6), agent.name, port, launch_of(agent))
        try:
            record, process = launch(record, agent, self._environment, self._files)
        except OSError as error:
            self._files.remove(record)
            self._count_failure(record, f"{error.strerror}: {error.filename}")
            return
        self._log.event("bot_started", agent=agent.name, bot=record.id, pid=process.known.pid)
        self._add(Bot(record, process, agent, self._wake, self._first_ready))

    def _adopt(self, record: Record) -> None:
        """Take over a bot of an earlier control process, or see that nothing of it is left."""
        process = Process.adopt(record.id, record.process)
        if process is None:
            self._spawn(self._clear, record)
            return
        agent = self._scaler(record).agent
        bot = Bot(record, process, agent, self._wake, self._first_ready)
        bot.outdated = record.launch != launch_of(agent)
        bot.held_back = bot.url in self._drained
        bot.adopted, bot.ready_after = True, 0.0
        self._log.event("bot_adopted", agent=agent.name, bot=record.id, pid=process.known.pid)
        self._add(bot)

    def _add(self, bot: Bot) -> None:
        self._bots[bot.url] = bot
        self._scaler(bot.record).bots.append(bot)
        self._spawn(self._keep, bot)

    def _spawn(self, task: Callable[[T], Awaitable[None]], subject: T) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(task, subject)

    def _scaler(self, record: Record) -> Scaler:
        """That of the bot's agent; an agent that is not configured any more wants no bots."""
        return self._scalers.setdefault(record.agent, Scaler(Agent(record.agent, "")))

    def _first_ready(self, bot: Bot) -> None:
        name = bot.record.agent
        seconds = round(bot.ready_after or 0.0, 3)
        self._log.event("bot_ready", agent=name, bot=bot.record.id, seconds=seconds)

    async def _clear(self, record: Record) -> None:
        """The first process is gone; what it has started may not be."""
        await end_marked(record.id)
        self._files.remove(record)

    async def _keep(self, bot: Bot) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bot.process.watch)
            why = await bot.serve(self._reconciled)
            sessions = len(bot.sessions)
            failed = why is not None and not sessions and bot.young
            if failed:  # counted now: no other one is to be tried while this one ends
                self._count_failure(bot.record, str(why))
            self._wake()
            gone = await bot.end()
            nursery.cancel_scope.cancel()
        del self._bots[bot.url]
        self._scaler(bot.record).bots.remove(bot)
        name, mark, status = bot.record.agent, bot.record.id, bot.process.status
        if gone and (why is None or (status == 0 and sessions)):
            self._log.event("bot_ended", agent=name, bot=mark, status=status)
        elif not gone or not failed:
            reason = why if gone else "it can't be killed"
            self._log.warning("bot_lost", agent=name, bot=mark, reason=reason, sessions=sessions)
        await self._trim(bot)
        if gone:  # what is left of it otherwise is the next daemon's to find
            self._files.remove(bot.record)
        bot.gone.set()
        self._wake()

    def _count_failure(self, record: Record, reason: str) -> None:
        """A start has failed: leave the command alone for a while."""
        name = record.agent
        wait = self._scaler(record).count_failure()
        said = self._files.tail(record).rpartition("\n")[2][:MAX_SAID]
        log = str(self._files.log(record))
        self._log.warning(
            "bot_failed", agent=name, bot=record.id, reason=reason, said=said, log=log, wait=wait
        )

    async def _tend(self) -> None:
        """Bound the logs; start what could not be started before, end what is too many."""
        while True:
            await trio.sleep(TEND)
            for bot in list(self._bots.values()):
                await self._trim(bot)
            for scaler in list(self._scalers.values()):
                self._start_missing(scaler)
                if self._reconciled.is_set():  # which bots hold sessions is known
                    await self._start_ahead(scaler)
                    scaler.retire_idle()
                scaler.forget_failures()

    async def _measure(self) -> None:
        """Look from time to time at what bots use."""
        while True:
            await trio.sleep(MEASURE)
            marks = {bot.record.id: bot for bot in self._bots.values()}
            if marks:
                for mark, usage in (await trio.to_thread.run_sync(measure, marks.keys())).items():
                    marks[mark].usage = usage

    async def _trim(self, bot: Bot) -> None:
        if self._files.is_long(bot.record, bot.agent.log_size):
            await trio.to_thread.run_sync(self._files.trim, bot.record, bot.agent.log_size)
