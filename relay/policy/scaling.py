"""How many bot processes to start, to keep and to end, and how long a failing command rests.

Plain arithmetic over what `instances.scaler` counts (docs/operations.md, "Launched bots").

Laws:
- Nothing is started over `max_agents`, whatever is asked for.
- When starts succeed there are `min_agents` processes and places for `spare_places` callers
  who have not called yet, as far as `max_agents` allows.
- A process that is ended for want of callers holds no session, and what is left keeps both
  promises: nothing is started in its place.
- A process is ended so only if there was one too many at every moment of `idle_retirement`.
"""

from __future__ import annotations

__all__ = [
    "AHEAD_AT_ONCE",
    "Counts",
    "ahead",
    "backoff",
    "missing",
    "overdue",
    "startable",
    "surplus",
    "too_many_since",
]

import msgspec

from relay.policy.catalog import Agent

# The first failure may be a passing one; after a few the command is broken, and a try
# each half minute finds out soon enough that somebody has mended it.
BACKOFF_FIRST = 0.5
BACKOFF_MOST = 30.0
# A bot that starts takes a whole processor for seconds. So many at a time start ahead of
# their callers, so that live calls beside them go on; one for whom somebody waits starts anyway.
AHEAD_AT_ONCE = 4


class Counts(msgspec.Struct, frozen=True):
    """The processes of one agent at a moment.

    Attributes:
        starting: not ready for their first session yet, or not again for the next.
        silent: without a session, and with no answer to the last probe: perhaps lost.
        room: sessions that the ready ones can still take.
        idle: the ready ones without a session.
        live: all that stay, those with sessions too.
        total: all that exist, those that are ending too.
    """

    starting: int = 0
    silent: int = 0
    room: int = 0
    idle: int = 0
    live: int = 0
    total: int = 0


def startable(agent: Agent, counts: Counts) -> int:
    """Processes that will be ready later: those that start, and those that may be started."""
    return counts.starting + max(0, agent.max_agents - counts.total)


def missing(agent: Agent, waiting: int, counts: Counts) -> int:
    """How many processes to start now for callers who wait.

    Args:
        waiting: callers without a place.
    """
    per_process = agent.sessions_per_instance
    callers = waiting - counts.room - counts.starting * per_process
    return max(0, min(-(-callers // per_process), agent.max_agents - counts.total))


def ahead(agent: Agent, waiting: int, counts: Counts) -> int:
    """How many processes to start now for callers who have not called yet."""
    per_process = agent.sessions_per_instance
    # One that is silent is not replaced before it is given up: on a machine with too much
    # to do that would only add to it.
    coming = counts.starting + counts.silent
    lacking = agent.spare_places + waiting - counts.room - coming * per_process
    wanted = max(-(-lacking // per_process), agent.min_agents - counts.live)
    return max(0, min(wanted, agent.max_agents - counts.total, AHEAD_AT_ONCE - counts.starting))


def surplus(agent: Agent, waiting: int, counts: Counts) -> int:
    """How many idle processes are not needed now; none while somebody waits."""
    if waiting:
        return 0
    over_spare = (counts.room - agent.spare_places) // agent.sessions_per_instance
    return max(0, min(counts.idle, counts.live - agent.min_agents, over_spare))


def too_many_since(since: tuple[float, ...], surplus: int, now: float) -> tuple[float, ...]:
    """Since when there has been one process too many without a break, since when two, …

    Args:
        since: the same at the last look, without those that were ended then.
        now: seconds, of any clock.
    """
    return since[:surplus] + (now,) * (surplus - len(since))


def overdue(agent: Agent, since: tuple[float, ...], now: float) -> int:
    """How many processes have been too many for `idle_retirement`: they are to end."""
    return sum(now - each >= agent.idle_retirement for each in since)


def backoff(failures: int) -> float:
    """Seconds without a new start after so many starts that failed in a row."""
    if failures == 0:
        return 0.0
    return float(min(BACKOFF_FIRST * 2.0 ** min(failures - 1, 32), BACKOFF_MOST))
