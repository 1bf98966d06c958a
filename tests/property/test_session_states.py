"""Laws of a session's states: no run of moves leaves the table, and an end is an end."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.policy.sessions import LIVE, Move, SessionState, move

RUNS = st.lists(st.sampled_from(Move), max_size=30)


def states_along(start: SessionState, moves: list[Move]) -> list[SessionState]:
    """The states that a session goes through when illegal moves are refused."""
    states = [start]
    for each in moves:
        states.append(move(states[-1], each) or states[-1])
    return states


@given(st.sampled_from(SessionState), RUNS)
def test_nothing_comes_after_the_end(start: SessionState, moves: list[Move]) -> None:
    states = states_along(start, moves)
    if SessionState.ENDED in states:
        assert set(states[states.index(SessionState.ENDED) :]) == {SessionState.ENDED}


@given(st.sampled_from(LIVE), RUNS)
def test_every_live_session_can_be_ended(start: SessionState, moves: list[Move]) -> None:
    assert states_along(start, [*moves, Move.END])[-1] is SessionState.ENDED


@given(RUNS)
def test_a_session_is_active_at_most_once(moves: list[Move]) -> None:
    states = states_along(SessionState.RESERVED, moves)
    begun = [
        after
        for before, after in pairwise(states)
        if after is SessionState.ACTIVE and before is not after
    ]
    assert len(begun) <= 1


@given(RUNS)
def test_a_bot_gets_only_what_waits_for_it(moves: list[Move]) -> None:
    states = states_along(SessionState.RESERVED, moves)
    for before, after in pairwise(states):
        if after is SessionState.ACTIVE and before is not after:
            assert before is SessionState.WAITING
