"""Results of a bench run that never took place: figures are drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace

from bench.report.machine import Facts
from bench.report.results import Part, Results, Subject, part_of
from bench.rounds import Round
from bench.scenarios import SCENARIOS
from bench.stats import Histogram

FACTS = Facts(
    at="2026-01-02T03:04:05+00:00",
    machine="x86_64",
    processor="Some Processor",
    cores=2,
    kernel="6.1.0",
    load_average=0.25,
    python="CPython 3.11.7",
    versions={"relay": "0.1.0", "nginx": "1.22.1", "aiohttp": None},
    commit="abc1234",
    command="python -m bench run",
)
# How many times direct's latency and CPU each target has.
WEIGHTS: Mapping[str, float] = {
    "direct": 1.0,
    "relay": 1.5,
    "relay-compiled": 1.42,
    "nginx": 1.6,
    "nginx-large": 1.7,
    "haproxy": 1.4,
    "haproxy-large": 1.45,
    "aiohttp": 3.8,
    "aiohttp-uvloop": 2.9,
    "websockets": 6.0,
    "trio-tasks": 7.5,
    "127.0.0.1:9000": 2.0,
    "127.0.0.1:8080": 1.9,
}
KINDS = {
    "direct": "direct",
    "relay": "relay",
    "relay-compiled": "relay",
    "127.0.0.1:9000": "given",
    "127.0.0.1:8080": "relay",
}


def subjects(names: Iterable[str]) -> tuple[Subject, ...]:
    """The targets of these names; nginx has a note."""
    notes = {"nginx": "no token check: does less than the relay"}
    return tuple(Subject(name, KINDS.get(name, "peer"), notes.get(name, "")) for name in names)


def one_round(scenario: str, target: str, number: int, messages: int = 2_000) -> Round:
    """A round with every figure that the scenario has."""
    shape, weight = SCENARIOS[scenario], WEIGHTS[target]
    source = random.Random(f"{scenario} {target} {number}")
    histogram = Histogram()
    growth = 1 + shape.at / 500 if shape.series == "scale" else 1.0
    for _ in range(messages):
        histogram.record(int(source.lognormvariate(0, 0.5) * 90_000 * weight * growth))
    figures = {name: source.uniform(9, 11) * weight for name in shape.figures}
    figures |= {
        name: histogram.percentile(percent) / 1_000
        for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("p999", 99.9), ("max", 100))
        if name in shape.figures
    }
    figures |= {name: 0.0 for name in ("lost", "reordered", "changed") if name in shape.figures}
    rate = {"per_second", "mb_per_second"} & figures.keys()
    figures |= {name: source.uniform(900, 1_100) / weight for name in rate}
    return Round(
        scenario, target, number, figures=figures, histograms={"latency": histogram}, raw={"a": 1}
    )


def part(scenario: str, targets: Iterable[str], rounds: int = 3, messages: int = 2_000) -> Part:
    """A scenario with so many rounds of each target, in the order of a run."""
    names = list(targets)
    made = [
        one_round(scenario, name, number, messages)
        for number in range(1, rounds + 1)
        for name in (names if number % 2 else reversed(names))
    ]
    return part_of(SCENARIOS[scenario], made)


def results(
    scenarios: Iterable[str] = ("calls",),
    targets: Iterable[str] = ("direct", "relay", "nginx"),
    rounds: int = 3,
    messages: int = 2_000,
) -> Results:
    """A complete run."""
    names = list(targets)
    parts = [part(scenario, names, rounds, messages) for scenario in scenarios]
    return Results(facts=FACTS, subjects=subjects(names), complete=True, parts=parts)


def spoilt(whole: Part, target: str, number: int, reason: str) -> Part:
    """The same with one round that does not count."""
    changed = [
        replace(one, invalid=reason) if (one.target, one.number) == (target, number) else one
        for one in whole.rounds
    ]
    return replace(whole, rounds=tuple(changed))


def multiplied(whole: Results, target: str, figure: str, factor: float) -> Results:
    """The same run with a figure of one target changed in all rounds."""

    def changed(one: Round) -> Round:
        if one.target != target or figure not in one.figures:
            return one
        figures = {**one.figures, figure: one.figures[figure] * factor}
        return replace(one, figures=figures)

    parts = [replace(each, rounds=tuple(map(changed, each.rounds))) for each in whole.parts]
    return replace(whole, parts=parts)
