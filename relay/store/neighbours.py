"""Nodes on one file: who lives, and what one leaves that has died. Steps of transactions."""

from __future__ import annotations

__all__ = ["beat", "inherit", "join", "recovered", "taken_over"]

import sqlite3
from collections.abc import Callable, Collection, Mapping

from relay.errors import ConfigError
from relay.policy.nodes import Estate, Lease, Neighbour
from relay.policy.sessions import Session, SessionEnd, SessionState
from relay.store.ends import end_session, sessions_of

MINE = "node = ? AND state IN ('waiting', 'active')"
GIVE_BACK = """
UPDATE sessions SET state = 'reserved', reserved_until = 0, turn = 0, node = NULL, instance = NULL,
cause = 'lost' WHERE id = ?
"""
# With whether it belongs to the session's call, and how that session has ended.
LEASES = """
SELECT leases.session, leases.instance, leases.agent, transport, cause,
    sessions.instance = leases.instance
FROM leases LEFT JOIN sessions ON sessions.id = leases.session WHERE leases.node = ?
"""


def join(
    db: sqlite3.Connection, node: str, place: str, life: str, is_held: Callable[[str], bool]
) -> None:
    """See `Store.join`; `life` is new each time."""
    row = db.execute("SELECT place FROM nodes WHERE name = ?", (node,)).fetchone()
    if row is not None and row[0] != place and is_held(row[0]):
        raise ConfigError(
            f"server.runtime_dir: {place}: its file node names the daemon that runs with "
            f"{row[0]}; remove the file if this directory is a copy"
        )
    # Whoever lived here before is gone, since this node holds the place now.
    for (former,) in db.execute(
        "SELECT name FROM nodes WHERE place = ? AND name <> ?", (place, node)
    ).fetchall():
        for table in ("sessions", "leases"):
            db.execute(f"UPDATE {table} SET node = ? WHERE node = ?", (node, former))
        db.execute("DELETE FROM nodes WHERE name = ?", (former,))
    db.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, 0)", (node, place, life))


def beat(db: sqlite3.Connection, node: str, life: str) -> list[Neighbour] | None:
    """See `Store.beat`."""
    known = "UPDATE nodes SET beat = beat + 1 WHERE name = ? AND life = ?"
    if db.execute(known, (node, life)).rowcount == 0:
        return None
    rows = db.execute("SELECT name, place, life, beat FROM nodes WHERE name <> ?", (node,))
    return [Neighbour(*row) for row in rows.fetchall()]


def recovered(db: sqlite3.Connection, node: str, live: Collection[str], now: float) -> Estate:
    """See `Store.recover`."""
    return inherit(db, node, node, now, live, {}, ())


def taken_over(
    db: sqlite3.Connection,
    dead: Neighbour,
    heir: str,
    now: float,
    *,
    pumps: bool,
    ends: Mapping[str, SessionEnd],
    foreign: Collection[str],
) -> Estate | None:
    """See `Store.take_over`."""
    seen = "SELECT 1 FROM nodes WHERE name = ? AND life = ? AND beat = ?"
    if db.execute(seen, (dead.name, dead.life, dead.beat)).fetchone() is None:
        return None
    carried = f"SELECT id FROM sessions WHERE {MINE} AND state = 'active' AND pumped"
    live = {name for (name,) in db.execute(carried, (dead.name,))} if pumps else set()
    if not pumps:
        db.execute("DELETE FROM nodes WHERE name = ?", (dead.name,))
    return inherit(db, dead.name, heir, now, live, ends, foreign)


def inherit(
    db: sqlite3.Connection,
    node: str,
    heir: str,
    now: float,
    live: Collection[str],
    ends: Mapping[str, SessionEnd],
    foreign: Collection[str],
) -> Estate:
    """End or give back what a control process held, but the sessions in `live`."""
    ended = []
    for session in sessions_of(db, MINE, (node,)):
        if session.id not in live and not (session.id not in ends and _given_back(db, session)):
            end = ends.get(session.id, SessionEnd("lost"))
            ended.append(end_session(db, session.id, end, now))
    leases = [
        Lease(*fields)
        for *fields, current in db.execute(LEASES, (node,)).fetchall()
        if not (fields[0] in live and current) and fields[2] not in foreign
    ]
    if heir != node:
        for lease in leases:
            taken = "UPDATE leases SET node = ? WHERE session = ? AND instance = ?"
            db.execute(taken, (heir, lease.session, lease.instance))
    return Estate(tuple(each for each in ended if each is not None), tuple(leases))


def _given_back(db: sqlite3.Connection, session: Session) -> bool:
    """Let a caller with a token come again; False for one without, or whom a bot has."""
    if session.state is not SessionState.WAITING:
        return False
    claims = "DELETE FROM tokens WHERE session = ? AND spent = 0"
    if db.execute(claims, (session.id,)).rowcount == 0:
        return False
    db.execute(GIVE_BACK, (session.id,))
    return True
