"""The pump: one poller, every tunnel, one turn at a time.

A synchronous object, testable over socket pairs: `adopt`, `turn`, `end`,
`snapshot`, `take_reports`. It never raises for what a peer does; a tunnel that
fails in an unforeseen way is dropped alone.
"""

from __future__ import annotations

__all__ = ["Pump"]

import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from relay.protocol.lifecycle import Event
from relay.pump.census import Census, live
from relay.pump.channel import (
    Adopt,
    BotEnded,
    Finished,
    Live,
    Totals,
)
from relay.pump.end import End
from relay.pump.ending import report
from relay.pump.poller import GONE, READ, WRITE, Poller, new_poller
from relay.pump.scratch import LONGEST, READ_OF_CALLS, READ_SIZE, Scratch
from relay.pump.sockets import Sockets
from relay.pump.sums import Sums
from relay.pump.transfer import Transfer
from relay.pump.tunnel import Tunnel
from relay.pump.turns import Turns

# Events taken per turn. More lets one turn last longer before the clock is read
# again; fewer costs more calls of the kernel. For 256 of them the interpreter allocates
# 3 KiB in each turn, in 230 more instructions than for a few.
MAX_EVENTS: Final = 64
# The sweep for deadlines: a closing tunnel's timeouts and the longest session.
# Coarse, since neither needs better than this; no timer per tunnel.
SWEEP_CLOSING = 0.25
SWEEP_ALL = 1.0

# Calls go on, and bulk is read in pieces of `READ_OF_CALLS`, as long as anything else was read
# so lately: twice the 20 ms of one call's stream.
CALLS_GO_ON = 0.04

ANSWERS = (Event.UPSTREAM_EOF, Event.UPSTREAM_LOST)


class Pump(Sockets):
    """Relays every adopted tunnel.

    Args:
        clock: seconds, monotonic; read twice a turn, so figures have this resolution.
        poller: makes what it waits with.
    """

    def __init__(
        self, clock: Callable[[], float], poller: Callable[[], Poller] = new_poller
    ) -> None:
        self._clock = clock
        super().__init__(poller())
        self._others: list[Callable[[], None]] = []
        self._bulk: list[End] = []
        self._scratch = scratch = Scratch()
        self._view, self._word = scratch.view[:READ_OF_CALLS], scratch.word
        self._retired: list[Tunnel] = []
        self.reports: deque[Finished] = deque()
        self.questions: list[BotEnded] = []
        self._last_call = -CALLS_GO_ON  # when anything but bulk was read last
        self._next_sweep = self._next_full_sweep = 0.0
        self.tunnels: dict[str, Tunnel] = {}
        self.closing: dict[str, Tunnel] = {}
        self.turns = Turns()
        self.adopted = 0
        self.from_client, self.from_bot = Sums(), Sums()
        self.census: Census | None = None

    def adopt(
        self,
        adopt: Adopt,
        downstream: socket.socket,
        upstream: socket.socket,
        restore: Callable[[Tunnel, float], None] | None = None,
    ) -> None:
        """Own both sockets and relay between them from now on.

        Args:
            restore: puts a tunnel into the state that it had in another pump.

        Raises:
            ValueError: a tunnel of this name exists; the sockets stay the caller's.
        """
        if adopt.tunnel in self.tunnels:
            raise ValueError(f"tunnel {adopt.tunnel} exists")
        now = self._clock()
        tunnel = Tunnel(self, adopt, downstream, upstream, now)
        self.tunnels[adopt.tunnel] = tunnel
        self.adopted += 1
        self.own(tunnel.downstream)
        self.own(tunnel.upstream)
        if restore is not None:
            restore(tunnel, now)
        self._guard(tunnel, tunnel.start, now)
        self._close_released()

    def forget(self, tunnel: Tunnel) -> None:
        """Let go of a live tunnel and of its sockets, which stay open for somebody else."""
        del self.tunnels[tunnel.adopt.tunnel]
        self.disown(tunnel.downstream)
        self.disown(tunnel.upstream)
        tunnel.unlink()

    def now(self) -> float:
        """Seconds on the pump's clock."""
        return self._clock()

    def end(self, tunnel: str, event: Event) -> None:
        """End a tunnel with the Close that `event` stands for; unknown names are ignored."""
        found = self.tunnels.get(tunnel)
        if found is not None:
            now = self._clock()
            act = found.answer if event in ANSWERS else found.apply
            self._guard(found, partial(act, event), now)
            self._close_released()

    def carry(self, timeout: float) -> None:
        """Turns, until one of them has done more than pass messages on."""
        while not self.turn(timeout):
            pass

    def turn(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds, serve one batch; whether it was more than messages.

        Nearly every read of a call is one whole message. This is its whole way.
        """
        timeout = min(timeout, SWEEP_CLOSING) if self.closing else timeout
        # Called as locals: an attribute that is called is looked up as a method first.
        poll, clock = self._poll, self._clock
        lanes, view, word = self._lanes, self._view, self._word
        events = poll(timeout, MAX_EVENTS)
        now = clock()
        more = called = False
        for fd, mask in events:
            lane = lanes[fd]
            if lane is None or mask != READ:
                more = True
                self._serve(fd, mask, now)
                continue
            try:
                receive, send = lane.receive, lane.send
                try:
                    size = receive(view)
                except OSError as error:
                    more = True
                    lane.unread(error, now)
                    continue
                shape = lane.shapes[size] if size < LONGEST else None
                if shape is None or shape[0] != word[0]:
                    more = True
                    self._take(lane, size, now)
                    continue
                called = True
                lane.tracker.messages += 1
                lane.bytes += size
                lane.sums.messages += 1
                lane.sums.bytes += size
                gap = now - lane.last_read
                lane.last_read = now
                if gap > lane.usual_gap:
                    lane.note_gap(gap)
                piece = shape[1]
                try:
                    sent = send(piece)
                except OSError as error:
                    more = True
                    sent = lane.unsent(error, size, now)
                if sent != size:
                    lane.hold(bytes(piece[sent:]), now)
            except Exception:
                # No tunnel may stop the pump. What is not foreseen ends its tunnel.
                more = True
                self._drop(lane.tunnel, now)
        if called:
            self._last_call = now
        if more or now >= self._next_sweep:
            more = True
            self._do_more(now)
        turns = self.turns
        turns.count += 1
        took = clock() - now
        turns.busy += took
        if took >= turns.usual:
            turns.note(took)
        return more

    def snapshot(self) -> list[Live]:
        """Every tunnel as it stands."""
        now = self._clock()
        return [live(tunnel, now) for tunnel in self.tunnels.values()]

    def totals(self) -> Totals:
        """What the pump has done so far."""
        now = self._clock()
        return Totals(
            turns=self.turns.count,
            busy=round(self.turns.busy, 6),
            longest_turn=round(self.turns.longest, 6),
            tunnels=len(self.tunnels),
            closing=len(self.closing),
            adopted=self.adopted,
            turn_classes=self.turns.classes(),
            from_client=self.from_client.figures(now),
            from_bot=self.from_bot.figures(now),
        )

    def take_reports(self) -> list[Finished]:
        """Reports of tunnels that ended since the last call."""
        taken = list(self.reports)
        self.reports.clear()
        return taken

    def take_questions(self) -> list[BotEnded]:
        """What the control process is to say since the last call."""
        taken, self.questions = self.questions, []
        return taken

    def close(self) -> None:
        """Drop everything at once, without Close frames; for the end of the process."""
        now = self._clock()
        for tunnel in list(self.tunnels.values()):
            self.retire(tunnel, now)
        self._close_released()
        self._poller.close()

    # Called by tunnels.

    def retire(self, tunnel: Tunnel, now: float) -> None:
        """The tunnel is over: report it now, close its sockets at the end of the batch."""
        if tunnel.retired:
            return
        tunnel.retired = True
        name = tunnel.adopt.tunnel
        self.tunnels.pop(name, None)
        self.closing.pop(name, None)
        self.reports.append(report(tunnel, now))
        self._retired.append(tunnel)
        self.release(tunnel.downstream)
        self.release(tunnel.upstream)

    # Parts of a turn.

    def _serve(self, fd: int, mask: int, now: float) -> None:
        """One event of a batch, whatever it is."""
        end = self._ends[fd]
        if end is None:
            callback = self._watched.get(fd)
            if callback is not None:
                # Later: an adoption must not meet this batch's stale events.
                self._others.append(callback)
            return
        try:
            if mask != WRITE and end.registered & READ:
                incoming = end.incoming
                if not incoming.bulk:
                    self._last_call = now
                    incoming.pull(self._scratch, READ_OF_CALLS, now)
                    self.set_lane(end)
                elif now < self._last_call + CALLS_GO_ON:
                    self._bulk.append(end)
                else:
                    incoming.pull(self._scratch, READ_SIZE, now)
            elif mask & GONE and end.registered:
                end.tunnel.hung_up(end, now)
            if mask != READ and end.outgoing.held:
                end.outgoing.flush(now)
        except Exception:
            # No tunnel may stop the pump. What is not foreseen ends its tunnel.
            self._drop(end.tunnel, now)

    def _do_more(self, now: float) -> None:
        """What is due behind a batch."""
        if self._bulk:
            self._serve_bulk(now)
        if now >= self._next_sweep:
            self._sweep(now)
        self._close_released()
        others, self._others = self._others, []
        for callback in others:
            callback()

    def _serve_bulk(self, now: float) -> None:
        """One bounded read, behind the calls of a batch: for the one that has waited longest.

        The others are ready in the next turn too.
        """
        ends, self._bulk = self._bulk, []
        end = min(ends, key=lambda each: each.incoming.last_read)
        try:
            if end.registered & READ:  # still
                end.incoming.pull(self._scratch, READ_OF_CALLS, now)
        except Exception:
            self._drop(end.tunnel, now)

    def _take(self, lane: Transfer, size: int, now: float) -> None:
        """A read that is not one whole message of a kind that is known."""
        end = lane.source
        self._last_call = now
        lane.took(self._scratch, size, now)
        self.set_lane(end)

    def _sweep(self, now: float) -> None:
        self._next_sweep = now + SWEEP_CLOSING
        for tunnel in list(self.closing.values()):
            self._guard(tunnel, tunnel.check_deadlines, now)
        if now >= self._next_full_sweep:
            self._next_full_sweep = now + SWEEP_ALL
            for tunnel in [each for each in self.tunnels.values() if now >= each.deadline]:
                if tunnel.state.ending is None and not tunnel.asking:
                    self._guard(tunnel, tunnel.tick, now)

    def _guard(self, tunnel: Tunnel, act: Callable[[float], None], now: float) -> None:
        """The same for what is no readiness: a failure ends this tunnel alone."""
        try:
            act(now)
        except Exception:
            self._drop(tunnel, now)

    def _drop(self, tunnel: Tunnel, now: float) -> None:
        for end in (tunnel.downstream, tunnel.upstream):
            self.release(end, reset=True)
        self.retire(tunnel, now)

    def _close_released(self) -> None:
        self.close_released()
        for tunnel in self._retired:
            tunnel.unlink()
        self._retired.clear()
