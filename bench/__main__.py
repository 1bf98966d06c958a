"""Measure this machine: what the relay costs, beside what else could stand in its place."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import targets
from bench.children import ChildFailed, end_marked
from bench.client import KEY_VARIABLE
from bench.core import CORE, CORE_TARGETS, LIMITED, core_rounds
from bench.report import terminal
from bench.report.agreement import LIMIT, agreement
from bench.report.comparison import OtherMachine, comparison
from bench.report.files import write
from bench.report.floors import brief_lines, judge
from bench.report.machine import here
from bench.report.results import Unreadable, directory, load, part_of
from bench.run import Plan, run
from bench.scenarios import SCENARIOS
from bench.shapes import Scenario

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"
ROUNDS, QUICK_ROUNDS, MAX_ROUNDS = 5, 3, 100
QUICK = ("calls", "setup")
SLOW_TO_BUILD = ("relay-compiled",)  # a minute, once, which a quick run has not
FAILED, USAGE = 1, 2
INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 nothing valid was measured, 2 usage or refused, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    options = parser.parse_args(given)
    try:
        match options.action:
            case "list":
                return _list()
            case "run":
                return _run(parser, options, given)
            case "compare":
                print("\n".join(comparison(load(options.a), load(options.b))))
                return 0
            case "agree":
                lines, agree = agreement(load(options.a), load(options.b))
                print("\n".join(lines))
                return 0 if agree else FAILED
            case "floors":
                print("\n".join(brief_lines(judge(load(options.directory)))))
                return 0
            case _:
                return _report(options.directory)
    except (Unreadable, OtherMachine, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return USAGE


def _list() -> int:
    for scenario in SCENARIOS.values():
        print("\n".join(terminal.describe(part_of(scenario, ()))))
    return 0


def _report(path: Path) -> int:
    said = write(path, load(path))
    print(f"made again: {path}")
    if said:
        print(f"bench: {said}", file=sys.stderr)
    return 0


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace, given: list[str]) -> int:
    try:
        scenarios = chosen(options)
        names = _names(options.targets, _usual(options))
        running = [_running(url, options.agent) for url in options.url]
    except ValueError as error:
        parser.error(str(error))
    # SIGTERM unwinds like Ctrl-C does, so that every process is ended on the way. SIGINT is
    # set as well: a shell starts background jobs with it ignored, and children inherit that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    facts, mark = here(given), secrets.token_hex(16)
    if options.out is None:
        path = directory(RESULTS, facts)
    else:
        options.out.mkdir(parents=True)
        path = options.out
    try:
        only = CORE if options.core else {} if options.targets else LIMITED
        rounds = {one.name: rounds_of(options, one.name) for one in scenarios}
        results = run(Plan(scenarios, names, only, running, rounds, facts, path, mark))
        return 0 if results.valid else FAILED
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ChildFailed as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return FAILED
    finally:
        left = end_marked(mark)
        if left:
            print(f"bench: killed {left} processes that were left behind", file=sys.stderr)


def chosen(options: argparse.Namespace) -> list[Scenario]:
    """The scenarios that were named, with the times that were given.

    Raises:
        ValueError: an unknown name, or a number out of its limits.
    """
    if options.rounds is not None and not 1 <= options.rounds <= MAX_ROUNDS:
        raise ValueError(f"--rounds is {options.rounds}; expected 1 to {MAX_ROUNDS}")
    scenarios = []
    chosen_by_flag = QUICK if options.quick else CORE if options.core else SCENARIOS
    for name in options.scenario or chosen_by_flag:
        if name not in SCENARIOS:
            raise ValueError(f"no scenario {name!r}; expected one of {', '.join(SCENARIOS)}")
        scenario = SCENARIOS[name]
        if options.seconds is not None:
            scenario = replace(scenario, seconds=options.seconds)
        scenarios.append(scenario)
    return scenarios


def rounds_of(options: argparse.Namespace, name: str) -> int:
    """How often a scenario meets each target: what was given, or what the selection wants."""
    if options.rounds is not None:
        return int(options.rounds)
    return core_rounds(name) if options.core else QUICK_ROUNDS if options.quick else ROUNDS


def _names(given: str | None, default: Iterable[str]) -> list[str]:
    """The targets that were named, those of the default without a choice.

    Raises:
        ValueError: one that is not known, or named twice.
    """
    names = given.split(",") if given else list(default)
    for name in names:
        if name not in targets.NAMES:
            raise ValueError(f"no target {name!r}; expected some of {','.join(targets.NAMES)}")
        if names.count(name) > 1:
            raise ValueError(f"target {name!r} is named twice")
    return names


def _usual(options: argparse.Namespace) -> Iterable[str]:
    """The targets of a run that names none."""
    if options.core:
        return CORE_TARGETS
    return [name for name in targets.NAMES if not options.quick or name not in SLOW_TO_BUILD]


def _running(url: str, agent: str) -> targets.Target:
    return targets.running(url, agent, os.environ.get(KEY_VARIABLE, ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="the scenarios: what they do, and what they do not show")
    add = actions.add_parser(
        "run", help="measure; all scenarios unless some are named"
    ).add_argument
    add("scenario", nargs="*", metavar="SCENARIO", help="names from `list`")
    add(
        "--quick",
        action="store_true",
        help=f"{QUICK_ROUNDS} rounds, and only {', '.join(QUICK)} if none is named",
    )
    add(
        "--core",
        action="store_true",
        help="only what the floors need, in some twelve minutes (bench/core.py)",
    )
    add(
        "--rounds",
        type=int,
        help=f"how often each target is measured ({ROUNDS}; {QUICK_ROUNDS} with --quick; by"
        " scenario with --core)",
    )
    add("--targets", metavar="A,B", help="only these; all that are installed otherwise")
    add("--seconds", type=float, help="how long each round records")
    add(
        "--url",
        action="append",
        default=[],
        help="also measure what runs here: ws://… as it is, http://… a relay daemon",
    )
    add("--agent", default="bench", help=f"agent behind an http --url; its key is ${KEY_VARIABLE}")
    add("--out", type=Path, metavar="DIR", help="a new directory for the results")
    compare = actions.add_parser("compare", help="two runs of one machine, side by side")
    compare.add_argument("a", type=Path, metavar="A", help="directory of the results before")
    compare.add_argument("b", type=Path, metavar="B", help="directory of the results after")
    limit = f"{LIMIT:.0%}".replace("%", "%%")  # argparse fills in its own after a single one
    agree = actions.add_parser(
        "agree", help=f"whether two runs of a commit have the same ratios to nginx ({limit})"
    )
    agree.add_argument("a", type=Path, metavar="A")
    agree.add_argument("b", type=Path, metavar="B")
    floors = actions.add_parser("floors", help="the table of floors of a run, as Markdown")
    floors.add_argument("directory", type=Path, metavar="DIR")
    report = actions.add_parser("report", help="make summary and plots again from raw.json")
    report.add_argument("directory", type=Path, metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main())
