"""What a run says about the floors of bench/floors.py: met or missed; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.floors import FLOORS, JUDGED, Floor
from bench.report.results import Results
from bench.report.tally import Tally, better_of
from bench.report.text import align, markdown
from bench.stats import Band, best

__all__ = ["Judged", "brief_lines", "judge", "markdown_lines", "terminal_lines"]

ABOUT = (
    "Medians of the rounds, a ratio taken within each; in brackets the smallest and the largest"
    " round. At least five rounds make a verdict worth something."
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A floor and what one target has.

    Args:
        base: the peer with the best median; "" where the figure itself is judged.
        band: of the ratio to it, or of the figure.
    """

    floor: Floor
    target: str
    base: str
    band: Band

    @property
    def verdict(self) -> str:
        """missed, met, or goal met."""
        if not self._reaches(self.floor.owed(self.target)):
            return "MISSED"
        goal = self.floor.goal
        return "goal met" if goal is not None and self._reaches(goal) else "met"

    def _reaches(self, mark: float) -> bool:
        if better_of(self.floor.figure) == "lower":
            return self.band.middle <= mark
        return self.band.middle >= mark


def judge(results: Results) -> list[Judged]:
    """Every floor about which the results say something, for every judged target."""
    tallies = {part.name: Tally(part, results.subjects) for part in results.parts}
    judged = (
        _one(floor, target, tallies[floor.scenario])
        for floor in FLOORS
        if floor.scenario in tallies
        for target in JUDGED
    )
    return [one for one in judged if one is not None]


def _one(floor: Floor, target: str, tally: Tally) -> Judged | None:
    if not floor.bases:
        found = tally.band(target, floor.figure)
        return None if found is None else Judged(floor, target, "", found)
    better = better_of(floor.figure)
    assert better is not None
    bands = {
        name: band
        for name, band in tally.bands(floor.figure).items()
        if name in floor.bases and not tally.faults(name)
    }
    base = best(bands, better)
    ratio = tally.ratio(target, base, floor.figure)
    return None if base is None or ratio is None else Judged(floor, target, base, ratio)


def terminal_lines(judged: Sequence[Judged]) -> list[str]:
    """A table for a terminal; no lines when there is nothing in it."""
    return ["floors and goals:", *(f"  {line}" for line in align(_rows(judged)))] if judged else []


def markdown_lines(judged: Sequence[Judged]) -> list[str]:
    """A section of summary.md; no lines when there is nothing in it."""
    if not judged:
        return []
    return ["## Floors and goals", "", ABOUT, "", *markdown(_rows(judged)), ""]


def brief_lines(judged: Sequence[Judged]) -> list[str]:
    """A Markdown table with one row for each floor: the relay, and with a compiled pump."""
    rows = [["work", "relay", "compiled", "held against", "floor", ""]]
    for floor in dict.fromkeys(one.floor for one in judged):
        both = [next((one for one in judged if one.floor == floor and one.target == target), None)
                for target in JUDGED]  # fmt: skip
        there = [one for one in both if one is not None]
        owed = dict.fromkeys(_text(floor, floor.owed(one.target)) for one in there)
        rows.append([
            floor.work,
            *("" if one is None else _text(floor, one.band.middle) for one in both),
            ", ".join(dict.fromkeys(one.base or "itself" for one in there)),
            f"{_sign(floor)} {', '.join(owed)}",
            ", ".join(dict.fromkeys(one.verdict.lower() for one in there)),
        ])  # fmt: skip
    return markdown(rows) if judged else ["the run has measured nothing that has a floor"]


def _rows(judged: Sequence[Judged]) -> list[list[str]]:
    rows = [["work", "target", "measured", "held against", "floor", "goal", ""]]
    for one in judged:
        floor, low, high = one.floor, one.band.low, one.band.high
        rows.append([
            floor.work,
            one.target,
            f"{_text(floor, one.band.middle)} ({_text(floor, low)} to {_text(floor, high)})",
            one.base or "itself",
            f"{_sign(floor)} {_text(floor, floor.owed(one.target))}",
            "-" if floor.goal is None else f"{_sign(floor)} {_text(floor, floor.goal)}",
            one.verdict,
        ])  # fmt: skip
    return rows


def _sign(floor: Floor) -> str:
    return "<=" if better_of(floor.figure) == "lower" else ">="


def _text(floor: Floor, value: float) -> str:
    """A value of the floor's figure, or of its ratio, with its unit."""
    return (
        f"x{value:.2f}" if floor.unit == "x" else f"{value:.{2 if value < 100 else 0}f}{floor.unit}"
    )
