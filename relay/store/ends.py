"""Sessions read, and sessions ended, within a transaction."""

from __future__ import annotations

__all__ = ["INSERT", "SELECT", "end_session", "sessions_of"]

import sqlite3
from collections.abc import Sequence

from relay.policy.sessions import Session, SessionEnd
from relay.store.bodies import FORGET_BODY
from relay.store.schema import COLUMNS, session_of

SELECT = f"SELECT {', '.join(COLUMNS)} FROM sessions"
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
