"""`python -m bench list` and `python -m bench run`: measure this machine."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import report, targets
from bench.children import ChildFailed, end_marked
from bench.client import KEY_VARIABLE
from bench.flood import MAX_CONNECTIONS
from bench.rounds import Round, measure
from bench.scenarios import SCENARIOS, Calls, Scenario

__all__ = ["main"]

MAX_ROUNDS = 100
INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 1 nothing could be measured, 2 usage, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.action == "list":
        for scenario in SCENARIOS.values():
            print(report.describe_scenario(scenario))
        return 0
    try:
        scenarios = chosen(options)
        given = [_running(url, options.agent) for url in options.url]
    except ValueError as error:
        parser.error(str(error))
    # SIGTERM unwinds like Ctrl-C does, so that every process is ended on the way. SIGINT is
    # set as well: a shell starts background jobs with it ignored, and children inherit that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    mark = secrets.token_hex(16)
    try:
        return run(scenarios, given, options, mark)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ChildFailed as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    finally:
        left = end_marked(mark)
        if left:
            print(f"bench: killed {left} processes that the relay left behind", file=sys.stderr)


def run(
    scenarios: Sequence[Scenario],
    given: Sequence[targets.Target],
    options: argparse.Namespace,
    mark: str,
) -> int:
    """Start the targets, run all rounds, print and write the figures.

    Raises:
        ChildFailed: the origin did not start.
        KeyboardInterrupt: the user or SIGTERM ended the run.
    """
    machine = report.describe_machine()
    print(
        f"{machine['python']}, Linux {machine['kernel']}, {machine['cores']} cores,"
        f" load average {machine['load_average']:.2f}"
    )
    results = []
    with ExitStack() as stack:
        child, urls = stack.enter_context(targets.origin())
        measured = [targets.direct(child, urls[0])]
        try:
            measured.append(stack.enter_context(targets.relay(urls, mark)))
        except ChildFailed as failed:
            print(f"bench: the relay is left out: {failed}", file=sys.stderr)
        measured += given
        for scenario in scenarios:
            rounds = run_rounds(scenario, measured, options.rounds, options.flood)
            report.print_scenario(scenario, rounds)
            results.append((scenario, rounds))
    if options.json is not None:
        report.write_json(options.json, machine, results)
        print(f"\nraw figures: {options.json}")
    return 0 if any(not one.invalid for _, rounds in results for one in rounds) else 1


def run_rounds(
    scenario: Scenario, measured: Sequence[targets.Target], count: int, flood: int
) -> list[Round]:
    """Every target once per round, so that a drift of the machine meets them all.

    The order turns round from one round to the next: none always runs after the same one.
    """
    rounds = []
    for number in range(1, count + 1):
        for target in measured if number % 2 else reversed(measured):
            # A line that the next one overwrites; in a file it would only be noise.
            if sys.stderr.isatty():
                print(
                    f"\r{scenario.name} {number}/{count} {target.name:20}",
                    end="\r",
                    file=sys.stderr,
                )
            rounds.append(measure(scenario, target, number, flood))
    return rounds


def chosen(options: argparse.Namespace) -> list[Scenario]:
    """The scenarios that were named, with the numbers that were given.

    Raises:
        ValueError: an unknown name, or a number out of its limits.
    """
    if not 1 <= options.rounds <= MAX_ROUNDS:
        raise ValueError(f"--rounds is {options.rounds}; expected 1 to {MAX_ROUNDS}")
    if not 0 <= options.flood <= MAX_CONNECTIONS:
        raise ValueError(f"--flood is {options.flood}; expected 0 to {MAX_CONNECTIONS}")
    scenarios: list[Scenario] = []
    for name in options.scenario or SCENARIOS:
        scenario = SCENARIOS.get(name)
        if scenario is None:
            raise ValueError(f"no scenario {name!r}; expected one of {', '.join(SCENARIOS)}")
        if options.seconds is not None:
            scenario = replace(scenario, seconds=options.seconds)
        if isinstance(scenario, Calls):
            if options.calls is not None:
                scenario = replace(scenario, calls=options.calls)
        elif options.workers is not None:
            scenario = replace(scenario, workers=options.workers)
        scenarios.append(scenario)
    return scenarios


def _running(url: str, agent: str) -> targets.Target:
    return targets.running(url, agent, os.environ.get(KEY_VARIABLE, ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="the scenarios and their numbers")
    run_parser = actions.add_parser("run", help="measure; all scenarios unless some are named")
    add = run_parser.add_argument
    add("scenario", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    add("--calls", type=int, help="WebSockets at once, in `calls`")
    add("--workers", type=int, help="calls being set up at once, in `setup`")
    add("--seconds", type=float, help="how long each round records")
    add("--rounds", type=int, default=3, help="how often each target is measured")
    add(
        "--flood", type=int, default=0, metavar="N", help="N connections POST /start beside `calls`"
    )
    add(
        "--url",
        action="append",
        default=[],
        help="also measure what runs here: ws://… as it is, http://… a relay daemon",
    )
    add("--agent", default="bench", help=f"agent behind an http --url; its key is ${KEY_VARIABLE}")
    add("--json", type=Path, metavar="FILE", help="write all raw figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
