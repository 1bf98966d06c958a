"""What the daemon does again and again beside its callers."""

from __future__ import annotations

__all__ = ["poll_stops", "sweep"]

import contextlib

import trio

from relay.errors import StoreError
from relay.server.exchange import Front

# Asked-for stops of sessions that this node holds are looked up so often.
STOP_POLL = 1.0
# Reservations that nobody claimed are ended, and what is old or gone forgotten, so often.
SWEEP = 5.0


async def poll_stops(front: Front) -> None:
    """Stops and ends that another process has told the store of."""
    while True:
        await trio.sleep(STOP_POLL)
        with contextlib.suppress(StoreError):
            for session in await front.store.stop_requests():
                await front.sessions.stop(session.id)
                await front.calls.end(session.id, "stop")
            await front.calls.end_strays(front.store)


async def sweep(front: Front) -> None:
    """End what nobody claimed, forget what is old, and drains of what is gone."""
    while True:
        with contextlib.suppress(StoreError):
            await front.sessions.sweep()
        await front.drains.forget(front.catalog.agents, front.pool.gone)
        await trio.sleep(SWEEP)
