"""Two runs side by side: what differs by more than its rounds do; pure."""

from __future__ import annotations

from bench.figures import FIGURES
from bench.report.machine import Facts
from bench.report.results import Results
from bench.report.tally import Tally, better_of
from bench.report.text import align, interval, quotient
from bench.stats import Band, Verdict, compare

__all__ = ["OtherMachine", "comparison", "same_machine"]

INDENT = "  "
RATIOS = (
    "Rows of two names are ratios: they say more than the figures, which also tell what else the"
    " machine did."
)
SHOWN = ("p50", "cpu_us")  # beside the main figure; tails stand in summary.md with their spread


class OtherMachine(Exception):
    """The runs are of different machines; the text is for the user."""


def comparison(before: Results, after: Results) -> list[str]:
    """The lines to print.

    Raises:
        OtherMachine: the figures of one cannot be held against those of the other.
    """
    same_machine(before.facts, after.facts)
    lines = [f"A: {_title(before)}", f"B: {_title(after)}"]
    others = {part.name: part for part in after.parts}
    verdicts: list[Verdict] = []
    for part in before.parts:
        other = others.pop(part.name, None)
        if other is None:
            lines.append(f"\n{part.name}: only in A")
            continue
        lines.append(f"\n{part.name}: {part.about}")
        if part.numbers != other.numbers:
            lines.append(f"{INDENT}not compared: the scenario has other numbers in B")
            continue
        left, right = Tally(part, before.subjects), Tally(other, after.subjects)
        for figure in (name for name in left.compared if name in SHOWN or name == part.main):
            lines += _figure(left, right, figure, verdicts)
    lines += [f"\n{name}: only in B" for name in others]
    return [*lines, "", _conclusion(verdicts), RATIOS]


def same_machine(before: Facts, after: Facts) -> None:
    """Raise OtherMachine unless figures of the two may be held against each other."""
    other = after.fingerprint
    different = [
        f"{name} {value} and {other[name]}"
        for name, value in before.fingerprint.items()
        if value != other[name]
    ]
    if different:
        raise OtherMachine(
            f"these results are of different machines ({'; '.join(different)}): their figures"
            " say nothing about each other; measure both commits on one machine"
        )


def _title(results: Results) -> str:
    end = "" if results.complete else ", interrupted"
    return f"{results.facts.at}, commit {results.facts.commit}{end}"


def _figure(left: Tally, right: Tally, figure: str, verdicts: list[Verdict]) -> list[str]:
    """One figure of all targets, then the relay's ratios to direct and to every peer."""
    rows = [[FIGURES[figure].heading, "A", "B", "B to A", ""]]
    for name in left.names:
        before, after = left.band(name, figure), right.band(name, figure)
        if before is None or after is None:
            continue
        verdict = compare(before, after)
        verdicts.append(verdict)
        cells = [interval(figure, before), interval(figure, after), _change(before, after)]
        rows.append([name, *cells, _word(figure, verdict)])
    rows += _ratios(left, right, figure, verdicts)
    return ["", *(INDENT + line for line in align(rows))]


def _ratios(left: Tally, right: Tally, figure: str, verdicts: list[Verdict]) -> list[list[str]]:
    rows = []
    bases = [left.direct, *left.peers] if figure != "cpu_us" else left.peers
    for relay in left.relays:
        for base in bases:
            before, after = left.ratio(relay, base, figure), right.ratio(relay, base, figure)
            if before is None or after is None:
                continue
            verdict = compare(before, after)
            verdicts.append(verdict)
            cells = [quotient(before), quotient(after), _change(before, after)]
            rows.append([f"{relay}/{base}", *cells, _word(figure, verdict)])
    return rows


def _change(before: Band, after: Band) -> str:
    return f"{after.middle / before.middle - 1:+.0%}" if before.middle else "-"


def _word(figure: str, verdict: Verdict) -> str:
    if verdict == "noise":
        return "within noise"
    if verdict == "unknown":
        return "one round: noise unknown"
    better = better_of(figure)
    return f"{verdict}, {'better' if verdict == better else 'worse'}" if better else verdict


def _conclusion(verdicts: list[Verdict]) -> str:
    noise, unknown = verdicts.count("noise"), verdicts.count("unknown")
    text = f"{len(verdicts)} comparisons: {noise} within noise"
    different = len(verdicts) - noise - unknown
    text += f", {different} beyond it"
    return text + (f", {unknown} of single rounds" if unknown else "")
