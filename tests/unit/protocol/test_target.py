"""Tables of request targets: forms, segments, refusals, normal forms, log forms."""

from __future__ import annotations

import pytest

from relay.errors import Refusal
from relay.protocol.target import (
    RESERVED_PATHS,
    bad_escape,
    canonical_path,
    is_reserved,
    parse_target,
    redacted,
)

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    ("target", "path", "query", "segments"),
    [
        (b"/", b"/", b"", ("",)),
        (b"/?", b"/", b"", ("",)),
        (b"/a", b"/a", b"", ("a",)),
        (b"/a/", b"/a/", b"", ("a", "")),
        (b"//a", b"//a", b"", ("", "a")),
        (b"/a//b", b"/a//b", b"", ("a", "", "b")),
        (b"/a?b=c", b"/a", b"b=c", ("a",)),
        (b"/a?b=c?d/e\\f", b"/a", b"b=c?d/e\\f", ("a",)),
        (b"/%61%c3%a9/x%20y", b"/%61%c3%a9/x%20y", b"", ("aé", "x y")),
        (b"/...", b"/...", b"", ("...",)),
        (b"/a;b=1/@:c", b"/a;b=1/@:c", b"", ("a;b=1", "@:c")),
        (b"/%252e%252e", b"/%252e%252e", b"", ("%2e%2e",)),
    ],
)
def test_origin_form(target: bytes, path: bytes, query: bytes, segments: tuple[str, ...]) -> None:
    parsed = parse_target(target, None)
    assert (parsed.path, parsed.query, parsed.segments) == (path, query, segments)
    assert b"/" + b"/".join(parsed.raw_segments) == path


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"http://example.org/a?b", b"example.org", b"/a", b"b"),
        (b"HTTPS://Example.ORG:8080/", b"example.org:8080", b"/", b""),
        (b"ws://[::1]:80/a", b"[::1]:80", b"/a", b""),
        (b"wss://h", b"H", b"/", b""),
        (b"http://h?q=/x", b"h", b"/", b"q=/x"),
        (b"http://h//a", b"h", b"//a", b""),
    ],
)
def test_absolute_form(target: bytes, host: bytes, path: bytes, query: bytes) -> None:
    parsed = parse_target(target, host)
    assert (parsed.path, parsed.query) == (path, query)


@pytest.mark.parametrize(
    ("target", "host", "cause"),
    [
        (b"", b"h", "target_form"),
        (b"*", b"h", "target_form"),
        (b"h:443", b"h", "target_form"),
        (b"a/b", b"h", "target_form"),
        (b"?a", b"h", "target_form"),
        (b"http:/a", b"h", "target_form"),
        (b"ftp://h/a", b"h", "target_form"),
        (b"http://h/a", None, "target_host"),
        (b"http://h/a", b"g", "target_host"),
        (b"http://h:80/a", b"h", "target_host"),
        (b"http:///a", b"", "target_host"),
        (b"http://u@h/a", b"u@h", "target_host"),
        (b"http://h\\g/a", b"h", "target_host"),
        (b"/a b", None, "target_byte"),
        (b"/a\tb", None, "target_byte"),
        (b"/a\r\nb", None, "target_byte"),
        (b"/a\x00", None, "target_byte"),
        (b"/a\x7f", None, "target_byte"),
        (b"/\xc3\xa9", None, "target_byte"),
        (b"/a#b", None, "target_byte"),
        (b"/a?b c", None, "target_byte"),
        (b"/%", None, "target_percent"),
        (b"/%4", None, "target_percent"),
        (b"/%zz", None, "target_percent"),
        (b"/a?b=%", None, "target_percent"),
        (b"/a\\b", None, "target_backslash"),
        (b"/a%2Fb", None, "target_separator"),
        (b"/a%2fb", None, "target_separator"),
        (b"/a%5Cb", None, "target_separator"),
        (b"/a%5cb", None, "target_separator"),
        (b"/a%00b", None, "target_separator"),
        (b"/a/%2e%2e%2fbot", None, "target_separator"),
        (b"/.", None, "target_dot_segment"),
        (b"/..", None, "target_dot_segment"),
        (b"/a/../b", None, "target_dot_segment"),
        (b"/a/%2e/b", None, "target_dot_segment"),
        (b"/a/.%2E/b", None, "target_dot_segment"),
        (b"/a/%2e%2e", None, "target_dot_segment"),
        (b"http://h/../a", b"h", "target_dot_segment"),
        (b"/%ff", None, "target_not_utf8"),
        (b"/%c0%af", None, "target_not_utf8"),
        (b"/%ed%a0%80", None, "target_not_utf8"),
    ],
)
def test_refusals(target: bytes, host: bytes | None, cause: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_target(target, host)
    assert (caught.value.status, caught.value.cause) == (400, cause)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (b"*", "is *"),
        (b"/a b", "byte 2 of the request target is a space"),
        (b"/a#", "a fragment"),
        (b"/\x1b", "a control character"),
        (b"/\x80", "not ASCII"),
        (b"/ab%c", "the % at byte 3"),
    ],
)
def test_reasons_say_what_was_found(target: bytes, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_target(target, None)
    assert words in caught.value.reason


@pytest.mark.parametrize(
    ("query", "pairs"),
    [
        (b"", ()),
        (b"&&", ()),
        (b"a", ((b"a", b""),)),
        (b"a=", ((b"a", b""),)),
        (b"=b", ((b"", b"b"),)),
        (b"a=b=c&a=%2B+", ((b"a", b"b=c"), (b"a", b"%2B+"))),
        (b"%74oken=x&service+Host=%79", ((b"token", b"x"), (b"service Host", b"%79"))),
        (b"a;b=c", ((b"a;b", b"c"),)),
    ],
)
def test_parameters(query: bytes, pairs: tuple[tuple[bytes, bytes], ...]) -> None:
    assert parse_target(b"/x?" + query, None).parameters() == pairs


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (b"", b"/"),
        (b"/", b"/"),
        (b"//", b"/"),
        (b"bot", b"/bot"),
        (b"/bot/", b"/bot"),
        (b"/%62%6F%74", b"/bot"),
        (b"//bot//", b"/bot"),
        (b"/./bot/.", b"/bot"),
        (b"/a/../bot", b"/bot"),
        (b"/a/%2e%2E/bot", b"/bot"),
        (b"/../../bot", b"/bot"),
        (b"/a/..", b"/"),
        (b"/%7euser", b"/~user"),
        (b"/a%2fb", b"/a%2Fb"),
        (b"/%6%32", b"/%2562"),
        (b"/%", b"/%25"),
        (b"/\xff ", b"/%FF%20"),
    ],
)
def test_canonical_path(path: bytes, form: bytes) -> None:
    assert canonical_path(path) == form


@pytest.mark.parametrize("path", sorted(RESERVED_PATHS))
def test_reserved_however_spelt(path: bytes) -> None:
    first = path[:1] + b"%%%02x" % path[1] + path[2:]
    for spelling in (
        path,
        path + b"/",
        path + b"//",
        b"/" + path,
        b"/x/.." + path,
        first,
        path[1:],
    ):
        assert is_reserved(spelling), spelling


@pytest.mark.parametrize(
    "path", [b"/", b"/bots", b"/bot/x", b"/BOT", b"/ws/x", b"/api/offer", b"/pcc", b"/bot%2F"]
)
def test_not_reserved(path: bytes) -> None:
    assert not is_reserved(path)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", "/"),
        ("", ""),
        ("/v1/public/my-agent/start", "/v1/public/my-agent/start"),
        (f"/v1/public/a/sessions/{UUID}/api/offer", f"/v1/public/a/sessions/{UUID}/api/offer"),
        ("/ws/generic/my-agent.my-org", "/ws/generic/my-agent.my-org"),
        (f"/ws/generic/{'a' * 54}.{'b' * 64}", f"/ws/generic/{'a' * 54}.{'b' * 64}"),
        ("/ws/generic/my-agent.my-org/", "/ws/generic/my-agent.my-org/"),
        ("/ws/generic/my-agent.my-org/short", "/ws/generic/my-agent.my-org/[redacted]"),
        ("/ws/generic/a.b/x/y", "/ws/generic/a.b/[redacted]/[redacted]"),
        ("/ws/generic/eyJzaCI6", "/ws/generic/[redacted]"),
        ("/%77S/generic/a.b/x", "/%77S/generic/a.b/[redacted]"),
        ("/prefix/ws/twilio/a.b/x", "/prefix/ws/twilio/a.b/[redacted]"),
        ("/ws/generic?token=abc", "/ws/generic"),
        ("/ws/generic%3ftoken=abc", "/ws/generic"),
        ("/x#token", "/x"),
        ("/x/token=abc", "/x/[redacted]"),
        ("/x&token", "/[redacted]"),
        ("/x/" + "a" * 40, "/x/" + "a" * 40),
        ("/x/" + "a" * 41, "/x/[redacted]"),
        ("/x/pk_0123", "/x/[redacted]"),
        ("/x/sk_0123", "/x/[redacted]"),
        ("http://user:pass@h/x", "/x"),
        ("user:pass@h:443", "[redacted]"),
        ("/a\r\nb", "/[redacted]"),
        ("/\x1b[2J", "/[redacted]"),
    ],
)
def test_redacted(path: str, shown: str) -> None:
    assert redacted(path.encode()) == shown


def test_a_long_path_is_cut() -> None:
    shown = redacted(b"/abcdefghi" * 20)
    assert shown == "/abcdefghi" * 20
    assert redacted(b"/abcdefghi" * 20 + b"/") == shown[:197] + "..."


@pytest.mark.parametrize(
    ("data", "at"),
    [(b"", None), (b"%41", None), (b"a%", 1), (b"%4g", 0), (b"%41%", 3), (b"%%41", 0)],
)
def test_bad_escape(data: bytes, at: int | None) -> None:
    assert bad_escape(data) == at
