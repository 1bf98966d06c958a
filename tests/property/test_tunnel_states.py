"""Laws of the closing table over sequences of events, any and those that a pump can make."""

from __future__ import annotations

from collections import Counter
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.lifecycle import (
    ENDINGS,
    Event,
    Flow,
    Kind,
    Side,
    TunnelState,
    finished,
    step,
)

EVENTS = st.lists(st.sampled_from(Event), max_size=12)


def possible(state: TunnelState) -> list[Event]:
    """What can come next: a pump cuts or tears only what waits, a side closes or ends once."""
    found = [Event.STOP, Event.TIME_LIMIT, Event.IDLE, Event.DRAIN, Event.SESSION_ENDED]
    found.append(Event.CLOSE_TIMEOUT)
    for side in Side:
        transfer = state.reading(side)
        kinds = [Kind.LOST]
        if not transfer.eof:
            kinds += [Kind.EOF]
            if not transfer.answered:
                kinds += [Kind.CLOSE, Kind.VIOLATION, Kind.TOO_BIG, Kind.NOT_TEXT]
        if transfer.flow is Flow.CUTTING:
            kinds += [Kind.CUT, Kind.TORN]
        found += [Event((side, kind)) for kind in kinds]
    return found


def reachable() -> set[TunnelState]:
    found, fresh = {TunnelState()}, [TunnelState()]
    while fresh:
        state = fresh.pop()
        following = {step(state, event) for event in possible(state)} - found
        found |= following
        fresh.extend(following)
    return found


REACHABLE = reachable()


@given(EVENTS)
def test_after_a_close_timeout_a_tunnel_is_finished(events: list[Event]) -> None:
    state = reduce(step, [*events, Event.CLOSE_TIMEOUT], TunnelState())
    assert finished(state)


@given(EVENTS)
def test_the_first_cause_stays(events: list[Event]) -> None:
    state = reduce(step, events, TunnelState())
    assert state.ending == next((ENDINGS[event] for event in events if event in ENDINGS), None)


@given(st.data())
def test_each_direction_gets_one_close_at_most_and_nothing_behind_it(data: st.DataObject) -> None:
    state, closes = TunnelState(), Counter[Side]()
    for _ in range(data.draw(st.integers(0, 12))):
        event = data.draw(st.sampled_from(possible(state)))
        side, kind = event.value
        if isinstance(side, Side):
            flow = state.reading(side).flow
            # The pump passes a side's bytes while OPEN, up to a boundary while CUTTING.
            writes = flow in (Flow.OPEN, Flow.CUTTING)
            closes[side] += kind in (Kind.CLOSE, Kind.CUT) and writes
        state = step(state, event)
        for source in Side:
            ended = state.reading(source).flow in (Flow.CLOSED, Flow.BROKEN)
            assert closes[source] <= 1
            assert ended or not closes[source]


def test_what_is_not_finished_waits_for_something() -> None:
    """A boundary, a Close or an end: no reachable state would only ever time out."""
    for state in REACHABLE:
        transfers = (state.downstream, state.upstream)
        waits = any(one.flow is Flow.CUTTING or not one.eof for one in transfers)
        assert finished(state) or waits


def test_a_torn_sink_is_given_up() -> None:
    for state in REACHABLE:
        for side in Side:
            transfer = state.reading(side)
            if transfer.torn:
                assert transfer.flow is Flow.BROKEN
                assert state.reading(side.peer).eof


def test_a_tunnel_without_a_cause_is_open() -> None:
    for state in REACHABLE:
        if state.ending is None and not finished(state):
            assert state == TunnelState()


def test_enough_states_were_reached() -> None:
    """Guards the three laws above against a search that finds nothing."""
    assert len(REACHABLE) > 500
    assert {state.downstream.flow for state in REACHABLE} == set(Flow)
