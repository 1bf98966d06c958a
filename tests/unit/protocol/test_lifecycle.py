"""The closing table: every state with every event, decision by decision, and whole dialogues."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from relay.protocol.lifecycle import (
    ENDINGS,
    Ending,
    Event,
    Flow,
    Kind,
    Side,
    TransferState,
    TunnelState,
    finished,
    may_shut,
    step,
)

DOWN, UP = Side.DOWNSTREAM, Side.UPSTREAM
OPEN, CUTTING, CLOSED, BROKEN = Flow.OPEN, Flow.CUTTING, Flow.CLOSED, Flow.BROKEN
FLAGS = (False, True)
FAILURES = (Kind.VIOLATION, Kind.TOO_BIG, Kind.NOT_TEXT)
TRANSFERS = [TransferState(*values) for values in product(Flow, FLAGS, FLAGS, FLAGS, FLAGS)]
ORDERS = {Event.STOP, Event.TIME_LIMIT, Event.IDLE, Event.DRAIN}

# What a flow may become; to stay is always allowed.
MOVES = {
    OPEN: {OPEN, CUTTING, CLOSED, BROKEN},
    CUTTING: {CUTTING, CLOSED, BROKEN},
    CLOSED: {CLOSED, BROKEN},
    BROKEN: {BROKEN},
}


def every_state(ending: Ending | None) -> Iterator[TunnelState]:
    return (TunnelState(client, bot, ending) for client, bot in product(TRANSFERS, TRANSFERS))


def event(side: Side, kind: Kind) -> Event:
    return Event((side, kind))


def run(*events: Event) -> TunnelState:
    state = TunnelState()
    for one in events:
        state = step(state, one)
    return state


def flows(state: TunnelState) -> tuple[Flow, Flow]:
    return state.downstream.flow, state.upstream.flow


# Exhaustively.


@pytest.mark.parametrize("one", Event)
def test_every_state_takes_every_event(one: Event) -> None:
    """Nothing re-opens, nothing that is known is forgotten, the first cause stays."""
    for ending in (None, ENDINGS[Event.UPSTREAM_CLOSE], ENDINGS[Event.DRAIN]):
        for before in every_state(ending):
            after = step(before, one)
            for side in Side:
                old, new = before.reading(side), after.reading(side)
                assert new.flow in MOVES[old.flow]
                assert new.eof >= old.eof
                assert new.answered >= old.answered
                assert new.failed >= old.failed
                assert new.torn >= old.torn
            assert after.ending is (before.ending or ENDINGS.get(one))


@pytest.mark.parametrize("one", Event)
def test_a_finished_tunnel_stays_finished(one: Event) -> None:
    for state in every_state(None):
        if finished(state):
            assert finished(step(state, one))


def test_a_close_timeout_finishes_every_state() -> None:
    for state in every_state(None):
        assert finished(step(state, Event.CLOSE_TIMEOUT))


@pytest.mark.parametrize("one", [one for one in Event if one is not Event.CLOSE_TIMEOUT])
def test_facts_change_only_by_what_brings_them(one: Event) -> None:
    """An end is seen or made, an answer is received, a sink is torn inside a frame only."""
    for before in every_state(None):
        after = step(before, one)
        for side in Side:
            old, new = before.reading(side), after.reading(side)
            if new.torn > old.torn:
                assert one is event(side, Kind.TORN)
                assert (old.flow is not CLOSED, new.flow) == (True, BROKEN)
            if new.failed > old.failed:
                assert one in [event(side, kind) for kind in FAILURES]
            if new.answered > old.answered:
                assert one is event(side, Kind.CLOSE)
            if new.eof > old.eof:
                aborted = after.reading(side.peer).torn
                assert aborted or one in (event(side, Kind.EOF), event(side, Kind.LOST))


@pytest.mark.parametrize("kind", Kind)
def test_both_sides_are_treated_alike(kind: Kind) -> None:
    for state in every_state(None):
        mirrored = TunnelState(state.upstream, state.downstream)
        one = step(state, event(DOWN, kind))
        other = step(mirrored, event(UP, kind))
        assert (one.downstream, one.upstream) == (other.upstream, other.downstream)


def test_only_a_tunnel_that_writes_nothing_more_is_finished() -> None:
    for state in every_state(None):
        done = {CLOSED, BROKEN}.issuperset(flows(state))
        assert not finished(state) or (done and state.upstream.eof)


def test_a_write_side_is_shut_after_our_close_and_the_sides_or_its_failure() -> None:
    for state in every_state(None):
        for side in Side:
            source = state.reading(side)
            over = source.answered or source.failed
            assert may_shut(state, side) == (state.reading(side.peer).flow is CLOSED and over)


# What happened, the cause; then toward the client and toward the bot: the code that is
# written, None for "nothing of ours". "passes" is the side's own Close.
DECIDED: list[tuple[Event, str, int | str | None, int | str | None, str]] = [
    (Event.DOWNSTREAM_CLOSE, "client_closed", None, "passes", ""),
    (Event.UPSTREAM_CLOSE, "bot_closed", "passes", None, ""),
    (Event.UPSTREAM_EOF, "bot_ended", 1000, None, ""),
    (Event.UPSTREAM_LOST, "bot_lost", 1011, None, "bot lost"),
    (Event.DOWNSTREAM_EOF, "client_gone", None, 1001, "client gone"),
    (Event.DOWNSTREAM_LOST, "client_gone", None, 1001, "client gone"),
    (Event.STOP, "stopped", 1001, 1001, "stopped"),
    (Event.TIME_LIMIT, "time_limit", 1001, 1001, "time limit"),
    (Event.IDLE, "idle", 1001, 1001, "idle"),
    (Event.DRAIN, "drain", 1012, 1012, "service restart"),
    (Event.SESSION_ENDED, "session_ended", 1001, 1001, "session ended"),
    (Event.DOWNSTREAM_VIOLATION, "client_protocol_error", 1002, 1002, "protocol error"),
    (Event.UPSTREAM_VIOLATION, "bot_protocol_error", 1002, 1002, "protocol error"),
    (Event.DOWNSTREAM_TOO_BIG, "client_message_too_big", 1009, 1009, "message too big"),
    (Event.UPSTREAM_TOO_BIG, "bot_message_too_big", 1009, 1009, "message too big"),
    (Event.DOWNSTREAM_NOT_TEXT, "client_protocol_error", 1007, 1007, "not UTF-8"),
    (Event.UPSTREAM_NOT_TEXT, "bot_protocol_error", 1007, 1007, "not UTF-8"),
]


@pytest.mark.parametrize(("what", "cause", "to_client", "to_bot", "reason"), DECIDED)
def test_the_decided_causes_and_codes(
    what: Event, cause: str, to_client: int | str | None, to_bot: int | str | None, reason: str
) -> None:
    state = run(what)
    assert state.ending is not None
    assert (state.ending.cause, state.ending.reason) == (cause, reason)
    # The transfer that reads one side writes to the other.
    for source, wanted in ((UP, to_client), (DOWN, to_bot)):
        flow, code = state.reading(source).flow, state.ending.code_from(source)
        if wanted == "passes":
            assert (flow, code) == (CLOSED, None)
        elif wanted is None:
            assert code is None
            assert flow in (OPEN, BROKEN)
        else:
            assert (flow, code) == (CUTTING, wanted)


def test_every_event_with_a_cause_is_decided() -> None:
    assert {row[0] for row in DECIDED} == set(ENDINGS)
    own = {event(side, kind) for side in Side for kind in (Kind.CUT, Kind.TORN)}
    assert set(Event) - set(ENDINGS) == own | {Event.CLOSE_TIMEOUT}


# Dialogues.


def test_the_client_closes_and_the_bot_answers() -> None:
    state = run(Event.DOWNSTREAM_CLOSE)
    assert flows(state) == (CLOSED, OPEN)  # the bot may go on until it answers
    assert not may_shut(state, UP)
    state = step(state, Event.UPSTREAM_CLOSE)
    assert flows(state) == (CLOSED, CLOSED)
    assert may_shut(state, UP)
    assert may_shut(state, DOWN)
    assert not finished(state)  # the bot's end is the instance's end
    state = step(state, Event.UPSTREAM_EOF)
    assert finished(state)  # the client has answered: its FIN need not be waited for
    assert state.ending is ENDINGS[Event.DOWNSTREAM_CLOSE]


def test_the_bot_closes_and_shuts_before_the_answer() -> None:
    state = run(Event.UPSTREAM_CLOSE, Event.UPSTREAM_EOF)
    assert flows(state) == (OPEN, CLOSED)  # the client's answer still goes to it
    assert not finished(state)
    state = step(state, Event.DOWNSTREAM_CLOSE)
    assert finished(state)
    assert state.ending is ENDINGS[Event.UPSTREAM_CLOSE]


def test_the_bot_closes_and_the_client_only_leaves() -> None:
    state = run(Event.UPSTREAM_CLOSE, Event.DOWNSTREAM_EOF)
    assert flows(state) == (CUTTING, CLOSED)
    state = step(step(state, Event.DOWNSTREAM_CUT), Event.UPSTREAM_EOF)
    assert finished(state)
    assert state.ending is ENDINGS[Event.UPSTREAM_CLOSE]


def test_an_order_waits_for_both_boundaries_and_both_answers() -> None:
    state = run(Event.STOP, Event.UPSTREAM_CUT)
    assert flows(state) == (CUTTING, CLOSED)
    state = step(state, Event.DOWNSTREAM_CUT)
    assert not may_shut(state, DOWN)
    for answer in (Event.UPSTREAM_CLOSE, Event.UPSTREAM_EOF):
        state = step(state, answer)
        assert not finished(state)
    state = step(state, Event.DOWNSTREAM_CLOSE)
    assert may_shut(state, DOWN)
    assert finished(state)


def test_a_side_closes_while_an_order_waits_for_its_frame() -> None:
    state = run(Event.STOP, Event.DOWNSTREAM_CLOSE)
    assert flows(state) == (CLOSED, CUTTING)
    assert state.ending is ENDINGS[Event.STOP]


def test_a_frame_that_never_ends_tears_its_sink() -> None:
    state = run(Event.UPSTREAM_LOST, Event.UPSTREAM_TORN)
    assert state.upstream == TransferState(BROKEN, eof=True, torn=True)
    assert state.downstream.eof  # the client was aborted
    assert finished(state)
    assert state.ending is ENDINGS[Event.UPSTREAM_LOST]


def test_a_close_that_went_out_whole_is_never_torn() -> None:
    before = run(Event.STOP, Event.UPSTREAM_CUT)
    assert step(before, Event.UPSTREAM_TORN) == before


def test_a_lost_side_gets_nothing_more() -> None:
    state = run(Event.STOP, Event.DOWNSTREAM_LOST)
    assert flows(state) == (CUTTING, BROKEN)
    assert step(state, Event.UPSTREAM_CUT).upstream.flow is BROKEN


def test_orders_are_alike() -> None:
    assert len({flows(run(order)) for order in ORDERS}) == 1
