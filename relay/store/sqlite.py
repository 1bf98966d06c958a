"""The session store in one SQLite file, shared by the processes of one machine.

Each call is one transaction (`store.database`), finished even if its caller is
cancelled meanwhile.
"""

from __future__ import annotations

__all__ = ["SQLiteStore"]

import sqlite3
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from relay.policy.catalog import Agent
from relay.policy.interfaces import Admission, Places, Reservation, SessionFilter, Wait
from relay.policy.nodes import Estate, Neighbour
from relay.policy.sessions import LIVE, Beginning, Session, SessionEnd, SessionState, Standing
from relay.store import bodies, callers, neighbours
from relay.store.database import Database
from relay.store.ends import (
    INSERT,
    SELECT,
    conditions_of,
    end_session,
    sessions_of,
    standing_of,
)
from relay.store.outbox import SQLiteOutbox, write_events
from relay.store.places import Demand
from relay.store.schema import BUSY_TIMEOUT, COLUMNS, session_of, values_of

DAY = 86_400.0
# Ended sessions are a ledger for operators, not an archive.
KEEP_ENDED = 30 * DAY
KEEP_ROWS = 100_000
# Used tokens are remembered for so long beyond their expiry: a clock that is set forward
# and back again must not make them good.
KEEP_TOKENS = DAY
# Rows that one sweep forgets at most for each reason: other writers wait meanwhile.
FORGET_AT_ONCE = 1000

ACTIVATE = """
UPDATE sessions SET state = 'active', started = max(:now, created), queued = :queued,
took = :took, cold = :cold, pumped = :pumped
WHERE id = :id AND state = 'waiting' AND node = :node AND stop_requested = 0
"""
# What nobody claimed ends as its last caller went.
UNUSED = """
SELECT id, iif(stop_requested, 'stopped', coalesce(cause, 'unused')) FROM sessions
WHERE state = 'reserved' AND (expires <= ? OR stop_requested)
"""
# Each walks its own index and no further than it forgets (`+` rules another index out).
FORGET_OLD = "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE ended < ? LIMIT ?)"
FORGET_MANY = """
DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions WHERE +state = 'ended' AND created <= (
        SELECT created FROM sessions ORDER BY created DESC LIMIT 1 OFFSET ?
    ) ORDER BY created LIMIT ?
)
"""
# Leases that a node has left with bots of its own, and did not come back for.
FORGET_LEASES = "DELETE FROM leases WHERE session NOT IN (SELECT id FROM sessions)"
FORGET_USES = "DELETE FROM uses WHERE leased < ?"
# What was to be told to organizations that no longer want it.
FORGET_EVENTS = "DELETE FROM events WHERE session NOT IN (SELECT id FROM sessions)"


class SQLiteStore:
    """`relay.policy.interfaces.Store` over SQLite.

    Args:
        path: the file; made if missing.
        node: this node's name; waiting and active sessions carry it.
        busy_timeout: seconds that a call waits for another process's write.
        told: organizations that are told of their sessions.

    Attributes:
        outbox: what is to be told to them.

    Raises:
        ConfigError: the file can't be used.
    """

    def __init__(
        self,
        path: Path,
        node: str,
        *,
        busy_timeout: float = BUSY_TIMEOUT,
        told: Collection[str] = (),
    ) -> None:
        self._database = Database(path, busy_timeout, lambda db: write_events(db, told))
        self._run = self._database.run
        self.outbox = SQLiteOutbox(self._database, node)
        self._node = node
        self._life = ""

    def close(self) -> None:
        self._database.close()

    async def reserve(
        self,
        session: Session,
        agent: Agent,
        places: Places,
        now: float,
        together: int = 0,
        body: bytes = b"",
    ) -> Reservation:
        def step(db: sqlite3.Connection) -> Reservation:
            demand = Demand(db, self._node, session.id, agent, places, now, together)
            answer = demand.reserved()
            if answer is Reservation.HELD and body and not bodies.keep(db, session.id, body):
                return Reservation.NO_ROOM
            if answer is Reservation.HELD:
                made = msgspec.structs.replace(session, node=self._node)
                db.execute(INSERT, values_of(made, SessionState.RESERVED))
            return answer

        return await self._run(step)

    async def open_body(self, session_id: str, key: str) -> bool:
        return await self._run(lambda db: bodies.open_to(db, session_id, key))

    async def body(self, session_id: str, key: str) -> bytes | None:
        return await self._run(lambda db: bodies.body_of(db, session_id, key))

    async def admit(
        self, session: Session, nonce: str | None, claimed_until: float, now: float
    ) -> Admission:
        return await self._run(
            lambda db: callers.admitted(db, self._node, session, nonce, claimed_until, now)
        )

    async def lease(
        self,
        session_id: str,
        agent: Agent,
        places: Places,
        now: float,
        together: int = 0,
        *,
        defer: bool = True,
    ) -> str | Wait:
        def step(db: sqlite3.Connection) -> str | Wait:
            demand = Demand(db, self._node, session_id, agent, places, now, together)
            instance = demand.leased(defer=defer)
            if isinstance(instance, str):
                lease = (session_id, instance, agent.name, self._node)
                db.execute("INSERT INTO leases VALUES (?, ?, ?, ?)", lease)
                placed = "UPDATE sessions SET instance = ? WHERE id = ?"
                db.execute(placed, (instance, session_id))
                if demand.shared:
                    used = (agent.name, instance, now)
                    db.execute("INSERT OR REPLACE INTO uses VALUES (?, ?, ?)", used)
            return instance

        return await self._run(step)

    async def activate(
        self, session_id: str, nonce: str | None, now: float, beginning: Beginning
    ) -> bool:
        def step(db: sqlite3.Connection) -> bool:
            values = {"id": session_id, "node": self._node, "now": now}
            changed = db.execute(ACTIVATE, values | msgspec.structs.asdict(beginning)).rowcount
            if changed and nonce is not None:
                db.execute("UPDATE tokens SET spent = 1 WHERE nonce = ?", (nonce,))
            return changed == 1

        return await self._run(step)

    async def give_back(
        self, session_id: str, nonce: str, now: float, cause: str | None = None
    ) -> None:
        await self._run(lambda db: callers.given_back(db, self._node, session_id, nonce, cause))

    async def pass_on(self, session_id: str, nonce: str) -> None:
        await self._run(lambda db: callers.passed_on(db, self._node, session_id, nonce))

    async def end(self, session_id: str, end: SessionEnd, now: float) -> Session | None:
        return await self._run(lambda db: end_session(db, session_id, end, now))

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
        condition = "stop_requested = 1 AND state IN ('waiting', 'active') AND node = ?"
        return await self._run(lambda db: sessions_of(db, condition, (self._node,)))

    async def get(self, session_id: str) -> Session | None:
        found = await self._database.read(lambda db: sessions_of(db, "id = ?", (session_id,)))
        return found[0] if found else None

    async def look(self, session_id: str) -> Standing | None:
        return await self._database.read(lambda db: standing_of(db, session_id))

    async def find(self, which: SessionFilter) -> tuple[list[Session], int]:
        matching, values = conditions_of(which)
        # Live sessions are few among all that are kept, which the planner does not know.
        live = which.states and SessionState.ENDED not in which.states
        index = "INDEXED BY sessions_state" if live else ""

        def step(db: sqlite3.Connection) -> tuple[list[Session], int]:
            count = f"SELECT count(*) FROM sessions {index} WHERE {matching}"
            (total,) = db.execute(count, values).fetchone()
            page = f"{SELECT} {index} WHERE {matching} ORDER BY created DESC, id LIMIT ? OFFSET ?"
            rows = db.execute(page, (*values, which.limit, which.offset)).fetchall()
            return [session_of(row) for row in rows], total

        return await self._run(step)

    async def count_live(self) -> dict[tuple[str, SessionState], int]:
        query = "SELECT agent, state, count(*) FROM sessions WHERE state IN (?, ?, ?) GROUP BY 1, 2"
        rows = await self._run(lambda db: db.execute(query, LIVE).fetchall())
        return {(agent, SessionState(state)): count for agent, state, count in rows}

    async def leases(self) -> list[tuple[str, str]]:
        query = "SELECT session, instance FROM leases WHERE node = ?"
        return await self._run(lambda db: db.execute(query, (self._node,)).fetchall())

    async def sweep(self, now: float) -> list[Session]:
        def step(db: sqlite3.Connection) -> list[Session]:
            over = db.execute(UNUSED, (now,)).fetchall()
            ended = [end_session(db, name, SessionEnd(cause), now) for name, cause in over]
            db.execute("DELETE FROM tokens WHERE expires <= ?", (now - KEEP_TOKENS,))
            forgotten = db.execute(FORGET_OLD, (now - KEEP_ENDED, FORGET_AT_ONCE)).rowcount
            forgotten += db.execute(FORGET_MANY, (KEEP_ROWS, FORGET_AT_ONCE)).rowcount
            if forgotten:
                db.execute(FORGET_LEASES)
                db.execute(FORGET_EVENTS)
                db.execute(FORGET_USES, (now - KEEP_ENDED,))
            return [session for session in ended if session is not None]

        return await self._run(step)

    # Nodes on one store.

    async def join(self, place: str, is_held: Callable[[str], bool]) -> None:
        self._life = uuid.uuid4().hex
        await self._run(lambda db: neighbours.join(db, self._node, place, self._life, is_held))

    async def beat(self) -> list[Neighbour] | None:
        return await self._run(lambda db: neighbours.beat(db, self._node, self._life))

    async def recover(self, live: Collection[str], now: float) -> Estate:
        return await self._run(lambda db: neighbours.recovered(db, self._node, live, now))

    async def take_over(
        self,
        dead: Neighbour,
        now: float,
        *,
        pumps: bool,
        ends: Mapping[str, SessionEnd],
        foreign: Collection[str],
    ) -> Estate | None:
        return await self._run(
            lambda db: neighbours.taken_over(
                db, dead, self._node, now, pumps=pumps, ends=ends, foreign=foreign
            )
        )
