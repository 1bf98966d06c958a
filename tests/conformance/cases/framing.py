"""RFC 9112 section 6: two framings, odd lengths, odd codings, and requests hidden in them."""

from __future__ import annotations

from tests.helpers.conformance import (
    GONE,
    HOST,
    Case,
    Seen,
    chunked,
    no,
    post,
    request,
    see,
    sees,
)

CL5 = b"Content-Length: 5"
TE = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
HELLO = b"5\r\nhello\r\n" + LAST
TWO = no(400, "two_framings")
LENGTH = no(400, "bad_length")
CODING = no(501, "transfer_coding")
BAD_HEAD = no(400, "bad_head")
CONTROL = no(400, "control_byte")
BARE = no(400, "bare_line_end")
FOLDED = no(400, "folded_header")
GOOD = sees(b"POST", b"/x", b"hello")
GOOD_CHUNKS = sees(b"POST", b"/x", b"hello", chunked=True)

BOTH = [
    Case("CL.TE", "9112 6.1", post(b"Content-Length: 6", TE, body=LAST + b"@E"), TWO),
    Case("TE.CL", "9112 6.1", post(TE, b"Content-Length: 4", body=b"5c\r\n@E" + LAST), TWO),
    Case("CL.TE, the length of all", "9112 6.1", post(CL5, TE, body=LAST), TWO),
    Case("CL 0 and TE", "9112 6.1", post(b"Content-Length: 0", TE, body=LAST + b"@E"), TWO),
    Case("TE in lower case, CL in capitals", "9112 6.1",
         post(b"transfer-encoding: chunked", b"CONTENT-LENGTH: 5", body=LAST), TWO),
    Case("an unknown coding and CL", "9112 6.1",
         post(b"Transfer-Encoding: x", CL5, body=b"hello"), TWO),
    Case("identity and CL", "9112 6.1",
         post(b"Transfer-Encoding: identity", CL5, body=b"hello"), TWO),
    Case("an empty coding and CL", "9112 6.1",
         post(b"Transfer-Encoding:", CL5, body=b"hello"), TWO),
    Case("a wrong length and TE", "9112 6.1", post(b"Content-Length: x", TE, body=LAST), TWO),
    Case("TE named by Connection, and CL", "9112 6.1",
         post(b"Connection: transfer-encoding", TE, CL5, body=LAST), TWO),
    Case("CL named by Connection, and TE", "9112 6.1",
         post(b"Connection: content-length", TE, CL5, body=LAST), TWO),
    Case("CL named by Connection", "9110 7.6.1",
         post(b"Connection: content-length", CL5, body=b"hello"),
         no(400, "bad_connection_field")),
    Case("CL named by Connection in a list", "9110 7.6.1",
         post(b"Connection: close ,\tContent-LENGTH", CL5, body=b"hello"),
         no(400, "bad_connection_field")),
    Case("TE in HTTP/1.0", "9112 6.1",
         b"POST @S/x HTTP/1.0\r\n" + HOST + b"@K" + TE + b"\r\n\r\n" + HELLO, TWO),
    Case("TE in HTTP/1.0 with keep-alive", "9112 6.1",
         b"POST @S/x HTTP/1.0\r\n" + HOST + b"@KConnection: keep-alive\r\n" + TE + b"\r\n\r\n"
         + LAST + b"@E", TWO),
    Case("TE and CL in HTTP/1.0", "9112 6.1",
         b"POST @S/x HTTP/1.0\r\n" + HOST + b"@K" + CL5 + b"\r\n" + TE + b"\r\n\r\n" + LAST, TWO),
    Case("TE, CL and a GET", "9112 6.1", request(b"GET @S/x", CL5, TE, body=LAST + b"@E"), TWO),
]  # fmt: skip

CODINGS = [
    *(
        Case(f"coding {coding!r}", "9112 6.1", post(b"Transfer-Encoding: " + coding, body=HELLO),
             CODING)
        for coding in (
            b"", b"gzip", b"identity", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked",
            b"chunked, identity", b"identity, chunked", b"chunked,", b",chunked", b", chunked",
            b"chunked;a=b", b"xchunked", b"chunkedx", b"chunke", b'"chunked"', b"'chunked'",
            b"chunked chunked", b"chun ked", b"c\thunked", b"\xa0chunked", b"chunked\xa0",
            b"\xefchunked", b"x: chunked", b"=chunked", b"/chunked",
        )
    ),
    *(
        Case(f"coding {coding!r}", "9110 5.5", post(b"Transfer-Encoding: " + coding, body=HELLO),
             CONTROL)
        for coding in (b"\x0bchunked", b"chunked\x0b", b"\x0cchunked", b"chunked\x00",
                       b"chu\x00nked", b"\x1fchunked", b"chunked\x7f")
    ),
    Case("TE twice", "9112 6.1", post(TE, TE, body=HELLO), CODING),
    Case("TE identity, then chunked", "9112 6.1",
         post(b"Transfer-Encoding: identity", TE, body=HELLO), CODING),
    Case("TE chunked, then identity", "9112 6.1",
         post(TE, b"Transfer-encoding: identity", body=HELLO), CODING),
    Case("TE chunked, then an empty one", "9112 6.1",
         post(TE, b"Transfer-Encoding:", body=HELLO), CODING),
    Case("TE chunked, then cow", "9112 6.1",
         post(TE, b"Transfer-encoding: cow", body=HELLO), CODING),
    Case("space before the colon", "9112 5.1",
         post(b"Transfer-Encoding : chunked", CL5, body=HELLO), BAD_HEAD),
    Case("tab before the colon", "9112 5.1",
         post(b"Transfer-Encoding\t: chunked", body=HELLO), BAD_HEAD),
    Case("space in front of the name", "9112 5.2",
         post(b"X: y", b" Transfer-Encoding: chunked", body=HELLO), FOLDED),
    Case("tab in front of the name", "9112 5.2",
         post(b"X: y", b"\tTransfer-Encoding: chunked", CL5, body=HELLO), FOLDED),
    Case("vertical tab in front of the name", "9112 5.1",
         post(b"\x0bTransfer-Encoding: chunked", CL5, body=HELLO), CONTROL),
    Case("the value on the next line", "9112 5.2",
         post(b"Transfer-Encoding:\r\n chunked", body=HELLO), FOLDED),
    Case("the value behind a bare LF", "9112 2.2",
         post(b"Transfer-Encoding:\n chunked", body=HELLO), BARE),
    Case("in the value of another, behind LF", "9112 2.2",
         post(b"X: y\nTransfer-Encoding: chunked", CL5, body=HELLO), BARE),
    Case("in the value of another, behind CR", "9112 2.2",
         post(b"X: y\rTransfer-Encoding: chunked", CL5, body=HELLO), BARE),
    Case("NUL in the name", "9112 5.1",
         post(b"Transfer\0-Encoding: chunked", CL5, body=HELLO), CONTROL),
    Case("a space in the name", "9112 5.1",
         post(b"Transfer Encoding: chunked", CL5, body=HELLO), BAD_HEAD),
    Case("quotes around the name", "9112 5.1",
         post(b'"Transfer-Encoding": chunked', CL5, body=HELLO), BAD_HEAD),
    Case("a long s in the name", "9112 5.1",
         post(b"Tran\xc5\xbffer-Encoding: chunked", CL5, body=HELLO), BAD_HEAD),
    Case("chunked in capitals", "9112 7", post(b"Transfer-Encoding: CHUNKED", body=HELLO),
         GOOD_CHUNKS),
    Case("no space behind the colon", "9112 5.1",
         post(b"Transfer-Encoding:chunked", body=HELLO), GOOD_CHUNKS),
    Case("spaces around the value", "9112 5.1",
         post(b"Transfer-Encoding:  chunked  ", body=HELLO), GOOD_CHUNKS),
    Case("a tab in front of the value", "9112 5.1",
         post(b"Transfer-Encoding:\tchunked", body=HELLO), CODING),
    Case("a tab behind the value", "9112 5.1",
         post(b"Transfer-Encoding: chunked\t", body=HELLO), CODING),
    Case("a tab in front of the value, and CL", "9112 5.1",
         post(b"Transfer-Encoding:\tchunked", CL5, body=HELLO), TWO),
    Case("TE named by Connection stays", "9110 7.6.1",
         post(b"Connection: transfer-encoding", TE, body=HELLO), GOOD_CHUNKS),
    Case("a name with underscores is no framing", "9112 6.1",
         post(CL5, b"Transfer_Encoding: chunked", body=b"hello"),
         sees(b"POST", b"/x", b"hello", without=(b"transfer_encoding",))),
    Case("a length with underscores is no framing", "9112 6.1",
         post(TE, b"Content_Length: 3", body=HELLO),
         sees(b"POST", b"/x", b"hello", chunked=True, without=(b"content_length",))),
]  # fmt: skip

LENGTHS = [
    *(
        Case(f"length {length!r}", "9112 6.2", post(b"Content-Length: " + length, body=b"hello"),
             LENGTH)
        for length in (
            b"", b"5,5", b"5, 5", b"5,6", b"5,", b",5", b"+5", b"-5", b"-0", b"0x5", b"5 5",
            b"5\t5", b"5.0", b"5_0", b"5;", b"5e0", b'"5"', b"0b1", b"five", b"\xb2",
            b"\xd9\xa5", b"9" * 19, b"18446744073709551621", b"0" * 30 + b"5",
        )
    ),
    *(
        Case(f"length {length!r}", "9110 5.5", post(b"Content-Length: " + length, body=b"hello"),
             CONTROL)
        for length in (b"5\0", b"\x0b5", b"5\x0c")
    ),
    Case("CL twice, the same", "9112 6.3", post(CL5, CL5, body=b"hello"), LENGTH),
    Case("CL twice, different", "9112 6.3",
         post(b"Content-Length: 0", CL5, body=b"hello"), LENGTH),
    Case("CL twice, the names in two spellings", "9112 6.3",
         post(CL5, b"content-length: 99", body=b"hello"), LENGTH),
    Case("CL twice, one empty", "9112 6.3", post(CL5, b"Content-Length:", body=b"hello"), LENGTH),
    Case("CL twice in HTTP/1.0", "9112 6.3",
         b"POST @S/x HTTP/1.0\r\n@K" + CL5 + b"\r\nContent-Length: 0\r\n\r\nhello", LENGTH),
    Case("space before the colon of CL", "9112 5.1",
         post(b"Content-Length : 5", body=b"hello"), BAD_HEAD),
    Case("CL folded", "9112 5.2", post(b"Content-Length:\r\n 5", body=b"hello"), FOLDED),
    Case("CL of two folded lines", "9112 5.2",
         post(b"Content-Length: 1\r\n 0", body=b"hello"), FOLDED),
    Case("zeros in front", "9112 6.2", post(b"Content-Length: 0005", body=b"hello"), GOOD),
    Case("spaces around", "9112 5.1", post(b"Content-Length:  5   ", body=b"hello"), GOOD),
    Case("a tab in front", "9112 5.1", post(b"Content-Length:\t5", body=b"hello"), LENGTH),
    Case("a tab behind", "9112 5.1", post(b"Content-Length: 5\t", body=b"hello"), LENGTH),
    Case("length 0", "9112 6.2", post(b"Content-Length: 0"), sees(b"POST")),
    Case("no framing", "9112 6.3", post(), sees(b"POST")),
    *(
        Case(f"{method.decode()} with a body", "9110 9.3",
             request(method + b" @S/x", CL5, body=b"hello"), sees(method, b"/x", b"hello"))
        for method in (b"GET", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"HEAD")
    ),
    Case("GET with chunks", "9110 9.3.1", request(b"GET @S/x", TE, body=HELLO),
         sees(b"GET", b"/x", b"hello", chunked=True)),
    Case("HTTP/1.0 with a length", "9112 6.2",
         b"POST @S/x HTTP/1.0\r\n" + HOST + b"@K" + CL5 + b"\r\n\r\nhello",
         see(Seen(b"POST", b"/x", b"hello"), goes_on=False)),
    Case("a body that is a request", "9112 6.2",
         post(b"Content-Length: 43", body=b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"),
         sees(b"POST", b"/x", b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n")),
    Case("a chunk that is a request", "9112 7.1",
         chunked(b"1a\r\nGET /smuggled HTTP/1.1\r\n\r\n\r\n" + LAST),
         sees(b"POST", b"/x", b"GET /smuggled HTTP/1.1\r\n\r\n", chunked=True)),
    Case("more than the length", "9112 6.3",
         post(b"Content-Length: 3", body=b"helloGET @S/smuggled HTTP/1.1\r\n\r\n"),
         no(400, "bad_host", Seen(b"POST", b"/x", b"hel"))),
    Case("less than the length, then the end", "9112 8", post(CL5, body=b"hell"), GONE, ends=True),
    Case("no body at all, then the end", "9112 8", post(CL5), GONE, ends=True),
    Case("a head that breaks off", "9112 8", post(CL5)[:-2], GONE, ends=True),
]  # fmt: skip
