"""summary.md and the terminal table say what was measured, what was not, and what flatters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.report.results import Results
from bench.report.summary import summary
from bench.report.tally import Tally
from bench.report.terminal import WIDTH, table
from bench.scenarios import SCENARIOS
from tests.helpers.bench_results import WEIGHTS, results, spoilt


@pytest.fixture(scope="module")
def whole() -> Results:
    made = results(["calls", "setup"], messages=50)
    reason = "saturated: sent late\nits error output ends: much more"
    made.parts[0] = spoilt(made.parts[0], "nginx", 2, reason)
    made.missing = ("haproxy is not installed: apt-get install haproxy",)
    return made


def cells(text: str, first: str) -> list[list[str]]:
    """Every table row that begins with a cell."""
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return [row for row in rows if row[0] == first]


def test_circumstances_are_named(whole: Results) -> None:
    text = summary(whole)
    facts = whole.facts
    for each in (facts.commit, facts.processor, facts.kernel, f"`{facts.command}`", "nginx 1.22.1"):
        assert each in text
    assert "aiohttp" not in text  # None: not there
    assert "- Not measured: haproxy is not installed: apt-get install haproxy" in text


def test_figures_are_medians_with_their_ends(whole: Results) -> None:
    tally = Tally(whole.parts[0], whole.subjects)
    band = tally.band("relay", "p50")
    assert band is not None
    figures, ratios, *_ = cells(summary(whole), "relay")
    assert figures[1] == "3/3"
    assert figures[2] == f"{band.middle:.0f} ({band.low:.0f}-{band.high:.0f})"
    ratio = tally.ratio("relay", "direct", "p50")
    assert ratio is not None
    assert ratios[1] == f"x{ratio.middle:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def test_ratios_name_their_base(whole: Results) -> None:
    heads = cells(summary(whole), "ratio")
    assert heads[0][1:] == [
        *("p50 to direct", "p99 to direct", "p50 to nginx", "p99 to nginx", "cpu to nginx"),
    ]
    assert "per s to nginx" in heads[1]


def test_invalid_rounds_are_listed_and_counted(whole: Results) -> None:
    text = summary(whole)
    assert "- Does not count: nginx, round 2: saturated: sent late\n" in text
    assert cells(text, "nginx")[0][1] == "2/3"
    assert "- 1 round does not count" in text
    assert "much more" not in text


def test_what_flatters_is_said(whole: Results) -> None:
    text = summary(whole)
    assert "- nginx: no token check: does less than the relay" in text
    for part in whole.parts:
        assert part.shows_not in text


def test_an_interrupted_run_is_marked(whole: Results) -> None:
    assert "interrupted" not in summary(whole)
    assert "**This run was interrupted" in summary(replace(whole, complete=False))


def test_plots_stand_with_their_scenario(whole: Results) -> None:
    text = summary(whole, ["latency-calls.svg", "latency-setup.svg", "cpu-per-call.svg"])
    places = [text.index(f"]({name})") for name in
              ("latency-calls.svg", "latency-setup.svg", "cpu-per-call.svg")]  # fmt: skip
    assert places == sorted(places)
    assert places[0] < text.index("## setup") < places[1]
    assert text.index("## All scenarios") < places[2]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_table_fits_into_a_terminal(name: str) -> None:
    made = results([name], WEIGHTS, messages=20)
    lines = table(Tally(made.parts[0], made.subjects))
    assert max(map(len, lines[2:])) <= WIDTH
    assert sum(line.split()[:1] == ["relay"] for line in lines) == 1


def test_the_table_says_what_does_not_count(whole: Results) -> None:
    lines = table(Tally(whole.parts[0], whole.subjects))
    (row,) = (line for line in lines if line.split()[:1] == ["nginx"])
    assert "2 of 3" in row
    assert "  ! nginx round 2 does not count: saturated: sent late" in lines


def test_a_target_without_a_valid_round_has_no_figures() -> None:
    made = results(targets=("direct", "relay"), rounds=1, messages=5)
    made.parts[0] = spoilt(made.parts[0], "relay", 1, "broken")
    lines = table(Tally(made.parts[0], made.subjects))
    (row,) = (line for line in lines if line.split()[:1] == ["relay"])
    assert row.split()[1:5] == ["0", "of", "1", "-"]
    assert "| relay | 0/1 | - |" in summary(made)
