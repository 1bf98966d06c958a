"""Laws of request heads: no chunking matters, what is taken has one reading."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.protocol.http1 import FAULT, HeadLimits, find_fault, parse_request
from tests.helpers.frames import cut_up
from tests.helpers.heads import LIMITS, by_h11, one_by_one, read, rebuilt

METHODS = st.sampled_from((b"GET", b"POST", b"OPTIONS", b"PURGE", b"CONNECT"))
TARGETS = st.sampled_from((b"/", b"/ws/generic/a.b?token=x%2By", b"*", b"http://a/b", b"/" * 115))
VERSIONS = st.sampled_from((b"1.1", b"1.1", b"1.1", b"1.1", b"1.0", b"2.0"))
NAMES = st.sampled_from(
    (b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"X-a", b"ACCEPT")
)
VALUES = st.sampled_from(
    (b"a", b"a.example:80", b"5", b"0", b"chunked", b"close", b"content-length", b"100-continue")
) | st.binary(max_size=4)
SPACE = st.sampled_from((b"", b" ", b"\t "))
# Fields that are right, several of them together too; of names and values by chance few are.
RIGHT = st.sampled_from((b"X-a: b", b"ACCEPT:\t*/* ", b"X-a:", b"Connection: close", b"X-b: \xff,"))
# What a head is damaged with: line ends, controls, spaces and ordinary bytes.
SPOILERS = st.sampled_from(
    (b"\r", b"\n", b"\r\n", b"\0", b"\x01", b"\x7f", b" ", b"\t", b":", b",", b"\xff", b"x")
)
CUTS = st.lists(st.integers(0, 1500), max_size=10)
# The bounds are close to these heads, so that both of their sides are reached.
BOUNDS = st.builds(HeadLimits, st.integers(16, 130), st.integers(140, 260), st.integers(1, 5))


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A head that is mostly right."""
    lines = [b"%s %s HTTP/%s" % (draw(METHODS), draw(TARGETS), draw(VERSIONS))]
    if draw(st.integers(0, 9)):
        lines.append(b"Host:" + draw(SPACE) + b"a.example")
    field = st.tuples(NAMES, st.just(b":"), SPACE, VALUES, SPACE).map(b"".join)
    lines += draw(st.lists(RIGHT, max_size=4) | st.lists(RIGHT | field, max_size=4))
    return b"\r\n".join((*lines, b"", b""))


@st.composite
def wire(draw: st.DrawFn) -> bytes:
    """Heads one behind the other, some of them damaged, with empty lines between them."""
    data = b""
    for _ in range(draw(st.integers(1, 3))):
        head = draw(heads())
        for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 2)))):
            place = draw(st.integers(0, len(head)))
            head = head[:place] + draw(SPOILERS) + head[place + draw(st.integers(0, 2)) :]
        data += b"\r\n" * draw(st.sampled_from((0, 0, 0, 1, 2, 3))) + head
    return data


@given(wire(), st.integers(0, 300), st.integers(0, 300))
def test_the_quick_look_sees_the_faults_that_the_search_sees(
    data: bytes, start: int, length: int
) -> None:
    stop = start + length
    found = FAULT.search(data, start, stop - data.endswith(b"\r", 0, stop))
    assert find_fault(bytearray(data), start, stop) == (found and found.lastgroup)


@given(wire(), BOUNDS, CUTS)
def test_no_chunking_makes_a_difference(data: bytes, limits: HeadLimits, cuts: list[int]) -> None:
    whole = read([data], limits)
    assert read(cut_up(data, cuts), limits) == whole
    assert read(one_by_one(data), limits) == whole


def test_some_are_taken() -> None:
    """Guards the laws below against requests that are all refused."""
    as_they_come = settings(phases=[Phase.generate], max_examples=1000, database=None)
    find(wire(), lambda data: len(read([data]).requests) > 1, settings=as_they_come)


@given(wire())
def test_what_is_taken_has_one_reading(data: bytes) -> None:
    """h11 alone reads the same, and what is written anew is the same request again."""
    outcome = read([data])
    for head, request in zip(outcome.heads, outcome.requests, strict=True):
        event = by_h11(head)
        assert (event.method, event.target, event.http_version) == (
            request.method,
            request.target,
            request.version,
        )
        assert tuple(event.headers) == request.headers
        again = read([rebuilt(request)])
        assert again.requests == (request,)
        assert again.heads == (rebuilt(request),)


@given(wire())
def test_what_is_taken_keeps_every_field_line(data: bytes) -> None:
    """No line was joined, dropped or rewritten on the way, except for spaces around values."""
    outcome = read([data])
    for head, request in zip(outcome.heads, outcome.requests, strict=True):
        lines = head.split(b"\r\n")[1:-2]
        sent = [line.partition(b":") for line in lines]
        kept = [(name, value.lower()) for name, value in request.headers]
        assert [(name.lower(), value.strip(b" \t").lower()) for name, _, value in sent] == kept


@given(wire())
def test_what_is_taken_has_one_host_and_one_framing(data: bytes) -> None:
    for request in read([data]).requests:
        hosts, lengths = request.values(b"host"), request.values(b"content-length")
        codings = request.values(b"transfer-encoding")
        assert request.version in (b"1.0", b"1.1")
        assert len(hosts) == 1 or (request.version == b"1.0" and not hosts)
        assert len(lengths) + len(codings) <= 1
        assert all(length.isdigit() for length in lengths)
        assert all(coding.lower() == b"chunked" for coding in codings)


@given(st.lists(st.binary(max_size=60) | SPOILERS, max_size=12))
def test_arbitrary_bytes_are_read_or_refused(chunks: list[bytes]) -> None:
    read(chunks)


@given(st.binary(max_size=80) | wire())
def test_arbitrary_bytes_as_a_head_are_parsed_or_refused(head: bytes) -> None:
    with suppress(Refusal):
        parse_request(head)


@given(heads(), SPOILERS, st.integers(0, 1000))
def test_no_limit_is_passed(head: bytes, spoiler: bytes, count: int) -> None:
    data = head[:-4] + spoiler * count + b"\r\n\r\n"
    for taken in read([data]).heads:
        line, *lines = taken.removesuffix(b"\r\n\r\n").split(b"\r\n")
        assert len(line) <= LIMITS.max_target
        assert len(taken) <= LIMITS.max_head + 4
        assert len(lines) <= LIMITS.max_header_count
