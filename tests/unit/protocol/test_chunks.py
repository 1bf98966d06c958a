"""Chunked bodies, case by case: what is read, what is refused, and where the bounds are."""

from __future__ import annotations

import pytest

from relay.protocol.chunks import MAX_EXTENSIONS, MAX_TRAILERS, ChunkedBody

LAST = b"0\r\n\r\n"
# With its line end.
FULL_LINE = MAX_EXTENSIONS - 1


def verdict(data: bytes) -> bool | None:
    """Whether it is whole, None for a fault; the same for every way to cut it in two."""
    body = ChunkedBody()
    taken = body.take(data)
    for cut in range(1, len(data)) if len(data) < 200 else (1, len(data) // 2, len(data) - 1):
        again = ChunkedBody()
        assert again.take(data[:cut]) + again.take(data[cut:]) == taken
        assert (again.whole, again.faulty) == (body.whole, body.faulty)
    return None if body.faulty else body.whole


@pytest.mark.parametrize(
    "data",
    [
        LAST,
        b"000\r\n\r\n",
        b"5\r\nhello\r\n" + LAST,
        b"0000000000000005\r\nhello\r\n" + LAST,
        b"a\r\n\r\n\n0\r\n\r\n0\r\r\n" + LAST,
        b'1;a;b=c;d="e;\\"f\\\\"\r\n!\r\n' + LAST,
        b'0;a=""\r\n\r\n',
        b"0\r\nA: b\r\nC:\r\n\r\n",
        LAST + b"GET / HTTP/1.1\n",
    ],
)
def test_read(data: bytes) -> None:
    assert verdict(data) is True


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"g\r\n",
        b"0x5\r\n",
        b"+5\r\n",
        b"5 \r\n",
        b" 5\r\n",
        b"5_0\r\n",
        b"5\n",
        b"5\rhello\r\n",
        b"00000000000000005\r\n",
        b"5;\r\n",
        b"5;;a\r\n",
        b"5 ;a\r\n",
        b"5;a =b\r\n",
        b"5;a=\r\n",
        b'5;a="b\r\n',
        b'5;a="\r\n"\r\n',
        b"5;a\rb\r\n",
        b'5;a="\0"\r\n',
        b"5\r\nhello!\n",
        b"0\r\n\n",
        b"0\r\nA: b\n\n",
        b"0\r\nA: b\r\n c\r\n",
        b"0\r\nA : b\r\n",
        b"0\r\n: b\r\n",
        b"0\r\nA: \x01\r\n",
        b"0\r\ncontent-length: 5\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n",
        b"0\r\nHost: a\r\n",
    ],
)
def test_refused(data: bytes) -> None:
    assert verdict(data) is None


def test_bounds_of_extensions() -> None:
    line = b"1;" + b"x" * FULL_LINE
    assert verdict(line + b"\r\n") is False
    assert verdict(line + b"x\r\n") is None
    # Without a line end too: nothing is kept for longer than it may be.
    assert verdict(b"1;" + b"x" * (MAX_EXTENSIONS + 20)) is None
    # Each pays for two bytes of extension with one of data.
    paid = b"80;" + b"x" * 255 + b"\r\n" + b"y" * 128 + b"\r\n"
    assert verdict(paid * 100 + LAST) is True
    owed = b"80;" + b"x" * 256 + b"\r\n" + b"y" * 128 + b"\r\n"
    assert verdict(owed * (MAX_EXTENSIONS - 256) + LAST) is True
    assert verdict(owed * (MAX_EXTENSIONS + 1) + LAST) is None


def test_bounds_of_trailers() -> None:
    line = b"A: " + b"x" * 59 + b"\r\n"
    assert len(line) * 128 == MAX_TRAILERS
    assert verdict(b"0\r\n" + line * 128 + b"\r\n") is True
    assert verdict(b"0\r\n" + line * 129 + b"\r\n") is None
