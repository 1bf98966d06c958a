"""How calls of the `frames` relay end when a side closes, leaves or is lost, with real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from relay.protocol.lifecycle import Event
from relay.server.frames_relay import ANSWER_TIMEOUT, LAST_WORDS, LINGER
from tests.helpers.frames_stage import FramesStage, frames_stage
from tests.helpers.pump import Peer, close, frame

HALF = frame(b"h" * 100)[:50]
HALF_MASKED = frame(b"h" * 100, masked=True)[:50]


@pytest.fixture
async def r(mock_clock: MockClock) -> AsyncIterator[FramesStage]:
    """A call in tests that do not need the time to pass."""
    async with frames_stage(mock_clock, max_message=1000) as stage:
        yield stage


def sides(r: FramesStage, side: str) -> tuple[Peer, Peer]:
    """The peer of this name and the other one."""
    client, bot = r.call.client, r.call.bot
    return (client, bot) if side == "client" else (bot, client)


# Closes from the sides.


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (4321, "Zoë"), (None, "")])
@pytest.mark.parametrize("side", ["client", "bot"])
async def test_a_close_passes_with_code_and_reason(
    mock_clock: MockClock, kind: str, side: str, code: int | None, reason: str
) -> None:
    async with frames_stage(mock_clock, kind) as r:
        await r.talk()
        closer, other = sides(r, side)
        closer.close_frame(code, reason)
        closer.say(b"behind the Close")
        await r.settle()
        expected = [(code, reason)] if code else [(0, "")]
        assert other.closes() == expected
        other.say(b"not yet")  # the other side may finish
        other.close_frame(code)
        await r.settle()
        assert closer.payloads()[1:] == [b"not yet"]
        assert len(closer.closes()) == len(other.closes()) == 1
        assert r.call.bot.end == "fin"
        r.call.bot.shut()
        await r.ended(f"{side}_closed", code or 1005, reason)
        assert r.call.client.end == "fin"


async def test_closes_that_cross_both_pass(r: FramesStage) -> None:
    r.call.client.close_frame(4001, "client")
    r.call.bot.close_frame(4002, "bot")
    await r.settle()
    assert r.call.bot.closes() == [(4001, "client")]
    assert r.call.client.closes() == [(4002, "bot")]
    r.call.bot.shut()
    report = await r.report()
    first = {"client_closed": (4001, "client"), "bot_closed": (4002, "bot")}[report.cause]
    assert (report.code, report.reason) == first


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (None, "")])
async def test_a_close_that_the_bot_leaves_unanswered_is_answered_for_it(
    r: FramesStage, code: int | None, reason: str
) -> None:
    await r.talk()
    r.call.client.close_frame(code, reason)
    await r.settle()
    r.call.bot.shut()
    await r.settle()
    assert r.call.client.received.endswith(close(code, reason))
    await r.ended("client_closed", code or 1005, reason)


async def test_a_slow_client_gets_what_was_held_although_all_else_is_over(
    mock_clock: MockClock,
) -> None:
    early = frame(b"e" * 60_000) + close(4002, "bot")
    async with frames_stage(mock_clock, "unix", buffer=4096, from_bot=early) as r:
        r.call.client.reading = False
        r.call.client.close_frame(4001)  # it crosses the bot's
        r.call.bot.shut()
        await r.settle()
        assert r.call.bot.closes() == [(4001, "")]
        assert not r.reports
        r.call.client.reading = True
        await r.settle()
        assert r.call.client.received == early
        await r.ended("bot_closed", 4002, "bot")


# A side ends without a Close.


async def test_the_bots_fin_is_a_normal_end_for_the_client(r: FramesStage) -> None:
    await r.talk()
    r.call.bot.shut()
    await r.settle()
    assert r.call.client.closes() == [(1000, "")]
    r.call.client.close_frame(1000)
    await r.ended("bot_ended", 1000)
    assert r.call.client.end == "fin"


@pytest.mark.parametrize("half", [False, True])
async def test_a_bot_that_is_lost_is_an_error_for_the_client(r: FramesStage, half: bool) -> None:
    """Also inside a frame: what is whole has passed, so a Close can be written."""
    await r.talk()
    if half:
        r.call.bot.send(HALF)
        r.call.bot.shut()
    else:
        r.call.bot.reset()
    await r.settle()
    assert r.call.client.closes() == [(1011, "bot lost")]
    assert r.call.client.payloads() == [b"there"]
    r.call.client.close_frame(1011)
    await r.ended("bot_lost", 1011, "bot lost")


@pytest.mark.parametrize("how", ["shut", "reset"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("answers", [True, False])
async def test_a_client_that_is_gone_is_told_to_the_bot(
    r: FramesStage, how: str, half: bool, answers: bool
) -> None:
    await r.talk()
    if half:
        r.call.client.send(HALF_MASKED)
        await r.settle()
    getattr(r.call.client, how)()
    await r.settle()
    assert r.call.bot.closes() == [(1001, "client gone")]
    assert not r.reports, "the instance is free only when the bot's side has ended"
    r.call.bot.say(b"to nobody")
    if answers:
        r.call.bot.close_frame(1001)
        await r.settle()
    r.call.bot.shut()
    await r.ended("client_gone", 1001, "client gone")


async def test_a_close_sent_just_before_a_reset_counts_though_a_write_met_the_reset(
    r: FramesStage,
) -> None:
    await r.talk()
    r.call.client.say(b"one more")
    r.call.bot.close_frame(4005, "last words")
    r.call.bot.reset()
    await r.settle()
    assert r.call.client.closes() == [(4005, "last words")]
    r.call.client.close_frame(4005)
    await r.ended("bot_closed", 4005, "last words")


async def test_a_failed_write_does_not_cut_off_what_was_said_before(
    mock_clock: MockClock,
) -> None:
    """The reader is still in the midst of many frames when the writer meets the reset."""
    async with frames_stage(mock_clock) as r:
        await r.talk()
        r.call.bot.send(frame(b"") * 2000)
        r.call.bot.close_frame(4005, "last words")
        r.call.bot.reset()
        r.call.client.say(b"one more")
        await r.settle()
        assert r.call.client.closes() == [(4005, "last words")]
        assert len(r.call.client.payloads()) == 2001


async def test_a_side_that_is_deaf_but_does_not_end_is_lost(mock_clock: MockClock) -> None:
    async with frames_stage(mock_clock, "unix") as r:
        await r.talk()
        r.call.bot.sock.shutdown(0)  # reads no more; a write to it fails, a read finds nothing
        r.call.client.say(b"is anybody there?")
        await r.settle()
        await r.advance(LAST_WORDS)
        assert r.call.client.closes() == [(1011, "bot lost")]
        r.call.client.close_frame(1011)
        await r.ended("bot_lost", 1011, "bot lost")


# A watched bot.


@pytest.mark.parametrize(
    ("failed", "cause", "code", "reason"),
    [(True, "bot_lost", 1011, "bot lost"), (False, "bot_ended", 1000, "")],
)
async def test_a_watched_bot_that_has_gone_is_judged(
    mock_clock: MockClock, failed: bool, cause: str, code: int, reason: str
) -> None:
    async with frames_stage(mock_clock, failed=failed, watched=True) as r:
        await r.talk()
        r.call.bot.sock.close()
        await r.settle()
        assert r.asked == 1
        assert r.call.client.closes() == [(code, reason)]
        r.call.client.close_frame(code)
        await r.ended(cause, code, reason)


async def test_no_question_where_the_end_is_clear(mock_clock: MockClock) -> None:
    for how in ("close", "half", "reset"):
        async with frames_stage(mock_clock, watched=True) as r:
            await r.talk()
            if how == "close":
                r.call.bot.close_frame(1000)
                r.call.bot.shut()
            elif how == "half":
                r.call.bot.send(HALF)
                r.call.bot.shut()
            else:
                r.call.bot.reset()
            await r.settle()
            assert r.asked == 0


async def test_without_an_answer_the_bot_has_finished(mock_clock: MockClock) -> None:
    async with frames_stage(mock_clock, failed=None, watched=True) as r:
        await r.talk()
        r.call.bot.sock.close()
        await r.settle()
        for _ in range(3):  # the first is answered by a reset, the next ones fail
            r.call.client.say(b"is anybody there?")
            await r.settle()
        await r.advance(ANSWER_TIMEOUT / 2)
        assert not r.call.client.closes()
        await r.advance(ANSWER_TIMEOUT)
        assert r.call.client.closes() == [(1000, "")]
        r.call.client.close_frame(1000)
        await r.ended("bot_ended", 1000)


@pytest.mark.parametrize("order", [Event.STOP, Event.DRAIN])
async def test_another_end_does_not_wait_for_the_answer(
    mock_clock: MockClock, order: Event
) -> None:
    async with frames_stage(mock_clock, failed=None, watched=True) as r:
        await r.talk()
        r.call.bot.sock.close()
        await r.settle()
        await r.order(order)
        assert r.call.client.closes() == [(1000, "")]
        r.call.client.close_frame(1000)
        await r.ended("bot_ended", 1000)


async def test_the_bot_is_free_although_a_client_that_broke_the_protocol_stays(
    mock_clock: MockClock,
) -> None:
    async with frames_stage(mock_clock) as r:
        r.call.client.send(b"\x83\x80\0\0\0\0")
        await r.settle()
        r.call.bot.close_frame(1002)
        await r.settle()
        assert r.call.client.closes() == [(1002, "protocol error")]
        assert r.call.client.end == "fin"  # of its own Close nothing would be seen
        r.call.bot.shut()
        await r.settle()
        assert not r.reports
        await r.advance(LINGER)
        await r.ended("client_protocol_error", 1002, "protocol error")
