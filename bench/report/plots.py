"""Which plots a run has; each a file of its own, SVG and PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from bench.report.bars import Group, bars
from bench.report.curves import over_series, percentiles
from bench.report.machine import Facts
from bench.report.results import Results
from bench.report.tally import Tally, disturbance

__all__ = ["draw"]

SMALL_WIDTH = 150  # characters of small print in a line
# Figures in words, for titles.
TITLES = {
    "p50": "Median latency",
    "p99": "99th percentile of the latency",
    "mb_per_second": "Throughput",
    "per_second": "Calls and requests per second",
    "pss_kib": "Memory per tunnel",
    "grown_kib": "Memory that a slow reader costs",
}


def draw(results: Results, path: Path) -> list[str]:
    """Draw everything that the results have into a directory; the names of the SVG files."""
    tallies = [Tally(part, results.subjects) for part in results.parts]
    alone = [tally for tally in tallies if not tally.part.series]
    drawn = [
        percentiles(tally, path / f"latency-{tally.part.name}", _small(results.facts, [tally]))
        for tally in alone
        if _has_latency(tally)
    ]
    for name in dict.fromkeys(tally.part.series for tally in tallies if tally.part.series):
        drawn += _series([t for t in tallies if t.part.series == name], results.facts, path)
    for group in _groups(alone):
        drawn.append(bars(group, path / group.file, _small(results.facts, group.tallies)))
    return drawn


def _series(tallies: Sequence[Tally], facts: Facts, path: Path) -> list[str]:
    """The main figure of a series, its latencies and its CPU over its places."""
    part = tallies[0].part
    titles = {**TITLES, "cpu_us": f"CPU per {part.cpu_per}"}
    wanted = dict.fromkeys((part.main, "p50", "p99", "cpu_us"))
    return [
        over_series(
            name,
            titles[name],
            tallies,
            path / f"{part.series}-{name.replace('_', '-')}",
            _small(facts, tallies),
        )
        for name in wanted
        if sum(bool(tally.bands(name)) for tally in tallies) > 1
    ]


def _groups(alone: Sequence[Tally]) -> list[Group]:
    """The bars: CPU by what it is counted for, and main figures that are no latencies.

    Where only one target was measured there is nothing side by side.
    """
    groups = []
    for per in dict.fromkeys(tally.part.cpu_per for tally in alone):
        members = [t for t in alone if t.part.cpu_per == per and len(t.bands("cpu_us")) > 1]
        file = f"cpu-per-{per.replace(' ', '-')}"
        groups.append(Group(file, f"CPU per {per}", "cpu_us", members))
    for name in ("per_second", "pss_kib", "grown_kib"):
        members = [t for t in alone if t.part.main == name and t.bands(name)]
        groups.append(Group(name.replace("_", "-"), TITLES[name], name, members))
    return [group for group in groups if group.tallies]


def _has_latency(tally: Tally) -> bool:
    """Whether there is any, and whether it says something: a slow reader makes its own."""
    rounds = (one for name in tally.names for one in tally.rounds(name))
    return "p50" in tally.part.figures and any("latency" in one.histograms for one in rounds)


def _small(facts: Facts, tallies: Sequence[Tally]) -> list[str]:
    """What was left out, what others disturbed, and where and when this was measured."""
    left_out = [
        f"{tally.part.name} {name} {gone} of {tally.tried(name)}"
        for tally in tallies
        for name in tally.names
        if (gone := tally.tried(name) - len(tally.rounds(name)))
    ]
    text = f"Rounds left out because they do not count: {', '.join(left_out)}."
    lines = textwrap.wrap(text, SMALL_WIDTH) if left_out else []
    if disturbed := disturbance(tallies):
        lines += textwrap.wrap(f"{disturbed}.", SMALL_WIDTH)
    rounds = max((tally.tried(name) for tally in tallies for name in tally.names), default=0)
    where = f"{facts.processor}, {facts.cores} cores ({facts.machine}), Linux {facts.kernel}"
    count = "1 round" if rounds == 1 else f"{rounds} rounds"
    return [*lines, f"{where} · commit {facts.commit} · {facts.at[:10]} · {count}"]
