"""Curves: latency against percentile, and a figure over a series of scenarios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from bench.figures import FIGURES
from bench.report.drawing import End, Look, Sheet, log_scale, look
from bench.report.layout import (
    bytes_text,
    count_text,
    duration,
    nines,
    percent,
    percent_text,
    place_of,
)
from bench.report.tally import Tally, better_of
from bench.report.text import numbers
from bench.stats import Band, band

__all__ = ["over_series", "percentiles"]

Curve = list[tuple[float, Band]]  # places on the x axis, each with its rounds

PERCENTILES = ("p50", "p90", "p99", "p999", "max")
PERCENTS = (50, 90, 99, 99.9, 99.99, 99.999)
US = 1_000  # nanoseconds
# What a series is drawn over, and how a place there is written.
SERIES: dict[str, tuple[str, Callable[[float], str]]] = {
    "bulk": ("message size", bytes_text),
    "scale": ("calls at once", count_text),
}
WIDE = 10.0  # from this ratio of the largest to the smallest on an axis is logarithmic
LINES = (
    "Line: median of the rounds. Band, for the relay, the best peer and direct: from the lowest"
    " to the highest round."
)
# Draw the peers first and the relay last, so that nothing covers it.
LAYERS = {"peer": 1, "given": 2, "direct": 3, "relay": 4}


def percentiles(tally: Tally, path: Path, small_print: Sequence[str]) -> str:
    """Latency of every target against the percentile; the name of the file."""
    part = tally.part
    sheet = Sheet(
        f"{part.name}: latency by percentile (lower is better)",
        [part.about, numbers(part.numbers)],
        5.4,
    )
    curves = {name: curve for name in _layered(tally) if (curve := _curve(tally, name))}
    last = max(curve[-1][0] for curve in curves.values())
    banded = _banded(tally, part.main if part.main in PERCENTILES else "p50")
    (axes,) = sheet.axes
    axes.set_xlim(0, last)
    ticks = [value for value in PERCENTS if place_of(value) <= last]
    axes.set_xticks([place_of(each) for each in ticks], [percent_text(each) for each in ticks])
    axes.set_xlabel("percentile of all messages or requests (each further 9 has the same width)")
    low, high = _range(curves, banded)
    _scale(axes, "us", low, high, logarithmic=True)
    axes.set_ylabel("latency (log scale)")
    ends = [
        _draw(axes, name, _look(tally, name), curve, banded=name in banded)
        for name, curve in curves.items()
    ]
    last_line = "A curve ends where fewer than 5 values of a round lie beyond."
    return sheet.finish(path, [LINES, last_line, *small_print], ends)


def over_series(
    shown: str, what: str, tallies: Sequence[Tally], path: Path, small_print: Sequence[str]
) -> str:
    """One figure of every target over the places of a series; the name of the file.

    Args:
        what: the figure in words, for the title.
    """
    across, text = SERIES.get(tallies[0].part.series, (tallies[0].part.series, count_text))
    sheet = Sheet(f"{what} by {across} ({better_of(shown)} is better)", [_common(tallies)], 5.2)
    (axes,) = sheet.axes
    curves: dict[str, Curve] = {}
    for name in _layered(tallies[0]):
        points = [(t.part.at, each) for t in tallies if (each := t.band(name, shown)) is not None]
        if points:
            curves[name] = points
    places = sorted({at for curve in curves.values() for at, _ in curve})
    axes.set_xscale("log")
    axes.set_xticks(places, [text(place) for place in places])
    axes.minorticks_off()
    axes.set_xlabel(f"{across} (log scale)")
    banded = _banded(tallies[-1], shown)
    low, high = _range(curves, banded)
    wide = low > 0 and high / low > WIDE
    _scale(axes, FIGURES[shown].unit, low, high, logarithmic=wide)
    unit = "time" if FIGURES[shown].unit == "us" else FIGURES[shown].unit
    axes.set_ylabel(f"{unit} (log scale)" if wide else unit)
    ends = [
        _draw(axes, name, _look(tallies[0], name), curve, banded=name in banded, marked=True)
        for name, curve in curves.items()
    ]
    return sheet.finish(path, [LINES, *small_print], ends)


def _curve(tally: Tally, name: str) -> Curve:
    """Places on the axis of nines with the band over the rounds, in microseconds."""
    found = (one.histograms.get("latency") for one in tally.rounds(name))
    rounds = [each for each in found if each is not None]
    places = nines(min((each.count for each in rounds), default=0))
    columns = [each.percentiles([percent(place) for place in places]) for each in rounds]
    bands = [band(value / US for value in values) for values in zip(*columns, strict=True)]
    return [(place, each) for place, each in zip(places, bands, strict=True) if each is not None]


def _draw(
    axes: Any,
    name: str,
    one: Look,
    curve: Curve,
    *,
    banded: bool,
    marked: bool = False,
) -> End:
    """The line of the medians and, perhaps, the band of the rounds; where the line ends."""
    places, bands = [place for place, _ in curve], [each for _, each in curve]
    lows, highs = [each.low for each in bands], [each.high for each in bands]
    if banded:
        axes.fill_between(places, lows, highs, color=one.color, alpha=0.18, linewidth=0)
    axes.plot(
        places,
        [each.middle for each in bands],
        one.dashes,
        color=one.color,
        linewidth=one.width,
        marker=one.marker if marked else "o",
        markersize=5 if marked else 3.5,
        markevery=None if marked else [-1],  # a dot where a curve ends
    )
    return End(name, one, places[-1], bands[-1].middle)


def _banded(tally: Tally, shown: str) -> set[str]:
    """Whose rounds are shown as bands; ten of them would hide each other."""
    kinds = ("direct", "relay")
    return {name for name in tally.names if tally.kind(name) in kinds} | {
        tally.best_peer(shown) or ""
    }


def _range(curves: Mapping[str, Curve], banded: Set[str]) -> tuple[float, float]:
    """The lowest and the highest value that is drawn."""
    values = [
        value
        for name, curve in curves.items()
        for _, each in curve
        for value in ((each.low, each.high) if name in banded else (each.middle,))
    ]
    return min(values), max(values)


def _scale(axes: Any, unit: str, low: float, high: float, *, logarithmic: bool) -> None:
    """The y axis: its limits, its scale, numbers that people read."""
    text = duration if unit == "us" else count_text
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(low * 0.88, high * 1.12)
        log_scale(axes.yaxis, text, low, high)
    else:
        axes.set_ylim(0, high * 1.06)
        axes.yaxis.set_major_formatter(lambda value, _place: text(value))


def _layered(tally: Tally) -> list[str]:
    return sorted(tally.names, key=lambda name: LAYERS.get(tally.kind(name), 0))


def _look(tally: Tally, name: str) -> Look:
    return look(name, tally.kind(name), tally.names)


def _common(tallies: Sequence[Tally]) -> str:
    """The numbers that all scenarios of a series share."""
    first, *others = (tally.part.numbers for tally in tallies)
    shared = {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }
    return numbers(shared)
