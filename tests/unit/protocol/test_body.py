"""The body's table: every spelling that is read, every fault that is named."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from relay.errors import Refusal
from relay.protocol.body import MAX_BODY, MAX_DEPTH, decode_body, encode_body, quote_body

# Its base64 has both characters in which the alphabets differ, and padding.
JSON_TEXT = b'{"a":"???>>>\xc3\xbe"}'
CANONICAL = b64encode(JSON_TEXT).decode()


def spelt(data: bytes) -> bytes:
    return b64encode(data)


def of_size(size: int) -> bytes:
    return b'"' + b"a" * (size - 2) + b'"'


def refusal_of(*values: bytes, limit: int = MAX_BODY) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decode_body(values, limit)
    return caught.value


def test_the_sample_tells_the_alphabets_apart() -> None:
    assert "+" in CANONICAL
    assert "/" in CANONICAL
    assert CANONICAL.endswith("=")


@pytest.mark.parametrize("values", [(), (b"",), (b"undefined",), (b"%75ndefined",)])
def test_absent(values: tuple[bytes, ...]) -> None:
    assert decode_body(values) is None


@pytest.mark.parametrize(
    "text",
    [
        CANONICAL,
        CANONICAL.rstrip("="),
        CANONICAL.replace("+", "%2B"),
        CANONICAL.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d"),
        CANONICAL.replace("+", " "),
        CANONICAL.replace("+", "%20"),
        CANONICAL.replace("+", "-").replace("/", "_"),
        CANONICAL.replace("+", "-").replace("/", "_").rstrip("="),
        "".join(f"%{ord(c):02x}" for c in CANONICAL),
    ],
)
def test_spellings(text: str) -> None:
    assert decode_body([text.encode()]) == CANONICAL


@pytest.mark.parametrize(
    "data",
    [b"null", b"0", b'""', b"[]", b" {} \n", b'{"a":1,"a":2}', b"1e999", b'"\\ud800"', b"1" * 4096],
)
def test_any_json_value_is_a_body(data: bytes) -> None:
    assert decode_body([spelt(data)]) == spelt(data).decode()


@pytest.mark.parametrize(
    ("value", "status", "cause"),
    [
        (b"%", 400, "body_bad_percent"),
        (b"e3%3", 400, "body_bad_percent"),
        (b"e3%0x", 400, "body_bad_percent"),
        (b"e30%253D", 400, "body_not_base64"),
        (b"e3\xc30", 400, "body_not_base64"),
        (b"e30\n", 400, "body_not_base64"),
        (b"e30%00", 400, "body_not_base64"),
        (b"+/-_", 400, "body_mixed_alphabets"),
        (b" _aa", 400, "body_mixed_alphabets"),
        (b"e", 400, "body_bad_length"),
        (b"e30=e", 400, "body_bad_length"),
        (b"=", 400, "body_bad_padding"),
        (b"====", 400, "body_bad_padding"),
        (b"e30==", 400, "body_bad_padding"),
        (b"e=30", 400, "body_bad_padding"),
        (b"MA=", 400, "body_bad_padding"),
        (b"bnVsbA===", 400, "body_bad_padding"),
        (b"MTIz====", 400, "body_bad_padding"),
        (b"e31=", 400, "body_trailing_bits"),
        (b"MB", 400, "body_trailing_bits"),
        (spelt(b"\xff\xfe"), 400, "body_not_utf8"),
        (spelt(b'"\xed\xa0\x80"'), 400, "body_not_utf8"),
        (spelt(b"{"), 400, "body_not_json"),
        (spelt(b" "), 400, "body_not_json"),
        (spelt(b"{}{}"), 400, "body_not_json"),
        (spelt(b"{'a':1}"), 400, "body_not_json"),
        (spelt(b"01"), 400, "body_not_json"),
        (spelt(b'"\n"'), 400, "body_not_json"),
        (spelt(b"\xef\xbb\xbf{}"), 400, "body_not_json"),
        (spelt(b"NaN"), 400, "body_not_finite"),
        (spelt(b"[Infinity]"), 400, "body_not_finite"),
        (spelt(b'{"a":-Infinity}'), 400, "body_not_finite"),
        (spelt(b"[" * 101 + b"]" * 101), 400, "body_too_deep"),
        (spelt(b"[" * 4096), 400, "body_too_deep"),
        (spelt(b'{"a":' * 800), 400, "body_too_deep"),
        (spelt(of_size(MAX_BODY + 1)), 413, "body_too_large"),
        (b"A" * 1_000_000, 413, "body_too_large"),
        (b"%" * 1_000_000, 413, "body_too_large"),
    ],
)
def test_refusals(value: bytes, status: int, cause: str) -> None:
    refusal = refusal_of(value)
    assert (refusal.status, refusal.cause) == (status, cause)
    assert "body" in refusal.reason


def test_a_repeated_body_is_refused_even_when_both_are_the_same() -> None:
    refusal = refusal_of(b"e30", b"e30")
    assert (refusal.status, refusal.cause) == (400, "body_repeated")
    assert refusal_of(b"", b"").cause == "body_repeated"


@pytest.mark.parametrize("size", [MAX_BODY - 2, MAX_BODY - 1, MAX_BODY])
def test_the_limit_is_inclusive_in_the_longest_spelling(size: int) -> None:
    plain = spelt(of_size(size))
    escaped = b"".join(b"%%%02X" % byte for byte in plain)
    assert decode_body([escaped]) == plain.decode()


@pytest.mark.parametrize("size", [MAX_BODY + 1, MAX_BODY + 2, MAX_BODY + 3, MAX_BODY + 100])
def test_beyond_the_limit_counts_bytes_not_characters(size: int) -> None:
    assert refusal_of(spelt(of_size(size)).rstrip(b"=")).status == 413


def test_a_limit_of_its_own() -> None:
    assert decode_body([spelt(b"[1]")], limit=3) == "WzFd"
    assert refusal_of(spelt(b"[12]"), limit=3).cause == "body_too_large"


def test_nesting_up_to_the_bound_is_read() -> None:
    data = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert decode_body([spelt(data)]) == spelt(data).decode()


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b",".join([b"[]"] * 500) + b"]",
        b'"' + b"[" * 1000 + b'"',
        b"[[]," + b"[" * (MAX_DEPTH - 1) + b"]" * MAX_DEPTH,
        b'["\\"' + b"{" * 1000 + b'\\\\",[]]',
    ],
)
def test_many_brackets_are_not_deep(data: bytes) -> None:
    assert decode_body([spelt(data)]) == spelt(data).decode()


def test_an_open_string_of_escapes_is_read_once() -> None:
    # Searching anew behind each quote would take the square of the length.
    data = b"[" * 101 + b'"' + b'\\"' * 1990
    assert refusal_of(spelt(data)).cause == "body_too_deep"
    shallow = b"[]" * 101 + b'"' + b'\\"' * 1900
    assert refusal_of(spelt(shallow)).cause == "body_not_json"


@pytest.mark.parametrize("text", [CANONICAL, "a+b/c==", ""])
def test_only_the_plus_is_quoted(text: str) -> None:
    quoted = quote_body(text)
    assert quoted == text.replace("+", "%2B")
    assert quoted.count("/") == text.count("/")


def test_encoding_is_compact_utf8() -> None:
    assert (
        encode_body({"a": "þ", "b": [1, None]}) == spelt('{"a":"þ","b":[1,null]}'.encode()).decode()
    )
    assert encode_body({}) == "e30="


def test_the_largest_body_is_encoded() -> None:
    value: dict[str, object] = {"a": "x" * (MAX_BODY - len('{"a":""}'))}
    text = encode_body(value)
    assert decode_body([text.encode()]) == text


def deep(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_the_deepest_body_is_encoded() -> None:
    text = encode_body(deep(MAX_DEPTH))
    assert decode_body([text.encode()]) == text


@pytest.mark.parametrize(
    ("value", "status", "cause"),
    [
        ({"a": "x" * MAX_BODY}, 413, "body_too_large"),
        ({"a": "þ" * (MAX_BODY // 2)}, 413, "body_too_large"),
        ({"a": float("nan")}, 400, "body_not_json"),
        ({"a": float("inf")}, 400, "body_not_json"),
        ({"a": json.loads("-1e999")}, 400, "body_not_json"),
        ({"a": "\ud800"}, 400, "body_not_utf8"),
        ({"\udfff": 1}, 400, "body_not_utf8"),
        (deep(MAX_DEPTH + 1), 400, "body_too_deep"),
        (deep(100_000), 400, "body_too_deep"),
    ],
)
def test_encoding_refusals(value: dict[str, object], status: int, cause: str) -> None:
    with pytest.raises(Refusal) as caught:
        encode_body(value)
    assert (caught.value.status, caught.value.cause) == (status, cause)
