"""The session's body: JSON that travels as base64 in the query of the WebSocket URL.

Theory: callers spell one value in many ways. Both base64 alphabets, with or without
padding, raw or percent-encoded, and with spaces where somebody decoded a plus. Each
spelling of a body becomes one canonical text, and nothing that is not a spelling of
JSON becomes anything: a bot that drops what it cannot decode would run without its
body, and nobody would be told.

Laws:
- `decode_body` of any spelling of `encode_body(value)` is `encode_body(value)`.
- Whatever `decode_body` returns is canonical base64 (RFC 4648 sections 4 and 3.5) of
  JSON (RFC 8259) in UTF-8 within the limit.
- No work is done on a value that is too long to be a body.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from relay.errors import Refusal
from relay.protocol.target import bad_escape

__all__ = ["MAX_BODY", "MAX_DEPTH", "decode_body", "encode_body", "quote_body"]

# Bytes of JSON: the public contract's 4 KB, which as base64 fits the request line of
# 8192 bytes that bot servers read.
MAX_BODY = 4096
# Arrays and objects within each other: deeper than any body that people write, and
# far from the recursion limit of the parser here and of the one in the bot.
MAX_DEPTH = 100

# A percent-encoded character takes three bytes of the query.
ESCAPED_WIDTH = 3

_FOREIGN = re.compile(rb"[^-A-Za-z0-9+/_=]")
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
# A string is taken whole, even when it is not closed: each character is seen once.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[\[\]{}]', re.DOTALL)


def decode_body(values: Sequence[bytes], limit: int = MAX_BODY) -> str | None:
    """Read the `body` of a WebSocket URL.

    Args:
        values: the value of each `body` parameter, as sent (still percent-encoded).
        limit: the most bytes of JSON.

    Returns:
        Standard, padded base64 of the JSON bytes, or None when there is no body: no
        value, an empty one, or the `undefined` that JavaScript writes for nothing.

    Raises:
        Refusal: 400 for a repeated, wrongly encoded or non-JSON body, 413 for one
            that is larger than the limit.
    """
    if len(values) > 1:
        _refuse("repeated", f"the query has {len(values)} body parameters; expected at most one")
    text = _unescaped(values[0], limit) if values else b""
    if text in (b"", b"undefined"):
        return None
    data = _from_base64(text, limit)
    _check_json(data)
    return b2a_base64(data, newline=False).decode("ascii")


def encode_body(value: dict[str, object]) -> str:
    """The base64 text of an object as compact UTF-8 JSON, as /start returns it.

    Raises:
        Refusal: as `compact_json`, with `MAX_BODY` for a limit.
    """
    return b2a_base64(compact_json(value, MAX_BODY), newline=False).decode("ascii")


def compact_json(value: dict[str, object], limit: int) -> bytes:
    """An object as compact UTF-8 JSON.

    Raises:
        Refusal: 413 when the JSON has more than `limit` bytes; 400 when it cannot
            be written (numbers that are not finite, lone surrogates, deep nesting).
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        _refuse("not_utf8", "a text in the body has half of a surrogate pair; expected Unicode")
    except ValueError:
        _refuse("not_json", "a number in the body is NaN, infinite or too long; JSON has none such")
    except RecursionError:
        _refuse_depth()
    if len(data) > limit:
        _refuse_size(limit)
    _check_depth(text)
    return data


def quote_body(base64_text: str) -> str:
    """The text as it stands in the query toward a bot: `+` escaped, nothing else.

    A bot's form decoding would turn `+` into a space; `/` and `=` may stand in a query
    (RFC 3986 section 3.4), and escaping them would waste the bot's request line.
    """
    return base64_text.replace("+", "%2B")


def _unescaped(raw: bytes, limit: int) -> bytes:
    """The value without percent-encoding; a space stands for the plus it once was."""
    if len(raw) > ESCAPED_WIDTH * _base64_length(limit):
        _refuse_size(limit)
    at = bad_escape(raw)
    if at is not None:
        _refuse(
            "bad_percent",
            f"the % at byte {at} of the body parameter has no two hexadecimal digits behind it",
        )
    return unquote_to_bytes(raw).replace(b" ", b"+")


def _base64_length(size: int) -> int:
    """Characters of padded base64 for so many bytes."""
    return (size + 2) // 3 * 4


def _from_base64(text: bytes, limit: int) -> bytes:
    """Decode either alphabet, padded or not, and nothing that a strict encoder never writes."""
    digits = text.rstrip(b"=")
    if len(digits) * 3 // 4 > limit:
        _refuse_size(limit)
    foreign = _FOREIGN.search(digits)
    if foreign is not None:
        _refuse(
            "not_base64",
            f"character {foreign.start()} of the body parameter is none of base64; "
            "expected base64 of JSON",
        )
    _check_padding(digits, len(text) - len(digits))
    standard = digits.translate(_FROM_URL_SAFE)
    if standard != digits and (b"+" in digits or b"/" in digits):
        _refuse(
            "mixed_alphabets",
            "the body parameter mixes + or / with - or _; expected one base64 alphabet",
        )
    data = a2b_base64(standard + b"=" * (-len(digits) % 4))
    # RFC 4648 section 3.5: bits behind the last byte are zero, or two texts mean one value.
    if b2a_base64(data, newline=False).rstrip(b"=") != standard:
        _refuse(
            "trailing_bits",
            "the last character of the base64 body has bits that belong to no byte; "
            "expected them to be zero",
        )
    return data


def _check_padding(digits: bytes, padding: int) -> None:
    if len(digits) % 4 == 1:
        _refuse(
            "bad_length",
            f"the body parameter has {len(digits)} base64 characters without padding, "
            "which no number of bytes gives; a part may be missing",
        )
    wanted = -len(digits) % 4
    if b"=" in digits or padding not in (0, wanted):
        _refuse(
            "bad_padding",
            f"the base64 body is not padded rightly; expected {wanted} = at its end, or none",
        )


def _check_json(data: bytes) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(
            "not_utf8",
            f"byte {error.start} of the decoded body is not UTF-8; expected JSON in UTF-8",
        )
    _check_depth(text)
    try:
        _JSON.decode(text)
    except json.JSONDecodeError as error:
        _refuse(
            "not_json", f"the decoded body is not JSON from character {error.pos} on; expected JSON"
        )


def _check_depth(text: str) -> None:
    """Refuse nesting beyond `MAX_DEPTH`, whatever room the interpreter's stack has."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                _refuse_depth()
        elif found[0] in "]}":
            depth -= 1


def _not_finite(name: str) -> NoReturn:
    _refuse(
        "not_finite", f"the decoded body has {name}, which is not JSON; expected finite numbers"
    )


def _refuse_depth() -> NoReturn:
    _refuse("too_deep", f"the body nests deeper than {MAX_DEPTH} arrays and objects")


def _refuse_size(limit: int) -> NoReturn:
    reason = f"the body has more than {limit} bytes of JSON, which is the most"
    raise Refusal(413, reason, cause="body_too_large") from None


def _refuse(what: str, reason: str) -> NoReturn:
    raise Refusal(400, reason, cause=f"body_{what}") from None


# Numbers are checked, not converted: the value is not used here, and the time that
# long integers take to convert grows with the square of their length.
_JSON = json.JSONDecoder(parse_constant=_not_finite, parse_int=str, parse_float=str)
