"""Laws of the handshakes: what is taken wsproto takes too, and nothing but a Refusal escapes."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.protocol.frame_headers import RSV, RSV_DEFLATE
from relay.protocol.handshake import (
    BotAnswer,
    BotRefusal,
    check_upgrade,
    switching,
)
from relay.protocol.http1 import parse_request
from tests.helpers.frames import cut_up
from tests.helpers.handshakes import FIELDS, KEY, Bot, ask_wsproto

NAMES = st.sampled_from(
    (*FIELDS, "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Content-Length", "X-A")
)
VALUES = st.sampled_from(
    (
        b"websocket",
        b"Upgrade, keep-alive",
        b"keep-alive",
        KEY,
        KEY[:-1],
        b"13",
        b"8",
        b"chat, v2",
        b"permessage-deflate; x=1",
        b"0",
        b"a.example",
    )
) | st.binary(max_size=5).filter(lambda value: not set(value) & set(b"\r\n\0"))
TOKENS = st.text(alphabet="abcXYZ019-._", min_size=1, max_size=8)
OFFERS = st.lists(TOKENS, min_size=1, max_size=4, unique=True)
CUTS = st.lists(st.integers(0, 600), max_size=6)


def status_of(bot: Bot, pieces: list[bytes]) -> int | None:
    """Give the pieces to the handshake; the status of its refusal, if it refuses."""
    try:
        for piece in pieces:
            bot.handshake.receive(piece)
    except Refusal as refusal:
        return refusal.status
    return None


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """An upgrade request with a few fields changed, added or left out."""
    fields = [(name, value) for name, value in FIELDS.items() if isinstance(value, bytes)]
    for _ in range(draw(st.integers(0, 3))):
        match draw(st.sampled_from(("add", "change", "leave"))):
            case "add":
                fields.append((draw(NAMES), draw(VALUES)))
            case "change" if fields:
                index = draw(st.integers(0, len(fields) - 1))
                fields[index] = (fields[index][0], draw(VALUES))
            case "leave" if fields:
                del fields[draw(st.integers(0, len(fields) - 1))]
    line = b"%s /ws HTTP/%s" % (
        draw(st.sampled_from((b"GET", b"GET", b"GET", b"POST"))),
        draw(st.sampled_from((b"1.1", b"1.1", b"1.1", b"1.0"))),
    )
    lines = [name.encode() + b": " + value for name, value in fields]
    return b"\r\n".join((line, *lines, b"", b""))


@given(heads())
def test_what_is_taken_wsproto_takes_too(head: bytes) -> None:
    with suppress(Refusal):
        request = parse_request(head)
        upgrade = check_upgrade(request)
        event = ask_wsproto(request)
        assert tuple(event.subprotocols) == upgrade.subprotocols
        assert (b"sec-websocket-key", upgrade.key) in event.extra_headers


@given(OFFERS, OFFERS, st.data())
def test_a_bot_chooses_from_what_was_offered(
    protocols: list[str], extensions: list[str], data: st.DataObject
) -> None:
    chosen_protocol = data.draw(st.sampled_from(protocols) | TOKENS)
    chosen = data.draw(st.lists(st.sampled_from(extensions) | TOKENS, min_size=1, max_size=2))
    bot = Bot(", ".join(protocols).encode(), ", ".join(extensions).encode())
    answer = bot.switching(
        b"Sec-WebSocket-Protocol: " + chosen_protocol.encode(),
        b"Sec-WebSocket-Extensions: " + ", ".join(chosen).encode(),
    )
    right = chosen_protocol in protocols and set(chosen) <= set(extensions)
    assert status_of(bot, [answer]) == (None if right else 502)
    if right:
        assert bot.handshake.answer == BotAnswer(chosen_protocol, ", ".join(chosen), ())


@given(st.lists(st.sampled_from(("permessage-deflate", "x-a", "x-b")), max_size=3), st.booleans())
def test_only_negotiated_extensions_get_reserved_bits(names: list[str], terms: bool) -> None:
    extensions = ", ".join(name + "; p=1" * terms for name in names)
    rsv = BotAnswer(None, extensions, ()).rsv
    unknown = set(names) - {"permessage-deflate"}
    assert rsv == (RSV if unknown else RSV_DEFLATE if names else 0)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Bot, bytes, bytes]:
    """A bot, the head of its answer and what follows: right, damaged or arbitrary."""
    bot = Bot(b"chat", b"permessage-deflate")
    framing = draw(
        st.sampled_from((b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n", b""))
    )
    status = draw(st.sampled_from((200, 301, 400, 403, 500, 101, 100, 999)))
    head = draw(
        st.sampled_from(
            (
                bot.switching(),
                bot.switching(b"Sec-WebSocket-Protocol: chat"),
                b"HTTP/1.1 %d X\r\n%s\r\n" % (status, framing),
                b"HTTP/1.1 403 X\r\n%s\r\n" % framing,
            )
        )
        | st.binary(max_size=60)
    )
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        place = draw(st.integers(0, len(head)))
        spoiler = draw(st.binary(max_size=2))
        head = head[:place] + spoiler + head[place + draw(st.integers(0, 2)) :]
    body = draw(st.sampled_from((b"body", b"4\r\nbody\r\n0\r\n\r\n")) | st.binary(max_size=40))
    return bot, head, body


@given(answers(), CUTS)
def test_whatever_a_bot_answers_is_an_answer_or_a_502(
    answer: tuple[Bot, bytes, bytes], cuts: list[int]
) -> None:
    bot, head, body = answer
    assert status_of(bot, [head, *cut_up(body, cuts), b""]) in (None, 502)
    # Behind a head that is no head, or after an error, nothing is passed on by chance.
    match bot.handshake.answer:
        case BotAnswer():
            assert head.startswith(b"HTTP/1.")
            assert bot.accept in head
        case BotRefusal(status=status):
            assert status >= 400


@given(OFFERS, st.binary(max_size=8), CUTS)
def test_a_refusals_body_is_whole_however_it_is_cut(
    words: list[str], more: bytes, cuts: list[int]
) -> None:
    body = " ".join(words).encode() + more
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for framing, sent in (
        (b"Content-Length: %d\r\n" % len(body), body),
        (b"Transfer-Encoding: chunked\r\n", chunked),
        (b"", body),
    ):
        bot = Bot()
        for piece in (
            b"HTTP/1.1 403 Forbidden\r\n" + framing + b"\r\n",
            *cut_up(sent, cuts),
            b"",
        ):
            bot.handshake.receive(piece)
        answer = bot.handshake.answer
        assert isinstance(answer, BotRefusal)
        assert answer.body == body


@given(OFFERS, OFFERS)
def test_the_101_is_what_a_client_of_wsproto_expects(
    protocols: list[str], extensions: list[str]
) -> None:
    """Our 101 for the client, read back by the same rules as a bot's 101 for us."""
    bot = Bot(", ".join(protocols).encode(), ", ".join(extensions).encode())
    key = bot.request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    answer = BotAnswer(protocols[-1], extensions[0], ((b"x-bot", b"1"),))
    bot.handshake.receive(switching(key, answer, []))
    assert bot.handshake.answer == answer
