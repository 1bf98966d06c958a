"""Reads that look like one whole message: passed on with less work, and with the same verdict."""

from __future__ import annotations

import pytest

from relay.protocol.frame_headers import BINARY, TEXT, first_word
from relay.pump.scratch import MOST_SHAPES, SHAPES, Scratch
from tests.helpers.pump import Call, Peer, Rig, frame

PAYLOAD = b"x" * 320


def sides(call: Call, side: str) -> tuple[Peer, Peer]:
    return (call.client, call.bot) if side == "client" else (call.bot, call.client)


def is_known(r: Rig, data: bytes) -> bool:
    """Whether a binary message of this size is, from the side that masks or does not."""
    return r.pump._scratch._shapes[bool(data[1] & 0x80), BINARY][len(data)] is not None


def known(r: Rig, side: str) -> tuple[Peer, Peer, bytes]:
    """A call whose message's shape is known, and that message."""
    source, sink = sides(r.call(), side)
    for _ in range(3):
        source.say(PAYLOAD)
        r.settle()
    message = frame(PAYLOAD, masked=source.masked)
    assert is_known(r, message)
    assert sink.received == message * 3
    return source, sink, message


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [SHAPES[0], 328, SHAPES[-1], 65_539])
def test_the_first_word_is_that_of_a_frame_of_this_size(size: int, masked: bool) -> None:
    payload = bytes(size - (8 if masked else 4))
    for opcode in (TEXT, BINARY):
        data = frame(payload, masked=masked, opcode=opcode)
        assert len(data) == size
        assert data[:4] == first_word(size, masked=masked, opcode=opcode)


def test_shapes_are_bounded() -> None:
    scratch = Scratch()
    found = [scratch.shapes(size, masked=False) for size in range(10_000)][-1]
    known = [size for size, shape in enumerate(found) if shape is not None]
    assert known == list(SHAPES[:MOST_SHAPES])


@pytest.mark.parametrize("side", ["client", "bot"])
def test_what_only_looks_like_a_message_inside_another_one(r: Rig, side: str) -> None:
    source, sink, message = known(r, side)
    large = frame(message * 3, masked=False)
    if source.masked:  # with a mask of zeros the payload stays as it is
        large = bytes((large[0], large[1] | 0x80)) + large[2:4] + bytes(4) + large[4:]
    header = len(large) - 3 * len(message)
    pieces = [large[:header], message, message, message[:-1], message[-1:]]
    for piece in pieces:
        source.send(piece)
        r.settle()
    assert sink.received == message * 3 + large
    (live,) = r.pump.snapshot()
    figures = live.from_client if side == "client" else live.from_bot
    assert (figures.messages, figures.bytes) == (4, len(sink.received))


@pytest.mark.parametrize("side", ["client", "bot"])
def test_a_shape_that_is_known_may_be_illegal_here(r: Rig, side: str) -> None:
    known(r, side)
    cases = {"mask": 0, "reserved bit": 0x40, "in a message": 0, "too big": 0}
    for name, bits in cases.items():
        call = r.call(name, max_message=100 if name == "too big" else 0)
        source, sink = sides(call, side)
        if name == "in a message":
            source.send(frame(b"", masked=source.masked, final=False))
            r.settle()
        size = len(PAYLOAD) + (0 if name != "mask" else (4 if source.masked else -4))
        data = frame(b"x" * size, masked=source.masked is not (name == "mask"), opcode=2 | bits)
        if name == "mask":  # as the other side may send it
            sink.send(data)
            r.settle()
        assert is_known(r, data)
        source.send(data)
        r.settle()
        code = 1009 if name == "too big" else 1002
        assert [each.code for each in sink.frames() if each.opcode == 8] == [code], name


@pytest.mark.parametrize("opcode", [1, 2])
def test_text_and_binary_pass_alike(r: Rig, opcode: int) -> None:
    source, sink, _message = known(r, "client")
    source.send(frame(PAYLOAD, masked=True, opcode=opcode))
    r.settle()
    assert len(sink.frames()) == 4
    assert r.pump.snapshot()[0].from_client.messages == 4
