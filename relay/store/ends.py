"""Sessions read, and sessions ended, within a transaction."""

from __future__ import annotations

__all__ = [
    "INSERT",
    "SELECT",
    "conditions_of",
    "end_session",
    "sessions_of",
    "standing_of",
]

import sqlite3
from collections.abc import Sequence

import msgspec

from relay.policy.interfaces import SessionFilter
from relay.policy.sessions import Session, SessionEnd, Standing
from relay.store.bodies import FORGET_BODY
from relay.store.schema import COLUMNS, session_of

SELECT = f"SELECT {', '.join(COLUMNS)} FROM sessions"
STANDING = "SELECT agent, state, transport, instance FROM sessions WHERE id = ?"
INSERT = f"INSERT INTO sessions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
# The clock may have been set meanwhile: how long a call took is better known than when it
# ended, and nothing ends before it has begun.
END = f"""
UPDATE sessions SET state = 'ended',
ended = coalesce(started + :lasted, max(:now, coalesce(started, admitted, created))),
cause = :cause, close_code = :code, close_reason = :reason, figures = :figures
WHERE id = :id AND state <> 'ended'
RETURNING {", ".join(COLUMNS)}
"""


def sessions_of(db: sqlite3.Connection, condition: str, values: Sequence[object]) -> list[Session]:
    """The sessions for which a condition in SQL holds."""
    rows = db.execute(f"{SELECT} WHERE {condition}", tuple(values)).fetchall()
    return [session_of(row) for row in rows]


def standing_of(db: sqlite3.Connection, session_id: str) -> Standing | None:
    """How a session stands; each request of the Session API asks."""
    row = db.execute(STANDING, (session_id,)).fetchone()
    if row is None:
        return None
    return msgspec.convert((session_id, *row), Standing)


def end_session(
    db: sqlite3.Connection, session_id: str, end: SessionEnd, now: float
) -> Session | None:
    """End a live session; None when there is none to end."""
    values = {
        "id": session_id,
        "lasted": end.lasted,
        "now": now,
        "cause": end.cause,
        "code": end.code,
        "reason": end.reason,
        "figures": end.figures,
    }
    row = db.execute(END, values).fetchone()
    db.execute(FORGET_BODY, (session_id,))
    return session_of(row) if row else None


def conditions_of(which: SessionFilter) -> tuple[str, list[object]]:
    """What a session must be to be listed: an SQL condition and its values."""
    wanted = {
        "state IN": tuple(state.value for state in which.states),
        "agent =": which.agent,
        "organization =": which.organization,
        "cause IN": which.causes,
        "created >=": which.since,
        "created <": which.before,
        "cold =": which.cold,
        "took >": which.longer,
        "took <": which.shorter,
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
