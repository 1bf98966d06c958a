"""HTTP/1.1 and the WebSocket handshake for the example bot: h11 and wsproto on a trio stream.

Nothing here knows what the bot does. Every request is read as a whole, within the limits below,
and every answer is JSON.
"""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

import h11
import trio
from wsproto import WSConnection
from wsproto.events import AcceptConnection, RejectConnection
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits
from wsproto.utilities import RemoteProtocolError

__all__ = [
    "MAX_BODY",
    "RECEIVE_BYTES",
    "Answer",
    "Connection",
    "Refused",
    "Request",
    "handshake",
    "linger",
    "send",
]

MAX_HEAD = 64 * 1024  # twice what a front door may send: a 24 KiB target and its fields
MAX_BODY = 1024 * 1024  # what Pipecat Cloud allows a session's data to be
MAX_QUERY_FIELDS = 100  # `body` is the only one read
RECEIVE_BYTES = 16 * 1024  # deflate expands 1:1000 at most, so one read inflates to 16 MiB
HEAD_SECONDS = 15.0  # from one answer to the whole next head, so also the keep-alive limit
BODY_SECONDS = 30.0  # 1 MiB at 35 kB/s
SEND_SECONDS = 60.0  # a client that reads nothing for so long is gone
LINGER_SECONDS = 1.0  # for the other side to read a last answer before TCP closes


class Refused(Exception):
    """A request that gets an error instead of what it asked for."""

    def __init__(self, status: int, reason: str, *fields: tuple[bytes, bytes]) -> None:
        super().__init__(reason)
        self.answer = Answer(status, {"error": reason}, fields)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status, a value to send as JSON, further fields."""

    status: int
    value: object
    fields: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has arrived as a whole."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def session_id(self) -> str:
        """The front door's name for the session, empty when it sent none."""
        return dict(self.headers).get(b"x-daily-session-id", b"").decode("latin-1")

    def query_body(self) -> object:
        """Decode `?body=` as the base image does: base64 of UTF-8 JSON, None for anything else."""
        try:
            query = parse_qs(self.target.partition("?")[2], max_num_fields=MAX_QUERY_FIELDS)
            return json.loads(base64.b64decode(query["body"][-1], validate=True).decode())
        except (KeyError, ValueError, RecursionError):
            return None

    def json_object(self) -> dict[str, object]:
        """The request's body; raises Refused (400) when it is no JSON object."""
        try:
            value = json.loads(self.body.decode())
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise Refused(400, "the body must be a JSON object")
        return value


async def send(stream: trio.SocketStream, data: bytes) -> None:
    """Write it all; raises trio.TooSlowError when the other side does not read for so long."""
    with trio.fail_after(SEND_SECONDS):
        await stream.send_all(data)


async def linger(stream: trio.SocketStream) -> None:
    """Let the other side read our last bytes: closing with unread input would reset TCP."""
    with trio.move_on_after(LINGER_SECONDS):
        await stream.send_eof()
        while await stream.receive_some(RECEIVE_BYTES):
            pass


class Connection:
    """One TCP connection as h11 sees it: requests in, answers out, one at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self.without_body = False  # the request is HEAD

    async def event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """What h11 finds next; raises Refused (400, 431, 501) when it cannot read the request."""
        try:
            while (event := self.http.next_event()) is h11.NEED_DATA:
                if self.http.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self.stream.send_all(self.http.send(go_on) or b"")
                self.http.receive_data(await self.stream.receive_some(RECEIVE_BYTES))
        except h11.RemoteProtocolError as fault:
            reason = "the request is not well-formed HTTP/1.1, or its head is too large"
            raise Refused(fault.error_status_hint, reason) from None
        return event

    async def request(self) -> Request | None:
        """The next request, None when none comes; raises Refused (400, 408, 413, 431, 501)."""
        head = None
        with trio.move_on_after(HEAD_SECONDS):
            head = await self.event()
        if head is None and self.http.trailing_data[0]:
            raise Refused(408, f"the head was not complete after {HEAD_SECONDS:.0f} seconds")
        if not isinstance(head, h11.Request):
            return None
        self.without_body = head.method == b"HEAD"
        if len(head.target) + sum(map(len, itertools.chain(*head.headers))) > MAX_HEAD:
            raise Refused(431, f"the head exceeds {MAX_HEAD} bytes")  # h11 bounds a partial one
        body = bytearray()
        with trio.move_on_after(BODY_SECONDS) as scope:
            while isinstance(event := await self.event(), h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    raise Refused(413, f"the body exceeds {MAX_BODY} bytes")
        if scope.cancelled_caught:
            raise Refused(408, f"the body was not complete after {BODY_SECONDS:.0f} seconds")
        method, target = head.method.decode(), head.target.decode("latin-1")
        return Request(method, target, list(head.headers), bytes(body))

    async def answer(self, answer: Answer) -> bool:
        """Send an answer; True when the connection can carry another request."""
        body = json.dumps(answer.value).encode()
        fields = [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(body))]
        if self.http.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR):
            fields.append((b"Connection", b"close"))  # what is left of the request stays unread
        response = h11.Response(
            status_code=answer.status,
            headers=[*fields, *answer.fields],
            reason=HTTPStatus(answer.status).phrase.encode(),
        )
        events = [response, h11.Data(data=body), h11.EndOfMessage()]
        if self.without_body:
            del events[1]
        await send(self.stream, b"".join(self.http.send(event) or b"" for event in events))
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            return True
        await linger(self.stream)
        return False


class Deflate(PerMessageDeflate):
    """permessage-deflate that survives a ping between the fragments of a compressed message.

    wsproto 1.3 forgets at the end of every control frame that a compressed message is under
    way; RFC 6455 §5.4 lets control frames come between fragments, so the flag is put back.
    """

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        self._under_way = self._inbound_compressed if opcode.iscontrol() else None
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        result = super().frame_inbound_complete(proto, fin)
        if self._under_way is not None:
            self._inbound_compressed = self._under_way
        return result


def handshake(ws: WSConnection, request: Request) -> bytes:
    """The bytes of the 101; raises Refused (400, 426) for anything but RFC 6455 §4.2.1."""
    if dict(request.headers).get(b"upgrade", b"").lower() != b"websocket":
        raise Refused(426, "this path speaks WebSocket only", (b"Upgrade", b"websocket"))
    try:
        ws.initiate_upgrade_connection(request.headers, request.target)
    except RemoteProtocolError as fault:
        hint = fault.event_hint
        status = hint.status_code if isinstance(hint, RejectConnection) else 400
        version = (b"Sec-WebSocket-Version", b"13")
        raise Refused(status, "not a WebSocket handshake of version 13", version) from None
    except UnicodeError:
        raise Refused(400, "the handshake has fields that are not text") from None
    list(ws.events())  # the request, known already
    try:
        return ws.send(AcceptConnection(extensions=[Deflate()]))
    except ValueError:  # a parameter that is no number: declined, RFC 7692 §5
        return ws.send(AcceptConnection())
