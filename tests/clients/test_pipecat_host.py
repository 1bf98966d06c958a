"""The host of Pipecat bots by itself: what the daemon relies on. `make test-clients`."""

from __future__ import annotations

import base64
import http.client
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.sync.client import ClientConnection, connect

from tests.helpers.daemon import PATIENCE, wait_until
from tests.helpers.pipecat_host import Host, running_host
from tests.helpers.wire import base64_of

BOT = """
import asyncio
from pipecatcloud_system import app

seen = []
ready = {"ready": True}

def readyz():
    return ready

@app.post("/unready")
async def unready():
    ready["ready"] = False

@app.get("/seen")
async def get_seen():
    return seen

@app.get("/{path:path}")
async def everything(path: str):
    return {"caught": path}

async def bot(args):
    seen.append([type(args).__name__, args.session_id, args.body])
    if args.body == {"fail": True}:
        raise RuntimeError("on purpose")
    if hasattr(args, "websocket"):
        while (text := await args.websocket.receive_text()) != "bye":
            await args.websocket.send_text(text)
    elif args.body:
        await asyncio.sleep(args.body["sleep"])
"""


@contextmanager
def serving(folder: Path, **env: str) -> Iterator[Host]:
    bot = folder / "some_bot.py"
    bot.write_text(BOT)
    with running_host(folder, bot, **env) as host:
        yield host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with serving(tmp_path) as host:
        yield host


def ask(host: Host, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer; `_` in header names stands for `-`."""
    connection = http.client.HTTPConnection(host.url.removeprefix("http://"), timeout=PATIENCE)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json", **fields})
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def call(host: Host, query: str = "") -> ClientConnection:
    url = host.url.replace("http", "ws", 1) + "/ws" + query
    return connect(url, proxy=None, additional_headers={"X-Daily-Session-Id": "s"})


def test_arguments(host: Host) -> None:
    assert ask(host, "POST", "/bot", {}, X_Daily_Session_Id="a") == (200, {})
    room = {"X_Daily_Room_Url": "https://room", "X_Daily_Room_Token": "t"}
    assert ask(host, "POST", "/bot", {}, X_Daily_Session_Id="b", **room) == (200, {})
    assert ask(host, "POST", "/bot", [])[0] == 422
    plain = base64.b64encode(b"no JSON").decode()
    for query in ("", f"?body={base64_of({'n': 1})}", "?body=%25", f"?body={plain}"):
        with call(host, query) as ws:
            ws.send("bye")
            with pytest.raises(ConnectionClosedOK) as closed:
                ws.recv(PATIENCE)
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1000
    assert ask(host, "GET", "/seen")[1] == [
        ["PipecatSessionArguments", "a", {}],
        ["DailySessionArguments", "b", {}],
        ["WebSocketSessionArguments", "s", None],
        ["WebSocketSessionArguments", "s", {"n": 1}],
        ["WebSocketSessionArguments", "s", None],
        ["WebSocketSessionArguments", "s", None],
    ]


def test_a_bot_that_fails(host: Host) -> None:
    assert ask(host, "POST", "/bot", {"fail": True}) == (200, {})
    with call(host, f"?body={base64_of({'fail': True})}") as ws:
        with pytest.raises(ConnectionClosedError) as closed:
            ws.recv(PATIENCE)
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1011
    errors = host.process.errors()
    assert errors.count("RuntimeError: on purpose") == 2
    assert ask(host, "GET", "/readyz")[0] == 200


def test_the_time_limit_of_a_session_over_http(host: Host) -> None:
    limit = {"X_PCC_Max_Session_Seconds": "0.2"}
    assert ask(host, "POST", "/bot", {"sleep": 3600}, **limit) == (200, {})
    assert "over its limit of 0.2 s" in host.process.errors()


def test_health_and_routes_that_the_bot_cannot_take(host: Host) -> None:
    assert ask(host, "GET", "/readyz") == (200, {"status": "ok"})
    assert ask(host, "GET", "/livez") == (200, {"status": "ok"})
    assert ask(host, "GET", "/own") == (200, {"caught": "own"})
    assert ask(host, "POST", "/unready")[0] == 200
    assert ask(host, "GET", "/readyz") == (503, {"status": "not ready"})
    status, error = ask(host, "POST", "/api/offer", {"sdp": "", "type": "offer"})
    # The extra is not installed here; with it, nobody waits for an offer.
    assert (status, error["code"]) in ((501, "501"), (409, "409"))


def test_sigterm_lets_the_session_end(host: Host) -> None:
    with call(host) as ws:
        ws.send("before")
        assert ws.recv(PATIENCE) == "before"
        host.process.popen.send_signal(signal.SIGTERM)
        wait_until(lambda: "waiting 5.0 s for 1" in host.process.errors(), "it drains")
        with pytest.raises(OSError, match="refused"):
            call(host)
        ws.send("after")
        assert ws.recv(PATIENCE) == "after"
        ws.send("bye")
        with pytest.raises(ConnectionClosedOK):
            ws.recv(PATIENCE)
    assert host.process.popen.wait(PATIENCE) == 0


def test_sigterm_ends_what_stays_too_long(tmp_path: Path) -> None:
    answers: list[tuple[int, Any]] = []
    with serving(tmp_path, SHUTDOWN_TIMEOUT="0.1") as host:
        caller = Thread(target=lambda: answers.append(ask(host, "POST", "/bot", {"sleep": 3600})))
        caller.start()
        wait_until(lambda: ask(host, "GET", "/seen")[1], "the session runs")
        with call(host) as ws:
            ws.send("here")
            assert ws.recv(PATIENCE) == "here"
            assert host.process.end(signal.SIGTERM) == 0
            with pytest.raises(ConnectionClosedError):
                ws.recv(PATIENCE)
        caller.join(PATIENCE)
    assert answers == [(200, {})]


def test_without_sessions_there_is_nothing_to_wait_for(host: Host) -> None:
    assert host.process.end(signal.SIGTERM) == 0
    assert "waiting" not in host.process.errors()
