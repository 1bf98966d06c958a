"""A call goes through: start, token, WebSocket, echo, close, and the instance is free again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.helpers.daemon import Bot, Daemon, running_bot, running_daemon, wait_until


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    with running_bot(tmp_path_factory.mktemp("bot")) as bot:
        yield bot


@pytest.fixture(scope="module")
def daemon(bot: Bot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("relay"), [bot.url]) as daemon:
        yield daemon


def call(started: dict[str, str], carrier: str = "header", query: str = "") -> ClientConnection:
    """Connect with the token of a start answer in one of its three places."""
    url, headers = started["wsUrl"], {}
    if carrier == "path":
        url += "/" + started["token"]
    elif carrier == "query":
        query = f"token={started['token']}" + ("&" + query if query else "")
    else:
        headers = {"Authorization": f"Bearer {started['token']}"}
    return connect(url + ("?" + query if query else ""), additional_headers=headers, proxy=None)


@pytest.mark.parametrize("carrier", ["header", "query", "path"])
def test_echo_with_the_token_in_each_place(daemon: Daemon, carrier: str) -> None:
    started = daemon.start_when_free()
    with call(started, carrier) as ws:
        ws.send("text")
        assert ws.recv() == "text"
        ws.send(b"\0\xff" * 40_000)
        assert ws.recv() == b"\0\xff" * 40_000
        assert ws.response is not None
        assert ws.response.headers["x-daily-session-id"] == started["sessionId"]
        ws.send("!session")
        assert ws.recv() == started["sessionId"]
    record = daemon.wait_ended(started["sessionId"])
    assert (record["cause"], record["closeCode"]) == ("client_closed", 1000)
    assert record["figures"]["client"]["messages"] == 3


def test_the_body_reaches_the_bot(daemon: Daemon) -> None:
    body = {"caller": "Zoë", "n": [1, 2, None], "odd": ">>>???"}
    started = daemon.start_when_free(body=body)
    assert json.loads(base64.b64decode(started["body"])) == body
    with call(started, query="body=" + started["body"]) as ws:
        ws.send("!body")
        assert json.loads(ws.recv()) == body
    daemon.wait_ended(started["sessionId"])


def test_a_token_is_good_for_one_call(daemon: Daemon) -> None:
    started = daemon.start_when_free()
    with call(started) as ws:
        ws.send("x")
        ws.recv()
        with pytest.raises(InvalidStatus) as refused:
            call(started)
        assert refused.value.response.status_code == 403
    daemon.wait_ended(started["sessionId"])
    with pytest.raises(InvalidStatus) as refused:
        call(started)
    answer = json.loads(refused.value.response.body or b"")
    assert (answer["status"], answer["code"], answer["phase"]) == (403, "403", "resolve")
    assert "used" in answer["error"]


def test_the_bots_close_passes(daemon: Daemon) -> None:
    started = daemon.start_when_free()
    with call(started) as ws:
        ws.send("!close 4007 that was all")
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4007, "that was all")
    record = daemon.wait_ended(started["sessionId"])
    assert (record["cause"], record["closeCode"]) == ("bot_closed", 4007)


def test_the_instance_is_free_again_after_each_call(daemon: Daemon, bot: Bot) -> None:
    for _ in range(3):
        started = daemon.start_when_free()
        with call(started) as ws:
            ws.send("x")
            ws.recv()
        daemon.wait_ended(started["sessionId"])
    assert wait_until(lambda: bot.get("/status")["sessions"] == [], "the bot is idle")


@pytest.mark.parametrize("relay", ["tunnel", "frames"])
def test_a_silent_call_is_pinged_and_ends(bot: Bot, tmp_path: Path, relay: str) -> None:
    """Both are off unless asked for; the pings do not count as activity."""
    timers = f'relay = "{relay}"\nidle_timeout = 2\nping_interval = 0.5'
    with running_daemon(tmp_path, [bot.url], timers) as daemon:
        started = daemon.start_when_free()
        with call(started) as ws:
            with pytest.raises(ConnectionClosed):
                ws.recv()
            assert (ws.close_code, ws.close_reason) == (1001, "idle")
        record = daemon.wait_ended(started["sessionId"])
        assert record["cause"] == "idle"
        # Its answers to the pings passed on to the bot.
        assert record["figures"]["client"]["bytes"] > 0
        assert record["figures"]["client"]["messages"] == 0
