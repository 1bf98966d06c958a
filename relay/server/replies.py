"""Answers of the daemon's own: fields that every one has, CORS, and the error body."""

from __future__ import annotations

__all__ = [
    "Fields",
    "cors",
    "error_body",
    "fields",
    "json_body",
    "passed_fields",
    "preflight",
    "raw",
    "reason",
]

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from relay.errors import Refusal

if TYPE_CHECKING:
    from relay.server.exchange import Exchange

Field = tuple[bytes, bytes]
Fields = Iterable[Field]

EXPOSED = b"X-Request-Id, X-Daily-Session-Id, Retry-After"
ALLOWED = b"access-control-allow-origin"
EXPOSING = b"access-control-expose-headers"
FOR_ALL = ((ALLOWED, b"*"), (EXPOSING, EXPOSED))
METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS, HEAD"
# Browsers may keep a preflight's answer for two hours at most (Chromium's own cap).
PREFLIGHT_SECONDS = b"7200"


def reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


def json_body(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"  # a terminal shows an answer on a line of its own


def error_body(refusal: Refusal, phase: str) -> bytes:
    """The published error object (docs/protocol.md, "Errors")."""
    return json_body(
        {
            "error": refusal.error,
            "code": refusal.code,
            "message": refusal.reason,
            "status": refusal.status,
            "detail": refusal.reason,
            "phase": phase,
        }
    )


# Of a bot's answer these are not passed on: every answer has them once, from here.
OWN_FIELDS = (b"content-length", b"x-request-id", b"x-daily-session-id")


def fields(
    exchange: Exchange, body: bytes | None, extra: Fields, *, passed: bool
) -> list[tuple[bytes, bytes]]:
    """The header fields of an answer: the given ones and those that every answer has.

    Args:
        passed: the answer is a bot's, whose content type, or lack of one, is its own.
    """
    result = [field for field in extra if field[0].lower() not in OWN_FIELDS]
    if body is not None and not passed:
        result.append((b"content-type", b"application/json"))
    if exchange.status != 204:
        result.append((b"content-length", b"%d" % len(body or b"")))
    result.append((b"x-request-id", exchange.request_id.encode("ascii")))
    if exchange.session_id is not None:
        result.append((b"x-daily-session-id", exchange.session_id.encode("ascii")))
    _add_cors(result, exchange)
    if not exchange.keep_alive:
        result.append((b"connection", b"close"))
    return result


def passed_fields(exchange: Exchange, passed: Fields, framing: Fields) -> list[Field]:
    """The fields of a bot's answer that is passed on while it comes.

    Args:
        passed: the bot's end-to-end fields, names in lower case.
        framing: what says how the body ends.
    """
    result = [field for field in passed if field[0] not in OWN_FIELDS]
    _add_cors(result, exchange)
    result.extend(framing)
    result.append((b"x-request-id", exchange.request_id.encode("ascii")))
    if exchange.session_id is not None:
        result.append((b"x-daily-session-id", exchange.session_id.encode("ascii")))
    if not exchange.keep_alive:
        result.append((b"connection", b"close"))
    return result


def _add_cors(result: list[Field], exchange: Exchange) -> None:
    """A bot's own fields for cross-origin requests win; ours stand where it has said nothing."""
    named = {name.lower() for name, _ in result}
    # Vary is a list: what the bot's answer varies by stands beside what ours does.
    named.discard(b"vary")
    result += [field for field in cors(exchange) if field[0] not in named]


def cors(exchange: Exchange) -> Fields:
    """What lets a browser page read an answer of the public API."""
    if exchange.request is None or exchange.target is None:
        return ()
    if exchange.target.segments[:1] != ("v1",):
        return ()
    origin = _allowed(exchange)
    if origin == b"*":
        return FOR_ALL
    # To others the same address answers without these fields: caches must know.
    vary = (b"vary", b"Origin")
    if origin is None:
        return (vary,)
    return (ALLOWED, origin), (EXPOSING, EXPOSED), vary


def preflight(exchange: Exchange) -> Fields:
    """The further fields of the answer to a preflight (Fetch standard, section 3.2)."""
    yield b"access-control-allow-methods", METHODS
    asked = exchange.head.value(b"access-control-request-headers")
    yield b"access-control-allow-headers", asked or b"Authorization, Content-Type"
    yield b"access-control-max-age", PREFLIGHT_SECONDS


def _allowed(exchange: Exchange) -> bytes | None:
    origins = exchange.front.catalog.cors_origins
    if "*" in origins:
        return b"*"
    origin = exchange.head.value(b"origin")
    return origin if origin is not None and origin.decode("latin-1") in origins else None


def raw(status: int, phrase: bytes, fields: Fields) -> bytes:
    """The head of an answer, from validated values (RFC 9112 section 4)."""
    return b"\r\n".join((b"HTTP/1.1 %d %s" % (status, phrase), *map(b": ".join, fields), b"", b""))
