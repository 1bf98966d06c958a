"""Held requests: sessions over HTTP, whose bot answers `POST /bot` when it has finished.

A hold is a tunnel with one end. The request has been sent; what remains is to wait,
for hours perhaps, for the head of the answer or for the end of the connection. It
lives in the pump, so that the session outlives the control process.
"""

from __future__ import annotations

__all__ = ["MAX_HEAD", "Holds"]

import re
import socket
from collections.abc import Callable
from functools import partial

from relay.pump.channel import Figures, Finished, Hold, Live
from relay.pump.pump import Pump

# An answer that ends a session is `{}` behind a few fields; more is no answer to wait for.
MAX_HEAD = 16 * 1024
READ_SIZE = 4096

STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r\n")
HEAD_END = b"\r\n\r\n"


class _Held:
    """One request under way."""

    __slots__ = ("deadline", "head", "message", "sock", "started")

    def __init__(self, message: Hold, sock: socket.socket, now: float) -> None:
        sock.setblocking(False)
        self.message = message
        self.sock = sock
        self.head = b""
        self.started = now
        self.deadline = now + message.max_seconds if message.max_seconds else float("inf")


class Holds:
    """All held requests of a pump process.

    Args:
        pump: whose poller watches the sockets.
        clock: seconds, monotonic.
    """

    def __init__(self, pump: Pump, clock: Callable[[], float]) -> None:
        self._pump = pump
        self._clock = clock
        self.held: dict[str, _Held] = {}
        self.reports: list[Finished] = []

    def __len__(self) -> int:
        return len(self.held)

    def __contains__(self, name: str) -> bool:
        return name in self.held

    def add(self, message: Hold, sock: socket.socket) -> None:
        """Own the socket of a request that has been sent, and wait for its answer.

        Raises:
            ValueError: a hold of this name exists; the socket stays the caller's.
        """
        if message.tunnel in self.held:
            raise ValueError(f"hold {message.tunnel} exists")
        held = _Held(message, sock, self._clock())
        self.held[message.tunnel] = held
        self._pump.watch(sock.fileno(), partial(self._read, held))

    def end(self, name: str, cause: str) -> None:
        """Give a request up; unknown names are ignored. The bot sees its connection close."""
        held = self.held.get(name)
        if held is not None:
            self._finish(held, cause)

    def end_all(self, cause: str) -> None:
        for name in list(self.held):
            self.end(name, cause)

    def sweep(self) -> None:
        """End what has lasted too long; called every turn."""
        now = self._clock()
        for held in [each for each in self.held.values() if now >= each.deadline]:
            self._finish(held, "time_limit")

    def snapshot(self) -> list[Live]:
        """Every held request, in the form of a tunnel that carries nothing."""
        now = self._clock()
        return [
            Live(name, held.message.session, round(now - held.started, 6), Figures(), Figures())
            for name, held in self.held.items()
        ]

    def take_reports(self) -> list[Finished]:
        """Reports of requests that ended since the last call."""
        taken, self.reports = self.reports, []
        return taken

    def _read(self, held: _Held) -> None:
        if self.held.get(held.message.tunnel) is not held:
            return  # ended by an order that came in the same turn
        try:
            data = held.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        held.head += data
        status = _status(held.head)
        if status is not None:
            self._finish(held, "bot_completed" if 200 <= status < 300 else "bot_error", status)
        elif not data or len(held.head) > MAX_HEAD:
            self._finish(held, "bot_error")

    def _finish(self, held: _Held, cause: str, status: int | None = None) -> None:
        message, none = held.message, Figures()
        del self.held[message.tunnel]
        self._pump.unwatch(held.sock.fileno())
        held.sock.close()
        seconds = round(self._clock() - held.started, 6)
        reason = "" if status is None else f"HTTP {status}"
        self.reports.append(
            Finished(message.tunnel, message.session, cause, None, reason, seconds, none, none)
        )


def _status(data: bytes) -> int | None:
    """The status of the final answer once its head is whole; interim ones are passed over."""
    while (end := data.find(HEAD_END)) >= 0:
        line = STATUS.match(data)
        if line is None:
            return None
        status = int(line[1])
        if status >= 200:
            return status
        data = data[end + len(HEAD_END) :]
    return None
