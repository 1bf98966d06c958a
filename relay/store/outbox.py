"""Events for webhooks: rows that are written in the very transaction of a session's move.

Triggers write them, on this connection alone and for organizations that want them, so
that no way in which a session may begin or end can be forgotten, and nothing is written
where nobody wants it.
"""

from __future__ import annotations

__all__ = ["SQLiteOutbox", "write_events"]

import sqlite3
from collections.abc import Collection, Mapping

from relay.policy.webhooks import (
    AT_ONCE,
    CLAIM,
    LONGEST_WAIT,
    MAX_AGE,
    MAX_WAITING,
    Claimed,
    Event,
)
from relay.store.database import Database
from relay.store.schema import COLUMNS, session_of

# What the store calls a state, and what its beginning is called outside.
EVENTS = {"active": ("session.started", "started"), "ended": ("session.ended", "ended")}
TRIGGER = """
CREATE TEMP TRIGGER IF NOT EXISTS tell_{state} AFTER UPDATE OF state ON main.sessions
WHEN new.state = '{state}' AND new.organization IN (SELECT organization FROM temp.told)
BEGIN
    INSERT OR IGNORE INTO events (session, type, organization, created)
    VALUES (new.id, '{type}', new.organization, new.{time});
END
"""
# A claim or a wait that ends later than any may is one of a clock that was set back.
DUE = "organization = :organization AND (due <= :now OR due > :latest)"
CLAIM_DUE = f"""
UPDATE events SET node = :node, due = :now + {CLAIM}, attempts = attempts + 1
WHERE (session, type) IN (SELECT session, type FROM events WHERE {DUE} ORDER BY due LIMIT {AT_ONCE})
RETURNING type, session, attempts
"""
FORGET_OLD = """
DELETE FROM events WHERE organization = :organization AND created < :oldest RETURNING type
"""
FORGET_MANY = f"""
DELETE FROM events WHERE (session, type) IN (
    SELECT session, type FROM events WHERE organization = :organization
    ORDER BY created DESC, session LIMIT -1 OFFSET {MAX_WAITING}
) RETURNING type
"""
ONE = "session = ? AND type = ?"


def write_events(db: sqlite3.Connection, organizations: Collection[str]) -> None:
    """Have this connection write what is to be told to these organizations, and to no others.

    It may have been told of others before.
    """
    known = db.execute("SELECT count(*) FROM temp.sqlite_master WHERE name = 'told'").fetchone()
    if not organizations and not known[0]:
        return
    db.execute("CREATE TEMP TABLE IF NOT EXISTS told (organization TEXT PRIMARY KEY)")
    db.execute("DELETE FROM temp.told")
    db.executemany("INSERT INTO temp.told VALUES (?)", [(name,) for name in organizations])
    for state, (event, time) in EVENTS.items():
        db.execute(TRIGGER.format(state=state, type=event, time=time))


class SQLiteOutbox:
    """`relay.policy.webhooks.Outbox` in the store's file."""

    def __init__(self, database: Database, node: str) -> None:
        self._database = database
        self._node = node

    async def tell(self, organizations: Collection[str]) -> None:
        """Write what is to be told to these organizations from now on, and to no others.

        Raises:
            StoreError: it can't be done.
        """
        await self._database.prepare(lambda db: write_events(db, organizations))

    async def release(self, organization: str) -> None:
        again = "UPDATE events SET node = NULL, due = 0 WHERE organization = ? AND node = ?"
        await self._database.run(lambda db: db.execute(again, (organization, self._node)))

    async def claim(self, organization: str, now: float) -> Claimed:
        values = {"organization": organization, "now": now, "node": self._node}
        values |= {"latest": now + LONGEST_WAIT, "oldest": now - MAX_AGE}
        counted = f"SELECT count(*), total({DUE}) FROM events WHERE organization = :organization"
        # Nearly always nothing is due, and a look takes no turn among those who write.
        waiting, due = await self._database.read(lambda db: db.execute(counted, values).fetchone())
        if not due and waiting <= MAX_WAITING:
            return Claimed(waiting=waiting)

        def step(db: sqlite3.Connection) -> Claimed:
            old, over = _types(db, FORGET_OLD, values), _types(db, FORGET_MANY, values)
            rows = db.execute(CLAIM_DUE, values).fetchall()
            events = [_event(db, *row) for row in rows]
            found = tuple(event for event in events if event is not None)
            return Claimed(found, max(0, waiting - len(old) - len(over)), old, over)

        return await self._database.run(step)

    async def remove(self, event: Event) -> None:
        done = f"DELETE FROM events WHERE {ONE}"
        await self._database.run(lambda db: db.execute(done, (event.session.id, event.type)))

    async def put_off(self, event: Event, due: float) -> None:
        later = f"UPDATE events SET node = NULL, due = ? WHERE {ONE}"
        values = (due, event.session.id, event.type)
        await self._database.run(lambda db: db.execute(later, values))

    async def clear(self, organization: str) -> tuple[str, ...]:
        everything = "DELETE FROM events WHERE organization = :organization RETURNING type"
        values = {"organization": organization}
        return await self._database.run(lambda db: _types(db, everything, values))


def _types(db: sqlite3.Connection, step: str, values: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(kind for (kind,) in db.execute(step, values).fetchall())


def _event(db: sqlite3.Connection, kind: str, session: str, attempts: int) -> Event | None:
    """A claimed row as an event; None, and the row is gone, when its session is forgotten."""
    query = f"SELECT {', '.join(COLUMNS)} FROM sessions WHERE id = ?"
    row = db.execute(query, (session,)).fetchone()
    if row is None:
        db.execute(f"DELETE FROM events WHERE {ONE}", (session, kind))
        return None
    return Event(type=kind, session=session_of(row), attempts=attempts)
