"""summary.md of a run: the machine, a section per scenario, what to read with care; pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench.figures import FIGURES
from bench.report.floors import judge, markdown_lines
from bench.report.machine import describe
from bench.report.results import Part, Results
from bench.report.tally import Tally, disturbance
from bench.report.text import first_line, interval, markdown, numbers, plain, quotient

__all__ = ["summary"]

INTERRUPTED = "**This run was interrupted: what follows is only what was measured until then.**"
READING = (
    "Every cell is the median over the valid rounds, in brackets the smallest and the largest"
    " round. A ratio is taken within each round, where both sides were measured one after the"
    " other; its median and ends follow. The best peer is the one with the best median among"
    " those that lost, reordered and changed nothing. See `bench/README.md` for"
    " what each column means and for what these figures do not show."
)


def summary(results: Results, plots: Sequence[str] = ()) -> str:
    """The whole text.

    Args:
        plots: names of files beside it.
    """
    lines = [f"# Results of {results.facts.at[:10]}, commit {results.facts.commit}", ""]
    if not results.complete:
        lines += [INTERRUPTED, ""]
    lines += [*_circumstances(results), "", READING, ""]
    tallies = [Tally(part, results.subjects) for part in results.parts]
    lines += [*_care(results, tallies), *markdown_lines(judge(results))]
    shown: set[str] = set()
    for tally in tallies:
        fitting = [name for name in plots if name not in shown and _belongs(name, tally.part)]
        shown.update(fitting)
        lines += _section(tally, fitting)
    rest = [name for name in plots if name not in shown]
    if rest:
        lines += ["## All scenarios side by side", "", *_images(rest)]
    return "\n".join(lines).rstrip() + "\n"


def _circumstances(results: Results) -> list[str]:
    facts = results.facts
    versions = ", ".join(f"{name} {found}" for name, found in facts.versions.items() if found)
    return [
        f"- Machine: {describe(facts)}",
        f"- Load average before the run: {facts.load_average:.2f}",
        f"- Versions: {versions}",
        f"- Command: `{facts.command}`",
        *(f"- Not measured: {first_line(sentence)}" for sentence in results.missing),
    ]


def _care(results: Results, tallies: Sequence[Tally]) -> list[str]:
    """What flatters the relay or puts it at a disadvantage, as far as the targets say so."""
    notes = [f"- {each.name}: {each.note}" for each in results.subjects if each.note]
    invalid = [one for tally in tallies for one in tally.invalid]
    if invalid:
        count = "1 round does" if len(invalid) == 1 else f"{len(invalid)} rounds do"
        notes.append(f"- {count} not count, for reasons that stand with the scenarios.")
    if disturbed := disturbance(tallies):
        notes.append(f"- {disturbed}.")
    return ["## To be read with care", "", *notes, ""] if notes else []


def _section(tally: Tally, plots: Sequence[str]) -> list[str]:
    part = tally.part
    lines = [f"## {part.name}", "", f"{_sentence(part.about)} ({numbers(part.numbers)})", ""]
    lines += [f"Does not show: {part.shows_not}", ""]
    lines += [*markdown(_figures(tally)), ""]
    ratios = _ratios(tally)
    if len(ratios) > 1:
        lines += [*markdown(ratios), ""]
    if part.cpu_per and "cpu_us" in part.figures:
        lines += [f"CPU and context switches are per {part.cpu_per}.", ""]
    remarks = [
        *(f"- Does not count: {one.target}, round {one.number}: {first_line(one.invalid)}"
          for one in tally.invalid),
        *([f"- {disturbed}."] if (disturbed := disturbance([tally])) else []),
        *(f"- {name}: {notes}" for name in tally.names if (notes := tally.notes(name))),
    ]  # fmt: skip
    return [*lines, *([*remarks, ""] if remarks else []), *_images(plots)]


def _figures(tally: Tally) -> list[list[str]]:
    columns = [name for name in tally.part.figures if tally.bands(name)]
    rows = [["target", "rounds", *(FIGURES[name].heading for name in columns)]]
    for name in tally.names:
        count = f"{len(tally.rounds(name))}/{tally.tried(name)}"
        rows.append([name, count, *(interval(c, tally.band(name, c)) for c in columns)])
    return rows


def _ratios(tally: Tally) -> list[list[str]]:
    """What each target has of the direct row's figures and of the best peer's."""
    pairs = [(figure, tally.direct) for figure in tally.compared if figure != "cpu_us"]
    pairs += [(figure, tally.best_peer(figure)) for figure in tally.compared]
    shown = [(figure, base) for figure, base in pairs if base and tally.is_base(base, figure)]
    if not shown:
        return []
    rows = [["ratio", *(f"{plain(figure)} to {base}" for figure, base in shown)]]
    for name in tally.names:
        cells = (quotient(tally.ratio(name, base, figure)) for figure, base in shown)
        rows.append([name, *cells])
    return rows


def _belongs(plot: str, part: Part) -> bool:
    """Whether a plot is of this scenario, or of the series that begins with it."""
    stem = plot.rpartition(".")[0]
    return stem == f"latency-{part.name}" or (
        bool(part.series) and stem.startswith(f"{part.series}-")
    )


def _images(names: Sequence[str]) -> list[str]:
    return [line for name in names for line in (f"![{name.rpartition('.')[0]}]({name})", "")]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
