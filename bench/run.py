"""A whole run: starts the targets, measures them round by round, writes what came out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench import targets
from bench.children import ChildFailed
from bench.report import terminal
from bench.report.files import write
from bench.report.floors import judge, terminal_lines
from bench.report.machine import Facts, describe
from bench.report.progress import Progress, minutes
from bench.report.results import Results, Subject, part_of, save
from bench.report.tally import Tally
from bench.rounds import Round, measure
from bench.shapes import Calls, Idle, Scenario
from bench.targets import Target

__all__ = ["Patience", "Plan", "chosen", "in_turn", "run"]

# Seconds for each of many tunnels: open, close, end. The relay has a session for each.
OPENING = {"relay": 0.0045, "peer": 0.0007}
ROUND = 0.4  # seconds that a round takes beside its scenario's own: processes start, calls open
REPEATS = 2  # of a round that others disturbed
REPEATED = 0.25  # of the time of the whole run, at most, goes to such repetitions


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured.

    Args:
        names: of the targets that the harness starts.
        only: by scenario, the names to which it is limited; a scenario that is not there meets all.
        given: what runs already.
        rounds: by scenario, how often it meets each target.
        path: an empty directory for the results.
        mark: carried by every process that is started for the run (bench/probe.py).
    """

    scenarios: Sequence[Scenario]
    names: Sequence[str]
    only: Mapping[str, Sequence[str]]
    given: Sequence[Target]
    rounds: Mapping[str, int]
    facts: Facts
    path: Path
    mark: str


def run(plan: Plan) -> Results:
    """Measure everything, print each scenario when it is done, write the results.

    An interrupted run ends its targets first, then writes what there is and raises.

    Raises:
        ChildFailed: the origin did not start, or no target did; nothing was measured.
        OSError: the results cannot be written.
        KeyboardInterrupt: the user or SIGTERM ended the run.
    """
    results = Results(facts=plan.facts, subjects=())
    print(f"{describe(plan.facts)}, load average {plan.facts.load_average:.2f}")
    try:
        with ExitStack() as stack:
            started = _start(plan, results, stack)
            _measure(plan, started, results)
        results.complete = True
    finally:
        if results.parts:
            _write(plan.path, results)
        else:
            plan.path.rmdir()
    return results


def _start(plan: Plan, results: Results, stack: ExitStack) -> tuple[list[Target], int]:
    """Start the origin and every target that is there; the targets and the origin's process.

    Raises:
        ChildFailed: the origin did not start, or no target did.
    """
    child, url = stack.enter_context(targets.origin())
    measured: list[Target] = []
    missing: list[str] = []
    for each in targets.available(plan.names, child, url, plan.mark):
        try:
            if isinstance(each, str):
                missing.append(each)
            else:
                measured.append(stack.enter_context(each))
        except ChildFailed as failed:
            missing.append(str(failed))
    measured += plan.given
    for sentence in missing:
        print(f"bench: left out: {sentence}", file=sys.stderr)
    if not measured:
        raise ChildFailed("no target could be started")
    results.missing = missing
    results.subjects = [Subject(each.name, each.kind, each.note) for each in measured]
    return measured, child.pid


def _measure(plan: Plan, started: tuple[list[Target], int], results: Results) -> None:
    """All rounds of all scenarios; each scenario is printed and saved when it is done."""
    measured, origin = started
    met_by = ((scenario, _meeting(plan, scenario, measured)) for scenario in plan.scenarios)
    work = [(scenario, met) for scenario, met in met_by if met]
    planned = sum(
        _planned(scenario, target) * plan.rounds[scenario.name]
        for scenario, met in work
        for target in met
    )
    count = sum(len(met) * plan.rounds[scenario.name] for scenario, met in work)
    print(f"{len(work)} scenarios, {count} rounds, about {minutes(planned)}", flush=True)
    progress, patience = Progress(planned, sys.stderr), Patience(planned * REPEATED)
    for place, (scenario, met) in enumerate(work, 1):
        progress.begin(f"{scenario.name}, scenario {place} of {len(work)}")
        rounds: list[Round] = []
        try:
            _rounds(plan, (scenario, met, origin), rounds, progress, patience)
        finally:
            progress.clear()
            if rounds:
                results.parts.append(part_of(scenario, rounds))
        tally = Tally(results.parts[-1], results.subjects)
        print("", *terminal.table(tally), sep="\n", flush=True)
        save(plan.path, results)


def _meeting(plan: Plan, scenario: Scenario, measured: Sequence[Target]) -> list[Target]:
    """The targets that a scenario meets."""
    only = plan.only.get(scenario.name)
    return [
        each
        for each in measured
        if (only is None or each.name in only or each in plan.given)
        and not (_only_scrapes(scenario) and each.door.metrics_url is None)
    ]


def _only_scrapes(scenario: Scenario) -> bool:
    return isinstance(scenario, Calls) and bool(scenario.scrapes) and not scenario.mixed


@dataclass(slots=True)
class Patience:
    """How many planned seconds may still go to repetitions."""

    left: float

    def allows(self, planned: float) -> bool:
        """Whether another one fits; it is then counted."""
        fits = planned <= self.left
        self.left -= planned if fits else 0.0
        return fits


def _rounds(
    plan: Plan,
    work: tuple[Scenario, Sequence[Target], int],
    rounds: list[Round],
    progress: Progress,
    patience: Patience,
) -> None:
    """Every target once per round, so that a drift of the machine meets them all."""
    scenario, measured, origin = work
    count = plan.rounds[scenario.name]
    for number in range(1, count + 1):
        for target in in_turn(measured, number):
            progress.step(f"{scenario.name} {number}/{count} {target.name}")
            planned = _planned(scenario, target)
            tried = [measure(scenario, target, number, origin)]
            while tried[-1].disturbed and len(tried) <= REPEATS and patience.allows(planned):
                tried.append(measure(scenario, target, number, origin))
            rounds.append(chosen(tried))
            progress.done(planned)


def chosen(tried: Sequence[Round]) -> Round:
    """Of several attempts at a round the one that others disturbed least; what was thrown away."""
    least = min(tried, key=lambda one: (one.disturbed and bool(one.invalid), one.foreign))
    return replace(least, repeated=len(tried) - 1)


def in_turn(measured: Sequence[Target], number: int) -> list[Target]:
    """The order of a round: every other one goes backwards, and each pair begins elsewhere.

    So none always runs first, or after the same one.
    """
    first = (number - 1) // 2 % len(measured)
    turned = [*measured[first:], *measured[:first]]
    return turned if number % 2 else turned[::-1]


def _planned(scenario: Scenario, target: Target) -> float:
    """Seconds that a round takes on a machine that is left alone."""
    once = scenario.warmup + scenario.seconds + ROUND
    opening = OPENING["relay" if target.kind == "relay" else "peer"]
    match scenario:
        case Calls():
            scraped = bool(scenario.scrapes) and target.door.metrics_url is not None
            return (1 + scenario.mixed + scraped) * once + scenario.idle * opening
        case Idle():
            return once + scenario.tunnels * opening
        case _:
            return once


def _write(path: Path, results: Results) -> None:
    save(path, results)
    said = write(path, results)
    print("", *terminal_lines(judge(results)), f"\nresults: {path}", sep="\n")
    if said:
        print(f"bench: {said}", file=sys.stderr)
