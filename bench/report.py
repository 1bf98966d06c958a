"""Figures as a plain table and as a JSON file that says where they come from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from bench.rounds import Round, Times
from bench.scenarios import Calls, Scenario
from bench.stats import median, ratio

__all__ = ["describe_machine", "print_scenario", "write_json"]

# Every library on the path of a byte or of a request.
PACKAGES = ("relay", "trio", "h11", "wsproto", "msgspec", "structlog")
GIT_WAIT = 5.0
FORMAT = 1  # of the JSON file; counts up when a member changes its meaning


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, where the figure is, its digits, whether a ratio says anything."""

    heading: str
    figure: Callable[[Round], float | None]
    digits: int = 0
    compared: bool = True


def _time(name: str) -> Callable[[Round], float | None]:
    def of(one: Round) -> float | None:
        return getattr(one.times, name) if isinstance(one.times, Times) else None

    return of


TIMES = (
    Column("p50 us", _time("p50")),
    Column("p90 us", _time("p90")),
    Column("p99 us", _time("p99")),
    Column("max us", _time("highest")),
)
CALLS_COLUMNS = (
    *TIMES,
    Column("msg/s", lambda one: one.per_second),
    Column("lost", lambda one: one.lost),
    Column("reord", lambda one: one.reordered),
    Column("changed", lambda one: one.changed),
    Column("cpu us/msg", lambda one: one.cpu_us, 1),
    Column("PSS KiB/call", lambda one: one.pss_kib, 1, compared=False),
    Column("late p50", lambda one: one.late_p50, compared=False),
)
SETUP_COLUMNS = (
    *TIMES,
    Column("calls/s", lambda one: one.per_second),
    Column("failed", lambda one: one.failed),
    Column("start p50", lambda one: one.start_p50, compared=False),
    Column("connect p50", lambda one: one.connect_p50),
    Column("echo p50", lambda one: one.echo_p50),
    Column("cpu us/call", lambda one: one.cpu_us, 1),
)


def print_scenario(scenario: Scenario, rounds: Sequence[Round]) -> None:
    """Print every round, then medians of the valid ones and their ratio to the first target."""
    columns = CALLS_COLUMNS if isinstance(scenario, Calls) else SETUP_COLUMNS
    names = list(dict.fromkeys(one.target for one in rounds))
    rows = [["target", "round", *(column.heading for column in columns)]]
    for name in names:
        for one in (one for one in rounds if one.target == name):
            label = f"{one.number}" + ("!" if one.invalid else "")
            rows.append([name, label, *(_cell(c.figure(one), c.digits) for c in columns)])
    medians = {name: _medians(columns, rounds, name) for name in names}
    for name in names:
        cells = (_cell(v, c.digits) for v, c in zip(medians[name], columns, strict=True))
        rows.append([name, "median", *cells])
    base = names[0]
    rows += [
        [name, f"/ {base}", *_ratios(columns, medians[name], medians[base])] for name in names[1:]
    ]
    print(f"\n{describe_scenario(scenario)}")
    _print_rows(rows)
    for one in rounds:
        if one.invalid:
            print(f"! {one.target} round {one.number} is invalid: {one.invalid}")
        if one.note:
            print(f"  {one.target} round {one.number}: {one.note}")


def describe_scenario(scenario: Scenario) -> str:
    """One line: the name, what it does, its numbers."""
    if isinstance(scenario, Calls):
        numbers = f"{scenario.calls} calls x {scenario.rate} msg/s x {scenario.size} bytes"
    else:
        numbers = f"{scenario.workers} workers, echo of {scenario.size} bytes"
    times = f"{scenario.seconds:g} s after {scenario.warmup:g} s of warm-up"
    return f"{scenario.name}: {scenario.about}\n  {numbers}, {times}"


def describe_machine() -> dict[str, object]:
    """Where and with what a run took place; no host name and no path of this machine."""
    return {
        "format": FORMAT,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "command": ["python", "-m", "bench", *sys.argv[1:]],
    }


def write_json(
    path: Path, machine: dict[str, object], results: Sequence[tuple[Scenario, Sequence[Round]]]
) -> None:
    """Write all raw figures. Raises OSError."""
    scenarios = [
        {"scenario": asdict(scenario), "rounds": [asdict(one) for one in rounds]}
        for scenario, rounds in results
    ]
    path.write_text(json.dumps({**machine, "results": scenarios}, indent=1) + "\n")


def _medians(columns: Sequence[Column], rounds: Sequence[Round], name: str) -> list[float | None]:
    valid = [one for one in rounds if one.target == name and not one.invalid]
    return [median(column.figure(one) for one in valid) for column in columns]


def _ratios(
    columns: Sequence[Column], values: Sequence[float | None], bases: Sequence[float | None]
) -> list[str]:
    cells = []
    for column, value, base in zip(columns, values, bases, strict=True):
        quotient = ratio(value, base) if column.compared else None
        cells.append("-" if quotient is None else f"x{quotient:.2f}")
    return cells


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        first = row[0].ljust(widths[0])
        print(
            " ", "  ".join([first, *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree; None when there is no git or no repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_WAIT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
