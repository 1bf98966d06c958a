"""Request heads: the limits to the byte, what is kept behind a head, the cost of slow senders."""

from __future__ import annotations

import re
from typing import SupportsIndex

import pytest

from relay.errors import Refusal
from relay.protocol import http1
from relay.protocol.http1 import HeadBuffer, HeadLimits, Request, parse_request, request_body
from tests.helpers.heads import LIMITS, one_by_one, read

HOST = b"Host: a.example\r\n"


def target_line(length: int) -> bytes:
    """A request line of exactly this many bytes."""
    return b"GET /" + b"t" * (length - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"


def head_of(length: int) -> bytes:
    """A head of this many bytes, the empty line at its end not counted."""
    start = b"GET / HTTP/1.1\r\n" + HOST + b"X-Long: "
    return start + b"v" * (length - len(start)) + b"\r\n\r\n"


def fields(count: int) -> bytes:
    return b"GET / HTTP/1.1\r\n" + HOST + b"X: 1\r\n" * (count - 1) + b"\r\n"


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (target_line(LIMITS.max_target) + b"\r\n" + HOST + b"\r\n", None),
        (target_line(LIMITS.max_target + 1) + b"\r\n" + HOST + b"\r\n", (414, "target_too_long")),
        (b"A" * (LIMITS.max_target + 1), (414, "target_too_long")),
        (head_of(LIMITS.max_head), None),
        (head_of(LIMITS.max_head + 1), (431, "head_too_long")),
        (head_of(LIMITS.max_head + 5), (431, "head_too_long")),
        (head_of(LIMITS.max_head + 1)[:-4] + b"v" * 1000, (431, "head_too_long")),
        (fields(LIMITS.max_header_count), None),
        (fields(LIMITS.max_header_count + 1), (431, "too_many_headers")),
        # The fault that comes first in the stream decides, however much has arrived.
        (b"A" * 50 + b"\0" + b"A" * 200, (400, "control_byte")),
        (b"A" * 200 + b"\0", (414, "target_too_long")),
        (head_of(LIMITS.max_head + 50)[:-4] + b"\0", (431, "head_too_long")),
        (head_of(LIMITS.max_head - 50)[:-4] + b"\n" + b"v" * 1000, (400, "bare_line_end")),
    ],
)
def test_limits(data: bytes, refused: tuple[int, str] | None) -> None:
    assert read([data]).refused == refused
    assert read(one_by_one(data)).refused == refused
    assert len(read([data]).requests) == (refused is None)


def test_two_heads_and_the_beginning_of_a_third() -> None:
    head = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    buffer = HeadBuffer(LIMITS)
    buffer.feed(head + head + b"GET")
    assert (buffer.next_head(), buffer.next_head(), buffer.next_head()) == (head, head, None)
    assert len(buffer) == 3
    assert buffer.take() == b"GET"
    assert (len(buffer), buffer.take()) == (0, b"")


def test_the_limits_hold_for_every_head() -> None:
    head = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    for late in (target_line(LIMITS.max_target + 1), b"A" * (LIMITS.max_target + 1)):
        for chunks in ([head + late], [head, late], one_by_one(head + late)):
            outcome = read(chunks)
            assert outcome.heads == (head,)
            assert outcome.refused == (414, "target_too_long")


def test_what_is_behind_a_head_is_not_judged() -> None:
    """It may be a body or frames: any byte may be in it, and any number of them."""
    head = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    behind = b"\0\n\r \t\xff" * 200
    buffer = HeadBuffer(LIMITS)
    buffer.feed(head + behind)
    assert buffer.next_head() == head
    assert buffer.take() == behind


def test_a_buffer_goes_on_after_a_take() -> None:
    buffer = HeadBuffer(LIMITS)
    buffer.feed(b"\r\nGET / HT")
    assert buffer.next_head() is None
    buffer.take()
    head = target_line(LIMITS.max_target) + b"\r\n" + HOST + b"\r\n"
    for byte in one_by_one(b"\r\n\r\n" + head)[:-1]:
        buffer.feed(byte)
        assert buffer.next_head() is None
    buffer.feed(b"\n")
    assert buffer.next_head() == head


@pytest.mark.parametrize(("lines", "refused"), [(0, None), (1, None), (2, None)])
def test_empty_lines_in_front(lines: int, refused: tuple[int, str] | None) -> None:
    data = b"\r\n" * lines + b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    assert read([data]).refused == read(one_by_one(data)).refused == refused
    assert len(read([data]).requests) == 1


@pytest.mark.parametrize("lines", [3, 4, 50])
def test_too_many_empty_lines_in_front(lines: int) -> None:
    data = b"\r\n" * lines + b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    assert read([data]).refused == (400, "bad_request_line")
    assert read(one_by_one(data)).refused == (400, "bad_request_line")


def test_a_request_answers_for_its_fields() -> None:
    head = (
        b"POST /start?a=1 HTTP/1.1\r\nHost: a\r\nACCEPT: x\r\nConnection: Keep-Alive,\r\n"
        b"connection: , Upgrade \r\nContent-Length: 3\r\n\r\n"
    )
    request = parse_request(head)
    assert (request.method, request.target, request.version) == (b"POST", b"/start?a=1", b"1.1")
    assert request.values(b"accept") == [b"x"]
    assert request.value(b"accept") == b"x"
    assert (request.values(b"none"), request.value(b"none")) == ([], None)
    assert request.tokens(b"connection") == [b"keep-alive", b"upgrade"]
    assert request.has_body
    assert request_body(request).take(b"abcdef") == b"abc"


def test_lines_are_read_alike_however_often_they_come() -> None:
    for length in (1, http1.MAX_KNOWN_LINE - 10, http1.MAX_KNOWN_LINE, http1.MAX_KNOWN_LINE * 2):
        value = b"v" * length
        host = b"h" * length
        head = b"GET / HTTP/1.1\r\nHost: %s\r\nX-A: \t%s \r\nx-a:%s\r\n\r\n" % (host, value, value)
        for _ in range(2):
            fields = ((b"host", host), (b"x-a", value), (b"x-a", value))
            assert parse_request(head).headers == fields
            with pytest.raises(Refusal, match="Host"):
                parse_request(head.replace(host, b"@" + host))


@pytest.mark.parametrize(
    ("headers", "has_body"),
    [
        ((), False),
        (((b"content-length", b"0"),), False),
        (((b"content-length", b"000"),), False),
        (((b"content-length", b"10"),), True),
        (((b"transfer-encoding", b"chunked"),), True),
    ],
)
def test_has_body(headers: http1.Headers, has_body: bool) -> None:
    assert Request(b"POST", b"/", b"1.1", headers).has_body == has_body


def test_a_reason_says_what_was_expected() -> None:
    for lines, words in (
        (b"", "Host"),
        (b"Host: a\r\nHost: a\r\n", "more than one Host"),
        (b"Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n", "one decimal number"),
        (b"Host: a\r\nTransfer-Encoding: gzip\r\n", "chunked"),
    ):
        with pytest.raises(Refusal, match=words):
            parse_request(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")


class Counting(bytearray):
    """Counts the bytes that searches were allowed to look at."""

    looked = 0

    def find(
        self,
        sub: object,
        start: SupportsIndex | None = None,
        end: SupportsIndex | None = None,
        /,
    ) -> int:
        first = int(start or 0)
        found = super().find(sub, first, end)  # type: ignore[arg-type]
        last = min(len(self), int(end if end is not None else len(self)))
        self.looked += (last if found < 0 else found + 1) - first
        return found


class CountingPattern:
    """The real pattern, with the places between which it was made to search written down."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self.looked = 0

    def search(self, data: bytearray, start: int, stop: int) -> re.Match[bytes] | None:
        self.looked += max(0, stop - start)
        return self.pattern.search(data, start, stop)

    def fullmatch(self, data: bytearray, start: int, stop: int) -> re.Match[bytes] | None:
        self.looked += max(0, stop - start)
        return self.pattern.fullmatch(data, start, stop)


@pytest.mark.parametrize("line", [100, 12_000])
def test_a_head_sent_byte_by_byte_is_looked_at_once(
    line: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search sees each byte a few times, not once for every byte that follows it."""
    head = target_line(line) + b"\r\n" + HOST + b"X: " + b"v" * 12_000 + b"\r\n\r\n"
    patterns = {name: CountingPattern(getattr(http1, name)) for name in ("FAULTLESS", "FAULT")}
    for name, pattern in patterns.items():
        monkeypatch.setattr(http1, name, pattern)
    buffer = HeadBuffer(HeadLimits(20_000, 40_000, 10))
    buffer._data = data = Counting()
    for byte in one_by_one(head)[:-1]:
        buffer.feed(byte)
        assert buffer.next_head() is None
    # Two searches of find and one of each pattern, four bytes each time.
    assert 0 < data.looked <= 2 * 4 * len(head)
    for pattern in patterns.values():
        assert 0 < pattern.looked <= 4 * len(head)
