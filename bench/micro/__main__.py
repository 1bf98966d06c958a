"""`python -m bench.micro [NAME…]`: what single steps cost; `compare A B`: two results."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.micro import instructions, report
from bench.micro.case import Case
from bench.micro.cases import CASES, chosen
from bench.micro.timing import REPETITIONS, measure
from bench.report.machine import Facts, describe, here

__all__ = ["main"]

INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a file or a counter failed, 2 usage, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["compare"]:
            return _compare(given[1:])
        return _measure(given)
    except (report.BadFile, instructions.CounterFailed, OSError) as error:
        print(f"bench.micro: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench.micro: interrupted", file=sys.stderr)
        return INTERRUPTED


def _measure(given: Sequence[str]) -> int:
    parser = _parser()
    options = parser.parse_args(given)
    try:
        cases = chosen(options.case)
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        print(report.described(cases))
        return 0
    facts = _facts(options)
    result = report.Result(facts, measure(cases, tell=_tell), {})
    if options.instructions:
        result.instructions.update(_counted(cases))
    _tell("")
    print(describe(facts))
    print(f"load average {facts.load_average:.2f}, {REPETITIONS} repetitions\n")
    print(report.table(cases, result))
    if options.json is not None:
        report.save(options.json, result)
    return 0


def _facts(options: argparse.Namespace) -> Facts:
    """Where this run takes place; without the name of its file, a place of this machine."""
    flags = ["--instructions"] if options.instructions else []
    command = shlex.join(["python", "-m", "bench.micro", *options.case, *flags])
    return replace(here([]), command=command)


def _counted(cases: Sequence[Case]) -> dict[str, float]:
    tool = instructions.find_tool()
    if tool is None:
        _tell("")
        print(f"bench.micro: {instructions.HOW_TO_INSTALL}", file=sys.stderr)
        return {}
    return instructions.count(cases, tool, _tell)


def _compare(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.micro compare",
        description="Ratios of the minima of two results, B / A: below 1 is less in B.",
    )
    parser.add_argument("before", type=Path, metavar="A")
    parser.add_argument("after", type=Path, metavar="B")
    options = parser.parse_args(given)
    print(report.compared(report.load(options.before), report.load(options.after)))
    return 0


def _tell(text: str) -> None:
    """Progress: a line that the next one overwrites; in a file it would only be noise."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    add = parser.add_argument
    add("case", nargs="*", metavar="NAME", help=f"all unless some are named: {', '.join(CASES)}")
    add("--list", action="store_true", help="say what the cases do and measure nothing")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    add(
        "--instructions",
        action="store_true",
        help="count them as well, with perf or valgrind; takes some minutes",
    )
    return parser


if __name__ == "__main__":
    # SIGTERM unwinds like Ctrl-C does, so that counted runs are ended on the way; SIGINT is
    # set as well, since a shell starts background jobs with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
