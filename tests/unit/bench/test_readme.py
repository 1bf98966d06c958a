"""bench/README.md names the scenarios, the columns and the targets that there are."""

from __future__ import annotations

import re
from pathlib import Path

from bench import figures, targets
from bench.figures import FIGURES
from bench.scenarios import SCENARIOS

README = Path(figures.__file__).with_name("README.md").read_text()


def rows(head: str) -> list[list[str]]:
    """The rows of the table whose first column has this head."""
    lines = README.splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.startswith(f"| {head} |"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def named(head: str) -> list[str]:
    """Every name in code quotes in the first column of a table."""
    return [name for row in rows(head) for name in re.findall(r"`([^`]+)`", row[0])]


def test_every_scenario_is_described() -> None:
    series: dict[str, list[str]] = {}
    for scenario in SCENARIOS.values():
        series.setdefault(scenario.series or scenario.name, []).append(scenario.name)
    # Of a series the first and the last stand there.
    ends = [name for names in series.values() for name in dict.fromkeys((names[0], names[-1]))]
    assert named("scenario") == ends


def test_every_column_is_described() -> None:
    assert rows("column") == [[figure.heading, figure.about] for figure in FIGURES.values()]


def test_every_target_is_described() -> None:
    assert set(named("target")) - {"--url"} == set(targets.NAMES)
