"""RFC 9112 section 9, RFC 9110 sections 7 and 10: hop by hop, Expect, upgrades, pipelining."""

from __future__ import annotations

from tests.helpers.conformance import (
    HOST,
    Case,
    Outcome,
    Seen,
    chunked,
    no,
    no_but_on,
    post,
    request,
    see,
    sees,
)

CL5 = b"Content-Length: 5"
TE = b"Transfer-Encoding: chunked"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"
X = Seen(b"GET", b"/x")
Y = Seen(b"GET", b"/y")
POSTED = Seen(b"POST", b"/x", b"hello")
NO_KEY = b"%s @S/x HTTP/1.1\r\n" + HOST

FIELDS = [
    *(
        Case(f"{line.decode()} stays here", "9110 7.6.1", request(b"GET @S/x", line),
             sees(without=(line.partition(b":")[0].lower(),)))
        for line in (b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"TE: gzip",
                     b"Trailer: X-Sum", b"Proxy-Authorization: Basic eDp5",
                     b"Proxy-Authenticate: Basic", b"Upgrade: h2c", b"Keep_Alive: 5")
    ),
    Case("a field that Connection names", "9110 7.6.1",
         request(b"GET @S/x", b"Connection: X-Secret", b"X-Secret: 1", b"X-Other: 2"),
         sees(b"GET", b"/x", b"", (b"x-other", b"2"), without=(b"x-secret",))),
    Case("two fields that two Connections name", "9110 7.6.1",
         request(b"GET @S/x", b"connection: ,X-A ,", b"X-a: 1", b"Connection:\tx-b", b"X-B: 2"),
         sees(without=(b"x-a", b"x-b"))),
    Case("a field with underscores that Connection names", "9110 7.6.1",
         request(b"GET @S/x", b"Connection: X_Secret, x-b", b"X_Secret: 1", b"X_B: 2"),
         sees(without=(b"x_secret", b"x_b"))),
    Case("Connection names the session", "9110 7.6.1",
         request(b"GET @S/x", b"Connection: X-Daily-Session-Id, X-Request-Id, Host"), sees()),
    Case("another session's id", "9110 7.6",
         request(b"GET @S/x", b"X-Daily-Session-Id: 1"), sees()),
    Case("another session's id with underscores", "9110 7.6",
         request(b"GET @S/x", b"X_Daily_Session_Id: 1", b"X-Daily_Session-Id: 2"),
         sees(without=(b"x_daily_session_id", b"x-daily_session-id"))),
    Case("a cookie", "9110 7.6",
         request(b"GET @S/x", b"Cookie: a=b"), sees(b"GET", b"/x", b"", (b"cookie", b"a=b"))),
    Case("Connection that is no list", "9110 7.6.1",
         request(b"GET @S/x", b"Connection: ;;;, \"close\""), sees(),
         exception="nginx ends the connection, since it finds the letters of close"),
    Case("close and keep-alive", "9112 9.3",
         request(b"GET @S/x", b"Connection: keep-alive, close"), see(X, goes_on=False)),
    Case("close in capitals", "9112 9.6", request(b"GET @S/x", b"Connection: CLOSE"),
         see(X, goes_on=False)),
    Case("close behind another", "9112 9.6",
         request(b"GET @S/x", b"Connection: x", b"Connection: close"), see(X, goes_on=False)),
    Case("keep-alive", "9112 9.3", request(b"GET @S/x", b"Connection: keep-alive"), sees()),
]  # fmt: skip

EXPECT = [
    Case("100-continue with the body at once", "9110 10.1.1",
         post(b"Expect: 100-continue", CL5, body=b"hello"), see(POSTED)),
    Case("100-continue in capitals", "9110 10.1.1",
         post(b"Expect: 100-CONTINUE", CL5, body=b"hello"), see(POSTED)),
    Case("100-continue with chunks", "9110 10.1.1",
         post(b"Expect: 100-continue", TE, body=HELLO),
         sees(b"POST", b"/x", b"hello", chunked=True)),
    Case("100-continue without a body", "9110 10.1.1",
         request(b"GET @S/x", b"Expect: 100-continue"), sees(without=(b"expect",))),
    Case("100-continue in HTTP/1.0", "9110 10.1.1",
         b"POST @S/x HTTP/1.0\r\n@KExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
         see(Seen(b"POST", b"/x", b"hello", without=(b"expect",)), goes_on=False)),
    *(
        Case(f"Expect {value!r}", "9110 10.1.1",
             post(b"Expect: " + value, CL5, body=b"hello"), no(417, "expectation"))
        for value in (b"200-ok", b"100-continue, x", b"100-continue;q=1", b"100", b"100 continue",
                      b"100-continue x", b"x, 100-continue", b"100-continue, 100-continue",
                      b'"100-continue"', b"y 100-continue")
    ),
    Case("Expect twice", "9110 10.1.1",
         post(b"Expect: 100-continue", b"Expect: x", CL5, body=b"hello"), no(417, "expectation")),
    Case("an obfuscated Expect", "9110 5.5",
         post(b"Expect: 100-continue\x0b", CL5, body=b"hello"), no(400, "control_byte")),
    Case("100-continue, refused, the body behind it", "9110 10.1.1",
         (NO_KEY % b"POST") + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
         no_but_on(401, "bad_api_key")),
    Case("100-continue, refused, no body behind it", "9110 10.1.1",
         (NO_KEY % b"POST") + b"Expect: 100-continue\r\nContent-Length: 900\r\n\r\n",
         no(401, "bad_api_key")),
]  # fmt: skip

UPGRADES = [
    *(
        Case(f"upgrade to {protocol.decode()}", "9110 7.8",
             request(b"GET @S/x", b"Connection: Upgrade", b"Upgrade: " + protocol),
             sees(without=(b"upgrade",)))
        for protocol in (b"h2c", b"h2", b"HTTP/2.0", b"TLS/1.0", b"IRC/6.9, RTA/x11", b"h2c, TLS",
                         b"WebSocket2", b"\"websocket\"", b"web socket", b"")
    ),
    Case("h2c with its settings", "7540 3.2",
         request(b"GET @S/x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
                 b"HTTP2-Settings: AAMAAABkAAQAAP__"),
         sees(without=(b"upgrade", b"http2-settings"))),
    Case("h2c with a body", "7540 3.2",
         post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA", CL5,
              body=b"hello"),
         sees(b"POST", b"/x", b"hello", without=(b"upgrade", b"http2-settings"))),
    Case("h2c and the preface behind it", "7540 3.2",
         request(b"GET @S/x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
                 b"HTTP2-Settings: AAMA", body=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
         no(505, "http_version", X)),
    Case("Upgrade without Connection", "9110 7.8", request(b"GET @S/x", b"Upgrade: h2c"),
         sees(without=(b"upgrade",))),
    Case("Connection without Upgrade", "9110 7.8", request(b"GET @S/x", b"Connection: Upgrade"),
         sees()),
    Case("upgrade in HTTP/1.0", "9110 7.8",
         b"GET @S/x HTTP/1.0\r\n@KConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
         see(Seen(b"GET", b"/x", without=(b"upgrade",)), goes_on=False)),
]  # fmt: skip

Y_TOO = request(b"GET @S/y")
PIPELINES = [
    Case("two at once", "9112 9.3.2", request() + Y_TOO, see(X, Y)),
    Case("bodies of both framings", "9112 9.3.2",
         post(CL5, body=b"hello") + chunked(HELLO) + Y_TOO,
         see(POSTED, Seen(b"POST", b"/x", b"hello", chunked=True), Y)),
    Case("HEAD, then GET", "9112 9.3.2", request(b"HEAD @S/x") + Y_TOO,
         see(Seen(b"HEAD", b"/x"), Y)),
    Case("an empty line between", "9112 2.2", request() + b"\r\n" + Y_TOO, see(X, Y)),
    Case("a line end too much behind a body", "9112 2.2",
         post(CL5, body=b"hello") + b"\r\n" + Y_TOO, see(POSTED, Y)),
    Case("fifty at once", "9112 9.3.2", request() * 50, Outcome(seen=(X,) * 50, goes_on=True)),
    Case("behind close", "9112 9.6", request(b"GET @S/x", b"Connection: close") + b"@E",
         see(X, goes_on=False)),
    Case("behind HTTP/1.0", "9112 9.3", b"GET @S/x HTTP/1.0\r\n@K\r\n@E", see(X, goes_on=False)),
    Case("behind a bad head", "9112 9.3.2", b"GET @S/x HTTP/1.1\n" + HOST + b"@K\r\n@E",
         no(400, "bare_line_end")),
    Case("a bad head behind a good one", "9112 9.3.2", request() + b"GET  @S/y HTTP/1.1\r\n\r\n@E",
         no(400, "bad_request_line", X)),
    Case("two framings behind a good one", "9112 9.3.2",
         request() + post(CL5, TE, body=b"0\r\n\r\n@E"), no(400, "two_framings", X)),
    Case("a bad body behind a good request", "9112 9.3.2",
         request() + chunked(b"x\r\n@E"), no(400, "bad_body", X)),
    Case("behind 404", "9112 9.3.2", request(b"GET /nothing") + Y_TOO,
         no_but_on(404, "no_such_path", Y)),
    Case("behind 405 with a body", "9112 9.3.2",
         request(b"BREW @S/x", CL5, body=b"hello") + Y_TOO,
         no_but_on(405, "method_not_allowed", Y)),
    Case("behind 403 with chunks", "9112 9.3.2",
         request(b"POST @S/bot", TE, body=HELLO) + Y_TOO, no_but_on(403, "reserved_path", Y)),
    Case("behind 401 with a body", "9112 9.3.2",
         (NO_KEY % b"POST") + CL5 + b"\r\n\r\nhello" + Y_TOO, no_but_on(401, "bad_api_key", Y)),
    Case("behind 401 with a body that is a request", "9112 9.3.2",
         (NO_KEY % b"POST") + b"Content-Length: 43\r\n\r\n"
         b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n" + Y_TOO,
         no_but_on(401, "bad_api_key", Y)),
    Case("behind 401 with bad chunks", "9112 9.3.2",
         (NO_KEY % b"POST") + TE + b"\r\n\r\n0\r\n\n@E", no(401, "bad_api_key")),
    Case("behind 400 for a target, with a body", "9112 9.3.2",
         request(b"POST @S/../x", CL5, body=b"hello") + Y_TOO,
         no_but_on(400, "target_dot_segment", Y)),
    Case("behind 413", "9110 15.5.14",
         request(b"POST /v1/public/bot/start", b"Content-Length: 99999999", body=b"@E"),
         no(413, "request_too_large")),
]  # fmt: skip
