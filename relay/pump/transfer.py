"""One direction of a tunnel: read the source, pass what is legal, hold what the sink can't take.

Laws
1. Conservation and order: what was read is what was written, held, or dropped
   because a Close had passed, in this order.
2. Bounded: a transfer holds at most one read (`READ_SIZE`) and one Close, and does
   not read while it holds something for an open sink.
3. A single writer: only the transfer writes to its sink.

Kernel facts used here: the poller is level-triggered, so one `recv` and one `send` per
wake-up are the whole cost of a message; a socket registered with no interest reports a
hang-up nevertheless, again and again: once is what a paused one waits for.
"""

from __future__ import annotations

__all__ = ["Transfer"]

from typing import TYPE_CHECKING

from relay.protocol.lifecycle import Flow, Side
from relay.pump.channel import GAP_CLASSES, NOTABLE_GAP, Figures, gap_class
from relay.pump.poller import READ
from relay.pump.scratch import (
    LONGEST,
    READ_OF_CALLS,
    READ_SIZE,
    READ_WITHIN,
    Scratch,
    Shapes,
)

if TYPE_CHECKING:
    from relay.protocol.frames import FrameTracker
    from relay.pump.end import End
    from relay.pump.sums import Sums

# A large read with more frames than this makes the next one smaller, down to the second
# number: some 0.4 ms, so that a flood of tiny frames delays no call for long.
MANY_FRAMES = 1024
LEAST_READ = 8 * 1024
# A source that gave as much in one of so many reads is bulk, and served behind the others: no
# call sends as much, and the end of a large message may be small.
BULK_READS = 8

OPEN, CUTTING = Flow.OPEN, Flow.CUTTING
# Of a transfer that has read nothing yet.
NO_SHAPES: Shapes = []


class Transfer:
    """Moves the bytes of one direction and counts them.

    Attributes:
        flow: mirrors the lifecycle state, so that the hot path reads one field.
        eof: the source has ended.
        held: bytes read that the sink could not take yet.
        shapes: of reads that are one whole message, as far as they are known.
        sums: of its direction in the pump, to which it adds what it counts.
        bytes: payload and header bytes passed on; messages are counted by the tracker.
        largest_gap, held_time, longest_hold: seconds.
        gaps: how many reads came so long after the one before, by class.
    """

    __slots__ = (
        "bulk",
        "bytes",
        "eof",
        "flow",
        "gaps",
        "held",
        "held_since",
        "held_time",
        "largest_gap",
        "last_read",
        "longest_hold",
        "receive",
        "room",
        "send",
        "shapes",
        "sink",
        "source",
        "sums",
        "tracker",
        "tunnel",
        "usual_gap",
    )
    __deletable__ = ("sink", "source", "tunnel")

    def __init__(
        self, source: End, sink: End, tracker: FrameTracker, sums: Sums, now: float
    ) -> None:
        self.sums = sums
        self.source = source
        self.sink = sink
        self.tunnel = source.tunnel
        self.tracker = tracker
        self.shapes = NO_SHAPES
        self.receive = source.sock.recv_into
        self.send = sink.sock.send
        self.flow = Flow.OPEN
        self.eof = False
        self.held = b""
        self.held_since = 0.0
        self.held_time = 0.0
        self.bytes = 0
        self.longest_hold = 0.0
        self.largest_gap = 0.0
        self.usual_gap = 0.0  # up to here a gap is neither the largest nor notable
        self.gaps: list[int] | None = None  # made when there is one: most calls have none at first
        self.bulk = 0  # reads in which it is served as such
        self.room = READ_OF_CALLS  # of the next read
        self.last_read = now
        source.incoming = self
        sink.outgoing = self

    def pull(self, scratch: Scratch, most: int, now: float) -> None:
        """Read the source, in the midst of a long message twice; pass on what may pass."""
        while True:
            try:
                size = self.receive(scratch.data, min(self.room, most))
            except OSError as error:
                self.unread(error, now)
                return
            self.took(scratch, size, now)
            most -= size
            if size != READ_WITHIN or most < size or not self.source.registered & READ:
                return

    def unread(self, error: OSError, now: float) -> None:
        """A read failed, or found nothing."""
        if not isinstance(error, BlockingIOError):
            self.tunnel.lost(self.source, now)

    def took(self, scratch: Scratch, size: int, now: float) -> None:
        """Pass on what may pass of a read that has filled `size` bytes of the scratch."""
        if size:
            if size < LONGEST:
                masked = self.source.side is Side.DOWNSTREAM
                self.shapes = scratch.shapes(size, masked=masked)
            self.take(scratch.data, scratch.view, size, now)
        else:
            self.tunnel.source_ended(self, now)

    def is_plain(self) -> bool:
        """Whether the next read may be looked up among the shapes and passed on by the pump."""
        if self.bulk or self.room < READ_OF_CALLS or not self.shapes:
            return False
        return self.flow is OPEN and self.tracker.plain

    def take(self, data: bytes | bytearray, view: memoryview, size: int, now: float) -> None:
        """Pass on the first `size` bytes of `data` (`view` shows the same memory)."""
        gap = now - self.last_read
        self.last_read = now
        if gap > self.usual_gap:
            self.note_gap(gap)
        tracker = self.tracker
        messages, frames = tracker.messages, tracker.frames
        if self.flow is OPEN:
            passed = tracker.feed(data, size)
        elif self.flow is CUTTING:
            passed = tracker.cut(data, size)
        else:
            self._drop(data, size, now)
            return
        self.sums.messages += tracker.messages - messages
        if passed:
            self.bytes += passed
            self.sums.bytes += passed
            try:
                sent = self.send(view[:passed])
            except OSError as error:
                sent = self.unsent(error, passed, now)
            if sent != passed:
                self.hold(bytes(view[sent:passed]), now)
        if size >= LEAST_READ:
            self._pace(tracker.frames - frames)
        elif self.bulk:
            self._slow_down()
        if passed != size or tracker.closed or self.flow is CUTTING:
            rest = data[passed:size]
            self.tunnel.marked(self, now)
            if rest and tracker.violation is None and not tracker.closed:
                self._drop(rest, len(rest), now)

    def unsent(self, error: OSError, size: int, now: float) -> int:
        """A write of `size` bytes failed; how many of them need no care any more."""
        if isinstance(error, BlockingIOError):
            return 0
        self._refused(error, now)
        return size

    def _pace(self, frames: int) -> None:
        """After a large read: this is bulk; choose the size of the next by the frames in it."""
        if not self.bulk:
            self.sink.send_ahead()
        self.bulk = BULK_READS
        room, limit = self.room, READ_SIZE if frames > 1 else READ_WITHIN
        if frames > MANY_FRAMES:
            self.room = max(room // 2, LEAST_READ)
        elif not frames or (room < limit and frames < MANY_FRAMES // 4):
            self.room = min(room * 2, limit)

    def _slow_down(self) -> None:
        """After a small read of what was bulk: some of them, and this is a call again."""
        self.bulk -= 1
        if not self.bulk:
            self.room = max(self.room, READ_OF_CALLS)

    def note_gap(self, gap: float) -> None:
        if gap > self.largest_gap:
            self.largest_gap = gap
            self.usual_gap = min(gap, NOTABLE_GAP)
        if gap >= NOTABLE_GAP:
            if self.gaps is None:
                self.gaps = [0] * GAP_CLASSES
            number = gap_class(gap)
            self.gaps[number] += 1
            self.sums.gaps[number] += 1

    def _drop(self, data: bytes | bytearray, size: int, now: float) -> None:
        """Follow what comes behind the last Close written, only to see the answering one."""
        tracker = self.tracker
        if tracker.violation is None and not tracker.closed:
            messages = tracker.messages
            tracker.feed(data, size)
            tracker.messages = messages  # figures tell what was passed on
            self.tunnel.dropped(self, now)

    def hold(self, data: bytes, now: float) -> None:
        """Keep bytes that the sink could not take; reading stops until they are gone."""
        if not self.held:
            self.held_since = now
            self.sums.hold(now)
        self.held += data
        self.tunnel.update_interest()

    def append(self, data: bytes, now: float) -> None:
        """Follow bytes that come before the first read, and hold them behind what is held."""
        messages = self.tracker.messages
        passed = self.tracker.feed(data, len(data))
        self.bytes += passed
        self.sums.bytes += passed
        self.sums.messages += self.tracker.messages - messages
        self.hold(data[:passed], now)

    def write(self, data: bytes, now: float) -> None:
        """Add bytes of our own: an upgrade response or a Close."""
        if not self.held:
            try:
                data = data[self.send(data) :]
            except BlockingIOError:
                pass
            except OSError as error:
                self._refused(error, now)
                return
        if data:
            self.hold(data, now)

    def flush(self, now: float) -> None:
        """The sink may take more: write what is held."""
        try:
            sent = self.send(self.held)
        except BlockingIOError:
            return
        except OSError as error:
            self._refused(error, now)
            return
        self.held = self.held[sent:]
        if not self.held:
            self._count_hold(now)
            self.tunnel.flushed(now)

    def _refused(self, error: OSError, now: float) -> None:
        """A write failed. A reset is told once, and then looks like a FIN: it is remembered."""
        if isinstance(error, ConnectionResetError):
            self.sink.reset = True
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            self.tunnel.hung_up(self.sink, now)
        else:
            self.tunnel.lost(self.sink, now)

    def discard(self, now: float) -> None:
        """Nothing can be written to the sink any more."""
        if self.held:
            self.held = b""
            self._count_hold(now)

    def _count_hold(self, now: float) -> None:
        hold = now - self.held_since
        self.held_time += hold
        self.sums.let_go(self.held_since, now)
        if hold > self.longest_hold:
            self.longest_hold = hold

    def figures(self, now: float) -> Figures:
        """What it has carried so far."""
        hold = now - self.held_since if self.held else 0.0
        return Figures(
            bytes=self.bytes,
            messages=self.tracker.messages,
            largest_gap=round(self.largest_gap, 6),
            gaps=tuple(self.gaps or ()),
            held_time=round(self.held_time + hold, 6),
            longest_hold=round(max(self.longest_hold, hold), 6),
            quiet=round(now - self.last_read, 6),
        )
