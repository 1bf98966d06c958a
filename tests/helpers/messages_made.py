"""Strategies for HTTP messages as bytes: right ones in many spellings, and what spoils them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

# What a message is damaged with: line ends, controls, spaces, separators, digits.
SPOILERS = st.sampled_from((b"\r", b"\n", b"\r\n", b"\0", b"\x0b", b" ", b"\t", b"\xff", b"x"))
SPOILERS |= st.sampled_from((b":", b",", b";", b'"', b"0", b"5", b"-", b"\r\n\r\n", b"0\r\n\r\n"))
SPOILERS |= st.sampled_from(
    (b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"GET / HTTP/1.1\r\n")
)
NAMES = (b"X-A", b"x-b", b"X-C", b"Accept", b"Cache-Control", b"X_D")
BETWEEN = (b"Keep-Alive", b"Proxy-Connection", b"Upgrade", b"Proxy-Authorization", b"keep_alive")
VALUES = st.sampled_from((b"1", b"a b", b"", b"x, y", b"h2c", b"gr\xfc\xdfe", b"timeout=5"))
BODIES = st.sampled_from((b"", b"hello", b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"))
# Without what stands for the session's path and the like (tests/helpers/conformance.py).
BODIES |= st.binary(max_size=300).map(lambda data: data.replace(b"@", b"a"))


@dataclass(frozen=True)
class Made:
    """A message's bytes and what they say.

    Attributes:
        gone: names of fields, in lower case, that must not pass.
        kept: fields that must.
    """

    data: bytes
    body: bytes
    gone: tuple[bytes, ...]
    kept: tuple[tuple[bytes, bytes], ...]


@st.composite
def framed(draw: st.DrawFn, body: bytes, *, may_be_none: bool) -> tuple[bytes, bytes]:
    """A field line of framing, perhaps none for an empty body, and the body in it."""
    if draw(st.booleans()):
        name = draw(st.sampled_from((b"Transfer-Encoding", b"transfer-ENCODING")))
        coding = draw(st.sampled_from((b"chunked", b"Chunked", b" chunked  ")))
        return b"%s:%s\r\n" % (name, coding), draw(chunked(body))
    if not body and may_be_none and draw(st.booleans()):
        return b"", b""
    zeros = b"0" * draw(st.integers(0, 3))
    return b"Content-Length: %s%d\r\n" % (zeros, len(body)), body


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    extensions = st.sampled_from((b"", b"", b";a", b';a=b;c="d;\\""'))
    data = b""
    while body:
        size = draw(st.integers(1, len(body)))
        digits = draw(st.sampled_from((b"%x", b"%X", b"00%x"))) % size
        data += digits + draw(extensions) + b"\r\n" + body[:size] + b"\r\n"
        body = body[size:]
    trailers = draw(st.sampled_from((b"", b"", b"X-Sum: 1\r\n", b"X-Sum:\r\nX-B: 2\r\n")))
    return data + b"0" + draw(extensions) + b"\r\n" + trailers + b"\r\n"


@st.composite
def messages(draw: st.DrawFn, first: bytes, *, bodiless: bool = False) -> Made:
    """A message with this first line, with fields that pass and fields that must not."""
    names = draw(st.lists(st.sampled_from(NAMES + BETWEEN), max_size=5, unique=True))
    fields = [(name, draw(VALUES)) for name in names]
    named = [name for name in names if draw(st.integers(0, 3)) == 0]
    lines = [b"%s:%s%s\r\n" % (name, draw(st.sampled_from((b" ", b"", b"\t "))), value)
             for name, value in fields]  # fmt: skip
    if named:
        spelt = [draw(st.sampled_from((name, name.lower(), b" " + name.upper()))) for name in named]
        lines.append(b"Connection: " + b",".join(spelt) + b"\r\n")
    gone = {name.lower() for name in (*named, *BETWEEN)}
    body = b"" if bodiless else draw(BODIES)
    framing, content = draw(framed(body, may_be_none=True)) if not bodiless else (b"", b"")
    lines.insert(draw(st.integers(0, len(lines))), framing)
    kept = tuple((name.lower(), value) for name, value in fields if name.lower() not in gone)
    data = first + b"\r\n" + b"".join(lines) + b"\r\n" + content
    return Made(data, body, tuple(gone), kept)


@st.composite
def spoilt(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with a few changes."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(SPOILERS) + data[place + draw(st.integers(0, 2)) :]
    return data
