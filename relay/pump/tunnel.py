"""An established WebSocket pair: two transfers and the lifecycle that ends them.

The lifecycle (`protocol.lifecycle`) decides; this module carries out: it writes a
Close at a boundary, aborts a side that was left inside a frame, shuts write sides,
and keeps what is waited for in step with the transfers.
"""

from __future__ import annotations

__all__ = ["BOUNDARY_TIMEOUT", "Tunnel"]

import os
import socket
from typing import TYPE_CHECKING

import msgspec

from relay.protocol.frame_headers import MESSAGE_TOO_BIG, close_frame
from relay.protocol.frames import FrameTracker
from relay.protocol.lifecycle import (
    Event,
    Flow,
    Kind,
    Side,
    TunnelState,
    finished,
    may_shut,
    step,
)
from relay.pump.channel import Adopt, BotEnded
from relay.pump.end import End
from relay.pump.ending import close_for
from relay.pump.transfer import Transfer

if TYPE_CHECKING:
    from relay.pump.pump import Pump

# How long a Close waits for the rest of a frame before the sink is aborted. A media
# stream ends a frame every 20 to 100 ms; a frame that takes longer has stalled.
BOUNDARY_TIMEOUT = 1.0
# How long a client that broke the protocol has to take its Close and the FIN behind it,
# and to leave: nothing that it says is looked at, so there is nothing else to wait for.
LINGER = 1.0
# How long a tunnel waits to be told how its bot's process ended. The control process
# answers within a tenth of a second, later on a machine that is overloaded; without one
# the bot is taken to have finished.
ANSWER_TIMEOUT = 1.0
NEVER = float("inf")
# Every tunnel's state at first, and most tunnels' until they end.
BEGUN = TunnelState()
# An empty Ping as a server sends it (RFC 6455 section 5.5.2).
PING_FRAME = b"\x89\x00"


class Tunnel:
    """One relayed WebSocket, from adoption to its report."""

    __slots__ = (
        "active_at",
        "adopt",
        "asking",
        "closing_since",
        "counted",
        "deadline",
        "downstream",
        "from_bot",
        "from_client",
        "limit",
        "next_ping",
        "pump",
        "retired",
        "started",
        "state",
        "upstream",
    )

    def __init__(
        self,
        pump: Pump,
        adopt: Adopt,
        downstream: socket.socket,
        upstream: socket.socket,
        now: float,
    ) -> None:
        self.pump = pump
        self.adopt = adopt
        self.state = BEGUN
        self.started = now
        self.limit = now + adopt.max_seconds if adopt.max_seconds else NEVER
        self.next_ping = now + adopt.ping_seconds if adopt.ping_seconds else NEVER
        self.active_at = now  # when a data message passed last, as far as has been looked
        self.counted = 0
        self.closing_since = 0.0
        self.retired = False
        self.asking = False
        self.downstream = End(downstream, Side.DOWNSTREAM, self)
        self.upstream = End(upstream, Side.UPSTREAM, self)
        limit = adopt.max_message
        tracker = FrameTracker(masked=True, rsv=adopt.rsv, max_message=limit)
        self.from_client = Transfer(self.downstream, self.upstream, tracker, pump.from_client, now)
        tracker = FrameTracker(masked=False, rsv=adopt.rsv, max_message=limit)
        self.from_bot = Transfer(self.upstream, self.downstream, tracker, pump.from_bot, now)
        self.deadline = self._next_deadline()

    def start(self, now: float) -> None:
        """Send what came before the pump: the 101, then early bytes of either side."""
        adopt = self.adopt
        if adopt.preface:
            self.from_bot.write(adopt.preface, now)
        for transfer, early in (
            (self.from_bot, adopt.from_bot),
            (self.from_client, adopt.from_client),
        ):
            if not early or self.retired:
                continue
            if transfer.held and transfer.flow is Flow.OPEN:
                # The sink is full already: append, so that order is kept.
                transfer.append(early, now)
                if transfer.tracker.closed or transfer.tracker.violation is not None:
                    self.marked(transfer, now)
            else:
                transfer.take(early, memoryview(early), len(early), now)
        # Kept for as long as the call lasts, without what has been passed on.
        # Most names are twice in the message.
        session = adopt.tunnel if adopt.session == adopt.tunnel else adopt.session
        self.adopt = msgspec.structs.replace(
            adopt, session=session, preface=b"", from_client=b"", from_bot=b""
        )
        self.update_interest()  # last: nothing may be read before what was read already

    # What transfers report.

    def source_ended(self, transfer: Transfer, now: float) -> None:
        """The source sent FIN; inside a frame this is a loss like a reset."""
        side = transfer.source.side
        whole = transfer.tracker.at_boundary and not transfer.source.reset
        if whole and side is Side.UPSTREAM and self.adopt.watched and self.state.ending is None:
            self._ask(transfer, now)
        else:
            self.apply(Event((side, Kind.EOF if whole else Kind.LOST)), now)

    def _ask(self, transfer: Transfer, now: float) -> None:
        """The bot has gone without a Close: let the control process say whether it has failed."""
        self.asking = True
        transfer.eof = True
        self.closing_since = now
        self.pump.closing[self.adopt.tunnel] = self
        self.pump.questions.append(BotEnded(self.adopt.tunnel, self.adopt.session))
        self.update_interest()

    def answer(self, event: Event, now: float) -> None:
        """The bot that closed its connection has finished (UPSTREAM_EOF) or failed (_LOST)."""
        if self.asking:
            self.asking = False
            self.apply(event, now)

    def lost(self, end: End, now: float) -> None:
        """Nothing can be read from `end` or written to it."""
        self.apply(Event((end.side, Kind.LOST)), now)

    def hung_up(self, end: End, now: float) -> None:
        """`end` takes nothing any more; what it sent before it went, a Close perhaps, counts.

        So it is read on as its sink takes it, to its end.
        """
        end.outgoing.discard(now)
        if end.incoming.eof:
            self.lost(end, now)
        elif not end.hung_up:
            end.hung_up = True
            if self.adopt.tunnel not in self.pump.closing:
                self.closing_since = now
                self.pump.closing[self.adopt.tunnel] = self
            self.update_interest()

    def marked(self, transfer: Transfer, now: float) -> None:
        """The tracker met a Close, an illegal header, or the boundary that was waited for."""
        side, tracker = transfer.source.side, transfer.tracker
        if tracker.violation is not None:
            too_big = tracker.violation.code == MESSAGE_TOO_BIG
            self.apply(Event((side, Kind.TOO_BIG if too_big else Kind.VIOLATION)), now)
        elif tracker.closed:
            self.apply(Event((side, Kind.CLOSE)), now)
        else:
            self._settle(now)

    def dropped(self, transfer: Transfer, now: float) -> None:
        """Bytes behind our own Close were followed; one of them may be the answer."""
        if transfer.tracker.closed:
            self.apply(Event((transfer.source.side, Kind.CLOSE)), now)

    def flushed(self, now: float) -> None:
        """A transfer has got rid of what it held."""
        if self.retired:
            return
        if self.state.ending is None:
            self.update_interest()
        else:
            self._settle(now)

    # What the lifecycle asks for.

    def apply(self, event: Event, now: float) -> None:
        """Move the lifecycle by `event` and carry out what the new state asks for."""
        if self.retired:
            return
        if self.asking:
            if event is Event.UPSTREAM_LOST:
                return  # a failed write tells nothing new: the bot is known to be gone
            self.answer(Event.UPSTREAM_EOF, now)
        if self.state.ending is None:
            self.closing_since = now
            self.pump.closing[self.adopt.tunnel] = self
        self.state = step(self.state, event)
        self._settle(now)

    def _settle(self, now: float) -> None:
        self._mirror(now)
        for transfer in (self.from_client, self.from_bot):
            if transfer.flow is Flow.CUTTING:
                self._cut(transfer, now)
        if self.retired:
            return
        for end in (self.downstream, self.upstream):
            if not end.released and not end.outgoing.held and may_shut(self.state, end.side):
                end.shut_write()
        held = self.from_client.held or self.from_bot.held
        if not held and finished(self.state):
            self.pump.retire(self, now)
        else:
            self.update_interest()

    def _mirror(self, now: float) -> None:
        """Bring the transfers' own fields in line with the lifecycle state."""
        for transfer in (self.from_client, self.from_bot):
            state = self.state.reading(transfer.source.side)
            transfer.flow, transfer.eof = state.flow, state.eof
            if state.flow is Flow.BROKEN:
                transfer.discard(now)
            if state.torn:
                self.pump.release(transfer.sink, reset=True)

    def _cut(self, transfer: Transfer, now: float) -> None:
        """Write the Close if the transfer is at a boundary; tear it if none can come."""
        side = transfer.source.side
        if transfer.tracker.at_boundary:
            code, reason = close_for(self, side)
            if code is not None:
                mask = os.urandom(4) if side is Side.DOWNSTREAM else None
                transfer.write(close_frame(code, reason, mask), now)
            self.apply(Event((side, Kind.CUT)), now)
        elif transfer.eof or transfer.tracker.violation is not None:
            self.apply(Event((side, Kind.TORN)), now)

    def check_deadlines(self, now: float) -> None:
        """Give up waiting for a boundary, then for the closing handshake."""
        waited = now - self.closing_since
        if self.asking:
            if waited >= ANSWER_TIMEOUT:
                self.answer(Event.UPSTREAM_EOF, now)
        elif self.state.ending is None:
            self._check_last_words(now)
        elif waited >= self.adopt.close_timeout:
            for end in (self.downstream, self.upstream):
                if not end.incoming.eof:
                    self.pump.release(end, reset=True)
            self.apply(Event.CLOSE_TIMEOUT, now)
        else:
            for transfer in (self.from_client, self.from_bot):
                if waited >= BOUNDARY_TIMEOUT and transfer.flow is Flow.CUTTING:
                    self.apply(Event((transfer.source.side, Kind.TORN)), now)
            if waited >= LINGER and self.state.downstream.failed and self.downstream.shut:
                self.apply(Event.DOWNSTREAM_EOF, now)

    def _check_last_words(self, now: float) -> None:
        """A side that has hung up is lost when the other one leaves untaken what it said."""
        for end in (self.downstream, self.upstream):
            since = max(self.closing_since, end.incoming.held_since)
            if end.hung_up and now - since >= self.adopt.close_timeout:
                self.lost(end, now)

    def tick(self, now: float) -> None:
        """Its deadline has come: the limit, perhaps idleness, or the next ping."""
        if now >= self.limit:
            self.apply(Event.TIME_LIMIT, now)
            return
        if self.adopt.idle_seconds and self.idle_for(now) >= self.adopt.idle_seconds:
            self.apply(Event.IDLE, now)
            return
        if now >= self.next_ping:
            self.next_ping = now + self.adopt.ping_seconds
            # In the midst of a frame or behind what waits there is traffic enough.
            if self.from_bot.tracker.at_boundary and not self.from_bot.held:
                self.from_bot.write(PING_FRAME, now)
        self.deadline = self._next_deadline()

    def _next_deadline(self) -> float:
        idle = self.adopt.idle_seconds
        return min(self.limit, self.next_ping, self.active_at + idle if idle else NEVER)

    def idle_for(self, now: float) -> float:
        """Seconds without a data message; nothing is kept per message, only counts compared."""
        count = self.from_client.tracker.messages + self.from_bot.tracker.messages
        if count != self.counted:
            self.counted = count
            self.active_at = max(self.from_client.last_read, self.from_bot.last_read)
        return now - self.active_at

    def shift(self, age: float, inactive_for: float, now: float) -> None:
        """It began `age` seconds ago, in another pump, and was inactive for so long."""
        self.started = now - age
        self.active_at = now - inactive_for
        self.counted = self.from_client.tracker.messages + self.from_bot.tracker.messages
        if self.adopt.max_seconds:
            self.limit = self.started + self.adopt.max_seconds
        self.deadline = self._next_deadline()

    def unlink(self) -> None:
        """Break the circles of references behind a tunnel that is over.

        The pump makes no garbage that only the collector would find, so it runs without.
        """
        for end in (self.downstream, self.upstream):
            del end.incoming, end.outgoing, end.tunnel
        now = self.pump.now()
        for transfer in (self.from_client, self.from_bot):
            transfer.discard(now)  # for the pump's sums: nobody holds it any more
            del transfer.source, transfer.sink, transfer.tunnel

    def update_interest(self) -> None:
        self.pump.update_interest(self.downstream)
        self.pump.update_interest(self.upstream)
