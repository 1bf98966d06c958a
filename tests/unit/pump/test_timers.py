"""Idle limits, pings, gaps and totals: what a pump does and counts with the passing of time."""

from __future__ import annotations

import gc

import pytest

from relay.protocol.lifecycle import Event
from relay.pump.census import Census
from relay.pump.channel import GAP_CLASSES, NOTABLE_GAP, TURN_CLASSES, Totals
from relay.pump.pump import SWEEP_ALL
from relay.pump.transfer import Transfer
from relay.pump.tunnel import PING_FRAME, Tunnel
from tests.helpers.pump import Call, Rig, frame, rig

PING, PONG = 0x9, 0xA


# Idle.


def test_a_call_without_messages_ends(r: Rig) -> None:
    call = r.call(idle_seconds=10.0)
    r.talk(call)
    r.advance(9.0)
    assert not call.client.closes()
    r.advance(1.0 + SWEEP_ALL)
    assert call.client.closes() == call.bot.closes() == [(1001, "idle")]
    call.client.close_frame(1001)
    call.bot.close_frame(1001)
    call.bot.shut()
    r.ended("idle", 1001, "idle")


@pytest.mark.parametrize("side", ["client", "bot"])
def test_a_message_of_either_side_begins_the_time_anew(r: Rig, side: str) -> None:
    call = r.call(idle_seconds=10.0)
    for _ in range(5):
        getattr(call, side).say(b"still here")
        r.settle()
        r.advance(8.0)
    assert not call.client.closes()
    r.advance(2.0 + SWEEP_ALL)
    assert call.client.closes() == [(1001, "idle")]


def test_control_frames_are_no_messages(r: Rig) -> None:
    call = r.call(idle_seconds=10.0)
    for _ in range(4):
        call.bot.send(frame(b"", opcode=PING))
        call.client.send(frame(b"", opcode=PONG, masked=True))
        r.advance(4.0)
    assert (1001, "idle") in call.client.closes()


def test_without_a_limit_silence_may_last(r: Rig) -> None:
    call = r.call()
    r.advance(1e6)
    r.talk(call)


# Pings.


def pings(call: Call) -> int:
    return sum(each.opcode == PING for each in call.client.frames())


def test_pings_go_to_the_client_alone(r: Rig) -> None:
    call = r.call(ping_seconds=20.0)
    for count in range(4):
        assert pings(call) == count
        r.advance(20.0 + SWEEP_ALL)
    assert call.client.received == PING_FRAME * 4
    assert not call.bot.received
    call.client.send(frame(b"", opcode=PONG, masked=True))
    r.settle()
    assert [each.opcode for each in call.bot.frames()] == [PONG]
    (live,) = r.pump.snapshot()
    assert (live.from_bot.bytes, live.from_bot.messages) == (0, 0)


def test_no_ping_inside_a_frame(r: Rig) -> None:
    call = r.call(ping_seconds=20.0)
    whole = frame(b"x" * 100)
    call.bot.send(whole[:50])
    r.advance(25.0)
    call.bot.send(whole[50:])
    r.settle()
    assert call.client.received == whole
    r.advance(25.0)
    assert call.client.received == whole + PING_FRAME


def test_no_ping_behind_a_close(r: Rig) -> None:
    call = r.call(ping_seconds=1.0, close_timeout=60.0)
    call.bot.close_frame(1000)
    r.settle()
    r.advance(10.0)
    assert pings(call) == 0


# Gaps.


def test_gaps_are_counted_by_their_length(r: Rig) -> None:
    call = r.call()
    for gap in (0.0, 0.02, 0.031, 0.032, 0.063, 0.07, 0.5, 5.0, 500.0):
        r.now += gap
        call.client.say(b"x")
        r.settle()
    (live,) = r.pump.snapshot()
    assert live.from_client.gaps == (2, 1, 0, 1, 0, 0, 0, 2)
    assert live.from_client.largest_gap == 500.0
    assert live.from_bot.gaps == ()


def test_a_class_for_every_gap(r: Rig) -> None:
    r.call()
    transfer = r.pump.tunnels["call"].from_client
    for number in range(2 * GAP_CLASSES):
        transfer.note_gap(NOTABLE_GAP * 2**number)
    assert transfer.gaps == [1] * (GAP_CLASSES - 1) + [GAP_CLASSES + 1]


# Totals.


def totals(r: Rig, most: int = 0) -> Totals:
    """What a census that nothing disturbs ends with."""
    r.pump.census = Census(r.pump, most)
    while True:
        view = r.pump.census.step()
        if view is not None and view.totals is not None:
            assert r.pump.census is None
            return view.totals


def test_totals(r: Rig) -> None:
    first, second = r.call("first"), r.call("second")
    first.client.say(b"12345678")
    second.bot.say(b"1234")
    r.settle()
    r.pump.end("first", Event.STOP)
    seen = totals(r)
    assert (seen.adopted, seen.tunnels, seen.closing) == (2, 2, 1)
    assert (seen.from_client.bytes, seen.from_client.messages) == (14, 1)
    assert (seen.from_bot.bytes, seen.from_bot.messages) == (6, 1)
    first.client.close_frame(1001)
    first.bot.close_frame(1001)
    first.bot.shut()
    r.settle()
    seen = totals(r)
    assert (seen.adopted, seen.tunnels, seen.closing) == (2, 1, 0)
    assert (seen.from_client.bytes, seen.from_client.messages) == (14, 1)
    assert seen.turns == r.pump.turns.count > 0


def test_a_turn_is_measured(r: Rig) -> None:
    times = iter([5.0, 5.25, 6.0, 6.5, 7.0, 7.00005])
    r.pump._clock = lambda: next(times)
    for _ in range(3):
        r.pump.turn(0)
    r.pump._clock = lambda: r.now
    seen = totals(r)
    assert (seen.busy, seen.longest_turn) == (0.75005, 0.5)
    assert seen.turn_classes == (1, *[0] * (TURN_CLASSES - 2), 2)


# Garbage.


def test_a_tunnel_that_is_over_leaves_nothing_for_the_collector(poller: str) -> None:
    """The pump process runs without one, and so does a rig."""
    gc.collect()
    with rig(poller) as r:
        for number, how in enumerate(("stop", "reset", "vanish", "violation") * 5):
            call = r.call(str(number))
            r.talk(call)
            if how == "stop":
                r.pump.end(call.name, Event.STOP)
            elif how == "vanish":
                call.bot.shut()
            elif how == "violation":
                call.client.send(b"\x83\x80\0\0\0\0")
            call.client.reset()
            call.bot.reset()
            r.settle()
        assert not r.pump.tunnels
        assert not [each for each in gc.get_objects() if isinstance(each, Tunnel | Transfer)]
