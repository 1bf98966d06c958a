"""RFC 9112 sections 2, 3 and 5, RFC 9110 section 5: lines, methods, versions, Host, fields."""

from __future__ import annotations

from tests.helpers.conformance import GONE, Case, Seen, no, no_but_on, request, see, sees

GET = b"GET @S/x HTTP/1.1\r\n"
HOST = b"Host: a.example\r\n"
END = b"@K\r\n"
BARE = no(400, "bare_line_end")
CONTROL = no(400, "control_byte")
FOLDED = no(400, "folded_header")
LINE = no(400, "bad_request_line")
BAD_HEAD = no(400, "bad_head")
BAD_HOST = no(400, "bad_host")
VERSION = no(505, "http_version")
GOOD = sees()

LINES = [
    Case("only LF", "9112 2.2", b"GET @S/x HTTP/1.1\nHost: a.example\n\n", BARE),
    Case("LF behind the request line", "9112 2.2",
         b"GET @S/x HTTP/1.1\n" + HOST + END, BARE),
    Case("LF behind a field", "9112 2.2", GET + b"Host: a.example\n" + END, BARE),
    Case("LF as the empty line", "9112 2.2", GET + HOST + b"X: y\r\n\n@E", BARE),
    Case("LF LF behind a field", "9112 2.2", GET + HOST + b"X: y\n\n@E", BARE),
    Case("LF CR LF behind a field", "9112 2.2", GET + HOST + b"X: y\n\r\n@E", BARE),
    Case("only CR", "9112 2.2", b"GET @S/x HTTP/1.1\rHost: a.example\r\r", BARE),
    Case("CR in a value", "9112 2.2", GET + HOST + b"X: a\rb\r\n" + END, BARE),
    Case("CR CR LF", "9112 2.2", GET + HOST + b"X: y\r\r\n" + END, BARE),
    Case("CR in the request line", "9112 2.2", b"GET @S/x\r HTTP/1.1\r\n" + HOST + END, BARE),
    Case("CR in front of the version", "9112 2.2", b"GET @S/x \rHTTP/1.1\r\n" + HOST + END, BARE),
    Case("LF in front", "9112 2.2", b"\n" + GET + HOST + END, BARE),
    Case("CR in front", "9112 2.2", b"\r" + GET + HOST + END, BARE),
    Case("an empty line in front", "9112 2.2", b"\r\n" + GET + HOST + END, GOOD),
    Case("two empty lines in front", "9112 2.2", b"\r\n\r\n" + GET + HOST + END, GOOD),
    Case("three empty lines in front", "9112 2.2", b"\r\n" * 3 + GET + HOST + END, LINE,
         ),
    Case("a space in front", "9112 3", b" " + GET + HOST + END, LINE),
    Case("a space on the line in front of the fields", "9112 2.2",
         GET + b" X: y\r\n" + HOST + END, FOLDED),
    Case("a line of spaces behind the request line", "9112 2.2",
         GET + b"  \r\n" + HOST + END, FOLDED),
    Case("a line of one tab among the fields", "9112 2.2", GET + HOST + b"\t\r\n" + END, FOLDED),
    Case("a head that never ends", "9112 8", GET + HOST + b"X: y\r\n", GONE, ends=True),
    Case("half a request line", "9112 8", b"GET @S/x HT", GONE, ends=True),
    Case("nothing", "9112 8", b"", GONE, ends=True),
    Case("a byte order mark in front", "9112 2.2", b"\xef\xbb\xbf" + GET + HOST + END, LINE),
    Case("a hello of TLS", "9112 2.2", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" * 4, CONTROL),
    Case("a PROXY line", "9112 3", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + GET + HOST + END, LINE),
]  # fmt: skip

REQUEST_LINES = [
    Case("two spaces behind the method", "9112 3", b"GET  @S/x HTTP/1.1\r\n" + HOST + END, LINE),
    Case("two spaces in front of the version", "9112 3",
         b"GET @S/x  HTTP/1.1\r\n" + HOST + END, LINE),
    Case("a tab behind the method", "9112 3", b"GET\t@S/x HTTP/1.1\r\n" + HOST + END, LINE),
    Case("a tab in front of the version", "9112 3", b"GET @S/x\tHTTP/1.1\r\n" + HOST + END, LINE),
    Case("a vertical tab", "9112 3", b"GET\x0b@S/x HTTP/1.1\r\n" + HOST + END, CONTROL),
    Case("a space at the end", "9112 3", b"GET @S/x HTTP/1.1 \r\n" + HOST + END, LINE),
    Case("a word at the end", "9112 3", b"GET @S/x HTTP/1.1 x\r\n" + HOST + END, LINE),
    Case("a space in the target", "9112 3", b"GET @S/x y HTTP/1.1\r\n" + HOST + END, LINE),
    Case("no target", "9112 3", b"GET HTTP/1.1\r\n" + HOST + END, LINE),
    Case("an empty target", "9112 3", b"GET  HTTP/1.1\r\n" + HOST + END, LINE),
    Case("no method", "9112 3", b" @S/x HTTP/1.1\r\n" + HOST + END, LINE),
    Case("a method that is no token", "9112 3.1", b"GE(T @S/x HTTP/1.1\r\n" + HOST + END, LINE),
    Case("a method in quotes", "9112 3.1", b'"GET" @S/x HTTP/1.1\r\n' + HOST + END, LINE),
    Case("a method with a colon", "9112 3.1", b"GET: @S/x HTTP/1.1\r\n" + HOST + END, LINE),
    Case("a method that is not ASCII", "9112 3.1",
         b"G\xc3\x89T @S/x HTTP/1.1\r\n" + HOST + END, LINE),
    Case("NUL in the method", "9112 3.1", b"G\0ET @S/x HTTP/1.1\r\n" + HOST + END, CONTROL),
    *(
        Case(f"method {method!r}", "9110 9.1", method + b" @S/x HTTP/1.1\r\n" + HOST + END,
             no_but_on(405, "method_not_allowed"))
        for method in (b"get", b"Get", b"TRACE", b"TRACK", b"PURGE", b"PROPFIND", b"M-SEARCH",
                       b"DEBUG", b"GETGET", b"!", b"A" * 200)
    ),
    *(
        Case(f"method {method.decode()}", "9110 9.3", request(method + b" @S/x"), sees(method))
        for method in (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
    ),
    Case("method HEAD", "9110 9.3.2", request(b"HEAD @S/x"), sees(b"HEAD")),
    Case("CONNECT", "9112 3.2.3", b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + END,
         no(501, "method_not_implemented")),
    Case("CONNECT with a path", "9112 3.2.3", b"CONNECT @S/x HTTP/1.1\r\n" + HOST + END,
         no(501, "method_not_implemented")),
    Case("CONNECT with a body", "9110 9.3.6",
         b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
         no(501, "method_not_implemented")),
]  # fmt: skip

VERSIONS = [
    Case("HTTP/0.9", "9112 2.3", b"GET @S/x\r\n", LINE),
    Case("HTTP/0.9 with fields", "9112 2.3", b"GET @S/x\r\n" + HOST + END, LINE),
    *(
        Case(f"version {version!r}", "9112 2.3",
             b"GET @S/x " + version + b"\r\n" + HOST + END, outcome)
        for version, outcome in (
            (b"HTTP/0.9", VERSION), (b"HTTP/1.2", VERSION), (b"HTTP/1.9", VERSION),
            (b"HTTP/2.0", VERSION), (b"HTTP/3.0", VERSION), (b"HTTP/9.9", VERSION),
            (b"HTTP/2", LINE), (b"HTTP/1", LINE), (b"HTTP/1.", LINE), (b"HTTP/.1", LINE),
            (b"HTTP/1.10", LINE), (b"HTTP/01.1", LINE), (b"HTTP/1.01", LINE), (b"HTTP/11", LINE),
            (b"HTTP/+1.1", LINE), (b"HTTP/1,1", LINE), (b"http/1.1", LINE), (b"Http/1.1", LINE),
            (b"HTP/1.1", LINE), (b"HTTPS/1.1", LINE), (b"HTTP 1.1", LINE), (b"1.1", LINE),
            (b"HTTP/1.1x", LINE), (b"HTTP/\xb1.1", LINE), (b"RTSP/1.0", LINE),
        )
    ),
    Case("the preface of HTTP/2", "9113 3.4",
         b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", VERSION),
    Case("HTTP/1.0", "9112 2.3", b"GET @S/x HTTP/1.0\r\n" + HOST + END,
         see(Seen(b"GET", b"/x"), goes_on=False)),
    Case("HTTP/1.0 without Host", "9112 3.2", b"GET @S/x HTTP/1.0\r\n" + END,
         see(Seen(b"GET", b"/x"), goes_on=False)),
    Case("HTTP/1.0 with keep-alive", "9112 9.3",
         b"GET @S/x HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n" + END,
         see(Seen(b"GET", b"/x", without=(b"keep-alive",)), goes_on=False)),
]  # fmt: skip

HOSTS = [
    Case("no Host", "9112 3.2", GET + END, BAD_HOST),
    Case("two Hosts", "9112 3.2", GET + HOST + b"Host: b.example\r\n" + END, BAD_HOST),
    Case("two equal Hosts", "9112 3.2", GET + HOST + HOST + END, BAD_HOST),
    Case("two Hosts, one empty", "9112 3.2", GET + HOST + b"Host:\r\n" + END, BAD_HOST),
    Case("two Hosts, the names in two spellings", "9112 3.2",
         GET + HOST + b"hOST: b.example\r\n" + END, BAD_HOST),
    Case("two Hosts in HTTP/1.0", "9112 3.2",
         b"GET @S/x HTTP/1.0\r\n" + HOST + HOST + END, BAD_HOST),
    Case("a folded Host", "9112 5.2", GET + b"Host:\r\n a.example\r\n" + END, FOLDED),
    Case("space before the colon of Host", "9112 5.1",
         GET + b"Host : a.example\r\n" + END, BAD_HOST),
    *(
        Case(f"Host {host!r}", "9112 3.2", GET + b"Host: " + host + b"\r\n" + END, BAD_HOST)
        for host in (
            b"", b"a b", b"a,b", b"a, b", b"a/b", b"a\\b", b"user@a", b"user:pw@a", b"a:b", b"a:-1",
            b"a:+80", b"a:80:80", b"a:123456", b"a:65536", b"a: 80", b":80", b"[::1", b"::1]",
            b"::1", b"[::1]x", b"[]", b"[::g]", b"[::1]:x", b"[1.2.3]", b"a?b", b"a#b", b"http://a",
            b"a%zz", b"%", b"\xff", b"a\tb", b"<a>", b'"a"', b"a|b", b"a^b", b"a`b", b"{a}",
        )
    ),
    Case("Host with NUL", "9110 5.5", GET + b"Host: a\0b\r\n" + END, CONTROL),
    *(
        Case(f"Host {host!r}", "9112 3.2", GET + b"Host: " + host + b"\r\n" + END, GOOD)
        for host in (b"a", b"A.EXAMPLE", b"a:", b"a:8080", b"127.0.0.1:65535", b"[::1]",
                     b"[::1]:80", b"[::ffff:1.2.3.4]", b"a_b-c", b"a%41b", b"a.")
    ),
]  # fmt: skip


def with_field(line: bytes) -> bytes:
    return GET + HOST + line + b"\r\n" + END


FIELDS = [
    *(
        Case(f"field {line!r}", "9112 5", with_field(line), BAD_HEAD)
        for line in (b"no colon", b":", b": no name", b"A B: x", b"A : x", b"A\t: x",
                     b"A(: x", b"A/B: x", b"A@B: x", b"A[0]: x", b"{A}: x", b'"A": x', b"A;: x",
                     b"A=b", b"\xe9: x", b"A\xa0: x", b"GET / HTTP/1.1")
    ),
    *(
        Case(f"field {line!r}", "9110 5.5", with_field(line), CONTROL)
        for line in (b"A: x\0y", b"A: \0", b"A\0: x", b"\0A: x", b"A: x\x01", b"A: \x08",
                     b"A: x\x0by", b"A: \x0c", b"A: \x1b[31m", b"A: x\x7f", b"A\x7f: x",
                     b"\x0bA: x")
    ),
    Case("folded", "9112 5.2", with_field(b"A: b\r\n c"), FOLDED),
    Case("folded with a tab", "9112 5.2", with_field(b"A: b\r\n\tc"), FOLDED),
    Case("folded without a value", "9112 5.2", with_field(b"A:\r\n b"), FOLDED),
    Case("folded to nothing", "9112 5.2", with_field(b"A: b\r\n "), FOLDED),
    Case("an empty value", "9112 5.1", with_field(b"X-A:"),
         sees(b"GET", b"/x", b"", (b"x-a", b""))),
    Case("white space around a value", "9112 5.1", with_field(b"X-A:\t  a b\t c \t"),
         sees(b"GET", b"/x", b"", (b"x-a", b"a b\t c"))),
    Case("obs-text in a value", "9110 5.5", with_field(b"X-A: gr\xfc\xdfe"),
         sees(b"GET", b"/x", b"", (b"x-a", b"gr\xfc\xdfe"))),
    Case("colons in a value", "9112 5.1", with_field(b"X-A: : b: c"),
         sees(b"GET", b"/x", b"", (b"x-a", b": b: c"))),
    Case("every byte of a name", "9110 5.1", with_field(b"!#$%&'*+-.^_`|~09aZ: x"),
         sees(b"GET", b"/x", b"", (b"!#$%&'*+-.^_`|~09az", b"x"))),
    Case("a head that is too long", "9110 5.4", with_field(b"X: " + b"x" * 50_000),
         no(431, "head_too_long")),
    Case("a head that is too long and has no end", "9110 5.4", GET + HOST + b"X: " + b"x" * 70_000,
         no(431, "head_too_long")),
    Case("a name that is too long", "9110 5.4", with_field(b"X" * 50_000 + b": x"),
         no(431, "head_too_long")),
    Case("too many fields", "9110 5.4", with_field(b"X: y\r\n" * 120 + b"X: y"),
         no(431, "too_many_headers")),
    Case("a target that is too long", "9112 3", b"GET @S/" + b"x" * 30_000 + b" HTTP/1.1\r\n"
         + HOST + END, no(414, "target_too_long")),
    Case("a request line without an end", "9112 3", b"GET @S/" + b"x" * 60_000,
         no(414, "target_too_long")),
    Case("a method without an end", "9112 3", b"G" * 60_000, no(414, "target_too_long")),
]  # fmt: skip
