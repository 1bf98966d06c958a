"""How calls of the `frames` relay are ended: by orders, by time, and by what is illegal."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from relay.protocol.lifecycle import Event
from tests.helpers.frames_stage import FramesStage, frames_stage
from tests.helpers.pump import Peer, close, frame

HALF_MASKED = frame(b"h" * 100, masked=True)[:50]
# Illegal headers: a reserved opcode toward either side.
ILLEGAL, ILLEGAL_MASKED = b"\x83\x00", b"\x83\x80\0\0\0\0"
NOT_UTF8 = b"caf\xe9"
TEXT = 0x1


@pytest.fixture
async def r(mock_clock: MockClock) -> AsyncIterator[FramesStage]:
    """A call in tests that do not need the time to pass."""
    async with frames_stage(mock_clock, max_message=1000) as stage:
        yield stage


def sides(r: FramesStage, side: str) -> tuple[Peer, Peer]:
    """The peer of this name and the other one."""
    client, bot = r.call.client, r.call.bot
    return (client, bot) if side == "client" else (bot, client)


# Orders for the whole call, time, and what is illegal.

ORDERS = {
    Event.STOP: ("stopped", 1001, "stopped"),
    Event.DRAIN: ("drain", 1012, "service restart"),
    Event.IDLE: ("idle", 1001, "idle"),
    Event.SESSION_ENDED: ("session_ended", 1001, "session ended"),
}


@pytest.mark.parametrize("order", ORDERS)
async def test_an_order_closes_both_sides(r: FramesStage, order: Event) -> None:
    await r.talk()
    r.call.client.send(HALF_MASKED)  # what is begun is not waited for
    cause, code, reason = ORDERS[order]
    await r.settle()
    await r.order(order)
    await r.order(Event.DRAIN)  # the first order decides
    for peer in (r.call.client, r.call.bot):
        assert peer.closes() == [(code, reason)]
    r.call.client.send(frame(b"h" * 100, masked=True)[50:])
    for peer in (r.call.client, r.call.bot):
        peer.say(b"dropped")
        peer.close_frame(code)
    await r.settle()
    assert r.call.client.payloads() == [b"there"]
    assert r.call.bot.payloads() == [b"hello"]
    assert r.call.bot.end == "fin"
    r.call.bot.shut()
    await r.ended(cause, code, reason)
    assert (r.reports[0].from_client.messages, r.reports[0].from_bot.messages) == (1, 1)


async def test_an_order_before_the_first_step_counts(r: FramesStage) -> None:
    await r.order(Event.STOP)
    for peer in (r.call.client, r.call.bot):
        assert peer.closes() == [(1001, "stopped")]
        peer.shut()
    await r.ended("stopped", 1001, "stopped")


async def test_an_order_reaches_a_side_that_was_stalled(mock_clock: MockClock) -> None:
    async with frames_stage(mock_clock, "unix", buffer=4096) as r:
        r.call.client.reading = False
        r.call.bot.send(frame(b"b" * 500_000))
        await r.settle()
        assert r.call.bot.unsent
        await r.order(Event.STOP)
        assert not r.call.bot.unsent, "behind our Close it is read and dropped"
        assert r.call.bot.closes() == [(1001, "stopped")]
        r.call.client.reading = True
        await r.settle()
        assert r.call.client.closes() == [(1001, "stopped")]


async def test_the_time_limit_closes_both_sides(mock_clock: MockClock) -> None:
    async with frames_stage(mock_clock, max_seconds=60.0) as r:
        await r.talk()
        await r.advance(59.0)
        assert not r.call.client.closes()
        await r.advance(2.0)
        for peer in (r.call.client, r.call.bot):
            assert peer.closes() == [(1001, "time limit")]
            peer.close_frame(1001)
        r.call.bot.shut()
        await r.ended("time_limit", 1001, "time limit")
        assert r.reports[0].seconds == 61.0


async def test_a_closing_handshake_has_an_end(mock_clock: MockClock) -> None:
    async with frames_stage(mock_clock, close_timeout=5.0) as r:
        await r.talk()
        await r.order(Event.STOP)
        await r.advance(4.0)
        assert not r.reports
        await r.advance(1.5)
        assert {r.call.client.end, r.call.bot.end} == {"reset"}
        await r.ended("stopped", 1001, "stopped")


async def test_a_client_that_has_left_is_not_reset_with_the_bot(mock_clock: MockClock) -> None:
    async with frames_stage(mock_clock, close_timeout=5.0) as r:
        await r.talk()
        r.call.client.shut()
        await r.settle()
        await r.advance(6.0)
        assert (r.call.client.end, r.call.bot.end) == ("fin", "reset")
        await r.ended("client_gone", 1001, "client gone")


async def test_a_side_that_never_reads_cannot_hold_the_end(mock_clock: MockClock) -> None:
    async with frames_stage(mock_clock, "unix", buffer=4096) as r:
        r.call.client.reading = False
        r.call.bot.send(frame(b"b" * 500_000))
        await r.settle()
        r.call.bot.reset()
        await r.settle()
        await r.order(Event.STOP)
        await r.advance(6.0)
        assert (await r.report()).cause == "stopped"


@pytest.mark.parametrize("side", ["client", "bot"])
@pytest.mark.parametrize("fault", ["header", "close code", "utf-8", "close utf-8"])
async def test_what_is_illegal_closes_both_sides(r: FramesStage, side: str, fault: str) -> None:
    await r.talk()
    bad, other = sides(r, side)
    bad.say(b"good")
    code, reason = (1002, "protocol error") if fault in ("header", "close code") else (1007, "")
    reason = reason or "not UTF-8"
    bad.send(
        {
            "header": ILLEGAL_MASKED if bad.masked else ILLEGAL,
            "close code": close(1005, masked=bad.masked),
            "utf-8": frame(NOT_UTF8, masked=bad.masked, opcode=TEXT),
            "close utf-8": frame(b"\x03\xe8" + NOT_UTF8, masked=bad.masked, opcode=8),
        }[fault]
    )
    bad.say(b"dropped")
    await r.settle()
    assert other.payloads()[1:] == [b"good"]
    for peer in (r.call.client, r.call.bot):
        assert peer.closes() == [(code, reason)]
        peer.close_frame(code)
        peer.shut()
    await r.ended(f"{side}_protocol_error", code, reason)


async def test_text_that_is_not_utf8_is_found_before_its_end(r: FramesStage) -> None:
    r.call.client.send(frame("né".encode()[:2], masked=True, opcode=TEXT, final=False))
    await r.settle()
    assert not r.call.client.closes(), "a character may be cut by a fragment"
    r.call.client.send(frame(b"x", masked=True, opcode=0, final=False))
    await r.settle()
    assert r.call.client.closes() == [(1007, "not UTF-8")]
    assert r.call.bot.closes() == [(1007, "not UTF-8")]


@pytest.mark.parametrize("side", ["client", "bot"])
async def test_a_message_too_big_closes_both_sides(r: FramesStage, side: str) -> None:
    """All fragments count, and a header is enough to know."""
    await r.talk()
    big, other = sides(r, side)
    big.say(b"x" * 1000)
    big.send(frame(b"x" * 600, masked=big.masked, final=False))
    big.send(frame(b"y" * 401, masked=big.masked, opcode=0)[:9])
    await r.settle()
    assert other.payloads()[1:] == [b"x" * 1000, b"x" * 600]
    for peer in (r.call.client, r.call.bot):
        assert peer.closes() == [(1009, "message too big")]
        peer.shut()
    await r.ended(f"{side}_message_too_big", 1009, "message too big")
