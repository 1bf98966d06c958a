"""One exchange with a bot: its request's bytes, and how its answer is judged and cut."""

from __future__ import annotations

import pytest

from relay.errors import Refusal
from relay.protocol.bot_http import (
    MAX_BOT_HEAD,
    MAX_INTERIM,
    BotEnd,
    BotHead,
    BotTalk,
    request_head,
)
from relay.protocol.http1 import Request

END = BotEnd.END
Event = BotHead | bytes | BotEnd


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
    bot = BotTalk(method)
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


@pytest.mark.parametrize(
    ("sent", "framing"),
    [
        ((), b""),
        (((b"content-length", b"005"),), b"content-length: 5\r\n"),
        (((b"transfer-encoding", b"Chunked"),), b"transfer-encoding: chunked\r\n"),
    ],
)
def test_the_head_of_a_request(sent: tuple[tuple[bytes, bytes], ...], framing: bytes) -> None:
    request = Request(b"POST", b"/ignored", b"1.1", (*sent, (b"x-not", b"given")))
    head = request_head(request, b"/a%20b?c=+", "bot:1", [(b"x-a", b"caf\xe9")])
    assert (
        head == b"POST /a%20b?c=+ HTTP/1.1\r\nhost: bot:1\r\nx-a: caf\xe9\r\n" + framing + b"\r\n"
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
        BotHead(
            503,
            b"Not caf\xe9",
            ((b"x-a", b"b"), (b"x-a", b""), (b"content-length", b"0")),
            version=b"1.0",
        ),
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
    found = BotHead(200, b"OK", (), version)
    assert read(data) == [found, b"hi"]
    assert read(data, closes=True) == [found, b"hi", END]


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
    b"HTTP/1.1 103 Early\r\n\r\n" * (MAX_INTERIM + 1),
    OK + b"Transfer-Encoding: chunked\r\n\r\nxx\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1\nh",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1 \r\nh",
    OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n",
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


def test_trailers_come_with_the_end() -> None:
    bot = BotTalk(b"GET")
    bot.receive(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n0\r\nX-Sum:  a b \r\nY:\r\n\r\n")
    assert events(bot)[-1] is END
    assert list(bot.trailers) == [(b"x-sum", b"a b"), (b"y", b"")]


def test_what_passes_by_needs_no_decoding() -> None:
    bot = BotTalk(b"GET")
    bot.receive(OK + b"Content-Length: 10\r\n\r\n")
    assert bot.passing == 0  # a head may hold anything
    events(bot)
    assert bot.passing == 10
    bot.passed(8)
    bot.receive(b"ab")
    assert bot.passing == 0
    assert events(bot) == [b"ab", END]


# --- another request on the same connection ---

WHOLE = OK + b"Content-Length: 2\r\n\r\nhi"
REUSABLE = {
    WHOLE: True,
    OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n0\r\nX: y\r\n\r\n": True,
    b"HTTP/1.1 204 No Content\r\n\r\n": True,
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n": True,
    b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE: True,
    WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"): True,
    WHOLE + b"x": False,
    WHOLE + OK: False,
    WHOLE[:-1]: False,
    WHOLE.replace(b"1.1", b"1.0"): False,
    WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: x, Close\r\n\r\n"): False,
    WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: x\r\nConnection: close\r\n\r\n"): False,
    OK + b"\r\nhi": False,
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n": False,
    b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n": False,
}


@pytest.mark.parametrize("data", REUSABLE)
def test_a_connection_is_used_again_only_without_doubt(data: bytes) -> None:
    bot = BotTalk(b"GET")
    assert bot.untouched
    bot.receive(data)
    events(bot)
    assert not bot.untouched
    assert bot.reusable == REUSABLE[data]


def test_a_connection_that_has_closed_is_not_used_again() -> None:
    bot = BotTalk(b"GET")
    bot.receive(WHOLE)
    bot.receive(b"")
    assert events(bot)[-1] is END
    assert not bot.reusable
