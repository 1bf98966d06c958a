"""Callers let in, given back and passed on. Steps of transactions."""

from __future__ import annotations

__all__ = ["admitted", "given_back", "passed_on"]

import sqlite3

from relay.policy.interfaces import Admission
from relay.policy.sessions import Move, Session, SessionState, move
from relay.store.ends import INSERT
from relay.store.places import SET_BACK
from relay.store.schema import values_of

# A live reservation lasts as long as its owner waits. Whoever was passed on keeps the turn,
# and others who come before it is back stand behind.
ADMIT = """
UPDATE sessions SET state = 'waiting', node = :node, admitted = :now, instance = NULL,
cause = NULL, reserved_until =
    iif(reserved_until > :now AND created <= :latest, :until, 0),
turn = iif(state = 'reserved' AND turn > 0, turn, 1 + max(
    (SELECT coalesce(max(turn), 0) FROM sessions WHERE state = 'waiting' AND agent = :agent),
    (SELECT coalesce(max(turn), 0) FROM sessions
        WHERE state = 'reserved' AND turn > 0 AND agent = :agent)))
WHERE id = :id
"""
PASS_ON = """
UPDATE sessions SET state = 'reserved', instance = NULL
WHERE id = ? AND state = 'waiting' AND node = ?
"""
GIVE_BACK = """
UPDATE sessions SET state = 'reserved', reserved_until = 0, turn = 0, node = NULL, instance = NULL,
cause = ? WHERE id = ? AND state = 'waiting' AND node = ?
"""


def admitted(
    db: sqlite3.Connection,
    node: str,
    session: Session,
    nonce: str | None,
    until: float,
    now: float,
) -> Admission:
    """See `Store.admit`."""
    if nonce is not None and _is_used(db, nonce, now):
        return Admission.REPLAYED
    state = _state_to_admit(db, session.id, now)
    if state is None:
        db.execute(INSERT, values_of(session, SessionState.RESERVED))
    elif move(state, Move.ADMIT) is None:
        return Admission.OVER
    if nonce is not None:
        claim = (nonce, session.id, until, max(session.expires, until))
        db.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, 0, ?, ?)", claim)
    values = {"id": session.id, "agent": session.agent, "node": node}
    db.execute(ADMIT, values | {"now": now, "latest": now + SET_BACK, "until": until})
    return Admission.ADMITTED


def given_back(
    db: sqlite3.Connection, node: str, session_id: str, nonce: str, cause: str | None
) -> None:
    """See `Store.give_back`."""
    if db.execute(GIVE_BACK, (cause, session_id, node)).rowcount:
        _release(db, nonce)


def passed_on(db: sqlite3.Connection, node: str, session_id: str, nonce: str) -> None:
    """See `Store.pass_on`."""
    if db.execute(PASS_ON, (session_id, node)).rowcount:
        _release(db, nonce)


def _release(db: sqlite3.Connection, nonce: str) -> None:
    db.execute("DELETE FROM tokens WHERE nonce = ? AND spent = 0", (nonce,))


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
