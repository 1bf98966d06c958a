"""The pump as a process: its loop, its channel to a control process, its end.

The control process may come and go: a new one connects, asks for what is live and
what has ended, and takes over; the older connection is dropped. Without one the
tunnels go on. A pump with neither control process nor tunnels exits, and leaves
reports that nobody has recorded in a file for the next control process.
"""

from __future__ import annotations

__all__ = ["PumpProcess", "read_spool", "spool_path"]

import os
import resource
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from relay.protocol.lifecycle import ENDINGS, Event
from relay.pump import channel
from relay.pump.census import Census
from relay.pump.channel import MAX_TUNNELS, Finished
from relay.pump.hold import Holds
from relay.pump.pump import Pump

# Ended tunnels kept until a control process has recorded them: days of calls for one
# node, 20 MiB at most. Over it the oldest are forgotten and counted.
MAX_REPORTS = 100_000
# How long a pump without tunnels waits for a new control process before it exits; a
# supervisor restarts a killed daemon well within this.
ORPHAN_WAIT = 10.0
# Nothing that a pump does by the clock while nothing happens needs to be more punctual.
TURN_TIMEOUT = 1.0
# Calls that one Look may be told of singly; the console shows fewer.
MAX_LOOK = 1000
# Messages taken from the control process in one turn, so that a burst of new calls
# cannot hold up those that run.
MAX_COMMANDS = 16
# So many times as much is heard of a control process that is being replaced: more than
# fits into its channel.
LAST_WORDS = 64
# Descriptors that are not for tunnels: the channel and its listener, the poller, what comes
# with messages before it is known whether there is room, and what the interpreter has open.
OTHER_DESCRIPTORS = 64
# What the control process orders, as an event of the tunnel.
ORDERS = {
    "stop": Event.STOP,
    "drain": Event.DRAIN,
    "session ended": Event.SESSION_ENDED,
    "bot ended": Event.UPSTREAM_EOF,
    "bot lost": Event.UPSTREAM_LOST,
}


def spool_path(runtime_dir: Path, index: int) -> Path:
    """Where pump `index` leaves reports that no control process has recorded."""
    return runtime_dir / f"pump-{index}.finished"


def read_spool(path: Path) -> list[Finished]:
    """The reports left by a pump that has exited; none if there is no file or it is damaged."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=list[Finished])
    except (OSError, msgspec.DecodeError):
        return []


def capacity() -> int:
    """How many tunnels, of two sockets each, this process has descriptors for."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_TUNNELS
    return min(max(soft - OTHER_DESCRIPTORS, 0) // 2, MAX_TUNNELS)


def _as_socket(fd: int) -> socket.socket | None:
    """The socket behind a descriptor that now belongs to us; closed if it is none."""
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None


class PumpProcess:
    """Runs a `Pump` between a listening channel socket and whoever is in control.

    Args:
        listener: a listening Unix SEQPACKET socket.
        spool: where reports go that nobody took.
        orphan_wait: seconds that a pump with nobody to serve waits for a control process.
    """

    def __init__(
        self, listener: socket.socket, spool: Path, orphan_wait: float = ORPHAN_WAIT
    ) -> None:
        listener.setblocking(False)
        self.pump = Pump(time.monotonic)
        self.holds = Holds(self.pump, time.monotonic)
        self._capacity = capacity()
        self._listener = listener
        self._spool = spool
        self._orphan_wait = orphan_wait
        self._control: socket.socket | None = None
        self._outbox: deque[channel.ToControl] = deque(maxlen=MAX_REPORTS)  # Ask repairs a loss
        self._reports: dict[str, Finished] = {}
        self._forgotten = 0
        self._quitting = False
        self._alone_since = time.monotonic()
        self._wants_write = False
        self.pump.watch(listener.fileno(), self._accept)

    def run(self) -> None:
        """Serve until told to quit, or until nobody is left to serve."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the daemon's
        with self._watching_sigterm():
            while self.pump.tunnels or not self.over():
                if self.pump.census is None:
                    self.pump.carry(TURN_TIMEOUT)
                    self._do_more()
                else:
                    self.turn(0.0)
        self.close()

    def turn(self, timeout: float) -> None:
        """One turn of the pump, then its reports on their way."""
        self.pump.turn(timeout)
        self._do_more()

    def _do_more(self) -> None:
        """What is due behind turns that have done more than pass messages on."""
        pump, holds = self.pump, self.holds
        if holds.held:
            holds.sweep()
        if pump.census is not None and (view := pump.census.step()) is not None:
            self._outbox.append(view)
        if pump.reports or pump.questions or holds.reports or self._outbox:
            self._collect()

    def close(self) -> None:
        """Leave what was not recorded in the spool; drop everything else."""
        if self._reports:
            self._spool.write_bytes(msgspec.msgpack.encode(list(self._reports.values())))
        self._hang_up()
        self._listener.close()
        self.pump.close()

    @contextmanager
    def _watching_sigterm(self) -> Iterator[None]:
        """SIGTERM ends every tunnel, between turns: a handler runs in the midst of anything."""
        reader, writer = socket.socketpair()
        with reader, writer:
            reader.setblocking(False)
            writer.setblocking(False)
            signal.set_wakeup_fd(writer.fileno())
            signal.signal(signal.SIGTERM, lambda *_: None)  # the byte in the pair does it
            self.pump.watch(reader.fileno(), partial(self._terminate, reader))
            yield
            self.pump.unwatch(reader.fileno())
            signal.set_wakeup_fd(-1)

    def _terminate(self, reader: socket.socket) -> None:
        reader.recv(1024)
        self._end_all()

    def over(self) -> bool:
        """Nobody is left to serve, or the pump was told to quit and may."""
        if self.pump.tunnels or self.holds:
            return False
        if self._control is not None:
            return self._quitting and not self._reports
        return self._quitting or time.monotonic() - self._alone_since > self._orphan_wait

    def _collect(self) -> None:
        for report in (*self.pump.take_reports(), *self.holds.take_reports()):
            self._keep(report)
        self._outbox.extend(self.pump.take_questions())
        if self._outbox and not self._wants_write:
            self._send()

    def _keep(self, report: Finished) -> None:
        if len(self._reports) >= MAX_REPORTS:
            del self._reports[next(iter(self._reports))]
            self._forgotten += 1
        self._reports[report.tunnel] = report
        self._outbox.append(report)

    # The channel.

    def _accept(self) -> None:
        try:
            control, _address = self._listener.accept()
        except OSError:
            return
        control.setblocking(False)
        # What the former one has sent counts, whichever of the two is heard first.
        for _ in range(LAST_WORDS):
            if not self._hear():
                break
        self._hang_up()
        self._control = control
        self._wants_write = False
        self.pump.watch(control.fileno(), self._receive)

    def _hang_up(self) -> None:
        self._outbox.clear()
        self.pump.census = None
        if self._control is not None:
            self.pump.unwatch(self._control.fileno())
            self._control.close()
            self._control = None
            self._alone_since = time.monotonic()

    def _receive(self) -> None:
        self._hear()

    def _hear(self) -> bool:
        """Obey what has come; whether there may be more."""
        control = self._control
        if control is None:
            return False
        if self._wants_write:
            self._send()
        for _ in range(MAX_COMMANDS):
            try:
                payload, fds = channel.receive(control)
            except BlockingIOError:
                return False
            except OSError:
                payload, fds = b"", []
            if not payload:
                self._hang_up()
                return False
            self._obey(payload, fds)
            if self._control is not control:
                return False
        return True

    def _obey(self, payload: bytes, fds: list[int]) -> None:
        try:
            message = channel.decode_to_pump(payload)
        except msgspec.DecodeError:
            message = None
        if isinstance(message, channel.Adopt | channel.Hold):
            self._own(message, fds)
            return
        for fd in fds:
            os.close(fd)
        if isinstance(message, channel.End):
            event = ORDERS[message.why]
            self.pump.end(message.tunnel, event)
            self.holds.end(message.tunnel, ENDINGS[event].cause)
        elif isinstance(message, channel.EndAll):
            self._end_all()
        elif isinstance(message, channel.Recorded):
            for tunnel in message.tunnels:
                self._reports.pop(tunnel, None)
        elif isinstance(message, channel.Ask):
            self._collect()
            self._outbox.clear()  # the answer repeats what had not been sent
            self._outbox.extend((*self.pump.snapshot(), *self.holds.snapshot()))
            self._outbox.extend(self._reports.values())
            self._outbox.append(channel.Ready(lost=self._forgotten, capacity=self._capacity))
            self._send()
        elif isinstance(message, channel.Look):
            # One at a time: who asks again before the answer wants only the later one.
            self.pump.census = Census(self.pump, min(message.most, MAX_LOOK))
        elif isinstance(message, channel.Quit):
            self._quitting = True

    def _own(self, message: channel.Adopt | channel.Hold, fds: list[int]) -> None:
        """Take over the sockets of a call, or say that they stay the control process's."""
        sockets = [sock for sock in map(_as_socket, fds) if sock is not None]
        if not self._may_own(message, len(sockets)):
            for sock in sockets:
                sock.close()
            self._say(channel.Refused(message.tunnel, message.session))
            return
        # First, so that a call without an answer is one that nothing was written to.
        self._say(channel.Taken(message.tunnel, message.session))
        if isinstance(message, channel.Adopt):
            downstream, upstream = sockets
            self.pump.adopt(message, downstream, upstream)
        else:
            self.holds.add(message, sockets[0])

    def _may_own(self, message: channel.Adopt | channel.Hold, sockets: int) -> bool:
        tunnels, holds = self.pump.tunnels, self.holds
        known = message.tunnel in tunnels or message.tunnel in holds
        wanted = channel.MAX_DESCRIPTORS if isinstance(message, channel.Adopt) else 1
        return sockets == wanted and not known and len(tunnels) + len(holds) < self._capacity

    def _say(self, message: channel.ToControl) -> None:
        self._outbox.append(message)
        if not self._wants_write:
            self._send()

    def _end_all(self) -> None:
        for tunnel in list(self.pump.tunnels):
            self.pump.end(tunnel, Event.DRAIN)
        self.holds.end_all(ENDINGS[Event.DRAIN].cause)

    def _send(self) -> None:
        control = self._control
        if control is None:
            self._outbox.clear()
            return
        try:
            while self._outbox:
                channel.send(control, self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up()
            return
        if bool(self._outbox) != self._wants_write:
            self._wants_write = bool(self._outbox)
            self.pump.watch(control.fileno(), self._receive, writing=self._wants_write)
