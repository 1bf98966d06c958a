"""A client's connection over its life: many requests, pipelined ones, its end, and too many."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.helpers.daemon import PUBLIC_KEY, Daemon, wait_until
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.shared import MANY, shared_daemon
from tests.helpers.wire import (
    Wire,
    ask,
    call,
    echoes,
    exchange_line,
    masked,
    refused,
    request,
    serves,
    stop,
    token_for,
    upgrade,
)

START = "/v1/public/bot/start"
BOT = "/ws/generic/bot.acme"
BEARER = f"Authorization: Bearer {PUBLIC_KEY}"
BODY = b'{"transport": "websocket"}'
MOST = 4


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    limits = "keep_alive_timeout = 1\nhead_timeout = 1"
    with scripted_bot() as bot, shared_daemon(tmp_path_factory, [bot.url], MANY, limits) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that takes few connections at a time."""
    limits = f"max_connections = {MOST}\nmax_connections_per_address = {MOST}"
    with scripted_bot() as bot, shared_daemon(tmp_path_factory, [bot.url], MANY, limits) as daemon:
        yield daemon


def named(name: str) -> str:
    return f"X-Request-Id: {name}"


def post(*fields: str) -> bytes:
    return request("POST", START, BEARER, f"Content-Length: {len(BODY)}", *fields, body=BODY)


# --- one after the other ---


def test_a_connection_carries_many_requests(daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        for _ in range(5):
            answer = wire.ask(post())
            assert answer.status == 200
            assert "connection" not in answer.headers
            stop(daemon, answer.json()["sessionId"])
            assert wire.ask(request("GET", "/")).status == 404


def test_pipelined_requests_are_answered_in_order(daemon: Daemon) -> None:
    chunked = b"1a\r\n" + BODY + b"\r\n0\r\n\r\n"
    with Wire(daemon.port) as wire:
        wire.send(
            request("GET", "/nothing", named("1"))
            + post(named("2"))
            + request("POST", START, BEARER, "Transfer-Encoding: chunked", named("3"), body=chunked)
            + request("POST", START, "Content-Length: 5", named("4"), body=b"GET /")
            + request("PUT", START, "Content-Length: 0", named("5"))
            + b"\r\n"
            + upgrade(BOT, "Authorization: Bearer bad", named("6"))
            + upgrade(BOT, f"Authorization: Bearer {token_for()}", named("7"))
            + masked("hello")
        )
        for name, status in enumerate((404, 200, 200, 401, 405, 403, 101), start=1):
            answer = wire.answer()
            assert (answer.headers["x-request-id"], answer.status) == (str(name), status)
            assert exchange_line(daemon, str(name))["status"] == status
            if status == 200:
                stop(daemon, answer.json()["sessionId"])
        assert wire.file.read(7) == b"\x81\x05hello"


def test_requests_that_come_in_pieces_of_any_size(daemon: Daemon) -> None:
    data = request("GET", "/a") + post() + request("GET", "/b")
    for size in (1, 7, 100):
        with Wire(daemon.port) as wire:
            for at in range(0, len(data), size):
                wire.send(data[at : at + size])
            answers = [wire.answer() for _ in range(3)]
            assert [answer.status for answer in answers] == [404, 200, 404]
            stop(daemon, answers[1].json()["sessionId"])


# --- the end ---


@pytest.mark.parametrize(
    "data",
    [
        request("GET", "/", "Connection: close"),
        request("GET", "/", "Connection: x, Close"),
        request("GET", "/").replace(b"HTTP/1.1", b"HTTP/1.0"),
        request("GET", "/", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"GET / HTTP/1.0\r\n\r\n",
        request("POST", "/", "Content-Length: 1000", body=b"not all of it"),
        request("POST", "/", "Transfer-Encoding: chunked", body=b"5\r\nhel"),
        request("POST", "/", "Transfer-Encoding: chunked", body=b"rubbish\r\n"),
    ],
)
def test_the_connection_ends_after_the_answer(daemon: Daemon, data: bytes) -> None:
    with Wire(daemon.port) as wire:
        wire.send(data)
        answer = wire.answer()
        refused(daemon, answer, 404, "no_such_path")
        assert answer.headers["connection"] == "close"
        assert wire.rest() == b""


def test_what_follows_connection_close_is_not_answered(daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        wire.send(request("GET", "/", "Connection: close", named("last")))
        wire.send(request("GET", "/", named("behind")))
        assert wire.answer().headers["x-request-id"] == "last"
        assert wire.rest() == b""
    assert not [line for line in daemon.logs() if line.get("request_id") == "behind"]


def test_a_large_body_that_nobody_wants_does_not_cost_the_answer(daemon: Daemon) -> None:
    data = request("POST", "/", "Content-Length: 900000", body=b"x" * 900_000)
    for _ in range(5):
        with Wire(daemon.port) as wire:
            wire.send(data)
            refused(daemon, wire.answer(), 404, "no_such_path")
            assert wire.rest() == b""


@pytest.mark.parametrize("first", [b"", request("GET", "/")])
def test_an_idle_connection_ends_silently(daemon: Daemon, first: bytes) -> None:
    with Wire(daemon.port) as wire:
        if first:
            exchange_line(daemon, wire.ask(first).headers["x-request-id"])
        before = len(daemon.logs())
        assert wire.rest() == b""
        assert len(daemon.logs()) == before


def test_a_client_that_resets_concerns_nobody(daemon: Daemon) -> None:
    hard = struct.pack("ii", 1, 0)
    for data in (b"", b"GET / HT", post()[:-5], post(), upgrade(BOT, "Authorization: Bearer bad")):
        wire = Wire(daemon.port)
        wire.send(data)
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)
        wire.close()
    assert ask(daemon, request("GET", "/")).status == 404


def test_head_on_the_administration_has_no_body(daemon: Daemon) -> None:
    with Wire(daemon.admin_port) as wire:
        for path, status in (("/livez", 200), ("/sessions", 200), ("/nothing", 404)):
            wire.send(request("GET", path, named("get")) + request("HEAD", path, named("head")))
            got, head = wire.answer(), wire.answer(head=True)
            assert got.status == head.status == status
            if path != "/nothing":
                assert got.headers["content-length"] == head.headers["content-length"]
            assert int(head.headers["content-length"]) == len(got.body)
            assert head.headers["content-type"] == "application/json"


def test_one_line_for_each_exchange(daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        answer = wire.ask(post(named("described")))
    session = answer.json()["sessionId"]
    line = exchange_line(daemon, "described")
    expected = {"method": "POST", "path": START, "route": "start", "agent": "bot", "status": 200}
    expected |= {"phase": "relay", "session_id": session, "level": "info"}
    assert line.items() >= expected.items()
    times = [line[f"{phase}_ms"] for phase in ("parse", "route", "authenticate", "resolve")]
    assert line["ms"] == pytest.approx(sum(times) + line["relay_ms"], abs=0.01)
    assert line["bytes_in"] == len(post(named("described")))
    assert line["bytes_out"] > len(json.dumps(answer.json()))
    stop(daemon, session)


# --- too many ---


def test_over_the_limit_a_connection_is_told_503_and_the_others_go_on(small: Daemon) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(Wire(small.port)) for _ in range(MOST)]
        for wire in held:
            assert wire.ask(request("GET", "/")).status == 404
        for attempt in range(20):
            with Wire(small.port) as wire:
                # The answer arrives even though nobody reads what is asked.
                wire.send(post() if attempt % 2 else request("GET", "/" + "x" * 4000))
                answer = wire.answer()
                assert refused(small, answer, 503, "too_many_connections")["phase"] == "accept"
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["connection"] == "close"
                assert wire.rest() == b""
            assert held[attempt % MOST].ask(request("GET", "/")).status == 404
        assert small.request("GET", "/livez", admin=True).status == 200
        held.pop().close()
        wait_until(lambda: ask(small, request("GET", "/")).status == 404, "a place is free")


def test_calls_do_not_count_as_connections(small: Daemon) -> None:
    with ExitStack() as stack:
        calls = []
        for _ in range(MOST + 2):
            # The place of a connection is free when its pump has it, a moment after the 101.
            wait_until(lambda: ask(small, request("GET", "/")).status == 404, "a place is free")
            calls.append(stack.enter_context(call(small, BOT, token_for())))
        assert all(echoes(ws) for ws in calls)


def test_after_all_of_this_calls_go_through(daemon: Daemon, small: Daemon) -> None:
    serves(daemon)
    serves(small)
