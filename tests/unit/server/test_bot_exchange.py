"""An exchange between a client and a bot over socket pairs: its waits and its bounds."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import pytest
import trio
import trio.testing

from relay.errors import Refusal
from relay.policy.catalog import Catalog, Limits
from relay.protocol.bot_http import BotTalk
from relay.protocol.http1 import HeadBuffer, HeadLimits, parse_request, request_body
from relay.server.bot_exchange import HEAD_TIMEOUT, MAX_AHEAD, BotExchange
from relay.server.exchange import RECEIVE_SIZE, Exchange, Front
from relay.server.leg import Leg
from relay.server.rules import Rules
from relay.server.traffic import Traffic

GET = b"GET /x HTTP/1.1\r\nHost: relay\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: relay\r\nContent-Length: 3\r\n\r\n"
SESSION = "session"


@dataclass
class Stage:
    """Both ends that are not the daemon's, and what became of the exchange."""

    exchange: Exchange
    client: trio.SocketStream
    bot: trio.SocketStream
    traffic: Traffic
    refusal: Refusal | None = None
    seconds: float = 0.0


def nothing() -> Any:
    """A part of the front that this exchange does not use."""
    return cast(Any, None)


@asynccontextmanager
async def exchanging(request: bytes) -> AsyncIterator[Stage]:
    """An exchange that runs beside the block, and has ended behind it."""
    parts = {name: nothing() for name in Front.__slots__}
    parts |= {"rules": Rules(Catalog({}, {}), Limits())}
    client, ours, to_bot, bot = await _sockets()
    heads = HeadBuffer(HeadLimits(1000, 1000, 10))
    leg = Leg(ours.socket.fileno())
    exchange = Exchange(Front(**parts), ours, leg, heads, "peer")
    exchange.request = parse_request(request)
    exchange.body = request_body(exchange.request)
    traffic = Traffic(Rules(Catalog({}, {}), Limits(session_requests=1)))
    assert traffic.begin_now(SESSION)
    stage = Stage(exchange, client, bot, traffic)
    talk, to = BotTalk(exchange.request.method), Leg(to_bot.socket.fileno())

    async def run() -> None:
        start = trio.current_time()
        try:
            await BotExchange(exchange, to, talk, b"the request").run(traffic, SESSION)
        except Refusal as refusal:
            stage.refusal = refusal
        stage.seconds = trio.current_time() - start

    async with client, ours, to_bot, bot:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield stage
        traffic.end(SESSION)


async def _sockets() -> tuple[trio.SocketStream, ...]:
    """Client, the daemon's two ends, bot."""
    pairs = (*trio.socket.socketpair(), *trio.socket.socketpair())
    return tuple(trio.SocketStream(each) for each in pairs)


async def test_a_bot_that_says_nothing_is_504(autojump_clock: trio.testing.MockClock) -> None:
    async with exchanging(GET) as stage:
        pass
    assert stage.refusal is not None
    assert (stage.refusal.status, stage.refusal.cause) == (504, "bot_timeout")
    assert stage.seconds == pytest.approx(HEAD_TIMEOUT, abs=0.1)


async def test_others_have_a_turn_while_the_bot_answers() -> None:
    async with exchanging(GET) as stage:
        await stage.bot.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert stage.exchange.status == 200
    assert stage.exchange.gave_turn


async def test_interim_answers_are_no_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with exchanging(GET) as stage:
        await trio.sleep(HEAD_TIMEOUT / 2)
        await stage.bot.send_all(b"HTTP/1.1 103 Early\r\n\r\n")
    assert stage.refusal is not None
    assert stage.refusal.status == 504
    assert stage.seconds == pytest.approx(HEAD_TIMEOUT, abs=0.1)


async def test_a_body_that_does_not_come_is_408(autojump_clock: trio.testing.MockClock) -> None:
    async with exchanging(POST) as stage:
        for piece in (b"a", b"b"):
            await trio.sleep(HEAD_TIMEOUT * 0.9)
            await stage.client.send_all(piece)
    assert stage.refusal is not None
    assert (stage.refusal.status, stage.refusal.cause) == (408, "slow_body")
    assert stage.seconds == pytest.approx(HEAD_TIMEOUT * 2.8)


async def test_an_answer_that_has_begun_may_take_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with exchanging(GET) as stage:
        await stage.bot.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        await trio.sleep(HEAD_TIMEOUT * 100)
        await stage.bot.send_all(b"b")
        await trio.testing.wait_all_tasks_blocked()
        assert bytes(await stage.client.receive_some()).endswith(b"\r\n\r\nab")
    assert (stage.refusal, stage.exchange.cause) == (None, None)
    assert stage.exchange.keep_alive


async def test_a_client_that_sends_ahead_is_read_within_a_bound() -> None:
    ahead = GET * (4 * MAX_AHEAD // len(GET))
    async with exchanging(GET) as stage:
        await stage.client.send_all(ahead)
        await trio.testing.wait_all_tasks_blocked()
        assert stage.exchange.received_bytes < MAX_AHEAD + RECEIVE_SIZE
        await stage.bot.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert stage.exchange.heads.take() == ahead[: stage.exchange.received_bytes]


async def test_a_whole_answer_counts_even_if_the_client_leaves_with_it() -> None:
    async with exchanging(GET) as stage:
        await stage.bot.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        await stage.client.send_eof()
    assert (stage.refusal, stage.exchange.cause, stage.exchange.status) == (None, None, 204)


async def test_the_end_of_its_session_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    async with exchanging(GET) as stage:
        await stage.bot.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await trio.sleep(1)
        stage.traffic.session_ended(SESSION, 0.5)
    assert stage.refusal is not None
    assert (stage.refusal.status, stage.refusal.cause) == (404, "session_ended")
    assert stage.seconds == pytest.approx(1.5)


async def test_an_answer_may_finish_after_the_end_of_its_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with exchanging(GET) as stage:
        await trio.sleep(1)
        stage.traffic.session_ended(SESSION, 0.5)
        await trio.sleep(0.4)
        await stage.bot.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (stage.refusal, stage.exchange.cause, stage.exchange.status) == (None, None, 204)


async def test_a_reader_may_pause_but_not_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    size = 64 * 1024 * 1024
    async with exchanging(GET) as stage:

        async def answer() -> None:
            with suppress(trio.BrokenResourceError):
                await stage.bot.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                await stage.bot.send_all(bytes(size))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await trio.sleep(Limits().pause_timeout * 0.9)
            for _ in range(100):
                await stage.client.receive_some(65536)
            await trio.sleep(Limits().pause_timeout * 1.1)
            nursery.cancel_scope.cancel()
    assert stage.exchange.cause == "client_left"
    assert stage.seconds == pytest.approx(Limits().pause_timeout * 1.9)


@pytest.mark.parametrize("framing", ["Content-Length: 40000", "Transfer-Encoding: chunked"])
async def test_an_answer_that_the_client_has_not_taken_is_not_whole(
    framing: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The bot is done and the client stands still: what is left can be cut off, and is."""
    body = bytes(40_000)
    if "chunked" in framing:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with exchanging(GET) as stage:
        stage.exchange.stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        await stage.bot.send_all(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n" % framing.encode() + body)
        await trio.sleep(1)
        assert 0 < stage.exchange.sent_bytes < 40_000
        stage.traffic.session_ended(SESSION, 0.0)
    assert stage.refusal is not None
    assert stage.refusal.cause == "session_ended"


async def test_whoever_cancels_ends_it_at_once() -> None:
    with trio.CancelScope() as scope:
        async with exchanging(GET) as stage:
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert stage.exchange.status is None
