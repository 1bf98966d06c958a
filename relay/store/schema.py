"""The SQLite file: opening it, its tables, its version, and rows as sessions."""

from __future__ import annotations

__all__ = ["COLUMNS", "SCHEMA_VERSION", "connect", "session_of", "values_of"]

import os
import sqlite3
from pathlib import Path

import msgspec

from relay.errors import ConfigError
from relay.policy.sessions import Session, SessionState

# Raised with every change of the tables; a file of another version is refused.
SCHEMA_VERSION = 1
# "relay" in four bytes less one: marks the file as ours (sqlite.org, pragma application_id).
APPLICATION_ID = 0x726C6179
# How long one statement waits for another process's write; writes take microseconds.
BUSY_TIMEOUT = 5.0

TABLES = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    agent TEXT NOT NULL,
    organization TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    reserved_until REAL NOT NULL,
    expires REAL NOT NULL,
    max_duration REAL NOT NULL,
    transport TEXT NOT NULL,
    instance TEXT,
    node TEXT,
    admitted REAL,
    started REAL,
    ended REAL,
    cause TEXT,
    close_code INTEGER,
    close_reason TEXT NOT NULL DEFAULT '',
    figures TEXT NOT NULL DEFAULT '',
    stop_requested INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX sessions_state ON sessions (state, agent);
CREATE INDEX sessions_created ON sessions (created);
CREATE TABLE tokens (
    nonce TEXT PRIMARY KEY,
    session TEXT NOT NULL,
    spent INTEGER NOT NULL,
    claimed_until REAL NOT NULL,
    expires REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE leases (
    session TEXT PRIMARY KEY,
    instance TEXT NOT NULL,
    agent TEXT NOT NULL,
    node TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_agent ON leases (agent, instance);
"""

COLUMNS = tuple(Session.__struct_fields__)


def connect(path: Path) -> sqlite3.Connection:
    """Open the store's file, making it (mode 0600) if there is none.

    Raises:
        ConfigError: it can't be opened, is no store of relay, or has another version.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        # WAL: readers and the writer don't wait for each other. NORMAL: a commit survives
        # the death of this process at once; a power cut may undo the last commits.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        _check_version(connection, path)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"store.url: {path} can't be opened: {error}") from None
    return connection


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables == 0:
            for statement in TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif owner != APPLICATION_ID:
            raise ConfigError(f"store.url: {path} is a database of another program")
        elif version != SCHEMA_VERSION:
            raise ConfigError(
                f"store.url: {path} has schema version {version}, expected {SCHEMA_VERSION}; "
                "use the relay version that made it, or another file"
            )
    except BaseException:
        connection.execute("ROLLBACK")
        connection.close()
        raise
    connection.execute("COMMIT")


def session_of(row: tuple[object, ...]) -> Session:
    """A row of the columns `COLUMNS` as a session."""
    return msgspec.convert(dict(zip(COLUMNS, row, strict=True)), Session)


def values_of(session: Session, state: SessionState) -> tuple[object, ...]:
    """The session as a row of the columns `COLUMNS`, in `state`."""
    fields = msgspec.structs.asdict(session) | {"state": state.value}
    return tuple(fields[column] for column in COLUMNS)
