"""Figures as an aligned table and as a JSON file, and two such files side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from bench.micro.case import Case
from bench.micro.timing import Timing
from bench.report.machine import Facts
from bench.report.text import align

__all__ = ["BadFile", "Result", "compared", "described", "load", "save", "table"]

MISSING = "-"

Pair = tuple[float | None, float | None]


class BadFile(Exception):
    """A file that is no result of this program; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run, in the form in which it is written.

    Args:
        facts: where and with what.
        timings: by name of case.
        instructions: per operation, by name of case; empty when they were not counted.
        format: counts up when a member changes its meaning.
    """

    facts: Facts
    timings: dict[str, Timing]
    instructions: dict[str, float]
    format: Literal["bench.micro 1"] = "bench.micro 1"


def described(cases: Sequence[Case]) -> str:
    """The cases with what they do."""
    width = max(len(case.name) for case in cases)
    return "\n".join(f"{case.name:{width}}  {case.about}" for case in cases)


def table(cases: Sequence[Case], result: Result) -> str:
    """ns and instructions per operation, a line for each case."""
    head = ["case", "per", "wall ns min", "median", "spread", "cpu ns min", "median"]
    rows = [[*head, "instructions", "operations"]]
    for case in cases:
        timing = result.timings[case.name]
        rows.append(
            [
                case.name,
                case.unit,
                _number(min(timing.wall)),
                _number(median(timing.wall)),
                f"{timing.spread:+.0%}",
                _number(min(timing.cpu)),
                _number(median(timing.cpu)),
                _number(result.instructions.get(case.name)),
                f"{timing.operations}",
            ]
        )
    return "\n".join(align(rows))


def compared(before: Result, after: Result) -> str:
    """Ratios after / before of the minima, and of instructions where both have them.

    Times of different machines are left out and the text says so; instructions stay,
    since they depend on the program and its interpreter only.
    """
    other = before.facts.fingerprint != after.facts.fingerprint
    rows = [["case", "wall", "ns before", "after", "cpu", "ns before", "after"]]
    rows[0] += ["instructions", "before", "after"]
    for name, first in before.timings.items():
        second = after.timings.get(name)
        if second is None:
            continue
        times = [(min(first.wall), min(second.wall)), (min(first.cpu), min(second.cpu))]
        pairs: list[Pair] = [(None, None), (None, None)] if other else [*times]
        pairs.append((before.instructions.get(name), after.instructions.get(name)))
        rows.append([name, *(cell for pair in pairs for cell in _cells(pair))])
    return "\n".join([*align(rows), *_remarks(before, after)])


def save(path: Path, result: Result) -> None:
    """Write everything that was measured. Raises OSError."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def load(path: Path) -> Result:
    """Read what `save` wrote.

    Raises:
        BadFile: it can't be read, or is something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise BadFile(f"{path} can't be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise BadFile(f"{path} is no result of bench.micro: {error}") from None


def _remarks(before: Result, after: Result) -> list[str]:
    """What a reader has to know about the two files."""
    remarks = []
    first, second = before.facts.fingerprint, after.facts.fingerprint
    other = [name for name in first if first[name] != second[name]]
    if other:
        remarks.append(f"times are left out, the machines differ: {', '.join(other)}")
    if before.facts.python != after.facts.python:
        remarks.append(f"the interpreters differ: {before.facts.python}, {after.facts.python}")
    single = before.timings.keys() ^ after.timings.keys()
    if single:
        remarks.append(f"in one of the files only: {', '.join(sorted(single))}")
    return remarks


def _cells(pair: Pair) -> list[str]:
    """The ratio of the two and both of them; no ratio while one is missing."""
    before, after = pair
    ratio = f"x{after / before:.3f}" if before and after is not None else MISSING
    return [ratio, _number(before), _number(after)]


def _number(value: float | None) -> str:
    """Whole from a hundred on; below, a tenth is more than noise."""
    if value is None:
        return MISSING
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
