"""RFC 9112 section 7.1: chunk sizes, extensions, ends of chunks, and trailers."""

from __future__ import annotations

from tests.helpers.conformance import GONE, Case, chunked, no, sees

LAST = b"0\r\n\r\n"
CHUNK = b"5\r\nhello\r\n"
BAD = no(400, "bad_body")
GOOD = sees(b"POST", b"/x", b"hello", chunked=True)
LONG = b"x" * 20_000
# What stands behind the last chunk would be a request to one who sees the end there.
HIDDEN = LAST + b"@E"

SIZES = [
    *(
        Case(f"size {size!r}", "9112 7.1", chunked(size + b"\r\nhello\r\n" + HIDDEN), BAD)
        for size in (
            b"", b"0x5", b"0X5", b"x5", b"+5", b"-5", b"-1", b"5 ", b"5\t", b" 5", b"\t5", b"5 5",
            b"5_0", b"5,5", b"5.", b"5h", b"h5", b'"5"', b"\xb2", b"5\0", b"\0005", b"5\x0b",
            b"5\x0c", b"00000000000000005", b"f" * 17, b"1" + b"0" * 16 + b"5", b"5\xa0",
        )
    ),
    *(
        Case(f"size {size!r}", "9112 7.1", chunked(size + b"\r\nhellohello\r\n" + LAST),
             sees(b"POST", b"/x", b"hellohello", chunked=True))
        for size in (b"a", b"A", b"0a", b"000000000000000a")
    ),
    Case("five thousand zeros in front of the size", "9112 7.1",
         chunked(b"0" * 5000 + b"5\r\nhello\r\n" + HIDDEN), BAD),
    Case("more than any body, then the end", "9112 7.1", chunked(b"f" * 16 + b"\r\nhello"), GONE,
         ends=True),
    Case("minus one in 64 bits", "9112 7.1", chunked(b"f" * 16 + b"\r\n" + HIDDEN), GONE,
         ends=True),
    Case("five in the low 32 bits", "9112 7.1",
         chunked(b"100000005\r\nhello\r\n" + HIDDEN), GONE, ends=True),
    Case("five in the low 64 bits", "9112 7.1",
         chunked(b"10000000000000005\r\nhello\r\n" + HIDDEN), BAD),
    Case("bare LF behind the size", "9112 2.2", chunked(b"5\nhello\r\n" + HIDDEN), BAD),
    Case("bare LF behind the last size", "9112 2.2", chunked(CHUNK + b"0\n\r\n@E"), BAD),
    Case("bare CR behind the size", "9112 2.2", chunked(b"5\rhello\r\n" + HIDDEN), BAD),
    Case("CR CR LF behind the size", "9112 2.2", chunked(b"5\r\r\nhello\r\n" + HIDDEN), BAD),
    Case("LF CR behind the size", "9112 2.2", chunked(b"5\n\rhello\r\n" + HIDDEN), BAD),
    Case("an empty line first", "9112 7.1", chunked(b"\r\n" + CHUNK + HIDDEN), BAD),
    Case("an empty line between", "9112 7.1", chunked(CHUNK + b"\r\n" + HIDDEN), BAD),
]  # fmt: skip

ENDS = [
    Case("no CRLF behind the data", "9112 7.1", chunked(b"5\r\nhello" + HIDDEN), BAD),
    Case("bare LF behind the data", "9112 7.1", chunked(b"5\r\nhello\n" + HIDDEN), BAD),
    Case("bare CR behind the data", "9112 7.1", chunked(b"5\r\nhello\r" + HIDDEN), BAD),
    Case("other bytes in the place of CRLF", "9112 7.1", chunked(b"5\r\nhelloXX" + HIDDEN), BAD),
    Case("LF CR behind the data", "9112 7.1", chunked(b"5\r\nhello\n\r" + HIDDEN), BAD),
    Case("more data than the size", "9112 7.1", chunked(b"3\r\nhello\r\n" + HIDDEN), BAD),
    Case("less data than the size", "9112 7.1", chunked(b"7\r\nhello\r\n" + HIDDEN), BAD),
    Case("bare LF as the last line", "9112 2.2", chunked(CHUNK + b"0\r\n\n@E"), BAD),
    Case("bare CR as the last line", "9112 2.2", chunked(CHUNK + b"0\r\n\r@E"), BAD),
    Case("bare LF twice at the end", "9112 2.2", chunked(CHUNK + b"0\n\n@E"), BAD),
    Case("a length's body as chunks", "9112 7.1", chunked(b"hello"), BAD, ends=False),
    Case("two last chunks", "9112 7.1", chunked(CHUNK + LAST + LAST),
         no(400, "bad_request_line", *GOOD.seen)),
    Case("an end in the middle of a size", "9112 8", chunked(b"5"), GONE, ends=True),
    Case("an end in the middle of data", "9112 8", chunked(b"5\r\nhel"), GONE, ends=True),
    Case("an end behind the data", "9112 8", chunked(CHUNK), GONE, ends=True),
    Case("an end behind the last size", "9112 8", chunked(CHUNK + b"0\r\n"), GONE, ends=True),
    Case("an end in the trailers", "9112 8", chunked(CHUNK + b"0\r\nA: b\r\n"), GONE, ends=True),
    Case("one chunk", "9112 7.1", chunked(CHUNK + LAST), GOOD),
    Case("zeros as last size", "9112 7.1", chunked(CHUNK + b"000\r\n\r\n"), GOOD),
    Case("a chunk for each byte", "9112 7.1",
         chunked(b"".join(b"1\r\n%c\r\n" % each for each in b"hello") + LAST), GOOD),
    Case("no chunk but the last", "9112 7.1", chunked(LAST),
         sees(b"POST", b"/x", b"", chunked=True)),
    Case("data of line ends", "9112 7.1", chunked(b"6\r\n\r\n0\r\n\r\r\n" + LAST),
         sees(b"POST", b"/x", b"\r\n0\r\n\r", chunked=True)),
]  # fmt: skip


def extended(extension: bytes) -> bytes:
    return chunked(b"5" + extension + b"\r\nhello\r\n" + LAST)


EXTENSIONS = [
    *(
        Case(f"extension {extension!r}", "9112 7.1.1", extended(extension), GOOD)
        for extension in (b";a", b";a=b", b";a=b;c=d", b';a="b"', b';a="b;c=d"', b';a="\\""',
                          b';a=""', b';a="\xe9"', b';a="\t "')
    ),
    *(
        Case(f"extension {extension!r}", "9112 7.1.1", extended(extension), BAD)
        for extension in (
            b";", b";;", b";a;", b";=b", b";a=", b" ;a", b"; a", b";a ", b";a =b", b";a= b",
            b';a="b', b';a="b"c', b';a=b"c"', b";a/b", b";a=\xe9", b"a;b", b",a", b"#a", b":a",
            b";a=b\0", b";a\0b", b";a\rb", b";a=\x0b", b';a="\0"', b';a="\x7f"', b';a="\r"',
            b";\r\r\n",
        )
    ),
    Case("bare LF in an extension", "9112 7.1.1",
         chunked(b"5;a\nhello\r\n" + HIDDEN), BAD),
    Case("bare LF ends an extension for some", "9112 7.1.1",
         chunked(b"2;\nxx\r\n4c\r\n0\r\n\r\n@E"), BAD),
    Case("a line end in quotes", "9112 7.1.1",
         chunked(b'5;a="\r\nhello\r\n0\r\n\r\n"\r\n@E'), BAD),
    Case("bare LF in quotes", "9112 7.1.1", chunked(b'5;a="\n"\r\nhello\r\n' + HIDDEN), BAD),
    Case("an extension of the last chunk", "9112 7.1.1",
         chunked(CHUNK + b"0;a=b\r\n\r\n"), GOOD),
    Case("a bad extension of the last chunk", "9112 7.1.1",
         chunked(CHUNK + b"0;\r\r\n\r\n@E"), BAD),
    Case("a long extension", "9112 7.1.1", extended(b";a=" + LONG), BAD),
    Case("a long extension without an end", "9112 7.1.1", chunked(b"5;a=" + LONG * 4), BAD),
    Case("many extensions", "9112 7.1.1",
         chunked(b"1;a=xxxxxxxxxxxxxxxxxxxxxxxxxx\r\nx\r\n" * 700 + LAST), BAD),
]  # fmt: skip


def trailed(trailers: bytes) -> bytes:
    return chunked(CHUNK + b"0\r\n" + trailers + b"\r\n")


TRAILERS = [
    Case("a trailer", "9112 7.1.2", trailed(b"X-Sum: 1\r\n"), GOOD),
    Case("two trailers", "9112 7.1.2", trailed(b"X-Sum: 1\r\nEmpty:\r\n"), GOOD),
    *(
        Case(f"trailer {trailer!r}", "9110 6.5.1", trailed(trailer + b"\r\n"), BAD)
        for trailer in (b"Content-Length: 5", b"content-length: 0", b"Transfer-Encoding: chunked",
                        b"Host: b.example")
    ),
    *(
        Case(f"trailer {trailer!r}", "9112 5", trailed(trailer + b"\r\n"), BAD)
        for trailer in (b"no colon", b": no name", b"X : y", b" X: y", b"X: y\r\n z", b"X: y\0",
                        b"X: \x0b", b"X: y\rz", b"X: y\nZ: z", b"X(: y", b"\xe9: y", b"X: y\x7f",
                        b"GET / HTTP/1.1")
    ),
    Case("trailers that end with bare LF", "9112 2.2",
         chunked(CHUNK + b"0\r\nX: y\n\n@E"), BAD),
    Case("trailers that end with LF CR LF", "9112 2.2",
         chunked(CHUNK + b"0\r\nX: y\n\r\n@E"), BAD),
    Case("long trailers", "9112 7.1.2", trailed(b"X: " + LONG + b"\r\n"), BAD),
    Case("many trailers", "9112 7.1.2", trailed(b"X: yyyyyyyyyyyyyyyy\r\n" * 700), BAD),
]  # fmt: skip
