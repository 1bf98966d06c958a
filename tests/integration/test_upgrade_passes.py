"""What of a right upgrade reaches the bot: body, parameters, header fields, extensions."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from websockets.typing import Subprotocol

from tests.helpers.daemon import Bot, Daemon, running_bot, wait_until
from tests.helpers.shared import MANY, shared_daemon
from tests.helpers.wire import (
    WS_KEY,
    Wire,
    ask,
    base64_of,
    call,
    echoes,
    live,
    refused,
    serves,
    token_for,
    told,
    upgrade,
)

BOT = "/ws/generic/bot.acme"
SENT = "a-word-that-only-a-caller-knows"


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    with running_bot(tmp_path_factory.mktemp("bot"), sessions=1000) as bot:
        yield bot


@pytest.fixture(scope="module")
def daemon(bot: Bot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    secrets = (SENT, base64_of(SENT)[:24], STANDARD[:24], WS_KEY)
    with shared_daemon(tmp_path_factory, [bot.url], MANY, secrets=secrets) as daemon:
        yield daemon


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


VALUE = {"caller": "Zoë", "odd": ">>>???~~~", "n": [1, None]}
TEXT = json.dumps(VALUE, ensure_ascii=False, separators=(",", ":")).encode()
STANDARD = base64.b64encode(TEXT).decode()
SAFE = base64.urlsafe_b64encode(TEXT).decode()


@pytest.mark.parametrize(
    ("spelt", "value"),
    [
        (STANDARD, VALUE),
        (STANDARD.rstrip("="), VALUE),
        (quote(STANDARD, safe=""), VALUE),
        (STANDARD.replace("+", "%20"), VALUE),
        (SAFE, VALUE),
        (SAFE.rstrip("="), VALUE),
        ("".join(f"%{ord(char):02x}" for char in STANDARD), VALUE),
        (base64_of([1, 2]), [1, 2]),
        (base64_of("text"), "text"),
        (base64_of(1.5), 1.5),
        (base64_of(None), None),
        ("", None),
        ("undefined", None),
    ],
)
def test_the_body_reaches_the_bot_however_it_is_spelt(
    daemon: Daemon, spelt: str, value: object
) -> None:
    assert "+" in STANDARD
    assert "_" in SAFE
    assert json.loads(told(daemon, "!body", f"{BOT}?body={spelt}")) == value


@pytest.mark.parametrize(
    ("body", "status", "cause"),
    [
        (base64_of("x" * 4094), 101, ""),
        (base64_of("x" * 4095), 413, "body_too_large"),
        (base64_of(SENT * 500), 413, "body_too_large"),
        ("!" + SENT, 400, "body_not_base64"),
        ("eyJhIjoxfQ===", 400, "body_bad_padding"),
        ("eyJhIjoxf", 400, "body_bad_length"),
        (base64.b64encode(b'"\xff\xfe"').decode(), 400, "body_not_utf8"),
        (base64.b64encode(SENT.encode()).decode(), 400, "body_not_json"),
        (base64.b64encode(b"NaN").decode(), 400, "body_not_finite"),
        (base64.b64encode(b"[" * 3000).decode(), 400, "body_too_deep"),
        ("MQ==&body=MQ==", 400, "body_repeated"),
        ("&body=", 400, "body_repeated"),
        ("MQ==&x=" + "y" * 8192, 413, "bot_target_too_long"),
        ("MQ==&x=" + "y" * 25_000, 414, "target_too_long"),
    ],
)
def test_a_bad_body_is_refused_before_the_token_is_used(
    daemon: Daemon, body: str, status: int, cause: str
) -> None:
    token = token_for()
    with Wire(daemon.port) as wire:
        answer = wire.ask(upgrade(f"{BOT}?body={body}", bearer(token)))
        if status == 101:
            assert answer.status == 101
            return
        refused(daemon, answer, status, cause)
    with call(daemon, BOT, token) as ws:
        assert echoes(ws)


def test_the_bots_request_line_may_have_8192_bytes(daemon: Daemon) -> None:
    longest = "y" * (8192 - len("GET /ws?x= HTTP/1.1\r\n"))
    assert told(daemon, "!target", f"{BOT}?x={longest}") == f"/ws?x={longest}"
    answer = ask(daemon, upgrade(f"{BOT}?x={longest}y", bearer(token_for())))
    refused(daemon, answer, 413, "bot_target_too_long")


def test_other_parameters_reach_the_bot_in_order_and_ours_do_not(daemon: Daemon) -> None:
    query = f"a=1&token={token_for()}&b=%20%2f&serviceHost=bot.acme&a=2&flag&&e=&body=bnVsbA"
    target = told(daemon, "!target", f"/ws/generic?{query}", token="")
    assert target == "/ws?a=1&b=%20%2f&a=2&flag&e=&body=bnVsbA=="


def test_which_fields_reach_the_bot(daemon: Daemon) -> None:
    session = str(uuid.uuid4())
    sent = {
        "Cookie": f"key={SENT}",
        "X-Daily-Session-Id": SENT,
        "X-Hop": SENT,
        "Keep-Alive": "5",
        "Connection": "X-Hop",
        "Proxy-Authorization": SENT,
        "Origin": "https://app.example.com",
        "X-Custom": "kept",
        "X-Request-Id": "abc-1",
    }
    offers = [Subprotocol("chat"), Subprotocol("chat.2")]
    options: dict[str, Any] = {"headers": sent, "subprotocols": offers, "compression": "deflate"}
    got = told(daemon, "!headers", token=token_for(session=session), **options)
    pairs = [tuple(pair) for pair in json.loads(got)]
    names = [name for name, _ in pairs]
    for name in ("authorization", "cookie", "x-hop", "keep-alive", "proxy-authorization"):
        assert name not in names
    assert SENT not in got
    assert ("x-daily-session-id", session) in pairs
    assert names.count("x-daily-session-id") == names.count("host") == 1
    assert ("origin", "https://app.example.com") in pairs
    assert ("x-custom", "kept") in pairs
    assert dict(pairs)["sec-websocket-protocol"].replace(" ", "") == "chat,chat.2"
    assert dict(pairs)["sec-websocket-extensions"].startswith("permessage-deflate")
    assert dict(pairs)["sec-websocket-key"] != WS_KEY


def test_permessage_deflate_is_between_client_and_bot(daemon: Daemon) -> None:
    session, text = str(uuid.uuid4()), "again and again " * 5000
    with call(daemon, BOT, token_for(session=session), compression="deflate") as ws:
        assert [each.name for each in ws.protocol.extensions] == ["permessage-deflate"]
        assert echoes(ws, text)
        assert echoes(ws, text)
    figures = daemon.wait_ended(session)["figures"]
    assert figures["client"]["messages"] == 2
    assert 0 < figures["client"]["bytes"] < len(text) / 10


def test_after_all_of_this_a_call_goes_through(daemon: Daemon, bot: Bot) -> None:
    wait_until(lambda: not live(daemon), "every session has ended")
    wait_until(lambda: bot.get("/status")["sessions"] == [], "the bot is idle")
    serves(daemon)
