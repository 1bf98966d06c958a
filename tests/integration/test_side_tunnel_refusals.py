"""WebSockets through the Session API that do not come about, and why."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.daemon import (
    NO_SESSION,
    PUBLIC_KEY,
    Daemon,
    running_daemon,
    wait_until,
)
from tests.helpers.ends import close_seen, is_quiet, nothing_is_held
from tests.helpers.scripted_bot import (
    Conversation,
    Script,
    ScriptedBot,
    accept,
    hang,
    refuse,
    say,
    scripted_bot,
)
from tests.helpers.scripted_http import BEARER
from tests.helpers.side_tunnels import Held, SideBot, carried, over_websocket
from tests.helpers.wire import Wire, ask, call, echoes, exchange_line, refused, stop, upgrade

AGENTS = """
sessions_per_instance = 1000
attach_timeout = 30
[agents.hasty]
organization = "acme"
instances = ["{hasty}"]
attach_timeout = 1
"""
MOST = 2


class Choosy:
    """A script that has one answer for the path /other, and is a `SideBot` for all else."""

    def __init__(self) -> None:
        self.side = SideBot()
        self.other: Script = say(b"")
        self.asked: queue.Queue[Conversation] = queue.Queue()

    def __call__(self, talk: Conversation) -> None:
        if talk.target == "/other":
            self.asked.put(talk)
            self.other(talk)
        else:
            self.side(talk)


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[ScriptedBot, ScriptedBot]]:
    with scripted_bot() as bot, scripted_bot() as hasty:
        yield bot, hasty


@pytest.fixture(scope="module")
def choosy(scripted: tuple[ScriptedBot, ScriptedBot]) -> Choosy:
    choosy = Choosy()
    for each in scripted:
        each.script = choosy
    return choosy


@pytest.fixture(scope="module")
def daemon(
    scripted: tuple[ScriptedBot, ScriptedBot],
    choosy: Choosy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Daemon]:
    bot, hasty = scripted
    limits = f"max_side_tunnels = {MOST}\nclose_timeout = 1"
    folder = tmp_path_factory.mktemp("relay")
    with running_daemon(folder, [bot.url], AGENTS.format(hasty=hasty.url), limits) as daemon:
        yield daemon
        wait_until(lambda: carried(daemon) == (0, 0), "nothing is carried")
        nothing_is_held(daemon)
        is_quiet(daemon)


@pytest.fixture(scope="module")
def session(daemon: Daemon, choosy: Choosy) -> Iterator[Held]:
    """A session that no refusal touches; it has room for every side tunnel after each test."""
    held = over_websocket(daemon, choosy.side)
    yield held
    sides = [held.side() for _ in range(MOST)]
    assert held.goes_on()
    held.end()
    assert {close_seen(side) for side in sides} == {(1001, "session ended")}


@pytest.mark.parametrize(
    ("path", "fields", "status", "cause"),
    [
        ("/x", ["X-No: key"], 401, "bad_api_key"),
        ("/x", ["Authorization: Bearer pk_bad"], 401, "bad_api_key"),
        ("/ws", [BEARER], 403, "reserved_path"),
        ("/%77s/", [BEARER], 403, "reserved_path"),
        ("//bot", [BEARER], 403, "reserved_path"),
        ("/api/offer", [BEARER], 409, "not_over_http"),
        ("/x", [BEARER, "Content-Length: 1"], 400, "upgrade_with_body"),
        ("/x", [BEARER, "Sec-WebSocket-Protocol: a, a"], 400, "websocket_subprotocol"),
    ],
)
def test_what_no_bot_sees(
    session: Held,
    scripted: tuple[ScriptedBot, ScriptedBot],
    path: str,
    fields: list[str],
    status: int,
    cause: str,
) -> None:
    seen = len(scripted[0].conversations)
    answer = ask(session.daemon, upgrade(session.path(path), *fields))
    refused(session.daemon, answer, status, cause)
    assert len(scripted[0].conversations) == seen


@pytest.mark.parametrize(
    ("without", "field", "status", "cause"),
    [
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8", 426, "websocket_version"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: short", 400, "websocket_key"),
    ],
)
def test_handshakes_that_are_not_right(
    session: Held, without: str, field: str, status: int, cause: str
) -> None:
    data = upgrade(session.path(), BEARER, field, without=without)
    refused(session.daemon, ask(session.daemon, data), status, cause)


def test_no_such_session(daemon: Daemon, choosy: Choosy) -> None:
    over = over_websocket(daemon, choosy.side)
    over.end()
    for agent, name in (("bot", NO_SESSION), ("bot", over.id), ("hasty", over.id), ("bot", "x")):
        data = upgrade(f"/v1/public/{agent}/sessions/{name}/x", BEARER)
        refused(daemon, ask(daemon, data), 404, "no_session")


@pytest.mark.parametrize(
    "data",
    [
        upgrade("{path}", BEARER, "Content-Length: 0", method="POST"),
        upgrade("{path}", BEARER, without="Connection"),
        upgrade("{path}", BEARER).replace(b"websocket", b"h2c"),
        upgrade("{path}", BEARER).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["post", "no connection", "h2c", "http/1.0"],
)
def test_what_is_no_upgrade_is_a_plain_request(session: Held, choosy: Choosy, data: bytes) -> None:
    """RFC 9110 section 7.8 lets an upgrade be ignored, and in HTTP/1.0 wants it."""
    choosy.other = refuse("418 I'm a teapot", b"short", "Content-Type: text/plain")
    answer = ask(session.daemon, data.replace(b"{path}", session.path("/other").encode()))
    assert (answer.status, answer.body) == (418, b"short")
    assert b"upgrade:" not in choosy.asked.get(timeout=10).head.lower()


# What the bot says.


def test_a_bot_that_refuses(session: Held, choosy: Choosy) -> None:
    """Its answer passes, and its own fields for other origins are not doubled."""
    choosy.other = refuse(
        "403 Forbidden", b"not you", "Content-Type: text/plain", "Access-Control-Allow-Origin: x"
    )
    with Wire(session.daemon.port) as wire:
        answer = wire.ask(upgrade(session.path("/other"), BEARER))  # repeated fields fail there
        assert (answer.status, answer.body) == (403, b"not you")
        assert answer.headers["access-control-allow-origin"] == "x"
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["x-daily-session-id"] == session.id
    line = exchange_line(session.daemon, answer.headers["x-request-id"])
    assert (line["status"], line["cause"], line["route"]) == (403, "bot_refused", "session_api")
    assert session.goes_on()


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (say(b""), "bot_died"),
        (say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "bot_bad_answer"),
        (accept(key=b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="), "bot_bad_answer"),
    ],
    ids=["nothing", "200", "another key"],
)
def test_a_bot_that_answers_wrong(
    session: Held, choosy: Choosy, script: Script, cause: str
) -> None:
    choosy.other = script
    answer = ask(session.daemon, upgrade(session.path("/other"), BEARER))
    refused(session.daemon, answer, 502, cause)
    assert session.goes_on()


def test_a_bot_that_says_nothing(daemon: Daemon, choosy: Choosy) -> None:
    choosy.other = hang()
    held = over_websocket(daemon, choosy.side, "hasty")
    answer = ask(daemon, upgrade(held.path("/other"), BEARER))
    refused(daemon, answer, 503, "bot_silent")
    assert answer.headers["retry-after"] == "5"
    assert held.goes_on()
    held.end()


def test_a_bot_that_listens_no_more(tmp_path_factory: pytest.TempPathFactory) -> None:
    with scripted_bot() as bot:
        bot.script = script = SideBot()
        with running_daemon(tmp_path_factory.mktemp("relay"), [bot.url]) as daemon:
            held = over_websocket(daemon, script)
            bot.stop_listening()
            answer = ask(daemon, upgrade(held.path(), BEARER))
            refused(daemon, answer, 502, "bot_unreachable")
            assert held.goes_on()
            held.end()


# While it is on its way.


@pytest.mark.parametrize("way", ["end", "stop"])
def test_a_session_that_ends_meanwhile(daemon: Daemon, choosy: Choosy, way: str) -> None:
    choosy.other = hang()
    held = over_websocket(daemon, choosy.side)
    with Wire(daemon.port) as wire:
        wire.send(upgrade(held.path("/other"), BEARER))
        talk = choosy.asked.get(timeout=10)
        if way == "end":
            held.end()
        else:
            stop(daemon, held.id)
        refused(daemon, wire.answer(), 404, "no_session")
        wait_until(lambda: talk.sock.fileno() < 0, "the bot's connection is closed")


def test_a_client_that_leaves_meanwhile(session: Held, choosy: Choosy) -> None:
    """More often than there is room: each leaves its place behind."""
    choosy.other = hang()
    for number in range(MOST + 1):
        with Wire(session.daemon.port) as wire:
            wire.send(upgrade(session.path("/other"), BEARER, f"X-Request-Id: left-{number}"))
            talk = choosy.asked.get(timeout=10)
        wait_until(lambda talk=talk: talk.sock.fileno() < 0, "the bot's connection is closed")
        line = exchange_line(session.daemon, f"left-{number}")
        assert line["cause"] == "client_left"
        assert "status" not in line


def test_too_many(daemon: Daemon, choosy: Choosy) -> None:
    """Those on their way count too, those of another session do not."""
    choosy.other = hang()
    held, another = (over_websocket(daemon, choosy.side) for _ in range(2))
    side = held.side()
    with Wire(daemon.port) as wire:
        wire.send(upgrade(held.path("/other"), BEARER))
        choosy.asked.get(timeout=10)
        answer = ask(daemon, upgrade(held.path(), BEARER))
        refused(daemon, answer, 429, "too_many_side_tunnels")
        assert answer.headers["retry-after"] == "5"
        another.side().close()
    side.close()

    def opened() -> bool:
        try:
            return echoes(call(daemon, held.path(), PUBLIC_KEY).__enter__())
        except InvalidStatus:
            return False

    wait_until(opened, "there is room again")
    held.end()
    another.end()
