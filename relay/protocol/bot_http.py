"""One HTTP exchange with a bot, without input and output: its request and its answer.

Laws:
- The request is written from validated values: one Host, one framing, no field that the
  bot could take for another hop's.
- A head of the bot's is judged as it was sent, and whole: nothing of an answer that is
  refused has reached the client.
- What two programs could read as two different answers is refused, not repaired.
- An answer that ends early is never taken for a whole one, wherever its framing can tell.
- A connection is good for another request only after a whole request and a whole answer
  whose framing leaves no doubt, with nothing behind it.

RFC 9112 section 6.3 (framing of answers), RFC 9110 section 15.2 (interim answers).
"""

from __future__ import annotations

__all__ = [
    "CHUNKED",
    "MAX_BOT_HEAD",
    "BotEnd",
    "BotHead",
    "BotTalk",
    "bot_died",
    "framed_request",
    "request_head",
]

import re
from collections.abc import Iterable
from enum import Enum

import msgspec

from relay.errors import Refusal
from relay.protocol.chunks import Body, ChunkedBody, LengthBody, UntilClosed, chunk, last_chunk
from relay.protocol.headers import Field, in_trailers
from relay.protocol.http1 import FIELDS, HEAD_END, LENGTH, Request, fields_of, find_fault

# The head of a bot's answer: what `Limits.max_head` allows to requests; cookies fit.
MAX_BOT_HEAD = 48 * 1024
# Interim answers in front of one final one: hints come in ones and twos.
MAX_INTERIM = 64

START = b"HTTP/1."
# RFC 9112 section 4; the space behind the status may be missing, as common servers do.
STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
SWITCHING = 101
CHUNKED = (b"transfer-encoding", b"chunked")
# No body follows, whatever the fields say (RFC 9112 section 6.3).
BODILESS = (204, 304)


class BotHead(msgspec.Struct, frozen=True, gc=False):
    """The head of an answer; a status below 200 is an interim one, and another follows.

    Attributes:
        fields: with names in lower case, the hop-by-hop ones included.
        version: of HTTP, b"1.0" or b"1.1".
    """

    status: int
    reason: bytes
    fields: tuple[Field, ...]
    version: bytes = b"1.1"

    @property
    def interim(self) -> bool:
        return self.status < 200

    def value(self, name: bytes) -> bytes | None:
        """The value of the first field line of this name."""
        for key, value in self.fields:
            if key == name:
                return value
        return None


class BotEnd(Enum):
    """The answer is whole."""

    END = "end"


class BotTalk:
    """A bot's answer, as it comes.

    `receive` takes what came, b"" for the end of it, and `next_event` gives the answer
    piece by piece. Where a body needs no decoding its bytes may pass by: see `passing`.

    Args:
        method: of the request that is answered.
    """

    def __init__(self, method: bytes) -> None:
        self._method = method
        self._received = b""
        self._seen = 0
        self._closed = False
        self._interim = 0
        self._head: BotHead | None = None
        self._body: Body = LengthBody(0)

    @property
    def untouched(self) -> bool:
        """Whether not one byte has come."""
        return self._head is None and not self._interim and not self._received

    @property
    def body(self) -> Body:
        """How the answer's body is framed; once its head is there."""
        return self._body

    @property
    def trailers(self) -> Iterable[Field]:
        """The fields behind a chunked body; complete with its end."""
        return self._body.trailers

    def receive(self, data: bytes) -> None:
        """Take bytes of the bot, b"" when it has closed its side."""
        self._closed = self._closed or not data
        # Most answers come in one read, which is looked at where it is.
        self._received = self._received + data if self._received else data

    def next_event(self) -> BotHead | bytes | BotEnd | None:
        """The next head, piece of the body, or end; None when more has to be received.

        Raises:
            Refusal: 502, when the answer is not HTTP or the bot closed in the middle of it.
        """
        if self._head is None:
            head = self._cut_head()
            if head is None and self._closed:
                raise bot_died()
            return None if head is None else self._take_head(head)
        body = self._body
        if self._received and not body.whole:
            piece = body.take(self._received)
            self._received = body.rest
            if piece:
                return piece
        if isinstance(body, UntilClosed):
            body.whole = self._closed
        if body.whole:
            return BotEnd.END
        if body.faulty:
            raise _bad_answer("the body of the bot's answer is malformed")
        if self._closed:
            raise bot_died()
        return None

    @property
    def passing(self) -> int:
        """How many bytes the bot may send that are body as they are; 0 when they need reading.

        Whoever passes them on by himself tells `passed`.
        """
        body = self._body
        if self._head is None or self._received or isinstance(body, ChunkedBody):
            return 0
        return body.left if isinstance(body, LengthBody) else MAX_PASSING

    def passed(self, count: int) -> None:
        """So many bytes of the body have not come through `receive`."""
        if isinstance(self._body, LengthBody):
            self._body.left -= count

    def framing(self, version: bytes) -> list[Field]:
        """The framing fields of the final answer for the client (RFC 9112 section 6).

        Args:
            version: of HTTP that the client speaks.
        """
        assert self._head is not None, "only once the answer's head is there"
        length = self._head.value(b"content-length")
        if length is not None and self._head.status != 204:  # RFC 9110 section 8.6
            return [(b"content-length", b"%d" % int(length))]
        if isinstance(self._body, LengthBody):
            return []  # there is none, whatever it might have been
        if version == b"1.0":
            return []  # until the connection ends
        return [CHUNKED, *[field for field in self._head.fields if field[0] == b"trailer"]]

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request, once the answer is whole."""
        head, body = self._head, self._body
        if head is None or self._received or self._closed or not body.whole:
            return False
        if head.version != b"1.1" or isinstance(body, UntilClosed):
            return False
        for name, value in head.fields:
            if name == b"connection" and b"close" in value.lower():
                return False
        if head.status != 204:
            return True
        # A body that must not be there may come all the same, by what its fields say.
        promised = head.value(b"transfer-encoding") or head.value(b"content-length")
        return promised in (None, b"0")

    def _cut_head(self) -> bytes | None:
        data = self._received
        if not data.startswith(START[: len(data)]):
            raise _bad_answer("the bot's answer is not HTTP/1")
        start = max(0, self._seen - len(HEAD_END) + 1)
        found = data.find(HEAD_END, start, MAX_BOT_HEAD)
        if found < 0:
            _check_bytes(data, start)
            if len(data) >= MAX_BOT_HEAD:
                raise _bad_answer(f"the head of the bot's answer is over {MAX_BOT_HEAD} bytes")
            self._seen = len(data)
            return None
        stop = found + len(HEAD_END)
        self._received, self._seen = data[stop:], 0
        return data[:stop]

    def _take_head(self, raw: bytes) -> BotHead:
        head = _judge(raw)
        if not head.interim:
            self._head = head
            self._body = _body(head, self._method)
            return head
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise _bad_answer(f"the bot sent more than {MAX_INTERIM} interim answers")
        return head


# One read of a body that lasts until the connection ends, as far as `passing` is asked.
MAX_PASSING = 1 << 30


def request_head(request: Request, target: bytes, authority: str, fields: Iterable[Field]) -> bytes:
    """The head of a request to a bot, its framing made anew.

    Chunked stays chunked, a length stays that length (RFC 9112 section 6.3).

    Args:
        request: the client's request.
        target: path and query for the bot, as the client sent them.
        authority: the bot's host and port.
        fields: the others, validated, without the framing.
    """
    lines = [b"%s %s HTTP/1.1\r\nhost: %s" % (request.method, target, authority.encode())]
    lines += map(b": ".join, fields)
    if request.value(b"transfer-encoding") is not None:
        lines.append(b": ".join(CHUNKED))
    elif (length := request.value(b"content-length")) is not None:
        lines.append(b"content-length: %d" % int(length))
    return b"\r\n".join(lines) + HEAD_END


def framed_request(body: LengthBody | ChunkedBody, piece: bytes) -> bytes:
    """A piece of a request's body in the framing in which it goes to the bot.

    Args:
        body: where the piece has just been taken from.
    """
    if isinstance(body, LengthBody):
        return piece
    framed = chunk(piece) if piece else b""
    return framed + last_chunk(in_trailers(body.trailers)) if body.whole else framed


def _judge(head: bytes) -> BotHead:
    """Read a head as it was sent (RFC 9112 sections 4, 5 and 6)."""
    first, *lines = head[: -len(HEAD_END)].split(b"\r\n")
    status_line = STATUS_LINE.fullmatch(first)
    if status_line is None or FIELDS.fullmatch(head, len(first)) is None:
        _check_bytes(head, 0)  # what both take has no such byte
        if status_line is None:
            raise _bad_answer("the status line of the bot's answer is not HTTP/1.1")
        raise _bad_answer("the head of the bot's answer has a line that is no field")
    fields = fields_of(lines)
    judged = BotHead(int(status_line[2]), status_line[3] or b"", fields, status_line[1])
    if judged.status == SWITCHING:
        raise _bad_answer("the bot switched protocols without having been asked to")
    _check_framing(fields, status_line[1])
    return judged


def _check_bytes(data: bytes, start: int) -> None:
    if find_fault(data, start, len(data)):
        raise _bad_answer("the head of the bot's answer has a byte that no head may have")


def _check_framing(fields: tuple[Field, ...], version: bytes) -> None:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if codings and (lengths or version == b"1.0"):
        raise _bad_answer("the bot's answer has two framings")
    if codings and [each.lower() for each in codings] != [b"chunked"]:
        raise _bad_answer("the bot's answer has a transfer coding other than chunked")
    if len(lengths) > 1 or (lengths and not LENGTH.fullmatch(lengths[0])):
        raise _bad_answer("Content-Length of the bot's answer is not one decimal number")


def _body(head: BotHead, method: bytes) -> Body:
    """How the body of a final answer is framed (RFC 9112 section 6.3)."""
    if method == b"HEAD" or head.status in BODILESS:
        return LengthBody(0)
    if head.value(b"transfer-encoding") is not None:
        return ChunkedBody()
    length = head.value(b"content-length")
    return UntilClosed() if length is None else LengthBody(int(length))


def bot_died() -> Refusal:
    """The bot closed or reset the connection before its answer was whole."""
    return Refusal(502, "the bot closed the connection before its answer", cause="bot_died")


def _bad_answer(reason: str) -> Refusal:
    return Refusal(502, reason, cause="bot_bad_answer")
