"""The pollers that a pump is tested with: the system's own, and what stands in for it elsewhere."""

from __future__ import annotations

import select
import selectors
from collections.abc import Callable

from relay.pump.poller import Poller, SelectorPoller, new_poller
from relay.pump.pump import Pump


class Apart(selectors.PollSelector):
    """Reports the two directions of a descriptor one by one, as kqueue does."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        directions = (selectors.EVENT_READ, selectors.EVENT_WRITE)
        return [
            (key, events & each)
            for key, events in super().select(timeout)
            for each in directions
            if events & each
        ]


POLLERS: dict[str, Callable[[], Poller]] = {
    "own": new_poller,
    "selectors": lambda: SelectorPoller(Apart()),
}


def ready(pump: Pump, wait: float) -> bool:
    """Whether a turn would find something to do, now or within `wait` seconds."""
    poller = pump._poller
    if isinstance(poller, select.epoll):
        # Looked at from outside: epoll moves what it has reported to the end of its list.
        return bool(select.select([poller], [], [], wait)[0])
    return bool(poller.poll(wait, 1))
