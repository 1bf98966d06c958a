"""Spans of exchanges and sessions, read back from a receiver; the trace that bots are told."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemon import (
    PUBLIC_KEY,
    Daemon,
    config_text,
    running_daemon,
    wait_until,
)
from tests.helpers.receiver import Receiver, receiving
from tests.helpers.scripted_bot import ScriptedBot, accept, refuse, say, scripted_bot
from tests.helpers.spans import SEVEN, Seen, seen, span_of
from tests.helpers.upgrades import upgradable, wait_alone
from tests.helpers.upgrades import upgrade as upgrade_daemon
from tests.helpers.wire import ask, call, echoes, request, token_for, upgrade

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
RECORDED = f"traceparent: 00-{CALLER}-{PARENT}-01"
IGNORED = f"traceparent: 00-{CALLER}-{PARENT}-00"
KEY = f"Authorization: Bearer {PUBLIC_KEY}"
HTTP_BOT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def traced(receiver: Receiver, more: str = "") -> str:
    """Lines of the configuration; the table of an agent follows them."""
    return f'sessions_per_instance = 100\n[traces]\nendpoint = "{receiver.url}"\n{more}'


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def bot() -> Iterator[ScriptedBot]:
    with scripted_bot() as bot:
        yield bot


@pytest.fixture(scope="module")
def daemon(
    receiver: Receiver, bot: ScriptedBot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("traced")
    with running_daemon(folder, [bot.url], traced(receiver)) as daemon:
        wait_until(lambda: daemon.request("GET", "/readyz", admin=True).status == 200, "ready")
        yield daemon


@pytest.fixture(autouse=True)
def _fresh(receiver: Receiver, bot: ScriptedBot) -> None:
    receiver.told.clear()
    bot.conversations.clear()
    bot.script = accept()


def start(*fields: str, body: bytes = b'{"transport": "websocket"}') -> bytes:
    length = f"Content-Length: {len(body)}"
    return request("POST", "/v1/public/bot/start", KEY, length, *fields, body=body)


def in_order(span: Seen) -> None:
    """All seven phases, from its beginning to its end."""
    assert span.phases == SEVEN
    assert span.at == sorted(span.at)
    assert (span.at[0], span.at[-1]) == (span.begun, span.ended)


def test_a_call_from_start_to_end(daemon: Daemon, receiver: Receiver, bot: ScriptedBot) -> None:
    """One trace: the caller's request, /start, the upgrade, the session, the bot."""
    started = ask(daemon, start(RECORDED)).json()
    with call(daemon, token=started["token"]) as ws:
        assert echoes(ws)
        told = bot.conversations[-1].field("traceparent").decode()
    daemon.wait_ended(started["sessionId"])
    session = span_of(receiver, "session bot")
    upgraded = span_of(receiver, "GET generic_websocket")
    reserved = span_of(receiver, "POST start")
    assert {each.trace for each in (reserved, upgraded, session)} == {CALLER}
    assert [reserved.parent, upgraded.parent, session.parent] == [
        PARENT,
        reserved.span,
        upgraded.span,
    ]
    assert told == f"00-{CALLER}-{session.span}-01"
    for each in (reserved, upgraded, session):
        in_order(each)
        assert each.attributes["relay.session_id"] == started["sessionId"]
        assert each.service == "relay"
        assert not each.failed
    assert upgraded.attributes["http.response.status_code"] == 101
    assert session.attributes["relay.cause"] == "client_closed"
    assert session.attributes["relay.instance"] == bot.url


def test_a_session_over_http(daemon: Daemon, receiver: Receiver, bot: ScriptedBot) -> None:
    bot.script = say(HTTP_BOT)
    session_id = ask(daemon, start(RECORDED, body=b"{}")).json()["sessionId"]
    daemon.wait_ended(session_id)
    session = span_of(receiver, "session bot")
    assert session.parent == span_of(receiver, "POST start").span
    assert session.trace == CALLER
    in_order(session)
    assert bot.conversations[-1].target == "/bot"
    told = bot.conversations[-1].field("traceparent").decode()
    assert told == f"00-{CALLER}-{session.span}-01"


def test_a_request_of_a_session(daemon: Daemon, receiver: Receiver, bot: ScriptedBot) -> None:
    started = ask(daemon, start()).json()
    path = f"/v1/public/bot/sessions/{started['sessionId']}/status?secret=1"
    with call(daemon, token=started["token"]):
        bot.script = say(HTTP_BOT)
        asked = request("GET", path, KEY, RECORDED, "tracestate: vendor=1")
        answer = ask(daemon, asked)
        assert answer.status == 200
        head = bot.conversations[-1]
    span = span_of(receiver, "GET session_api")
    assert (span.trace, span.parent) == (CALLER, PARENT)
    in_order(span)
    assert head.field("traceparent").decode() == f"00-{CALLER}-{span.span}-01"
    assert head.field("tracestate") == b"vendor=1"
    assert span.attributes["relay.agent"] == "bot"
    # The log says the same; and neither says what may be a secret.
    line_of = [each for each in daemon.logs() if each.get("span_id") == span.span]
    assert [line["request_id"] for line in line_of] == [answer.headers["x-request-id"]]
    assert (line_of[0]["trace_id"], line_of[0]["parent_span_id"]) == (CALLER, PARENT)
    for secret in (PUBLIC_KEY, started["token"], "secret"):
        assert secret not in repr(seen(receiver))


def test_a_trace_that_begins_here(daemon: Daemon, receiver: Receiver, bot: ScriptedBot) -> None:
    """What a browser's upgrade without a field of its own brings the bot, and a bad one."""
    fields = (
        "traceparent: no-trace",
        "tracestate: of=nobody",
        f"Authorization: Bearer {token_for()}",
    )
    with socket.create_connection(("127.0.0.1", daemon.port)) as sock:
        sock.sendall(upgrade("/ws/generic/bot.acme", *fields))
        assert sock.recv(100).startswith(b"HTTP/1.1 101")
        head = bot.conversations[-1]
    session = span_of(receiver, "session bot")
    upgraded = span_of(receiver, "GET generic_websocket")
    assert (upgraded.parent, session.parent) == ("", upgraded.span)
    assert head.field("traceparent").decode() == f"00-{session.trace}-{session.span}-01"
    assert head.field("tracestate") == b""


def test_refusals_and_failures(daemon: Daemon, receiver: Receiver, bot: ScriptedBot) -> None:
    ask(daemon, request("GET", "/nowhere"))
    refused = span_of(receiver, "GET none")
    assert refused.phases == ["accept", "parse", "route", "close"]
    assert refused.attributes["relay.cause"] == "no_such_path"
    assert not refused.failed
    bot.script = refuse("500 Internal Server Error", b"no")
    answer = ask(daemon, upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token_for()}"))
    assert answer.status == 500
    assert span_of(receiver, "GET generic_websocket").failed
    # Nobody chooses a span's name.
    ask(daemon, request("X" * 300, "/nowhere"))
    assert span_of(receiver, "HTTP none").attributes["http.request.method"] == "_OTHER"


def test_a_caller_who_records_nothing(daemon: Daemon, receiver: Receiver, bot: ScriptedBot) -> None:
    """Nor do we; the bot is told of the caller's span, since ours is nowhere."""
    token = f"Authorization: Bearer {token_for()}"
    with socket.create_connection(("127.0.0.1", daemon.port)) as sock:
        sock.sendall(upgrade("/ws/generic/bot.acme", IGNORED, token))
        assert sock.recv(100).startswith(b"HTTP/1.1 101")
        told = bot.conversations[-1].field("traceparent").decode()
    assert told == f"00-{CALLER}-{PARENT}-00"
    ask(daemon, request("GET", "/nowhere"))
    span_of(receiver, "GET none")
    assert len(seen(receiver)) == 1


def test_how_many_spans_there_were(daemon: Daemon, receiver: Receiver) -> None:
    def sent() -> int:
        text = daemon.request("GET", "/metrics", admin=True).body.decode()
        found = dict(re.findall(r'relay_spans_total\{outcome="(\w+)"\} (\d+)', text))
        assert (found["failed"], found["dropped"]) == ("0", "0")
        return int(found["sent"])

    before = sent()
    ask(daemon, request("GET", "/nowhere"))
    wait_until(lambda: sent() == before + 1, "one more, and none for looks at the administration")


def test_a_receiver_that_does_not_answer(tmp_path: Path) -> None:
    """Calls go on, and the daemon ends."""
    with receiving("slow") as receiver, scripted_bot() as bot:
        with running_daemon(tmp_path, [bot.url], traced(receiver)) as daemon:
            with call(daemon, token=daemon.start_when_free()["token"]) as ws:
                wait_until(lambda: receiver.told, "it hangs on the first spans")
                assert echoes(ws)
            assert daemon.process.end() == 0
        # And nobody writes lines of another form among its own.
        assert all(line.startswith("{") for line in daemon.process.errors().splitlines())


def test_a_call_goes_on_in_its_trace_after_a_restart_in_place(tmp_path: Path) -> None:
    with receiving() as receiver, scripted_bot() as bot:
        with upgradable(tmp_path, config_text([bot.url], traced(receiver))) as daemon:
            started = daemon.start_when_free()
            reserved = span_of(receiver, "POST start")
            with call(daemon, token=started["token"]) as ws:
                told = bot.conversations[-1].field("traceparent").decode()
                upgrade_daemon(daemon)
                wait_alone(daemon)
                assert echoes(ws)
            session = span_of(receiver, "session bot")
        assert told == f"00-{session.trace}-{session.span}-01"
        assert session.trace == reserved.trace
        assert session.parent == span_of(receiver, "GET generic_websocket").span
        in_order(session)
        assert not (tmp_path / "run" / "traces.json").exists()
