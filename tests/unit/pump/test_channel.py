"""Messages with descriptors between the control process and a pump."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from relay.pump import channel
from relay.pump.channel import (
    MAX_MESSAGE,
    MAX_NAME,
    Adopt,
    Ask,
    End,
    EndAll,
    Figures,
    Finished,
    Live,
    Quit,
    Ready,
    Recorded,
)
from tests.helpers.pump import open_descriptors

ADOPT = Adopt(
    "t", "s", b"101", b"\x82\0", b"\0", rsv=64, max_message=9, max_seconds=7.5, close_timeout=1.25
)
TO_PUMP: list[channel.ToPump] = [
    ADOPT,
    End("t", "stop"),
    End("t", "drain"),
    End("t", "session ended"),
    EndAll(),
    Recorded(["a", "b"]),
    Ask(),
    Quit(),
]
FIGURES = Figures(2**40, 2**33, 0.25, 1.5)
TO_CONTROL: list[channel.ToControl] = [
    Live("t", "s", 3.5, FIGURES, Figures()),
    Finished("t", "s", "client_closed", 1000, "Zoë", 3.5, FIGURES, FIGURES),
    Finished("t", "s", "bot_lost", None, "", 0.0, Figures(), Figures()),
    Ready(3),
]

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(name="pair")
def _pair() -> Iterator[Pair]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


@pytest.mark.parametrize("message", TO_PUMP, ids=lambda each: type(each).__name__)
def test_messages_to_a_pump_arrive_as_they_were(pair: Pair, message: channel.ToPump) -> None:
    channel.send(pair[0], message)
    payload, fds = channel.receive(pair[1])
    assert (channel.decode_to_pump(payload), fds) == (message, [])


@pytest.mark.parametrize("message", TO_CONTROL, ids=lambda each: type(each).__name__)
def test_messages_to_control_arrive_as_they_were(pair: Pair, message: channel.ToControl) -> None:
    channel.send(pair[0], message)
    payload, _fds = channel.receive(pair[1])
    assert channel.decode_to_control(payload) == message


def test_messages_keep_their_bounds_and_order(pair: Pair) -> None:
    for message in TO_PUMP:
        channel.send(pair[0], message)
    got = [channel.decode_to_pump(channel.receive(pair[1])[0]) for _ in TO_PUMP]
    assert got == TO_PUMP
    with pytest.raises(BlockingIOError):
        channel.receive(pair[1])


def test_descriptors_ride_along_and_children_do_not_inherit_them(pair: Pair) -> None:
    first, second = os.pipe()
    channel.send(pair[0], ADOPT, (first, second))
    os.close(first)
    payload, fds = channel.receive(pair[1])
    assert channel.decode_to_pump(payload) == ADOPT
    assert len(fds) == 2
    assert not any(os.get_inheritable(fd) for fd in fds)
    os.write(second, b"through")
    assert os.read(fds[0], 100) == b"through"
    for fd in (second, *fds):
        os.close(fd)


def test_the_longest_message_fits_and_a_longer_one_is_refused(pair: Pair) -> None:
    room = MAX_MESSAGE - len(msgspec.msgpack.encode(Adopt("t", "s", b"x" * 70_000))) + 70_000
    longest = Adopt("t", "s", b"x" * room)
    channel.send(pair[0], longest)
    payload, _fds = channel.receive(pair[1])
    assert len(payload) == MAX_MESSAGE
    assert channel.decode_to_pump(payload) == longest
    with pytest.raises(ValueError, match=f"message of {MAX_MESSAGE + 1} bytes, at most"):
        channel.send(pair[0], Adopt("t", "s", b"x" * (room + 1)))
    with pytest.raises(BlockingIOError):
        channel.receive(pair[1])


def test_early_bytes_of_both_sides_fit_with_a_long_preface() -> None:
    names = "n" * MAX_NAME
    early = b"e" * channel.MAX_EARLY
    message = Adopt(names, names, b"p" * 32 * 1024, early, early)
    assert len(msgspec.msgpack.encode(message)) <= MAX_MESSAGE


def send_raw(sock: socket.socket, payload: bytes, fds: list[int]) -> None:
    sock.sendmsg([payload], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


@pytest.mark.parametrize(("payload", "count"), [(b"x", 3), (b"x", 9), (b"", 1), (b"", 2)])
def test_descriptors_beyond_what_a_message_may_carry_are_closed(
    pair: Pair, payload: bytes, count: int
) -> None:
    before = open_descriptors()
    send_raw(pair[0], payload, [pair[0].fileno()] * count)
    assert channel.receive(pair[1]) == (payload, [])
    assert open_descriptors() == before


def test_a_peer_that_is_gone_is_end_of_stream_then_an_error(pair: Pair) -> None:
    pair[0].close()
    assert channel.receive(pair[1]) == (b"", [])
    with pytest.raises(OSError):
        channel.send(pair[1], Ready())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x00" * 10,
        msgspec.msgpack.encode(ADOPT)[:-1],
        msgspec.msgpack.encode(ADOPT) + b"\0",
        msgspec.msgpack.encode({"type": "Other"}),
        msgspec.msgpack.encode({"type": "End", "tunnel": "t", "why": "other"}),
        msgspec.msgpack.encode({"type": "Adopt", "tunnel": 1, "session": "s"}),
        msgspec.msgpack.encode(Adopt("n" * (MAX_NAME + 1), "s")),
        msgspec.msgpack.encode(Ready()),
    ],
)
def test_anything_else_is_a_decode_error(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        channel.decode_to_pump(payload)
    if payload != msgspec.msgpack.encode(Ready()):
        with pytest.raises(msgspec.DecodeError):
            channel.decode_to_control(payload)
