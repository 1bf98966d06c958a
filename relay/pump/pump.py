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
from relay.pump.census import Census, Sums, live
from relay.pump.channel import (
    SHORT_TURN,
    TURN_CLASSES,
    Adopt,
    BotEnded,
    Figures,
    Finished,
    Live,
    Totals,
    View,
)
from relay.pump.ending import report
from relay.pump.poller import GONE, READ, WRITE, Poller, new_poller
from relay.pump.scratch import READ_SIZE, Scratch
from relay.pump.transfer import End, interest
from relay.pump.tunnel import Tunnel

# Events taken per turn. More lets one turn last longer before the clock is read
# again; fewer costs more calls of the kernel. Chosen, not measured.
MAX_EVENTS = 256
# The sweep for deadlines: a closing tunnel's timeouts and the longest session.
# Coarse, since neither needs better than this; no timer per tunnel.
SWEEP_CLOSING = 0.25
SWEEP_ALL = 1.0

# A turn's class is the length in bits of how often it holds the shortest.
BY_CLASS: Final = 1 / SHORT_TURN
LAST_CLASS: Final = TURN_CLASSES - 1
# Reads of bulk are bounded while calls go on beside them, which wait for one of them at most:
# some 50 us for this many bytes.
READ_BESIDE_CALLS = 64 * 1024
# Calls go on as long as anything else was read so lately: twice the 20 ms of one call's stream.
CALLS_GO_ON = 0.04

ANSWERS = (Event.UPSTREAM_EOF, Event.UPSTREAM_LOST)


class Pump:
    """Relays every adopted tunnel.

    Args:
        clock: seconds, monotonic; read twice a turn, so figures have this resolution.
        poller: makes what it waits with.
    """

    def __init__(
        self, clock: Callable[[], float], poller: Callable[[], Poller] = new_poller
    ) -> None:
        self._clock = clock
        self._poller = poller()
        self._ends: dict[int, End] = {}
        self._watched: dict[int, Callable[[], None]] = {}
        self._scratch = Scratch()
        self._released: list[End] = []
        self._retired: list[Tunnel] = []
        self.reports: deque[Finished] = deque()
        self.questions: list[BotEnded] = []
        self._calls_until = 0.0
        self._next_sweep = self._next_full_sweep = 0.0
        self.tunnels: dict[str, Tunnel] = {}
        self.closing: dict[str, Tunnel] = {}
        self.turns = self.adopted = 0
        self.busy = self.longest_turn = 0.0
        self.turn_classes = [0] * TURN_CLASSES
        self.ended_client, self.ended_bot = Sums(), Sums()  # of tunnels that have ended
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
        self._ends[tunnel.downstream.fd] = tunnel.downstream
        self._ends[tunnel.upstream.fd] = tunnel.upstream
        if restore is not None:
            restore(tunnel, now)
        self._guard(tunnel, tunnel.start, now)
        self._close_released()

    def forget(self, tunnel: Tunnel) -> None:
        """Let go of a live tunnel and of its sockets, which stay open for somebody else."""
        del self.tunnels[tunnel.adopt.tunnel]
        for end in (tunnel.downstream, tunnel.upstream):
            del self._ends[end.fd]
            if end.registered:
                self._poller.unregister(end.fd)
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

    def turn(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for readiness and serve one batch."""
        wait = SWEEP_CLOSING if self.closing else SWEEP_ALL
        events = self._poller.poll(timeout if timeout < wait else wait, MAX_EVENTS)
        self.turns += 1
        now = self._clock()
        ends, scratch = self._ends, self._scratch
        others = None
        bulk: list[End] = []
        calls = False
        for fd, mask in events:
            end = ends.get(fd)
            if end is None:
                others = self._note_other(others, fd)
                continue
            try:
                if mask != WRITE and end.registered & READ:
                    incoming = end.incoming
                    if not incoming.bulk:
                        incoming.pull(scratch, now)
                        calls = True
                    elif now < self._calls_until:
                        bulk.append(end)
                    else:
                        incoming.pull_bulk(scratch, READ_SIZE, now)
                elif mask & GONE and end.registered:
                    end.tunnel.hung_up(end, now)
                if mask != READ and end.outgoing.held:
                    end.outgoing.flush(now)
            except Exception:
                # No tunnel may stop the pump. What is not foreseen ends its tunnel.
                self._drop(end.tunnel, now)
        if bulk:
            self._serve_bulk(bulk, now)
        if calls:
            self._calls_until = now + CALLS_GO_ON
        if now >= self._next_sweep:
            self._sweep(now)
        if self._released or self._retired:
            self._close_released()
        if others:
            for callback in others:
                callback()
        took = self._clock() - now
        self.busy += took
        length = int(took * BY_CLASS).bit_length()
        self.turn_classes[length if length < LAST_CLASS else LAST_CLASS] += 1
        if took > self.longest_turn:
            self.longest_turn = took

    def watch(self, fd: int, callback: Callable[[], None], *, writing: bool = False) -> None:
        """Call `callback` when the descriptor, no tunnel's, is ready; again to change it."""
        mask = READ | (WRITE if writing else 0)
        if fd in self._watched:
            self._poller.modify(fd, mask)
        else:
            self._poller.register(fd, mask)
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        del self._watched[fd]
        self._poller.unregister(fd)

    def snapshot(self) -> list[Live]:
        """Every tunnel as it stands."""
        now = self._clock()
        return [live(tunnel, now) for tunnel in self.tunnels.values()]

    def totals(self, from_client: Figures, from_bot: Figures) -> Totals:
        """What the pump has done so far, with what a census says of its tunnels."""
        return Totals(
            turns=self.turns,
            busy=round(self.busy, 6),
            longest_turn=round(self.longest_turn, 6),
            tunnels=len(self.tunnels),
            closing=len(self.closing),
            adopted=self.adopted,
            turn_classes=tuple(self.turn_classes),
            from_client=from_client,
            from_bot=from_bot,
        )

    def look(self) -> View | None:
        """Go on with the census; a part of its answer, if there is one now."""
        assert self.census is not None, "only while there is one"
        view = self.census.step()
        if view is not None and view.totals is not None:
            self.census = None
        return view

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

    def update_interest(self, end: End) -> None:
        """Bring the registration of `end` in line with its transfers."""
        wanted = interest(end.incoming, end.outgoing)
        if wanted == end.registered or end.released:
            return
        if not wanted:
            self._poller.unregister(end.fd)
        elif end.registered:
            self._poller.modify(end.fd, wanted)
        else:
            self._poller.register(end.fd, wanted)
        end.registered = wanted

    def retire(self, tunnel: Tunnel, now: float) -> None:
        """The tunnel is over: report it now, close its sockets at the end of the batch."""
        if tunnel.retired:
            return
        tunnel.retired = True
        name = tunnel.adopt.tunnel
        self.tunnels.pop(name, None)
        self.closing.pop(name, None)
        self.reports.append(report(tunnel, now))
        self.ended_client.add(tunnel.from_client, now)
        self.ended_bot.add(tunnel.from_bot, now)
        if self.census is not None:
            self.census.left(tunnel, now)
        self._retired.append(tunnel)
        self.release(tunnel.downstream)
        self.release(tunnel.upstream)

    def release(self, end: End, *, reset: bool = False) -> None:
        """Give up one socket; it is closed at the end of the batch, with a reset if wanted."""
        if end.released:
            return
        end.released = True
        # Forget, unregister, close: a number that the kernel gives out again must meet
        # neither an entry nor a registration of the old one.
        if self._ends.get(end.fd) is end:
            del self._ends[end.fd]
        self._released.append(end)
        if end.registered:
            end.registered = 0
            try:
                self._poller.unregister(end.fd)
            except OSError:
                pass  # the descriptor is closed already, and its registration with it
        if reset:
            end.set_reset()

    # Parts of a turn.

    def _note_other(
        self, others: list[Callable[[], None]] | None, fd: int
    ) -> list[Callable[[], None]] | None:
        callback = self._watched.get(fd)
        if callback is None:
            return others
        # Served after the tunnels: an adoption must not meet this batch's stale events.
        return [*(others or ()), callback]

    def _serve_bulk(self, ends: list[End], now: float) -> None:
        """One bounded read, behind the calls of a batch: for the one that has waited longest.

        The others are ready in the next turn too.
        """
        end = min(ends, key=lambda each: each.incoming.last_read)
        try:
            if end.registered & READ:  # still
                end.incoming.pull_bulk(self._scratch, READ_BESIDE_CALLS, now)
        except Exception:
            self._drop(end.tunnel, now)

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
        for end in self._released:
            end.sock.close()
        self._released.clear()
        for tunnel in self._retired:
            tunnel.unlink()
        self._retired.clear()
