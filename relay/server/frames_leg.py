"""One side of a call of the `frames` relay: its connection, and what waits for it."""

from __future__ import annotations

__all__ = ["Leg"]

import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event

from relay.protocol.lifecycle import Side
from relay.protocol.messages import MessageReader
from relay.pump.channel import GAP_CLASSES, NOTABLE_GAP, Figures, gap_class
from relay.server.secure import Stream, close, reset


class Leg:
    """One side of a call: what is read from it, what is to be written to it.

    Attributes:
        closing: the Close that came from it.
        broken: nothing can, or may, be written to it any more.
        held_time, longest_hold: seconds in which the other side did not take what came
            from here.
        changed: where tasks wait for the outbox or the lifecycle to change.
        ended: its reader has seen the end.
    """

    def __init__(self, side: Side, stream: Stream, max_message: int) -> None:
        from_client = side is Side.DOWNSTREAM
        self.side = side
        self.stream = stream
        self.reader = MessageReader(masked=from_client, max_message=max_message)
        # wsproto's view is ours: a server toward the client, a client toward the bot.
        kind = ConnectionType.SERVER if from_client else ConnectionType.CLIENT
        self._wsproto = Connection(kind)
        self.outbox = bytearray()
        self.sending = False
        self.broken = False
        self.closing: CloseConnection | None = None
        self.bytes = 0
        self.messages = 0
        self.last_read = 0.0
        self.largest_gap = 0.0
        self.gaps = [0] * GAP_CLASSES
        self.held_time = 0.0
        self.longest_hold = 0.0
        self.changed = trio.lowlevel.ParkingLot()
        self.ended = trio.Event()

    @property
    def held(self) -> bool:
        """Something waits to be taken by this side."""
        return not self.broken and (self.sending or bool(self.outbox))

    def write(self, event: Event) -> int:
        """Put a frame into the outbox; its size."""
        data = self._wsproto.send(event)
        if not self.broken:
            self.outbox += data
            self.changed.unpark_all()
        return len(data)

    def give_up(self) -> None:
        """Nothing is written any more, not even what waits."""
        self.broken = True
        self.outbox.clear()
        self.changed.unpark_all()

    def reset(self) -> None:
        """Close with a reset, which a WebSocket peer sees as 1006."""
        self.give_up()
        reset(self.stream)

    def close(self) -> None:
        """Close, if it is not closed already."""
        close(self.stream)

    def note_read(self, now: float) -> None:
        gap = now - self.last_read
        self.largest_gap = max(self.largest_gap, gap)
        if gap >= NOTABLE_GAP:
            self.gaps[gap_class(gap)] += 1
        self.last_read = now

    def note_hold(self, seconds: float) -> None:
        self.held_time += seconds
        self.longest_hold = max(self.longest_hold, seconds)

    def figures(self) -> Figures:
        """What came from this side and was passed on."""
        return Figures(
            bytes=self.bytes,
            messages=self.messages,
            largest_gap=round(self.largest_gap, 6),
            gaps=tuple(self.gaps) if any(self.gaps) else (),
            held_time=round(self.held_time, 6),
            longest_hold=round(self.longest_hold, 6),
            quiet=round(trio.current_time() - self.last_read, 6),
        )
