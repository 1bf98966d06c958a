"""Which fields go on to the bot and which come back, by RFC 9110 section 7.6.1 and the contract."""

from __future__ import annotations

__all__ = [
    "HOP_BY_HOP",
    "MAX_FIELD_LINE",
    "end_to_end",
    "for_bot",
    "for_bot_upgrade",
    "from_bot_upgrade",
    "in_trailers",
]

from collections.abc import Container, Iterable, Sequence

from relay.errors import Refusal
from relay.protocol.forwarding import FORWARDING, Hop, forwarding, hops_left, trace
from relay.protocol.http1 import Request

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
# the token and keys, cookies of this host, framing, our own session field. The account of
# the way is given anew. Nor may a caller name an address that a bot would fetch its body from.
NOT_FOR_BOT = FORWARDING | frozenset(
    (
        b"authorization",
        b"content-length",
        b"cookie",
        b"expect",
        b"host",
        b"via",
        b"x-daily-session-id",
        b"x-relay-body",
    )
)

# Of a request of the Session API only the key stays here, beside what is for one hop:
# cookies are the bot's own there. Length, identifiers, trace and the account of the way
# are set anew.
NOT_FOR_BOT_ROUTES = (
    HOP_BY_HOP
    | FORWARDING
    | {
        b"authorization",
        b"content-length",
        b"host",
        b"traceparent",
        b"tracestate",
        b"via",
        b"x-daily-session-id",
        b"x-request-id",
    }
)

NOT_FOR_BOT_WITHOUT_BODY = NOT_FOR_BOT_ROUTES | {b"expect"}

NOT_IN_TRAILERS = NOT_FOR_BOT_ROUTES | {
    b"age",
    b"cache-control",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expect",
    b"expires",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"location",
    b"max-forwards",
    b"pragma",
    b"range",
    b"retry-after",
    b"set-cookie",
    b"vary",
    b"warning",
    b"www-authenticate",
}

# What the front door says itself in its 101, or what says nothing behind one.
NOT_FOR_CLIENT = frozenset(
    (b"content-length", b"date", b"server", b"x-daily-session-id", b"x-request-id")
)

# The bot servers' limit for the request line and each field line (docs/protocol.md).
MAX_FIELD_LINE = 8192


def end_to_end(fields: Iterable[Field], others: frozenset[bytes] = HOP_BY_HOP) -> list[Field]:
    """The fields without the hop-by-hop ones, those named by Connection included.

    A name with underscores for hyphens counts as the same name.

    Args:
        others: what is left out too; the hop-by-hop ones are among it.
    """
    fields, dropped = list(fields), others
    for name, value in fields:
        if name == b"connection":
            dropped |= {part.strip().lower().replace(b"_", b"-") for part in value.split(b",")}
    return without(fields, dropped)


def among(name: bytes, names: Container[bytes]) -> bool:
    """Whether a name is one of these, with underscores for hyphens too: bots behind WSGI or
    CGI see no difference."""
    return name in names or (b"_" in name and name.replace(b"_", b"-") in names)


def without(fields: Iterable[Field], names: Container[bytes]) -> list[Field]:
    """The fields whose names are not `among` these, without a call for each."""
    return [
        field
        for field in fields
        if field[0] not in names and (b"_" not in field[0] or not among(field[0], names))
    ]


def for_bot(
    request: Request, session_id: str, request_id: str, hop: Hop, random: bytes
) -> list[Field]:
    """The fields of a request of the Session API that the bot gets, without Host and framing.

    An expectation passes only where it can be met: RFC 9110 section 10.1.1 has none in
    HTTP/1.0 and none without a body.

    Args:
        hop: where the request comes from.
        random: for a new trace, see `forwarding.trace`.
    """
    fields, left_out = request.headers, NOT_FOR_BOT_ROUTES
    if request.version == b"1.0" or not request.has_body:
        left_out = NOT_FOR_BOT_WITHOUT_BODY
    result = end_to_end(fields, left_out)
    if request.value(b"transfer-encoding") is not None:
        # Trailers pass, so what announces them does.
        result += [field for field in fields if field[0] == b"trailer"]
    if request.value(b"te") is not None and b"trailers" in request.tokens(b"te"):
        # RFC 9110 section 10.1.4: said anew by each hop, which this one can keep.
        result += [(b"te", b"trailers"), (b"connection", b"te")]
    left = hops_left(request.method, fields)
    if left is not None:
        result = [field for field in result if field[0] != b"max-forwards"]
        result.append((b"max-forwards", b"%d" % (left - 1)))
    result += forwarding(fields, hop)
    result += trace(fields, random)
    result.append((b"x-daily-session-id", session_id.encode()))
    result.append((b"x-request-id", request_id.encode()))
    return result


def in_trailers(fields: Iterable[Field]) -> list[Field]:
    """The trailers that pass: without what a reader would act on as if it stood in the head.

    RFC 9110 section 6.5.1 forbids framing, routing, authentication, request modifiers,
    controls and content fields there.
    """
    return without(fields, NOT_IN_TRAILERS)


def for_bot_upgrade(fields: Sequence[Field], session_id: str, hop: Hop) -> list[Field]:
    """The fields of a client's upgrade request that the bot gets, and the session's id.

    The handshake's own fields (Sec-WebSocket-*) are left out: the handshake toward the
    bot writes them.

    Args:
        hop: where the request comes from.

    Raises:
        Refusal: 431 for a field line that a bot's server would not take.
    """
    passed = [
        (name, value)
        for name, value in end_to_end(fields)
        if not among(name, NOT_FOR_BOT)
        and not name.replace(b"_", b"-").startswith(b"sec-websocket-")
    ]
    passed += forwarding(fields, hop)
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
