"""Thousands of idle tunnels, opened and closed so that neither is in what is measured beside."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.children import ChildFailed
from bench.client import Channel
from bench.opening import open_calls
from bench.probe import Sample
from bench.targets import Target

__all__ = ["at_rest", "crowd"]

LOOK = 0.25  # seconds between two looks at a target
LOOKS = 2  # in a row: on a busy machine one that works may not have had its turn in a single one
RESTING = 0.03  # of a core; a target at rest uses a few thousandths
# To end five thousand sessions takes the relay 2 to 3 s after the last Close, on a machine that
# is left alone; a busy one needs several times that.
REST_SECONDS = 30.0


@contextmanager
def crowd(target: Target, count: int) -> Iterator[Sequence[Channel]]:
    """So many tunnels that carried one message each; before and after it the target is at rest.

    Raises:
        ChildFailed: a tunnel could not be opened, or the target did not come to rest.
    """
    before = at_rest(target)
    with open_calls(target.door, count) as tunnels:
        at_rest(target)
        yield tunnels
    at_rest(target, None if before is None else before.descriptors)


def at_rest(
    target: Target, descriptors: int | None = None, patience: float = REST_SECONDS
) -> Sample | None:
    """Wait until the target does nothing any more; a look at it then, None if it is not ours.

    Args:
        descriptors: what it had open before, to which it has to come back; None for any number.
        patience: seconds to wait.

    Raises:
        ChildFailed: it still worked then, or held what it had opened.
    """
    begun, seen = time.monotonic(), target.sample()
    deadline, resting = begun + patience, 0
    while seen is not None:
        time.sleep(LOOK)
        last, since, seen, begun = seen, begun, target.sample(), time.monotonic()
        if seen is None:
            break
        share = (seen.cpu_ns - last.cpu_ns) / 1e9 / (begun - since)
        rests = share <= RESTING and (descriptors is None or seen.descriptors <= descriptors)
        resting = resting + 1 if rests else 0
        if resting == LOOKS:
            return seen
        if begun > deadline:
            raise ChildFailed(
                f"{target.name} was not at rest after {patience:g} s: it used {share:.0%} of a"
                f" core and had {seen.descriptors} descriptors open, {descriptors} before"
            )
    return None
