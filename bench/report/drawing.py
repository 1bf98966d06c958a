"""How every plot looks: colours, titles, small print. Needs matplotlib (the extra `bench`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from bench.report.layout import apart

__all__ = ["FAINT", "INK", "End", "Look", "Sheet", "log_scale", "look"]

INK, FAINT, GRID = "#222222", "#666666", "#dddddd"
WIDTH = 9.0  # inches, of every plot
DPI = 110
LEFT = 0.012  # of the width: where text begins
HEAD, LINE_BELOW = 0.44, 0.16  # inches: the title; a line below it
LINE = 0.145  # inches: a line of small print
LABEL_GAP = 0.17  # inches between two labels

matplotlib.rcParams.update(
    {
        "font.family": "DejaVu Sans",  # comes with matplotlib
        "font.size": 9.5,
        "text.color": INK,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "xtick.color": INK,
        "ytick.color": INK,
        "hatch.linewidth": 1.2,
        "figure.facecolor": "white",
        "svg.hashsalt": "bench",  # the same figures make the same file
    }
)


@dataclass(frozen=True, slots=True)
class Look:
    """How one target is drawn, the same in every plot; a variant's dashes are hatches in bars."""

    color: str
    dashes: str = "-"
    width: float = 1.5
    weight: str = "normal"
    marker: str = "o"


@dataclass(frozen=True, slots=True)
class End:
    """The last point of a curve, in data coordinates, and whose curve it is."""

    name: str
    look: Look
    x: float
    y: float


# Colours of Okabe and Ito, which are told apart with every kind of colour vision. A variant has
# the colour of what it is a variant of, dashed; the relay alone is strong.
LOOKS: Mapping[str, Look] = {
    "relay": Look("#d55e00", width=2.8, weight="bold"),
    "relay-compiled": Look("#d55e00", "-.", 2.4, "bold"),
    "relay-frames": Look("#d55e00", "--", 2.0),
    "direct": Look("#888888", ":", marker="s"),
    "nginx": Look("#0072b2", marker="^"),
    "nginx-large": Look("#0072b2", "--", marker="^"),
    "haproxy": Look("#009e73", marker="v"),
    "haproxy-large": Look("#009e73", "--", marker="v"),
    "aiohttp": Look("#cc79a7", marker="D"),
    "aiohttp-uvloop": Look("#cc79a7", "--", marker="D"),
    "websockets": Look("#56b4e9", marker="P"),
    "trio-tasks": Look("#222222", marker="X"),
}
OTHERS = ("#e69f00", "#8c6d1f", "#5b4b8a")  # of what --url names


def look(name: str, kind: str, names: Sequence[str]) -> Look:
    """The look of a target; one that is not known here gets one by its place among such."""
    if name in LOOKS:
        return LOOKS[name]
    place = [each for each in names if each not in LOOKS].index(name)
    if kind == "relay":
        return Look(LOOKS["relay"].color, ("--", "-.", ":")[place % 3], 2.4, "bold")
    return Look(OTHERS[place % len(OTHERS)], "-.", marker="p")


class Sheet:
    """A plot: a title with fainter lines below, a grid of axes, small print at the bottom.

    Args:
        below: lines under the title.
        height: of everything, in inches.
    """

    def __init__(
        self, title: str, below: Sequence[str], height: float, rows: int = 1, columns: int = 1
    ) -> None:
        self._figure = Canvas(figsize=(WIDTH, height))
        self._height = height
        self._head = HEAD + LINE_BELOW * len(below)
        grid = self._figure.subplots(rows, columns, squeeze=False, sharey="row")
        self.axes: list[Any] = list(grid.flat)
        for text, top, size, color, weight in (
            (title, 0.12, 13, INK, "bold"),
            ("\n".join(below), 0.45, 9, FAINT, "normal"),
        ):
            self._figure.text(
                LEFT, 1 - top / height, text, size=size, color=color, weight=weight, va="top"
            )

    def finish(self, path: Path, small_print: Sequence[str], ends: Sequence[End] = ()) -> str:
        """Write it as SVG and as PNG; the name of the SVG.

        Args:
            path: without an extension.
            ends: of curves in the only axes, to be labelled.
        """
        figure, height = self._figure, self._height
        figure.text(LEFT, 0.08 / height, "\n".join(small_print), size=7.5, color=FAINT, va="bottom")
        foot = LINE * len(small_print) + 0.14
        right = 0.84 if ends else 0.985
        figure.tight_layout(rect=(0.005, foot / height, right, 1 - self._head / height))
        if ends:
            _label(self.axes[0], ends)
        # Not with_suffix: a name may hold a dot.
        figure.savefig(f"{path}.svg", metadata={"Date": None})
        figure.savefig(f"{path}.png", dpi=DPI)
        return f"{path.name}.svg"


def log_scale(axis: Any, text: Callable[[float], str], low: float, high: float) -> None:
    """Make an axis logarithmic, with plain numbers on it, few enough to be read."""
    decades = high / low
    steps = (1, 2, 5) if decades < 200 else (1,)
    axis.set_major_locator(LogLocator(10, subs=steps, numticks=30))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: text(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _label(axes: Any, ends: Sequence[End]) -> None:
    """Write each curve's name to the right of its end, dots between the two."""
    figure = axes.figure
    figure.canvas.draw()
    box = axes.get_window_extent()
    points = [
        axes.transAxes.inverted().transform(axes.transData.transform((each.x, each.y)))
        for each in ends
    ]
    gap = LABEL_GAP * figure.dpi / box.height
    places = apart([float(y) for _x, y in points], gap, 0.0, 1.0)
    for each, (x, y), place in zip(ends, points, places, strict=True):
        axes.plot(
            (x, 1.02, 1.035), (y, place, place), transform=axes.transAxes, clip_on=False,
            color=each.look.color, linewidth=0.8, linestyle=(0, (1, 2)),
        )  # fmt: skip
        axes.text(
            1.042, place, each.name, transform=axes.transAxes, va="center", size=9,
            color=each.look.color, weight=each.look.weight,
        )  # fmt: skip
