"""RFC 9112 and 9110 from the other side: what bots answer, rightly, wrongly and with intent."""

from __future__ import annotations

from relay.protocol.bot_http import MAX_INTERIM
from tests.helpers.conformance import AnswerCase, Gets

TE = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
HELLO = b"5\r\nhello\r\n" + LAST
BAD = "bot_bad_answer"
DIED = "bot_died"
# What a client must never take for the answer to its next request.
FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Forged: 1\r\n\r\nforged"
GOOD = Gets(200, b"hello")
CUT = Gets(200, b"hello", whole=False)


def ok(*lines: bytes, body: bytes = b"", status: bytes = b"200 OK") -> bytes:
    head = b"".join(each + b"\r\n" for each in lines)
    return b"HTTP/1.1 %s\r\n%s\r\n%s" % (status, head, body)


def bad(name: str, section: str, *lines: bytes, body: bytes = b"hello", **more: bool) -> AnswerCase:
    return AnswerCase(name, section, ok(*lines, body=body), BAD, **more)  # type: ignore[arg-type]


def chunks(name: str, body: bytes, gets: Gets, section: str = "9112 7.1") -> AnswerCase:
    return AnswerCase(name, section, ok(TE, body=body), gets)


def line(text: bytes) -> AnswerCase:
    says = text + b"\r\nContent-Length: 5\r\n\r\nhello"
    return AnswerCase(f"status line {text!r}", "9112 4", says, BAD)


CL5 = b"Content-Length: 5"

FRAMINGS = [
    bad("CL and TE", "9112 6.3", CL5, TE, body=HELLO),
    bad("TE and CL", "9112 6.3", TE, CL5, body=HELLO),
    bad("CL 0 and TE", "9112 6.3", b"Content-Length: 0", TE, body=HELLO),
    bad("CL twice, the same", "9112 6.3", CL5, CL5),
    bad("CL twice, different", "9112 6.3", CL5, b"Content-Length: 0"),
    bad("CL named by Connection, and TE", "9110 7.6.1", b"Connection: content-length", CL5, TE),
    *(
        bad(f"length {length!r}", "9112 6.3", b"Content-Length: " + length)
        for length in (b"", b"5,5", b"5, 6", b"+5", b"-5", b"-1", b"0x5", b"5.0", b"5 5", b"5_0",
                       b'"5"', b"x", b"\xb2", b"9" * 19, b"18446744073709551621", b"5\x0b")
    ),
    *(
        bad(f"coding {coding!r}", "9112 6.1", b"Transfer-Encoding: " + coding, body=HELLO)
        for coding in (b"", b"gzip", b"identity", b"gzip, chunked", b"chunked, chunked",
                       b"chunked, identity", b"chunked;a", b"xchunked", b"\x0bchunked",
                       b"chunked,", b",chunked", b'"chunked"', b"chunked\0")
    ),
    bad("TE twice", "9112 6.1", TE, TE, body=HELLO),
    bad("TE with a space before the colon", "9112 5.1", b"Transfer-Encoding : chunked", CL5),
    bad("CL with a space before the colon", "9112 5.1", b"Content-Length : 5"),
    bad("TE folded", "9112 5.2", b"Transfer-Encoding:\r\n chunked", body=HELLO),
    bad("CL folded", "9112 5.2", b"Content-Length: 5\r\n 5"),
    AnswerCase("TE in HTTP/1.0", "9112 6.1",
               b"HTTP/1.0 200 OK\r\n" + TE + b"\r\n\r\n" + HELLO, BAD),
    AnswerCase("a length", "9112 6.3", ok(CL5, body=b"hello"), GOOD),
    AnswerCase("zeros in front of the length", "9112 6.2",
               ok(b"Content-Length: 005", body=b"hello"), GOOD),
    AnswerCase("CL named by Connection", "9110 7.6.1",
               ok(b"Connection: Content-Length", CL5, body=b"hello"), GOOD),
    AnswerCase("TE in capitals", "9112 7", ok(b"TRANSFER-ENCODING: CHUNKED", body=HELLO), GOOD),
    AnswerCase("TE named by Connection", "9110 7.6.1",
               ok(b"Connection: Transfer-Encoding", TE, body=HELLO), GOOD),
    # Tabs are space around a value. A request with one is refused, since whoever reads it next
    # may see no framing; an answer has one reader, which writes its framing anew.
    AnswerCase("a tab in front of the length", "9110 5.5",
               ok(b"Content-Length:\t5", body=b"hello"), GOOD),
    AnswerCase("a tab behind the length", "9110 5.5",
               ok(b"Content-Length: 5\t", body=b"hello"), GOOD),
    AnswerCase("a tab in front of the coding", "9110 5.5",
               ok(b"Transfer-Encoding:\tchunked", body=HELLO), GOOD),
    AnswerCase("a tab behind the coding", "9110 5.5",
               ok(b"Transfer-Encoding: chunked\t", body=HELLO), GOOD),
    AnswerCase("no framing, then the end", "9112 6.3", ok(body=b"hello"), GOOD, closes=True),
    AnswerCase("no framing, and what looks like another answer", "9112 6.3",
               ok(body=FORGED), Gets(200, FORGED), closes=True),
    AnswerCase("HTTP/1.0, no framing", "9112 6.3", b"HTTP/1.0 200 OK\r\n\r\nhello", GOOD,
               closes=True),
    AnswerCase("HTTP/1.0 with a length", "9112 6.3",
               b"HTTP/1.0 200 OK\r\n" + CL5 + b"\r\n\r\nhello", GOOD),
    AnswerCase("HTTP/1.0 with keep-alive", "9112 9.3",
               b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + CL5 + b"\r\n\r\nhello", GOOD),
    AnswerCase("length 0", "9112 6.3", ok(b"Content-Length: 0"), Gets(200)),
]  # fmt: skip

BODIES = [
    AnswerCase("another answer behind a length", "9112 6.3",
               ok(CL5, body=b"hello" + FORGED), GOOD),
    AnswerCase("another answer behind chunks", "9112 6.3", ok(TE, body=HELLO + FORGED), GOOD),
    AnswerCase("another answer behind length 0", "9112 6.3",
               ok(b"Content-Length: 0", body=FORGED), Gets(200)),
    AnswerCase("rubbish behind a length", "9112 6.3", ok(CL5, body=b"hello, world"), GOOD),
    AnswerCase("a line end behind a length", "9112 6.3", ok(CL5, body=b"hello\r\n"), GOOD),
    AnswerCase("204 with a body", "9110 15.3.5",
               ok(status=b"204 No Content", body=FORGED), Gets(204)),
    AnswerCase("204 with a length", "9110 8.6",
               ok(CL5, status=b"204 No Content", body=b"hello"),
               Gets(204, without=(b"content-length",))),
    AnswerCase("204 with chunks", "9112 6.1", ok(TE, status=b"204 No Content", body=HELLO),
               Gets(204, without=(b"transfer-encoding",))),
    AnswerCase("304 with a body", "9110 15.4.5",
               ok(status=b"304 Not Modified", body=FORGED), Gets(304)),
    AnswerCase("304 with a length", "9110 8.6", ok(CL5, status=b"304 Not Modified", body=b"hello"),
               Gets(304, fields=((b"content-length", b"5"),))),
    AnswerCase("304 with chunks", "9112 6.1", ok(TE, status=b"304 Not Modified", body=HELLO),
               Gets(304)),
    AnswerCase("HEAD with a length", "9110 9.3.2", ok(CL5),
               Gets(200, fields=((b"content-length", b"5"),)), method=b"HEAD"),
    AnswerCase("HEAD with a body", "9110 9.3.2", ok(CL5, body=b"hello"),
               Gets(200, fields=((b"content-length", b"5"),)), method=b"HEAD"),
    AnswerCase("HEAD with another answer", "9110 9.3.2", ok(CL5, body=FORGED), Gets(200),
               method=b"HEAD"),
    AnswerCase("HEAD with chunks", "9110 9.3.2", ok(TE, body=HELLO), Gets(200), method=b"HEAD"),
    AnswerCase("205 with a body", "9110 15.3.6",
               ok(CL5, status=b"205 Reset Content", body=b"hello"), Gets(205, b"hello")),
    AnswerCase("less than the length, then the end", "9112 8", ok(b"Content-Length: 9",
               body=b"hello"), CUT, closes=True),
    AnswerCase("only the head of a length, then the end", "9112 8", ok(CL5),
               Gets(200, whole=False), closes=True),
    AnswerCase("half a head, then the end", "9112 8", b"HTTP/1.1 200 OK\r\nX: y\r\n", DIED,
               closes=True),
    AnswerCase("nothing, then the end", "9112 8", b"", DIED, closes=True),
]  # fmt: skip

CHUNKS = [
    chunks("chunks", HELLO, GOOD),
    chunks("a chunk for each byte", b"".join(b"1\r\n%c\r\n" % each for each in b"hello") + LAST,
           GOOD),
    chunks("a size in capitals with zeros", b"000A\r\nhellohello\r\n00\r\n\r\n",
           Gets(200, b"hellohello")),
    chunks("extensions", b'5;a;b=c;d="e;\\""\r\nhello\r\n0;x\r\n\r\n', GOOD, "9112 7.1.1"),
    chunks("trailers", b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", GOOD, "9112 7.1.2"),
    *(
        chunks(f"then size {size!r}", b"5\r\nhello\r\n" + size + b"\r\nhello\r\n" + LAST + FORGED,
               CUT)
        for size in (b"", b"0x5", b"+5", b"-5", b"5 ", b" 5", b"5\t", b"5_0", b"5,5", b"g", b"5\0",
                     b"\xb2", b"5;", b"5 ;a", b"5;a\rb", b"5;a=\0", b'5;a="', b"1" * 17)
    ),
    chunks("then a size with bare LF", b"5\r\nhello\r\n5\nhello\r\n" + LAST, CUT, "9112 2.2"),
    chunks("then a last size with bare LF", b"5\r\nhello\r\n0\n\r\n" + FORGED, CUT, "9112 2.2"),
    chunks("then bare LF as the last line", b"5\r\nhello\r\n0\r\n\n" + FORGED, CUT, "9112 2.2"),
    chunks("no CRLF behind the data", b"5\r\nhello" + LAST + FORGED, CUT),
    chunks("bare LF behind the data", b"5\r\nhello\n" + LAST + FORGED, CUT, "9112 2.2"),
    chunks("more data than the size", b"5\r\nhello, world\r\n" + LAST, CUT),
    *(
        chunks(f"trailer {trailer!r}", b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n" + FORGED, CUT,
               "9110 6.5.1")
        for trailer in (b"Content-Length: 9", b"Transfer-Encoding: chunked", b"X : y", b"no field",
                        b"X: y\r\n z", b"X: y\0", b"X: y\nZ: z", b"HTTP/1.1 200 OK")
    ),
    chunks("long extensions", b"5\r\nhello\r\n1;a=" + b"x" * 20_000 + b"\r\n!\r\n" + LAST, CUT,
           "9112 7.1.1"),
    chunks("long trailers", b"5\r\nhello\r\n0\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", CUT,
           "9112 7.1.2"),
    AnswerCase("no last chunk, then the end", "9112 8", ok(TE, body=b"5\r\nhello\r\n"), CUT,
               closes=True),
    AnswerCase("half a chunk, then the end", "9112 8", ok(TE, body=b"9\r\nhello"), CUT,
               closes=True),
    AnswerCase("no end of the trailers, then the end", "9112 8",
               ok(TE, body=b"5\r\nhello\r\n0\r\n"), CUT, closes=True),
    AnswerCase("chunks that are none", "9112 7.1", ok(TE, body=b"<html>"), Gets(200, whole=False)),
]  # fmt: skip

STATUS = [
    *(
        line(text)
        for text in (
            b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 200OK", b"HTTP/1.1 000 No", b"HTTP/1.1 099 No", b"HTTP/1.1 600 No",
            b"HTTP/1.1 999 No", b"HTTP/1.1 -20 No", b"HTTP/1.1 2x0 No", b"HTTP/1.1 OK", b"HTTP/1.1",
            b"HTTP/1.1 ", b"http/1.1 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK",
            b"HTTP/2.0 200 OK", b"HTTP/2 200 OK", b"HTTP/1.10 200 OK", b"HTTP/11 200 OK",
            b"HTTPS/1.1 200 OK", b"ICY 200 OK", b"SSH-2.0-x", b"<html>", b" HTTP/1.1 200 OK",
            b"\r\nHTTP/1.1 200 OK", b"\nHTTP/1.1 200 OK", b"HTTP/1.1 200 O\0K",
            b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\x0bK", b"HTTP/1.1 200 OK\r",
            b"HTTP/1.1 200 OK\nX: y", b"HTTP/1.1 \xb2\xb0\xb0 OK",
        )
    ),
    *(
        AnswerCase(f"status {status!r}", "9112 4", ok(CL5, body=b"hello", status=status),
                   Gets(int(status[:3]), b"hello"))
        for status in (b"200", b"200 ", b"200 Very Well", b"200 \xfc\xe4", b"299 Odd", b"404 No",
                       b"418 Teapot", b"500 Oh", b"599 Odd", b"300 Many", b"426 Upgrade Required")
    ),
    AnswerCase("401 with its challenge", "9110 11.6.1",
               ok(b"WWW-Authenticate: Basic realm=x", CL5, body=b"hello", status=b"401 No"),
               Gets(401, b"hello", fields=((b"www-authenticate", b"Basic realm=x"),))),
]  # fmt: skip

INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
INTERIMS = [
    AnswerCase("100 unasked", "9110 15.2.1",
               b"HTTP/1.1 100 Continue\r\n\r\n" + ok(CL5, body=b"hello"),
               Gets(200, b"hello", interim=(100,))),
    AnswerCase("103", "9110 15.2", INTERIM + ok(CL5, body=b"hello"),
               Gets(200, b"hello", interim=(103,))),
    AnswerCase("several", "9110 15.2",
               b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + INTERIM + ok(CL5, body=b"hello"),
               Gets(200, b"hello", interim=(102, 102, 102, 103))),
    AnswerCase("103 with a length and a body", "9112 6.3",
               b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + ok(CL5), BAD,
               interim=(103,)),
    AnswerCase("103 with a length of 0", "9110 8.6",
               b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n" + ok(CL5, body=b"hello"),
               Gets(200, b"hello", interim=(103,))),
    AnswerCase("103 with two framings", "9112 6.3",
               b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n" + TE + b"\r\n\r\n" + HELLO,
               BAD),
    AnswerCase("a flood", "9110 15.2", INTERIM * 1000 + ok(CL5, body=b"hello"), BAD,
               interim=(103,) * MAX_INTERIM),
    AnswerCase("101 unasked", "9110 15.2.2",
               ok(b"Upgrade: websocket", b"Connection: Upgrade", status=b"101 Switching Protocols",
                  body=FORGED), BAD),
    AnswerCase("101 behind 103", "9110 15.2.2",
               INTERIM + ok(b"Upgrade: x", b"Connection: Upgrade", status=b"101 Switching"), BAD,
               interim=(103,)),
    AnswerCase("100 and then the end", "9112 8", b"HTTP/1.1 100 Continue\r\n\r\n", DIED,
               closes=True, interim=(100,)),
    AnswerCase("100 and then rubbish", "9112 4", b"HTTP/1.1 100 Continue\r\n\r\nrubbish", BAD,
               interim=(100,)),
]  # fmt: skip


def field(text: bytes) -> AnswerCase:
    return bad(f"field {text!r}", "9112 5", text, CL5)


HEADS = [
    *(
        field(text)
        for text in (
            b"no colon", b": no name", b"A B: x", b"A : x", b"A\t: x", b" A: x", b"\tA: x",
            b"A(: x", b"A: b\r\n c", b"A: b\r\n\tc", b"A:\r\n b", b"A: \0", b"A\0: x", b"A: x\x01",
            b"A: x\x0b", b"A: x\x1b[31m", b"A: x\x7f", b"A: x\r", b"A: x\rSet-Cookie: a=b",
            b"A: x\nSet-Cookie: a=b", b"A: x\n Set-Cookie: a=b", b"A: x\n\nHTTP/1.1 200 OK",
            b"A: x\r\r\n\r\nHTTP/1.1 200 OK", b"\xe9: x", b"HTTP/1.1 200 OK", b"A=b",
        )
    ),
    AnswerCase("only LF", "9112 2.2", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", BAD),
    AnswerCase("LF as the empty line", "9112 2.2", b"HTTP/1.1 200 OK\r\nA: b\r\n\nhello", BAD),
    AnswerCase("two cookies, in order", "9110 5.3",
               ok(b"Set-Cookie: a=b", b"Set-Cookie: c=d", CL5, body=b"hello"), GOOD),
    AnswerCase("a value of obs-text and spaces", "9110 5.5",
               ok(b"X-A: \t gr\xfc\xdfe a  b \t", CL5, body=b"hello"),
               Gets(200, b"hello", fields=((b"x-a", b"gr\xfc\xdfe a  b"),))),
    AnswerCase("an empty value", "9110 5.5", ok(b"X-A:", CL5, body=b"hello"),
               Gets(200, b"hello", fields=((b"x-a", b""),))),
    AnswerCase("an escaped line end", "9110 5.5", ok(b"Location: /%0d%0aX: y", CL5, body=b"hello"),
               Gets(200, b"hello", fields=((b"location", b"/%0d%0aX: y"),), without=(b"x",))),
    AnswerCase("hop-by-hop fields", "9110 7.6.1",
               ok(b"Connection: keep-alive, X-Secret", b"Keep-Alive: timeout=5", b"X-Secret: 1",
                  b"Proxy-Connection: close", b"Upgrade: h2c", b"TE: gzip", b"Trailer: X",
                  b"Keep_Alive: 1", CL5, body=b"hello"),
               Gets(200, b"hello", without=(b"keep-alive", b"x-secret", b"proxy-connection",
                                            b"upgrade", b"te", b"keep_alive"))),
    AnswerCase("another session's id", "9110 7.6",
               ok(b"X-Daily-Session-Id: 1", b"X-Request-Id: 2", CL5, body=b"hello"), GOOD),
    AnswerCase("close", "9112 9.6", ok(b"Connection: close", CL5, body=b"hello"), GOOD,
               closes=True),
    AnswerCase("close, without doing it", "9112 9.6",
               ok(b"Connection: close", CL5, body=b"hello" + FORGED), GOOD),
    AnswerCase("a head of 40 KiB", "9110 5.4", ok(b"X-A: " + b"x" * 40_960, CL5, body=b"hello"),
               GOOD),
    AnswerCase("a head of 49 KiB", "9110 5.4", ok(b"X-A: " + b"x" * 50_176, CL5), BAD),
    AnswerCase("a head without an end", "9110 5.4", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000, BAD),
    AnswerCase("a status line without an end", "9112 4", b"HTTP/1.1 200 " + b"x" * 60_000, BAD),
]  # fmt: skip

CASES = [*FRAMINGS, *BODIES, *CHUNKS, *STATUS, *INTERIMS, *HEADS]
