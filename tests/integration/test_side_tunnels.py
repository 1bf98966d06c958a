"""WebSockets through the Session API: what passes, and how they end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from operator import le
from pathlib import Path

import pytest
from websockets.typing import Subprotocol

from tests.helpers.daemon import (
    PUBLIC_KEY,
    Daemon,
    config_text,
    running_daemon,
    start_daemon,
    wait_until,
)
from tests.helpers.ends import (
    close_seen,
    descriptors,
    ends_cleanly,
    is_quiet,
    nothing_is_held,
    raw_call,
    signal_daemon,
)
from tests.helpers.scripted_bot import ScriptedBot, scripted_bot
from tests.helpers.scripted_http import BEARER
from tests.helpers.side_tunnels import (
    Begin,
    Held,
    SideBot,
    carried,
    over_http,
    over_websocket,
    side_ends,
)
from tests.helpers.wire import Wire, ask, echoes, exchange_line, keeps_secrets, stop, upgrade

AGENTS = """
sessions_per_instance = 1000
stopping_time = 0
[agents.framed]
organization = "acme"
instances = ["{framed}"]
sessions_per_instance = 1000
settle_time = 0
stopping_time = 0
relay = "frames"
[agents.short]
organization = "acme"
instances = ["{short}"]
sessions_per_instance = 1000
settle_time = 0
stopping_time = 0
max_session_duration = 2
[agents.idle]
organization = "acme"
instances = ["{idle}"]
sessions_per_instance = 1000
settle_time = 0
idle_timeout = 1
"""
BEGINS = [over_websocket, over_http]
RELAYS = ["bot", "framed"]
OVER = (1001, "session ended")


@pytest.fixture(scope="module")
def bots() -> Iterator[dict[str, ScriptedBot]]:
    with ExitStack() as opened:
        names = ("bot", "framed", "short", "idle")
        yield {name: opened.enter_context(scripted_bot()) for name in names}


@pytest.fixture(scope="module")
def bot(bots: dict[str, ScriptedBot]) -> SideBot:
    script = SideBot()
    for each in bots.values():
        each.script = script
    return script


@pytest.fixture(scope="module")
def daemon(
    bots: dict[str, ScriptedBot], bot: SideBot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("relay")
    agents = AGENTS.format(**{name: each.url for name, each in bots.items()})
    with running_daemon(folder, [bots["bot"].url], agents, "close_timeout = 1") as daemon:
        yield daemon
        wait_until(lambda: carried(daemon) == (0, 0), "nothing is carried")
        nothing_is_held(daemon)
        is_quiet(daemon)
        keeps_secrets(daemon)


# What passes.


@pytest.mark.parametrize("agent", RELAYS)
@pytest.mark.parametrize("begin", BEGINS)
def test_one_beside_the_session(
    daemon: Daemon, bot: SideBot, bots: dict[str, ScriptedBot], begin: Begin, agent: str
) -> None:
    """It comes and goes, and the session, its call and its instance do not notice."""
    held = begin(daemon, bot, agent)
    wait_until(lambda: carried(daemon) == (1, 0), "what the test before had is gone")
    side = held.side("/watch/%41?x=%20&token=mine&serviceHost=too&y=")
    assert carried(daemon) == (1, 1)
    assert side.response is not None
    assert side.response.headers["x-daily-session-id"] == held.id
    assert bots[agent].conversations[-1].target == "/watch/%41?x=%20&token=mine&serviceHost=too&y="
    side.send(b"\0\xff" * 100_000)
    side.ping()
    side.close(4000, "enough")
    assert bot.ends("/watch/%41").next() == (4000, "enough")
    (line,) = side_ends(daemon, held.id)
    assert (line["cause"], line["close_code"], line["close_reason"]) == (
        "client_closed",
        4000,
        "enough",
    )
    assert line["tunnel"] != held.id
    assert line["figures"]["client"]["messages"] == 2
    assert held.goes_on()
    assert carried(daemon) == (1, 0)
    line = exchange_line(daemon, side.response.headers["x-request-id"])
    assert (line["route"], line["status"], line["session_id"]) == ("session_api", 101, held.id)
    held.end()


def test_what_the_bot_sees(daemon: Daemon, bot: SideBot, bots: dict[str, ScriptedBot]) -> None:
    """The fields of any request of the Session API, and an upgrade as on /ws/generic."""
    held = over_websocket(daemon, bot)
    options = {"compression": "deflate", "subprotocols": [Subprotocol("a"), Subprotocol("b")]}
    side = held.side(headers={"Cookie": "mine=1", "X-Request-Id": "this-one"}, **options)
    talk = bots["bot"].conversations[-1]
    assert talk.field("x-daily-session-id") == held.id.encode()
    assert talk.field("x-request-id") == b"this-one"
    assert talk.field("cookie") == b"mine=1"
    assert talk.field("authorization") == b""
    assert talk.field("sec-websocket-extensions").startswith(b"permessage-deflate")
    assert talk.field("sec-websocket-protocol") in (b"a, b", b"a,b")
    assert talk.head.lower().count(b"\r\nsec-websocket-key:") == 1
    assert PUBLIC_KEY.encode() not in talk.head
    side.close()
    held.end()


@pytest.mark.parametrize("agent", RELAYS)
def test_several_each_with_an_end_of_its_own(daemon: Daemon, bot: SideBot, agent: str) -> None:
    held = over_websocket(daemon, bot, agent)
    first, second, third = (held.side(f"/{name}") for name in ("one", "two", "three"))
    second.socket.close()
    assert bot.ends("/two").next() == (1001, "client gone")
    assert [line["cause"] for line in side_ends(daemon, held.id)] == ["client_gone"]
    for side in (first, third):
        assert echoes(side)
    held.end()
    for side, path in ((first, "/one"), (third, "/three")):
        assert close_seen(side) == OVER
        assert bot.ends(path).next() == OVER
    ended = side_ends(daemon, held.id, 3)
    assert [line["cause"] for line in ended] == ["client_gone", "session_ended", "session_ended"]


def test_early_frames_of_the_client(daemon: Daemon, bot: SideBot) -> None:
    held = over_websocket(daemon, bot)
    with Wire(daemon.port) as wire:
        hello = b"\x81\x85\0\0\0\0hello"
        wire.send(upgrade(held.path("/early"), BEARER) + hello)
        assert wire.answer().status == 101
        assert wire.file.read(7) == b"\x81\x05hello"
    assert bot.ends("/early").next() == (1001, "client gone")
    assert held.goes_on()
    held.end()


def test_one_for_a_session_that_waits(daemon: Daemon, bot: SideBot) -> None:
    started = daemon.start_when_free()
    with Wire(daemon.port) as wire:
        wire.send(upgrade(f"/v1/public/bot/sessions/{started['sessionId']}/later", BEARER))
        with raw_call(daemon, started["token"]):
            answer = wire.answer()
            assert (answer.status, answer.headers["x-daily-session-id"]) == (
                101,
                started["sessionId"],
            )
        daemon.wait_ended(started["sessionId"])
        assert wire.file.read(4) == b"\x88\x0f\x03\xe9"  # Close, 15 bytes, code 1001
    assert bot.ends("/later").next() == OVER


def test_nothing_of_them_is_left(daemon: Daemon, bot: SideBot) -> None:
    """Descriptors of both processes, tasks, places: all as before, however each one ended."""
    for agent in RELAYS:
        held = over_websocket(daemon, bot, agent)
        held.side("/left").close()
        bot.ends("/left").next()
        before = left_over(daemon)
        for number in range(4):
            side, lost = held.side("/left"), held.side("/left")
            side.close(4000 + number)
            lost.socket.close()
            seen = {bot.ends("/left").next() for _ in range(2)}
            assert seen == {(4000 + number, ""), (1001, "client gone")}
            refused = ask(daemon, upgrade(held.path("/ws"), BEARER))
            assert refused.status == 403
        wait_until(
            lambda before=before: all(map(le, left_over(daemon), before)),
            f"no more than {before}",
        )
        held.end()


def left_over(daemon: Daemon) -> tuple[int, ...]:
    """Descriptors of the control process and of its pump, and tasks; probes come and go."""
    (pump,) = daemon.pump_pids()
    tasks = daemon.request("GET", "/readyz", admin=True).json()["tasks"]
    return descriptors(daemon.process.pid), descriptors(pump), tasks


# Ends of the session.


def by_close(held: Held) -> tuple[int, str]:
    held.end()
    return OVER


def by_loss(held: Held) -> tuple[int, str]:
    if held.ws is None:
        held.bot.held[held.id].shutdown(2)
    else:
        held.ws.socket.shutdown(2)
    return OVER


def by_stop(held: Held) -> tuple[int, str]:
    stop(held.daemon, held.id)
    return (1001, "stopped")


@pytest.mark.parametrize("agent", RELAYS)
@pytest.mark.parametrize("way", [by_close, by_loss, by_stop])
@pytest.mark.parametrize("begin", BEGINS)
def test_the_end_of_the_session(
    daemon: Daemon, bot: SideBot, begin: Begin, way: object, agent: str
) -> None:
    held = begin(daemon, bot, agent)
    sides = [held.side(f"/end{number}") for number in range(2)]
    assert callable(way)
    close = way(held)
    for number, side in enumerate(sides):
        assert close_seen(side) == close
        assert bot.ends(f"/end{number}").next() == close
    record = daemon.wait_ended(held.id)
    assert record["cause"] not in ("session_ended", None)
    causes = {line["cause"] for line in side_ends(daemon, held.id, 2)}
    assert causes == {"stopped" if way is by_stop else "session_ended"}


def test_what_is_left_of_the_session(daemon: Daemon, bot: SideBot) -> None:
    """The limit counts from the session's start, however late a side tunnel comes."""
    held = over_http(daemon, bot, "short")
    side = held.side("/short")
    assert close_seen(side) == (1001, "time limit")
    assert bot.ends("/short").next() == (1001, "time limit")
    (line,) = side_ends(daemon, held.id)
    assert line["cause"] == "time_limit"
    assert line["seconds"] < 4
    assert held.goes_on()  # its bot is given a little longer to say so itself
    held.end()


def test_an_idle_one(daemon: Daemon, bot: SideBot) -> None:
    held = over_http(daemon, bot, "idle")
    assert close_seen(held.side("/quiet")) == (1001, "idle")
    assert bot.ends("/quiet").next() == (1001, "idle")
    assert held.goes_on()
    held.end()


@pytest.mark.parametrize("agent", RELAYS)
def test_a_bot_that_drops_one(
    daemon: Daemon, bot: SideBot, bots: dict[str, ScriptedBot], agent: str
) -> None:
    held = over_websocket(daemon, bot, agent)
    side = held.side("/dropped")
    bots[agent].conversations[-1].sock.shutdown(2)
    assert close_seen(side) == (1000, "")
    assert [line["cause"] for line in side_ends(daemon, held.id)] == ["bot_ended"]
    assert held.goes_on()
    held.end()


@pytest.mark.parametrize(
    ("begin", "agent"), [(over_websocket, 'relay = "frames"'), (over_http, "")]
)
def test_the_end_of_the_daemon(tmp_path: Path, begin: Begin, agent: str) -> None:
    with scripted_bot() as scripted:
        scripted.script = bot = SideBot()
        agent += "\nstopping_time = 0"
        daemon = start_daemon(tmp_path, config_text([scripted.url], agent, "close_timeout = 1"))
        held = begin(daemon, bot, "bot")
        side = held.side()
        signal_daemon(daemon, signal.SIGINT)
        assert close_seen(side) == (1012, "service restart")
        assert bot.ends("/watch").next() == (1012, "service restart")
        ends_cleanly(daemon)
    assert [line["cause"] for line in side_ends(daemon, held.id)] == ["drain"]


def test_a_drain_waits_for_sessions_not_for_their_side_tunnels(tmp_path: Path) -> None:
    with scripted_bot() as scripted:
        scripted.script = bot = SideBot()
        daemon = start_daemon(tmp_path, config_text([scripted.url], "", "close_timeout = 1"))
        held = over_websocket(daemon, bot)
        side = held.side()
        signal_daemon(daemon, signal.SIGTERM)
        wait_until(lambda: "ending" in [line["event"] for line in daemon.logs()], "it drains")
        assert held.ws is not None
        assert echoes(held.ws)
        assert echoes(side)
        held.ws.close()
        assert close_seen(side) == OVER
        ends_cleanly(daemon)


# A session that another daemon holds.


def test_a_session_of_another_daemon_on_the_store(tmp_path: Path) -> None:
    """Its end is found in the store."""
    with scripted_bot() as scripted:
        scripted.script = bot = SideBot()
        config = config_text([scripted.url]).replace("relay.db", f"{tmp_path}/relay.db")
        folder = tmp_path / "other"
        folder.mkdir()
        daemon, other = start_daemon(tmp_path, config), start_daemon(folder, config)
        try:
            held = over_websocket(daemon, bot)
            elsewhere = Held(other, "bot", bot, held.id, None)
            side = elsewhere.side()
            assert (carried(daemon), carried(other)) == ((1, 0), (0, 1))
            held.end()
            assert close_seen(side) == OVER
            assert [line["cause"] for line in side_ends(other, held.id)] == ["session_ended"]
        finally:
            for each in (daemon, other):
                each.process.end()
                ends_cleanly(each)
