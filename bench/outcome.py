"""What a workload says about a target, and how its processes are metered meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.children import Child
from bench.probe import Sample, sample
from bench.stats import Histogram
from bench.targets import Target

__all__ = ["Meter", "Outcome", "histogram", "number", "percentiles", "ready", "work"]

NS_PER_US = 1_000
READY_WAIT = 20.0  # seconds for a worker to start up
# A load that used more of its core than this was what limited the round.
FULL = 0.95


@dataclass(slots=True)
class Outcome:
    """The members of a Round that a workload fills in (bench/rounds.py)."""

    invalid: str = ""
    note: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    raw: dict[str, object] = field(default_factory=dict)

    def judge_load(self, saturated: str, target: Target) -> None:
        """A round in which the load was the limit does not count, unless the load is all there is.

        Args:
            saturated: how much of it; "" when it was not.
        """
        if target.forwards > 1:
            self.invalid = self.invalid or saturated


class Meter:
    """Samples of a target's tree and of the origin: the first when it is made, then `end`.

    Args:
        origin_pid: the echo server; None when it is not ours.
    """

    def __init__(self, target: Target, origin_pid: int | None) -> None:
        self._target, self._origin_pid = target, origin_pid
        self.after: Sample | None = None
        self._origin_after: Sample | None = None
        self._seconds = 0.0
        self._begun = time.monotonic()
        self.before = target.sample()
        self._origin_before = self._origin()

    def end(self) -> None:
        """Take the last samples, as soon as the load is over."""
        self._seconds = time.monotonic() - self._begun
        self.after = self._target.sample()
        self._origin_after = self._origin()

    def _origin(self) -> Sample | None:
        return None if self._origin_pid is None else sample(self._origin_pid)

    def per(self, count: float, forwards: int, generator_ns: float | None) -> dict[str, float]:
        """CPU and context switches per unit of work.

        Args:
            count: units that came through, such as echoes.
            forwards: how often the target passed each of them on.
            generator_ns: CPU time of the load generator.
        """
        if not count:
            return {}
        figures = {}
        if self.before is not None and self.after is not None:
            used = self.after.cpu_ns - self.before.cpu_ns
            figures["cpu_us"] = used / NS_PER_US / count / forwards
            if pumps := self.after.pump_cpu_ns - self.before.pump_cpu_ns:
                figures["pump_cpu_us"] = pumps / NS_PER_US / count / forwards
            switches = self.after.switches - self.before.switches
            figures["switches"] = switches / count / forwards
        if self._origin_before is not None and self._origin_after is not None:
            used = self._origin_after.cpu_ns - self._origin_before.cpu_ns
            figures["origin_cpu_us"] = used / NS_PER_US / count
        if generator_ns is not None:
            figures["generator_cpu_us"] = generator_ns / NS_PER_US / count
        return figures

    @staticmethod
    def pss(before: Sample | None, loaded: Sample | None, tunnels: int) -> dict[str, float]:
        """Memory per tunnel, beyond what the target had before."""
        if before is None or loaded is None:
            return {}
        figures = {"pss_kib": (loaded.pss_kib - before.pss_kib) / tunnels}
        if loaded.pump_pss_kib:
            figures["pump_kib"] = (loaded.pump_pss_kib - before.pump_pss_kib) / tunnels
        return figures

    def grown(self, loaded: Sequence[Sample]) -> dict[str, float]:
        """By how much the memory grew: the most of several samples under load."""
        before = self.before
        if before is None or not loaded:
            return {}
        figures = {"grown_kib": max(each.pss_kib for each in loaded) - before.pss_kib}
        if before.pump_pss_kib:
            most = max(each.pump_pss_kib for each in loaded)
            figures["pump_grown_kib"] = most - before.pump_pss_kib
        return {name: float(value) for name, value in figures.items()}

    def saturated(self, generator_ns: float) -> str:
        """How much of their core generator and origin used, when that was all; "" otherwise.

        In a closed loop they, not the target, then set the pace. Where the target is on the
        same core that means that it cost next to nothing.
        """
        used = generator_ns
        if self._origin_before is not None and self._origin_after is not None:
            used += self._origin_after.cpu_ns - self._origin_before.cpu_ns
        share = used / 1e9 / self._seconds
        return f"saturated: the load used {share:.0%} of its core" if share > FULL else ""

    def raw(self) -> dict[str, object]:
        """All samples."""
        return {
            "idle": self._target.idle,
            "before": self.before,
            "after": self.after,
            "origin_before": self._origin_before,
            "origin_after": self._origin_after,
        }


def ready(worker: Child) -> Child:
    """A worker that has said that it is ready. Raises ChildFailed."""
    worker.hear("ready", READY_WAIT)
    return worker


def work(
    worker: Child, meter: Meter, seconds: float, meanwhile: Callable[[], None] | None = None
) -> dict[str, object]:
    """Let a worker that is ready do its work between the meter's samples; its result.

    A worker says `ready`, waits for a line, works, says `done`, waits for a line and says
    `result`. So neither opening nor closing connections is counted.

    Args:
        seconds: within which it must be done.
        meanwhile: done here while it works.

    Raises:
        ChildFailed: it ended, or was not done in time.
    """
    worker.go_on()
    if meanwhile is not None:
        meanwhile()
    worker.hear("done", seconds)
    meter.end()
    worker.go_on()
    return worker.hear("result", seconds)


def percentiles(latency: Histogram) -> dict[str, float]:
    """p50 to max in microseconds; nothing when nothing was counted."""
    if not latency.count:
        return {}
    wanted = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}
    figures = {name: latency.percentile(percent) / NS_PER_US for name, percent in wanted.items()}
    return {**figures, "max": latency.highest / NS_PER_US}


def histogram(result: Mapping[str, object], key: str) -> Histogram:
    """A histogram out of a worker's result. Raises ValueError, KeyError."""
    dumped = result[key]
    if not isinstance(dumped, dict):
        raise ValueError(f"a worker's {key} is no histogram")
    return Histogram.load(dumped)


def number(result: Mapping[str, object], key: str) -> float:
    """A number out of a worker's result. Raises ValueError, KeyError."""
    value = result[key]
    if not isinstance(value, int | float):
        raise ValueError(f"a worker's {key} is {value!r}; expected a number")
    return value
