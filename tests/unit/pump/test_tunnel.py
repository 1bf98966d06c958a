"""A tunnel's beginning, and where in its streams a Close may stand, on real sockets."""

from __future__ import annotations

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection

from relay.protocol.lifecycle import Event
from relay.pump.scratch import READ_SIZE
from relay.pump.tunnel import BOUNDARY_TIMEOUT
from tests.helpers.pump import Rig, close, frame, split

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
HALF = frame(b"h" * 100)[:50]
HALF_MASKED = frame(b"h" * 100, masked=True)[:50]
REST = frame(b"h" * 100)[50:]
REST_MASKED = frame(b"h" * 100, masked=True)[50:]
# Illegal headers: a reserved opcode toward either side.
ILLEGAL, ILLEGAL_MASKED = b"\x83\x00", b"\x83\x80\0\0\0\0"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_bytes_pass_both_ways_unchanged(r: Rig, kind: str) -> None:
    call = r.call(kind=kind, preface=SWITCHING)
    up = frame(b"a" * 7, masked=True) + frame(b"b" * 70_000, masked=True) + frame(b"", masked=True)
    down = frame(b"x" * 300, opcode=1, final=False) + frame(b"", opcode=9) + frame(b"y", opcode=0)
    call.client.send(up)
    call.bot.send(down)
    r.settle()
    assert call.bot.received == up
    assert call.client.received == SWITCHING + down
    (live,) = r.pump.snapshot()
    assert (live.from_client.bytes, live.from_client.messages) == (len(up), 3)
    assert (live.from_bot.bytes, live.from_bot.messages) == (len(down), 1)  # the preface is none


# What was read before the pump took over.


def test_early_bytes_of_both_sides_come_first_and_in_order(r: Rig) -> None:
    up, down = frame(b"early up", masked=True), frame(b"early down")
    call = r.call(preface=SWITCHING, from_client=up + HALF_MASKED, from_bot=down + HALF)
    call.client.send(REST_MASKED + up)
    call.bot.send(REST + down)
    r.settle()
    assert call.bot.received == up + HALF_MASKED + REST_MASKED + up
    assert call.client.received == SWITCHING + down + HALF + REST + down
    (live,) = r.pump.snapshot()
    assert (live.from_client.messages, live.from_bot.messages) == (3, 3)
    assert live.from_bot.bytes == len(call.client.received) - len(SWITCHING)


@pytest.mark.parametrize("size", range(1, 7))
def test_early_bytes_may_be_a_piece_of_a_header(r: Rig, size: int) -> None:
    up, down = frame(b"u" * 300, masked=True), frame(b"d" * 300)
    call = r.call(from_client=up[:size], from_bot=down[:size])
    call.client.send(up[size:])
    call.bot.send(down[size:])
    r.settle()
    assert call.bot.received == up
    assert call.client.received == down


def test_a_close_among_early_bytes_ends_the_call(r: Rig) -> None:
    early = frame(b"1") + close(4001, "enough")
    call = r.call(preface=SWITCHING, from_bot=early + frame(b"never"))
    r.settle()
    assert call.client.received == SWITCHING + early
    call.client.close_frame(4001)
    r.settle()
    call.bot.reset()
    r.ended("bot_closed", 4001, "enough")


def test_an_illegal_header_among_early_bytes_ends_the_call(r: Rig) -> None:
    call = r.call(preface=SWITCHING, from_client=frame(b"1", masked=True) + ILLEGAL_MASKED)
    r.settle()
    assert call.bot.payloads() == [b"1"]
    assert call.bot.closes() == [(1002, "protocol error")]
    assert call.client.received == SWITCHING + close(1002, "protocol error")
    call.client.reset()
    call.bot.reset()
    r.ended("client_protocol_error", 1002, "protocol error")


@pytest.mark.parametrize("tail", [b"", close(4001), ILLEGAL], ids=["", "close", "illegal"])
def test_early_bytes_beyond_what_the_sink_takes_wait_for_it(r: Rig, tail: bytes) -> None:
    preface, early = b"p" * 60_000, frame(b"e" * 60_000)
    call = r.call(buffer=4096, preface=preface, from_bot=early + tail)
    assert r.pump.tunnels["call"].from_bot.held  # else this shows nothing
    if not tail:
        call.bot.say(b"later")
    r.settle()
    after = {b"": frame(b"later"), ILLEGAL: close(1002, "protocol error")}.get(tail, tail)
    assert call.client.received == preface + early + after
    figures = r.pump.snapshot()[0].from_bot
    passed = len(early) + (len(after) if tail != ILLEGAL else 0)
    assert (figures.bytes, figures.messages) == (passed, 1 if tail else 2)


def test_nothing_is_read_before_what_was_read_already(r: Rig) -> None:
    # The client has sent more and gone; the bot must not get that in front of the early bytes.
    early, later = frame(b"early", masked=True), frame(b"later", masked=True)
    call = r.call_from_lost_client(later, preface=SWITCHING, from_client=early)
    r.settle()
    assert call.bot.payloads() in ([], [b"early"], [b"early", b"later"])
    assert call.bot.closes() == [(1001, "client gone")]
    call.bot.shut()
    r.ended("client_gone", 1001, "client gone")


# Where a Close may stand.


def test_a_close_waits_for_the_rest_of_a_frame(r: Rig) -> None:
    call = r.call()
    call.client.send(HALF_MASKED)
    call.bot.send(HALF)
    r.settle()
    r.pump.end("call", Event.STOP)
    r.settle()
    assert call.bot.received == HALF_MASKED
    r.advance(BOUNDARY_TIMEOUT * 0.9)
    call.client.send(REST_MASKED + frame(b"dropped", masked=True))
    call.bot.send(REST[:20])
    r.settle()
    call.bot.send(REST[20:])
    r.settle()
    for peer in (call.client, call.bot):
        assert peer.payloads() == [b"h" * 100]
        assert peer.closes() == [(1001, "stopped")]
        peer.close_frame(1001)
    call.bot.shut()
    r.ended("stopped", 1001, "stopped")


@pytest.mark.parametrize("size", range(1, 8))
def test_the_answer_is_seen_behind_the_rest_of_a_frame(r: Rig, size: int) -> None:
    call = r.call()
    answer = close(1001, masked=True)
    call.client.send(HALF_MASKED)
    r.settle()
    r.pump.end("call", Event.STOP)
    call.client.send(REST_MASKED + answer[:size])  # in one read with a piece of the next header
    call.bot.close_frame(1001)
    r.settle()
    call.client.send(answer[size:])
    r.settle()
    assert call.bot.closes() == [(1001, "stopped")]
    assert call.client.closes() == [(1001, "stopped")]
    assert (call.client.end, call.bot.end) == ("fin", "fin")
    call.bot.shut()
    r.ended("stopped", 1001, "stopped")


def test_a_close_fits_between_fragments(r: Rig) -> None:
    call = r.call()
    call.bot.send(frame(b"1", final=False))
    r.settle()
    r.pump.end("call", Event.STOP)
    r.settle()
    assert [each.opcode for each in call.client.frames()] == [2, 8]


@pytest.mark.parametrize("stalled", ["client", "bot"])
def test_a_frame_that_never_ends_resets_who_waits_for_it(r: Rig, stalled: str) -> None:
    call = r.call()
    r.talk(call)
    side, other = (call.client, call.bot) if stalled == "client" else (call.bot, call.client)
    side.send(HALF_MASKED if side.masked else HALF)
    r.settle()
    r.pump.end("call", Event.STOP)
    r.settle()
    assert side.closes() == [(1001, "stopped")]
    r.advance(BOUNDARY_TIMEOUT * 0.9)
    assert (other.end, r.reports) == ("", [])
    r.advance(BOUNDARY_TIMEOUT * 0.2 + 0.25)
    assert other.end == "reset"
    if stalled == "bot":
        assert not r.reports, "the instance is free only when the bot's side has ended"
        side.shut()
    r.ended("stopped", 1001, "stopped")


def test_the_closing_handshake_has_its_time(r: Rig) -> None:
    call = r.call(close_timeout=3.0)
    r.talk(call)
    call.client.close_frame(1000)
    r.settle()
    r.advance(2.9)
    assert (call.bot.end, r.reports) == ("", [])
    r.advance(0.4)
    assert (call.client.end, call.bot.end) == ("reset", "reset")
    r.ended("client_closed", 1000)


def test_a_close_waits_behind_what_a_slow_reader_has_not_taken(r: Rig) -> None:
    call = r.call(buffer=4096)
    call.client.reading = False
    data = [bytes([index]) * 5000 for index in range(60)]
    call.bot.send(b"".join(frame(each) for each in data))
    r.settle()
    assert call.bot.unsent, "the source is not paused"
    r.pump.end("call", Event.STOP)
    r.settle()
    transfer = r.pump.tunnels["call"].from_bot
    assert 0 < len(transfer.held) <= READ_SIZE + 131
    call.client.reading = True
    r.settle()
    frames, _rest = split(call.client.received)
    if frames[-1].opcode == 8:
        assert [each.payload for each in frames[:-1]] == data[: len(frames) - 1]
        assert call.client.closes() == [(1001, "stopped")]
    else:
        raise AssertionError("no Close although the reader caught up")


def test_our_close_toward_the_bot_is_one_that_wsproto_takes(r: Rig) -> None:
    call = r.call()
    call.client.say(b"sound")
    r.settle()
    r.pump.end("call", Event.DRAIN)
    r.settle()
    bot, client = Connection(ConnectionType.SERVER), Connection(ConnectionType.CLIENT)
    bot.receive_data(bytes(call.bot.received))
    client.receive_data(bytes(call.client.received))
    said, ending = list(bot.events())
    assert isinstance(said, BytesMessage)
    assert isinstance(ending, CloseConnection)
    assert (said.data, ending.code, ending.reason) == (b"sound", 1012, "service restart")
    (ending,) = list(client.events())
    assert isinstance(ending, CloseConnection)
    assert (ending.code, ending.reason) == (1012, "service restart")
