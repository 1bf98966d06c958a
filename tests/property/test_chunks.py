"""Laws of chunked bodies: no cut matters, h11 reads the same, what is written is read back."""

from __future__ import annotations

import h11
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.chunks import ChunkedBody, chunk, last_chunk
from tests.helpers.frames import cut_up
from tests.helpers.heads import one_by_one

DATA = st.binary(min_size=1, max_size=40)
FIELDS = st.lists(
    st.tuples(st.sampled_from((b"x-sum", b"a")), st.sampled_from((b"", b"1", b"a b"))), max_size=3
)
EXTENSIONS = st.sampled_from((b"", b"", b";a", b";a=b", b';a="b;\\" "', b"; a", b";", b";a=", b" "))
SPOILERS = st.sampled_from((b"\r", b"\n", b"\r\n", b"0", b"f", b";", b" ", b"\0", b"-", b":", b""))
CUTS = st.lists(st.integers(0, 300), max_size=8)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A chunked body that is mostly right, and something behind it."""
    data = b""
    for piece in draw(st.lists(DATA, max_size=4)):
        data += b"%x%s\r\n%s\r\n" % (len(piece), draw(EXTENSIONS), piece)
    data += last_chunk(draw(FIELDS))
    for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(SPOILERS) + data[place + draw(st.integers(0, 2)) :]
    return data + draw(st.sampled_from((b"", b"GET", b"\r\n")))


def read(pieces: list[bytes]) -> tuple[bytes, bool, bool, list[tuple[bytes, bytes]], bytes]:
    body, data, rest = ChunkedBody(), b"", b""
    for piece in pieces:
        if body.whole:
            rest += piece
        else:
            data += body.take(piece)
            rest += body.rest
    return data, body.whole, body.faulty, body.trailers if body.whole else [], rest


def by_h11(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data
    )
    assert isinstance(connection.next_event(), h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return body, list(event.headers), connection.trailing_data[0]


@given(bodies(), CUTS)
def test_no_cut_matters(data: bytes, cuts: list[int]) -> None:
    whole = read([data])
    assert read(cut_up(data, cuts)) == whole
    assert read(one_by_one(data)) == whole


@given(bodies())
def test_what_is_taken_h11_reads_in_the_same_way(data: bytes) -> None:
    body, whole, _, trailers, rest = read([data])
    if whole:
        assert by_h11(data) == (body, trailers, rest)


@given(st.lists(DATA, max_size=5), FIELDS)
def test_what_is_written_is_read_back(
    pieces: list[bytes], trailers: list[tuple[bytes, bytes]]
) -> None:
    data = b"".join(map(chunk, pieces)) + last_chunk(trailers)
    assert read([data, b"next"]) == (b"".join(pieces), True, False, trailers, b"next")


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    read(one_by_one(data))
