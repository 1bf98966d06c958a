"""A side that goes away while it is not read, since the other one does not take what it said."""

from __future__ import annotations

import fcntl
import socket
import termios
from collections.abc import Iterator

import pytest

from relay.pump.moving import export
from tests.helpers.daemon import wait_until
from tests.helpers.pump import PAIRS, Call, Peer, Rig, close, frame, rig

CLOSE_TIMEOUT = 5.0
FILLING = 20_000
MESSAGES = [bytes([index]) * 500 for index in range(40)]


def paused(r: Rig, side: str, kind: str = "tcp", tail: bytes = b"") -> Call:
    """A call with one side paused in the midst of `MESSAGES`, all that it sends on its way."""
    small, large = PAIRS[kind](8192), PAIRS[kind](0)
    (client, downstream), (bot, upstream) = (large, small) if side == "client" else (small, large)
    call = Call("call", Peer(client, masked=True), Peer(bot, masked=False))
    r.adopt(call, downstream, upstream, close_timeout=CLOSE_TIMEOUT)
    source, sink = (call.client, call.bot) if side == "client" else (call.bot, call.client)
    sink.reading = False
    tunnel = r.pump.tunnels["call"]
    while not tunnel.from_client.held and not tunnel.from_bot.held:
        source.say(bytes(FILLING))
        r.settle()
    for message in MESSAGES:
        source.say(message)
    source.send(tail)
    r.settle()
    wait_until(lambda: arrived(source), "all at the pump's socket: a reset drops the rest")
    return call


def arrived(source: Peer) -> bool:
    """Nothing waits to be sent on this side."""
    queued = fcntl.ioctl(source.sock, termios.TIOCOUTQ, bytes(4))
    return not source.unsent and (source.sock.family == socket.AF_UNIX or not any(queued))


@pytest.fixture(name="own")
def _own() -> Iterator[Rig]:
    """Pollers over `selectors` don't tell of a hang-up alone."""
    with rig() as made:
        yield made


@pytest.mark.parametrize("side", ["client", "bot"])
def test_the_reset_of_a_paused_side_is_noticed(own: Rig, side: str) -> None:
    call = paused(own, side)
    gone, other = (call.client, call.bot) if side == "client" else (call.bot, call.client)
    gone.reset()
    own.settle()  # fails if the hang-up comes again and again
    own.advance(CLOSE_TIMEOUT * 0.9)
    assert own.reports == []
    own.advance(CLOSE_TIMEOUT * 0.2)
    assert export(own.pump, "call") is None
    own.advance(CLOSE_TIMEOUT + 0.25)  # a Close has been tried, and is not taken either
    cause, code, reason = {
        "client": ("client_gone", 1001, "client gone"),
        "bot": ("bot_lost", 1011, "bot lost"),
    }[side]
    own.ended(cause, code, reason)
    other.reading = True
    own.settle()
    assert other.end == "reset"


def test_over_selectors_it_is_noticed_when_the_other_side_reads() -> None:
    with rig("selectors") as r:
        call = paused(r, "client")
        call.client.reset()
        r.advance(60.0)
        assert r.pump.closing == {}
        call.bot.reading = True
        r.settle()
        call.bot.shut()
        r.ended("client_gone", 1001, "client gone")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("side", ["client", "bot"])
def test_all_that_a_paused_side_said_before_it_went_is_delivered(
    r: Rig, side: str, kind: str
) -> None:
    last = close(4001, "bye", masked=side == "client")
    call = paused(r, side, kind, tail=last)
    gone, other = (call.client, call.bot) if side == "client" else (call.bot, call.client)
    gone.reset()
    r.settle()
    r.advance(CLOSE_TIMEOUT * 0.9)
    other.reading = True
    r.settle()
    assert other.payloads()[-len(MESSAGES) :] == MESSAGES
    assert other.closes() == [(4001, "bye")]
    other.shut()
    r.ended(f"{side}_closed", 4001, "bye")


def test_a_slow_reader_has_its_time_for_each_piece(r: Rig) -> None:
    call = paused(r, "client", tail=close(4001, masked=True))
    call.client.reset()
    for _ in range(100):
        r.advance(CLOSE_TIMEOUT * 0.8)
        call.bot.reading = True
        for _ in range(4):  # it takes what is there, and so what was held, and stalls again
            call.bot.poll()
            r.turn()
        call.bot.reading = False
        if call.bot.received.endswith(close(4001, masked=True)):
            break
    assert call.bot.payloads()[-len(MESSAGES) :] == MESSAGES
    call.bot.reading = True
    call.bot.shut()
    r.ended("client_closed", 4001)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_paused_side_that_has_only_shut_its_own_is_not_hurried(r: Rig, kind: str) -> None:
    call = paused(r, "client", kind)
    call.client.shut()
    r.advance(3600.0)
    assert r.pump.closing == {}
    call.bot.say(b"still heard")
    call.bot.reading = True
    r.settle()
    assert call.bot.payloads()[-len(MESSAGES) :] == MESSAGES
    assert call.bot.closes() == [(1001, "client gone")]
    call.bot.shut()
    r.ended("client_gone", 1001, "client gone")
    assert call.client.payloads() == [b"still heard"]


def test_what_is_owed_to_a_side_that_has_gone_holds_up_nobody(r: Rig) -> None:
    call = paused(r, "client", tail=close(4001, masked=True))
    call.client.reading = False
    call.bot.send(frame(b"L" * 5000) * 2000)
    r.settle()
    assert call.bot.unsent
    call.client.reset()

    def written() -> bool:
        r.settle()
        return not call.bot.unsent

    wait_until(written, "a bot that writes all before it reads would wait for ever")
    call.bot.reading = True
    r.settle()
    assert call.bot.closes() == [(4001, "")]
    call.bot.shut()
    r.ended("client_closed", 4001)


def test_a_reset_that_a_write_has_met_is_still_a_reset(r: Rig) -> None:
    call = r.call()
    r.talk(call)
    call.client.say(b"one more")  # first in the batch: its write meets the reset
    call.bot.reset()
    r.settle()
    assert call.client.closes() == [(1011, "bot lost")]
    call.client.close_frame(1011)
    r.ended("bot_lost", 1011, "bot lost")
