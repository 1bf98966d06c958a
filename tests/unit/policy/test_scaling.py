"""How many bot processes are started, and how long a broken command is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.scaling import (
    BACKOFF_FIRST,
    BACKOFF_MOST,
    Counts,
    backoff,
    missing,
    startable,
)

SMALL = st.integers(0, 50)
PER_PROCESS = st.integers(1, 10)


@st.composite
def counted(draw: st.DrawFn) -> Counts:
    """The processes of an agent as they can be: those that start are among all."""
    starting = draw(SMALL)
    return Counts(starting, draw(SMALL), starting + draw(SMALL))


@pytest.mark.parametrize(
    ("waiting", "counts", "most", "per_process", "expected"),
    [
        (0, Counts(), 10, 1, 0),
        (1, Counts(), 10, 1, 1),
        (3, Counts(), 10, 1, 3),
        (3, Counts(starting=2, total=2), 10, 1, 1),
        (3, Counts(starting=3, total=3), 10, 1, 0),
        (3, Counts(room=1, total=1), 10, 1, 2),
        (3, Counts(), 2, 1, 2),  # not more than that at a time
        (1, Counts(total=2), 2, 1, 0),  # those that end count
        (1, Counts(total=5), 2, 1, 0),  # the number was lowered
        (1, Counts(), 10, 4, 1),
        (4, Counts(), 10, 4, 1),
        (5, Counts(), 10, 4, 2),
        (5, Counts(starting=1, total=1), 10, 4, 1),
        (5, Counts(starting=1, room=1, total=2), 10, 4, 0),
    ],
)
def test_how_many_are_missing(
    waiting: int, counts: Counts, most: int, per_process: int, expected: int
) -> None:
    assert missing(waiting, counts, most, per_process) == expected


@given(SMALL, counted(), SMALL, PER_PROCESS)
def test_enough_are_started_and_not_one_too_many(
    waiting: int, counts: Counts, most: int, per_process: int
) -> None:
    started = missing(waiting, counts, most, per_process)
    assert started >= 0
    assert counts.total + started <= max(most, counts.total)
    places = counts.room + (counts.starting + started) * per_process
    if counts.total + started < most:
        assert places >= waiting
    if started:
        assert places - per_process < waiting


@given(SMALL, counted(), SMALL, PER_PROCESS)
def test_what_was_started_is_not_started_again(
    waiting: int, counts: Counts, most: int, per_process: int
) -> None:
    """Looking again changes nothing, so that it may be done at any moment."""
    started = missing(waiting, counts, most, per_process)
    after = Counts(counts.starting + started, counts.room, counts.total + started)
    assert missing(waiting, after, most, per_process) == 0


@given(SMALL, counted(), SMALL, PER_PROCESS)
def test_one_by_one_is_as_good_as_all_at_once(
    waiting: int, counts: Counts, most: int, per_process: int
) -> None:
    wanted, started = missing(waiting, counts, most, per_process), 0
    while missing(waiting, counts, most, per_process):
        counts, started = Counts(counts.starting + 1, counts.room, counts.total + 1), started + 1
    assert started == wanted


@given(counted(), SMALL)
def test_startable_are_those_that_start_and_those_that_may(counts: Counts, most: int) -> None:
    """Starting one keeps a promise that was made with it; an end makes room for a new one."""
    promised = startable(counts, most)
    assert promised >= counts.starting
    if counts.total < most:
        assert startable(Counts(counts.starting + 1, counts.room, counts.total + 1), most) == (
            promised
        )
    else:
        assert promised == counts.starting


@given(SMALL, counted(), SMALL, PER_PROCESS)
def test_what_is_promised_can_be_started(
    waiting: int, counts: Counts, most: int, per_process: int
) -> None:
    """Who is told of a place by `startable` gets a process: nobody is promised one in vain."""
    started = missing(waiting, counts, most, per_process)
    assert started <= startable(counts, most)
    if startable(counts, most) * per_process + counts.room >= waiting:
        places = counts.room + (counts.starting + started) * per_process
        assert places >= waiting


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, 0), (1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (8, 30), (10**9, 30)],
)
def test_back_off(failures: int, seconds: float) -> None:
    assert backoff(failures) == seconds


@given(st.integers(1, 10**12))
def test_back_off_grows_to_its_bound(failures: int) -> None:
    assert BACKOFF_FIRST <= backoff(failures) <= backoff(failures + 1) <= BACKOFF_MOST
