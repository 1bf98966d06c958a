"""Request heads, stricter than h11: what a front door that forwards may accept (docs/http.md).

h11 is a lenient parser for endpoints: it takes a bare line feed for a line end,
joins folded lines, collapses equal Content-Lengths and lets Transfer-Encoding win
over Content-Length. Any of these lets two parsers in a row see two different
requests, so they are refused here.

Theory of operation
   `HeadBuffer` cuts one head out of what was received, within limits, and refuses
   bytes that no head may contain. Its verdict is that of the shortest prefix that
   can be refused, so it does not depend on how the bytes were cut into reads.
   `parse_request` reads the lines as they were sent: nothing is joined, dropped or
   rewritten. What it takes, h11 takes too and reads in the same way, which
   `tests/property/test_http1.py` shows; h11 itself is not asked, since it needs five
   times as long. `request_body` says how the body is framed.
"""

from __future__ import annotations

__all__ = [
    "HeadBuffer",
    "HeadLimits",
    "Request",
    "fields_of",
    "find_fault",
    "parse_request",
    "request_body",
]

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

import msgspec

from relay.errors import Refusal
from relay.protocol.chunks import ChunkedBody, LengthBody

Headers = tuple[tuple[bytes, bytes], ...]

# RFC 9112 section 2.2: a server should ignore at least one empty line before a request.
MAX_LEADING_LINES = 2

# What no head may contain, by the first place where it can be known: a line feed or a
# carriage return alone, a folded line, and all but field content, which is visible
# ASCII, space, tab and obs-text (RFC 9110 section 5.5).
FAULT = re.compile(
    rb"(?P<bare_line_end>(?<!\r)\n|\r(?!\n))"
    rb"|(?P<folded_header>\r\n[ \t])"
    rb"|(?P<control_byte>[^\t\r\n\x20-\x7e\x80-\xff])"
)
FAULTS = {
    "bare_line_end": "lines must end with CR LF",
    "folded_header": "folded header lines are not accepted",
    "control_byte": "the request head contains a control byte",
}
# What has none of them, in a sixth of the time that the search takes: most heads are right.
FAULTLESS = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+(?:\r\n(?![ \t])[\t\x20-\x7e\x80-\xff]*+)*+")
HEAD_END = b"\r\n\r\n"
# What says where a request's body ends, and when it is sent.
FRAMING = frozenset((b"content-length", b"expect", b"transfer-encoding"))
LENGTH = re.compile(rb"[0-9]{1,18}")
# RFC 9112 section 3.2: uri-host with an optional port; userinfo is not allowed. Nobody's name
# has what RFC 3986 section 3.2.2 calls sub-delims, and a comma would make it two names.
HOST = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9\-._~]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?"
)
MAX_PORT = 65535
# Longer lines and names are judged anew each time, so that what is kept of them is bounded.
MAX_KNOWN_LINE = 128
# A tab is allowed there (RFC 9110 section 5.5), but not every parser takes it away, and one
# that does not sees no framing.
TAB_BESIDE_FRAMING = re.compile(
    rb"\r\n(content-length|transfer-encoding):(?: *\t|[^\r\n]*\t *\r)", re.IGNORECASE
)
# Every line behind the first one: a name, a colon at once, field content (RFC 9112 section 5).
FIELDS = re.compile(rb"\r\n(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n")
TARGET = re.compile(rb"[\x21-\x7e]+")
REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^ ]+) HTTP/([0-9]\.[0-9])")


class HeadLimits(msgspec.Struct, frozen=True, gc=False):
    """Bounds on a request head in bytes and field lines; reasons are in `policy.catalog`."""

    max_target: int
    max_head: int
    max_header_count: int


class Request(msgspec.Struct, frozen=True, gc=False):
    """A request head that passed every rule; field names are lower case."""

    method: bytes
    target: bytes
    version: bytes
    headers: Headers

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field line of this name, in order."""
        return [value for key, value in self.headers if key == name]

    def value(self, name: bytes) -> bytes | None:
        """The value of the first field line of this name."""
        for key, value in self.headers:  # a tenth of the time of a generator
            if key == name:
                return value
        return None

    def tokens(self, name: bytes) -> list[bytes]:
        """The members of a comma-separated field over all its lines, in lower case."""
        members = []
        for key, value in self.headers:
            if key == name:
                members += [part.strip().lower() for part in value.split(b",")]
        return [member for member in members if member] if members else members

    @property
    def has_body(self) -> bool:
        return (
            self.value(b"transfer-encoding") is not None
            or (self.value(b"content-length") or b"0").strip(b"0") != b""
        )


class HeadBuffer:
    """What was received and not yet used: cuts one head after the other from its front.

    Bytes are looked at once, so a client that sends its head a byte at a time costs
    no more than one that sends it whole.

    Attributes:
        limits: may be changed between two heads.
    """

    def __init__(self, limits: HeadLimits) -> None:
        self.limits = limits
        self._data = bytearray()
        self._seen = 0
        self._leading = 0
        self._line_ended = False

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self) -> bytes:
        """Everything that is left: the bytes behind the last head."""
        data = bytes(self._data)
        self._data.clear()
        self._start_anew()
        return data

    def next_head(self) -> bytes | None:
        """Cut the next head, with its empty line, from the front; None for "not yet".

        Raises:
            Refusal: 400 for bytes that no head may contain, 414 for a request line and 431
                for a head that is too long. The connection can't be used afterwards.
        """
        data, limits = self._data, self.limits
        while data.startswith(b"\r\n") and self._leading < MAX_LEADING_LINES:
            del data[:2]
            self._leading += 1
        # A pattern may begin in the last three bytes seen before.
        start = max(0, self._seen - 3)
        longest = limits.max_head + len(HEAD_END)
        end = data.find(HEAD_END, start, longest)
        stop = end + len(HEAD_END) if end >= 0 else min(len(data), longest)
        self._check_line(start, stop)
        _check_bytes(data, start, stop)
        if end < 0:
            if stop == longest:
                reason = f"the request head is longer than {limits.max_head} bytes"
                raise _refusal(431, reason, "head_too_long")
            self._seen = len(data)
            return None
        head = bytes(data[:stop])
        if head.count(b"\r\n") - 2 > limits.max_header_count:
            reason = f"more than {limits.max_header_count} header fields"
            raise _refusal(431, reason, "too_many_headers")
        del data[:stop]
        self._start_anew()
        return head

    def _check_line(self, start: int, stop: int) -> None:
        """Refuse a request line over the limit, or a fault that stands before its excess."""
        limit = self.limits.max_target
        if not self._line_ended:
            self._line_ended = self._data.find(b"\r\n", start, limit + 2) >= 0
        if self._line_ended:
            return
        undecided = self._data.endswith(b"\r", 0, stop)
        if stop - undecided > limit:
            _check_bytes(self._data, start, limit + 1)
            reason = f"the request line is longer than {limit} bytes"
            raise _refusal(414, reason, "target_too_long")

    def _start_anew(self) -> None:
        self._seen = self._leading = 0
        self._line_ended = False


def parse_request(head: bytes) -> Request:
    """Parse one head; names come in lower case, values without the spaces around them.

    Args:
        head: as `HeadBuffer` cut it.

    Raises:
        Refusal: 400, 417, 501 or 505, with the reason; the connection has to be closed.
    """
    first, *lines = head[: -len(HEAD_END)].split(b"\r\n")
    line = REQUEST_LINE.fullmatch(first)
    if line is None:
        raise _refusal(400, "the request line is not METHOD TARGET HTTP/1.1", "bad_request_line")
    request = Request(line[1], line[2], line[3], fields_of(lines))
    _check_version_and_host(request)
    _check_framing(request)
    if b"\t" in head:
        _check_tabs(head)
    if TARGET.fullmatch(request.target) is None or FIELDS.fullmatch(head, len(first)) is None:
        raise _refusal(400, "the request head is not valid HTTP/1.1", "bad_head")
    return request


def fields_of(lines: list[bytes]) -> Headers:
    """Field lines that `FIELDS` takes: names in lower case, values without spaces around them."""
    return tuple([_known_field(x) if len(x) <= MAX_KNOWN_LINE else _field(x) for x in lines])


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


# Heads differ, most of their lines do not: who asks again says the same of itself.
_known_field = lru_cache(maxsize=1024)(_field)


def _check_tabs(head: bytes) -> None:
    found = TAB_BESIDE_FRAMING.search(head)
    if found is None:
        return
    if found[1].lower() == b"content-length":
        raise _refusal(400, "Content-Length has a tab beside it", "bad_length")
    raise _refusal(501, "Transfer-Encoding has a tab beside it", "transfer_coding")


def request_body(request: Request) -> LengthBody | ChunkedBody:
    """How the body behind a head is framed (RFC 9112 section 6.3)."""
    if request.value(b"transfer-encoding") is not None:
        return ChunkedBody()
    return LengthBody(int(request.value(b"content-length") or 0))


def find_fault(data: bytes | bytearray, start: int, stop: int) -> str | None:
    """The name of the first of `FAULTS` that begins between two places of a head, if any."""
    # A carriage return at the end is no fault yet: the line feed may be under way.
    stop -= data.endswith(b"\r", 0, stop)
    if FAULTLESS.fullmatch(data, start, stop):
        return None
    # Looking behind sees the bytes in front of `start`: a slice would not.
    fault = FAULT.search(data, start, stop)
    return fault and fault.lastgroup


def _check_bytes(data: bytearray, start: int, stop: int) -> None:
    cause = find_fault(data, start, stop)
    if cause is not None:
        raise _refusal(400, FAULTS[cause], cause)


def _check_version_and_host(request: Request) -> None:
    if request.version not in (b"1.0", b"1.1"):
        raise _refusal(505, "only HTTP/1.0 and HTTP/1.1 are spoken here", "http_version")
    hosts = request.values(b"host")
    if len(hosts) > 1:
        raise _refusal(400, "more than one Host field", "bad_host")
    if hosts:
        known = len(hosts[0]) <= MAX_KNOWN_LINE
        right = (_is_known_host if known else _is_host)(hosts[0])
    else:
        right = request.version == b"1.0"
    if not right:
        raise _refusal(400, "the Host field is not a host with an optional port", "bad_host")
    if request.method == b"CONNECT":
        raise _refusal(501, "CONNECT is not offered here", "method_not_implemented")


def _is_host(value: bytes) -> bool:
    found = HOST.fullmatch(value)
    if found is None or int(found[2] or 0) > MAX_PORT:
        return False
    if found[1] is not None:
        try:
            IPv6Address(found[1].decode("ascii"))
        except AddressValueError:
            return False
    return True


_is_known_host = lru_cache(maxsize=512)(_is_host)


def _check_framing(request: Request) -> None:
    """One framing, spelt plainly (RFC 9112 section 6.3; decision: both at once is 400)."""
    if FRAMING.isdisjoint([name for name, _ in request.headers]):
        return
    lengths = request.values(b"content-length")
    codings = request.values(b"transfer-encoding")
    if codings and lengths:
        raise _refusal(400, "both Content-Length and Transfer-Encoding", "two_framings")
    if codings and request.version == b"1.0":
        raise _refusal(400, "Transfer-Encoding in an HTTP/1.0 request", "two_framings")
    if codings and (len(codings) > 1 or codings[0].lower() != b"chunked"):
        raise _refusal(501, "the only transfer coding offered is chunked", "transfer_coding")
    if len(lengths) > 1 or (lengths and not LENGTH.fullmatch(lengths[0])):
        raise _refusal(400, "Content-Length must be one decimal number", "bad_length")
    if lengths and b"content-length" in request.tokens(b"connection"):
        raise _refusal(400, "Connection names Content-Length", "bad_connection_field")
    expectations = request.tokens(b"expect")
    if expectations and expectations != [b"100-continue"]:
        raise _refusal(417, "the only expectation offered is 100-continue", "expectation")


def _refusal(status: int, reason: str, cause: str) -> Refusal:
    return Refusal(status, reason, cause=cause, close=True)
