"""The SQLite file: opening it, its tables, its version, and rows as sessions."""

from __future__ import annotations

__all__ = ["COLUMNS", "SCHEMA_VERSION", "connect", "session_of", "values_of"]

import contextlib
import os
import sqlite3
from pathlib import Path

import msgspec

from relay.errors import ConfigError
from relay.policy.sessions import Session, SessionState

# Raised with every change of the tables; a file of an earlier version is migrated, one of
# a later version refused.
SCHEMA_VERSION = 3
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
CREATE INDEX sessions_ended ON sessions (ended);
CREATE TABLE tokens (
    nonce TEXT PRIMARY KEY,
    session TEXT NOT NULL,
    spent INTEGER NOT NULL,
    claimed_until REAL NOT NULL,
    expires REAL NOT NULL
) STRICT, WITHOUT ROWID;
-- A session whose first bot refused it may hold that instance, until it has settled,
-- and the next one already: a lease is the pair.
CREATE TABLE leases (
    session TEXT NOT NULL,
    instance TEXT NOT NULL,
    agent TEXT NOT NULL,
    node TEXT NOT NULL,
    PRIMARY KEY (session, instance)
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_agent ON leases (agent, instance);
"""

# From version 1: how a session got its bot, callers' turns, and nodes that see each other.
VERSION_2 = """
ALTER TABLE sessions ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN queued REAL;
ALTER TABLE sessions ADD COLUMN took REAL;
ALTER TABLE sessions ADD COLUMN cold INTEGER;
ALTER TABLE sessions ADD COLUMN pumped INTEGER;
UPDATE sessions SET took = max(0, started - admitted) WHERE started IS NOT NULL;
UPDATE sessions SET pumped = 1 WHERE state = 'active';
CREATE TABLE nodes (
    name TEXT PRIMARY KEY,
    place TEXT NOT NULL,
    life TEXT NOT NULL,
    beat INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- When an instance that several nodes may use was leased last.
CREATE TABLE uses (
    agent TEXT NOT NULL,
    instance TEXT NOT NULL,
    leased REAL NOT NULL,
    PRIMARY KEY (agent, instance)
) STRICT, WITHOUT ROWID;
"""
# From version 2: what is still to be told of sessions, and their large bodies.
VERSION_3 = """
CREATE TABLE events (
    session TEXT NOT NULL,
    type TEXT NOT NULL,
    organization TEXT NOT NULL,
    created REAL NOT NULL,
    due REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    node TEXT,
    PRIMARY KEY (session, type)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_due ON events (organization, due);
-- What a bot fetches that has the key. The body stands last, since it is long.
CREATE TABLE bodies (
    session TEXT PRIMARY KEY,
    key TEXT,
    body BLOB NOT NULL
) STRICT;
"""
# What leads from each version to the next; a new file takes the same way.
MIGRATIONS = (TABLES, VERSION_2, VERSION_3)

# For lists of one agent's sessions: counts and filters read it alone, 5 to 20 ms over
# 100 000 sessions where the table took 30 to 190, for 0.01 ms more in a session's life
# (measured). It changes no table, so files of this version without it get it.
AGENT_INDEX = """
CREATE INDEX IF NOT EXISTS sessions_agent
ON sessions (agent, organization, created, state, cause)
"""

# Each node looks every second whether somebody asked it to stop a session; without an
# index of its own that reads every live session (0.33 instead of 0.04 ms with 2000).
STOP_INDEX = """
CREATE INDEX IF NOT EXISTS sessions_stop ON sessions (node) WHERE stop_requested = 1
"""

# Each caller's turn comes behind those who were passed on from one process to the next.
PASSED_INDEX = """
CREATE INDEX IF NOT EXISTS sessions_passed
ON sessions (agent, turn) WHERE state = 'reserved' AND turn > 0
"""

COLUMNS = tuple(Session.__struct_fields__)
# SQLite has no booleans.
FLAGS = ("cold", "pumped")


def connect(path: Path, busy_timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """Open the store's file, making it (mode 0600) if there is none.

    Args:
        busy_timeout: seconds that one statement waits for another process's write.

    Raises:
        ConfigError: it can't be opened, is no store of relay, or has a later version.
    """
    connection = None
    try:
        _create(path)
        connection = sqlite3.connect(
            path, timeout=busy_timeout, isolation_level=None, check_same_thread=False
        )
        _version(connection, path)  # before anything is changed: it may be somebody else's
        # Commits write whole pages: with small ones a session's life costs 0.23 ms instead
        # of 0.28 with the default of 4 KiB, and the log is a third as long (measured).
        connection.execute("PRAGMA page_size = 1024")
        # WAL: readers and the writer don't wait for each other. NORMAL: a commit survives
        # the death of this process at once; a power cut may undo the last commits.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        _make(connection, path)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, (OSError, sqlite3.Error)):
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"store.url: {path} can't be opened: {reason}") from None
        raise
    return connection


def _create(path: Path) -> None:
    """Make the file, private, unless it is there.

    One that is there must not be opened here: closing a descriptor of it would drop this
    process's locks on it (POSIX, fcntl), those of SQLite's connections too, and the next
    process to close the file would delete the log that they write.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _make(connection: sqlite3.Connection, path: Path) -> None:
    """Make or migrate the tables, all or nothing; two processes may come here at once."""
    connection.execute("BEGIN IMMEDIATE")
    for statements in MIGRATIONS[_version(connection, path) :]:
        for statement in statements.split(";"):
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute(AGENT_INDEX)
    connection.execute(STOP_INDEX)
    connection.execute(PASSED_INDEX)
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the file's tables; 0 for a new one.

    Raises:
        ConfigError: it belongs to another program, or to a version that is not known.
    """
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables == 0 and owner == 0:
        return 0
    if owner != APPLICATION_ID:
        raise ConfigError(f"store.url: {path} is a database of another program")
    if not 1 <= version <= SCHEMA_VERSION:
        raise ConfigError(
            f"store.url: {path} has schema version {version}, expected 1 to {SCHEMA_VERSION}; "
            "use the relay version that made it, or another file"
        )
    return int(version)


def session_of(row: tuple[object, ...]) -> Session:
    """A row of the columns `COLUMNS` as a session."""
    fields = dict(zip(COLUMNS, row, strict=True))
    for flag in FLAGS:
        if fields[flag] is not None:
            fields[flag] = bool(fields[flag])
    return msgspec.convert(fields, Session)


def values_of(session: Session, state: SessionState) -> tuple[object, ...]:
    """The session as a row of the columns `COLUMNS`, in `state`."""
    fields = msgspec.structs.asdict(session) | {"state": state.value}
    return tuple(fields[column] for column in COLUMNS)
