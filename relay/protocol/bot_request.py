"""What a bot is asked: the target of its WebSocket, and the request that starts it over HTTP.

What of a caller's request goes on to a bot: docs/protocol.md.
"""

from __future__ import annotations

__all__ = ["MAX_REQUEST_LINE", "bot_start", "bot_target"]

from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from relay.errors import Refusal
from relay.protocol.body import quote_body

# The bot servers' limit for a request line (the `websockets` package, both backends).
MAX_REQUEST_LINE = 8192
AROUND_TARGET = len(b"GET  HTTP/1.1\r\n")

# What a caller tells the front door and not the bot.
OWN_PARAMETERS = (b"token", b"serviceHost")


def bot_target(path: str, query: bytes, body: str | None) -> str:
    """The target for a bot at `path`: the caller's parameters in order, the body canonical.

    Args:
        query: the caller's raw query.
        body: the decoded body in standard base64, None to leave it out.

    Raises:
        Refusal: 413 when the bot's server could not take the request line.
    """
    pieces = []
    for piece in query.split(b"&"):
        name = unquote_to_bytes(piece.partition(b"=")[0].replace(b"+", b" "))
        if name == b"body":
            if body is not None:
                pieces.append("body=" + quote_body(body))
        elif piece and name not in OWN_PARAMETERS:
            pieces.append(piece.decode("ascii"))
    target = path + ("?" + "&".join(pieces) if pieces else "")
    if len(target) + AROUND_TARGET > MAX_REQUEST_LINE:
        raise Refusal(
            413,
            f"with its query the bot's request line would be longer than {MAX_REQUEST_LINE} bytes",
            cause="bot_target_too_long",
        )
    return target


def bot_start(
    host: str,
    session_id: str,
    transport: str | None,
    max_seconds: float,
    body: bytes,
    further: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """`POST /bot`, whole: the bot answers it when its session is over.

    Args:
        host: the Host field.
        transport: of the start request, None to leave it out.
        max_seconds: after which the bot is to end by itself.
        body: a JSON object.
        further: fields that go along.
    """
    fields = [
        ("Host", host),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        ("X-Daily-Session-Id", session_id),
        ("X-PCC-Max-Session-Seconds", str(int(max_seconds))),
    ]
    if transport is not None:
        fields.append(("X-Daily-Transport-Type", transport))
    fields += [(name.decode("ascii"), value.decode("latin-1")) for name, value in further]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"POST /bot HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
