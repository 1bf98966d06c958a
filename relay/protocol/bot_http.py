"""One HTTP exchange with a bot, without input and output: its request and its answer.

Laws:
- The request is written from validated values: one Host, one framing, `Connection: close`.
- A head of the bot's is judged as it was sent, before h11 joins or drops any of its
  lines, and whole: nothing of an answer that is refused has reached the client.
- What two programs could read as two different answers is refused, not repaired.
- An answer that ends early is never taken for a whole one, wherever its framing can tell.

RFC 9112 section 6.3 (framing of answers), RFC 9110 section 15.2 (interim answers).
"""

from __future__ import annotations

__all__ = ["MAX_BOT_HEAD", "BotEnd", "BotHead", "BotTalk", "bot_died"]

import re
from dataclasses import dataclass
from enum import Enum

import h11

from relay.errors import Refusal
from relay.protocol.headers import Field, for_bot
from relay.protocol.http1 import FAULT, HEAD_END, LENGTH, Request

# The head of a bot's answer: what `Limits.max_head` allows to requests; cookies fit.
MAX_BOT_HEAD = 48 * 1024

START = b"HTTP/1."
# RFC 9112 section 4; the space behind the status may be missing, as common servers do.
STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*", re.DOTALL)
SWITCHING = 101


@dataclass(frozen=True, slots=True)
class BotHead:
    """The head of an answer; a status below 200 is an interim one, and another follows.

    Attributes:
        fields: with names in lower case, the hop-by-hop ones included.
    """

    status: int
    reason: bytes
    fields: tuple[Field, ...]

    @property
    def interim(self) -> bool:
        return self.status < 200


class BotEnd(Enum):
    """The answer is whole."""

    END = "end"


class BotTalk:
    """The request to a bot and its answer.

    `head`, `body` and `end` give the bytes to send; `receive` takes what came, b"" for
    the end of it, and `next_event` gives the answer piece by piece.

    Args:
        request: the client's request.
        target: path and query for the bot, as the client sent them.
        authority: the bot's host and port.
    """

    def __init__(
        self, request: Request, target: bytes, authority: str, session_id: str, request_id: str
    ) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_BOT_HEAD)
        fields = [
            (b"host", authority.encode()),
            *for_bot(request, session_id, request_id),
            *_framing(request),
            (b"connection", b"close"),
        ]
        event = h11.Request(method=request.method, target=target, headers=fields)
        self.head = self._http.send(event) or b""
        self._received = bytearray()
        self._seen = 0
        self._closed = False
        self._in_body = False

    def body(self, data: bytes) -> bytes:
        """A piece of the request's body, framed."""
        return self._http.send(h11.Data(data=data)) or b""

    def end(self) -> bytes:
        """The end of the request; trailers are not passed on."""
        return self._http.send(h11.EndOfMessage()) or b""

    def receive(self, data: bytes) -> None:
        """Take bytes of the bot, b"" when it has closed its side."""
        self._closed = self._closed or not data
        if self._in_body:
            self._http.receive_data(data)
        else:
            self._received += data

    def next_event(self) -> BotHead | bytes | BotEnd | None:
        """The next head, piece of the body, or end; None when more has to be received.

        Raises:
            Refusal: 502, when the answer is not HTTP or the bot closed in the middle of it.
        """
        if not self._in_body:
            head = self._cut_head()
            if head is None and self._closed:
                raise bot_died()
            return None if head is None else self._take_head(head)
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError:
            if self._closed:
                raise bot_died() from None
            raise _bad_answer("the body of the bot's answer is malformed") from None
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return BotEnd.END if isinstance(event, h11.EndOfMessage) else None

    def _cut_head(self) -> bytes | None:
        data = self._received
        if not data.startswith(START[: len(data)]):
            raise _bad_answer("the bot's answer is not HTTP/1")
        start = max(0, self._seen - len(HEAD_END) + 1)
        found = data.find(HEAD_END, start, MAX_BOT_HEAD)
        stop = found + len(HEAD_END) if found >= 0 else len(data)
        # A carriage return at the end is no fault yet: the line feed may be under way.
        if FAULT.search(data, start, stop - data.endswith(b"\r", 0, stop)):
            raise _bad_answer("the head of the bot's answer has a byte that no head may have")
        if found < 0:
            if len(data) >= MAX_BOT_HEAD:
                raise _bad_answer(f"the head of the bot's answer is over {MAX_BOT_HEAD} bytes")
            self._seen = len(data)
            return None
        head = bytes(data[:stop])
        del data[:stop]
        self._seen = 0
        return head

    def _take_head(self, head: bytes) -> BotHead:
        judged = _judge(head)
        self._http.receive_data(head)
        try:
            self._http.next_event()
        except h11.RemoteProtocolError:
            raise _bad_answer("the head of the bot's answer is not valid HTTP/1.1") from None
        if not judged.interim:
            self._in_body = True
            if self._received:
                self._http.receive_data(bytes(self._received))
                self._received.clear()
            if self._closed:
                self._http.receive_data(b"")
        return judged


def _framing(request: Request) -> list[Field]:
    """The request's framing made anew: chunked stays chunked, a length stays that length."""
    if request.value(b"transfer-encoding") is not None:
        return [(b"transfer-encoding", b"chunked")]
    length = request.value(b"content-length")
    return [] if length is None else [(b"content-length", b"%d" % int(length))]


def _judge(head: bytes) -> BotHead:
    """Read a head as it was sent (RFC 9112 sections 4, 5 and 6)."""
    first, *lines = head.removesuffix(HEAD_END).split(b"\r\n")
    status_line = STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise _bad_answer("the status line of the bot's answer is not HTTP/1.1")
    fields = []
    for line in lines:
        field = FIELD_LINE.fullmatch(line)
        if field is None:
            raise _bad_answer("the head of the bot's answer has a line that is no field")
        fields.append((field[1].lower(), field[2]))
    judged = BotHead(int(status_line[2]), status_line[3] or b"", tuple(fields))
    if judged.status == SWITCHING:
        raise _bad_answer("the bot switched protocols without having been asked to")
    _check_framing(fields, status_line[1])
    return judged


def _check_framing(fields: list[Field], version: bytes) -> None:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    if codings and (lengths or version == b"1.0"):
        raise _bad_answer("the bot's answer has two framings")
    if codings not in ([], [b"chunked"]):
        raise _bad_answer("the bot's answer has a transfer coding other than chunked")
    if len(lengths) > 1 or (lengths and not LENGTH.fullmatch(lengths[0])):
        raise _bad_answer("Content-Length of the bot's answer is not one decimal number")


def bot_died() -> Refusal:
    """The bot closed or reset the connection before its answer was whole."""
    return Refusal(502, "the bot closed the connection before its answer", cause="bot_died")


def _bad_answer(reason: str) -> Refusal:
    return Refusal(502, reason, cause="bot_bad_answer")
