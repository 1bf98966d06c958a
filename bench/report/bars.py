"""Bars: one figure of several scenarios side by side, a panel each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import FIGURES
from bench.report.drawing import FAINT, INK, Sheet, look
from bench.report.layout import count_text
from bench.report.tally import Tally, better_of
from bench.report.text import amount

__all__ = ["Group", "bars"]

PANELS = 4  # in a row
BAR, PANEL = 0.26, 0.75  # inches: a bar; what a panel needs around them
BARS = "Bar: median of the rounds. Whisker: from the lowest to the highest round."
UNITS = {"us": "µs", "1/s": "per second"}
OWN = "direct: the echo server's own processes. Others: all processes of the target."


@dataclass(frozen=True, slots=True)
class Group:
    """Scenarios of which one figure is shown; the title says what it is."""

    file: str
    title: str
    figure: str
    tallies: Sequence[Tally]


def bars(group: Group, path: Path, small_print: Sequence[str]) -> str:
    """A panel per scenario, a bar per target; the name of the file."""
    names = list(dict.fromkeys(name for tally in group.tallies for name in tally.names))
    rows = -(-len(group.tallies) // PANELS)
    columns = -(-len(group.tallies) // rows)
    height = 1.15 + rows * (PANEL + BAR * len(names))
    sheet = Sheet(f"{group.title} ({better_of(group.figure)} is better)", [], height, rows, columns)
    for axes, tally in zip(sheet.axes, group.tallies, strict=False):
        _panel(axes, tally, names, group.figure, columns)
    for axes in sheet.axes[len(group.tallies) :]:
        axes.set_visible(False)
    about = f"{BARS} {OWN}" if group.figure == "cpu_us" else BARS
    return sheet.finish(path, [about, *small_print])


def _panel(axes: Any, tally: Tally, names: Sequence[str], shown: str, columns: int) -> None:
    bands = tally.bands(shown)
    highest = max(each.high for each in bands.values())
    for place, name in enumerate(names):
        one, each = look(name, tally.kind(name), names), bands.get(name)
        if each is None:
            text = "nothing valid" if tally.tried(name) else "not measured here"
            axes.text(highest * 0.02, place, text, va="center", color=FAINT, size=8)
            continue
        variant = one.dashes != "-" and tally.kind(name) != "direct"
        axes.barh(
            place, each.middle, height=0.7, edgecolor=one.color, linewidth=0.8,
            color="white" if variant else one.color, hatch="////" if variant else None,
        )  # fmt: skip
        ends = ([each.middle - each.low], [each.high - each.middle])
        for color, width in (("white", 3.0), (INK, 1.0)):  # an edge, to be seen on every bar
            axes.errorbar(
                each.middle, place, xerr=ends, color=color, linewidth=width,
                capsize=2.5, capthick=width,
            )  # fmt: skip
        axes.annotate(
            amount(shown, each.middle), (each.high, place), (5, 0), textcoords="offset points",
            va="center", size=8, weight=one.weight,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    for label, name in zip(axes.get_yticklabels(), names, strict=False):
        label.set_weight(look(name, tally.kind(name), names).weight)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(0, highest * 1.3 or 1)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=3 if columns > 2 else 6)
    axes.xaxis.set_major_formatter(lambda value, _place: count_text(value))
    axes.set_xlabel(UNITS.get(FIGURES[shown].unit, FIGURES[shown].unit))
    axes.set_title(tally.part.name, size=10, loc="left")
