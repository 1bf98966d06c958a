"""Bots that refuse, hang, talk nonsense or die during the upgrade, and callers who then leave."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.helpers import scripted_bot as script
from tests.helpers.daemon import PATIENCE, Daemon, wait_until
from tests.helpers.scripted_bot import Conversation, ScriptedBot, nobody_listens, scripted_bot
from tests.helpers.shared import shared_daemon
from tests.helpers.wire import (
    WS_KEY,
    Wire,
    ask,
    call,
    echoes,
    exchange_line,
    keeps_secrets,
    live,
    masked,
    refused,
    serves,
    token_for,
    upgrade,
)

SENT = "a-word-that-only-a-bot-knows"
ROUTE = "/ws/generic/{}.acme"
AGENTS = """
attach_timeout = 20
[agents.hasty]
organization = "acme"
instances = ["{hasty}", "{hasty2}", "{hasty3}", "{hasty4}"]
attach_timeout = 1
settle_time = 0
[agents.open]
organization = "acme"
websocket_auth = "none"
instances = ["{open}"]
settle_time = 0
[agents.dead]
organization = "acme"
instances = ["{dead}"]
attach_timeout = 1
[agents.pair]
organization = "acme"
instances = ["{dying}", "{living}"]
attach_timeout = 1
settle_time = 0.1
[agents.twins]
organization = "acme"
instances = ["{twin}", "{other}"]
attach_timeout = 1
settle_time = 0.1
"""
# One that hangs is set aside for longer than these tests take.
HASTY = ("hasty", "hasty2", "hasty3", "hasty4")
NAMES = ("bot", *HASTY, "open", "dying", "living", "twin", "other")

Bots = dict[str, ScriptedBot]


@pytest.fixture(scope="module")
def bots() -> Iterator[Bots]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(scripted_bot()) for name in NAMES}


@pytest.fixture(scope="module")
def daemon(bots: Bots, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    urls, secrets = {name: bot.url for name, bot in bots.items()}, (SENT, WS_KEY)
    with nobody_listens() as dead:
        agents = AGENTS.format(dead=dead, **urls)
        with shared_daemon(tmp_path_factory, [urls["bot"]], agents, secrets=secrets) as daemon:
            yield daemon


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


def usable(daemon: Daemon, bot: ScriptedBot, token: str, agent: str = "bot") -> None:
    """The token of a caller who was not served opens a call once the bot answers well."""
    bot.script = script.accept()
    with call(daemon, ROUTE.format(agent), token) as ws:
        assert echoes(ws)
    keeps_secrets(daemon, token)


# --- the bot's own refusal ---


@pytest.mark.parametrize(
    ("status", "body", "fields"),
    [
        ("403 Forbidden", b'{"detail": "not you"}', ("Content-Type: application/json",)),
        ("400 Bad Request", b"\x00\xff binary", ("Content-Type: application/octet-stream",)),
        ("426 Upgrade Required", b"13", ("Sec-WebSocket-Version: 13", "Content-Type: text/plain")),
        ("429 Slow Down", b"", ("Retry-After: 7",)),
        ("500 Oh", b"x" * 200_000, ("Content-Type: text/html; charset=utf-8", "X-Own: kept")),
        ("401 Unauthorized", b"who?", ("WWW-Authenticate: bearer", "X-Request-Id: its-own")),
        ("599 Odd", b"odd", ()),
    ],
)
def test_a_refusal_of_the_bot_passes_unchanged(
    daemon: Daemon, bots: Bots, status: str, body: bytes, fields: tuple[str, ...]
) -> None:
    bot, token, name = bots["bot"], token_for(), str(uuid.uuid4())
    bot.script = script.refuse(status, body, "Connection: close", *fields)
    answer = ask(daemon, upgrade(ROUTE.format("bot"), bearer(token), f"X-Request-Id: {name}"))
    assert (answer.status, answer.body) == (int(status[:3]), body)
    given = dict(field.lower().split(": ", 1) for field in fields) | {"x-request-id": name}
    assert answer.headers.items() >= given.items()
    assert ("content-type" in answer.headers) == ("content-type" in given)
    line = exchange_line(daemon, name)
    assert (line["status"], line["cause"], line["phase"]) == (answer.status, "bot_refused", "relay")
    usable(daemon, bot, token)


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnot \r\n3\r\nyou\r\n0\r\n\r\n",
        "HTTP/1.1 403 No\r\n\r\nnot you",
        "HTTP/1.0 403 No\r\n\r\nnot you",
    ],
)
def test_a_refusal_passes_however_its_body_is_framed(
    daemon: Daemon, bots: Bots, answer: str
) -> None:
    bots["bot"].script = script.say(answer.encode())
    with Wire(daemon.port) as wire:
        for _ in range(2):  # and the client's connection goes on
            given = wire.ask(upgrade(ROUTE.format("bot"), bearer(token_for())))
            assert (given.status, given.body) == (403, b"not you")


# --- answers that are none ---

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"


@pytest.mark.parametrize(
    ("says", "cause"),
    [
        (script.say(b""), "bot_died"),
        (script.say(SWITCHING + b"Upgrade: webso"), "bot_died"),
        (script.reset(), "bot_died"),
        (script.reset(SWITCHING), "bot_died"),
        (script.say(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nhalf"), "bot_bad_answer"),
        (script.reset(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nhalf"), "bot_died"),
        (script.say(SENT.encode() + b"\r\n\r\n"), "bot_bad_answer"),
        (script.say(b"\x16\x03\x01\x02\x00" * 8 + b"\r\n\r\n"), "bot_bad_answer"),
        (script.say(b"HTTP/1.1 101 \r\n\r\n"), "bot_bad_answer"),
        (script.say(b"HTTP/1.1 100 Continue\r\n\r\n"), "bot_bad_answer"),
        (script.refuse("200 OK", SENT.encode()), "bot_bad_answer"),
        (script.refuse("302 Found", b"", "Location: /" + SENT), "bot_bad_answer"),
        (script.refuse("500 Too much", b"x" * (256 * 1024 + 1)), "bot_bad_answer"),
        (script.endless_head, "bot_bad_answer"),
        (script.accept(key=b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="), "bot_bad_answer"),
        (script.accept(key=b""), "bot_bad_answer"),
        (script.accept(upgrade="X-Upgrade: websocket"), "bot_bad_answer"),
        (script.accept(upgrade="Upgrade: h2c"), "bot_bad_answer"),
        (script.accept(fields=("Sec-WebSocket-Protocol: unasked",)), "bot_bad_answer"),
        (script.accept(fields=("Sec-WebSocket-Extensions: unasked",)), "bot_bad_answer"),
    ],
)
def test_any_other_answer_is_our_502(
    daemon: Daemon, bots: Bots, says: script.Script, cause: str
) -> None:
    bot, token = bots["bot"], token_for()
    bot.script = says
    answer = ask(daemon, upgrade(ROUTE.format("bot"), bearer(token)))
    assert refused(daemon, answer, 502, cause)["phase"] == "resolve"
    assert SENT not in answer.body.decode()
    usable(daemon, bot, token)


@pytest.mark.parametrize(
    "says",
    [
        script.hang(),
        script.hang(SWITCHING + b"Upgrade: websocket\r\n"),
        script.hang(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nhalf"),
    ],
)
def test_a_bot_that_hangs_is_503_after_attach_timeout(
    daemon: Daemon, bots: Bots, says: script.Script
) -> None:
    token = token_for("hasty.acme")
    for name in HASTY:
        bots[name].script = says
    answer = ask(daemon, upgrade(ROUTE.format("hasty"), bearer(token)))
    refused(daemon, answer, 503, "bot_silent")
    assert int(answer.headers["retry-after"]) >= 1
    line = exchange_line(daemon, answer.headers["x-request-id"])
    assert 950 < line["ms"] < 5000
    for name in HASTY:
        bots[name].script = script.accept()
    usable(daemon, bots["hasty"], token, "hasty")


def test_without_an_instance_that_listens_an_upgrade_is_503(daemon: Daemon) -> None:
    session = str(uuid.uuid4())
    token = token_for("dead.acme", session=session)
    answer = ask(daemon, upgrade(ROUTE.format("dead"), bearer(token)))
    error = refused(daemon, answer, 503, "no_instance_ready")
    assert "became ready within" in error["error"]
    assert int(answer.headers["retry-after"]) >= 1
    assert daemon.session(session)["state"] == "reserved"  # it may come again


# --- right answers, oddly cut ---


@pytest.mark.parametrize("slow", [False, True])
def test_the_bots_first_frames_follow_the_101(daemon: Daemon, bots: Bots, slow: bool) -> None:
    bots["bot"].script = script.accept(early=b"\x81\x03one\x82\x03two\x81\x7e\x01\x00", slow=slow)
    with Wire(daemon.port) as wire:
        answer = wire.ask(upgrade(ROUTE.format("bot"), bearer(token_for())))
        assert answer.status == 101
        assert wire.file.read(14) == b"\x81\x03one\x82\x03two\x81\x7e\x01\x00"
    wait_until(lambda: not live(daemon), "the call has ended")


def test_the_bots_choice_of_subprotocol_and_its_fields_reach_the_client(
    daemon: Daemon, bots: Bots
) -> None:
    forged = ("X-Daily-Session-Id: forged", "X-Request-Id: forged")
    fields = ("Sec-WebSocket-Protocol: b", "X-Own: kept", *forged)
    bots["bot"].script = script.accept(fields=fields)
    session = str(uuid.uuid4())
    token = token_for(session=session)
    with Wire(daemon.port) as wire:
        offer = "Sec-WebSocket-Protocol: a, b"
        answer = wire.ask(upgrade(ROUTE.format("bot"), bearer(token), offer))
        assert answer.headers["sec-websocket-protocol"] == "b"
        assert answer.headers["x-own"] == "kept"
        assert answer.headers["x-daily-session-id"] == session
        assert answer.headers["x-request-id"] != "forged"
    wait_until(lambda: not live(daemon), "the call has ended")


def test_frames_sent_before_the_101_arrive_in_order(daemon: Daemon, bots: Bots) -> None:
    asked, go = threading.Event(), threading.Event()

    def late(talk: Conversation) -> None:
        asked.set()
        assert go.wait(PATIENCE)
        script.accept()(talk)

    bots["bot"].script = late
    with Wire(daemon.port) as wire:
        wire.send(upgrade(ROUTE.format("bot"), bearer(token_for())) + masked("0") + masked("1"))
        assert asked.wait(PATIENCE)
        for number in range(2, 50):
            wire.send(masked(str(number)))
        go.set()
        assert wire.answer().status == 101
        for number in range(50):
            text = str(number).encode()
            assert wire.file.read(2 + len(text)) == bytes((0x81, len(text))) + text
    wait_until(lambda: not live(daemon), "the call has ended")


# --- callers who leave while the bot hangs ---


def waiting(daemon: Daemon, session: str) -> bool:
    record = daemon.session(session)
    return bool(record.get("state") == "waiting" and record["instance"])


def test_a_caller_who_leaves_frees_bot_and_token(daemon: Daemon, bots: Bots) -> None:
    bot, session = bots["bot"], str(uuid.uuid4())
    token, name = token_for(session=session), str(uuid.uuid4())
    bot.script = script.hang()
    with Wire(daemon.port) as wire:
        wire.send(upgrade(ROUTE.format("bot"), bearer(token), f"X-Request-Id: {name}"))
        wait_until(lambda: waiting(daemon, session), "the bot has been asked")
    line = exchange_line(daemon, name)
    assert (line["cause"], line.get("status"), line["session_id"]) == ("client_left", None, session)
    assert daemon.session(session)["state"] == "reserved"
    usable(daemon, bot, token)
    assert daemon.wait_ended(session)["cause"] == "client_closed"


def test_without_a_token_a_caller_who_leaves_ends_the_session(daemon: Daemon, bots: Bots) -> None:
    bots["open"].script = script.hang()
    with Wire(daemon.port) as wire:
        wire.send(upgrade(ROUTE.format("open")))
        (record,) = wait_until(lambda: live(daemon), "the caller is known")
    record = daemon.wait_ended(record["sessionId"])
    assert (record["cause"], record["endState"]) == ("client_left", "ended_before_agent_start")
    bots["open"].script = script.refuse("403 Forbidden", b"")
    answer = ask(daemon, upgrade(ROUTE.format("open")))
    record = daemon.wait_ended(answer.headers["x-daily-session-id"])
    assert (record["cause"], record["completionStatus"]) == ("bot_refused", "HTTP_ERROR")
    bots["open"].script = script.accept()
    serves(daemon, "open")


# --- one of two instances refuses, or dies ---


def test_who_comes_again_at_once_keeps_the_second_instance(daemon: Daemon, bots: Bots) -> None:
    route, token = ROUTE.format("twins"), token_for("twins.acme")
    bots["twin"].script = script.refuse("403 Forbidden", b"")
    assert ask(daemon, upgrade(route, bearer(token))).status == 403
    bots["twin"].script = script.accept()
    with (
        call(daemon, route, token) as first,  # on the other, while the first one rests
        call(daemon, route, token_for("twins.acme")) as second,  # on the first, rested
    ):
        assert echoes(first)
        assert echoes(second)
        answer = ask(daemon, upgrade(route, bearer(token_for("twins.acme"))))
        refused(daemon, answer, 503, "at_capacity")
    assert [len(bots[name].conversations) for name in ("twin", "other")] == [2, 1]


def test_the_next_instance_serves_and_stays_with_its_call(daemon: Daemon, bots: Bots) -> None:
    ready = daemon.request("GET", "/readyz", admin=True).json()["instances"]["pair"]
    assert set(ready.values()) == {"ready"}
    bots["dying"].stop_listening()
    with call(daemon, ROUTE.format("pair"), token_for("pair.acme")) as ws:
        assert echoes(ws)
        # Long enough for whatever is late to let the second instance go as well.
        answer = ask(daemon, upgrade(ROUTE.format("pair"), bearer(token_for("pair.acme"))))
        refused(daemon, answer, 503, "at_capacity")
        assert echoes(ws)
    assert len(bots["living"].conversations) == 1


def test_after_all_of_this_calls_go_through(daemon: Daemon, bots: Bots) -> None:
    for name in ("bot", "hasty", "open"):
        bots[name].script = script.accept()
        serves(daemon, name)
    for agent in ("pair", "twins"):
        serves(daemon, agent)
