"""What passes through a call of the `frames` relay, and what it holds meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from relay.protocol.messages import PIECE
from relay.server.frames_relay import FRAMES_AT_A_TIME, LEAST_HOLD, READ_SIZE
from tests.helpers.frames_stage import FramesStage, frames_stage
from tests.helpers.pump import CLOSE, frame, split

CONTINUATION, TEXT, BINARY, PING, PONG = 0x0, 0x1, 0x2, 0x9, 0xA
PREFACE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@pytest.fixture
async def r(mock_clock: MockClock) -> AsyncIterator[FramesStage]:
    async with frames_stage(mock_clock) as stage:
        yield stage


def heard(data: bytes) -> list[tuple[int, bytes, bool]]:
    """Frames as opcode, payload and whether final."""
    frames, rest = split(data)
    assert not rest
    return [(each.opcode, each.payload, each.final) for each in frames]


async def test_messages_pass_as_they_are_both_ways(r: FramesStage) -> None:
    payloads = [(TEXT, "Zoë 😀".encode()), (TEXT, b""), (BINARY, bytes(range(256))), (BINARY, b"")]
    for peer, other in ((r.call.client, r.call.bot), (r.call.bot, r.call.client)):
        for opcode, payload in payloads:
            peer.send(frame(payload, masked=peer.masked, opcode=opcode))
        await r.settle()
        assert heard(other.received) == [(*each, True) for each in payloads]
        assert all(each.masked is not other.masked for each in split(other.received)[0])


async def test_masks_toward_the_bot_are_new(r: FramesStage) -> None:
    """A mask must not be one that whoever chose the payload knows (RFC 6455 section 10.3)."""
    for _ in range(4):
        r.call.client.say(b"the same")
    await r.settle()
    size = len(frame(b"the same", masked=True))
    wire = r.call.bot.received
    masks = {bytes(wire[at + 2 : at + 6]) for at in range(0, len(wire), size)}
    assert len(masks) > 1


async def test_fragments_and_control_frames_between_keep_their_order(r: FramesStage) -> None:
    sent = [
        (TEXT, b"a", False),
        (PING, b"1", True),
        (CONTINUATION, b"b", False),
        (PONG, b"2", True),
        (CONTINUATION, b"c", True),
    ]
    for peer, other in ((r.call.client, r.call.bot), (r.call.bot, r.call.client)):
        for opcode, payload, final in sent:
            peer.send(frame(payload, masked=peer.masked, opcode=opcode, final=final))
        await r.settle()
        assert heard(other.received) == sent


async def test_pings_are_not_answered_by_the_relay(r: FramesStage) -> None:
    r.call.client.send(frame(b"are you there", masked=True, opcode=PING))
    await r.settle()
    assert not r.call.client.received
    r.call.bot.send(frame(b"are you there", opcode=PONG))
    await r.settle()
    assert heard(r.call.client.received) == [(PONG, b"are you there", True)]


async def test_a_long_message_passes_in_pieces_while_it_comes(r: FramesStage) -> None:
    payload = bytes(range(256)) * 4096  # 1 MiB
    whole = frame(payload, masked=True)
    r.call.client.send(whole[: len(whole) // 2])
    await r.settle()
    first = split(r.call.bot.received)[0]
    assert len(payload) // 2 - sum(len(each.payload) for each in first) < PIECE
    r.call.client.send(whole[len(whole) // 2 :])
    await r.settle()
    frames = split(r.call.bot.received)[0]
    assert b"".join(each.payload for each in frames) == payload
    assert [each.final for each in frames] == [False] * (len(frames) - 1) + [True]
    assert all(len(each.payload) < PIECE + READ_SIZE for each in frames)


async def test_thousands_of_frames_in_one_read_let_others_have_their_turn(r: FramesStage) -> None:
    count = FRAMES_AT_A_TIME * 40
    r.call.client.send(frame(b"", masked=True) * count)
    passed = [0]
    while passed[-1] < count:
        await trio.lowlevel.checkpoint()
        passed.append(r.relay._client.messages)
    # Tasks have their turns in any order: two of the relay's may come between two of this one.
    assert max(after - before for before, after in pairwise(passed)) <= 2 * FRAMES_AT_A_TIME
    await r.settle()
    assert len(split(r.call.bot.received)[0]) == count


async def test_early_bytes_come_first_and_the_bots_before_the_clients(
    mock_clock: MockClock,
) -> None:
    early = frame(b"early", masked=True)
    bots = frame(b"from the bot") + frame(b"\x0f\xa2", opcode=CLOSE)
    async with frames_stage(
        mock_clock, preface=PREFACE, from_client=early + early[:4], from_bot=bots
    ) as r:
        r.call.client.send(early[4:])
        await r.settle()
        assert r.call.bot.payloads() == [b"early"] * 2
        assert r.call.client.received == PREFACE + bots
        r.call.client.send(frame(b"\x0f\xa2", masked=True, opcode=CLOSE))
        r.call.bot.shut()
        await r.ended("bot_closed", 4002)


@pytest.mark.parametrize("side", ["client", "bot"])
async def test_a_reader_that_stalls_stops_its_writer(mock_clock: MockClock, side: str) -> None:
    """Nothing is lost, and what is held is one read and what was begun."""
    async with frames_stage(mock_clock, "unix", buffer=8192) as r:
        pair = (r.call.client, r.call.bot)
        slow, writer = pair if side == "client" else pair[::-1]
        slow.reading = False
        payloads = [bytes([number]) * 50_000 for number in range(40)]
        for payload in payloads:
            writer.say(payload)
        await r.settle()
        assert writer.unsent
        held = [len(leg.outbox) for leg in (r.relay._client, r.relay._bot)]
        assert max(held) <= READ_SIZE + PIECE
        slow.say(b"the other way goes on")
        await r.settle()
        assert writer.payloads() == [b"the other way goes on"]
        r.clock.jump(7.0)
        slow.reading = True
        await r.settle()
        assert slow.payloads() == payloads
        r.call.client.close_frame(1000)
        r.call.bot.close_frame(1000)
        r.call.bot.shut()
        report = await r.report()
        talker, other = report.from_client, report.from_bot
        if side == "client":
            talker, other = other, talker
        assert (talker.messages, other.messages) == (40, 1)
        assert talker.held_time == 7.0
        assert other.held_time == 0.0
        assert talker.bytes > 40 * 50_000


async def test_figures(mock_clock: MockClock) -> None:
    async with frames_stage(mock_clock) as r:
        await r.talk()
        r.call.client.send(frame(b"half of a message", masked=True, final=False))
        r.call.client.send(frame(b"", masked=True, opcode=PING))
        await r.settle()
        r.call.client.close_frame(1000)
        r.call.bot.close_frame(1000)
        r.call.bot.shut()
        report = await r.report()
        assert report.session == "session of call"
        assert (report.from_client.messages, report.from_bot.messages) == (1, 1)
        assert report.from_bot.bytes == len(r.call.client.received)
        assert report.from_client.bytes == len(r.call.bot.received)
        assert report.from_client.held_time == report.from_bot.held_time == 0.0


async def test_a_short_hold_is_none(mock_clock: MockClock) -> None:
    async with frames_stage(mock_clock, "unix", buffer=8192) as r:
        r.call.client.reading = False
        r.call.bot.say(b"x" * 500_000)
        await r.settle()
        r.clock.jump(LEAST_HOLD)
        r.call.client.reading = True
        await r.settle()
        assert r.relay.report().from_bot.held_time == 0.0


async def test_the_largest_gap_is_between_two_reads(mock_clock: MockClock) -> None:
    async with frames_stage(mock_clock) as r:
        await r.talk()
        await r.advance(3.0)
        r.call.client.say(b"after three seconds")
        await r.settle()
        await r.advance(1.0)
        r.call.client.close_frame(1000)
        r.call.bot.close_frame(1000)
        r.call.bot.shut()
        report = await r.report()
        assert (report.from_client.largest_gap, report.from_bot.largest_gap) == (3.0, 4.0)
        assert report.seconds == 4.0
