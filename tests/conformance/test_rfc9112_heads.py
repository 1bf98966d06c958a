"""RFC 9112 and 9110, by section: which request heads are taken, which refused and how."""

from __future__ import annotations

import pytest

from tests.helpers.heads import one_by_one, read

HOST = b"Host: a.example\r\n"
START = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST

REFUSED: list[tuple[str, bytes, int, str]] = [
    # RFC 9112 section 2.2: line ends and what may stand between them.
    ("2.2 bare LF behind the request line", b"GET / HTTP/1.1\n" + HOST, 400, "bare_line_end"),
    ("2.2 bare LF behind a field", START + b"A: b\nC: d\r\n", 400, "bare_line_end"),
    ("2.2 bare LF as the empty line", START[:-2] + b"\r\n\n", 400, "bare_line_end"),
    ("2.2 two bare LF", b"GET / HTTP/1.1\nHost: a\n\n", 400, "bare_line_end"),
    ("2.2 LF in front", b"\n" + START, 400, "bare_line_end"),
    ("2.2 bare CR in a value", START + b"A: b\rc\r\n", 400, "bare_line_end"),
    ("2.2 CR CR LF", START + b"A: b\r\r\n", 400, "bare_line_end"),
    ("2.2 bare CR in the request line", b"GET /\r HTTP/1.1\r\n" + HOST, 400, "bare_line_end"),
    ("2.2 space in front of the first field", b"GET / HTTP/1.1\r\n " + HOST, 400, "folded_header"),
    ("2.2 space in front of the request line", b" " + START, 400, "bad_request_line"),
    # Section 2.3: versions.
    ("2.3 HTTP/2.0", b"GET / HTTP/2.0\r\n" + HOST, 505, "http_version"),
    ("2.3 HTTP/0.9", b"GET / HTTP/0.9\r\n" + HOST, 505, "http_version"),
    ("2.3 HTTP/1.2", b"GET / HTTP/1.2\r\n" + HOST, 505, "http_version"),
    ("2.3 HTTP/1.10", b"GET / HTTP/1.10\r\n" + HOST, 400, "bad_request_line"),
    ("2.3 lower case", b"GET / http/1.1\r\n" + HOST, 400, "bad_request_line"),
    ("2.3 no version", b"GET /\r\n" + HOST, 400, "bad_request_line"),
    ("2.3 the preface of HTTP/2", b"PRI * HTTP/2.0\r\n", 505, "http_version"),
    # Section 3: the request line.
    ("3 two spaces", b"GET  / HTTP/1.1\r\n" + HOST, 400, "bad_request_line"),
    ("3 a tab", b"GET\t/ HTTP/1.1\r\n" + HOST, 400, "bad_request_line"),
    ("3 a space at the end", b"GET / HTTP/1.1 \r\n" + HOST, 400, "bad_request_line"),
    ("3 a space in the target", b"GET /a b HTTP/1.1\r\n" + HOST, 400, "bad_request_line"),
    ("3 a tab in the target", b"GET /a\tb HTTP/1.1\r\n" + HOST, 400, "bad_head"),
    ("3 the version on another line", b"GET /\r\nA: HTTP/1.1\r\n", 400, "bad_request_line"),
    ("3 no method", b" / HTTP/1.1\r\n" + HOST, 400, "bad_request_line"),
    ("3.1 no token as method", b"GE(T / HTTP/1.1\r\n" + HOST, 400, "bad_request_line"),
    ("3 target too long", b"GET /" + b"a" * 150 + b" HTTP/1.1\r\n" + HOST, 414, "target_too_long"),
    ("3 a TLS hello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 400, "control_byte"),
    # Section 3.2: Host.
    ("3.2 no Host", b"GET / HTTP/1.1\r\nA: b\r\n", 400, "bad_host"),
    ("3.2 no field at all", b"GET / HTTP/1.1\r\n", 400, "bad_host"),
    ("3.2 two Hosts", START + b"Host: b.example\r\n", 400, "bad_host"),
    ("3.2 two equal Hosts", START + HOST, 400, "bad_host"),
    ("3.2 two Hosts in 1.0", b"GET / HTTP/1.0\r\n" + HOST + HOST, 400, "bad_host"),
    *(
        (f"3.2 Host {host!r}", b"GET / HTTP/1.1\r\nHost: %s\r\n" % host, 400, "bad_host")
        for host in (
            b"",
            b"a b",
            b"a/b",
            b"user@a",
            b"a:b",
            b"a:123456",
            b"[::1",
            b"::1",
            b"a?b",
            b"a#b",
            b"http://a",
            b"\xff",
            b"a\\b",
        )
    ),
    ("3.2.3 CONNECT", b"CONNECT a:443 HTTP/1.1\r\n" + HOST, 501, "method_not_implemented"),
    ("3.2.3 CONNECT with a path", b"CONNECT / HTTP/1.1\r\n" + HOST, 501, "method_not_implemented"),
    # Section 5: fields.
    ("5 no colon", START + b"Field\r\n", 400, "bad_head"),
    ("5 no name", START + b": value\r\n", 400, "bad_head"),
    ("5 no token as name", START + b"A(: value\r\n", 400, "bad_head"),
    ("5.1 space before the colon", START + b"Content-Length : 5\r\n", 400, "bad_head"),
    ("5.2 folded", START + b"A: b\r\n c\r\n", 400, "folded_header"),
    ("5.2 folded with a tab", START + b"A: b\r\n\tc\r\n", 400, "folded_header"),
    ("5.5 NUL in a value", START + b"A: b\0c\r\n", 400, "control_byte"),
    ("5.5 NUL in a name", START + b"A\0: b\r\n", 400, "control_byte"),
    ("5.5 control byte", START + b"A: b\x01c\r\n", 400, "control_byte"),
    ("5.5 vertical tab", START + b"A: b\x0bc\r\n", 400, "control_byte"),
    ("5.5 DEL", START + b"A: b\x7fc\r\n", 400, "control_byte"),
    ("5.5 control byte in the target", b"GET /\x1b HTTP/1.1\r\n" + HOST, 400, "control_byte"),
    ("5 too long a head", START + b"A: " + b"b" * 500 + b"\r\n", 431, "head_too_long"),
    ("5 too many fields", START + b"A: b\r\n" * 8, 431, "too_many_headers"),
    # Section 6: framing.
    (
        "6.1 both framings",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        400,
        "two_framings",
    ),
    (
        "6.1 both framings, the other way",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        400,
        "two_framings",
    ),
    (
        "6.1 in HTTP/1.0",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
        400,
        "two_framings",
    ),
    *(
        (
            f"6.1 coding {coding!r}",
            POST + b"Transfer-Encoding: %s\r\n" % coding,
            501,
            "transfer_coding",
        )
        for coding in (
            b"gzip",
            b"identity",
            b"",
            b"gzip, chunked",
            b"chunked, chunked",
            b"chunked;a=b",
            b"xchunked",
        )
    ),
    (
        "6.1 two lines of codings",
        POST + b"Transfer-Encoding: chunked\r\n" * 2,
        501,
        "transfer_coding",
    ),
    ("6.2 two lengths", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n", 400, "bad_length"),
    ("6.2 two equal lengths", POST + b"Content-Length: 5\r\n" * 2, 400, "bad_length"),
    *(
        (f"6.2 length {length!r}", POST + b"Content-Length: %s\r\n" % length, 400, "bad_length")
        for length in (
            b"",
            b"-1",
            b"+5",
            b"0x5",
            b"5,5",
            b"5, 5",
            b"5 5",
            b"5.0",
            b"5_0",
            b"\xb2",
            b"1" * 19,
        )
    ),
    # RFC 9110.
    (
        "9110 7.6.1 Connection names Content-Length",
        POST + b"Content-Length: 5\r\nConnection: close, content-length\r\n",
        400,
        "bad_connection_field",
    ),
    ("9110 10.1.1 another expectation", POST + b"Expect: 200-ok\r\n", 417, "expectation"),
    ("9110 10.1.1 two", POST + b"Expect: 100-continue, other\r\n", 417, "expectation"),
]

TAKEN: list[tuple[str, bytes]] = [
    ("2.2 an empty line in front", b"\r\n" + START),
    ("2.3 HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n"),
    ("3 a target of any form", b"GET http://a.example/b?c HTTP/1.1\r\n" + HOST),
    ("3.1 a method of its own", b"M-SEARCH * HTTP/1.1\r\n" + HOST),
    *(
        (f"3.2 Host {host!r}", b"GET / HTTP/1.1\r\nHost: %s\r\n" % host)
        for host in (
            b"a",
            b"a:",
            b"a:8080",
            b"127.0.0.1:65535",
            b"[::1]",
            b"[::1]:80",
            b"a_b-c.%41",
        )
    ),
    ("5 an empty value", START + b"A:\r\n"),
    ("5 spaces and tabs around a value", START + b"A: \t b c \t\r\n"),
    ("5.5 obs-text", START + b"A: gr\xfc\xdfe\r\n"),
    ("6.1 chunked", POST + b"Transfer-Encoding: chunked\r\n"),
    ("6.1 chunked in capitals", POST + b"Transfer-Encoding: Chunked\r\n"),
    ("6.2 a length", POST + b"Content-Length: 5\r\n"),
    ("6.2 the longest length", POST + b"Content-Length: " + b"9" * 18 + b"\r\n"),
    ("6.2 zeros in front", POST + b"Content-Length: 005\r\n"),
    ("9110 10.1.1 100-continue", POST + b"Expect: 100-Continue\r\n"),
    ("9110 7.6.1 Connection names another", POST + b"Connection: x\r\nX: 1\r\n"),
]


@pytest.mark.parametrize(
    ("head", "status", "cause"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED]
)
def test_refused(head: bytes, status: int, cause: str) -> None:
    data = head + b"\r\n"
    assert read([data]).refused == (status, cause)
    assert read(one_by_one(data)).refused == (status, cause)


@pytest.mark.parametrize("head", [pytest.param(row[1], id=row[0]) for row in TAKEN])
def test_taken(head: bytes) -> None:
    data = head + b"\r\n"
    outcome = read([data])
    assert outcome.refused is None
    assert outcome.heads == (data.removeprefix(b"\r\n"),)
    assert read(one_by_one(data)) == outcome
