"""A pool of bots as `policy.scaling` rules it, with callers, deaths and time in any order.

At every moment there are not more bots than may be, and what ends has no session. Once
nothing happens any more the pool comes to rest: there are as many as were asked for, as far
as that may be, none too many after `idle_retirement`, and nothing is started or ended again.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.policy.catalog import Agent
from relay.policy.scaling import (
    Counts,
    ahead,
    missing,
    overdue,
    surplus,
    too_many_since,
)

RETIREMENT = 300


@dataclass(eq=False)
class Bot:
    """One of: starting, ready, silent, ending."""

    state: str = "starting"
    sessions: int = 0


class Scaling(RuleBasedStateMachine):
    agent: Agent

    @initialize(most=st.integers(1, 12), per_process=st.sampled_from([1, 1, 3]), data=st.data())
    def configure(self, most: int, per_process: int, data: st.DataObject) -> None:
        self.agent = Agent(
            "bot",
            "acme",
            min_agents=data.draw(st.integers(0, most)),
            max_agents=most,
            spare_places=data.draw(st.integers(0, most * per_process)),
            sessions_per_instance=per_process,
            idle_retirement=RETIREMENT,
        )
        self.bots: list[Bot] = []
        self.waiting = self.now = 0
        self.since: tuple[float, ...] = ()

    def those(self, state: str) -> list[Bot]:
        return [bot for bot in self.bots if bot.state == state]

    def with_room(self) -> list[Bot]:
        most = self.agent.sessions_per_instance
        return [bot for bot in self.those("ready") if bot.sessions < most]

    def counts(self) -> Counts:
        ready = self.those("ready")
        return Counts(
            starting=len(self.those("starting")),
            silent=len(self.those("silent")),
            room=sum(self.agent.sessions_per_instance - bot.sessions for bot in ready),
            idle=sum(not bot.sessions for bot in ready),
            live=len(self.bots) - len(self.those("ending")),
            total=len(self.bots),
        )

    @rule()
    def look(self) -> None:
        """What the daemon does five times a second."""
        for _ in range(missing(self.agent, self.waiting, self.counts())):
            self.bots.append(Bot())
        for _ in range(ahead(self.agent, self.waiting, self.counts())):
            self.bots.append(Bot())
        too_many = surplus(self.agent, self.waiting, self.counts())
        since = too_many_since(self.since, too_many, self.now)
        number = overdue(self.agent, since, self.now)
        self.since = since[number:]
        idle = [bot for bot in self.those("ready") if not bot.sessions]
        assert number <= len(idle)
        for bot in idle[:number]:
            bot.state = "ending"

    @rule(seconds=st.integers(0, RETIREMENT))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(callers=st.integers(1, 4))
    def call(self, callers: int) -> None:
        self.waiting += callers
        self.serve()

    def serve(self) -> None:
        while self.waiting and (bots := self.with_room()):
            bots[0].sessions += 1
            self.waiting -= 1

    @precondition(lambda self: self.waiting)
    @rule()
    def leave(self) -> None:
        self.waiting -= 1

    @precondition(lambda self: self.bots)
    @rule(data=st.data(), kept=st.booleans())
    def hang_up(self, data: st.DataObject, kept: bool) -> None:
        bot = data.draw(st.sampled_from(self.bots))
        if bot.sessions:
            bot.sessions -= 1
            if not kept and not bot.sessions:
                bot.state = "ending"

    @precondition(lambda self: self.bots)
    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        """A bot becomes ready, or says nothing for a while, or is gone."""
        bot = data.draw(st.sampled_from(self.bots))
        after = {"starting": "ready", "silent": "ready", "ready": "silent"}.get(bot.state)
        if after is None or data.draw(st.booleans()):
            self.bots.remove(bot)
        elif not bot.sessions:
            bot.state = after
        self.serve()

    @rule()
    def come_to_rest(self) -> None:
        """Everything that is under way is done, and nobody comes or goes."""
        for _ in range(2 * self.agent.max_agents + 2):
            before = self.counts(), self.waiting
            self.look()
            self.bots = [bot for bot in self.bots if bot.state != "ending"]
            for bot in self.bots:
                bot.state = "ready"
            self.serve()
            if (self.counts(), self.waiting) == before:
                break
        else:
            raise AssertionError(f"no rest: {before}")
        self.is_as_asked()
        self.stays_so()

    def is_as_asked(self) -> None:
        counts = self.counts()
        if counts.total < self.agent.max_agents:
            assert self.waiting == 0
            assert counts.live >= self.agent.min_agents
            assert counts.room >= self.agent.spare_places

    def stays_so(self) -> None:
        """Those that are too many end at once when it is time, and then nothing changes."""
        too_many = surplus(self.agent, self.waiting, self.counts())
        before = len(self.bots)
        for looks in range(4):
            self.now += RETIREMENT
            self.look()
            assert len(self.those("ending")) == too_many
            assert len(self.bots) == before, looks
        self.bots = [bot for bot in self.bots if bot.state != "ending"]
        self.look()
        assert len(self.bots) == before - too_many
        self.is_as_asked()

    @invariant()
    def there_are_not_too_many(self) -> None:
        if hasattr(self, "agent"):
            assert len(self.bots) <= self.agent.max_agents
            assert not any(bot.sessions for bot in self.those("ending"))


TestScaling = Scaling.TestCase
