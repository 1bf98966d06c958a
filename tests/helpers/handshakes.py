"""Both ends of a WebSocket handshake, spelt by hand: a client's request and a bot's answer."""

from __future__ import annotations

import re

from wsproto.connection import ConnectionType
from wsproto.events import Request as WsRequest
from wsproto.handshake import H11Handshake
from wsproto.utilities import generate_accept_token

from relay.protocol.handshake import BotHandshake, Upgrade, check_upgrade
from relay.protocol.http1 import Request, parse_request

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # the sample of RFC 6455 section 1.3
FIELDS: dict[str, bytes | list[bytes]] = {
    "Host": b"front.example",
    "Upgrade": b"websocket",
    "Connection": b"Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": b"13",
}


def upgrade_request(
    *,
    line: bytes = b"GET /ws/generic/a.b HTTP/1.1",
    changed: dict[str, bytes | list[bytes] | None] | None = None,
) -> Request:
    """A client's upgrade request with some fields changed, repeated (a list) or left out (None)."""
    lines = [line]
    for name, value in {**FIELDS, **(changed or {})}.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        lines += [name.encode() + b": " + one for one in values]
    return parse_request(b"\r\n".join((*lines, b"", b"")))


def ask_wsproto(request: Request) -> WsRequest:
    """The request as wsproto, as a server, takes it; it raises for what it does not take.

    wsproto looks at the last Connection line only, so these are joined, which means the
    same (RFC 9110 section 5.3).
    """
    fields = [field for field in request.headers if field[0] != b"connection"]
    fields.append((b"connection", b", ".join(request.tokens(b"connection"))))
    server = H11Handshake(ConnectionType.SERVER)
    server.initiate_upgrade_connection(fields, request.target)
    (event,) = server.events()
    assert isinstance(event, WsRequest)
    return event


class Bot:
    """A bot that was asked for an upgrade: its handshake, and the words to answer it."""

    def __init__(self, protocols: bytes | None = None, extensions: bytes | None = None) -> None:
        request = upgrade_request(
            changed={"Sec-WebSocket-Protocol": protocols, "Sec-WebSocket-Extensions": extensions}
        )
        self.upgrade: Upgrade = check_upgrade(request)
        self.handshake = BotHandshake(self.upgrade)
        self.request = self.handshake.request("bot.example:7860", "/ws?a=1", [(b"x-a", b"1")])
        found = re.search(rb"\r\nSec-WebSocket-Key: ([^\r]+)\r\n", self.request)
        assert found is not None
        self.accept = generate_accept_token(found[1])

    def switching(self, *more: bytes, leave: str = "", accept: bytes | None = None) -> bytes:
        """A 101 with the right fields, without the one named `leave`, and `more` lines."""
        fields = {
            "Upgrade": b"websocket",
            "Connection": b"Upgrade",
            "Sec-WebSocket-Accept": self.accept if accept is None else accept,
        }
        fields.pop(leave, None)
        lines = [name.encode() + b": " + value for name, value in fields.items()]
        return b"\r\n".join((b"HTTP/1.1 101 Switching Protocols", *lines, *more, b"", b""))
