"""The life of a session: its states, its moves, and its record.

A session is made by /start (reserved) or by a caller who connects directly
(waiting), is active while a bot holds it, and ends once. The store applies moves
atomically; this table says which there are (docs/protocol.md, "Sessions").
"""

from __future__ import annotations

__all__ = [
    "END_STATES",
    "LIVE",
    "MOVES",
    "Beginning",
    "Move",
    "Session",
    "SessionEnd",
    "SessionState",
    "move",
    "public_end",
]

from enum import StrEnum

import msgspec


class SessionState(StrEnum):
    RESERVED = "reserved"  # /start has answered; a place is held for a while
    WAITING = "waiting"  # a caller is here, no bot has answered yet
    ACTIVE = "active"  # a bot holds it
    ENDED = "ended"


LIVE = (SessionState.RESERVED, SessionState.WAITING, SessionState.ACTIVE)


class Move(StrEnum):
    ADMIT = "admit"  # a caller with a right to it has come
    GIVE_BACK = "give back"  # no capacity, or the bot refused: the token may be used again
    ACTIVATE = "activate"  # the 101 went out
    END = "end"


MOVES: dict[tuple[SessionState, Move], SessionState] = {
    (SessionState.RESERVED, Move.ADMIT): SessionState.WAITING,
    (SessionState.RESERVED, Move.END): SessionState.ENDED,
    (SessionState.WAITING, Move.GIVE_BACK): SessionState.RESERVED,
    (SessionState.WAITING, Move.ACTIVATE): SessionState.ACTIVE,
    (SessionState.WAITING, Move.END): SessionState.ENDED,
    (SessionState.ACTIVE, Move.END): SessionState.ENDED,
}


def move(state: SessionState, by: Move) -> SessionState | None:
    """The state after a move, or None when the move is not possible."""
    return MOVES.get((state, by))


class Beginning(msgspec.Struct, frozen=True):
    """How a session got its bot; seconds are of a clock that is never set.

    Attributes:
        queued: from the caller's admission to the lease of the instance that served it.
        took: from the admission to the bot's answer.
        cold: the instance was started after the caller had come.
        pumped: a pump carries it, so that it outlives the control process.
    """

    queued: float
    took: float
    cold: bool
    pumped: bool


class SessionEnd(msgspec.Struct, frozen=True):
    """Why and how a session ended.

    Attributes:
        cause: one of `END_STATES`.
        code, reason: of the Close that ended its WebSocket, where there was one.
        figures: what the tunnel carried, JSON text, or "".
        lasted: seconds from the start to the end, where the end is known better than by
            the moment in which it is recorded.
    """

    cause: str
    code: int | None = None
    reason: str = ""
    figures: str = ""
    lasted: float | None = None


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the store keeps it; times are unix seconds.

    Attributes:
        node: that holds it, or has promised it a place.
        cause: of its end; of a reserved one, why its last caller was not served.
        turn: its place among those that wait for the same agent, the lowest first.
        queued, took, cold, pumped: see `Beginning`; None until a bot holds it.
    """

    id: str
    agent: str
    organization: str
    state: SessionState
    created: float
    reserved_until: float = 0.0
    expires: float = 0.0  # a reserved session that nobody claims ends then
    max_duration: float = 0.0
    transport: str = "websocket"
    instance: str | None = None
    node: str | None = None
    admitted: float | None = None
    started: float | None = None
    ended: float | None = None
    cause: str | None = None
    close_code: int | None = None
    close_reason: str = ""
    figures: str = ""
    turn: int = 0
    queued: float | None = None
    took: float | None = None
    cold: bool | None = None
    pumped: bool | None = None


class Standing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a request of the Session API asks of its session; see `Session`."""

    id: str
    agent: str
    state: SessionState
    transport: str
    instance: str | None


# Cause of the end -> (endState, completionStatus) with the names of the public API
# (docs/protocol.md, "Causes"). A session that no bot ever held has not "completed".
END_STATES: dict[str, tuple[str, str]] = {
    "client_closed": ("completed", "WS_CONNECTION_CLOSED"),
    "bot_closed": ("completed", "WS_CONNECTION_CLOSED"),
    "bot_ended": ("completed", "WS_CONNECTION_CLOSED"),
    "client_gone": ("completed", "WS_CONNECTION_CLOSED"),
    "bot_lost": ("agent_error", "WS_CONNECTION_CLOSED"),
    "client_protocol_error": ("completed", "WS_CONNECTION_CLOSED"),
    "bot_protocol_error": ("agent_error", "WS_CONNECTION_CLOSED"),
    "client_message_too_big": ("completed", "WS_CONNECTION_CLOSED"),
    "bot_message_too_big": ("agent_error", "WS_CONNECTION_CLOSED"),
    "stopped": ("terminated", "WS_CONNECTION_CLOSED"),
    "time_limit": ("completed", "WS_CONNECTION_CLOSED"),
    "idle": ("completed", "WS_CONNECTION_CLOSED"),
    "drain": ("terminated", "WS_CONNECTION_CLOSED"),
    "pump_died": ("unknown", "WS_CONNECTION_CLOSED"),
    "lost": ("unknown", "WS_CONNECTION_CLOSED"),
    "unused": ("ended_before_agent_start", "WS_CONNECTION_CLOSED"),
    "client_left": ("ended_before_agent_start", "WS_CONNECTION_CLOSED"),
    "no_instance": ("agent_start_timeout", "BOT_CONNECTION_TIMEOUT"),
    "bot_refused": ("agent_error", "HTTP_ERROR"),
    "bot_completed": ("completed", "HTTP_COMPLETED"),
    "bot_error": ("agent_error", "HTTP_ERROR"),
}
# What became of a session over HTTP, by its end state: no WebSocket was closed there.
HTTP_STATUSES = {"completed": "HTTP_COMPLETED", "terminated": "HTTP_COMPLETED"}


def public_end(cause: str | None, transport: str) -> tuple[str, str]:
    """(endState, completionStatus) of a cause; a cause of another version is unknown."""
    end_state, status = END_STATES.get(cause or "", ("unknown", "unknown"))
    if transport != "websocket" and status == "WS_CONNECTION_CLOSED":
        status = HTTP_STATUSES.get(end_state, "HTTP_ERROR")
    return end_state, status
