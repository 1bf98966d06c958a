"""Numbers, bands and tables as text; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.figures import FIGURES
from bench.report.layout import bytes_text
from bench.stats import Band

__all__ = ["align", "amount", "first_line", "interval", "markdown", "numbers", "plain", "quotient"]

NOTHING = "-"
GAP = "  "
# How the numbers of a scenario are written that are no mere counts.
UNITS: Mapping[str, Callable[[Any], str]] = {
    "size": bytes_text,
    "pushed": bytes_text,
    "read_rate": lambda value: f"{bytes_text(value)}/s",
    "rate": lambda value: f"{value}/s",
    "seconds": lambda value: f"{value:g}",
    "warmup": lambda value: f"{value:g}",
}
# Those that are better said in words of their own.
WORDS: Mapping[tuple[str, int | float | str], str] = {
    ("cores", "one"): "all on one core",
    ("cores", "apart"): "the target on a core of its own",
    ("cores", "two"): "the load on one core, the target on all",
    ("halting", 1): "cores may halt",
}


def amount(figure: str, value: float | None) -> str:
    """A figure with the digits that it has."""
    return NOTHING if value is None else f"{value:.{FIGURES[figure].digits}f}"


def plain(figure: str) -> str:
    """The heading of a figure without its unit, for a ratio."""
    return FIGURES[figure].heading.removesuffix(" us").removesuffix(" KiB")


def first_line(text: str) -> str:
    """The first line of a reason, behind which a child's error output may follow."""
    return text.partition("\n")[0]


def interval(figure: str, band: Band | None) -> str:
    """Median and ends: 120 (110-150); the median alone when all rounds say the same."""
    if band is None:
        return NOTHING
    middle, low, high = (amount(figure, each) for each in (band.middle, band.low, band.high))
    return middle if low == high else f"{middle} ({low}-{high})"


def quotient(band: Band | None, *, ends: bool = True) -> str:
    """A ratio and its ends: x1.20 (1.15-1.31)."""
    if band is None:
        return NOTHING
    middle = f"x{band.middle:.2f}"
    low, high = f"{band.low:.2f}", f"{band.high:.2f}"
    return middle if not ends or low == high else f"{middle} ({low}-{high})"


def numbers(values: Mapping[str, int | float | str]) -> str:
    """The numbers of a scenario in a line; what is 0 is not there."""
    said = (
        WORDS.get((name, value)) or f"{name.replace('_', ' ')} {UNITS.get(name, str)(value)}"
        for name, value in values.items()
        if value != 0
    )
    return ", ".join(said)


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of columns, the first to the left, all others to the right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        GAP.join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as a Markdown table, the first row its head."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *body)]
