"""How many bot processes are started, kept and ended, and how long a broken command rests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.catalog import Agent
from relay.policy.scaling import (
    AHEAD_AT_ONCE,
    BACKOFF_FIRST,
    BACKOFF_MOST,
    Counts,
    ahead,
    backoff,
    missing,
    overdue,
    startable,
    surplus,
    too_many_since,
)

SMALL = st.integers(0, 50)
# Mostly so few that all of them together leave an agent room for more.
FEW = st.integers(0, 3) | st.integers(0, 3) | SMALL


def of(most: int, per_process: int = 1, least: int = 0, spare: int = 0) -> Agent:
    return Agent(
        "bot",
        "acme",
        min_agents=least,
        max_agents=most,
        spare_places=spare,
        sessions_per_instance=per_process,
    )


@st.composite
def agents(draw: st.DrawFn) -> Agent:
    most, per_process = draw(st.integers(1, 50)), draw(st.integers(1, 10))
    least, spare = draw(st.integers(0, most)), draw(st.integers(0, most * per_process))
    return of(most, per_process, least, spare)


@st.composite
def counted(draw: st.DrawFn, per_process: int = 10) -> Counts:
    """The processes of an agent as they can be."""
    starting, silent, idle, busy, ending = (draw(FEW) for _ in range(5))
    room = idle * per_process + draw(st.integers(0, busy * (per_process - 1)))
    live = starting + silent + idle + busy
    return Counts(starting, silent, room, idle, live, live + ending)


AGENTS_WITH_COUNTS = agents().flatmap(
    lambda agent: st.tuples(st.just(agent), counted(agent.sessions_per_instance))
)


def one_more(counts: Counts, number: int = 1) -> Counts:
    """So many have been started."""
    return Counts(
        counts.starting + number,
        counts.silent,
        counts.room,
        counts.idle,
        counts.live + number,
        counts.total + number,
    )


# For callers who wait.


@pytest.mark.parametrize(
    ("waiting", "counts", "agent", "expected"),
    [
        (0, Counts(), of(10), 0),
        (1, Counts(), of(10), 1),
        (3, Counts(), of(10), 3),
        (3, Counts(starting=2, total=2), of(10), 1),
        (3, Counts(starting=3, total=3), of(10), 0),
        (3, Counts(room=1, total=1), of(10), 2),
        (3, Counts(), of(2), 2),  # not more than that at a time
        (1, Counts(total=2), of(2), 0),  # those that end count
        (1, Counts(total=5), of(2), 0),  # the number was lowered
        (1, Counts(silent=1, total=1), of(2), 1),  # that one may never take a call again
        (1, Counts(), of(10, 4), 1),
        (4, Counts(), of(10, 4), 1),
        (5, Counts(), of(10, 4), 2),
        (5, Counts(starting=1, total=1), of(10, 4), 1),
        (5, Counts(starting=1, room=1, total=2), of(10, 4), 0),
    ],
)
def test_how_many_are_missing(waiting: int, counts: Counts, agent: Agent, expected: int) -> None:
    assert missing(agent, waiting, counts) == expected


@given(AGENTS_WITH_COUNTS, SMALL)
def test_enough_are_started_and_not_one_too_many(case: tuple[Agent, Counts], waiting: int) -> None:
    agent, counts = case
    started = missing(agent, waiting, counts)
    assert started >= 0
    assert counts.total + started <= max(agent.max_agents, counts.total)
    per_process = agent.sessions_per_instance
    places = counts.room + (counts.starting + started) * per_process
    if counts.total + started < agent.max_agents:
        assert places >= waiting
    if started:
        assert places - per_process < waiting


@given(AGENTS_WITH_COUNTS, SMALL)
def test_one_by_one_is_as_good_as_all_at_once(case: tuple[Agent, Counts], waiting: int) -> None:
    """And looking again changes nothing, so that it may be done at any moment."""
    agent, counts = case
    wanted, started = missing(agent, waiting, counts), 0
    while missing(agent, waiting, counts):
        counts, started = one_more(counts), started + 1
    assert started == wanted


@given(AGENTS_WITH_COUNTS)
def test_startable_are_those_that_start_and_those_that_may(case: tuple[Agent, Counts]) -> None:
    """Starting one keeps a promise that was made with it; an end makes room for a new one."""
    agent, counts = case
    promised = startable(agent, counts)
    assert promised >= counts.starting
    if counts.total < agent.max_agents:
        assert startable(agent, one_more(counts)) == promised
    else:
        assert promised == counts.starting


@given(AGENTS_WITH_COUNTS, SMALL)
def test_what_is_promised_can_be_started(case: tuple[Agent, Counts], waiting: int) -> None:
    """Who is told of a place by `startable` gets a process: nobody is promised one in vain."""
    agent, counts = case
    per_process = agent.sessions_per_instance
    started = missing(agent, waiting, counts)
    assert started <= startable(agent, counts)
    if startable(agent, counts) * per_process + counts.room >= waiting:
        places = counts.room + (counts.starting + started) * per_process
        assert places >= waiting


# For callers who have not called yet.

READY = Counts(room=2, idle=2, live=2, total=2)
IN_USE = Counts(room=0, idle=0, live=2, total=2)


@pytest.mark.parametrize(
    ("counts", "agent", "started", "too_many"),
    [
        (Counts(), of(10), 0, 0),
        (Counts(), of(10, least=2), 2, 0),
        (Counts(), of(10, least=2, spare=2), 2, 0),
        (Counts(), of(10, least=9), AHEAD_AT_ONCE, 0),
        (Counts(starting=3, live=3, total=3), of(10, least=9), AHEAD_AT_ONCE - 3, 0),
        (READY, of(10, least=2, spare=2), 0, 0),
        (READY, of(10, least=1, spare=1), 0, 1),
        (READY, of(10), 0, 2),
        (READY, of(10, spare=3), 1, 0),
        # All of them in use: others are started at once, unless nobody asked for that.
        (IN_USE, of(10, least=2, spare=2), 2, 0),
        (IN_USE, of(3, least=2, spare=2), 1, 0),
        (IN_USE, of(2, least=2, spare=2), 0, 0),
        (IN_USE, of(10, least=2), 0, 0),
        # Ending ones take a place, but are not there for callers.
        (Counts(live=1, room=1, idle=1, total=3), of(3, least=2), 0, 0),
        (Counts(live=1, room=1, idle=1, total=2), of(3, least=2), 1, 0),
        # A silent one may come back, and is not counted on.
        (Counts(silent=1, live=1, total=1), of(3, least=1, spare=1), 0, 0),
        (Counts(silent=1, room=1, idle=1, live=2, total=2), of(3, least=1, spare=1), 0, 0),
        # Places, not processes.
        (Counts(room=3, live=1, total=1), of(10, 4, spare=3), 0, 0),
        (Counts(room=2, live=1, total=1), of(10, 4, spare=3), 1, 0),
        (Counts(room=6, idle=1, live=2, total=2), of(10, 4, spare=3), 0, 0),
        (Counts(room=7, idle=1, live=2, total=2), of(10, 4, spare=3), 0, 1),
        (Counts(room=12, idle=3, live=3, total=3), of(10, 4, least=2, spare=3), 0, 1),
    ],
)
def test_how_many_are_started_ahead_and_how_many_are_too_many(
    counts: Counts, agent: Agent, started: int, too_many: int
) -> None:
    assert ahead(agent, 0, counts) == started
    assert surplus(agent, 0, counts) == too_many


@given(AGENTS_WITH_COUNTS, SMALL)
def test_never_too_many_are_started(case: tuple[Agent, Counts], waiting: int) -> None:
    agent, counts = case
    started = ahead(agent, waiting, counts)
    assert started >= 0
    assert counts.total + started <= max(agent.max_agents, counts.total)
    assert started == 0 or counts.starting + started <= AHEAD_AT_ONCE


@given(AGENTS_WITH_COUNTS, SMALL)
def test_nothing_but_the_bounds_keeps_it_from_both_promises(
    case: tuple[Agent, Counts], waiting: int
) -> None:
    agent, counts = case
    after = one_more(counts, ahead(agent, waiting, counts))
    if after.total < agent.max_agents and after.starting < AHEAD_AT_ONCE:
        coming = (after.starting + after.silent) * agent.sessions_per_instance
        assert after.live >= agent.min_agents
        assert after.room + coming >= agent.spare_places + waiting


@given(AGENTS_WITH_COUNTS, st.just(0) | SMALL)
def test_who_ends_is_idle_and_not_needed(case: tuple[Agent, Counts], waiting: int) -> None:
    agent, counts = case
    ended = surplus(agent, waiting, counts)
    assert 0 <= ended <= counts.idle
    if ended:
        assert waiting == 0
        assert counts.live - ended >= agent.min_agents
        assert counts.room - ended * agent.sessions_per_instance >= agent.spare_places


@given(AGENTS_WITH_COUNTS)
def test_nothing_is_started_in_the_place_of_what_was_ended(case: tuple[Agent, Counts]) -> None:
    agent, counts = case
    ended = surplus(agent, 0, counts)
    room = counts.room - ended * agent.sessions_per_instance
    left = (counts.idle - ended, counts.live - ended, counts.total - ended)
    after = Counts(counts.starting, counts.silent, room, *left)
    if ended:
        assert ahead(agent, 0, after) == 0
    assert surplus(agent, 0, after) == 0


@given(AGENTS_WITH_COUNTS)
def test_nothing_is_ended_of_what_was_started(case: tuple[Agent, Counts]) -> None:
    """When it has become ready and nobody has come or gone meanwhile."""
    agent, counts = case
    started = ahead(agent, 0, counts)
    room = counts.room + started * agent.sessions_per_instance
    after = Counts(
        counts.starting,
        counts.silent,
        room,
        counts.idle + started,
        counts.live + started,
        counts.total + started,
    )
    if started:
        assert surplus(agent, 0, after) == 0


# For how long.


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=30))
def test_who_ends_was_too_many_all_the_time(steps: list[tuple[int, int]]) -> None:
    """So many end as there were too many at every look of `idle_retirement`."""
    agent = Agent("bot", "acme", idle_retirement=50)
    since: tuple[float, ...] = ()
    looks: list[tuple[int, int]] = []
    now = 0
    for too_many, seconds in steps:
        now += seconds
        looks.append((now, too_many))
        since = too_many_since(since, too_many, now)
        number = overdue(agent, since, now)
        early = sum(at <= now - 50 for at, _ in looks)
        assert number == (min(many for _, many in looks[early - 1 :]) if early else 0)
        since = since[number:]
        # What was ended is not there any more, nor in what was seen before.
        looks = [(at, max(0, many - number)) for at, many in looks]


def test_a_busy_moment_begins_the_time_anew() -> None:
    agent = Agent("bot", "acme", idle_retirement=10)
    since = too_many_since((), 3, 0.0)
    since = too_many_since(since, 1, 4.0)
    since = too_many_since(since, 2, 5.0)
    assert since == (0.0, 5.0)
    assert [overdue(agent, since, now) for now in (9.9, 10.0, 14.9, 15.0)] == [0, 1, 1, 2]


# After failures.


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, 0), (1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (8, 30), (10**9, 30)],
)
def test_back_off(failures: int, seconds: float) -> None:
    assert backoff(failures) == seconds


@given(st.integers(1, 10**12))
def test_back_off_grows_to_its_bound(failures: int) -> None:
    assert BACKOFF_FIRST <= backoff(failures) <= backoff(failures + 1) <= BACKOFF_MOST
