"""Two ways to relay, one result: each is the other's oracle.

For any script both ways deliver the same messages to each side, the same pings and
pongs between them, and end with the same cause and the same Close frames.

Where they differ by design, and so what the scripts leave out:

- The `frames` relay writes frames anew: messages are compared when they are whole.
- It looks at text and at Close frames: here text is UTF-8, and Close codes are legal.
- A source that ends inside a frame leaves the tunnel's sink inside one, which is reset;
  the `frames` relay has held the piece back and writes the Close. There only the
  messages and the cause are compared, and no order comes to a side inside a frame.
- It has no reserved bits to pass; in both ways none is negotiated here.
- How much is read ahead of a reader that has stalled: who stalls goes on before
  anything ends, so that all that was sent has arrived by then.
- An illegal header comes whole: the tunnel has passed on what came of it before, and
  wsproto judges it only then.
"""

from __future__ import annotations

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from relay.protocol.lifecycle import Event
from tests.helpers.frames import cut_up
from tests.helpers.frames import frame as any_frame
from tests.helpers.oracle import (
    BINARY,
    CLOSE,
    CLOSE_TIMEOUT,
    CONTINUATION,
    MAX_MESSAGE,
    PING,
    PONG,
    TEXT,
    TIME_LIMIT,
    Leave,
    Order,
    SayClose,
    Script,
    Send,
    Stall,
    Step,
    Wait,
    play,
    through_frames,
    through_pump,
)
from tests.helpers.pump import MASK, frame

SIDES = ("client", "bot")
SIZES = (0, 1, 125, 126, 320, 65_535, 65_536, 200_000)
TEXTS = st.one_of(
    st.text(max_size=20), st.sampled_from(["", "é" * 70, "😀" * 16_400, "x" * 65_535 + "é"])
).map(str.encode)
BLOCKS = st.sampled_from(SIZES).map(lambda size: bytes(range(256)) * (size // 256 + 1))
CODES = st.sampled_from([None, 1000, 1001, 1011, 1014, 3000, 4999])
REASONS = st.text(max_size=40).map(lambda text: text.encode()[:123].decode(errors="ignore"))
ORDERS = st.sampled_from([Event.STOP, Event.DRAIN, Event.IDLE])
WAITS = st.sampled_from([0.5, 1.5, CLOSE_TIMEOUT + 1, TIME_LIMIT + 1])


class Author:
    """Writes a script that a peer could play; see the module for what it leaves out."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.steps: list[Step] = []
        self.over: set[str] = set()  # sides that say no more
        self.open: dict[str, int] = {}  # messages under way, with their size so far
        self.stalled: set[str] = set()

    def frame(self, side: str, opcode: int, payload: bytes, final: bool = True) -> bytes:
        return frame(payload, masked=side == "client", opcode=opcode, final=final)

    def message(self, side: str) -> bytes:
        """A message in fragments with control frames between; perhaps it is left open."""
        draw = self.draw
        before = self.open.pop(side, 0)
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        payload = draw(TEXTS if opcode == TEXT else BLOCKS)[: MAX_MESSAGE - before]
        if before:
            opcode, payload = CONTINUATION, b"more"  # ASCII fits into both
        parts = cut_up(payload, draw(st.lists(st.integers(0, 300), max_size=2))) or [b""]
        leave_open = draw(st.integers(0, 9)) == 0
        data = b""
        for index, part in enumerate(parts):
            if draw(st.booleans()):
                data += self.control(side)
            final = index == len(parts) - 1 and not leave_open
            data += self.frame(side, CONTINUATION if index else opcode, part, final)
        if leave_open:
            self.open[side] = before + len(payload) + 1
        return data

    def control(self, side: str) -> bytes:
        opcode = self.draw(st.sampled_from([PING, PONG]))
        return self.frame(side, opcode, self.draw(st.binary(max_size=10)))

    def send(self, side: str, data: bytes) -> None:
        cuts = self.draw(st.lists(st.integers(0, len(data)), max_size=3))
        self.steps.append(Send(side, tuple(cut_up(data, cuts))))

    def resume(self) -> None:
        """What ends anything meets no side that has stalled."""
        self.steps += [Stall(side, True) for side in sorted(self.stalled)]
        self.stalled.clear()

    def illegal(self, side: str) -> bytes:
        mask = MASK if side == "client" else None
        wrong = None if side == "client" else MASK
        kinds = {
            "opcode": any_frame(0x3, mask=mask),
            "reserved bit": any_frame(BINARY, b"x", rsv=0x20, mask=mask),
            "mask": any_frame(BINARY, b"x", mask=wrong),
            "long form": any_frame(BINARY, b"x", marker=126, mask=mask),
            "longer form": any_frame(BINARY, b"x", marker=127, mask=mask),
            "63 bits": any_frame(BINARY, marker=127, length=2**63, mask=mask),
            "fragmented ping": any_frame(PING, b"x", fin=False, mask=mask),
            "long ping": any_frame(PING, b"x" * 126, mask=mask),
            "close of one byte": any_frame(CLOSE, b"x", mask=mask),
            "too big": any_frame(
                CONTINUATION if side in self.open else BINARY, length=MAX_MESSAGE + 1, mask=mask
            ),
            "sequence": any_frame(TEXT if side in self.open else CONTINUATION, b"x", mask=mask),
        }
        return kinds[self.draw(st.sampled_from(sorted(kinds)))]

    def leave(self, side: str, kind: str) -> None:
        half = b""
        if self.draw(st.integers(0, 3)) == 0:
            whole = self.frame(side, PING, b"never whole")
            half = whole[: self.draw(st.integers(1, len(whole) - 1))]
        how = self.draw(st.sampled_from(["shut", "reset"] if kind == "tcp" else ["shut"]))
        self.steps.append(Leave(side, how, half))

    def act(self, side: str, kind: str) -> None:
        """Any step of one side."""
        draw = self.draw
        what = draw(st.sampled_from(["say"] * 6 + ["control", "stall", "close", "leave", "bad"]))
        if what == "stall":
            if not self.over:
                self.stalled ^= {side}
                self.steps.append(Stall(side, side not in self.stalled))
        elif side in self.over:
            self.send(side, self.frame(side, TEXT, b"out of turn"))
        elif what == "say":
            self.send(side, self.message(side))
        elif what == "control":
            self.send(side, self.control(side))
        else:
            self.resume()
            self.over.add(side)
            if what == "close":
                self.steps.append(SayClose(side, *draw(closes())))
            elif what == "leave":
                self.leave(side, kind)
            else:
                self.steps.append(Send(side, (self.illegal(side),)))


@st.composite
def closes(draw: st.DrawFn) -> tuple[int | None, str]:
    code = draw(CODES)
    return code, draw(REASONS) if code else ""


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    author = Author(draw)
    kind = draw(st.sampled_from(["tcp", "unix"]))
    early = {side: author.message(side) for side in SIDES if draw(st.booleans())}
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.integers(0, 7)):
            author.act(draw(st.sampled_from(SIDES)), kind)
        else:
            author.resume()
            author.steps.append(draw(st.one_of(ORDERS.map(Order), WAITS.map(Wait))))
    watched = draw(st.booleans())
    return Script(tuple(author.steps), kind, early, watched, draw(st.booleans()))


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(scripts())
@example(Script((SayClose("bot", 1014, "a code that wsproto does not name"),)))
def test_both_ways_have_the_same_result(script: Script) -> None:
    expected, found = play(script, through_pump), play(script, through_frames)
    event(expected.cause)
    if script.torn:
        assert (found.cause, found.messages) == (expected.cause, expected.messages)
        assert found.client.heard == expected.client.heard
        assert found.bot.heard == expected.bot.heard
    else:
        assert found == expected
