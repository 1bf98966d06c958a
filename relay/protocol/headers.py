"""Which fields go on to the bot and which come back, by RFC 9110 section 7.6.1 and the contract."""

from __future__ import annotations

__all__ = [
    "HOP_BY_HOP",
    "MAX_FIELD_LINE",
    "end_to_end",
    "for_bot",
    "for_bot_upgrade",
    "from_bot_upgrade",
]

from collections.abc import Iterable
from typing import Protocol

from relay.errors import Refusal

Field = tuple[bytes, bytes]

# RFC 9110 section 7.6.1, and the old Proxy-Connection that clients still send.
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)

# What belongs to the caller's conversation with the front door, never to the bot:
# the token and keys, cookies of this host, framing, our own session field.
NOT_FOR_BOT = frozenset(
    (b"authorization", b"content-length", b"cookie", b"expect", b"host", b"x-daily-session-id")
)

# Of a request of the Session API only this stays here: cookies are the bot's own there.
# Length and identifiers are set anew.
NOT_FOR_BOT_ROUTES = frozenset(
    (b"authorization", b"content-length", b"host", b"x-daily-session-id", b"x-request-id")
)

# What the front door says itself in its 101, or what says nothing behind one.
NOT_FOR_CLIENT = frozenset(
    (b"content-length", b"date", b"server", b"x-daily-session-id", b"x-request-id")
)

# The bot servers' limit for the request line and each field line (docs/protocol.md).
MAX_FIELD_LINE = 8192


def end_to_end(fields: Iterable[Field]) -> list[Field]:
    """The fields without the hop-by-hop ones, those named by Connection included."""
    fields = list(fields)
    named = {
        part.strip().lower()
        for name, value in fields
        if name == b"connection"
        for part in value.split(b",")
    }
    return [(name, value) for name, value in fields if name not in HOP_BY_HOP | named]


class _Request(Protocol):
    """What is asked of a request here; see `http1.Request`."""

    @property
    def version(self) -> bytes: ...

    @property
    def headers(self) -> tuple[Field, ...]: ...

    @property
    def has_body(self) -> bool: ...


def for_bot(request: _Request, session_id: str, request_id: str) -> list[Field]:
    """The fields of a request of the Session API that the bot gets, and the two ids.

    An expectation passes only where it can be met: RFC 9110 section 10.1.1 has none in
    HTTP/1.0 and none without a body.
    """
    expects = request.version != b"1.0" and request.has_body
    passed = [
        (name, value)
        for name, value in end_to_end(request.headers)
        if name not in NOT_FOR_BOT_ROUTES and (expects or name != b"expect")
    ]
    own = [(b"x-daily-session-id", session_id.encode()), (b"x-request-id", request_id.encode())]
    return [*passed, *own]


def for_bot_upgrade(fields: Iterable[Field], session_id: str) -> list[Field]:
    """The fields of a client's upgrade request that the bot gets, and the session's id.

    The handshake's own fields (Sec-WebSocket-*) are left out: the handshake toward the
    bot writes them.

    Raises:
        Refusal: 431 for a field line that a bot's server would not take.
    """
    passed = [
        (name, value)
        for name, value in end_to_end(fields)
        if name not in NOT_FOR_BOT and not name.startswith(b"sec-websocket-")
    ]
    for name, value in passed:
        if len(name) + len(value) + 4 > MAX_FIELD_LINE:
            raise Refusal(
                431,
                f"the header field {name.decode('ascii')} is longer than {MAX_FIELD_LINE} bytes",
                cause="field_too_long",
            )
    return [*passed, (b"x-daily-session-id", session_id.encode())]


def from_bot_upgrade(fields: Iterable[Field]) -> list[Field]:
    """The fields of the bot's 101 that the client gets beside the handshake's own."""
    return [
        (name, value)
        for name, value in end_to_end(fields)
        if not name.startswith(b"sec-websocket-") and name not in NOT_FOR_CLIENT
    ]
