"""How many bots one agent has, and how many it should have: the state behind `policy.scaling`."""

from __future__ import annotations

__all__ = ["Scaler"]

import math

import msgspec
import trio

from relay.instances.bot import Bot, State
from relay.instances.files import launch_of
from relay.policy.catalog import Agent
from relay.policy.scaling import (
    Counts,
    ahead,
    backoff,
    missing,
    overdue,
    startable,
    surplus,
    too_many_since,
)


class Scaler:
    """The bots of one agent.

    Attributes:
        bots: all that exist.
        waiting: callers without a place.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.bots: list[Bot] = []
        self.waiting = 0
        self._failures = 0
        self._not_before = 0.0
        self._too_many_since: tuple[float, ...] = ()

    def configure(self, agent: Agent) -> None:
        """Have bots as this agent wants them from now on; another command is tried at once."""
        if launch_of(agent) != launch_of(self.agent):
            self._failures, self._not_before = 0, 0.0
        self.agent = agent

    def drain(self) -> None:
        """From now on bots are for callers who are here already."""
        self.agent = msgspec.structs.replace(self.agent, min_agents=0, spare_places=0)

    def close(self) -> None:
        """From now on none is started."""
        self._not_before = math.inf

    def startable(self) -> int:
        """Bots that will be ready later if somebody waits for them."""
        counts = self._counts()
        return counts.starting if self._held_back() else startable(self.agent, counts)

    def missing(self) -> int:
        """How many to start now for those who wait."""
        return 0 if self._held_back() else missing(self.agent, self.waiting, self._counts())

    def ahead(self) -> int:
        """How many to start now for those who have not called yet."""
        return 0 if self._held_back() else ahead(self.agent, self.waiting, self._counts())

    def retire_idle(self) -> None:
        """End those that have been too many for long, the longest idle first."""
        now = trio.current_time()
        too_many = surplus(self.agent, self.waiting, self._counts())
        since = too_many_since(self._too_many_since, too_many, now)
        number = overdue(self.agent, since, now)
        self._too_many_since = since[number:]
        idle = [bot for bot in self.bots if bot.offered and not bot.sessions]
        for bot in sorted(idle, key=lambda bot: bot.idle_since)[:number]:
            bot.retire()

    def count_failure(self) -> float:
        """A start has failed: leave the command alone for so many seconds, which it returns."""
        self._failures += 1
        wait = backoff(self._failures)
        self._not_before = max(self._not_before, trio.current_time() + wait)
        return wait

    def forget_failures(self) -> None:
        """Each bot that works shows once that the command is no longer broken."""
        for bot in self.bots:
            if not bot.proven and (bot.used or not bot.young):
                bot.proven = True
                self._failures = 0

    def _held_back(self) -> bool:
        return trio.current_time() < self._not_before

    def _counts(self) -> Counts:
        staying = [bot for bot in self.bots if bot.staying]
        ready = [bot for bot in staying if bot.offered]
        coming = [bot for bot in staying if bot.state is State.STARTING and not bot.sessions]
        room = sum(self.agent.sessions_per_instance - len(bot.sessions) for bot in ready)
        silent = sum(bot.silent > 0 for bot in coming)
        return Counts(
            starting=len(coming) - silent,
            silent=silent,
            room=max(0, room),
            idle=sum(not bot.sessions for bot in ready),
            live=len(staying),
            total=len(self.bots),
        )
