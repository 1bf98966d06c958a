"""Laws of request targets: no bytes surprise the parser, the normal form or the log."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes

from hypothesis import example, given
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.policy.catalog import TokenKey
from relay.policy.tokens import Claims, mint
from relay.protocol.target import (
    RESERVED_PATHS,
    Target,
    canonical_path,
    is_reserved,
    parse_target,
    redacted,
)

# Pieces of which hostile paths are made.
PIECES = st.sampled_from(
    [
        b"/",
        b"//",
        b".",
        b"..",
        b"%2e",
        b"%2E%2e",
        b"%2F",
        b"%5c",
        b"%",
        b"%6",
        b"%32",
        b"%25",
        b"bot",
        b"ws",
        b"a",
        b"\\",
        b"\x00",
        b"\xff",
        b"?",
        b"#",
        b"http://h",
        b"*",
        b"%C3%A9",
        b"&",
        b"=",
    ]
)
HOSTILE = st.lists(PIECES, max_size=12).map(b"".join) | st.binary(max_size=40)

KEY = TokenKey("2026-11", b"k" * 32)
CLAIMS = st.builds(
    Claims,
    service_host=st.from_regex(r"[a-z0-9]{1,20}\.[a-z0-9]{1,20}", fullmatch=True),
    session_id=st.uuids().map(str),
    expires=st.integers(0, 9_999_999_999),
    nonce=st.text("abcXYZ019_-", min_size=1, max_size=64),
    key_id=st.just(KEY.id),
)
# Longer pieces of a token than chance puts into a path of the forms below.
PIECE_OF_TOKEN = 8


def outcome(target: bytes, host: bytes | None = None) -> Target | Refusal:
    """What is read, or the refusal; any other exception fails the test."""
    try:
        return parse_target(target, host)
    except Refusal as refusal:
        return refusal


def escaped(text: str) -> str:
    return "".join(f"%{ord(char):02x}" for char in text)


FORMS = [
    "/ws/generic/a.b/{0}",
    "/ws/generic/a.b/{0}/",
    "/ws/generic/a.b/{0}?body=e30",
    "/ws/generic/a.b?token={0}",
    "/ws/generic/a.b?body=e30&token={0}",
    "/ws/generic?serviceHost=a.b&token={0}",
    "/ws/generic/a.b&token={0}",
    "/ws/generic/a.b;token={0}",
    "/ws/generic/a.b%3Ftoken={0}",
    "/ws/generic/a.b%253Ftoken={0}",
    "/ws/generic/a.b{0}",
    "/ws/generic/{0}",
    "/ws/generic//{0}",
    "//ws//generic//a.b//{0}",
    "/ws/{0}",
    "/WS/Generic/a.b/{0}",
    "/wss/genric/a.b/{0}",
    "/v1/public/a/start/{0}",
    "/v1/public/{0}/start",
    "/{0}",
    "{0}",
    "/x%2F{0}",
    "/Bearer%20{0}",
    "/Bearer {0}",
    "/a#{0}",
    "http://h/ws/generic/a.b/{0}",
    "http://{0}@h/a",
    "http://h?token={0}",
]
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent-encoded": escaped,
    "twice": lambda token: quote(escaped(token)),
    "dot escaped": lambda token: token.replace(".", "%2E"),
    "dot as slash": lambda token: token.replace(".", "/"),
    "quoted": lambda token: f'"{token}"',
    "broken": lambda token: token[:50] + "\n" + token[50:],
    "lower": str.lower,
}


@given(HOSTILE)
@example(b"/%6%32ot")
def test_the_canonical_form_is_a_fixed_point(path: bytes) -> None:
    form = canonical_path(path)
    assert canonical_path(form) == form


@given(HOSTILE)
def test_the_canonical_form_never_escapes_the_root(path: bytes) -> None:
    form = canonical_path(path)
    assert form == b"/" or not form.endswith(b"/")
    assert form.startswith(b"/")
    assert not {b"", b".", b".."} & set(form[1:].split(b"/") if form != b"/" else [])


@given(HOSTILE, st.none() | st.just(b"h") | st.binary(max_size=8))
def test_only_a_refusal_comes_out_of_the_parser(target: bytes, host: bytes | None) -> None:
    parsed = outcome(target, host)
    if isinstance(parsed, Refusal):
        assert parsed.status == 400
        assert parsed.cause.startswith("target_")
    else:
        assert b"/" + b"/".join(parsed.raw_segments) == parsed.path
        assert len(parsed.segments) == len(parsed.raw_segments)


@given(HOSTILE)
def test_no_accepted_segment_reads_as_more_or_less_than_one(target: bytes) -> None:
    parsed = outcome(target, b"h")
    for segment in () if isinstance(parsed, Refusal) else parsed.segments:
        assert not set(segment) & set("/\\\0")
        assert segment not in (".", "..")


@given(st.lists(st.text(max_size=6), min_size=1, max_size=5))
def test_quoted_segments_come_back(segments: list[str]) -> None:
    wanted = tuple("x" if s in (".", "..") or set(s) & set("/\\\0") else s for s in segments)
    path = "/" + "/".join(quote(segment, safe="") for segment in wanted)
    assert parse_target(path.encode(), None).segments == wanted


@st.composite
def nearly_reserved(draw: st.DrawFn) -> bytes:
    """The tail of a reserved path, some of its letters escaped, perhaps with more behind it."""
    path = draw(st.sampled_from(sorted(RESERVED_PATHS)))[1:]
    escaped = draw(st.sets(st.integers(0, len(path) - 1), max_size=3))
    spelt = b"".join(
        b"%%%02x" % byte if at in escaped else bytes((byte,)) for at, byte in enumerate(path)
    )
    return spelt + draw(st.sampled_from((b"", b"", b"/", b"//", b"a", b"?x")))


@given(HOSTILE | nearly_reserved())
def test_an_accepted_path_that_a_bot_reads_as_reserved_is_reserved(tail: bytes) -> None:
    parsed = outcome(b"/" + tail)
    if isinstance(parsed, Refusal):
        return
    read_by_bot = unquote_to_bytes(parsed.path)
    if read_by_bot in RESERVED_PATHS or read_by_bot.rstrip(b"/") in RESERVED_PATHS:
        assert is_reserved(parsed.path)


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=5))
def test_parameters_keep_names_order_and_raw_values(pairs: list[tuple[str, str]]) -> None:
    sent = [(quote(name, safe=""), quote(value, safe="")) for name, value in pairs]
    target = "/?" + "&".join(f"{name}={value}" for name, value in sent)
    assert parse_target(target.encode(), None).parameters() == tuple(
        (name.encode(), value.encode()) for (name, _), (_, value) in zip(pairs, sent, strict=True)
    )


@given(CLAIMS, st.sampled_from(FORMS), st.sampled_from(sorted(SPELLINGS)))
def test_nothing_of_a_token_reaches_the_log(claims: Claims, form: str, spelling: str) -> None:
    token = SPELLINGS[spelling](mint(claims, KEY))
    shown = redacted(form.format(token).encode())
    for start in range(len(token) - PIECE_OF_TOKEN + 1):
        assert token[start : start + PIECE_OF_TOKEN] not in shown


@given(HOSTILE | st.binary(max_size=400))
def test_a_logged_path_is_short_and_printable(path: bytes) -> None:
    shown = redacted(path)
    assert len(shown) <= 200
    assert shown.isascii()
    assert shown.isprintable()
    assert not set(shown) & set("?#=& ")
