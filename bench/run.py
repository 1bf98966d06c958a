"""A whole run: starts the targets, measures them round by round, writes what came out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import targets
from bench.children import ChildFailed
from bench.report import terminal
from bench.report.files import write
from bench.report.floors import judge, terminal_lines
from bench.report.machine import Facts, describe
from bench.report.progress import Progress
from bench.report.results import Results, Subject, part_of, save
from bench.report.tally import Tally
from bench.rounds import Round, measure
from bench.shapes import Calls, Scenario
from bench.targets import Target

__all__ = ["Plan", "in_turn", "run"]

OPENING = 0.002  # seconds for each of many tunnels
ROUND = 0.4  # seconds that a round takes beside its scenario's own: processes start, calls open


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured.

    Args:
        names: of the targets that the harness starts.
        only: by scenario, the names to which it is limited; a scenario that is not there meets all.
        given: what runs already.
        rounds: how often each scenario meets each target.
        path: an empty directory for the results.
        mark: carried by every process that is started for the run (bench/probe.py).
    """

    scenarios: Sequence[Scenario]
    names: Sequence[str]
    only: Mapping[str, Sequence[str]]
    given: Sequence[Target]
    rounds: int
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
    planned = sum(_planned(scenario) * len(met) for scenario, met in work) * plan.rounds
    progress = Progress(planned, sys.stderr)
    for place, (scenario, met) in enumerate(work, 1):
        progress.begin(f"{scenario.name}, scenario {place} of {len(plan.scenarios)}")
        rounds: list[Round] = []
        try:
            _rounds(scenario, met, origin, plan.rounds, rounds, progress)
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
    return [each for each in measured if only is None or each.name in only or each in plan.given]


def _rounds(
    scenario: Scenario,
    measured: Sequence[Target],
    origin: int,
    count: int,
    rounds: list[Round],
    progress: Progress,
) -> None:
    """Every target once per round, so that a drift of the machine meets them all."""
    for number in range(1, count + 1):
        for target in in_turn(measured, number):
            progress.step(f"{scenario.name} {number}/{count} {target.name}")
            rounds.append(measure(scenario, target, number, origin))
            progress.done(_planned(scenario))


def in_turn(measured: Sequence[Target], number: int) -> list[Target]:
    """The order of a round: every other one goes backwards, and each pair begins elsewhere.

    So none always runs first, or after the same one.
    """
    first = (number - 1) // 2 % len(measured)
    turned = [*measured[first:], *measured[:first]]
    return turned if number % 2 else turned[::-1]


def _planned(scenario: Scenario) -> float:
    once = scenario.warmup + scenario.seconds + ROUND
    if isinstance(scenario, Calls) and scenario.mixed:
        return 2 * once + scenario.idle * OPENING
    return once


def _write(path: Path, results: Results) -> None:
    save(path, results)
    said = write(path, results)
    print("", *terminal_lines(judge(results)), f"\nresults: {path}", sep="\n")
    if said:
        print(f"bench: {said}", file=sys.stderr)
