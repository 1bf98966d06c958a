"""How the daemon runs to its end: wait for its calls, close them, let the pumps go.

Calls are closed one after the other, spread over a few seconds, so that their clients do not
all come back at once. It is the control process that spreads them, not the pumps: only it
sees the calls of all pumps and its own, it can be told to hurry, and when it is killed
meanwhile, those that it has not ended yet go on.
"""

from __future__ import annotations

__all__ = ["END_MARGIN", "Ending", "end_calls", "end_pumps", "run_to_end", "wait_end"]

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from relay.errors import RelayError
from relay.instances.pool import Instances
from relay.ops.scheduling import ask_for_long_turns
from relay.policy.interfaces import Log
from relay.pump_processes import PumpProcesses
from relay.server.exchange import Front
from relay.server.listener import Listener

# After the last Close frames: closing handshakes (`close_timeout`) and their reports.
END_MARGIN = 2.0
END_POLL = 0.05
# While calls are waited for, the log says which: the first of them, and how many there are.
TELL_EVERY = 30.0
MAX_LISTED = 20


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
    front.ending = True
    pool.drain()
    listener.end_idle()
    tell_at = trio.current_time()
    with trio.move_on_after(front.limits.drain_timeout) as patience:
        # What was under way goes on to its answer, and a caller who was let in to a call.
        while listener.finishing() or front.calls.any() or not front.alone.is_set():
            now = trio.current_time()
            if now >= tell_at and not ending.hurry.is_set():
                tell_at = now + TELL_EVERY
                _tell(front, patience.deadline - now)
            with trio.move_on_after(END_POLL):
                await ending.hurry.wait()
                return


def _tell(front: Front, left: float) -> None:
    """Say who is waited for, and how much longer."""
    sessions = sorted(front.calls.sessions())
    front.log.event(
        "draining", calls=len(sessions), sessions=sessions[:MAX_LISTED], seconds=round(left, 1)
    )


async def end_calls(ending: Ending, front: Front) -> None:
    """Close every call with 1012 and wait, bounded, until their ends are recorded."""
    sessions = sorted(front.calls.sessions())  # random ids: the order is nobody's
    step = front.limits.close_spread / max(1, len(sessions))
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:  # a pump that is stuck delays no other's calls
        for number, session in enumerate(sessions):
            with trio.move_on_at(begin + number * step):
                await ending.hurry.wait()
            if ending.hurry.is_set():
                break
            nursery.start_soon(front.calls.end, session, "drain")
    await front.calls.end_all()  # those that are left: begun meanwhile, or in a hurry
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


def run_to_end(main: Callable[[], Awaitable[None]]) -> None:
    """`trio.run`, with an error that is meant for the operator out of its nurseries' groups.

    The process asks for turns that whoever carries calls may interrupt.
    """
    ask_for_long_turns()
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        known, rest = group.split(RelayError)
        if known is None or rest is not None:
            raise
        error: BaseException = known
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
