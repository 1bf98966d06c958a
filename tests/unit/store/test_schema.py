"""Opening the store's file: made private, and refused when it is not ours or not usable."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.policy.sessions import Session, SessionState
from relay.store import schema
from relay.store.schema import (
    APPLICATION_ID,
    COLUMNS,
    SCHEMA_VERSION,
    TABLES,
    connect,
    session_of,
    values_of,
)


def refusal_of(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        connect(path, busy_timeout=0.05)
    assert str(path) in str(refused.value)
    assert str(refused.value).startswith("store.url: ")
    return str(refused.value)


def test_a_new_file_and_its_companions_are_private(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    connection = connect(path)
    connection.execute("DELETE FROM sessions")
    connection.execute("INSERT INTO leases VALUES ('s', 'i', 'a', 'n')")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["relay.db", "relay.db-shm", "relay.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    connection.close()


def test_the_file_is_marked_and_opens_again(tmp_path: Path) -> None:
    for _ in range(2):
        connection = connect(tmp_path / "relay.db")
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()


def test_a_file_without_the_later_index_gets_it(tmp_path: Path) -> None:
    connection = connect(tmp_path / "relay.db")
    connection.execute("DROP INDEX sessions_agent")
    connection.close()
    connection = connect(tmp_path / "relay.db")
    plan = connection.execute(
        "EXPLAIN QUERY PLAN SELECT count(*) FROM sessions WHERE agent = 'a' AND state = 'ended' "
        "AND organization = 'b' AND cause = 'lost' AND created >= 0"
    ).fetchall()
    assert "COVERING INDEX sessions_agent" in str(plan)
    connection.close()


def schema_of(connection: sqlite3.Connection) -> list[object]:
    rows = connection.execute("SELECT type, name, tbl_name FROM sqlite_schema ORDER BY 1, 2")
    columns = connection.execute(
        "SELECT m.name, c.name, c.type FROM sqlite_schema m, pragma_table_info(m.name) c"
    )
    return [*rows.fetchall(), *sorted(columns.fetchall())]


def version_1(path: Path) -> sqlite3.Connection:
    """A file as version 1 made it: with a session that goes on and one that is over."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in TABLES.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    columns = "id, agent, organization, state, created, reserved_until, expires, max_duration, "
    columns += "transport, admitted, started"
    for name in ("active", "ended"):
        connection.execute(
            f"INSERT INTO sessions ({columns}) "
            "VALUES (?, 'a', 'o', ?, 1, 0, 9, 60, 'websocket', 2, 3.5)",
            (name, name),
        )
    connection.execute("INSERT INTO tokens VALUES ('n', 'ended', 1, 0, 99)")
    connection.execute("INSERT INTO leases VALUES ('active', 'i', 'a', 'node')")
    return connection


def test_a_file_of_the_first_version_is_migrated(tmp_path: Path) -> None:
    old = version_1(tmp_path / "old.db")
    old.close()
    for _ in range(2):
        migrated = connect(tmp_path / "old.db")
        fresh = connect(tmp_path / "new.db")
        assert schema_of(migrated) == schema_of(fresh)
        rows = migrated.execute(f"SELECT {', '.join(COLUMNS)} FROM sessions ORDER BY id")
        active, ended = map(session_of, rows.fetchall())
        assert (active.id, active.took, active.cold, active.pumped) == ("active", 1.5, None, True)
        assert (ended.id, ended.took, ended.pumped, ended.turn) == ("ended", 1.5, None, 0)
        assert migrated.execute("SELECT * FROM tokens").fetchall() == [("n", "ended", 1, 0, 99)]
        assert migrated.execute("SELECT count(*) FROM leases").fetchone() == (1,)
        migrated.close()
        fresh.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.db"
    version_1(path).close()
    broken = (*schema.MIGRATIONS[:1], schema.MIGRATIONS[1] + "CREATE TABLE leases (x TEXT);")
    monkeypatch.setattr(schema, "MIGRATIONS", broken)
    assert "leases already exists" in refusal_of(path)
    old = sqlite3.connect(path)
    assert old.execute("PRAGMA user_version").fetchone() == (1,)
    assert old.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'nodes'").fetchone() == (0,)
    old.close()


@pytest.mark.parametrize("version", [0, -1, SCHEMA_VERSION + 1])
def test_another_version_is_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "relay.db"
    connection = connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    reason = refusal_of(path)
    assert f"version {version}" in reason
    assert str(SCHEMA_VERSION) in reason


def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    theirs = sqlite3.connect(path)
    theirs.execute("CREATE TABLE songs (name TEXT)")
    theirs.commit()
    theirs.close()
    before = path.read_bytes()
    assert "another program" in refusal_of(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_programs_empty_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    theirs = sqlite3.connect(path)
    theirs.execute("PRAGMA application_id = 1234")
    theirs.close()
    assert "another program" in refusal_of(path)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("[server]\n" * 1000)
    refusal_of(path)
    assert path.read_text() == "[server]\n" * 1000


def test_unusable_paths_are_refused(tmp_path: Path) -> None:
    refusal_of(tmp_path)
    refusal_of(tmp_path / "missing" / "relay.db")
    (tmp_path / "file").touch()
    refusal_of(tmp_path / "file" / "relay.db")


def test_a_locked_file_is_refused_after_the_timeout(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    connect(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert "locked" in refusal_of(path)
    other.execute("ROLLBACK")
    other.close()
    connect(path).close()


def test_another_process_that_closes_the_file_leaves_the_log(tmp_path: Path) -> None:
    """It would delete it if this process's locks on the file had been lost."""
    path = tmp_path / "relay.db"
    ours = [connect(path), connect(path)]
    ours[0].execute("INSERT INTO leases VALUES ('s', 'i', 'a', 'n')")
    log = path.with_name("relay.db-wal").stat()
    look = f"import sqlite3; c = sqlite3.connect({str(path)!r}); "
    look += "print(c.execute('SELECT count(*) FROM leases').fetchone()); c.close()"
    assert subprocess.check_output([sys.executable, "-c", look]) == b"(1,)\n"
    assert os.path.samestat(path.with_name("relay.db-wal").stat(), log)
    for each in ours:
        each.close()


def test_a_session_is_the_same_as_a_row() -> None:
    session = Session(
        id="i",
        agent="a",
        organization="o",
        state=SessionState.ACTIVE,
        created=1.5,
        instance="http://a:1",
        started=2.0,
        close_code=4000,
        close_reason="ü",
    )
    assert session_of(values_of(session, SessionState.ACTIVE)) == session
    assert session_of(values_of(session, SessionState.WAITING)).state is SessionState.WAITING
    assert len(COLUMNS) == len(values_of(session, SessionState.ACTIVE))


def test_the_table_has_every_column(tmp_path: Path) -> None:
    connection = connect(tmp_path / "relay.db")
    names = [row[1] for row in connection.execute("PRAGMA table_info(sessions)")]
    connection.close()
    assert set(names) == {*COLUMNS, "stop_requested"}
    assert len(names) == len(COLUMNS) + 1
