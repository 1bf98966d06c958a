"""Transactions: at once where possible, patiently where the file is locked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from relay.errors import StoreError
from relay.store.database import CHECKPOINT_EVERY, Database

BUSY_TIMEOUT = 2.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path, BUSY_TIMEOUT)
    yield database
    database.close()


@pytest.fixture
def other(database: Database, path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's connection."""
    other = sqlite3.connect(path, isolation_level=None)
    yield other
    other.close()


def spend(name: str) -> str:
    return f"INSERT INTO tokens VALUES ('{name}', 's', 0, 0, 0)"


def count(database: Database) -> int:
    return int(database.connection.execute("SELECT count(*) FROM tokens").fetchone()[0])


async def test_a_transaction_waits_for_another_processs_write(
    database: Database, other: sqlite3.Connection
) -> None:
    other.execute("BEGIN IMMEDIATE")
    other.execute(spend("theirs"))
    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(database.run, lambda db, name=name: db.execute(spend(name)))
        await trio.testing.wait_all_tasks_blocked()
        assert count(database) == 0
        other.execute("COMMIT")
    assert count(database) == 4


def test_opening_waits_for_another_processs_write(
    database: Database, other: sqlite3.Connection, path: Path
) -> None:
    """Who writes all the time keeps nobody out."""
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor() as pool:
        opening = pool.submit(Database, path, BUSY_TIMEOUT)
        with pytest.raises(TimeoutError):
            opening.result(0.1)
        other.execute("COMMIT")
        opening.result().close()


async def test_one_that_waits_in_vain_fails_and_so_do_those_behind_it(
    path: Path, other: sqlite3.Connection
) -> None:
    hasty = Database(path, 0.1)
    other.execute("BEGIN IMMEDIATE")
    failed = []

    async def try_it() -> None:
        with pytest.raises(StoreError, match="locked"):
            await hasty.run(lambda db: db.execute(spend("x")))
        failed.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(try_it)
    other.execute("ROLLBACK")
    assert len(failed) == 20
    assert count(hasty) == 0
    await hasty.run(lambda db: db.execute(spend("x")))
    hasty.close()


async def test_who_is_cancelled_while_waiting_has_done_all_or_nothing(
    database: Database, other: sqlite3.Connection
) -> None:
    """A transaction that stands in line is given up; one that has begun is finished."""
    done = []

    async def run(name: str) -> None:
        await database.run(lambda db: db.execute(spend(name)))
        done.append(name)

    other.execute("BEGIN IMMEDIATE")
    async with trio.open_nursery() as nursery:
        for name in ("first", "second", "third"):
            nursery.start_soon(run, name)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        other.execute("COMMIT")
    assert count(database) == 1
    assert len(done) <= 1


async def test_a_step_that_fails_leaves_nothing(database: Database) -> None:
    def step(db: sqlite3.Connection) -> None:
        db.execute(spend("half"))
        raise ValueError("whole")

    with pytest.raises(ValueError, match="whole"):
        await database.run(step)
    assert count(database) == 0
    await database.run(lambda db: db.execute(spend("half")))


async def test_checkpoints_keep_the_log_short(database: Database, path: Path) -> None:
    assert database.connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    for number in range(CHECKPOINT_EVERY):
        await database.run(lambda db, n=number: db.execute(spend(f"token-{n:06}")))
    log = path.with_name(path.name + "-wal").stat().st_size
    for number in range(CHECKPOINT_EVERY):
        await database.run(
            lambda db, n=number: db.execute(f"DELETE FROM tokens WHERE nonce = 'token-{n:06}'")
        )
    assert path.with_name(path.name + "-wal").stat().st_size < 2 * log
    seen = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)  # the file without its log
    assert seen.execute("SELECT count(*) FROM tokens").fetchone() == (0,)
    seen.close()


async def test_a_caller_that_is_cancelled_already_does_nothing(database: Database) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await database.run(lambda db: db.execute(spend("x")))
    assert scope.cancelled_caught
    assert count(database) == 0
