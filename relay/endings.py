"""How the daemon ends: wait for its calls, close them, let the pumps go."""

from __future__ import annotations

__all__ = ["END_MARGIN", "Ending", "end_calls", "end_pumps", "wait_end"]

from dataclasses import dataclass, field

import trio

from relay.instances.pool import Instances
from relay.policy.interfaces import Log
from relay.pump_processes import PumpProcesses
from relay.server.exchange import Front
from relay.server.listener import Listener

# After the last Close frames: closing handshakes (`close_timeout`) and their reports.
END_MARGIN = 2.0
END_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Ending:
    """What the daemon has been told of its end.

    Attributes:
        begun: no new sessions; those that live may go on.
        hurry: nor may these.
    """

    begun: trio.Event = field(default_factory=trio.Event)
    hurry: trio.Event = field(default_factory=trio.Event)


async def wait_end(ending: Ending, front: Front, pool: Instances, listener: Listener) -> None:
    """Return when the end has begun and no call is left to wait for, or nobody wants to wait.

    At once when another process is the node (`takeover.finish`).
    """
    await ending.begun.wait()
    if front.successor is not None:
        return
    front.draining = True
    pool.drain()
    listener.end_idle()
    with trio.move_on_after(front.limits.drain_timeout):
        # What was under way goes on to its answer, and a caller who was let in to a call.
        while listener.finishing() or front.calls.any() or not front.alone.is_set():
            with trio.move_on_after(END_POLL):
                await ending.hurry.wait()
                return


async def end_calls(front: Front) -> None:
    """Close every call with 1012 and wait, bounded, until their ends are recorded."""
    await front.calls.end_all()
    with trio.move_on_after(front.limits.close_timeout + END_MARGIN):
        while front.calls.any():
            await trio.sleep(END_POLL)


async def end_pumps(front: Front, processes: PumpProcesses, log: Log) -> None:
    """Let the pumps exit; one that does not is killed."""
    await front.pumps.quit()
    if not await front.pumps.wait_gone():
        log.warning("pump_stuck")
    await processes.end()
    await front.pumps.wait_gone()  # those that were killed have calls to record
