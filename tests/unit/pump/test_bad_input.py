"""Peers that write as no sensible one does, on real sockets."""

from __future__ import annotations

import pytest

from tests.helpers.pump import Call, Peer, Rig, frame, split

# Every form of a length, fragments with control frames between them, an empty message.
PARTS = [(b"a" * 3, 1, True), (b"b" * 130, 2, False), (b"ping", 9, True), (b"c", 0, False)]
PARTS += [(b"pong", 10, True), (b"", 0, True), (b"", 2, True)]
MESSAGES = 3


def stream(masked: bool) -> tuple[bytes, list[int]]:
    """All `PARTS` on the wire, and where frames end."""
    data, ends = b"", [0]
    for payload, opcode, final in PARTS:
        data += frame(payload, masked=masked, opcode=opcode, final=final)
        ends.append(len(data))
    return data, ends


def sides(call: Call, side: str) -> tuple[Peer, Peer]:
    return (call.client, call.bot) if side == "client" else (call.bot, call.client)


@pytest.mark.parametrize("side", ["client", "bot"])
def test_a_writer_of_one_byte_at_a_time(r: Rig, side: str) -> None:
    call = r.call()
    source, sink = sides(call, side)
    data, _ends = stream(source.masked)
    for index in range(len(data)):
        source.send(data[index : index + 1])
        r.turn()
    r.settle()
    assert sink.received == data
    (live,) = r.pump.snapshot()
    figures = live.from_client if side == "client" else live.from_bot
    assert (figures.bytes, figures.messages) == (len(data), MESSAGES)


@pytest.mark.parametrize("side", ["client", "bot"])
@pytest.mark.parametrize("how", ["reset", "shut"])
def test_an_end_at_every_point_of_a_stream(r: Rig, side: str, how: str) -> None:
    """A Close where a frame has just ended, an abort inside one; what came before has passed."""
    data, ends = stream(side == "client")
    points = {point + near for point in ends for near in (-1, 0, 1, 2, 5, 7)}
    for point in sorted(points & set(range(len(data) + 1))):
        call = r.call(f"at {point}", kind="tcp")
        source, sink = sides(call, side)
        source.send(data[:point])
        r.settle()
        getattr(source, how)()
        r.settle()
        if point in ends:
            ending = split(sink.received)[0][-1]
            assert sink.received[: ending.start] == data[:point]
            assert (ending.opcode, sink.end) == (8, "")
        else:
            # A reset may overtake what was written before it.
            assert data[:point].startswith(sink.received)
            assert sink.end == "reset"
        sink.reset()
        source.reset()
        r.settle()
        report = r.reports.pop()
        gone = "client_gone" if side == "client" else "bot_lost"
        ended = "bot_ended" if side == "bot" and how == "shut" and point in ends else gone
        assert (report.tunnel, report.cause) == (call.name, ended)


@pytest.mark.parametrize("side", ["client", "bot"])
def test_fragments_without_end_with_control_frames_between(r: Rig, side: str) -> None:
    call = r.call()
    source, sink = sides(call, side)
    data = frame(b"", masked=source.masked, final=False)
    piece = frame(b"x", masked=source.masked, opcode=0, final=False)
    data += (piece + frame(b"?", masked=source.masked, opcode=9)) * 20_000
    source.send(data)
    r.settle()
    assert sink.received == data
    source.send(frame(b"", masked=source.masked, opcode=0))
    r.settle()
    (live,) = r.pump.snapshot()
    assert (live.from_client if side == "client" else live.from_bot).messages == 1
