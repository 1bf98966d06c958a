"""Which core does what while a round is measured.

Theory: to wake a process on another core takes an interrupt between cores. On a virtual
machine that may cost more than all that is to be measured, and never twice the same; and a
scheduler that is free packs the processes of one round on a core and spreads those of the
next. So the processes are pinned, every target in the same way. On one core nothing is
woken across cores: what is measured is the work.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

__all__ = ["Cores", "allowed", "pinned", "split", "used"]

# one: everything on one core. apart: the load and the origin on one, the target on another.
# two: the target wherever it likes, for those that have something to gain from a second process.
Cores = Literal["one", "apart", "two"]


@cache
def allowed() -> tuple[int, ...]:
    """The cores that this process was started with."""
    return tuple(sorted(os.sched_getaffinity(0)))


def split(how: Cores, cores: Sequence[int]) -> tuple[set[int], set[int]]:
    """The cores of the load with the origin, and those of the target."""
    if how == "one":
        return {cores[-1]}, {cores[-1]}
    return {cores[0]}, {cores[-1]} if how == "apart" else set(cores)


def used(how: Cores) -> set[int]:
    """All cores on which a round so pinned takes place."""
    load_cores, target_cores = split(how, allowed())
    return load_cores | target_cores


@contextmanager
def pinned(how: Cores, target: Iterable[int], origin: int | None) -> Iterator[None]:
    """Pin processes until the end of the block; what this process starts there is the load.

    Args:
        target: its processes; the origin itself when nothing is in between.
        origin: the echo server; None when it is not ours.
    """
    target = list(target)
    load_cores, target_cores = split(how, allowed())
    ends = [os.getpid(), *([] if origin is None else [origin])]
    try:
        _pin(target, target_cores)
        _pin(ends, load_cores)
        yield
    finally:
        _pin([*target, *ends], set(allowed()))


def _pin(pids: Iterable[int], cores: set[int]) -> None:
    """Every thread of these processes; one that has ended, or is not ours, is passed over."""
    for pid in pids:
        try:
            threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
        except OSError:
            continue
        for thread in threads:
            try:
                os.sched_setaffinity(thread, cores)
            except (ProcessLookupError, PermissionError):
                pass
