"""Whether an instance may be given a session: what its probes say, and how its calls went.

An instance that answers its readiness route is fit until calls show otherwise. One that
fails them is set aside, longer and longer while it goes on failing, and comes back by
itself: the first good probe after that time (docs/operations.md, "Instances that fail").
"""

from __future__ import annotations

__all__ = [
    "READY",
    "UNASKED",
    "Failure",
    "Health",
    "chosen",
    "described",
    "expected",
    "failed",
    "is_silent",
    "next_probe",
    "probed",
    "served",
    "spread",
]

from collections.abc import Mapping
from enum import StrEnum

import msgspec

# What a probe says of an instance that can take a session, and what stands there before one.
READY = "ready"
UNASKED = "not probed yet"

# Seconds between probes of an instance that is ready: they only find silent deaths.
PROBE_READY = 5.0
# A session waits for one that is not ready, so it is asked soon; one that nobody waits for
# less and less often, down to what `/start` can bear after a bot was started again.
PROBE_UNREADY = 0.25
PROBE_UNREADY_MOST = 2.0

# A bot that is broken costs a caller each half minute; one that is mended waits no longer.
ASIDE_MOST = 30.0
# Doubling more often than this is beyond ASIDE_MOST.
MAX_DOUBLINGS = 16
# A wait is shortened by up to a quarter, so that many instances do not keep step.
SPREAD = 0.25


class Failure(StrEnum):
    """How an instance failed a call."""

    UNREACHABLE = "cannot connect"
    BROKEN = "broke off the handshake"  # or answered nonsense
    REFUSED = "refuses calls"
    SILENT = "does not answer calls"


# Seconds of the first time aside. A silent bot has cost its caller the whole attach_timeout.
ASIDE_FIRST = {
    Failure.UNREACHABLE: 0.5,
    Failure.BROKEN: 0.5,
    Failure.REFUSED: 0.5,
    Failure.SILENT: 5.0,
}
# A caller who stood in line leaves a bot less than its attach_timeout to answer; below this
# part of it the bot is not called silent.
SILENT_PART = 0.5
# A refusal may be the caller's fault; so many in a row, of whatever callers, are the bot's.
REFUSALS = 3


class Health(msgspec.Struct, frozen=True):
    """One instance; times are those of the caller's clock, in seconds.

    Attributes:
        says: what the last probe said.
        misses: probes in a row that were not good, since it was last expected to be ready.
        failures: calls in a row that it did not take.
        why: the last of them.
        aside: not before this time is it given a call; None when it is not set aside.
    """

    says: str = UNASKED
    misses: int = 0
    failures: int = 0
    why: Failure | None = None
    aside: float | None = None


def probed(health: Health, says: str, now: float) -> Health:
    """After a probe that said `says`."""
    ready = says == READY
    back = ready and health.aside is not None and now >= health.aside
    return msgspec.structs.replace(
        health,
        says=says,
        misses=0 if ready else health.misses + 1,
        aside=None if back else health.aside,
    )


def failed(health: Health, failure: Failure, now: float, jitter: float) -> Health:
    """After a call that it did not take.

    Args:
        jitter: from 0 up to 1, shortens the time aside.
    """
    if health.aside is not None and now < health.aside:
        return health  # calls that began before it was set aside: one failure, seen again
    failures = health.failures + 1
    doublings = failures - (REFUSALS if failure is Failure.REFUSED else 1)
    aside = health.aside
    if doublings >= 0:
        wait = ASIDE_FIRST[failure] * 2.0 ** min(doublings, MAX_DOUBLINGS)
        aside = now + spread(min(wait, ASIDE_MOST), jitter)
    return msgspec.structs.replace(health, failures=failures, why=failure, aside=aside)


def served(health: Health) -> Health:
    """After a call that it took."""
    return msgspec.structs.replace(health, failures=0, why=None, aside=None)


def expected(health: Health) -> Health:
    """When it has reason to become ready: it is asked often again."""
    return msgspec.structs.replace(health, misses=0)


def is_silent(asked: float, now: float, attach_timeout: float) -> bool:
    """Whether a bot that was asked at `asked` and has not answered had time enough for it."""
    return now - asked >= SILENT_PART * attach_timeout


def next_probe(health: Health, last: float, *, wanted: bool, jitter: float) -> float:
    """When to probe next.

    Args:
        last: when it was probed last.
        wanted: a caller waits.
        jitter: from 0 up to 1, shortens the wait.
    """
    if health.aside is not None and last < health.aside:
        return health.aside
    if health.says == READY:
        return last + spread(PROBE_READY, jitter)
    if wanted:
        return last + PROBE_UNREADY
    doublings = min(max(health.misses - 1, 0), MAX_DOUBLINGS)
    return last + spread(min(PROBE_UNREADY * 2.0**doublings, PROBE_UNREADY_MOST), jitter)


def chosen(instances: Mapping[str, Health]) -> list[str]:
    """Those that may be given a call, in the order given.

    Where every ready one is set aside, those that refused are offered all the same: it may
    be the callers that are refused everywhere, and the next one should not wait for that.
    """
    ready = {url: health for url, health in instances.items() if health.says == READY}
    fit = [url for url, health in ready.items() if health.aside is None]
    return fit or [url for url, health in ready.items() if health.why is Failure.REFUSED]


def described(health: Health) -> str:
    """Its state in a few words."""
    if health.aside is None:
        return health.says
    also = "" if health.says in (READY, health.why) else f", {health.says}"
    return f"set aside: {health.why}{also}"


def spread(seconds: float, jitter: float) -> float:
    """A wait of at most `seconds`, shortened by up to a quarter as `jitter` goes from 0 to 1."""
    return seconds * (1 - SPREAD * jitter)
