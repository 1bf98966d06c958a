"""A live tunnel is moved between pumps at random points of its streams.

Laws
1. Both peers receive exactly what the other one sent, whatever stalls and wherever it is moved.
2. Its figures, its age and its ending are those of a tunnel that has stayed.
3. The value is plain: it survives the encoding that carries it to another process.
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.lifecycle import Event
from relay.pump.moving import Moved, adopt_moved, export
from tests.helpers.daemon import wait_until
from tests.helpers.pollers import POLLERS
from tests.helpers.pump import Call, Rig, frame, rig

# Frames of one side: small ones, one over a read, fragments, control frames, an empty one.
KINDS = {
    "small": lambda masked: frame(b"s" * 320, masked=masked),
    "empty": lambda masked: frame(b"", masked=masked),
    "medium": lambda masked: frame(b"m" * 3000, masked=masked),
    "large": lambda masked: frame(b"l" * 150_000, masked=masked),
    "ping": lambda masked: frame(b"?", masked=masked, opcode=0x9),
    "fragments": lambda masked: (
        frame(b"a" * 200, masked=masked, final=False)
        + frame(b"!", masked=masked, opcode=0x9)
        + frame(b"b" * 100, masked=masked, opcode=0x0)
    ),
}
MESSAGES = {"small": 1, "empty": 1, "medium": 1, "large": 1, "ping": 0, "fragments": 1}

streams = st.lists(st.sampled_from(sorted(KINDS)), max_size=5)
cuts = st.integers(0, 400_000)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["client", "bot"]), cuts),
        st.tuples(st.sampled_from(["stall client", "stall bot", "go on"]), st.just(0)),
        st.tuples(st.just("move"), st.floats(0, 50)),
    ),
    max_size=14,
)


def move(r: Rig, other: Rig, call: Call, pause: float) -> None:
    """Take the tunnel from whichever rig has it to the other one, whose clock is its own."""
    source, target = (r, other) if call.name in r.pump.tunnels else (other, r)
    out = export(source.pump, call.name)
    assert out is not None
    value, downstream, upstream = out
    assert not source.pump.tunnels
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=Moved)
    assert again == value
    target.now += pause
    adopt_moved(target.pump, again, downstream, upstream)


def settle(*rigs: Rig) -> None:
    for each in rigs:
        each.settle()


@pytest.mark.parametrize("poller", POLLERS)
@given(streams, streams, steps)
def test_whatever_is_under_way_arrives_once_and_in_order(
    poller: str, from_client: list[str], from_bot: list[str], script: list[tuple[str, int | float]]
) -> None:
    with rig(poller) as other, rig(poller) as r:
        call = r.call(buffer=8192, max_seconds=1e9)
        other.calls.append(call)
        sent = {
            "client": b"".join(KINDS[kind](True) for kind in from_client),
            "bot": b"".join(KINDS[kind](False) for kind in from_bot),
        }
        left = dict(sent)
        for step, value in script:
            if step in left:
                piece, left[step] = left[step][: int(value)], left[step][int(value) :]
                getattr(call, step).send(piece)
                r.poll()
            elif step == "move":
                move(r, other, call, value)
            else:
                call.client.reading = step != "stall client"
                call.bot.reading = step != "stall bot"
            settle(r, other)
        call.client.reading = call.bot.reading = True
        for side in ("client", "bot"):
            getattr(call, side).send(left[side])

        def arrived() -> bool:
            settle(r, other)
            return (call.bot.received, call.client.received) == tuple(sent.values())

        wait_until(arrived, "everything")  # small buffers make TCP wait for delayed ACKs
        assert bytes(call.bot.received) == sent["client"]
        assert bytes(call.client.received) == sent["bot"]
        ends_as_ever(r if r.pump.tunnels else other, call, from_client, from_bot, sent)


def ends_as_ever(
    here: Rig, call: Call, from_client: list[str], from_bot: list[str], sent: dict[str, bytes]
) -> None:
    here.pump.end(call.name, Event.STOP)
    here.settle()
    assert call.client.frames()[-1].code == call.bot.frames()[-1].code == 1001
    call.client.close_frame(1001)
    call.bot.close_frame(1001)
    call.bot.shut()
    report = here.report()
    assert report.cause == "stopped"
    assert report.from_client.messages == sum(MESSAGES[kind] for kind in from_client)
    assert report.from_bot.messages == sum(MESSAGES[kind] for kind in from_bot)
    # Our own Close is not counted, the peers' are dropped behind it.
    assert (report.from_client.bytes, report.from_bot.bytes) == tuple(map(len, sent.values()))


@pytest.mark.parametrize("poller", POLLERS)
def test_limits_and_figures_go_on(poller: str) -> None:
    with rig(poller) as other, rig(poller) as r:
        other.now = 5.0
        call = r.call(max_seconds=100.0, idle_seconds=60.0, ping_seconds=30.0)
        other.calls.append(call)
        r.talk(call)
        r.now += 10.0
        call.client.say(b"later")
        r.settle()
        r.now += 20.0
        (before,) = r.pump.snapshot()
        move(r, other, call, 0.0)
        (after,) = other.pump.snapshot()
        assert (after.from_client, after.from_bot) == (before.from_client, before.from_bot)
        assert after.seconds == pytest.approx(30.0)
        other.advance(41.0)  # 61 s after the last message
        assert (1001, "idle") in call.client.closes()
        call.client.reset()
        call.bot.reset()
        other.settle()
        assert not other.pump.tunnels


def test_one_that_has_begun_to_end_stays() -> None:
    with rig() as r:
        call = r.call()
        r.pump.end("call", Event.DRAIN)
        assert export(r.pump, "call") is None
        assert export(r.pump, "nobody") is None
        left = r.call("left", watched=True)
        left.bot.sock.close()
        r.settle()
        assert export(r.pump, "left") is None
        assert call.name in r.pump.tunnels
