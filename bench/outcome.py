"""What a workload says about a target, and how its processes are metered meanwhile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.probe import Sample, sample
from bench.stats import Histogram
from bench.targets import Target

__all__ = ["Meter", "Outcome", "histogram", "number", "percentiles"]

NS_PER_US = 1_000
# An end of the load that used more of a core than this was what limited it.
FULL = 0.95


@dataclass(slots=True)
class Outcome:
    """The members of a Round that a workload fills in (bench/rounds.py)."""

    invalid: str = ""
    note: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    raw: dict[str, object] = field(default_factory=dict)


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
        return {"pss_kib": (loaded.pss_kib - before.pss_kib) / tunnels}

    def saturated(self, generator_ns: float) -> str:
        """Which end of the load used a whole core; "" when none did.

        In a closed loop that end, not the target, then sets the pace.
        """
        shares = {"generator": generator_ns / 1e9 / self._seconds}
        if self._origin_before is not None and self._origin_after is not None:
            used = self._origin_after.cpu_ns - self._origin_before.cpu_ns
            shares["origin"] = used / 1e9 / self._seconds
        full = [f"the {end} used {share:.0%}" for end, share in shares.items() if share > FULL]
        return f"saturated: {' and '.join(full)} of a core" if full else ""

    def raw(self) -> dict[str, object]:
        """All samples."""
        return {
            "idle": self._target.idle,
            "before": self.before,
            "after": self.after,
            "origin_before": self._origin_before,
            "origin_after": self._origin_after,
        }


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
