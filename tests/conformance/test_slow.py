"""RFC 9110 section 15.5.9 and docs/http.md: senders that are slow, in a virtual time.

Each case is pieces of a client's bytes and pauses between them, in seconds, and what it is
answered when. In the same way the whole table of requests is sent in one piece and byte by
byte: no cutting makes another exchange of it.
"""

from __future__ import annotations

import pytest
import trio.testing

from tests.conformance.cases.groups import CASES
from tests.helpers.conformance import Case, chunked, post, request
from tests.helpers.conformance_run import sent_bytes, written
from tests.helpers.front import Script, talk

BASE = b"/v1/public/bot/sessions/s"


def bits(data: bytes, pause: float) -> list[bytes | float]:
    """Byte by byte, with a pause behind each."""
    return [step for at in range(len(data)) for step in (data[at : at + 1], pause)]


def asked(line: bytes = b"GET /x", *lines: bytes, body: bytes = b"") -> bytes:
    return written(request(line, *lines, body=body), BASE)


GET = asked()
CLOSE = asked(b"GET /x", b"Connection: close")
POST = written(post(b"Content-Length: 5", b"Connection: close"), BASE)
CHUNKED = written(chunked(b""), BASE)
LONG = asked(b"GET /x", b"X: " + b"x" * 200)

SLOW: list[tuple[str, Script, list[int], float]] = [
    # Name, what is sent, the answers, and the second in which the connection ends.
    ("nothing at all", [], [], 10),
    ("nothing but empty lines", [b"\r\n", 9.0, b"\r\n"], [408], 10),
    ("one byte, then nothing", [b"G"], [408], 10),
    ("one byte late, then nothing", [9.0, b"G"], [408], 19),
    ("a head that stops in its last line end", [CLOSE[:-1]], [408], 10),
    ("a head byte by byte, in time", bits(CLOSE, 9.9 / len(CLOSE)), [200], 9.9),
    ("a head byte by byte, too slow", bits(LONG, 0.1), [408], 10),
    ("bytes never cease, the head never ends", bits(b"GET /" + b"x" * 500, 0.1), [408], 10),
    ("a head that is wrong late", [CLOSE[:20], 9.0, b"\0"], [400], 9),
    ("a body in time", [POST, 9.0, b"hel", 0.9, b"lo"], [200], 9.9),
    ("a body that stops", [POST, 1.0, b"hel"], [408], 10),
    ("a body byte by byte, too slow", [POST, *bits(b"hel", 4.0)], [408], 10),
    ("a chunk size that stops", [CHUNKED, 1.0, b"5"], [408], 10),
    ("a chunk that stops", [CHUNKED, 1.0, b"5\r\nhel"], [408], 10),
    ("a last chunk that stops", [CHUNKED, 1.0, b"5\r\nhello\r\n0\r\n"], [408], 10),
    ("extensions that never end", [CHUNKED, b"5;", *bits(b"x" * 500, 0.1)], [408], 10),
    ("trailers that never end", [CHUNKED, b"0\r\n", *bits(b"X: y\r\n" * 100, 0.1)], [408], 10),
    ("a chunk size that is wrong late", [CHUNKED, 5.0, b"0", 1.0, b"x"], [400], 6),
    ("the second request is late", [GET, 74.0, CLOSE], [200, 200], 74),
    ("the second request does not come", [GET], [200], 75),
    ("the second head stops", [GET, 74.0, b"G"], [200, 408], 84),
    ("half of the second head is there with the first", [GET + CLOSE[:9], 9.0, CLOSE[9:]],
     [200, 200], 9),
    ("half of the second head is there, no more comes", [GET + CLOSE[:9]], [200, 408], 10),
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "statuses", "seconds"), [pytest.param(*row[1:], id=row[0]) for row in SLOW]
)
async def test_slow(
    autojump_clock: trio.testing.MockClock, script: Script, statuses: list[int], seconds: float
) -> None:
    found = await talk(script)
    assert found.statuses == statuses
    assert found.seconds == pytest.approx(seconds, abs=0.11)


# Longer ones are of the sizes, which have tables of their own; byte by byte they take seconds.
SHORT = [case for case in CASES if len(case.send) < 400]


def leaves_a_body(case: Case) -> bool:
    """Refused before its body was read: whether the connection goes on then depends on how much
    of the body is there (docs/http.md), and so on how it was cut."""
    return case.outcome.refused is not None and case.outcome.goes_on and b"hello" in case.send


@pytest.mark.parametrize("part", range(4))
async def test_no_cutting_makes_another_exchange(
    autojump_clock: trio.testing.MockClock, part: int
) -> None:
    for case in SHORT[part::4]:
        data = sent_bytes(case, BASE)
        whole = await talk([data])
        cut = await talk([data[at : at + 1] for at in range(len(data))])
        if leaves_a_body(case):
            assert cut.finals[:12] == whole.finals[:12], case.id  # the status
        else:
            assert (cut.finals, cut.causes) == (whole.finals, whole.causes), case.id
