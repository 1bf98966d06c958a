"""What a pump waits with: on Linux epoll itself, elsewhere the same calls over `selectors`.

What the pump relies on, and every kind of poller keeps:

1. Level-triggered: what is ready and was not served is reported again.
2. A hang-up or an error of a registered descriptor is reported as one of the
   directions that it is registered for, or as one of neither.
3. In one batch a descriptor comes at most once.

Epoll reports a hang-up or an error of every registered descriptor. `selectors` has no
way to wait for nothing else, so there a paused peer's reset shows when it is read again.
"""

from __future__ import annotations

__all__ = ["GONE", "HANG_UP", "READ", "WRITE", "Poller", "SelectorPoller", "new_poller"]

import select
import selectors
from collections.abc import Callable
from typing import Final, Protocol

# Epoll's own numbers, so that on Linux nothing is translated.
READ: Final = 0x1
WRITE: Final = 0x4
# Of neither direction: a hang-up or an error only, where the poller can tell.
HANG_UP: Final = 0x10
# What tells of one: EPOLLERR and EPOLLHUP.
GONE: Final = 0x8 | HANG_UP

# From the directions of `selectors` to ours and back.
MASKS = {
    selectors.EVENT_READ: READ,
    selectors.EVENT_WRITE: WRITE,
    selectors.EVENT_READ | selectors.EVENT_WRITE: READ | WRITE,
}
EVENTS = {mask: events for events, mask in MASKS.items()}


class Poller(Protocol):
    """The part of `select.epoll` that a pump uses. A mask is `READ`, `WRITE`, both or `HANG_UP`."""

    def register(self, fd: int, eventmask: int, /) -> None: ...

    def modify(self, fd: int, eventmask: int, /) -> None: ...

    def unregister(self, fd: int, /) -> None: ...

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """Wait at most `timeout` seconds; descriptors with the directions that are ready."""
        ...

    def close(self) -> None: ...


class SelectorPoller:
    """The best that a system without epoll has: kqueue or poll.

    `select` would do but for a descriptor that is closed while it is registered: for
    that it fails as a whole.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector or selectors.DefaultSelector()
        self._silent: set[int] = set()  # would only be waited for a hang-up

    def register(self, fd: int, eventmask: int, /) -> None:
        if eventmask == HANG_UP:
            self._silent.add(fd)
        else:
            self._selector.register(fd, EVENTS[eventmask])

    def modify(self, fd: int, eventmask: int, /) -> None:
        if fd in self._silent or eventmask == HANG_UP:
            self.unregister(fd)
            self.register(fd, eventmask)
        else:
            self._selector.modify(fd, EVENTS[eventmask])

    def unregister(self, fd: int, /) -> None:
        if fd in self._silent:
            self._silent.remove(fd)
            return
        try:
            self._selector.unregister(fd)
        except KeyError:  # also after a `modify` that failed
            raise FileNotFoundError(f"descriptor {fd} is not registered") from None

    def poll(self, timeout: float, _maxevents: int, /) -> list[tuple[int, int]]:
        """All that is ready: these report in a fixed order, and a cut would starve the last."""
        found: dict[int, int] = {}
        for key, events in self._selector.select(timeout):
            # Kqueue reports each direction of a descriptor apart.
            found[key.fd] = found.get(key.fd, 0) | MASKS[events]
        return list(found.items())

    def close(self) -> None:
        self._selector.close()


new_poller: Callable[[], Poller] = select.epoll if hasattr(select, "epoll") else SelectorPoller
