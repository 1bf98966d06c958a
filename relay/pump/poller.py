"""What a pump waits with: on Linux epoll itself, elsewhere the same calls over `selectors`.

What the pump relies on, and every kind of poller keeps:

1. Level-triggered: what is ready and was not served is reported again.
2. A hang-up or an error of a registered descriptor is reported as one of the
   directions that it is registered for.
3. In one batch a descriptor comes at most once.
"""

from __future__ import annotations

__all__ = ["READ", "WRITE", "Poller", "SelectorPoller", "new_poller"]

import select
import selectors
from collections.abc import Callable
from typing import Final, Protocol

# Epoll's own numbers, so that on Linux nothing is translated.
READ: Final = 0x1
WRITE: Final = 0x4

# From the directions of `selectors` to ours and back.
MASKS = {
    selectors.EVENT_READ: READ,
    selectors.EVENT_WRITE: WRITE,
    selectors.EVENT_READ | selectors.EVENT_WRITE: READ | WRITE,
}
EVENTS = {mask: events for events, mask in MASKS.items()}


class Poller(Protocol):
    """The part of `select.epoll` that a pump uses; masks are made of `READ` and `WRITE`."""

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

    def register(self, fd: int, eventmask: int, /) -> None:
        self._selector.register(fd, EVENTS[eventmask])

    def modify(self, fd: int, eventmask: int, /) -> None:
        self._selector.modify(fd, EVENTS[eventmask])

    def unregister(self, fd: int, /) -> None:
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
