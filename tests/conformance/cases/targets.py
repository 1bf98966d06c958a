"""RFC 9112 section 3.2, RFC 3986: forms of targets, escapes, dot segments, foreign bytes."""

from __future__ import annotations

from tests.helpers.conformance import Case, no, no_but_on, request, sees

HOST = b"Host: a.example\r\n"
END = b"@K\r\n"


def get(target: bytes, host: bytes = b"a.example") -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: %s\r\n@K\r\n" % (target, host)


def refused(name: str, section: str, target: bytes, cause: str) -> Case:
    return Case(name, section, get(target), no_but_on(400, f"target_{cause}"))


def passes(target: bytes, section: str = "3986 2") -> Case:
    """The bot gets it byte by byte."""
    return Case(f"target {target!r}", section, get(b"@S" + target), sees(b"GET", target))


FORMS = [
    refused("asterisk with GET", "9112 3.2.4", b"*", "form"),
    Case("asterisk with OPTIONS", "9112 3.2.4", request(b"OPTIONS *"),
         no_but_on(400, "target_form")),
    Case("asterisk and a path", "9112 3.2.4", request(b"OPTIONS *@S/x"),
         no_but_on(400, "target_form")),
    refused("authority", "9112 3.2.3", b"a.example:80", "form"),
    refused("no slash in front", "9112 3.2.1", b"x@S/x", "form"),
    refused("a query alone", "9112 3.2.1", b"?x=@S/x", "form"),
    refused("another scheme", "9112 3.2.2", b"ftp://a.example@S/x", "form"),
    refused("a scheme without an authority", "9112 3.2.2", b"http:@S/x", "form"),
    refused("a scheme and one slash", "9112 3.2.2", b"http:/x@S/x", "form"),
    refused("javascript", "9112 3.2.2", b"javascript:alert(1)", "form"),
    refused("file", "9112 3.2.2", b"file:///etc/passwd", "form"),
    refused("another host", "9112 3.2.2", b"http://b.example@S/x", "host"),
    refused("another port", "9112 3.2.2", b"http://a.example:81@S/x", "host"),
    refused("the default port written out", "9112 3.2.2", b"http://a.example:80@S/x", "host"),
    refused("an empty host", "9110 4.2.1", b"http://@S/x", "host"),
    refused("a user", "9110 4.2.4", b"http://user@a.example@S/x", "host"),
    refused("a user and a password", "9110 4.2.4", b"http://user:pw@a.example@S/x", "host"),
    refused("a host in front of the at sign", "9110 4.2.4", b"http://a.example@b.example@S/x",
            "host"),
    refused("a backslash behind the host", "9112 3.2.2", b"http://a.example\\@b.example@S/x",
            "host"),
    Case("absolute without Host", "9112 3.2.2",
         b"GET http://a.example@S/x HTTP/1.1\r\n" + END, no(400, "bad_host")),
    Case("absolute in HTTP/1.0 without Host", "9112 3.2.2",
         b"GET http://a.example@S/x HTTP/1.0\r\n" + END,
         no(400, "target_host")),
    *(
        Case(f"absolute {scheme!r}", "9112 3.2.2", get(scheme + b"a.example@S/x"), sees())
        for scheme in (b"http://", b"HTTP://", b"https://")
    ),
    Case("absolute, the host in capitals", "9110 4.2.3", get(b"http://A.Example@S/x"), sees()),
    Case("absolute with a port", "9112 3.2.2",
         get(b"http://a.example:8080@S/x", b"a.example:8080"), sees()),
    Case("absolute with a query", "9112 3.2.2", get(b"http://a.example@S/x?http://b.example/"),
         sees(b"GET", b"/x?http://b.example/")),
    Case("absolute without a path", "9112 3.2.1", get(b"http://a.example"),
         no_but_on(404, "no_such_path")),
    Case("two slashes in front", "9112 3.2.1", get(b"/@S/x"), no_but_on(404, "no_such_path")),
    Case("two slashes and a host", "9112 3.2.1", get(b"//b.example@S/x"),
         no_but_on(404, "no_such_path")),
]  # fmt: skip

BYTES = [
    refused("a fragment", "9112 3.2", b"@S/x#y", "byte"),
    refused("a fragment in the query", "9112 3.2", b"@S/x?y#z", "byte"),
    *(
        Case(f"byte {byte!r}", "9112 3.2", get(b"@S/x" + byte), no(400, "bad_head"))
        for byte in (b"\x80", b"\xe9", b"\xff", b"\xc3\xa9", b"\tx")
    ),
    *(
        Case(f"byte {byte!r}", "9112 3.2", get(b"@S/x" + byte), no(400, "control_byte"))
        for byte in (b"\0", b"\x01", b"\x0b", b"\x1b", b"\x7f")
    ),
    Case("an escaped line end is no line end", "3986 2.1",
         get(b"@S/x%0D%0AX-Evil:%20y"), sees(b"GET", b"/x%0D%0AX-Evil:%20y", without=(b"x-evil",))),
    refused("a backslash", "3986 3.3", b"@S/x\\y", "backslash"),
    refused("a backslash and dots", "3986 3.3", b"@S/x\\..\\y", "backslash"),
    *(
        refused(f"escape {escape!r}", "3986 2.1", b"@S/x" + escape, "percent")
        for escape in (b"%", b"%1", b"%zz", b"%0g", b"%%31", b"%u0041", b"?%", b"?x=%zz", b"%+1",
                       b"%-1", b"%0x41")
    ),
    *(
        refused(f"escape {escape!r}", "3986 2.2", b"@S/x" + escape, "separator")
        for escape in (b"%2f", b"%2Fy", b"%5c", b"%5C..", b"%00", b"y%00.html", b"%2e%2e%2f")
    ),
    *(
        refused(f"escape {escape!r}", "3986 2.5", b"@S/x" + escape, "not_utf8")
        for escape in (b"%ff", b"%c0%ae", b"%c0%af", b"%e0%80%af", b"%ed%a0%80", b"%fe%ff")
    ),
    *(
        refused(f"segment {segment!r}", "3986 5.2.4", b"@S/" + segment, "dot_segment")
        for segment in (b".", b"..", b"./x", b"../x", b"x/..", b"x/../y", b"x/./y", b"%2e",
                        b"%2E%2e/x", b".%2e/x", b"%2e./bot", b"../../../../start",
                        b"..?x", b"x//../y")
    ),
    *(
        Case(f"segment {path!r}", "3986 3.3", get(b"@S" + path), no_but_on(403, "reserved_path"))
        for path in (b"/bot", b"//bot", b"/%62ot", b"/bot/", b"/ws", b"/readyz?x")
    ),
    *(
        passes(target)
        for target in (
            b"/", b"//x", b"/x//", b"/x/", b"/...", b"/.x", b"/x.", b"/x;y=z", b"/x;/../"[:4],
            b"/x:y@z!$&'()*+,;=", b"/~x", b"/%7Ex", b"/%41", b"/%e2%82%ac", b"/%252e%252e/x",
            b"/%25", b"/x%20y", b"/x+y", b"/%0d%0a", b"/%0a", b"/\"<>^`{|}", b"/http://b.example/",
        )
    ),
    *(
        passes(b"/x?" + query, "3986 3.4")
        for query in (b"", b"?", b"a=b&c", b"../..", b"a=/../b", b"%2e%2e%2f", b"%00", b"%ff",
                      b"\\", b"a=http://b/", b"a[]=\"<>^`{|}", b";a=b")
    ),
]  # fmt: skip
