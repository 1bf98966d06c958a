"""Events for webhooks: written with the moves, claimed by one node, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.policy.sessions import SessionEnd, SessionState
from relay.policy.webhooks import AT_ONCE, CLAIM, MAX_AGE, MAX_WAITING, Claimed, Event
from relay.store.sqlite import KEEP_ENDED, SQLiteStore
from tests.helpers.store import BEGAN, LONG, NOW, direct, state_of, waiting

END = SessionEnd("client_closed")


@pytest.fixture
def teller(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, "node-1", told=["acme"])
    yield store
    store.close()


@pytest.fixture
def second(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, "node-2", told=["acme"])
    yield store
    store.close()


async def claimed(store: SQLiteStore, now: float = NOW) -> list[tuple[str, str]]:
    found = await store.outbox.claim("acme", now)
    return [(event.session.id, event.type) for event in found.events]


async def test_a_session_is_told_twice_and_each_once(teller: SQLiteStore) -> None:
    await waiting(teller, "a")
    assert await claimed(teller) == []
    assert await teller.activate("a", "n-a", NOW, BEGAN)
    assert await claimed(teller) == [("a", "session.started")]
    assert await teller.end("a", END, NOW + 1)
    assert await teller.end("a", END, NOW + 2) is None
    assert await claimed(teller, NOW + 2) == [("a", "session.ended")]
    assert await claimed(teller, NOW + 2) == []


async def test_only_those_are_told_who_want_it(teller: SQLiteStore) -> None:
    other = direct("b", organization="other")
    await teller.admit(other, "n-b", LONG, NOW)
    assert await teller.activate("b", "n-b", NOW, BEGAN)
    await teller.end("b", END, NOW)
    assert await teller.outbox.claim("other", NOW) == Claimed()


async def test_a_store_that_tells_nobody_writes_nothing(store: SQLiteStore) -> None:
    await waiting(store, "a")
    assert await store.end("a", END, NOW)
    assert await claimed(store) == []


async def test_a_move_that_does_not_happen_is_not_told(teller: SQLiteStore) -> None:
    await waiting(teller, "a")
    await teller.request_stop("a")
    assert not await teller.activate("a", "n-a", NOW, BEGAN)
    await teller.give_back("a", "n-a", NOW)
    assert await claimed(teller) == []


async def test_ends_that_a_sweep_and_a_recovery_record_are_told(teller: SQLiteStore) -> None:
    for name in ("swept", "lost"):
        await waiting(teller, name)
    await teller.give_back("swept", "n-swept", NOW)
    assert await teller.activate("lost", "n-lost", NOW, BEGAN)
    await teller.sweep(LONG + 1)
    await teller.recover((), LONG + 2)
    assert sorted(await claimed(teller, LONG + 3)) == [
        ("lost", "session.ended"),
        ("lost", "session.started"),
        ("swept", "session.ended"),
    ]


async def many(store: SQLiteStore, count: int) -> None:
    for number in range(count):
        await waiting(store, f"s{number:02}")
        await store.end(f"s{number:02}", END, NOW)


async def test_no_two_nodes_have_one_event(teller: SQLiteStore, second: SQLiteStore) -> None:
    await many(teller, AT_ONCE + 3)
    ours, theirs = await claimed(teller), await claimed(second)
    assert (len(ours), len(theirs)) == (AT_ONCE, 3)
    assert not set(ours) & set(theirs)
    # What a dead node had is another's once the claim has lapsed.
    assert await claimed(second, NOW + CLAIM - 1) == []
    assert len(await claimed(second, NOW + CLAIM)) == AT_ONCE


async def test_a_node_that_is_started_again_has_its_claims_back(
    teller: SQLiteStore, second: SQLiteStore
) -> None:
    await many(teller, 2)
    assert len(await claimed(teller)) == 2
    await second.outbox.release("acme")
    assert await claimed(second) == []
    await teller.outbox.release("acme")
    assert len(await claimed(second)) == 2


async def test_an_event_is_put_off_and_removed(teller: SQLiteStore) -> None:
    await many(teller, 1)
    (event,) = (await teller.outbox.claim("acme", NOW)).events
    assert event.attempts == 1
    await teller.outbox.put_off(event, NOW + 5)
    assert await teller.outbox.claim("acme", NOW + 4) == Claimed(waiting=1)
    (again,) = (await teller.outbox.claim("acme", NOW + 5)).events
    assert again == Event("session.ended", event.session, attempts=2)
    assert again.id == event.id
    await teller.outbox.remove(again)
    assert await teller.outbox.claim("acme", NOW + 100) == Claimed()


async def test_a_clock_that_is_set_back_holds_nothing_up(teller: SQLiteStore) -> None:
    await many(teller, 1)
    late = NOW + 7 * MAX_AGE
    (event,) = (await teller.outbox.claim("acme", NOW)).events
    await teller.outbox.put_off(event, late)
    assert len(await claimed(teller, NOW + 1)) == 1


async def test_what_is_old_is_removed(teller: SQLiteStore) -> None:
    await many(teller, 2)
    found = await teller.outbox.claim("acme", NOW + MAX_AGE + 1)
    assert found == Claimed(old=("session.ended", "session.ended"))
    assert await teller.outbox.claim("acme", NOW) == Claimed()


async def test_the_newest_stay_when_too_many_wait(teller: SQLiteStore) -> None:
    # Written by hand: so many sessions would take a minute.
    teller._database.connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO events (session, type, organization, created, due) "
        "SELECT 'x' || i, 'session.ended', 'acme', ? + i * 0.001, ? FROM n",
        (MAX_WAITING + 2, NOW, NOW + 50),
    )
    found = await teller.outbox.claim("acme", NOW + 30)
    assert found == Claimed(waiting=MAX_WAITING, over=("session.ended", "session.ended"))
    names = "SELECT count(*) FROM events WHERE session IN ('x1', 'x2')"
    assert teller._database.connection.execute(names).fetchone() == (0,)


async def test_everything_is_cleared_for_one_organization(teller: SQLiteStore) -> None:
    await many(teller, 2)
    assert await teller.outbox.clear("other") == ()
    assert await teller.outbox.clear("acme") == ("session.ended", "session.ended")
    assert await claimed(teller) == []


async def test_nothing_is_left_of_a_session_that_is_forgotten(
    teller: SQLiteStore, store: SQLiteStore
) -> None:
    await many(teller, 1)
    await store.sweep(NOW + KEEP_ENDED + 1)
    rows = teller._database.connection.execute("SELECT count(*) FROM events")
    assert rows.fetchone() == (0,)


async def test_an_event_of_the_past_has_the_session_as_it_is(teller: SQLiteStore) -> None:
    await waiting(teller, "a")
    await teller.activate("a", "n-a", NOW, BEGAN)
    await teller.end("a", END, NOW + 5)
    found = (await teller.outbox.claim("acme", NOW + 5)).events
    stored = await teller.get("a")
    assert {event.type for event in found} == {"session.started", "session.ended"}
    assert all(event.session == stored for event in found)
    assert await state_of(teller, "a") is SessionState.ENDED
