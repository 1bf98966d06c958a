"""The Session API while both sides talk: events, pipelines, backpressure, interim answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.helpers.daemon import PATIENCE, Daemon, wait_until
from tests.helpers.scripted_bot import Conversation, ScriptedBot, say
from tests.helpers.scripted_http import (
    BEARER,
    SessionBot,
    Steps,
    answer,
    chunk,
    head,
    read_chunk,
    read_head,
    sent_body,
)
from tests.helpers.shared import MANY, shared_daemon
from tests.helpers.wire import (
    request,
    stop,
)


@pytest.fixture(scope="module")
def daemon(bot: ScriptedBot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with shared_daemon(tmp_path_factory, [bot.url], MANY) as daemon:
        yield daemon


# --- at once ---


def test_events_arrive_one_by_one(held: SessionBot) -> None:
    steps = Steps()

    def events(talk: Conversation) -> None:
        talk.sock.sendall(
            head("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        )
        for number in range(5):
            steps.wait_go()
            talk.sock.sendall(chunk(b"data: %d\n\n" % number))
        talk.sock.sendall(b"0\r\n\r\n")

    held.script = events
    with held.wire() as wire:
        wire.send(held.request())
        assert read_head(wire)[1]["content-type"] == "text/event-stream"
        for number in range(5):
            steps.go()
            assert read_chunk(wire) == b"data: %d\n\n" % number
        assert read_chunk(wire) == b""


def test_a_request_flows_while_its_answer_does(held: SessionBot) -> None:
    def repeat(talk: Conversation) -> None:
        talk.sock.sendall(head("200 OK", "Transfer-Encoding: chunked"))
        data = talk.head.partition(b"\r\n\r\n")[2]
        while True:
            if data.endswith(b"0\r\n\r\n"):
                talk.sock.sendall(b"0\r\n\r\n")
                return
            if data:
                talk.sock.sendall(data)
            data = talk.sock.recv(1000)

    held.script = repeat
    with held.wire() as wire:
        wire.send(held.request("POST", "/x", "Transfer-Encoding: chunked"))
        # The answer began before the request was whole: nothing can follow it.
        assert read_head(wire)[1]["connection"] == "close"
        for word in (b"one", b"two", b"three"):
            wire.send(chunk(word))
            assert read_chunk(wire) == word
        wire.send(b"0\r\n\r\n")
        assert read_chunk(wire) == b""
        assert wire.rest() == b""


def test_a_slow_reader_slows_the_bot_and_costs_no_memory(held: SessionBot) -> None:
    total, sent = 64 * 1024 * 1024, 0

    def flood(talk: Conversation) -> None:
        nonlocal sent
        talk.sock.sendall(head("200 OK", f"Content-Length: {total}"))
        block = b"x" * 65536
        while sent < total:
            talk.sock.sendall(block)
            sent += len(block)

    held.script = flood
    before = resident(held.daemon.process.pid)
    with held.wire() as wire:
        wire.send(held.request())
        assert read_head(wire)[0] == 200

        def stands_still() -> bool:
            mark = sent
            return not wire.sock.recv(1) or (mark > 0 and sent == mark)

        for _ in range(3):
            wait_until(stands_still, "the bot can send no more")
        # Kernel buffers of two connections hold some megabytes; the daemon holds nothing.
        assert sent < total / 2
        assert resident(held.daemon.process.pid) - before < 8 * 1024 * 1024
    wait_until(lambda: len(held.bot._open) <= 1, "the bot sees that nobody reads")


def test_a_slow_bot_slows_its_client_and_costs_no_memory(held: SessionBot) -> None:
    total, go = 64 * 1024 * 1024, Steps()

    def swallow(talk: Conversation) -> None:
        go.wait_go()
        read = len(talk.head.partition(b"\r\n\r\n")[2])
        while read < total:
            read += len(talk.sock.recv(1 << 20))
        talk.sock.sendall(answer(body=b"%d" % read))

    held.script = swallow
    before = resident(held.daemon.process.pid)
    with held.wire() as wire:
        wire.send(held.request("POST", "/x", f"Content-Length: {total}"))
        wire.sock.settimeout(0.5)
        sent, block = 0, bytes(65536)
        with suppress(TimeoutError):
            while sent < total:
                sent += wire.sock.send(block)
        # The client stands still, and the daemon holds nothing of what it could send.
        assert sent < total / 2
        assert resident(held.daemon.process.pid) - before < 8 * 1024 * 1024
        wire.sock.settimeout(PATIENCE)
        go.go()
        wire.send(bytes(total - sent))
        assert wire.answer().body == b"%d" % total
        assert resident(held.daemon.process.pid) - before < 8 * 1024 * 1024


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_pipelined_requests_are_answered_in_order(held: SessionBot) -> None:
    held.script = lambda talk: talk.sock.sendall(answer(body=talk.target.encode()))
    start = b'{"transport": "websocket"}'
    with held.wire() as wire:
        wire.send(
            held.request("POST", "/first", "Content-Length: 3", body=b"one")
            + held.request("POST", "/second", "Transfer-Encoding: chunked", body=b"0\r\n\r\n")
            + request("POST", "/v1/public/bot/start", BEARER, "Content-Length: 26", body=start)
            + held.request("GET", "/third", "Connection: close")
        )
        assert wire.answer().body == b"/first"
        assert wire.answer().body == b"/second"
        stop(held.daemon, wire.answer().json()["sessionId"])
        last = wire.answer()
        assert (last.body, last.headers["connection"]) == (b"/third", "close")
        assert wire.rest() == b""


# --- interim answers ---


def test_the_bot_is_asked_whether_it_wants_the_body(held: SessionBot) -> None:
    def wants(talk: Conversation) -> None:
        assert talk.field("expect") == b"100-continue"
        talk.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        talk.sock.sendall(answer(body=sent_body(talk)))

    held.script = wants
    with held.wire() as wire:
        wire.send(held.request("POST", "/x", "Content-Length: 4", "Expect: 100-continue"))
        assert read_head(wire)[0] == 100
        wire.send(b"body")
        assert wire.answer().body == b"body"
        assert wire.ask(held.request("GET", "/ws")).status == 403


@pytest.mark.parametrize("status", ["417 Expectation Failed", "401 Unauthorized"])
def test_a_bot_that_does_not_want_the_body(held: SessionBot, status: str) -> None:
    held.script = say(answer(status, body=b"no"))
    with held.wire() as wire:
        wire.send(held.request("POST", "/x", "Content-Length: 4", "Expect: 100-continue"))
        found = wire.answer()
        assert (found.status, found.body) == (int(status[:3]), b"no")
        assert found.headers["connection"] == "close"
        assert wire.rest() == b""


def test_an_early_answer_to_a_large_body_passes(held: SessionBot) -> None:
    held.script = say(answer("413 Content Too Large", body=b"too much"))
    with held.wire() as wire:
        wire.send(held.request("POST", "/x", "Content-Length: 99999999", body=b"x" * 50_000))
        found = wire.answer()
        assert (found.status, found.body) == (413, b"too much")
        assert found.headers["connection"] == "close"


def test_early_hints_pass_to_those_who_know_them(held: SessionBot) -> None:
    hints = head("103 Early Hints", "Link: </a>; rel=preload", "Connection: x")
    held.script = say(hints + hints + answer(body=b"done"))
    with held.wire() as wire:
        wire.send(held.request())
        for _ in range(2):
            assert read_head(wire) == (103, {"link": "</a>; rel=preload"})
        assert wire.answer().body == b"done"
    with held.wire() as wire:
        wire.send(held.request().replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert wire.answer().body == b"done"
