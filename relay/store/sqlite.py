"""The session store in one SQLite file, shared by the processes of one machine.

Each call is one transaction (`store.database`), finished even if its caller is
cancelled meanwhile.
"""

from __future__ import annotations

__all__ = ["SQLiteStore"]

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from relay.policy.catalog import Agent
from relay.policy.interfaces import Admission, Places, Reservation, SessionFilter
from relay.policy.sessions import LIVE, Move, Session, SessionEnd, SessionState, move
from relay.store.database import Database
from relay.store.schema import BUSY_TIMEOUT, COLUMNS, session_of, values_of

DAY = 86_400.0
# Ended sessions are a ledger for operators, not an archive.
KEEP_ENDED = 30 * DAY
KEEP_ROWS = 100_000
# Rows that one sweep forgets at most for each reason: other writers wait meanwhile.
FORGET_AT_ONCE = 1000

SELECT = f"SELECT {', '.join(COLUMNS)} FROM sessions"
INSERT = f"INSERT INTO sessions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
# Places that are promised to callers who have not been placed yet.
PROMISED = """
SELECT count(*) FROM sessions
WHERE agent = ? AND state IN ('reserved', 'waiting') AND reserved_until > ? AND id <> ?
AND id NOT IN (SELECT session FROM leases)
"""
OWN_LEASES = "SELECT instance FROM leases WHERE session = ?"
# Each walks its own index and no further than it forgets (`+` rules another index out).
FORGET_OLD = "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE ended < ? LIMIT ?)"
FORGET_MANY = """
DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions WHERE +state = 'ended' AND created <= (
        SELECT created FROM sessions ORDER BY created DESC LIMIT 1 OFFSET ?
    ) ORDER BY created LIMIT ?
)
"""
HELD = "SELECT instance, count(*) FROM leases WHERE agent = ? GROUP BY instance"


class SQLiteStore:
    """`relay.policy.interfaces.Store` over SQLite.

    Args:
        path: the file; made if missing.
        node: this node's name; waiting and active sessions carry it.
        busy_timeout: seconds that a call waits for another process's write.

    Raises:
        ConfigError: the file can't be used.
    """

    def __init__(self, path: Path, node: str, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
        self._database = Database(path, busy_timeout)
        self._run = self._database.run
        self._node = node

    def close(self) -> None:
        self._database.close()

    async def reserve(
        self, session: Session, agent: Agent, places: Places, now: float
    ) -> Reservation:
        def step(db: sqlite3.Connection) -> Reservation:
            held = _held(db, agent)
            if not held and not places.any():
                return Reservation.NONE_READY
            if _room(held, agent, places) <= _promised(db, agent, session.id, now):
                return Reservation.FULL
            db.execute(INSERT, values_of(session, SessionState.RESERVED))
            return Reservation.HELD

        return await self._run(step)

    async def admit(
        self, session: Session, nonce: str | None, claimed_until: float, now: float
    ) -> Admission:
        def step(db: sqlite3.Connection) -> Admission:
            if nonce is not None and _is_used(db, nonce, now):
                return Admission.REPLAYED
            state = _state_to_admit(db, session.id, now)
            if state is None:
                db.execute(INSERT, values_of(session, SessionState.WAITING))
            elif move(state, Move.ADMIT) is None:
                return Admission.OVER
            if nonce is not None:
                claim = (nonce, session.id, claimed_until, max(session.expires, claimed_until))
                db.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, 0, ?, ?)", claim)
            db.execute(
                "UPDATE sessions SET state = 'waiting', node = ?, admitted = ?, instance = NULL, "
                # A live reservation lasts as long as its owner waits.
                "reserved_until = iif(reserved_until > ?, ?, 0) WHERE id = ?",
                (self._node, now, now, claimed_until, session.id),
            )
            return Admission.ADMITTED

        return await self._run(step)

    async def lease(self, session_id: str, agent: Agent, places: Places, now: float) -> str | None:
        def step(db: sqlite3.Connection) -> str | None:
            row = db.execute(
                "SELECT reserved_until > ? FROM sessions WHERE id = ? AND state = 'waiting'",
                (now, session_id),
            ).fetchone()
            if row is None:
                return None
            held = _held(db, agent)
            if not row[0] and _room(held, agent, places) <= _promised(db, agent, session_id, now):
                return None
            own = {url for (url,) in db.execute(OWN_LEASES, (session_id,))}
            most = agent.sessions_per_instance
            free = (url for url in places.ready if held.get(url, 0) < most and url not in own)
            instance = next(free, None)
            if instance is not None:
                lease = (session_id, instance, agent.name, self._node)
                db.execute("INSERT INTO leases VALUES (?, ?, ?, ?)", lease)
                placed = "UPDATE sessions SET instance = ? WHERE id = ?"
                db.execute(placed, (instance, session_id))
            return instance

        return await self._run(step)

    async def activate(self, session_id: str, nonce: str | None, now: float) -> bool:
        def step(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "UPDATE sessions SET state = 'active', started = ? "
                "WHERE id = ? AND state = 'waiting' AND node = ? AND stop_requested = 0",
                (now, session_id, self._node),
            ).rowcount
            if changed and nonce is not None:
                db.execute("UPDATE tokens SET spent = 1 WHERE nonce = ?", (nonce,))
            return changed == 1

        return await self._run(step)

    async def give_back(self, session_id: str, nonce: str | None, now: float) -> None:
        def step(db: sqlite3.Connection) -> None:
            changed = db.execute(
                "UPDATE sessions SET state = 'reserved', reserved_until = 0, node = NULL, "
                "instance = NULL WHERE id = ? AND state = 'waiting' AND node = ?",
                (session_id, self._node),
            ).rowcount
            if changed and nonce is not None:
                db.execute("DELETE FROM tokens WHERE nonce = ? AND spent = 0", (nonce,))
            elif changed:
                db.execute("DELETE FROM tokens WHERE session = ? AND spent = 0", (session_id,))

        await self._run(step)

    async def end(self, session_id: str, end: SessionEnd, now: float) -> Session | None:
        return await self._run(lambda db: _end(db, session_id, end, now))

    async def free(self, session_id: str, instance: str) -> None:
        lease = "DELETE FROM leases WHERE session = ? AND instance = ?"
        await self._run(lambda db: db.execute(lease, (session_id, instance)))

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
        one = f"{SELECT} WHERE id = ?"
        found = await self._database.read(lambda db: _sessions(db, one, (session_id,)))
        return found[0] if found else None

    async def find(self, which: SessionFilter) -> tuple[list[Session], int]:
        matching, values = _conditions(which)
        # Live sessions are few among all that are kept, which the planner does not know.
        live = which.states and SessionState.ENDED not in which.states
        index = "INDEXED BY sessions_state" if live else ""

        def step(db: sqlite3.Connection) -> tuple[list[Session], int]:
            count = f"SELECT count(*) FROM sessions {index} WHERE {matching}"
            (total,) = db.execute(count, values).fetchone()
            page = f"{SELECT} {index} WHERE {matching} ORDER BY created DESC, id LIMIT ? OFFSET ?"
            return _sessions(db, page, (*values, which.limit, which.offset)), total

        return await self._run(step)

    async def count_live(self) -> dict[tuple[str, SessionState], int]:
        query = "SELECT agent, state, count(*) FROM sessions WHERE state IN (?, ?, ?) GROUP BY 1, 2"
        rows = await self._run(lambda db: db.execute(query, LIVE).fetchall())
        return {(agent, SessionState(state)): count for agent, state, count in rows}

    async def mine(self) -> list[Session]:
        return await self._run(
            lambda db: _sessions(
                db, f"{SELECT} WHERE node = ? AND state IN ('waiting', 'active')", (self._node,)
            )
        )

    async def leases(self) -> list[tuple[str, str]]:
        query = "SELECT session, instance FROM leases WHERE node = ?"
        return await self._run(lambda db: db.execute(query, (self._node,)).fetchall())

    async def sweep(self, now: float) -> list[Session]:
        def step(db: sqlite3.Connection) -> list[Session]:
            over = db.execute(
                "SELECT id, iif(stop_requested, 'stopped', 'unused') FROM sessions "
                "WHERE state = 'reserved' AND (expires <= ? OR stop_requested)",
                (now,),
            ).fetchall()
            ended = [_end(db, name, SessionEnd(cause), now) for name, cause in over]
            db.execute("DELETE FROM tokens WHERE expires <= ?", (now,))
            db.execute(FORGET_OLD, (now - KEEP_ENDED, FORGET_AT_ONCE))
            db.execute(FORGET_MANY, (KEEP_ROWS, FORGET_AT_ONCE))
            return [session for session in ended if session is not None]

        return await self._run(step)


def _conditions(which: SessionFilter) -> tuple[str, list[object]]:
    """What a session must be to be listed: an SQL condition and its values."""
    wanted = {
        "state IN": tuple(state.value for state in which.states),
        "agent =": which.agent,
        "organization =": which.organization,
        "cause IN": which.causes,
        "created >=": which.since,
        "created <": which.before,
    }
    where, values = ["1"], list[object]()
    for condition, value in wanted.items():
        if isinstance(value, tuple):
            if value:
                where.append(f"{condition} ({', '.join('?' * len(value))})")
                values.extend(value)
        elif value is not None:
            where.append(f"{condition} ?")
            values.append(value)
    return " AND ".join(where), values


def _held(db: sqlite3.Connection, agent: Agent) -> dict[str, int]:
    """Sessions per instance, on whatever node."""
    return dict(db.execute(HELD, (agent.name,)).fetchall())


def _room(held: dict[str, int], agent: Agent, places: Places) -> int:
    """How many sessions the instances that are ready, or can be, can still take."""
    most = agent.sessions_per_instance
    return places.startable * most + sum(max(0, most - held.get(url, 0)) for url in places.ready)


def _promised(db: sqlite3.Connection, agent: Agent, session_id: str, now: float) -> int:
    """How many places are promised to other sessions than this one."""
    (promised,) = db.execute(PROMISED, (agent.name, now, session_id)).fetchone()
    return int(promised)


def _is_used(db: sqlite3.Connection, nonce: str, now: float) -> bool:
    """Whether a token is spent or claimed; a claim that has lapsed is none."""
    row = db.execute("SELECT spent, claimed_until FROM tokens WHERE nonce = ?", (nonce,)).fetchone()
    return row is not None and bool(row[0] or row[1] > now)


def _state_to_admit(db: sqlite3.Connection, session_id: str, now: float) -> SessionState | None:
    """The state that counts for a caller who comes now; None for an unknown session."""
    query = "SELECT state, stop_requested FROM sessions WHERE id = ?"
    row = db.execute(query, (session_id,)).fetchone()
    if row is None:
        return None
    if row[1]:
        return SessionState.ENDED  # it is about to: nobody may come in any more
    state = SessionState(row[0])
    if state is SessionState.WAITING:
        # A caller whose claim has lapsed has died with its node and could not give it back.
        claim = "SELECT max(claimed_until) FROM tokens WHERE session = ? AND spent = 0"
        (until,) = db.execute(claim, (session_id,)).fetchone()
        if until is not None and until <= now:
            return SessionState.RESERVED
    return state


def _end(db: sqlite3.Connection, session_id: str, end: SessionEnd, now: float) -> Session | None:
    row = db.execute(
        "UPDATE sessions SET state = 'ended', ended = min(?, coalesce(started + ?, ?)), "
        "cause = ?, close_code = ?, close_reason = ?, figures = ? "
        "WHERE id = ? AND state <> 'ended' "
        f"RETURNING {', '.join(COLUMNS)}",
        (now, end.lasted, now, end.cause, end.code, end.reason, end.figures, session_id),
    ).fetchone()
    return session_of(row) if row else None


def _sessions(db: sqlite3.Connection, query: str, values: Sequence[object]) -> list[Session]:
    return [session_of(row) for row in db.execute(query, tuple(values)).fetchall()]
