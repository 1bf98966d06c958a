"""Transactions on one SQLite file, at once where possible, patiently where not.

Facts
- In WAL mode with synchronous = NORMAL a commit is a write into the page cache: tens
  of microseconds, no disk. A hand-over to a worker thread and back costs several
  times that, and every call of a session's life would pay it: with the hand-over 320
  calls a second were set up, without it 540 (medians of three interleaved rounds).
- What can take long is waiting for another process's write, and a checkpoint, which
  syncs the file.

So a transaction runs where it was asked for, on a connection that never waits and
never checkpoints; when the file is locked, it runs again in a worker thread, on a
connection that waits; and every so often somebody's call takes a checkpoint there.
"""

from __future__ import annotations

__all__ = ["Database"]

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from relay.errors import StoreError
from relay.store.schema import BUSY_TIMEOUT, connect

T = TypeVar("T")
Step = Callable[[sqlite3.Connection], T]

# Transactions between checkpoints: each writes a handful of pages of 1 KiB, so the
# write-ahead log stays below some MiB.
CHECKPOINT_EVERY = 1000


class Database:
    """Runs transactions one after the other.

    Args:
        busy_timeout: seconds that a transaction waits for another process's write, and
            as long again for those before it that wait for the same.
        prepare: is given every connection once.

    Raises:
        ConfigError: the file can't be used.
    """

    def __init__(
        self,
        path: Path,
        busy_timeout: float = BUSY_TIMEOUT,
        prepare: Callable[[sqlite3.Connection], None] = lambda _connection: None,
    ) -> None:
        self.connection = connect(path, busy_timeout)  # opening it may wait
        self.connection.execute("PRAGMA busy_timeout = 0")
        self.connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._patient = connect(path, busy_timeout)
        for connection in (self.connection, self._patient):
            prepare(connection)
        self._busy_timeout = busy_timeout
        self._one = trio.CapacityLimiter(1)
        self._since_checkpoint = 0

    def close(self) -> None:
        self.connection.close()
        self._patient.close()

    async def run(self, step: Step[T]) -> T:
        """One transaction: all of `step` or nothing of it, also for a caller that is cancelled.

        Raises:
            StoreError: the file is locked for too long, full, broken.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            result = _transact(self.connection, step)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise _failed(error) from error
            return await self._run_patiently(step)
        except (sqlite3.Error, msgspec.ValidationError) as error:
            raise _failed(error) from error
        self._since_checkpoint += 1
        if self._since_checkpoint >= CHECKPOINT_EVERY:
            self._since_checkpoint = 0
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._checkpoint, limiter=self._one)
        return result

    async def read(self, step: Step[T]) -> T:
        """One SELECT, which needs no transaction of its own and waits for no writer.

        Raises:
            StoreError: as `run`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return step(self.connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise _failed(error) from error
            return await self._run_patiently(step)
        except (sqlite3.Error, msgspec.ValidationError) as error:
            raise _failed(error) from error

    async def prepare(self, prepare: Callable[[sqlite3.Connection], None]) -> None:
        """Give every connection to `prepare`, between its transactions.

        Raises:
            StoreError: as `run`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            prepare(self.connection)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(prepare, self._patient, limiter=self._one)
        except sqlite3.Error as error:
            raise _failed(error) from error

    async def _run_patiently(self, step: Step[T]) -> T:
        # The limit holds for standing in line only: what has begun is finished.
        with trio.move_on_after(self._busy_timeout):
            return await trio.to_thread.run_sync(self._wait_and_transact, step, limiter=self._one)
        raise StoreError("the store is locked by another process")

    def _wait_and_transact(self, step: Step[T]) -> T:
        try:
            return _transact(self._patient, step)
        except (sqlite3.Error, msgspec.ValidationError) as error:
            raise _failed(error) from error

    def _checkpoint(self) -> None:
        try:
            self._patient.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            pass  # the next one will do it; what is in the log is safe there


def _transact(connection: sqlite3.Connection, step: Step[T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = step(connection)
        connection.execute("COMMIT")
    finally:
        # After some errors, a full disk for one, SQLite has done it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return result


def _failed(error: Exception) -> StoreError:
    return StoreError(f"the store failed: {error}")
