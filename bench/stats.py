"""Latency histograms, and what several rounds say together; pure, no clock.

Theory: a log-linear histogram. Values below 2 * SUB have a counter each; above,
every power of two is cut into SUB equal parts, so a reported value exceeds the
true one by less than 1 part in SUB, whatever its size. Memory is bounded by
the width of the largest value (64 bits), not by the number of values.

Laws (tests/unit/bench/test_stats.py):
    percentile(p) >= the nearest-rank percentile, by less than 1/SUB of it;
    a merge of histograms equals the histogram of all values together;
    whatever makes both sides of a round slower by the same factor leaves `paired` as it was.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Band", "Histogram", "Verdict", "band", "best", "compare", "median", "paired"]

# 2**7 = 128 parts per power of two: an error below 0.8 %, far under the noise of a shared
# machine, in 7 424 counters (58 KiB) for values of up to 64 bits.
SUB_BITS = 7
SUB = 1 << SUB_BITS
MAX_BITS = 64
COUNTERS = ((MAX_BITS - SUB_BITS) << SUB_BITS) + SUB
LARGEST = (1 << MAX_BITS) - 1


class Histogram:
    """Counts of non-negative whole numbers, here nanoseconds."""

    __slots__ = ("_counters", "count", "highest", "lowest", "total")

    def __init__(self) -> None:
        self._counters = [0] * COUNTERS
        self.count = 0
        self.total = 0
        self.lowest = LARGEST
        self.highest = 0

    def record(self, value: int) -> None:
        """Count one value; below 0 counts as 0, above 64 bits as the largest."""
        if not 0 <= value <= LARGEST:
            value = 0 if value < 0 else LARGEST
        shift = value.bit_length() - SUB_BITS - 1
        if shift <= 0:
            self._counters[value] += 1
        else:
            self._counters[(shift << SUB_BITS) + (value >> shift)] += 1
        self.count += 1
        self.total += value
        if value > self.highest:
            self.highest = value
        if value < self.lowest:
            self.lowest = value

    def merge(self, other: Histogram) -> None:
        """Add every count of another histogram to this one."""
        for index, count in enumerate(other._counters):
            if count:
                self._counters[index] += count
        self.count += other.count
        self.total += other.total
        self.lowest = min(self.lowest, other.lowest)
        self.highest = max(self.highest, other.highest)

    def percentile(self, percent: float) -> int:
        """The nearest-rank percentile, rounded up to its counter's upper edge.

        Args:
            percent: above 0, up to 100.

        Returns:
            0 when nothing was counted; never more than the largest value counted.

        Raises:
            ValueError: percent is out of range.
        """
        return self.percentiles((percent,))[0]

    def percentiles(self, percents: Sequence[float]) -> list[int]:
        """Several at once, in ascending order, in one pass. Raises as `percentile` does."""
        for percent in percents:
            if not 0 < percent <= 100:
                raise ValueError(f"percent is {percent}; expected above 0, up to 100")
        # Ceiling without floats where the product is whole, so that 50 % of 2 is rank 1.
        ranks = [-int(-self.count * percent // 100) for percent in percents]
        found: list[int] = []
        seen = 0
        for index, count in enumerate(self._counters):
            seen += count
            while count and len(found) < len(ranks) and seen >= ranks[len(found)]:
                found.append(min(_upper_edge(index), self.highest))
        return found + [0] * (len(ranks) - len(found))

    def mean(self) -> float:
        """The exact mean; 0 when nothing was counted."""
        return self.total / self.count if self.count else 0.0

    def dump(self) -> dict[str, object]:
        """A JSON-ready form: the non-empty counters by index, and the exact ends."""
        return {
            "sub_bits": SUB_BITS,
            "count": self.count,
            "total": self.total,
            "lowest": self.lowest if self.count else 0,
            "highest": self.highest,
            "counters": {str(i): count for i, count in enumerate(self._counters) if count},
        }

    @classmethod
    def load(cls, dumped: Mapping[str, object]) -> Histogram:
        """The histogram that `dump` described.

        Raises:
            ValueError: the dump has another resolution, or is not a dump.
        """
        counters, sub_bits = dumped.get("counters"), dumped.get("sub_bits")
        if sub_bits != SUB_BITS or not isinstance(counters, dict):
            raise ValueError(f"not a histogram with sub_bits = {SUB_BITS}")
        made = cls()
        for index, count in counters.items():
            made._counters[int(index)] = int(count)
        made.count, made.total = _whole(dumped, "count"), _whole(dumped, "total")
        made.highest = _whole(dumped, "highest")
        made.lowest = _whole(dumped, "lowest") if made.count else LARGEST
        return made


def median(values: Iterable[float | None]) -> float | None:
    """The median of the values that are there; None when there are none."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


@dataclass(frozen=True, slots=True)
class Band:
    """What several rounds say about one figure: the median, the ends, how many there were."""

    middle: float
    low: float
    high: float
    count: int


# What two bands say about each other; "unknown" when one of them is a single round.
Verdict = Literal["lower", "higher", "noise", "unknown"]


def band(values: Iterable[float]) -> Band | None:
    """The band of these values; None when there are none."""
    present = list(values)
    if not present:
        return None
    return Band(statistics.median(present), min(present), max(present), len(present))


def paired(values: Mapping[int, float], bases: Mapping[int, float]) -> list[float]:
    """value / base of every round that has both, in the order of the rounds.

    The two sides of a round were measured next to each other, so what the machine did to both
    cancels out here and would not in a ratio of two medians. A base of 0 gives no ratio.
    """
    return [values[number] / bases[number] for number in sorted(values) if bases.get(number)]


def best(bands: Mapping[str, Band], better: Literal["lower", "higher"]) -> str | None:
    """The name with the best median, of several the first; None when there are no names."""
    sign = 1 if better == "lower" else -1
    return min(bands, key=lambda name: sign * bands[name].middle, default=None)


def compare(before: Band, after: Band) -> Verdict:
    """Whether the second is another figure than the first; bands that touch are noise."""
    if min(before.count, after.count) < 2:
        return "unknown"
    if after.low > before.high:
        return "higher"
    return "lower" if after.high < before.low else "noise"


def _upper_edge(index: int) -> int:
    """The largest value that falls into a counter."""
    if index < 2 * SUB:
        return index
    shift = (index >> SUB_BITS) - 1
    part = index - (shift << SUB_BITS)
    return ((part + 1) << shift) - 1


def _whole(dumped: Mapping[str, object], key: str) -> int:
    value = dumped.get(key)
    if not isinstance(value, int):
        raise ValueError(f"histogram member {key} is {value!r}; expected a whole number")
    return value
