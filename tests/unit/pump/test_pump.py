"""The pump: many tunnels, no spin, no leak, and no tunnel that stops it."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable

import pytest

from relay.protocol.lifecycle import Event
from relay.pump.channel import Adopt
from relay.pump.pump import Pump
from relay.pump.tunnel import Tunnel
from tests.helpers.pollers import POLLERS, ready
from tests.helpers.pump import Call, Rig, frame, open_descriptors, rig, tcp_pair

LONG = frame(b"L" * 300_000)
LONG_MASKED = frame(b"L" * 300_000, masked=True)


def talk(r: Rig, call: Call, text: bytes = b"hello") -> None:
    before = len(call.bot.payloads())
    call.client.say(text)
    call.bot.say(text)
    r.settle()
    assert call.bot.payloads()[before:] == call.client.payloads()[before:] == [text]


# No spin.

ENDINGS: dict[str, Callable[[Rig, Call], None]] = {
    "nothing": lambda r, c: None,
    "client fin": lambda r, c: c.client.shut(),
    "client reset": lambda r, c: c.client.reset(),
    "bot fin": lambda r, c: c.bot.shut(),
    "bot reset": lambda r, c: c.bot.reset(),
    "client close": lambda r, c: c.client.close_frame(1000),
    "bot close": lambda r, c: c.bot.close_frame(1000),
    "client half a frame": lambda r, c: c.client.send(b"\x82\xfe\x01"),
    "bot half a frame": lambda r, c: c.bot.send(b"\x82\x7e\x01"),
    "client illegal": lambda r, c: c.client.send(b"\x83\x80"),
    "bot illegal": lambda r, c: c.bot.send(b"\x83\x00"),
    "stop": lambda r, c: r.pump.end("call", Event.STOP),
}


@pytest.mark.parametrize(
    ("paused", "kind"),
    [("", "tcp"), ("client", "tcp"), ("bot", "tcp"), ("both", "tcp"), ("both", "unix")],
)
def test_no_spin_after_any_two_endings(paused: str, kind: str, poller: str) -> None:
    for first in ENDINGS:
        for second in ENDINGS:
            with rig(poller) as r:
                call = r.call(kind=kind, buffer=8192)
                if paused in ("client", "both"):
                    call.client.reading = False
                    call.bot.send(LONG)
                if paused in ("bot", "both"):
                    call.bot.reading = False
                    call.client.send(LONG_MASKED)
                for name in (first, second):
                    ENDINGS[name](r, call)
                    r.settle()  # fails if events never end
                    assert r.quiet(), (first, second)
                r.pump.end("call", Event.DRAIN)
                call.client.reading = call.bot.reading = True
                r.settle()
                r.advance(1.5)  # the boundary
                r.advance(5.0)  # the handshake
                assert len(r.reports) == 1, (first, second)
                assert r.pump.tunnels == {}


def test_a_hang_up_of_a_paused_peer_is_one_event(r: Rig) -> None:
    call = r.call(buffer=8192)
    call.bot.reading = False
    call.client.send(LONG_MASKED)
    r.settle()
    call.client.reset()
    turns = r.pump.turns.count
    r.settle()
    assert r.pump.turns.count - turns <= 3
    call.bot.reading = True  # what was held goes on, then the loss is seen
    r.settle()
    assert call.bot.end == "reset"
    assert r.report().cause == "client_gone"


def test_a_hang_up_of_a_peer_that_is_paused_and_owed_reads_nothing(r: Rig) -> None:
    call = r.call(buffer=8192)
    stream = b"".join(frame(index.to_bytes(4, "big") * 2500, masked=True) for index in range(60))
    call.client.reading = call.bot.reading = False
    call.client.send(stream)
    call.bot.send(LONG)
    r.settle()
    call.client.reset()  # first in the batch, and data behind what is held
    call.bot.reading = True
    call.bot.poll()  # there is room again for what is held
    r.settle()
    assert stream.startswith(call.bot.received)
    assert r.report().cause == "client_gone"


def test_a_turn_without_events_does_nothing(r: Rig) -> None:
    call = r.call()
    talk(r, call)
    for _ in range(50):
        assert r.quiet()
        r.turn()
    assert r.pump.take_reports() == []


# Names, numbers, descriptors.


def test_a_name_that_exists_is_refused_and_its_sockets_stay_the_callers(r: Rig) -> None:
    call = r.call()
    (near, far), (other, last) = tcp_pair(), tcp_pair()
    with near, far, other, last:
        with pytest.raises(ValueError, match="exists"):
            r.pump.adopt(Adopt(tunnel="call", session="another"), far, last)
        near.sendall(b"still open")
        assert far.recv(100) == b"still open"
    talk(r, call)


def test_a_name_may_come_again_once_its_tunnel_is_gone(r: Rig) -> None:
    for text in (b"one", b"two"):
        call = r.call()
        talk(r, call, text)
        call.bot.reset()
        call.client.reset()
        r.settle()
    assert len(r.reports) == 2


def test_a_number_given_out_again_meets_no_event_of_the_old_one(r: Rig) -> None:
    doomed = [r.call(f"doomed {index}") for index in range(8)]
    for call in doomed:
        talk(r, call)
    numbers = {
        end.fd for each in r.pump.tunnels.values() for end in (each.downstream, each.upstream)
    }
    for call in doomed:
        call.client.reset()
        call.bot.reset()
    made: list[Call] = []
    listener, caller = socket.socketpair()

    def adopt_more() -> None:
        listener.recv(1)
        made.extend(r.call(f"new {index}") for index in range(8))

    with listener, caller:
        r.pump.watch(listener.fileno(), adopt_more)
        caller.sendall(b"!")  # in the same batch as the ends
        r.turn()
        assert len(made) == 8
        again = {each.downstream.fd for each in r.pump.tunnels.values()}
        assert not {each.name for each in doomed} & set(r.pump.tunnels)
        assert again & numbers, "no number was given out again: this test shows nothing"
        r.settle()
        for call in made:
            talk(r, call)
        r.pump.unwatch(listener.fileno())
    assert sorted(each.tunnel for each in r.reports) == sorted(each.name for each in doomed)


def test_every_descriptor_of_ended_tunnels_is_closed(r: Rig) -> None:
    before = open_descriptors()
    for index, ending in enumerate(ENDINGS.values()):
        call = r.call("call")
        talk(r, call)
        ending(r, call)
        r.settle()
        call.client.reset()
        call.bot.reset()
        r.settle()
        if index == 0:
            assert r.reports
        assert open_descriptors() == before
    assert len(r.reports) == len(ENDINGS)


def test_close_drops_everything_at_once(poller: str) -> None:
    with rig(poller) as r:
        calls = [r.call(f"{index}") for index in range(3)]
        r.pump.close()
        for call in calls:
            call.client.poll()
            call.bot.poll()
            assert (call.client.end, call.bot.end) == ("fin", "fin")
        assert {each.cause for each in r.pump.take_reports()} == {"lost"}


# No tunnel may stop the pump.


@pytest.mark.parametrize("side", ["downstream", "upstream"])
def test_a_socket_closed_behind_the_pumps_back_ends_its_tunnel_alone(r: Rig, side: str) -> None:
    broken, other = r.call("broken"), r.call("other")
    talk(r, broken)
    getattr(r.pump.tunnels["broken"], side).sock.close()
    broken.client.say(b"into the void")
    broken.bot.say(b"into the void")
    r.settle()
    r.pump.end("broken", Event.STOP)
    r.settle()
    r.advance(6.0)  # where the poller can let go of a closed number, the other side gets a Close
    talk(r, other)
    assert [each.tunnel for each in r.reports] == ["broken"]
    assert {each.tunnel.adopt.tunnel for each in r.pump._ends if each} == {"other"}


@pytest.mark.parametrize("moment", ["stop", "time limit", "boundary"])
def test_a_failure_outside_of_readiness_ends_its_tunnel_alone(r: Rig, moment: str) -> None:
    broken, other = r.call("broken", max_seconds=10.0), r.call("other")
    if moment == "boundary":
        broken.client.send(b"\x82")
        r.settle()
        r.pump.end("broken", Event.STOP)
    for end in (r.pump.tunnels["broken"].downstream, r.pump.tunnels["broken"].upstream):
        end.sock.close()
    if moment == "stop":
        r.pump.end("broken", Event.STOP)
    r.advance(11.0)
    assert [each.tunnel for each in r.reports] == ["broken"]
    talk(r, other)


class OddSocket(socket.socket):
    """A socket that fails as no socket should."""

    def setsockopt(self, *_arguments: object) -> None:
        raise RuntimeError("odd")


def test_an_unforeseen_failure_in_a_sweep_ends_its_tunnel_alone(r: Rig) -> None:
    other = r.call("other")
    (client, downstream), (bot, upstream) = tcp_pair(), tcp_pair()
    with client, bot, OddSocket(fileno=upstream.detach()) as odd:
        r.pump.adopt(Adopt(tunnel="odd", session="odd"), downstream, odd)
        client.sendall(b"\x82")
        r.settle()
        r.pump.end("odd", Event.STOP)
        r.advance(1.5)  # the boundary never comes: the bot is to be reset
        assert [(each.tunnel, each.cause) for each in r.reports] == [("odd", "stopped")]
        assert {each.tunnel.adopt.tunnel for each in r.pump._ends if each} == {"other"}
        talk(r, other)


def test_sockets_that_the_poller_does_not_take_end_their_tunnel_alone(r: Rig) -> None:
    other = r.call("other")
    (near, far), (bot, upstream) = tcp_pair(), tcp_pair()
    with near, bot:
        # The same descriptor twice: the second registration fails.
        r.pump.adopt(Adopt(tunnel="odd", session="odd"), far, far)
        r.settle()
        assert [(each.tunnel, each.cause) for each in r.reports] == [("odd", "lost")]
    upstream.close()
    talk(r, other)


def test_a_listening_socket_is_no_peer(r: Rig) -> None:
    near, far = tcp_pair()
    with near, socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        r.pump.adopt(Adopt(tunnel="odd", session="odd"), far, listener)
        with socket.create_connection(address):
            r.settle()
            near.sendall(frame(b"x", masked=True))
            r.settle()
        near.close()
        r.settle()
        assert [each.cause for each in r.reports] == ["bot_lost"]


# Watching, sweeping, telling.


def test_watched_descriptors_are_served_until_unwatched(r: Rig) -> None:
    calls: list[str] = []
    near, far = socket.socketpair()
    with near, far:
        r.pump.watch(near.fileno(), lambda: calls.append("readable"))
        assert r.quiet()
        far.sendall(b"x")
        r.turn()
        r.pump.watch(near.fileno(), lambda: calls.append("writable"), writing=True)
        near.recv(10)
        r.turn()
        r.pump.unwatch(near.fileno())
        far.sendall(b"y")
        r.turn()
    assert calls == ["readable", "writable"]


def test_many_tunnels_do_not_mix(r: Rig) -> None:
    calls = [r.call(f"call {index}", "unix") for index in range(150)]
    for call in calls:
        call.client.say(call.name.encode())
        call.bot.say(call.name.upper().encode())
    r.settle()
    for call in calls:
        assert call.bot.payloads() == [call.name.encode()]
        assert call.client.payloads() == [call.name.upper().encode()]
    assert [each.tunnel for each in r.pump.snapshot()] == [each.name for each in calls]
    assert r.pump.snapshot()[7].session == "session of call 7"


def test_a_turn_waits_no_longer_than_the_next_sweep(poller: str) -> None:
    clock = iter(range(10**6))
    pump = Pump(lambda: float(next(clock)), POLLERS[poller])
    assert not ready(pump, 0)
    pump.turn(0.01)
    assert pump.turns.count == 1
    pump.close()


def test_an_unknown_tunnel_is_ended_in_vain(r: Rig) -> None:
    r.pump.end("nobody", Event.STOP)
    assert r.pump.take_reports() == []


def test_an_ended_tunnel_is_not_kept_in_memory(r: Rig) -> None:
    call = r.call("gone from memory")
    talk(r, call)
    call.client.reset()
    call.bot.reset()
    r.settle()
    gc.collect()
    tunnels = [each for each in gc.get_objects() if isinstance(each, Tunnel)]
    assert not [each for each in tunnels if each.adopt.tunnel == "gone from memory"]
