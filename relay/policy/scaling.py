"""How many bot processes to start, and how long to leave a command alone that fails.

Plain arithmetic over what `instances.launched` counts (docs/operations.md, "Launched bots").
"""

from __future__ import annotations

__all__ = ["Counts", "backoff", "missing", "startable"]

import msgspec

# The first failure may be a passing one; after a few the command is broken, and a try
# each half minute finds out soon enough that somebody has mended it.
BACKOFF_FIRST = 0.5
BACKOFF_MOST = 30.0


class Counts(msgspec.Struct, frozen=True):
    """The processes of one agent at a moment.

    Attributes:
        starting: not ready for their first session yet.
        room: sessions that the ready ones can still take.
        total: all that exist, those that are ending too.
    """

    starting: int = 0
    room: int = 0
    total: int = 0


def startable(counts: Counts, most: int) -> int:
    """Processes that will be ready later: those that start, and those that may be started.

    Args:
        most: processes of the agent at a time.
    """
    return counts.starting + max(0, most - counts.total)


def missing(waiting: int, counts: Counts, most: int, per_process: int) -> int:
    """How many processes to start now.

    Args:
        waiting: callers without a place.
        per_process: sessions that one process can hold.
    """
    callers = waiting - counts.room - counts.starting * per_process
    return max(0, min(-(-callers // per_process), most - counts.total))


def backoff(failures: int) -> float:
    """Seconds without a new start after so many starts that failed in a row."""
    if failures == 0:
        return 0.0
    return float(min(BACKOFF_FIRST * 2.0 ** min(failures - 1, 32), BACKOFF_MOST))
