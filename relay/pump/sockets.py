"""The sockets of a pump: whose they are, what is waited for, when they are closed."""

from __future__ import annotations

__all__ = ["Sockets", "interest"]

from collections.abc import Callable

from relay.protocol.lifecycle import Flow
from relay.pump.end import End
from relay.pump.poller import HANG_UP, READ, WRITE, Poller
from relay.pump.transfer import Transfer


class Sockets:
    """Every descriptor that a pump waits for, with one poller."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._poll = poller.poll
        # By descriptor: whose it is, and the transfer that reads it, while its next read may be
        # looked up among the shapes. Whatever changes what is waited for takes that away, the
        # next read puts it back.
        self._ends: list[End | None] = []
        self._lanes: list[Transfer | None] = []
        self._watched: dict[int, Callable[[], None]] = {}
        self._released: list[End] = []

    def own(self, end: End) -> None:
        """A new socket, which is not waited for yet."""
        self._make_room(end.fd)
        self._ends[end.fd] = end

    def disown(self, end: End) -> None:
        """Let go of a socket, which stays open for somebody else."""
        self._ends[end.fd] = self._lanes[end.fd] = None
        if end.registered:
            self._poller.unregister(end.fd)

    def watch(self, fd: int, callback: Callable[[], None], *, writing: bool = False) -> None:
        """Call `callback` when the descriptor, no tunnel's, is ready; again to change it."""
        mask = READ | (WRITE if writing else 0)
        if fd in self._watched:
            self._poller.modify(fd, mask)
        else:
            self._poller.register(fd, mask)
        self._watched[fd] = callback
        self._make_room(fd)

    def unwatch(self, fd: int) -> None:
        del self._watched[fd]
        self._poller.unregister(fd)

    def update_interest(self, end: End) -> None:
        """Bring the registration of `end` in line with its transfers."""
        self._lanes[end.fd] = None
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

    def set_lane(self, end: End) -> None:
        """Behind a read: whether the next one may be looked up among the shapes."""
        plain = end.registered & READ and end.incoming.is_plain()
        self._lanes[end.fd] = end.incoming if plain else None

    def release(self, end: End, *, reset: bool = False) -> None:
        """Give up one socket; it is closed at the end of the batch, with a reset if wanted."""
        if end.released:
            return
        end.released = True
        # Forget, unregister, close: a number that the kernel gives out again must meet
        # neither an entry nor a registration of the old one.
        if self._ends[end.fd] is end:
            self._ends[end.fd] = self._lanes[end.fd] = None
        self._released.append(end)
        if end.registered:
            end.registered = 0
            try:
                self._poller.unregister(end.fd)
            except OSError:
                pass  # the descriptor is closed already, and its registration with it
        if reset:
            end.set_reset()

    def close_released(self) -> None:
        """Behind a batch, so that none of its events meets a number given out again."""
        for end in self._released:
            end.sock.close()
        self._released.clear()

    def _make_room(self, fd: int) -> None:
        more = fd + 1 - len(self._lanes)
        self._ends += [None] * more
        self._lanes += [None] * more


def interest(incoming: Transfer, outgoing: Transfer) -> int:
    """What to wait for at the end that `incoming` reads and `outgoing` writes.

    Read while the source lives and nothing is held for an open sink; behind a
    Close go on reading, to see the answer and the end. Write while bytes are held. One
    that is paused may still be lost.
    """
    paused = bool(incoming.held) and (incoming.flow is Flow.OPEN or incoming.flow is Flow.CUTTING)
    mask = 0 if paused or incoming.eof else READ
    if outgoing.held:
        mask |= WRITE
    if not mask and paused and not incoming.eof and not incoming.source.hung_up:
        mask = HANG_UP
    return mask
