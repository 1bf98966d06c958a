"""Bodies of sessions that are too large for a URL. Steps of transactions."""

from __future__ import annotations

__all__ = ["FORGET_BODY", "MAX_HELD", "body_of", "keep", "open_to"]

import sqlite3

from relay.policy.signing import equal

# Bytes of all bodies together: as many as 256 callers with the largest may bring before
# their calls are over. The file grows by as much at most.
MAX_HELD = 256 * 1024 * 1024

KEEP = """
INSERT INTO bodies (session, body) SELECT :session, :body
WHERE (SELECT total(length(body)) FROM bodies) + length(:body) <= :most
"""
FORGET_BODY = "DELETE FROM bodies WHERE session = ?"


def keep(db: sqlite3.Connection, session_id: str, body: bytes) -> bool:
    """Keep a body that nobody may read yet; False when there is no room."""
    values = {"session": session_id, "body": body, "most": MAX_HELD}
    return db.execute(KEEP, values).rowcount == 1


def open_to(db: sqlite3.Connection, session_id: str, key: str) -> bool:
    """See `Store.open_body`."""
    changed = db.execute("UPDATE bodies SET key = ? WHERE session = ?", (key, session_id))
    return changed.rowcount == 1


def body_of(db: sqlite3.Connection, session_id: str, key: str) -> bytes | None:
    """See `Store.body`."""
    row = db.execute("SELECT key FROM bodies WHERE session = ?", (session_id,)).fetchone()
    if row is None or row[0] is None or not equal(row[0].encode(), key.encode()):
        return None
    query = "SELECT body FROM bodies WHERE session = ?"
    return bytes(db.execute(query, (session_id,)).fetchone()[0])
