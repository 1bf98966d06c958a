"""Two runs compare on one machine only, and a difference counts when it exceeds the noise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.report.comparison import OtherMachine, comparison
from bench.report.results import Results
from tests.helpers.bench_results import FACTS, multiplied, results


def line(lines: list[str], first: str, below: str) -> str:
    """The line of a target in the table of a figure."""
    start = next(i for i, each in enumerate(lines) if each.strip().startswith(below))
    return next(each for each in lines[start:] if each.split()[:1] == [first])


@pytest.mark.parametrize(
    "difference",
    [{"processor": "Another"}, {"cores": 4}, {"kernel": "6.2.0"}, {"machine": "aarch64"}],
)
def test_other_machines_are_refused_with_a_sentence(difference: dict[str, object]) -> None:
    before = results(messages=5)
    after = replace(before, facts=replace(FACTS, **difference))  # type: ignore[arg-type]
    with pytest.raises(OtherMachine, match="different machines") as refused:
        comparison(before, after)
    (name,) = difference
    assert name in str(refused.value)


def test_another_day_and_commit_are_no_other_machine() -> None:
    before = results(messages=5)
    facts = replace(FACTS, commit="def5678", at="2026-02-03T00:00:00+00:00", load_average=1.0)
    assert "B: 2026-02-03T00:00:00+00:00, commit def5678" in comparison(
        before, replace(before, facts=facts)
    )


def test_the_same_figures_are_noise() -> None:
    before = results(messages=50)
    lines = comparison(before, before)
    assert "within noise" in line(lines, "relay", "p50 us")
    assert "+0%" in line(lines, "relay", "p50 us")
    assert "0 beyond it" in lines[-2]


@pytest.mark.parametrize(
    ("factor", "word", "percent"),
    [(2, "higher, worse", "+100%"), (0.5, "lower, better", "-50%")],
)
def test_a_difference_beyond_the_rounds_is_said(factor: float, word: str, percent: str) -> None:
    before = results(messages=50)
    lines = comparison(before, multiplied(before, "relay", "cpu_us", factor))
    for row in ("relay", "relay/nginx"):
        assert word in line(lines, row, "cpu us")
        assert percent in line(lines, row, "cpu us")
    assert "within noise" in line(lines, "nginx", "cpu us")
    assert "2 beyond it" in lines[-2]


def test_more_per_second_is_better() -> None:
    before = results(["setup"], messages=50)
    lines = comparison(before, multiplied(before, "relay", "per_second", 2))
    assert "higher, better" in line(lines, "relay", "per s")


def test_one_round_says_nothing_about_noise() -> None:
    before = results(rounds=1, messages=50)
    lines = comparison(before, multiplied(before, "relay", "p50", 3))
    assert "noise unknown" in line(lines, "relay", "p50 us")
    assert "0 beyond it" in lines[-2]


def test_scenarios_of_one_side_or_with_other_numbers_are_not_compared() -> None:
    before = results(["calls", "setup"], messages=5)
    after = results(["pingpong", "calls"], messages=5)
    after.parts[1] = replace(after.parts[1], numbers={**after.parts[1].numbers, "calls": 99})
    lines = comparison(before, after)
    assert "\nsetup: only in A" in lines
    assert "\npingpong: only in B" in lines
    assert "  not compared: the scenario has other numbers in B" in lines


def test_an_interrupted_run_is_called_so() -> None:
    before: Results = results(messages=5)
    assert comparison(replace(before, complete=False), before)[0].endswith("interrupted")
