"""One direction: backpressure, bounded memory, figures, what an end waits for."""

from __future__ import annotations

import socket

import pytest

from relay.protocol.lifecycle import Event, Flow
from relay.pump.end import NOTSENT_LOWAT
from relay.pump.poller import HANG_UP, READ, WRITE
from relay.pump.scratch import READ_OF_CALLS, READ_SIZE, READ_WITHIN
from relay.pump.sockets import interest
from relay.pump.transfer import BULK_READS, LEAST_READ, Transfer
from tests.helpers.daemon import wait_until
from tests.helpers.pump import Call, Peer, Rig, frame

# A Close frame at its longest: header, mask, 125 bytes.
CLOSE_SIZE = 6 + 125
PING = 0x9


def fill(r: Rig, call: Call, side: str, count: int = 400) -> list[bytes]:
    """Send more than sockets and pump take, toward a peer that does not read."""
    source, sink = (call.client, call.bot) if side == "client" else (call.bot, call.client)
    sink.reading = False
    data = [index.to_bytes(4, "big") * 3000 for index in range(count)]
    source.send(b"".join(frame(each, masked=source.masked) for each in data))
    r.settle()
    assert source.unsent, "the source is not paused"
    return data


def settled(r: Rig, peer: Peer, data: list[bytes]) -> list[bytes]:
    """What a peer has heard, once it is as much as was sent: TCP may wait for a late ACK."""
    size = sum(len(frame(each)) for each in data)

    def all_came() -> bool:
        r.settle()
        return len(peer.received) >= size + (0 if peer.masked else 4 * len(data))

    wait_until(all_came, "everything")
    return peer.payloads()


def transfer(r: Rig, side: str) -> Transfer:
    tunnel = r.pump.tunnels["call"]
    return tunnel.from_client if side == "client" else tunnel.from_bot


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("side", ["client", "bot"])
def test_a_slow_reader_pauses_its_source_and_nothing_is_lost(r: Rig, side: str, kind: str) -> None:
    call = r.call(kind=kind, buffer=8192)
    data = fill(r, call, side)
    paused = transfer(r, side)
    assert 0 < len(paused.held) <= READ_SIZE
    assert paused.source.registered == HANG_UP
    assert paused.sink.registered == READ | WRITE
    source, sink = (call.client, call.bot) if side == "client" else (call.bot, call.client)
    sink.say(b"the other way")  # is not held up
    r.settle()
    assert source.payloads() == [b"the other way"]
    r.now += 3.0
    sink.reading = True
    assert settled(r, sink, data) == data
    assert (paused.held, paused.source.registered, paused.sink.registered) == (b"", READ, READ)
    assert 3.0 <= paused.held_time <= 3.1
    assert paused.bytes == len(sink.received)
    assert paused.tracker.messages == len(data)


def test_both_directions_may_be_paused(r: Rig) -> None:
    call = r.call(buffer=8192)
    up, down = fill(r, call, "client"), fill(r, call, "bot")
    assert call.client.reading is call.bot.reading is False
    assert r.quiet()
    call.client.reading = call.bot.reading = True
    assert settled(r, call.client, down) == down
    assert settled(r, call.bot, up) == up


@pytest.mark.parametrize("order", [Event.STOP, Event.DRAIN])
def test_what_is_held_stays_bounded_with_a_close_behind_it(r: Rig, order: Event) -> None:
    call = r.call(buffer=8192)
    fill(r, call, "client")
    fill(r, call, "bot")
    r.pump.end("call", order)
    r.settle()
    for side in ("client", "bot"):
        assert len(transfer(r, side).held) <= READ_SIZE + CLOSE_SIZE


def test_the_clock_of_figures_is_the_pumps(r: Rig) -> None:
    call = r.call()
    for gap in (0.02, 0.5, 0.02):
        r.now += gap
        call.client.say(b"x")
        r.settle()
    r.now += 0.3
    (live,) = r.pump.snapshot()
    assert (live.from_client.largest_gap, live.from_client.held_time) == (0.5, 0.0)
    assert live.seconds == pytest.approx(0.84)
    assert live.from_bot.largest_gap == 0.0


def test_time_held_so_far_shows_in_a_snapshot(r: Rig) -> None:
    call = r.call(buffer=8192)
    fill(r, call, "bot")
    r.now += 2.0
    (live,) = r.pump.snapshot()
    assert live.from_bot.held_time == 2.0


def test_the_pumps_sums_have_what_is_held_and_what_was(r: Rig) -> None:
    call, other = r.call(buffer=8192), r.call("other", buffer=8192)
    fill(r, call, "bot")
    r.now += 2.0
    fill(r, other, "bot")
    r.now += 1.0
    assert r.pump.totals().from_bot.held_time == pytest.approx(4.0)
    r.pump.end("call", Event.STOP)
    r.advance(6.0)  # nobody reads, so the tunnel is given up
    assert set(r.pump.tunnels) == {"other"}
    (ended,) = r.reports
    (live,) = r.pump.snapshot()
    held = ended.from_bot.held_time + live.from_bot.held_time
    assert r.pump.totals().from_bot.held_time == pytest.approx(held)
    r.now += 10.0
    assert r.pump.totals().from_bot.held_time == pytest.approx(held + 10.0)
    r.pump._drop(r.pump.tunnels["other"], r.now)  # as after what nobody has foreseen
    r.pump._close_released()
    r.advance(10.0)
    assert r.pump.totals().from_bot.held_time == pytest.approx(held + 10.0)
    assert r.pump.totals().from_client.held_time == 0.0


# What an end waits for, for each state of its two transfers.


@pytest.mark.parametrize("flow", Flow)
@pytest.mark.parametrize("eof", [False, True])
@pytest.mark.parametrize("held", [b"", b"x"])
@pytest.mark.parametrize("owed", [b"", b"y"])
@pytest.mark.parametrize("hung_up", [False, True])
def test_interest(r: Rig, flow: Flow, eof: bool, held: bytes, owed: bytes, hung_up: bool) -> None:
    r.call()
    tunnel = r.pump.tunnels["call"]
    incoming, outgoing = tunnel.from_client, tunnel.from_bot
    incoming.flow, incoming.eof, incoming.held, outgoing.held = flow, eof, held, owed
    incoming.source.hung_up = hung_up
    mask = interest(incoming, outgoing)
    incoming.held = outgoing.held = b""
    reads = not eof and (not held or flow in (Flow.CLOSED, Flow.BROKEN))
    waits = (READ if reads else 0) | (WRITE if owed else 0)
    # Paused, and neither at its end nor known to be gone: only the loss is waited for.
    assert mask == waits or (not waits and mask == (0 if eof or hung_up else HANG_UP))


PINGS = frame(b"", masked=True, opcode=PING)
PIECES = frame(b"", masked=True, opcode=0, final=False)
# What is repeated, what comes before, and how many messages that is.
FLOODS = {
    "messages": (frame(b"", masked=True), b"", 100_000),
    "pings": (PINGS, b"", 0),
    "pieces": (PIECES, frame(b"", masked=True, final=False), 1),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_tiny_frames_make_reads_smaller_and_large_ones_larger_again(r: Rig, kind: str) -> None:
    """A flood of them is passed on whole, but in turns that are short."""
    call = r.call()
    transfer = r.pump.tunnels["call"].from_client
    tiny, first, messages = FLOODS[kind]
    flood = first + tiny * 100_000 + (frame(b"", masked=True, opcode=0) if first else b"")
    call.client.send(flood)
    r.settle()
    assert bytes(call.bot.received) == flood
    assert transfer.room <= LEAST_READ
    assert not transfer.is_plain()
    (live,) = r.pump.snapshot()
    assert live.from_client.messages == messages
    r.now += 1.0  # calls would go on until then
    large = frame(b"x" * 4_000_000, masked=True)
    call.client.send(large)
    r.settle()
    assert bytes(call.bot.received) == flood + large
    assert transfer.room == READ_WITHIN
    several = frame(b"x" * 70_000, masked=True) * 20
    call.client.send(several)
    r.settle()
    assert bytes(call.bot.received) == flood + large + several
    assert transfer.room == READ_SIZE


def test_what_was_bulk_or_a_flood_is_a_call_again(r: Rig) -> None:
    """However many messages there were before: they are not what makes reads smaller."""
    call = r.call()
    transfer = r.pump.tunnels["call"].from_client
    small = frame(b"of a call" * 20, masked=True)
    for burst in (frame(b"", masked=True) * 100_000, frame(b"x" * 20_000, masked=True)):
        call.client.send(burst)
        r.settle()
        assert not transfer.is_plain()
        for _ in range(BULK_READS + 1):
            call.client.send(small)
            r.settle()
        assert transfer.is_plain()
    assert transfer.room > READ_OF_CALLS


def test_who_is_not_known_to_send_much_is_read_in_small_pieces(r: Rig) -> None:
    call = r.call(buffer=1 << 20)
    transfer = r.pump.tunnels["call"].from_client
    call.client.say(b"of a call" * 20)
    r.settle()
    assert transfer.is_plain(), "what comes next would be read as a message"
    before = transfer.bytes
    call.client.send(PINGS * 100_000)
    r.turn()
    assert 0 < transfer.bytes - before <= READ_OF_CALLS


@pytest.mark.skipif(NOTSENT_LOWAT is None, reason="this system has no such option")
def test_the_kernel_holds_much_for_bulk_and_little_for_calls(r: Rig) -> None:
    """What trio sets on every socket stays, until a direction carries bulk."""
    call = r.call()
    tunnel = r.pump.tunnels["call"]
    ends = [tunnel.downstream.sock, tunnel.upstream.sock]

    def allowed() -> list[int]:
        assert NOTSENT_LOWAT is not None
        return [end.getsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT) for end in ends]

    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT, 1 << 14)
    for _ in range(3):
        call.bot.say(b"of a call" * 100)
        r.settle()
    assert allowed() == [1 << 14, 1 << 14]
    call.bot.send(frame(b"x" * 400_000))
    r.settle()
    assert allowed() == [0, 1 << 14]
