"""Both handshakes: a client's bad requests, a bot's bad answers, and what passes between them."""

from __future__ import annotations

import base64

import pytest

from relay.errors import Refusal
from relay.protocol.frame_headers import RSV, RSV_DEFLATE
from relay.protocol.handshake import (
    MAX_REFUSAL_BODY,
    BotAnswer,
    BotRefusal,
    check_upgrade,
    switching,
)
from tests.helpers.handshakes import KEY, Bot, upgrade_request

Changes = dict[str, bytes | list[bytes] | None]
DEFLATE = b"permessage-deflate; client_max_window_bits"


def refused(line: bytes, changed: Changes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check_upgrade(upgrade_request(line=line, changed=changed))
    return caught.value


def bad_answer(bot: Bot, *data: bytes) -> None:
    """The bot's answer is a 502, and there is nothing to pass on."""
    for piece in data[:-1]:
        bot.handshake.receive(piece)
    with pytest.raises(Refusal) as caught:
        bot.handshake.receive(data[-1])
    assert (caught.value.status, caught.value.cause) == (502, "bot_bad_answer")
    assert bot.handshake.answer is None


# The client's side.


def test_what_an_upgrade_offers() -> None:
    upgrade = check_upgrade(
        upgrade_request(
            changed={
                "Sec-WebSocket-Protocol": [b"chat, superchat", b"v2"],
                "Sec-WebSocket-Extensions": [DEFLATE, b"", b'x-other; a="b"'],
            }
        )
    )
    assert upgrade.key == KEY
    assert upgrade.subprotocols == ("chat", "superchat", "v2")
    assert upgrade.extensions == (DEFLATE, b'x-other; a="b"')


@pytest.mark.parametrize(
    ("line", "changed", "status", "header"),
    [
        (b"POST / HTTP/1.1", {}, 405, (b"allow", b"GET")),
        (b"GET / HTTP/1.1", {"Upgrade": None}, 426, (b"upgrade", b"websocket")),
        (b"GET / HTTP/1.1", {"Connection": None}, 426, (b"connection", b"Upgrade")),
        (
            b"GET / HTTP/1.1",
            {"Sec-WebSocket-Version": b"8"},
            426,
            (b"sec-websocket-version", b"13"),
        ),
    ],
)
def test_a_refusal_says_what_would_do(
    line: bytes, changed: Changes, status: int, header: tuple[bytes, bytes]
) -> None:
    refusal = refused(line, changed)
    assert refusal.status == status
    assert header in refusal.headers


def test_a_body_ends_the_connection() -> None:
    """What follows would be read as the next request."""
    assert refused(b"GET / HTTP/1.1", {"Content-Length": b"3"}).close


def test_no_refusal_shows_the_key() -> None:
    refusal = refused(b"GET / HTTP/1.1", {"Sec-WebSocket-Key": b"c2VjcmV0"})
    assert "c2VjcmV0" not in refusal.reason


# The bot's side.


def test_the_request_to_a_bot() -> None:
    bot = Bot(b"chat, v2", DEFLATE + b", x-other")
    line, *fields = bot.request.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert line == b"GET /ws?a=1 HTTP/1.1"
    pairs = {tuple(field.lower().split(b": ", 1)) for field in fields}
    assert len(pairs) == len(fields)
    assert {name: value for name, value in pairs if name != b"sec-websocket-key"} == {
        b"host": b"bot.example:7860",
        b"upgrade": b"websocket",
        b"connection": b"upgrade",
        b"sec-websocket-version": b"13",
        b"sec-websocket-protocol": b"chat, v2",
        b"sec-websocket-extensions": DEFLATE + b", x-other",
        b"x-a": b"1",
    }
    key = next(field for field in fields if field.lower().startswith(b"sec-websocket-key: "))
    assert len(base64.b64decode(key.partition(b": ")[2])) == 16
    assert KEY not in bot.request


def test_every_handshake_has_a_key_of_its_own() -> None:
    assert Bot().accept != Bot().accept


@pytest.mark.parametrize(
    ("protocols", "extensions", "lines", "subprotocol", "chosen", "rsv"),
    [
        (None, None, [], None, "", 0),
        (b"chat, v2", None, [b"Sec-WebSocket-Protocol: v2"], "v2", "", 0),
        (b"chat", None, [], None, "", 0),
        (None, DEFLATE, [], None, "", 0),
        (
            None,
            DEFLATE,
            [b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover"],
            None,
            "permessage-deflate; server_no_context_takeover",
            RSV_DEFLATE,
        ),
        (None, b"x-a, x-b", [b"Sec-WebSocket-Extensions: x-b;p=1"], None, "x-b;p=1", RSV),
        (
            b"chat",
            b"x-a, permessage-deflate",
            [
                b"sec-websocket-protocol: chat",
                b"sec-websocket-extensions: permessage-deflate, x-a",
            ],
            "chat",
            "permessage-deflate, x-a",
            RSV,
        ),
    ],
)
def test_a_right_101(
    protocols: bytes | None,
    extensions: bytes | None,
    lines: list[bytes],
    subprotocol: str | None,
    chosen: str,
    rsv: int,
) -> None:
    bot = Bot(protocols, extensions)
    bot.handshake.receive(bot.switching(*lines, b"X-Bot: 1", b"Server: s"))
    answer = bot.handshake.answer
    assert isinstance(answer, BotAnswer)
    assert (answer.subprotocol, answer.extensions, answer.rsv) == (subprotocol, chosen, rsv)
    assert answer.fields == ((b"x-bot", b"1"), (b"server", b"s"))


def test_the_frames_behind_a_101_are_not_looked_at() -> None:
    bot = Bot()
    bot.handshake.receive(bot.switching())
    bot.handshake.receive(b"\x82\x03abc\0\r\n")
    assert isinstance(bot.handshake.answer, BotAnswer)


@pytest.mark.parametrize("field", ["Upgrade", "Connection", "Sec-WebSocket-Accept"])
def test_a_101_without_a_field(field: str) -> None:
    bot = Bot()
    bad_answer(bot, bot.switching(leave=field))


@pytest.mark.parametrize(
    "lines",
    [
        (b"Sec-WebSocket-Protocol: other",),
        (b"Sec-WebSocket-Protocol: Chat",),
        (b"Sec-WebSocket-Protocol:",),
        (b"Sec-WebSocket-Protocol: ch\xe4t",),
        (b"Sec-WebSocket-Protocol: chat, v2",),
        (b"Sec-WebSocket-Protocol: v2", b"Sec-WebSocket-Protocol: chat"),
        (b"Sec-WebSocket-Extensions: x-other",),
        (b"Sec-WebSocket-Extensions: permessage-deflate, x-other",),
        (b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Extensions: x-a"),
        (b"Sec-WebSocket-Extensions: permessage-deflate; a=\xe4",),
        (b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=",),
        (b"X-Control: a\x01b",),
        (b"X-Nul: a\0b",),
        (b"X Space: a",),
        (b"no colon",),
    ],
)
def test_a_101_with_a_wrong_line(lines: tuple[bytes, ...]) -> None:
    bot = Bot(b"chat, v2", b"permessage-deflate, x-a")
    bad_answer(bot, bot.switching(*lines))


@pytest.mark.parametrize("accept", [b"", b"x", KEY, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="])
def test_a_101_with_a_wrong_accept(accept: bytes) -> None:
    bot = Bot()
    bad_answer(bot, bot.switching(accept=accept))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 000 Nothing\r\n\r\n",
        b"HTTP/1.1 4040 Not Found\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nX: a\x01\r\n\r\n",
    ],
)
def test_other_answers(answer: bytes) -> None:
    bad_answer(Bot(), answer)


@pytest.mark.parametrize(
    ("framing", "pieces"),
    [
        (b"Content-Length: 6\r\n", [b"no", b"pe", b"\r\n"]),
        (b"Content-Length: 6\r\n", [b"nope\r\n and what no length covers"]),
        (b"Transfer-Encoding: chunked\r\n", [b"4\r\nnope\r\n", b"2;x\r\n\r\n\r\n0\r\n\r\n"]),
        (b"", [b"nope", b"\r\n", b""]),
    ],
)
def test_a_refusal_with_a_body(framing: bytes, pieces: list[bytes]) -> None:
    bot = Bot()
    bot.handshake.receive(b"HTTP/1.1 403 Forbidden\r\nX-Why: because\r\n" + framing + b"\r\n")
    for piece in pieces:
        assert bot.handshake.answer is None
        bot.handshake.receive(piece)
    answer = bot.handshake.answer
    assert isinstance(answer, BotRefusal)
    assert (answer.status, answer.body) == (403, b"nope\r\n")
    assert answer.fields[0] == (b"x-why", b"because")


@pytest.mark.parametrize("status", [400, 403, 426, 500, 503, 599])
def test_a_refusal_without_a_body(status: int) -> None:
    bot = Bot()
    bot.handshake.receive(b"HTTP/1.1 %d \r\nContent-Length: 0\r\n\r\n" % status)
    assert bot.handshake.answer == BotRefusal(status, ((b"content-length", b"0"),), b"")


@pytest.mark.parametrize("framing", [b"Content-Length: 6\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_refusal_that_breaks_off(framing: bytes) -> None:
    bad_answer(Bot(), b"HTTP/1.1 403 Forbidden\r\n" + framing + b"\r\n", b"4\r\nn", b"")


def test_a_bad_chunk_in_a_refusal() -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n"
    bad_answer(Bot(), head, b"four\r\nnope\r\n")


@pytest.mark.parametrize("excess", [0, 1])
def test_the_longest_body_of_a_refusal(excess: int) -> None:
    bot = Bot()
    head, body = b"HTTP/1.1 500 Oops\r\n\r\n", b"x" * (MAX_REFUSAL_BODY + excess)
    if excess:
        bad_answer(bot, head, body)
        return
    for piece in (head, body, b""):
        bot.handshake.receive(piece)
    assert isinstance(bot.handshake.answer, BotRefusal)
    assert len(bot.handshake.answer.body) == MAX_REFUSAL_BODY


# The 101 for the client.


def test_switching() -> None:
    answer = BotAnswer("chat", "permessage-deflate", ((b"x-bot", b"1"),))
    assert switching(KEY, answer, [(b"X-Own", b"2")]) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        b"x-bot: 1\r\n"
        b"X-Own: 2\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    ("extensions", "rsv"),
    [
        ("", 0),
        ("permessage-deflate", RSV_DEFLATE),
        ("permessage-deflate; client_max_window_bits=12", RSV_DEFLATE),
        ("permessage-deflate, permessage-deflate", RSV_DEFLATE),
        ("x-webkit-deflate-frame", RSV),
        ("permessage-deflate, x-mux", RSV),
    ],
)
def test_reserved_bits_follow_the_extensions(extensions: str, rsv: int) -> None:
    assert BotAnswer(None, extensions, ()).rsv == rsv
