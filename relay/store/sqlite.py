"""The session store in one SQLite file, shared by the processes of one machine.

Each call is one transaction, run in a worker thread so that a slow disk delays its
caller and nobody else; one at a time, since SQLite has one writer anyway. A call
that has begun is finished even if its caller is cancelled.
"""

from __future__ import annotations

__all__ = ["SQLiteStore"]

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from relay.errors import StoreError
from relay.policy.catalog import Agent
from relay.policy.interfaces import Admission, Reservation, SessionFilter
from relay.policy.sessions import Move, Session, SessionEnd, SessionState, move
from relay.store.schema import COLUMNS, connect, session_of, values_of

T = TypeVar("T")

DAY = 86_400.0
# Ended sessions are a ledger for operators, not an archive.
KEEP_ENDED = 30 * DAY
KEEP_ROWS = 100_000

SELECT = f"SELECT {', '.join(COLUMNS)} FROM sessions"
INSERT = f"INSERT INTO sessions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
# Places that are promised to callers who have not been placed yet.
RESERVATIONS = """
SELECT count(*) FROM sessions
WHERE agent = ? AND state IN ('reserved', 'waiting') AND reserved_until > ? AND id <> ?
AND id NOT IN (SELECT session FROM leases)
"""
HELD = "SELECT instance, count(*) FROM leases WHERE agent = ? GROUP BY instance"


class SQLiteStore:
    """`relay.policy.interfaces.Store` over SQLite.

    Args:
        path: the file; made if missing.
        node: this node's name; waiting and active sessions carry it.

    Raises:
        ConfigError: the file can't be used.
    """

    def __init__(self, path: Path, node: str) -> None:
        self._connection = connect(path)
        self._node = node
        self._one = trio.CapacityLimiter(1)

    def close(self) -> None:
        self._connection.close()

    async def _run(self, step: Callable[[sqlite3.Connection], T]) -> T:
        def transaction() -> T:
            connection = self._connection
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    result = step(connection)
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreError(f"the store failed: {error}") from error
            return result

        return await trio.to_thread.run_sync(transaction, limiter=self._one)

    async def reserve(
        self, session: Session, agent: Agent, ready: Sequence[str], now: float
    ) -> Reservation:
        def step(db: sqlite3.Connection) -> Reservation:
            places, taken = _places(db, agent, ready, session.id, now)
            if not places:
                return Reservation.NONE_READY
            if taken >= places:
                return Reservation.FULL
            db.execute(INSERT, values_of(session, SessionState.RESERVED))
            return Reservation.HELD

        return await self._run(step)

    async def admit(
        self, session: Session, nonce: str | None, claimed_until: float, now: float
    ) -> Admission:
        def step(db: sqlite3.Connection) -> Admission:
            if nonce is not None and not _claim(db, nonce, session, claimed_until, now):
                return Admission.REPLAYED
            row = db.execute(f"{SELECT} WHERE id = ?", (session.id,)).fetchone()
            if row is None:
                found = values_of(session, SessionState.WAITING)
                db.execute(INSERT, found)
            elif move(session_of(row).state, Move.ADMIT) is None:
                if nonce is not None:
                    db.execute("UPDATE tokens SET spent = 1 WHERE nonce = ?", (nonce,))
                return Admission.OVER
            db.execute(
                "UPDATE sessions SET state = 'waiting', node = ?, admitted = ?, "
                # A live reservation lasts as long as its owner waits.
                "reserved_until = iif(reserved_until > ?, ?, 0) WHERE id = ?",
                (self._node, now, now, claimed_until, session.id),
            )
            return Admission.ADMITTED

        return await self._run(step)

    async def lease(
        self, session_id: str, agent: Agent, ready: Sequence[str], now: float
    ) -> str | None:
        def step(db: sqlite3.Connection) -> str | None:
            row = db.execute(
                "SELECT reserved_until > ? FROM sessions WHERE id = ? AND state = 'waiting'",
                (now, session_id),
            ).fetchone()
            if row is None:
                return None
            if not row[0]:
                places, taken = _places(db, agent, ready, session_id, now)
                if taken >= places:
                    return None
            held = _held(db, agent)
            free = (url for url in ready if held.get(url, 0) < agent.sessions_per_instance)
            instance = next(free, None)
            if instance is not None:
                lease = (session_id, instance, agent.name, self._node)
                db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", lease)
                placed = "UPDATE sessions SET instance = ? WHERE id = ?"
                db.execute(placed, (instance, session_id))
            return instance

        return await self._run(step)

    async def activate(self, session_id: str, nonce: str | None, now: float) -> bool:
        def step(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "UPDATE sessions SET state = 'active', started = ? "
                "WHERE id = ? AND state = 'waiting' AND stop_requested = 0",
                (now, session_id),
            ).rowcount
            if changed and nonce is not None:
                db.execute("UPDATE tokens SET spent = 1 WHERE nonce = ?", (nonce,))
            return changed == 1

        return await self._run(step)

    async def give_back(self, session_id: str, nonce: str | None, now: float) -> None:
        def step(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE sessions SET state = 'reserved', reserved_until = 0, node = NULL, "
                "instance = NULL WHERE id = ? AND state = 'waiting'",
                (session_id,),
            )
            if nonce is not None:
                db.execute("DELETE FROM tokens WHERE nonce = ? AND spent = 0", (nonce,))

        await self._run(step)

    async def end(self, session_id: str, end: SessionEnd, now: float) -> Session | None:
        return await self._run(lambda db: _end(db, session_id, end, now))

    async def free(self, session_id: str) -> None:
        await self._run(
            lambda db: db.execute("DELETE FROM leases WHERE session = ?", (session_id,))
        )

    async def request_stop(self, session_id: str) -> Session | None:
        def step(db: sqlite3.Connection) -> Session | None:
            row = db.execute(
                "UPDATE sessions SET stop_requested = 1 WHERE id = ? AND state <> 'ended' "
                f"RETURNING {', '.join(COLUMNS)}",
                (session_id,),
            ).fetchone()
            return session_of(row) if row else None

        return await self._run(step)

    async def stop_requests(self) -> list[Session]:
        return await self._run(
            lambda db: _sessions(
                db,
                f"{SELECT} WHERE stop_requested = 1 AND state IN ('waiting', 'active') "
                "AND node = ?",
                (self._node,),
            )
        )

    async def get(self, session_id: str) -> Session | None:
        found = await self._run(lambda db: _sessions(db, f"{SELECT} WHERE id = ?", (session_id,)))
        return found[0] if found else None

    async def find(self, which: SessionFilter) -> tuple[list[Session], int]:
        where, values = ["1"], list[object]()
        if which.states:
            where.append(f"state IN ({', '.join('?' * len(which.states))})")
            values.extend(state.value for state in which.states)
        if which.agent is not None:
            where.append("agent = ?")
            values.append(which.agent)
        matching = " AND ".join(where)

        def step(db: sqlite3.Connection) -> tuple[list[Session], int]:
            count = f"SELECT count(*) FROM sessions WHERE {matching}"
            (total,) = db.execute(count, values).fetchone()
            page = f"{SELECT} WHERE {matching} ORDER BY created DESC, id LIMIT ? OFFSET ?"
            return _sessions(db, page, (*values, which.limit, which.offset)), total

        return await self._run(step)

    async def mine(self) -> list[Session]:
        return await self._run(
            lambda db: _sessions(
                db, f"{SELECT} WHERE node = ? AND state IN ('waiting', 'active')", (self._node,)
            )
        )

    async def leases(self) -> dict[str, str]:
        def step(db: sqlite3.Connection) -> dict[str, str]:
            rows = db.execute("SELECT session, instance FROM leases WHERE node = ?", (self._node,))
            return dict(rows.fetchall())

        return await self._run(step)

    async def sweep(self, now: float) -> list[Session]:
        def step(db: sqlite3.Connection) -> list[Session]:
            unused = db.execute(
                "SELECT id FROM sessions WHERE state = 'reserved' "
                "AND (expires <= ? OR stop_requested = 1)",
                (now,),
            ).fetchall()
            ended = [_end(db, name, SessionEnd("unused"), now) for (name,) in unused]
            db.execute("DELETE FROM tokens WHERE expires <= ?", (now,))
            db.execute(
                "DELETE FROM sessions WHERE state = 'ended' AND ended < ?", (now - KEEP_ENDED,)
            )
            db.execute(
                "DELETE FROM sessions WHERE state = 'ended' AND created < (SELECT created "
                "FROM sessions ORDER BY created DESC LIMIT 1 OFFSET ?)",
                (KEEP_ROWS,),
            )
            return [session for session in ended if session is not None]

        return await self._run(step)


def _held(db: sqlite3.Connection, agent: Agent) -> dict[str, int]:
    """Sessions per instance, on whatever node."""
    return dict(db.execute(HELD, (agent.name,)).fetchall())


def _places(
    db: sqlite3.Connection, agent: Agent, ready: Sequence[str], session_id: str, now: float
) -> tuple[int, int]:
    """How many places there are, and how many are taken or promised to others.

    An instance that holds a session may well say that it is not ready for another,
    and still is a place.
    """
    held = _held(db, agent)
    places = len(held.keys() | set(ready)) * agent.sessions_per_instance
    (promised,) = db.execute(RESERVATIONS, (agent.name, now, session_id)).fetchone()
    return places, sum(held.values()) + promised


def _claim(
    db: sqlite3.Connection, nonce: str, session: Session, claimed_until: float, now: float
) -> bool:
    """Set-if-absent of a token's nonce; a claim that has lapsed counts as absent."""
    row = db.execute("SELECT spent, claimed_until FROM tokens WHERE nonce = ?", (nonce,)).fetchone()
    if row is not None and (row[0] or row[1] > now):
        return False
    db.execute(
        "INSERT OR REPLACE INTO tokens VALUES (?, ?, 0, ?, ?)",
        (nonce, session.id, claimed_until, max(session.expires, claimed_until)),
    )
    return True


def _end(db: sqlite3.Connection, session_id: str, end: SessionEnd, now: float) -> Session | None:
    row = db.execute(
        "UPDATE sessions SET state = 'ended', ended = ?, cause = ?, close_code = ?, "
        "close_reason = ?, figures = ? WHERE id = ? AND state <> 'ended' "
        f"RETURNING {', '.join(COLUMNS)}",
        (now, end.cause, end.code, end.reason, end.figures, session_id),
    ).fetchone()
    return session_of(row) if row else None


def _sessions(db: sqlite3.Connection, query: str, values: Sequence[object]) -> list[Session]:
    return [session_of(row) for row in db.execute(query, tuple(values)).fetchall()]
