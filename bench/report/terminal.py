"""One scenario as a table for a terminal, medians over the rounds; pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench.figures import FIGURES
from bench.report.results import Part
from bench.report.tally import FAULTS, Tally, disturbance
from bench.report.text import align, amount, first_line, interval, numbers, plain, quotient

__all__ = ["describe", "table"]

WIDTH = 110
INDENT = "  "
# What goes first when the table is too wide; it is all in summary.md.
DISPENSABLE = (
    *("pump_cpu_us", "scrape_ms"),
    *("origin_cpu_us", "generator_cpu_us", "late_p99", "start_p50", "connect_p50", "echo_p50"),
    *("late_p50", "switches", "p999", "p90", "max", "pss_kib", "per_second", "mb_per_second"),
    *("p99_grown", "pump_kib", "pump_scraped", "p99_scraped"),
)


def describe(part: Part) -> list[str]:
    """What a scenario does, with which numbers, and what it does not show."""
    return [
        f"{part.name}: {part.about}",
        f"{INDENT}{numbers(part.numbers)}",
        f"{INDENT}not shown: {part.shows_not}",
    ]


def table(tally: Tally) -> list[str]:
    """The scenario's lines: the table, then every round that does not count and every note."""
    part = tally.part
    columns = [name for name in part.figures if tally.bands(name) and name not in FAULTS]
    lines = _lines(tally, columns)
    for name in (name for name in DISPENSABLE if name != part.main):
        if max(map(len, lines)) <= WIDTH:
            break
        columns = [column for column in columns if column != name]
        lines = _lines(tally, columns)
    return [*describe(part)[:2], *lines, *_remarks(tally)]


def _lines(tally: Tally, columns: Sequence[str]) -> list[str]:
    main, faulty = tally.part.main, any(name in tally.part.figures for name in FAULTS)
    heads = [("target", ""), ("rounds", "")]
    for column in columns:
        first, _, second = FIGURES[column].heading.partition(" ")
        heads.append((first, second))
        if column == main:
            heads.append(("(all", "rounds)"))
    heads += [("faults", "")] if faulty else []
    ratios = _ratios(tally)
    heads += [(f"{plain(figure)} to", base) for figure, base in ratios]
    rows = [[first for first, _ in heads], [second for _, second in heads]]
    for name in tally.names:
        row = [name, _count(tally, name)]
        for column in columns:
            band = tally.band(name, column)
            row.append(amount(column, band.middle if band else None))
            if column == main:
                row.append(interval(column, band).partition(" ")[2] or "-")
        row += [f"{tally.faults(name):.0f}"] if faulty else []
        row += [quotient(tally.ratio(name, base, figure), ends=False) for figure, base in ratios]
        rows.append(row)
    return [INDENT + line for line in align(rows)]


def _ratios(tally: Tally) -> list[tuple[str, str]]:
    """Which figure is compared with what: the main one with direct, it and CPU with the best."""
    main = tally.part.main
    wanted = [(main, tally.direct), (main, tally.best_peer(main))]
    if main != "cpu_us":
        wanted.append(("cpu_us", tally.best_peer("cpu_us")))
    return [(figure, base) for figure, base in wanted if base and tally.is_base(base, figure)]


def _count(tally: Tally, name: str) -> str:
    valid, tried = len(tally.rounds(name)), tally.tried(name)
    return f"{valid}" if valid == tried else f"{valid} of {tried}"


def _remarks(tally: Tally) -> list[str]:
    lines = [
        f"{INDENT}! {one.target} round {one.number} does not count: {first_line(one.invalid)}"
        for one in tally.invalid
    ]
    disturbed = disturbance([tally])
    return [
        *lines,
        *([f"{INDENT}! {disturbed}"] if disturbed else []),
        *(f"{INDENT}{name}: {notes}" for name in tally.names if (notes := tally.notes(name))),
    ]
