"""One exchange with a bot: its request's bytes, and how its answer is judged and cut."""

from __future__ import annotations

import pytest

from relay.errors import Refusal
from relay.protocol.bot_http import MAX_BOT_HEAD, BotEnd, BotHead, BotTalk
from relay.protocol.http1 import Request

END = BotEnd.END
Event = BotHead | bytes | BotEnd


def talk(method: bytes = b"GET", *fields: tuple[bytes, bytes], version: bytes = b"1.1") -> BotTalk:
    request = Request(method, b"/ignored", version, fields)
    return BotTalk(request, b"/a%20b?c=+", "127.0.0.1:1", "the-session", "the-request")


def events(bot: BotTalk) -> list[Event]:
    """Everything that is there by now."""
    found: list[Event] = []
    while (event := bot.next_event()) is not None:
        found.append(event)
        if event is END:
            break
    return found


def read(
    data: bytes, *, method: bytes = b"GET", size: int = 0, closes: bool = False
) -> list[Event]:
    """The events of an answer that comes whole, or in pieces; pieces of body are joined."""
    bot = talk(method)
    _ = bot.end()
    found: list[Event] = []
    for at in range(0, len(data), size or len(data)):
        bot.receive(data[at : at + (size or len(data))])
        found += events(bot)
        if found and found[-1] is END:
            break
    if closes:
        bot.receive(b"")
        found += events(bot)
    body = b"".join(event for event in found if isinstance(event, bytes))
    whole = [event for event in found if not isinstance(event, bytes)]
    heads = [event for event in whole if event is not END]
    return [*heads, *([body] if body else []), *([END] if END in whole else [])]


def head(status: int, *fields: tuple[bytes, bytes], reason: bytes = b"OK") -> BotHead:
    return BotHead(status, reason, fields)


# --- the request ---


def lines(bot: BotTalk) -> list[bytes]:
    return bot.head.removesuffix(b"\r\n\r\n").split(b"\r\n")


OWN = [
    b"host: 127.0.0.1:1",
    b"x-daily-session-id: the-session",
    b"x-request-id: the-request",
    b"connection: close",
]


def test_the_head_of_a_request() -> None:
    bot = talk(
        b"GET",
        (b"host", b"relay"),
        (b"authorization", b"Bearer pk"),
        (b"cookie", b"a=b"),
        (b"connection", b"x-hop, keep-alive"),
        (b"x-hop", b"1"),
        (b"x-request-id", b"theirs"),
        (b"x-daily-session-id", b"forged"),
        (b"expect", b"100-continue"),
    )
    first, *fields = lines(bot)
    assert first == b"GET /a%20b?c=+ HTTP/1.1"
    assert sorted(fields) == sorted([*OWN, b"cookie: a=b"])
    assert bot.end() == b""


@pytest.mark.parametrize(
    ("sent", "framing", "body"),
    [
        ((b"content-length", b"005"), b"content-length: 5", b"hello"),
        ((b"transfer-encoding", b"Chunked"), b"transfer-encoding: chunked", b"5\r\nhello\r\n"),
    ],
)
def test_the_framing_of_a_request_is_made_anew(
    sent: tuple[bytes, bytes], framing: bytes, body: bytes
) -> None:
    bot = talk(b"POST", sent, (b"expect", b"100-continue"))
    assert sorted(lines(bot)[1:]) == sorted([*OWN, framing, b"expect: 100-continue"])
    assert bot.body(b"hello") == body
    assert bot.end() == (b"0\r\n\r\n" if b"chunked" in framing else b"")


def test_http_1_0_expects_nothing() -> None:
    fields = (b"content-length", b"5"), (b"expect", b"100-continue")
    assert not any(
        line.startswith(b"expect") for line in lines(talk(b"PUT", *fields, version=b"1.0"))
    )


# --- the answer ---

ANSWERS = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi": [
        head(200, (b"content-length", b"2")),
        b"hi",
        END,
    ],
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n"
    b"1;x=y\r\nh\r\n1\r\ni\r\n0\r\nT: x\r\n\r\n": [
        head(200, (b"transfer-encoding", b"CHUNKED")),
        b"hi",
        END,
    ],
    b"HTTP/1.1 204 \r\n\r\n": [head(204, reason=b""), END],
    b"HTTP/1.1 304\r\nContent-Length: 9\r\n\r\n": [
        head(304, (b"content-length", b"9"), reason=b""),
        END,
    ],
    b"HTTP/1.0 503 Not caf\xe9\r\nX-A:\t b \r\nX-A:\r\nContent-Length: 0\r\n\r\n": [
        head(503, (b"x-a", b"b"), (b"x-a", b""), (b"content-length", b"0"), reason=b"Not caf\xe9"),
        END,
    ],
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 OK\r\n\r\n": [
        head(100, reason=b"Continue"),
        head(103, (b"link", b"x"), reason=b"Early"),
        head(204),
        END,
    ],
}


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("data", ANSWERS)
def test_answers(data: bytes, size: int) -> None:
    assert read(data, size=size) == ANSWERS[data]


def test_an_answer_to_head_has_no_body() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert read(data, method=b"HEAD") == [head(200, (b"content-length", b"2")), END]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_without_framing_lasts_to_the_end(version: bytes) -> None:
    data = b"HTTP/%s 200 OK\r\n\r\nhi" % version
    assert read(data) == [head(200), b"hi"]
    assert read(data, closes=True) == [head(200), b"hi", END]


OK = b"HTTP/1.1 200 OK\r\n"
BAD = [
    b"SSH-2.0",
    b"h",
    b"\r\n",
    b"HTTP/2",
    b"HTTP/1.2 200 OK\r\n\r\n",
    b"HTTP/1.1 099 OK\r\n\r\n",
    b"HTTP/1.1 600 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1 200\tOK\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n",
    OK + b"Content-Length: 2, 2\r\n\r\n",
    OK + b"Content-Length: -2\r\n\r\n",
    OK + b"Content-Length: 0x2\r\n\r\n",
    OK + b"Content-Length:\r\n\r\n",
    OK + b"Content-Length: " + b"1" * 19 + b"\r\n\r\n",
    OK + b"Transfer-Encoding: gzip\r\n\r\n",
    OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    OK + b"X: a\nY: b",
    OK + b"X: a\rY: b",
    OK + b"X: a\r\n folded",
    OK + b"X: \x00",
    OK + b"X: \x7f",
    OK + b"X : a\r\n\r\n",
    OK + b"X\r\n\r\n",
    OK + b": a\r\n\r\n",
    OK + b"X: " + b"a" * MAX_BOT_HEAD,
    OK + b"Transfer-Encoding: chunked\r\n\r\nxx\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nhello\r\n",
]


@pytest.mark.parametrize("size", [0, 1000, 1])
@pytest.mark.parametrize("data", BAD)
def test_what_is_no_answer(data: bytes, size: int) -> None:
    with pytest.raises(Refusal) as refused:
        read(data, size=size)
    assert (refused.value.status, refused.value.cause) == (502, "bot_bad_answer")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP",
        OK,
        OK + b"\r",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        OK + b"Content-Length: 2\r\n\r\nh",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
    ],
)
def test_an_answer_that_ends_early(data: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read(data or b"", size=1, closes=True)
    assert (refused.value.status, refused.value.cause) == (502, "bot_died")


def test_what_follows_an_answer_is_not_read() -> None:
    assert read(OK + b"Content-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")[-1] is END
