"""An exchange between a client and a bot over streams in memory: its waits and its bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
import trio
import trio.testing

from relay.errors import Refusal
from relay.policy.catalog import Catalog, Limits
from relay.protocol.bot_http import BotTalk
from relay.protocol.http1 import HeadBuffer, HeadLimits, parse_request
from relay.server.bot_exchange import HEAD_TIMEOUT, MAX_AHEAD, RECEIVE_SIZE, BotExchange
from relay.server.exchange import Exchange, Front

GET = b"GET /x HTTP/1.1\r\nHost: relay\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: relay\r\nContent-Length: 3\r\n\r\n"
Stream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


@dataclass
class Stage:
    """Both ends that are not the daemon's, and what became of the exchange."""

    exchange: Exchange
    client: Stream
    bot: Stream
    refusal: Refusal | None = None
    seconds: float = 0.0


def nothing() -> Any:
    """A part of the front that this exchange does not use."""
    return cast(Any, None)


@asynccontextmanager
async def exchanging(request: bytes) -> AsyncIterator[Stage]:
    """An exchange that runs beside the block, and has ended behind it."""
    parts = {name: nothing() for name in Front.__slots__}
    parts |= {"catalog": Catalog({}, {}), "limits": Limits(), "draining": False}
    client, ours = trio.testing.memory_stream_pair()
    to_bot, bot = trio.testing.memory_stream_pair()
    exchange = Exchange(Front(**parts), ours, HeadBuffer(HeadLimits(1000, 1000, 10)), "peer")
    exchange.request, exchange.http = parse_request(request)
    talk = BotTalk(exchange.request, b"/x", "bot:1", "session", "request")
    stage = Stage(exchange, client, bot)

    async def run() -> None:
        start = trio.current_time()
        try:
            await BotExchange(exchange, to_bot, talk).run()
        except Refusal as refusal:
            stage.refusal = refusal
        stage.seconds = trio.current_time() - start

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield stage


async def test_a_bot_that_says_nothing_is_504(autojump_clock: trio.testing.MockClock) -> None:
    async with exchanging(GET) as stage:
        pass
    assert stage.refusal is not None
    assert (stage.refusal.status, stage.refusal.cause) == (504, "bot_timeout")
    assert stage.seconds == pytest.approx(HEAD_TIMEOUT)


async def test_interim_answers_are_no_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with exchanging(GET) as stage:
        await trio.sleep(HEAD_TIMEOUT / 2)
        await stage.bot.send_all(b"HTTP/1.1 103 Early\r\n\r\n")
    assert stage.refusal is not None
    assert stage.refusal.status == 504
    assert stage.seconds == pytest.approx(HEAD_TIMEOUT)


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
    assert (stage.refusal, stage.exchange.cause) == (None, None)
    assert stage.exchange.keep_alive
    assert bytes(await stage.client.receive_some()).endswith(b"\r\n\r\nab")


async def test_a_client_that_sends_ahead_is_read_within_a_bound() -> None:
    ahead = GET * (4 * MAX_AHEAD // len(GET))
    async with exchanging(GET) as stage:
        await stage.client.send_all(ahead)
        await trio.testing.wait_all_tasks_blocked()
        assert stage.exchange.received_bytes < MAX_AHEAD + RECEIVE_SIZE
        await stage.bot.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
    http = stage.exchange.http
    assert http is not None
    assert http.trailing_data[0] == ahead[: stage.exchange.received_bytes]


async def test_a_whole_answer_counts_even_if_the_client_leaves_with_it() -> None:
    async with exchanging(GET) as stage:

        async def leave() -> None:
            stage.client.send_stream.close()  # in the moment in which the answer is out

        ours = cast(Stream, stage.exchange.stream)
        ours.send_stream.send_all_hook = leave
        await stage.bot.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (stage.refusal, stage.exchange.cause, stage.exchange.status) == (None, None, 204)


async def test_whoever_cancels_ends_it_at_once() -> None:
    with trio.CancelScope() as scope:
        async with exchanging(GET) as stage:
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert stage.exchange.status is None
