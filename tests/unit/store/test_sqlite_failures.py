"""The SQLite store when it fails, in a crowd, and when callers are cancelled."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest
import trio

from relay.errors import StoreError
from relay.policy.interfaces import Admission, Places, Wait
from relay.policy.sessions import SessionEnd, SessionState
from relay.store.sqlite import SQLiteStore
from tests.helpers.store import AGENT, BEGAN, LONG, NOW, A, B, direct, state_of, waiting


async def test_a_locked_store_fails_and_comes_back(store: SQLiteStore, path: Path) -> None:
    await waiting(store, "s")
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        with pytest.raises(StoreError, match="locked"):
            await store.activate("s", "n-s", NOW, BEGAN)
    lock.execute("ROLLBACK")
    lock.close()
    assert await store.activate("s", "n-s", NOW, BEGAN)


async def test_a_full_disk_leaves_nothing_half_done(store: SQLiteStore) -> None:
    await waiting(store, "s")
    db = store._database.connection
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    big = SessionEnd("lost", figures="x" * 100_000)
    for _ in range(2):
        with pytest.raises(StoreError, match="full"):
            await store.end("s", big, NOW)
        assert await state_of(store, "s") is SessionState.WAITING
    db.execute("PRAGMA max_page_count = 1000000")
    assert await store.end("s", big, NOW) is not None


async def test_a_broken_file_is_a_store_error(store: SQLiteStore, path: Path) -> None:
    await waiting(store, "s")
    other = sqlite3.connect(path)
    other.execute("DROP TABLE leases")
    other.commit()
    other.close()
    with pytest.raises(StoreError, match="no such table"):
        await store.lease("s", AGENT, Places((A,)), NOW)
    assert await state_of(store, "s") is SessionState.WAITING


async def test_a_row_that_nobody_can_read_is_a_store_error(store: SQLiteStore) -> None:
    await waiting(store, "s")
    store._database.connection.execute("UPDATE sessions SET state = 'asleep'")
    with pytest.raises(StoreError):
        await store.get("s")


async def test_a_closed_store_is_a_store_error(path: Path) -> None:
    store = SQLiteStore(path, "node-1")
    store.close()
    with pytest.raises(StoreError):
        await store.get("s")


# Crowds and cancellation.


async def test_of_a_crowd_with_one_token_exactly_one_wins(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    outcomes: list[Admission] = []

    async def claim(each: SQLiteStore) -> None:
        outcomes.append(await each.admit(direct("s"), "n", LONG, NOW))

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(claim, (store, other)[number % 2])
    assert outcomes.count(Admission.ADMITTED) == 1
    assert outcomes.count(Admission.REPLAYED) == 49


async def test_a_crowd_gets_no_more_instances_than_there_are(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    several = msgspec.structs.replace(AGENT, sessions_per_instance=2)
    given: list[str | Wait] = []

    async def come(each: SQLiteStore, name: str) -> None:
        await waiting(each, name)
        given.append(await each.lease(name, several, Places((A, B)), NOW, defer=False))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(come, (store, other)[number % 2], f"s{number}")
    assert sorted(each for each in given if isinstance(each, str)) == [A, A, B, B]


async def test_a_cancelled_call_is_done_or_not_done(store: SQLiteStore) -> None:
    """A caller that is told of its cancellation has claimed nothing; one that is not, has."""
    told = 0
    for number in range(40):
        name, answer = f"s{number}", None
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.get, "x")  # somebody else is at the store first
                nursery.start_soon(_cancel_after, scope, number % 3)
                await trio.lowlevel.checkpoint()
                answer = await store.admit(direct(name), f"n-{name}", LONG, NOW)
        if answer is None:
            told += 1
            assert await state_of(store, name) is None
            assert await store.admit(direct(name), f"n-{name}", LONG, NOW) is Admission.ADMITTED
        else:
            assert answer is Admission.ADMITTED
            assert await state_of(store, name) is SessionState.WAITING
    assert told > 0


async def _cancel_after(scope: trio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()
