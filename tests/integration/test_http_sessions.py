"""Sessions over HTTP: the bot is started by a held `POST /bot`, and its answer is the end."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.daemon import (
    PUBLIC_KEY,
    Answer,
    Bot,
    Daemon,
    config_text,
    end_all,
    end_pumps,
    running_bot,
    running_daemon,
    start_daemon,
    wait_until,
)

QUICK = "stopping_time = 0.3\nattach_timeout = 2"


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Bot]:
    with running_bot(tmp_path) as bot:
        yield bot


@pytest.fixture
def daemon(bot: Bot, tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path, [bot.url], QUICK) as daemon:
        yield daemon


def start(daemon: Daemon, **fields: Any) -> Answer:
    """POST /start as the SDK and the CLI do it: without a transport."""
    key = f"Bearer {PUBLIC_KEY}"
    return daemon.request("POST", "/v1/public/bot/start", fields, Authorization=key)


def started(daemon: Daemon, **fields: Any) -> str:
    """The id of a session that is active."""

    def answered() -> Answer | None:
        answer = start(daemon, **fields)
        return answer if answer.status == 200 else None

    answer = wait_until(answered, "a place is free").json()
    assert set(answer) == {"sessionId"}
    wait_until(lambda: daemon.session(answer["sessionId"])["state"] == "active", "it is active")
    return str(answer["sessionId"])


def end_at(bot: Bot) -> None:
    """Let the bot finish every session."""
    host, _, port = bot.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(b"POST /end HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


@contextmanager
def listening(answer: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A bot that is always ready and answers POST /bot with some bytes, or never."""
    asked: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            request = sock.recv(65536)
            if not request.startswith(b"POST /bot"):
                sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                sock.close()
                continue
            head, _, body = request.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(body) < length:
                body += sock.recv(65536)
            asked.append(head + b"\r\n\r\n" + body)
            if answer is None:
                held.append(sock)
            else:
                sock.sendall(answer)
                sock.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)
        for sock in held:
            sock.close()


def test_the_bots_answer_ends_the_session(daemon: Daemon, bot: Bot) -> None:
    for _ in range(2):  # the instance is free again after the first
        session = started(daemon, createDailyRoom=False, body={"caller": "Zoë"})
        assert bot.get("/status")["sessions"] == [session]
        assert start(daemon).status == 429
        end_at(bot)
        record = daemon.wait_ended(session)
        assert (record["cause"], record["endState"]) == ("bot_completed", "completed")
        assert (record["completionStatus"], record["closeCode"]) == ("HTTP_COMPLETED", None)
        assert record["transport"] == "http"


@pytest.mark.parametrize("transport", [None, "webrtc", "daily"])
def test_what_the_bot_is_asked(tmp_path: Path, transport: str | None) -> None:
    body = {"text": "Zoë", "n": [1, None]}
    fields = {"body": body} if transport is None else {"body": body, "transport": transport}
    with (
        listening(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as (url, asked),
        running_daemon(tmp_path, [url], QUICK + "\nmax_session_duration = 90") as daemon,
    ):
        session = start(daemon, **fields).json()["sessionId"]
        assert daemon.wait_ended(session)["cause"] == "bot_completed"
    (request,) = asked
    head, _, sent = request.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = dict(each.lower().split(": ", 1) for each in lines)
    assert line == "POST /bot HTTP/1.1"
    assert json.loads(sent) == body
    assert headers["x-daily-session-id"] == session
    assert headers["content-type"] == "application/json"
    assert headers["x-pcc-max-session-seconds"] == "90"
    assert headers.get("x-daily-transport-type") == transport
    assert PUBLIC_KEY not in head.decode()


def test_without_a_body_the_bot_gets_an_empty_object(tmp_path: Path) -> None:
    with (
        listening(b"HTTP/1.1 200 OK\r\n\r\n") as (url, asked),
        running_daemon(tmp_path, [url], QUICK) as daemon,
    ):
        daemon.wait_ended(start(daemon).json()["sessionId"])
    assert asked[0].endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 500 Oops\r\n\r\n", b"", b"garbage\r\n\r\n"])
def test_a_bot_that_fails_ends_the_session(tmp_path: Path, answer: bytes) -> None:
    with (
        listening(answer) as (url, _),
        running_daemon(tmp_path, [url], QUICK) as daemon,
    ):
        record = daemon.wait_ended(start(daemon).json()["sessionId"])
        assert (record["cause"], record["completionStatus"]) == ("bot_error", "HTTP_ERROR")
        wait_until(lambda: start(daemon).status == 200, "the instance is free again")


def test_a_body_of_a_mebibyte_passes_and_one_byte_more_is_413(tmp_path: Path) -> None:
    most = 1024 * 1024 - len('{"x":""}')
    with (
        listening(b"HTTP/1.1 200 OK\r\n\r\n") as (url, asked),
        running_daemon(tmp_path, [url], QUICK) as daemon,
    ):
        answer = start(daemon, body={"x": "y" * (most + 1)})
        assert (answer.status, answer.json()["code"]) == (413, "413")
        session = start(daemon, body={"x": "y" * most}).json()["sessionId"]
        assert daemon.wait_ended(session)["cause"] == "bot_completed"
    assert len(asked[0].partition(b"\r\n\r\n")[2]) == 1024 * 1024


def test_a_stopped_session_sets_its_bot_aside_for_a_while(tmp_path: Path) -> None:
    aside = 1.5
    with (
        listening(None) as (url, _),
        running_daemon(tmp_path, [url], f"stopping_time = {aside}") as daemon,
    ):
        session = started(daemon)
        before = time.monotonic()
        assert daemon.request("DELETE", f"/sessions/{session}", admin=True).status == 200
        record = daemon.wait_ended(session)
        assert (record["cause"], record["endState"]) == ("stopped", "terminated")
        wait_until(lambda: start(daemon).status == 200, "the instance is free again")
        assert time.monotonic() - before >= aside


def test_no_instance_that_listens_ends_the_session(tmp_path: Path) -> None:
    with (
        listening(None) as (url, _),
        running_daemon(tmp_path, [url], "attach_timeout = 1") as daemon,
    ):
        first = started(daemon)
        daemon.request("DELETE", f"/sessions/{first}", admin=True)
        daemon.wait_ended(first)
        assert start(daemon).status == 429  # set aside


def wait_until_a_pump_has_it(daemon: Daemon) -> None:
    wait_until(
        lambda: daemon.request("GET", "/readyz", admin=True).json()["calls"], "a pump has it"
    )


def test_the_session_outlives_the_control_process(bot: Bot, tmp_path: Path) -> None:
    config = config_text([bot.url], QUICK)
    daemon = start_daemon(tmp_path, config)
    try:
        session = started(daemon)
        wait_until(lambda: daemon.session(session)["state"] == "active", "a bot has it")
        wait_until_a_pump_has_it(daemon)
        daemon.process.end(signal.SIGKILL)
        assert bot.get("/status")["sessions"] == [session]
        daemon = start_daemon(tmp_path, config, "second")
        assert daemon.session(session)["state"] == "active"
        end_at(bot)
        assert daemon.wait_ended(session)["cause"] == "bot_completed"
        daemon.process.end(signal.SIGKILL)
    finally:
        end_all(daemon)


def test_deaths(daemon: Daemon, bot: Bot) -> None:
    session = started(daemon)
    wait_until_a_pump_has_it(daemon)  # one that none has yet is given to the next
    (pump,) = daemon.pump_pids()
    end_pumps(daemon)
    assert daemon.wait_ended(session)["cause"] == "pump_died"
    wait_until(lambda: daemon.pump_pids() not in ([], [pump]), "there is a new pump")
    end_at(bot)
    session = started(daemon)
    bot.process.end(signal.SIGKILL)
    record = daemon.wait_ended(session)
    assert (record["cause"], record["completionStatus"]) == ("bot_error", "HTTP_ERROR")


def test_a_node_that_ends_now_gives_its_requests_up(bot: Bot, tmp_path: Path) -> None:
    with running_daemon(tmp_path, [bot.url], QUICK) as daemon:
        session = started(daemon)
        assert daemon.process.end(signal.SIGINT) == 0
    ends = [line for line in daemon.logs() if line["event"] == "session"]
    assert [(line["session_id"], line["cause"]) for line in ends] == [(session, "drain")]


ICE = """
ice_servers = [
  { urls = ["stun:stun.example.com:3478"] },
  { urls = ["turn:turn.example.com:3478?transport=udp"], username = "u", credential = "c" },
]
"""


def test_ice_servers_are_named_to_who_asks_for_them(bot: Bot, tmp_path: Path) -> None:
    with running_daemon(tmp_path, [bot.url], QUICK + ICE) as daemon:
        answer = start(daemon, transport="webrtc", enableDefaultIceServers=True)
        assert answer.json()["iceConfig"] == {
            "iceServers": [
                {"urls": ["stun:stun.example.com:3478"]},
                {
                    "urls": ["turn:turn.example.com:3478?transport=udp"],
                    "username": "u",
                    "credential": "c",
                },
            ]
        }
        assert answer.headers["cache-control"] == "no-store"


def test_without_ice_servers_there_is_no_member_for_them(daemon: Daemon) -> None:
    assert set(start(daemon, enableDefaultIceServers=True).json()) == {"sessionId"}
