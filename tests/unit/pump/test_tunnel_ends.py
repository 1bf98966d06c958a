"""How tunnels end: every row of the closing table on the wire, with real sockets."""

from __future__ import annotations

import pytest

from relay.protocol.lifecycle import Event
from relay.pump.tunnel import LINGER
from tests.helpers.pump import Rig, close, frame, split

HALF = frame(b"h" * 100)[:50]
HALF_MASKED = frame(b"h" * 100, masked=True)[:50]
# Illegal headers: a reserved opcode toward either side.
ILLEGAL, ILLEGAL_MASKED = b"\x83\x00", b"\x83\x80\0\0\0\0"


# Closes from the sides.


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (4321, "Zoë"), (None, "")])
@pytest.mark.parametrize("side", ["client", "bot"])
def test_a_close_passes_with_code_and_reason(
    r: Rig, kind: str, side: str, code: int | None, reason: str
) -> None:
    call = r.call(kind=kind)
    r.talk(call)
    closer, other = (call.client, call.bot) if side == "client" else (call.bot, call.client)
    closer.close_frame(code, reason)
    closer.say(b"behind the Close")
    r.settle()
    assert other.received.endswith(close(code, reason, masked=closer.masked))
    other.say(b"not yet")  # the other side may finish
    other.close_frame(code)
    r.settle()
    assert closer.payloads()[1:] == [b"not yet"]
    assert len(closer.closes()) == len(other.closes()) == 1
    assert closer.end == other.end == "fin" or side == "bot" or call.bot.end == "fin"
    call.bot.shut()
    r.ended(f"{side}_closed", code or 1005, reason)
    r.settle()
    assert call.client.end == "fin"


def test_closes_that_cross_both_pass(r: Rig) -> None:
    call = r.call()
    call.client.close_frame(4001, "client")
    call.bot.close_frame(4002, "bot")
    r.settle()
    assert (call.bot.closes(), call.client.closes()) == ([(4001, "client")], [(4002, "bot")])
    assert call.bot.end == "fin"
    call.bot.shut()
    report = r.report()
    first = {"client_closed": (4001, "client"), "bot_closed": (4002, "bot")}[report.cause]
    assert (report.code, report.reason) == first


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (None, "")])
def test_a_close_that_the_bot_leaves_unanswered_is_answered_for_it(
    r: Rig, code: int | None, reason: str
) -> None:
    call = r.call()
    r.talk(call)
    call.client.close_frame(code, reason)
    r.settle()
    call.bot.shut()
    r.settle()
    assert call.client.received.endswith(close(code, reason))
    r.ended("client_closed", code or 1005, reason)


def test_a_slow_client_gets_what_was_held_although_all_else_is_over(r: Rig) -> None:
    early = frame(b"e" * 60_000) + close(4002, "bot")
    call = r.call(buffer=4096, from_bot=early)
    call.client.reading = False
    call.client.close_frame(4001)  # it crosses the bot's
    call.bot.shut()
    r.settle()
    assert call.bot.closes() == [(4001, "")]
    assert not r.reports
    call.client.reading = True
    r.settle()
    assert call.client.received == early
    r.ended("bot_closed", 4002, "bot")


# A side ends without a Close.


def test_the_bots_fin_is_a_normal_end_for_the_client(r: Rig) -> None:
    call = r.call()
    r.talk(call)
    call.bot.shut()
    r.settle()
    assert call.client.closes() == [(1000, "")]
    call.client.close_frame(1000)
    r.ended("bot_ended", 1000)
    r.settle()
    assert call.client.end == "fin"


def test_the_bots_fin_inside_a_frame_resets_the_client(r: Rig) -> None:
    call = r.call()
    r.talk(call)
    call.bot.send(HALF)
    call.bot.shut()
    r.settle()
    assert call.client.end == "reset"
    assert not [each for each in split(call.client.received)[0] if each.opcode == 8]
    r.ended("bot_lost", 1011, "bot lost")


def test_the_bots_reset_is_an_error_for_the_client(r: Rig) -> None:
    call = r.call()
    r.talk(call)
    call.bot.reset()
    r.settle()
    assert call.client.closes() == [(1011, "bot lost")]
    call.client.close_frame(1011)
    r.ended("bot_lost", 1011, "bot lost")


@pytest.mark.parametrize("how", ["shut", "reset"])
@pytest.mark.parametrize("answers", [True, False])
def test_a_client_that_is_gone_is_told_to_the_bot(r: Rig, how: str, answers: bool) -> None:
    call = r.call()
    r.talk(call)
    getattr(call.client, how)()
    r.settle()
    assert call.bot.closes() == [(1001, "client gone")]
    assert not r.reports, "the instance is free only when the bot's side has ended"
    call.bot.say(b"to nobody")
    if answers:
        call.bot.close_frame(1001)
        r.settle()
        assert call.bot.end == "fin"
    call.bot.shut()
    r.ended("client_gone", 1001, "client gone")


@pytest.mark.parametrize("how", ["shut", "reset"])
def test_a_client_lost_inside_a_frame_resets_the_bot(r: Rig, how: str) -> None:
    call = r.call()
    r.talk(call)
    call.client.send(HALF_MASKED)
    r.settle()
    getattr(call.client, how)()
    r.settle()
    assert call.bot.end == "reset"
    r.ended("client_gone", 1001, "client gone")


def test_a_close_sent_just_before_a_reset_counts_though_a_write_met_the_reset(r: Rig) -> None:
    call = r.call()
    r.talk(call)
    call.client.say(b"one more")  # first in the batch: its write meets the reset
    call.bot.close_frame(4005, "last words")
    call.bot.reset()
    r.settle()
    assert call.client.closes() == [(4005, "last words")]
    call.client.close_frame(4005)
    r.ended("bot_closed", 4005, "last words")


# Orders for the whole tunnel, and illegal frames.

ORDERS = {
    Event.STOP: ("stopped", 1001, "stopped"),
    Event.DRAIN: ("drain", 1012, "service restart"),
    Event.IDLE: ("idle", 1001, "idle"),
    Event.SESSION_ENDED: ("session_ended", 1001, "session ended"),
}


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("order", ORDERS)
def test_an_order_closes_both_sides(r: Rig, order: Event, kind: str) -> None:
    call = r.call(kind=kind)
    r.talk(call)
    cause, code, reason = ORDERS[order]
    r.pump.end("call", order)
    r.pump.end("call", Event.DRAIN)  # the first order decides
    r.settle()
    for peer in (call.client, call.bot):
        assert peer.closes() == [(code, reason)]
        peer.say(b"dropped")
        peer.close_frame(code)
    r.settle()
    assert call.client.payloads() == [b"there"]
    assert call.bot.payloads() == [b"hello"]
    assert call.bot.end == "fin"
    call.bot.shut()
    r.ended(cause, code, reason)
    assert (r.reports[0].from_client.messages, r.reports[0].from_bot.messages) == (1, 1)


def test_the_time_limit_closes_both_sides(r: Rig) -> None:
    call = r.call(max_seconds=60.0)
    r.talk(call)
    r.advance(59.0)
    assert r.pump.closing == {}
    r.advance(2.0)
    for peer in (call.client, call.bot):
        assert peer.closes() == [(1001, "time limit")]
        peer.close_frame(1001)
    call.bot.shut()
    r.ended("time_limit", 1001, "time limit")
    assert r.reports[0].seconds == 61.0


@pytest.mark.parametrize("side", ["client", "bot"])
def test_a_protocol_error_closes_both_sides(r: Rig, side: str) -> None:
    call = r.call()
    r.talk(call)
    bad = call.client if side == "client" else call.bot
    bad.say(b"good")
    bad.send(ILLEGAL_MASKED if bad.masked else ILLEGAL)
    bad.say(b"dropped")
    r.settle()
    for peer in (call.client, call.bot):
        assert peer.closes() == [(1002, "protocol error")]
        peer.close_frame(1002)
        peer.shut()
    r.ended(f"{side}_protocol_error", 1002, "protocol error")


# After an illegal frame the sides' own Close is not looked at (RFC 6455 section 7.1.7).


def test_a_client_that_broke_the_protocol_gets_a_fin_behind_its_close(r: Rig) -> None:
    call = r.call()
    call.client.send(ILLEGAL_MASKED)
    call.bot.close_frame(1002)
    call.bot.shut()
    r.settle()
    assert call.client.closes() == [(1002, "protocol error")]
    assert call.client.end == "fin"
    assert not r.reports
    call.client.close_frame(1002)  # as a library does, which then waits for nothing else
    call.client.shut()
    r.ended("client_protocol_error", 1002, "protocol error")


def test_the_bot_is_free_although_a_client_that_broke_the_protocol_stays(r: Rig) -> None:
    call = r.call(close_timeout=5.0)
    call.client.send(ILLEGAL_MASKED)
    call.bot.close_frame(1002)
    call.bot.shut()
    r.settle()
    r.advance(LINGER * 0.9)
    call.client.say(b"dropped")
    r.settle()
    assert not r.reports
    r.advance(LINGER * 0.1 + 0.25)
    r.ended("client_protocol_error", 1002, "protocol error")


def test_a_client_that_leaves_its_close_untaken_has_longer(r: Rig) -> None:
    early = frame(b"e" * 60_000)
    call = r.call(buffer=4096, close_timeout=5.0, from_bot=early)
    call.client.reading = False
    call.client.send(ILLEGAL_MASKED)
    call.bot.shut()
    r.settle()
    r.advance(LINGER * 2)
    assert not r.reports
    call.client.reading = True
    r.settle()
    assert call.client.received == early + close(1002, "protocol error")
    r.advance(0.25)
    r.ended("client_protocol_error", 1002, "protocol error")


def test_a_bot_that_broke_the_protocol_is_free_when_it_has_closed(r: Rig) -> None:
    call = r.call()
    call.bot.send(ILLEGAL)
    r.settle()
    assert call.bot.closes() == [(1002, "protocol error")]
    assert call.bot.end == "fin"  # also for one that waits for the other side to close
    call.client.close_frame(1002)
    r.settle()
    assert not r.reports, "the instance is free only when the bot's side has ended"
    call.bot.close_frame(1002)
    call.bot.shut()
    r.ended("bot_protocol_error", 1002, "protocol error")


@pytest.mark.parametrize("side", ["client", "bot"])
def test_a_message_too_big_closes_both_sides(r: Rig, side: str) -> None:
    call = r.call(max_message=100)
    r.talk(call)
    big = call.client if side == "client" else call.bot
    big.send(frame(b"x" * 60, masked=big.masked, final=False))
    big.send(frame(b"y" * 41, masked=big.masked, opcode=0))
    r.settle()
    other = call.bot if side == "client" else call.client
    assert other.payloads()[1:] == [b"x" * 60]
    for peer in (call.client, call.bot):
        assert peer.closes() == [(1009, "message too big")]
        peer.shut()
    r.ended(f"{side}_message_too_big", 1009, "message too big")


def test_an_illegal_header_begun_inside_the_last_frame_resets(r: Rig) -> None:
    call = r.call()
    call.client.send(b"\x82")
    r.settle()
    call.client.send(b"\x05plain")  # unmasked: the first byte has passed, no Close fits
    r.settle()
    assert call.bot.end == "reset"
    assert call.client.closes() in ([], [(1002, "protocol error")])
    r.ended("client_protocol_error", 1002, "protocol error")
