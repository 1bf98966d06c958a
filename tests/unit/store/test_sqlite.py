"""The SQLite store, call by call: reservations, tokens, leases, stops, ends, pages, sweeps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from relay.errors import StoreError
from relay.policy.catalog import Agent
from relay.policy.interfaces import Admission, Places, Reservation, SessionFilter, Wait
from relay.policy.names import Rank
from relay.policy.sessions import SessionEnd, SessionState, Standing
from relay.store import sqlite
from relay.store.sqlite import KEEP_ENDED, SQLiteStore
from tests.helpers.store import (
    AGENT,
    BEGAN,
    LAUNCHED,
    LONG,
    NOW,
    A,
    B,
    direct,
    session,
    state_of,
    waiting,
)


async def test_reservations_are_held_until_all_places_are_promised(store: SQLiteStore) -> None:
    assert await store.reserve(session("s0"), AGENT, Places(), NOW) is Reservation.NONE_READY
    assert await store.reserve(session("s1"), AGENT, Places((A, B)), NOW) is Reservation.HELD
    assert await store.reserve(session("s2"), AGENT, Places((A, B)), NOW) is Reservation.HELD
    assert await store.reserve(session("s3"), AGENT, Places((A, B)), NOW) is Reservation.FULL
    assert await state_of(store, "s0") is None
    assert await state_of(store, "s3") is None
    # reservations lapse at their time, and the places are free for others
    later = NOW + 30
    assert await store.reserve(session("s4"), AGENT, Places((A,)), later) is Reservation.HELD


async def test_full_is_told_from_not_ready(store: SQLiteStore) -> None:
    await waiting(store, "s1")
    assert await store.lease("s1", AGENT, Places((A,)), NOW) == A
    assert await store.reserve(session("s2"), AGENT, Places(), NOW) is Reservation.FULL


async def test_room_on_an_instance_that_is_not_ready_is_no_place(store: SQLiteStore) -> None:
    several = msgspec.structs.replace(AGENT, sessions_per_instance=2)
    await waiting(store, "s1")
    assert await store.lease("s1", several, Places((A,)), NOW) == A
    assert await store.reserve(session("s2"), several, Places(), NOW) is Reservation.FULL
    assert await store.reserve(session("s2"), several, Places((A,)), NOW) is Reservation.HELD
    assert await store.reserve(session("s3"), several, Places((A,)), NOW) is Reservation.FULL


async def test_a_reserved_place_is_kept_for_its_owner(store: SQLiteStore) -> None:
    await store.reserve(session("owner"), AGENT, Places((A,)), NOW)
    await waiting(store, "other")
    assert await store.lease("other", AGENT, Places((A,)), NOW) is Wait.FULL
    assert await store.admit(direct("owner"), "n", NOW + 60, NOW + 29) is Admission.ADMITTED
    # it waits beyond its reservation: that lasts as long as the claim
    assert await store.lease("other", AGENT, Places((A,)), NOW + 45) is Wait.FULL
    assert await store.lease("owner", AGENT, Places((A,)), NOW + 45) == A


async def test_a_lapsed_reservation_takes_what_is_free(store: SQLiteStore) -> None:
    await store.reserve(session("owner"), AGENT, Places((A,)), NOW)
    await waiting(store, "other")
    assert await store.lease("other", AGENT, Places((A,)), NOW + 30) == A
    assert await store.admit(direct("owner"), "n", LONG, NOW + 31) is Admission.ADMITTED
    assert await store.lease("owner", AGENT, Places((A,)), NOW + 31) is Wait.FULL


async def test_a_token_is_claimed_given_back_and_spent(store: SQLiteStore) -> None:
    await store.reserve(session("s"), AGENT, Places((A,)), NOW)
    for _ in range(2):
        assert await store.admit(direct("s"), "n", LONG, NOW) is Admission.ADMITTED
        assert await store.admit(direct("s"), "n", LONG, NOW) is Admission.REPLAYED
        await store.give_back("s", "n", NOW)
        assert await state_of(store, "s") is SessionState.RESERVED
    assert await store.admit(direct("s"), "n", LONG, NOW) is Admission.ADMITTED
    assert await store.activate("s", "n", NOW, BEGAN)
    assert await store.admit(direct("s"), "n", LONG, NOW) is Admission.REPLAYED
    await store.give_back("s", "n", NOW)
    assert await state_of(store, "s") is SessionState.ACTIVE
    assert await store.admit(direct("s"), "n", LONG, LONG) is Admission.REPLAYED


async def test_a_second_token_of_a_session_is_not_lost_on_it(store: SQLiteStore) -> None:
    """Only the 101 spends a token: one that came while the session was taken stays good."""
    assert await store.admit(direct("s"), "n1", LONG, NOW) is Admission.ADMITTED
    assert await store.admit(direct("s"), "n2", LONG, NOW) is Admission.OVER
    await store.give_back("s", "n1", NOW)
    assert await store.admit(direct("s"), "n2", LONG, NOW) is Admission.ADMITTED
    assert await store.activate("s", "n2", NOW, BEGAN)
    await store.end("s", SessionEnd("client_closed"), NOW)
    assert await store.admit(direct("s"), "n1", LONG, NOW) is Admission.OVER


async def test_a_lapsed_claim_lets_the_token_in_again(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    """Its node has died with it; a second token may not pass while the first one's holds."""
    assert await store.admit(direct("s"), "n", NOW + 40, NOW) is Admission.ADMITTED
    assert await other.admit(direct("s"), "n", LONG, NOW + 39) is Admission.REPLAYED
    assert await other.admit(direct("s"), "n", LONG, NOW + 40) is Admission.ADMITTED
    assert await store.activate("s", "n", NOW + 41, BEGAN) is False
    await store.give_back("s", "n", NOW + 41)
    assert await state_of(store, "s") is SessionState.WAITING
    assert await other.admit(direct("s"), "n2", LONG, NOW + 41) is Admission.OVER
    assert await other.activate("s", "n", NOW + 41, BEGAN)


async def test_nobody_is_let_into_a_session_that_is_to_be_stopped(store: SQLiteStore) -> None:
    await store.reserve(session("s"), AGENT, Places((A,)), NOW)
    stopped = await store.request_stop("s")
    assert stopped is not None
    assert stopped.state is SessionState.RESERVED
    assert await store.admit(direct("s"), "n", LONG, NOW) is Admission.OVER
    assert [(each.id, each.cause) for each in await store.sweep(NOW)] == [("s", "stopped")]


async def test_a_stop_calls_off_the_activation_and_is_seen_by_its_node_only(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    await waiting(store, "s")
    assert await store.stop_requests() == []
    assert (await other.request_stop("s")) is not None
    assert [each.id for each in await store.stop_requests()] == ["s"]
    assert await other.stop_requests() == []
    assert await store.activate("s", "n-s", NOW, BEGAN) is False
    await store.end("s", SessionEnd("stopped"), NOW)
    assert await store.stop_requests() == []
    assert await store.request_stop("s") is None
    assert await store.request_stop("unknown") is None


async def test_an_ended_session_stays_as_it_ended(store: SQLiteStore) -> None:
    await waiting(store, "s")
    assert await store.activate("s", "n-s", NOW + 1, BEGAN)
    end = SessionEnd("bot_closed", 4007, "that was all", '{"seconds":1}')
    ended = await store.end("s", end, NOW + 2)
    assert ended is not None
    assert (ended.state, ended.started, ended.ended) == (SessionState.ENDED, NOW + 1, NOW + 2)
    assert (ended.cause, ended.close_code, ended.close_reason, ended.figures) == (
        "bot_closed",
        4007,
        "that was all",
        '{"seconds":1}',
    )
    assert await store.end("s", SessionEnd("lost"), NOW + 3) is None
    await store.give_back("s", "n-s", NOW + 3)
    assert await store.activate("s", "n-s", NOW + 3, BEGAN) is False
    assert await store.lease("s", AGENT, Places((A,)), NOW + 3) is Wait.FULL
    assert await store.get("s") == ended


async def test_a_look_shows_how_a_session_stands(store: SQLiteStore) -> None:
    assert await store.look("s") is None

    async def seen() -> bool:
        whole, found = await store.get("s"), await store.look("s")
        assert whole is not None
        names = ("id", "agent", "state", "transport", "instance")
        return found == Standing(*(getattr(whole, name) for name in names))

    await waiting(store, "s")
    assert await seen()
    assert await store.lease("s", AGENT, Places((A,)), NOW) == A
    assert await store.activate("s", "n-s", NOW, BEGAN)
    assert await seen()
    await store.end("s", SessionEnd("stopped"), NOW)
    assert await seen()
    store._database.connection.execute("UPDATE sessions SET state = 'odd'")
    with pytest.raises(StoreError):
        await store.look("s")


async def test_an_end_that_is_recorded_late_keeps_its_time(store: SQLiteStore) -> None:
    for name, lasted, recorded, ended in (
        ("a", 2.5, NOW + 60, NOW + 3.5),
        # The clock was set back meanwhile: a call lasts as long as it lasts.
        ("b", 99.0, NOW - 60, NOW + 100),
        ("c", None, NOW + 60, NOW + 60),
        ("d", None, NOW - 60, NOW + 1),
    ):
        await waiting(store, name)
        assert await store.activate(name, f"n-{name}", NOW + 1, BEGAN)
        record = await store.end(name, SessionEnd("client_gone", lasted=lasted), recorded)
        assert record is not None
        assert record.ended == ended


async def test_an_instance_is_leased_until_it_is_freed(store: SQLiteStore) -> None:
    await waiting(store, "s1")
    await waiting(store, "s2")
    assert await store.lease("s1", AGENT, Places((A,)), NOW) == A
    assert await store.lease("s2", AGENT, Places((A,)), NOW) is Wait.FULL
    await store.end("s1", SessionEnd("client_gone"), NOW)
    assert await store.lease("s2", AGENT, Places((A,)), NOW) is Wait.FULL
    await store.free("s1", A)
    assert await store.lease("s2", AGENT, Places((A,)), NOW) == A


async def test_a_session_that_tries_again_holds_both_instances(store: SQLiteStore) -> None:
    """What it held first settles while it is elsewhere, and only that is freed then."""
    await waiting(store, "s")
    await waiting(store, "t")
    assert await store.lease("s", AGENT, Places((A, B)), NOW) == A
    assert await store.lease("s", AGENT, Places((A, B)), NOW) == B
    assert await store.lease("s", AGENT, Places((A, B)), NOW) is Wait.FULL
    assert sorted(await store.leases()) == [("s", A), ("s", B)]
    assert await store.lease("t", AGENT, Places((A, B)), NOW) is Wait.FULL
    await store.free("s", A)
    assert await store.leases() == [("s", B)]
    assert await store.lease("t", AGENT, Places((A, B)), NOW) == A


async def test_an_instance_is_not_given_twice_to_one_session(store: SQLiteStore) -> None:
    several = msgspec.structs.replace(AGENT, sessions_per_instance=2)
    await waiting(store, "s")
    assert await store.lease("s", several, Places((A,)), NOW) == A
    assert await store.lease("s", several, Places((A,)), NOW) is Wait.FULL
    assert await store.lease("s", several, Places((A, B)), NOW) == B


async def test_the_instance_that_has_rested_longest_is_given_first(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    """On whichever node it was used; of those that were never used, the first."""
    several = msgspec.structs.replace(AGENT, sessions_per_instance=2)
    given = []
    for number, each in enumerate((store, other, store, other, store)):
        await waiting(each, f"s{number}")
        lease = each.lease(f"s{number}", several, Places((B, A)), NOW + number, defer=False)
        given.append(await lease)
    assert given == [B, A, B, A, Wait.FULL]
    for number, url in ((1, A), (0, B)):
        await store.free(f"s{number}", url)
    assert await store.lease("s4", several, Places((A, B)), NOW + 9, defer=False) == B


async def test_priority_and_weight_come_before_rest(store: SQLiteStore) -> None:
    """Low priority as long as there is room; then as often as weights say."""
    several = msgspec.structs.replace(AGENT, sessions_per_instance=40)
    ranks = {A: Rank(0, 1.0), B: Rank(0, 0.25), "http://later": Rank(1, 1.0)}
    places = Places(("http://later", B, A), ranks=ranks)
    given = []
    for number in range(40):
        await waiting(store, f"s{number}")
        given.append(await store.lease(f"s{number}", several, places, NOW + number))
    counts = Counter(given)
    assert 30 <= counts[A] <= 34
    assert counts[A] + counts[B] == 40
    full = msgspec.structs.replace(AGENT, sessions_per_instance=1)
    await waiting(store, "last")
    assert await store.lease("last", full, places, NOW + 99) == "http://later"


async def test_instances_of_one_node_are_given_in_the_order_asked_for(store: SQLiteStore) -> None:
    several = msgspec.structs.replace(LAUNCHED, sessions_per_instance=2)
    given = []
    for name in ("s1", "s2", "s3", "s4", "s5"):
        await waiting(store, name)
        given.append(await store.lease(name, several, Places((B, A)), NOW))
    assert given == [B, B, A, A, Wait.FULL]


async def test_callers_of_other_nodes_come_first_if_they_were_first(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    await waiting(other, "first")
    await waiting(store, "second")
    await waiting(other, "third")
    places = Places((A,))
    assert await store.lease("second", AGENT, places, NOW) is Wait.BEHIND
    assert await store.lease("second", AGENT, Places((A, B)), NOW) == A
    assert await other.lease("third", AGENT, Places((B,)), NOW) == B  # `first` is its node's matter
    await waiting(store, "fourth")
    assert await store.lease("fourth", AGENT, places, NOW) is Wait.FULL
    await store.free("second", A)
    assert await store.lease("fourth", AGENT, places, NOW) is Wait.BEHIND
    # Not for ever: that node may be dead.
    assert await store.lease("fourth", AGENT, places, NOW, defer=False) == A


async def test_what_a_node_has_started_is_its_own(store: SQLiteStore, other: SQLiteStore) -> None:
    """Its leases, promises and lines do not count on another node."""
    first = session("first", agent="launched")
    assert await store.reserve(first, LAUNCHED, Places((A,)), NOW) is Reservation.HELD
    second = session("second", agent="launched")
    assert await other.reserve(second, LAUNCHED, Places((A,)), NOW) is Reservation.HELD
    for each, name in ((store, "first"), (other, "second")):
        assert await each.admit(direct(name), f"n-{name}", LONG, NOW) is Admission.ADMITTED
        assert await each.lease(name, LAUNCHED, Places((A,)), NOW) == A
    third = session("third", agent="launched")
    assert await store.reserve(third, LAUNCHED, Places(), NOW) is Reservation.FULL
    await store.free("first", A)
    assert await store.reserve(third, LAUNCHED, Places(), NOW) is Reservation.NONE_READY


@pytest.mark.parametrize("together", [0, 2])
async def test_no_more_sessions_than_are_allowed(store: SQLiteStore, together: int) -> None:
    """Of the agent, or of all agents of its organization."""
    few = msgspec.structs.replace(AGENT, sessions_per_instance=9, max_sessions=0 if together else 2)
    places = Places((A,))

    async def reserve(name: str, **fields: str) -> Reservation:
        return await store.reserve(session(name, **fields), few, places, NOW, together)

    await waiting(store, "walk-in")
    assert await store.lease("walk-in", few, places, NOW, together) == A
    assert await reserve("s1") is Reservation.HELD
    assert await reserve("s2") is Reservation.CAPPED
    await waiting(store, "other")
    assert await store.lease("other", few, places, NOW, together) is Wait.FULL
    await store.admit(direct("s1"), "n", LONG, NOW)
    assert await store.lease("s1", few, places, NOW, together) == A  # it was promised
    assert await store.activate("s1", "n", NOW, BEGAN)
    await store.end("s1", SessionEnd("client_closed"), NOW)
    assert await store.lease("other", few, places, NOW, together) == A
    assert await reserve("s3") is Reservation.CAPPED
    # Another agent is another matter, unless the organization's limit is meant.
    else_ = Agent("else", "acme", (B,), max_sessions=few.max_sessions)
    answer = await store.reserve(session("s4", agent="else"), else_, Places((B,)), NOW, together)
    assert answer is (Reservation.CAPPED if together else Reservation.HELD)


async def test_a_promise_made_before_the_clock_was_set_back_is_void(store: SQLiteStore) -> None:
    """It would hold a place until the clock is there again; its token takes what is free."""
    assert await store.reserve(session("s1"), AGENT, Places((A,)), NOW) is Reservation.HELD
    back = NOW - 3600
    again = session("s2", created=back)
    assert await store.reserve(again, AGENT, Places((A,)), back) is Reservation.HELD
    assert await store.admit(direct("s1"), "n", LONG, back) is Admission.ADMITTED
    assert await store.lease("s1", AGENT, Places((A,)), back) is Wait.FULL
    # By a little it is not set for that: time servers do it now and then.
    assert await store.admit(direct("s2"), "m", LONG, back - 50) is Admission.ADMITTED
    assert await store.lease("s2", AGENT, Places((A,)), back - 50) == A


async def test_a_used_token_stays_used_when_the_clock_is_set_forward_and_back(
    store: SQLiteStore,
) -> None:
    await waiting(store, "s")
    await store.activate("s", "n-s", NOW, BEGAN)
    await store.sweep(NOW + 3600)
    assert await store.admit(direct("s"), "n-s", LONG, NOW + 1) is Admission.REPLAYED


async def test_how_a_session_began_is_kept(store: SQLiteStore) -> None:
    await waiting(store, "s", NOW + 5)
    await store.activate("s", "n-s", NOW - 5, BEGAN)  # the clock was set back
    found = await store.get("s")
    assert found is not None
    assert found.started == found.created == NOW
    assert (found.queued, found.took, found.cold, found.pumped) == (0.5, 1.5, True, True)


async def test_nobody_who_comes_again_ends_as_who_came_last(store: SQLiteStore) -> None:
    for name, cause in (("s1", "no_instance"), ("s2", None), ("s3", "client_left")):
        await waiting(store, name)
        await store.give_back(name, f"n-{name}", NOW, cause)
    await waiting(store, "s3")
    await store.give_back("s3", "n-s3", NOW, "bot_refused")
    ended = {each.id: each.cause for each in await store.sweep(NOW + 300)}
    assert ended == {"s1": "no_instance", "s2": "unused", "s3": "bot_refused"}


async def test_a_lease_is_for_who_waits_on_this_node(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    await waiting(other, "s")
    assert await store.lease("s", AGENT, Places((A,)), NOW) is Wait.FULL
    assert await store.leases() == await other.leases() == []


async def test_find_counts_and_pages_newest_first(store: SQLiteStore) -> None:
    for number in range(10):
        await waiting(store, f"s{number}")
        record = direct(f"t{number}", agent="other", created=NOW + number)
        await store.admit(record, None, LONG, NOW)
    await store.end("t3", SessionEnd("lost"), NOW)

    async def names(**which: object) -> tuple[list[str], int]:
        found, total = await store.find(SessionFilter(**which))  # type: ignore[arg-type]
        return [each.id for each in found], total

    assert await names(agent="other", limit=3) == (["t9", "t8", "t7"], 10)
    assert await names(agent="other", limit=3, offset=8) == (["t1", "t0"], 10)
    assert await names(limit=0) == ([], 20)
    assert await names(offset=20) == ([], 20)
    assert await names(states=(SessionState.ENDED,)) == (["t3"], 1)
    assert await names(states=(SessionState.ENDED, SessionState.WAITING), limit=1) == (["t9"], 20)
    assert await names(agent="' OR 1 --") == ([], 0)
    other = {"agent": "other", "organization": "acme"}
    assert await names(agent="other", organization="else") == ([], 0)
    assert await names(**other, causes=("lost", "stopped")) == (["t3"], 1)
    assert await names(**other, causes=("stopped",)) == ([], 0)
    # The first moment counts, the one after the last does not.
    assert await names(**other, since=NOW + 2, before=NOW + 4) == (["t3", "t2"], 2)
    assert await names(**other, since=NOW + 9.5) == ([], 0)
    assert await names(**other, since=int(NOW) + 9) == (["t9"], 1)
    pages = [await names(agent="bot", limit=3, offset=offset) for offset in (0, 3, 6, 9)]
    assert [name for page, _ in pages for name in page] == [f"s{n}" for n in range(10)]


async def test_sweep_ends_reservations_and_forgets_what_is_old(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.reserve(session("unused"), AGENT, Places((A, B)), NOW)
    await waiting(store, "waits")
    assert await store.sweep(NOW + 299) == []
    assert [(each.id, each.cause) for each in await store.sweep(NOW + 300)] == [
        ("unused", "unused")
    ]
    assert await store.sweep(NOW + 300 + KEEP_ENDED) == []
    assert await state_of(store, "unused") is SessionState.ENDED
    await store.sweep(NOW + 301 + KEEP_ENDED)
    assert await state_of(store, "unused") is None
    assert await state_of(store, "waits") is SessionState.WAITING
    # only so many, the newest, and so many at once
    monkeypatch.setattr(sqlite, "KEEP_ROWS", 3)
    monkeypatch.setattr(sqlite, "FORGET_AT_ONCE", 2)
    for number in range(6):
        await store.admit(direct(f"s{number}", created=NOW + 1 + number), None, LONG, NOW)
        await store.end(f"s{number}", SessionEnd("lost"), NOW + 1)
    left = []
    for _ in range(3):
        await store.sweep(NOW + 2)
        left.append(sorted([each.id for each in (await store.find(SessionFilter()))[0]]))
    assert left == [["s2", "s3", "s4", "s5", "waits"], *[["s3", "s4", "s5", "waits"]] * 2]


async def test_a_spent_token_outlives_the_daemon(path: Path) -> None:
    first = SQLiteStore(path, "node-1")
    assert await first.admit(direct("s"), "n", LONG, NOW) is Admission.ADMITTED
    assert await first.activate("s", "n", NOW, BEGAN)
    await first.sweep(NOW + 299)
    first.close()
    second = SQLiteStore(path, "node-1")
    assert await second.admit(direct("s"), "n", LONG, NOW + 299) is Admission.REPLAYED
    assert await second.admit(direct("t"), "n", LONG, NOW + 299) is Admission.REPLAYED
    second.close()
