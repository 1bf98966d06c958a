"""Whether two runs of one commit say the same: the relay's ratios to nginx in both; pure."""

from __future__ import annotations

from itertools import product

from bench.report.comparison import same_machine
from bench.report.results import Results
from bench.report.tally import Tally, disturbance
from bench.report.text import align, plain, quotient

__all__ = ["LIMIT", "agreement"]

# By how much a ratio may differ from one run to the other, as a share of the smaller one.
LIMIT = 0.15
HELD = ("p50", "cpu_us")  # tails are told with their spread and promise nothing
AGREE = "agree"
BASES = ("nginx", "nginx-large")


def agreement(first: Results, second: Results) -> tuple[list[str], bool]:
    """The lines to print, and whether every ratio agrees within LIMIT.

    Raises:
        OtherMachine: the runs are of different machines.
    """
    same_machine(first.facts, second.facts)
    rows = [["scenario", "ratio", "A", "B", "differ by", ""]]
    others = {part.name: part for part in second.parts}
    for part in first.parts:
        other = others.get(part.name)
        if other is not None and part.numbers == other.numbers:
            rows += _scenario(Tally(part, first.subjects), Tally(other, second.subjects))
    said = [row[-1] for row in rows[1:]]
    if not said:
        return ["the runs have no ratio to nginx in common"], False
    agreed = said.count(AGREE)
    line = f"{len(said)} ratios of median latency and CPU to nginx: {agreed} within {LIMIT:.0%}"
    lines = [*align(rows), "", f"{line}, {len(said) - agreed} not"]
    return [*lines, *_disturbances(first, second)], agreed == len(said)


def _disturbances(first: Results, second: Results) -> list[str]:
    """What others did to either run: the first place to look for why they are apart."""
    runs = (("A", first), ("B", second))
    told = (
        (name, disturbance([Tally(part, run.subjects) for part in run.parts])) for name, run in runs
    )
    return [f"{name}: {text}" for name, text in told if text]


def _scenario(left: Tally, right: Tally) -> list[list[str]]:
    """The ratios of one scenario; one that a run has no valid rounds for is no agreement."""
    rows = []
    for figure, relay, base in product(HELD, left.relays, BASES):
        before, after = (tally.ratio(relay, base, figure) for tally in (left, right))
        if before is None and after is None:
            continue
        differ, said = "-", "ONLY IN ONE"
        if before is not None and after is not None and before.middle and after.middle:
            low, high = sorted((before.middle, after.middle))
            differ, said = f"{high / low - 1:.0%}", AGREE if high / low - 1 <= LIMIT else "APART"
        name = f"{plain(figure)} {relay}/{base}"
        rows.append([left.part.name, name, quotient(before), quotient(after), differ, said])
    return rows
