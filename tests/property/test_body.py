"""Laws of the body: each spelling of JSON is read as that JSON, nothing else is read."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode

from hypothesis import assume, given
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.protocol.body import MAX_BODY, decode_body, encode_body, quote_body

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS: st.SearchStrategy[dict[str, object]] = st.dictionaries(
    st.text(max_size=8), JSON, max_size=4
)
# Enough of base64, of its near misses and of escapes that random texts get far.
NEAR = st.text(alphabet="AQIeyJ9MzbnVs012+/-_= %5%2B%3D{}[]\n\xe9", max_size=40)


def as_sent(text: str, draw: st.DrawFn) -> bytes:
    """One of the spellings in which the text may arrive."""
    if draw(st.booleans()):
        text = text.rstrip("=")
    if draw(st.booleans()):
        text = text.replace("+", "-").replace("/", "_")
    form = draw(st.sampled_from(["+", " ", "%20", "%2B", "%2b"]))
    escaped = draw(st.sets(st.sampled_from("/=-_abcXYZ0129")))
    return "".join(
        form if char == "+" else f"%{ord(char):02X}" if char in escaped else char for char in text
    ).encode()


@st.composite
def spellings(draw: st.DrawFn) -> tuple[bytes, str]:
    data = json.dumps(draw(JSON), ensure_ascii=draw(st.booleans())).encode()
    assume(len(data) <= MAX_BODY)
    text = b64encode(data).decode()
    return as_sent(text, draw), text


@st.composite
def encoded(draw: st.DrawFn) -> tuple[bytes, dict[str, object], str]:
    value = draw(OBJECTS)
    text = encode_body(value)
    return as_sent(text, draw), value, text


def outcome(raw: bytes) -> str | Refusal | None:
    """What is read, or the refusal; any other exception fails the test."""
    try:
        return decode_body([raw])
    except Refusal as refusal:
        return refusal


def is_canonical_json(text: str) -> bool:
    """An independent reading of what may be returned."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    data = b64decode(text, validate=True)
    json.loads(data.decode("utf-8"), parse_constant=refuse)
    return b64encode(data).decode() == text and len(data) <= MAX_BODY


@given(spellings())
def test_every_spelling_of_json_is_read_as_that_json(sample: tuple[bytes, str]) -> None:
    sent, text = sample
    assert decode_body([sent]) == text


@given(encoded())
def test_what_start_returns_comes_back_from_the_url(
    sample: tuple[bytes, dict[str, object], str],
) -> None:
    sent, value, text = sample
    assert decode_body([sent]) == text
    assert json.loads(b64decode(text)) == value


@given(st.binary(max_size=60) | NEAR.map(str.encode) | st.binary(max_size=40).map(b64encode))
def test_nothing_but_json_is_read(raw: bytes) -> None:
    read = outcome(raw)
    if isinstance(read, Refusal):
        assert read.status in (400, 413)
    else:
        assert read is None or is_canonical_json(read)


@given(spellings(), st.data())
def test_a_changed_byte_is_refused_or_is_another_spelling_of_json(
    sample: tuple[bytes, str], data: st.DataObject
) -> None:
    sent = bytearray(sample[0])
    assume(sent)
    sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    read = outcome(bytes(sent))
    assert read is None or isinstance(read, Refusal) or is_canonical_json(read)


@given(st.text(alphabet='[]{}",:\\a1 ', max_size=60).map(lambda text: text * 40))
def test_no_nesting_breaks_the_parser(text: str) -> None:
    read = outcome(b64encode(text.encode()))
    if isinstance(read, Refusal):
        assert read.cause in ("body_not_json", "body_too_deep")


@given(spellings())
def test_the_form_toward_a_bot_is_read_as_the_same_body(sample: tuple[bytes, str]) -> None:
    _, text = sample
    assert decode_body([quote_body(text).encode()]) == text
