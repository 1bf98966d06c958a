"""Whether two runs of one commit say the same: the relay's ratios to nginx in both; pure."""

from __future__ import annotations

from bench.figures import FIGURES
from bench.report.comparison import same_machine
from bench.report.results import Results
from bench.report.tally import Tally
from bench.report.text import align, plain, quotient

__all__ = ["LIMIT", "agreement"]

# By how much a ratio may differ from one run to the other, as a share of the smaller one.
LIMIT = 0.15
FIGURES_HELD = ("p50", "cpu_us")  # tails are told with their spread and promise nothing
BASES = ("nginx", "nginx-large")


def agreement(first: Results, second: Results) -> tuple[list[str], bool]:
    """The lines to print, and whether every ratio agrees within LIMIT.

    Raises:
        OtherMachine: the runs are of different machines.
    """
    same_machine(first.facts, second.facts)
    rows = [["scenario", "ratio", "A", "B", "differ by", ""]]
    apart = 0
    others = {part.name: part for part in second.parts}
    for part in first.parts:
        if part.name not in others or part.numbers != others[part.name].numbers:
            continue
        left, right = Tally(part, first.subjects), Tally(others[part.name], second.subjects)
        for figure in FIGURES_HELD:
            for relay in left.relays:
                for base in BASES:
                    before, after = (t.ratio(relay, base, figure) for t in (left, right))
                    if before is None or after is None or not before.middle or not after.middle:
                        continue
                    low, high = sorted((before.middle, after.middle))
                    differ = high / low - 1
                    apart += differ > LIMIT
                    said = "agree" if differ <= LIMIT else "APART"
                    name = f"{plain(figure)} {relay}/{base}"
                    cells = [quotient(before), quotient(after), f"{differ:.0%}", said]
                    rows.append([part.name, name, *cells])
    count = len(rows) - 1
    if not count:
        return ["the runs have no ratio to nginx in common"], False
    heads = ", ".join(FIGURES[figure].about for figure in FIGURES_HELD)
    said = f"{count} ratios ({heads}): {count - apart} within {LIMIT:.0%}, {apart} apart"
    return [*align(rows), "", said], not apart
