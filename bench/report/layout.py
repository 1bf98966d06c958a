"""Where things go in a plot; pure, without matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "apart",
    "bytes_text",
    "count_text",
    "duration",
    "nines",
    "percent",
    "percent_text",
    "place_of",
]

STEPS_PER_NINE = 24
BEYOND = 5  # values that must lie beyond a percentile before a curve shows it


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart, in the order of the wanted ones and close to them.

    The sum of squared distances is the smallest possible (pool adjacent violators), except
    that all stay between low and high while there is room for them.
    """
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    pools: list[tuple[float, int]] = []  # sum and number of what is moved together
    for rank, place in enumerate(order):
        total, count = wanted[place] - rank * gap, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            total, count = total + pools[-1][0], count + pools[-1][1]
            pools.pop()
        pools.append((total, count))
    means = [total / count for total, count in pools for _ in range(count)]
    top = high - (len(wanted) - 1) * gap
    positions = [0.0] * len(wanted)
    for rank, place in enumerate(order):
        positions[place] = max(low, min(top, means[rank])) + rank * gap
    return positions


def nines(count: int) -> list[float]:
    """Places on the axis of nines (1 is 90 %, 2 is 99 %) that so many values can tell about."""
    if count <= BEYOND:
        return []
    last = math.log10(count / BEYOND)
    steps = max(1, int(last * STEPS_PER_NINE))
    return [last * step / steps for step in range(1, steps + 1)]


def percent(place: float) -> float:
    """The percentile at a place on the axis of nines."""
    return 100 * (1 - 10**-place)


def percent_text(value: float) -> str:
    """A percentile for an axis: 50 %, 99.9 %."""
    return f"{value:.10g} %"


def duration(us: float) -> str:
    """Microseconds in the unit that reads best: 250 µs, 1.5 ms, 2 s."""
    if us < 1_000:
        return f"{us:.4g} µs" if us else "0"
    return f"{us / 1_000:.4g} ms" if us < 1_000_000 else f"{us / 1_000_000:.4g} s"


def bytes_text(size: float) -> str:
    """Bytes in the largest binary unit of which they are whole ones: 651 B, 64 KiB, 1 MiB."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size and not size % unit:
            return f"{size / unit:g} {name}"
    return f"{size:.0f} B"


def count_text(value: float) -> str:
    """A number with its thousands apart: 12 000."""
    return f"{value:,.6g}".replace(",", "\N{THIN SPACE}")


def place_of(value: float) -> float:
    """Where a percentile below 100 is on the axis of nines."""
    return -math.log10(1 - value / 100)
