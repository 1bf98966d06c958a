"""The method: warm up, find a count, repeat, keep every repetition.

Method
   A loop is run with growing counts until one run lasts `LONG_ENOUGH`; that is the
   warm-up as well. Then `REPETITIONS` rounds go through all loops in turn, so that a
   disturbance of the machine meets each of them for a while and none for long. What
   disturbs can only add, so the minimum says most about the code and the distance of
   the median from it most about the machine.
   The garbage collector is off meanwhile: what exists is frozen, as in a pump, and no
   case makes cycles.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Annotated

import msgspec

from bench.micro.case import Case, Loop

__all__ = ["Clock", "Clocks", "Timing", "calibrate", "measure", "without_collection"]

REPETITIONS = 9
LONG_ENOUGH = 50_000_000  # ns: a thousand times what a clock read or a loop's start takes
GROWTH = 10  # the most by which the count grows at once: the first runs say little
MARGIN = 1.1  # aims above LONG_ENOUGH, so that the next run reaches it

Clock = Callable[[], int]
Times = Annotated[tuple[float, ...], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Clocks:
    """Where time comes from, in ns: wall time, and CPU time of all threads, kernel included."""

    wall: Clock = time.perf_counter_ns
    cpu: Clock = time.process_time_ns


@dataclass(frozen=True, slots=True)
class Timing:
    """One case's figures: ns per operation of every repetition.

    Attributes:
        operations: of one repetition (of the last one, where they differ).
    """

    operations: int
    wall: Times
    cpu: Times

    @property
    def spread(self) -> float:
        """How far the median of the wall times lies above their minimum, as a fraction."""
        return median(self.wall) / min(self.wall) - 1


def measure(
    cases: Sequence[Case],
    *,
    clocks: Clocks | None = None,
    repetitions: int = REPETITIONS,
    long_enough: int = LONG_ENOUGH,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Timing]:
    """Time the cases, by name; `tell` is told how far it is."""
    clocks = clocks or Clocks()
    with ExitStack() as stack:
        loops = {case.name: case.setup(stack) for case in cases}
        stack.enter_context(without_collection())
        counts = {}
        for name, loop in loops.items():
            tell(f"warming up {name}")
            counts[name] = calibrate(loop, clocks.wall, long_enough)
        runs: dict[str, list[tuple[int, int, int]]] = {name: [] for name in loops}
        for number in range(1, repetitions + 1):
            tell(f"repetition {number} of {repetitions}")
            for name, loop in loops.items():
                runs[name].append(_run(loop, counts[name], clocks))
    return {name: _timing(each) for name, each in runs.items()}


def calibrate(loop: Loop, wall: Clock, long_enough: int) -> int:
    """A count with which the loop lasts at least `long_enough` ns; runs it several times."""
    count = 1
    while True:
        begin = wall()
        loop(count)
        lasted = wall() - begin
        if lasted >= long_enough:
            return count
        wanted = math.ceil(count * MARGIN * long_enough / max(lasted, 1))
        count = min(wanted, count * GROWTH)


@contextmanager
def without_collection() -> Iterator[None]:
    """Collect and freeze what exists, keep the collector off, put everything back."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def _run(loop: Loop, count: int, clocks: Clocks) -> tuple[int, int, int]:
    """Operations, wall time and CPU time of one repetition."""
    wall, cpu = clocks.wall(), clocks.cpu()
    operations = loop(count)
    used, lasted = clocks.cpu() - cpu, clocks.wall() - wall
    return operations, lasted, used


def _timing(runs: Sequence[tuple[int, int, int]]) -> Timing:
    return Timing(
        operations=runs[-1][0],
        wall=tuple(wall / operations for operations, wall, _ in runs),
        cpu=tuple(cpu / operations for operations, _, cpu in runs),
    )
