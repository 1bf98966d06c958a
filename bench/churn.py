"""Calls set up as fast as a number of workers can: start, connect, first echo, close.

A closed loop: each worker begins a call when its last one has ended, so the
rate is what the target allows at that concurrency, and a slow target is asked
less often. Latencies of a closed loop are those of callers who wait, not of a
crowd that keeps coming.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter
from collections.abc import Sequence

from bench import wire
from bench.client import (
    Caller,
    Refused,
    add_door_options,
    door_from,
    raise_descriptor_limit,
)
from bench.scenarios import MAX_SECONDS, MAX_SIZE, MAX_WORKERS, MIN_SIZE
from bench.stats import Histogram
from bench.steps import PATIENCE, Steps, run
from bench.talk import Talk

__all__ = ["Churn", "main"]

# Each call leaves a local port in TIME_WAIT for a minute; there are some 28 000 of them.
MAX_CALLS = 20_000
# A failing target answers at once; without a bound the loop would only count failures.
MAX_FAILURES = 1_000
PARTS = ("start", "connect", "echo", "total")


class Churn:
    """The workers' common figures; `total` runs from the start to the first echo."""

    def __init__(self, size: int, record_from: float, end: float) -> None:
        self._size, self._record_from, self._end = size, record_from, end
        self._begun = 0
        self.parts = {part: Histogram() for part in PARTS}
        self.failures: Counter[str] = Counter()
        self.last = record_from
        self.completed = 0

    def worker(self, caller: Caller) -> Steps[None]:
        """Make calls until the end or one of the bounds."""
        while (
            time.monotonic() < self._end
            and self._begun < MAX_CALLS
            and self.failures.total() < MAX_FAILURES
        ):
            self._begun += 1
            try:
                yield from self._call(caller)
                self.completed += 1
            except (OSError, Refused, ValueError, KeyError, wire.BadFrame) as error:
                self.failures[str(error) or type(error).__name__] += 1
        caller.close()

    def _call(self, caller: Caller) -> Steps[None]:
        times = [time.monotonic_ns()]
        place, token = yield from caller.start()
        times.append(time.monotonic_ns())
        channel = yield from caller.attach(place, token)
        try:
            times.append(time.monotonic_ns())
            yield from caller.echo(channel, self._size)
            times.append(time.monotonic_ns())
            yield from caller.hang_up(channel)
        finally:
            channel.close()
        self.last = time.monotonic()
        if times[0] >= self._record_from * 1e9:
            for part, begun, ended in zip(PARTS, times, times[1:], strict=False):
                self.parts[part].record(ended - begun)
            self.parts["total"].record(times[-1] - times[0])

    def result(self) -> dict[str, object]:
        """The figures, ready for JSON; times in nanoseconds."""
        elapsed = max(self.last - self._record_from, 1e-9)
        return {
            "completed": self.completed,
            "failed": self.failures.total(),
            "failures": dict(self.failures.most_common(10)),
            "per_second": self.parts["total"].count / elapsed,
            "bounded": self._begun >= MAX_CALLS,
            "latency": self.parts["total"].dump(),
            "parts": {part: self.parts[part].dump() for part in PARTS[:-1]},
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once; prints the result as one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.churn", description=__doc__)
    add_door_options(parser)
    for name in ("workers", "size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("seconds", "warmup"):
        parser.add_argument(f"--{name}", type=float, required=True)
    options = parser.parse_args(arguments)
    within = 1 <= options.workers <= MAX_WORKERS and MIN_SIZE <= options.size <= MAX_SIZE
    if not within or not 0 < options.seconds <= MAX_SECONDS:
        parser.error("workers, size or seconds are out of the limits of bench/scenarios.py")
    raise_descriptor_limit()
    talk, door = Talk(options.held), door_from(options)
    talk.turn("ready")
    gc.collect()
    gc.disable()
    record_from = time.monotonic() + options.warmup
    end = record_from + options.seconds
    cpu = time.process_time_ns()
    churn = Churn(options.size, record_from, end)
    run((churn.worker(Caller(door, seed)) for seed in range(options.workers)), end + PATIENCE + 1)
    cpu = time.process_time_ns() - cpu
    talk.turn("done")
    talk.say("result", cpu_ns=cpu, **churn.result())
    return 0


if __name__ == "__main__":
    sys.exit(main())
