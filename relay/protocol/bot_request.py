"""The request target of a bot's WebSocket, made from the caller's query (docs/protocol.md)."""

from __future__ import annotations

__all__ = ["MAX_REQUEST_LINE", "bot_target"]

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
