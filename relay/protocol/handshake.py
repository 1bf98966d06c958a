"""Both WebSocket handshakes (RFC 6455 section 4), as strict as wsproto and more.

The client's offer goes to the bot and the bot's answer to the client: subprotocols
and extensions are negotiated between these two, the front door only checks that an
answer was asked for. wsproto is the judge of bots; what it would say of a client is
checked here, since asking it takes 50 times as long, and it is the oracle of the tests.
Beside that stand the rules that it leaves to its caller: the form of the key, repeated
fields, a body behind an upgrade.
"""

from __future__ import annotations

__all__ = [
    "BotAnswer",
    "BotHandshake",
    "BotRefusal",
    "Upgrade",
    "asks_for_websocket",
    "check_upgrade",
    "switching",
]

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

import h11
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, RejectConnection, RejectData
from wsproto.events import Request as WsRequest
from wsproto.extensions import Extension
from wsproto.handshake import H11Handshake
from wsproto.utilities import ProtocolError, generate_accept_token

from relay.errors import Refusal
from relay.protocol.frame_headers import RSV, RSV_DEFLATE
from relay.protocol.http1 import Request

Field = tuple[bytes, bytes]

KEY_BYTES = 16  # RFC 6455 section 4.1: the key is 16 random bytes in base64
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# What h11 and wsproto let pass in a bot's head: control bytes in values, and repeats of
# fields that RFC 6455 sections 11.3.2 to 11.3.4 allow once (wsproto keeps the last).
CONTROL_BYTE = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]")
FIELD_NAME = re.compile(rb"\n([^:\r\n]+):")
LISTS = (b"connection", b"sec-websocket-extensions", b"sec-websocket-protocol")
ONCE = (b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol")
TWO_FRAMINGS = {b"content-length", b"transfer-encoding"}
# Longest body of a bot's refusal that is passed on; an error page, not a download.
MAX_REFUSAL_BODY = 256 * 1024


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What a client's valid upgrade request offers."""

    key: bytes
    subprotocols: tuple[str, ...]
    extensions: tuple[bytes, ...]  # the field's values as sent


@dataclass(frozen=True, slots=True)
class BotAnswer:
    """The bot's 101: what it chose, its other fields, and the frames that came with it."""

    subprotocol: str | None
    extensions: str
    fields: tuple[Field, ...]

    @property
    def rsv(self) -> int:
        """The reserved bits that the negotiated extensions may use in frames."""
        names = {part.partition(";")[0].strip() for part in self.extensions.split(",")} - {""}
        if not names:
            return 0
        return RSV_DEFLATE if names == {"permessage-deflate"} else RSV


@dataclass(frozen=True, slots=True)
class BotRefusal:
    """The bot's own answer instead of a 101, to be passed on unchanged."""

    status: int
    fields: tuple[Field, ...]
    body: bytes


def asks_for_websocket(request: Request) -> bool:
    """Whether a request to an address that speaks HTTP too asks for a WebSocket.

    Other upgrades, and those in HTTP/1.0, are ignored (RFC 9110 section 7.8); a WebSocket
    is opened with GET only (RFC 6455 section 4.1).
    """
    return (
        request.method == b"GET"
        and request.version == b"1.1"
        and b"websocket" in request.tokens(b"upgrade")
        and b"upgrade" in request.tokens(b"connection")
    )


def check_upgrade(request: Request) -> Upgrade:
    """Judge a client's upgrade request (RFC 6455 section 4.2.1).

    Raises:
        Refusal: 405 for another method, 426 without Upgrade or with another version,
            400 for a bad key, a repeated field or a body.
    """
    if request.method != b"GET":
        raise Refusal(
            405,
            "a WebSocket is opened with GET",
            cause="method_not_allowed",
            headers=((b"allow", b"GET"),),
        )
    upgrade = ((b"upgrade", b"websocket"), (b"connection", b"Upgrade"))
    if b"websocket" not in request.tokens(b"upgrade") or b"upgrade" not in request.tokens(
        b"connection"
    ):
        raise Refusal(
            426,
            "this address speaks WebSocket: send Upgrade: websocket and Connection: Upgrade",
            cause="upgrade_required",
            headers=upgrade,
        )
    if request.values(b"sec-websocket-version") != [b"13"]:
        raise Refusal(
            426,
            "the only WebSocket version offered is 13",
            cause="websocket_version",
            headers=(*upgrade, (b"sec-websocket-version", b"13")),
        )
    if request.has_body:
        raise Refusal(400, "an upgrade has no body", cause="upgrade_with_body", close=True)
    if request.version != b"1.1":
        raise Refusal(400, "a WebSocket needs HTTP/1.1", cause="upgrade_version")
    key = _key(request)
    _check_fields(request)
    offered = [value for value in request.values(b"sec-websocket-extensions") if value.strip()]
    return Upgrade(key, _subprotocols(request), tuple(offered))


def _key(request: Request) -> bytes:
    keys = request.values(b"sec-websocket-key")
    try:
        if len(keys) != 1 or len(base64.b64decode(keys[0], validate=True)) != KEY_BYTES:
            raise ValueError
    except (ValueError, binascii.Error):
        raise Refusal(
            400, "Sec-WebSocket-Key must be 16 bytes in base64, once", cause="websocket_key"
        ) from None
    return keys[0]


def _subprotocols(request: Request) -> tuple[str, ...]:
    names = [
        part.strip().decode("latin-1")
        for value in request.values(b"sec-websocket-protocol")
        for part in value.split(b",")
    ]
    if any(not TOKEN.fullmatch(name) for name in names) or len(set(names)) != len(names):
        raise Refusal(
            400,
            "Sec-WebSocket-Protocol must list different names",
            cause="websocket_subprotocol",
        )
    return tuple(names)


def _check_fields(request: Request) -> None:
    """One protocol to upgrade to, spelt alone, and lists in ASCII, as wsproto has them."""
    alone = request.values(b"upgrade")[-1].lower() == b"websocket"
    if not alone or any(name in LISTS and not value.isascii() for name, value in request.headers):
        raise Refusal(
            400, "the WebSocket handshake fields are not valid", cause="websocket_handshake"
        )


def switching(key: bytes, answer: BotAnswer, fields: Iterable[Field]) -> bytes:
    """The 101 head for the client: the bot's choices and `fields` of our own."""
    lines: list[Field] = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", generate_accept_token(key)),
    ]
    if answer.subprotocol is not None:
        lines.append((b"Sec-WebSocket-Protocol", answer.subprotocol.encode()))
    if answer.extensions:
        lines.append((b"Sec-WebSocket-Extensions", answer.extensions.encode()))
    lines.extend(answer.fields)
    lines.extend(fields)
    head = b"".join(b"%s: %s\r\n" % field for field in lines)
    return b"HTTP/1.1 101 Switching Protocols\r\n" + head + b"\r\n"


class _Offered(Extension):
    """An extension that the client offered: its terms are between client and bot."""

    def __init__(self, name: str, accepted: list[str]) -> None:
        self.name = name
        self._accepted = accepted

    def offer(self) -> bool:
        return False  # the client's own field goes out as it came

    def finalize(self, offer: str) -> None:
        self._accepted.append(offer)


class BotHandshake:
    """The handshake toward the bot, as its client (RFC 6455 section 4.1).

    `request` gives the bytes to send; `receive` takes the bot's head, then, after a
    refusal, what follows; `answer` is set when the bot has spoken.
    """

    def __init__(self, upgrade: Upgrade) -> None:
        self._judge = H11Handshake(ConnectionType.CLIENT)
        self._upgrade = upgrade
        self._accepted: list[str] = []
        self._head_seen = False
        self._status = 0
        self._fields: tuple[Field, ...] = ()
        self._body = b""
        self.answer: BotAnswer | BotRefusal | None = None

    def request(self, host: str, target: str, fields: list[Field]) -> bytes:
        """The upgrade request; `fields` as `headers.for_bot_upgrade` gives them."""
        offers = ",".join(value.decode("latin-1") for value in self._upgrade.extensions)
        names = {offer.partition(";")[0].strip() for offer in offers.split(",")} - {""}
        extra = [(b"sec-websocket-extensions", value) for value in self._upgrade.extensions]
        return self._judge.send(
            WsRequest(
                host=host,
                target=target,
                subprotocols=list(self._upgrade.subprotocols),
                extensions=[_Offered(name, self._accepted) for name in names],
                extra_headers=fields + extra,
            )
        )

    def receive(self, data: bytes) -> None:
        """Take bytes of the answer, b"" for its end.

        Give the whole head alone first: bytes behind the head of a 101 are frames.

        Raises:
            Refusal: 502 for anything but a right 101 or a whole refusal of 400 or more.
        """
        if not self._head_seen:
            self._head_seen = True
            _check_bot_head(data)
        try:
            self._judge.receive_data(data)
            events = list(self._judge.events())
        except (ProtocolError, h11.ProtocolError, ValueError):
            raise _bad_gateway("the bot's answer to the upgrade is not a valid handshake") from None
        for event in events:
            if isinstance(event, AcceptConnection):
                fields = tuple(event.extra_headers)
                self.answer = BotAnswer(event.subprotocol, ", ".join(self._accepted), fields)
            elif isinstance(event, RejectConnection):
                self._status, self._fields = event.status_code, tuple(event.headers)
                if event.status_code < 400:
                    raise _bad_gateway(
                        f"the bot answered the upgrade with {event.status_code} instead of 101"
                    )
            elif isinstance(event, RejectData):
                self._take_body(bytes(event.data), finished=event.body_finished)

    def _take_body(self, data: bytes, *, finished: bool) -> None:
        self._body += data
        if len(self._body) > MAX_REFUSAL_BODY:
            raise _bad_gateway("the bot refused the upgrade with a body that is too long")
        if finished:
            self.answer = BotRefusal(self._status, self._fields, self._body)


def _check_bot_head(head: bytes) -> None:
    if CONTROL_BYTE.search(head):
        raise _bad_gateway("the head of the bot's answer to the upgrade has a control byte")
    names = [name.lower() for name in FIELD_NAME.findall(head)]
    if any(names.count(name) > 1 for name in ONCE):
        raise _bad_gateway("the bot's answer to the upgrade repeats a handshake field")
    if TWO_FRAMINGS.issubset(names):
        raise _bad_gateway("the bot's answer has both Content-Length and Transfer-Encoding")


def _bad_gateway(reason: str) -> Refusal:
    return Refusal(502, reason, cause="bot_bad_answer")
