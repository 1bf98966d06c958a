"""Laws of a look at a pump: bounded steps, the quietest calls told, sums of all that ever were."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.pump.census import AT_A_TIME, Census
from relay.pump.channel import Live
from tests.helpers.pump import Call, rig

# More than one step's worth, so that calls begin and end in the midst of a look.
FIRST = AT_A_TIME + 8


class Looking(RuleBasedStateMachine):
    """Calls that begin, talk and end while looks go on."""

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.rig = self.stack.enter_context(rig())
        self.calls: dict[str, Call] = {}
        self.number = 0
        self.said = 0
        self.told: list[Live] = []
        self.most = 0
        for _ in range(FIRST):
            self.arrive()

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    @rule()
    def arrive(self) -> None:
        self.number += 1
        name = f"call-{self.number}"
        self.calls[name] = self.rig.call(name)

    @rule(data=st.data())
    def talk(self, data: st.DataObject) -> None:
        if self.calls:
            name = data.draw(st.sampled_from(sorted(self.calls)))
            self.calls[name].client.say(b"12")
            self.rig.now += 0.02
            self.rig.settle()
            self.said += 1

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.calls:
            name = data.draw(st.sampled_from(sorted(self.calls)))
            call = self.calls.pop(name)
            call.client.reset()
            call.bot.shut()
            self.rig.settle()

    @precondition(lambda self: self.rig.pump.census is None)
    @rule(most=st.integers(0, FIRST + 5))
    def ask(self, most: int) -> None:
        self.most = most
        self.told = []
        self.rig.pump.census = Census(self.rig.pump, most)

    @precondition(lambda self: self.rig.pump.census is not None)
    @rule()
    def look(self) -> None:
        pump = self.rig.pump
        view = pump.census.step()
        if view is None:
            return
        assert len(view.calls) <= AT_A_TIME
        self.told += view.calls
        if view.totals is None:
            return
        assert view.totals.from_client.messages == self.said
        assert len(self.told) <= self.most
        assert len({call.tunnel for call in self.told}) == len(self.told)

    @invariant()
    def nothing_is_counted_twice_or_forgotten(self) -> None:
        """The sums are those of the calls that live, and of those that have ended."""
        pump = self.rig.pump
        self.rig.reports += pump.take_reports()
        every = [*pump.snapshot(), *self.rig.reports]
        totals = pump.totals()
        for sums, parts in (
            (totals.from_client, [each.from_client for each in every]),
            (totals.from_bot, [each.from_bot for each in every]),
        ):
            assert sums.bytes == sum(part.bytes for part in parts)
            assert sums.messages == sum(part.messages for part in parts)
            assert sum(sums.gaps) == sum(sum(part.gaps) for part in parts)
            assert sums.held_time == pytest.approx(sum(part.held_time for part in parts), abs=1e-3)


Looking.TestCase.settings = settings(max_examples=12, stateful_step_count=40, deadline=None)
TestLooking = Looking.TestCase


def test_those_are_told_of_first_that_have_been_quiet_for_longest() -> None:
    with rig() as r:
        calls = [r.call(f"call-{number}") for number in range(AT_A_TIME + 3)]
        for call in calls:
            r.now += 1
            call.client.say(b"x")
            r.settle()
        r.pump.census = Census(r.pump, 3)
        views = []
        while r.pump.census is not None:
            if (view := r.pump.census.step()) is not None:
                views.append(view)
        told = [call.tunnel for view in views for call in view.calls]
        assert sorted(told) == ["call-0", "call-1", "call-2"]
        assert views[-1].totals is not None
        assert views[-1].totals.from_client.messages == len(calls)
