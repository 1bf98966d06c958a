"""The floors name what there is, a verdict is that of the median, two runs agree or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import targets
from bench.core import CORE, CORE_TARGETS, LIMITED, core_rounds
from bench.floors import COMPILED, FLOORS, JUDGED, PURE, Floor
from bench.report.agreement import LIMIT, agreement
from bench.report.comparison import OtherMachine
from bench.report.floors import brief_lines, judge, markdown_lines, terminal_lines
from bench.report.results import Results
from bench.report.summary import summary
from bench.report.tally import better_of
from bench.scenarios import SCENARIOS
from tests.helpers.bench_results import FACTS, multiplied, results, spoilt

NAMES = ("direct", "relay", "relay-compiled", "nginx", "nginx-large", "haproxy")


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: f"{floor.scenario}-{floor.figure}")
def test_a_floor_names_what_there_is(floor: Floor) -> None:
    assert floor.figure in SCENARIOS[floor.scenario].figures
    assert better_of(floor.figure) is not None
    assert set(floor.bases) <= set(targets.NAMES)


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: f"{floor.scenario}-{floor.figure}")
def test_the_core_selection_measures_every_floor(floor: Floor) -> None:
    met = set(CORE[floor.scenario])
    assert PURE in met
    # Of each peer at least one of its configurations: what the others lack stands in bench/core.
    kinds = {base.removesuffix("-large") for base in floor.bases}
    assert kinds <= {name.removesuffix("-large") for name in met}
    assert {base for base in floor.bases if len(floor.bases) == 1} <= met


def test_the_core_selection_names_what_there_is() -> None:
    assert set(CORE) | set(LIMITED) <= set(SCENARIOS)
    assert set(CORE_TARGETS).union(*LIMITED.values()) <= set(targets.NAMES)
    assert all(core_rounds(name) >= 5 for name in CORE)


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: f"{floor.scenario}-{floor.figure}")
def test_a_goal_is_harder_than_its_floor_and_a_compiled_pump_owes_no_less(floor: Floor) -> None:
    lower = better_of(floor.figure) == "lower"
    marks = [floor.owed(PURE), floor.owed(COMPILED), *([] if floor.goal is None else [floor.goal])]
    assert marks == sorted(marks, reverse=lower)


def exact(scenario: str, **ratios: float) -> Results:
    """A run in which every target has so many times what nginx has, in every round."""
    made = results([scenario], NAMES, messages=5)
    (part,) = made.parts
    rounds = []
    for one in part.rounds:
        times = ratios.get(one.target.replace("-", "_"), 1.0)
        figures = dict.fromkeys(part.figures, 100.0 * one.number * times)
        faultless = {name: 0.0 for name in ("lost", "reordered", "changed") if name in figures}
        rounds.append(replace(one, figures={**figures, **faultless}))
    made.parts[0] = replace(part, rounds=tuple(rounds))
    return made


@pytest.mark.parametrize(
    ("scenario", "relay", "verdicts"),
    [
        ("pingpong", 1.0, ["goal met"]),
        ("pingpong", 1.15, ["met"]),
        ("pingpong", 1.16, ["MISSED"]),
        ("bulk-64k", 1.5, ["goal met", "goal met"]),
        ("bulk-64k", 1.3, ["met", "goal met"]),
        ("bulk-64k", 0.9, ["MISSED", "met"]),
    ],
)
def test_the_verdict_is_that_of_the_median_ratio(
    scenario: str, relay: float, verdicts: list[str]
) -> None:
    judged = judge(exact(scenario, relay=relay))
    assert [one.verdict for one in judged if one.target == PURE] == verdicts


def test_a_compiled_pump_has_a_floor_of_its_own() -> None:
    judged = judge(exact("pingpong", relay=1.12, relay_compiled=1.12))
    assert {one.target: one.verdict for one in judged} == {PURE: "met", COMPILED: "MISSED"}


def test_the_base_is_the_best_peer_that_changed_nothing() -> None:
    made = exact("pingpong", haproxy=0.5, relay=1.0)
    assert {one.base for one in judge(made)} == {"haproxy"}
    faulty = multiplied(made, "haproxy", "lost", 1)
    for part in faulty.parts:
        rounds = [
            replace(one, figures={**one.figures, "lost": 1.0}) if one.target == "haproxy" else one
            for one in part.rounds
        ]
        faulty.parts[0] = replace(part, rounds=tuple(rounds))
    assert {one.base for one in judge(faulty)} == {"nginx"}


def test_what_was_not_measured_is_not_judged() -> None:
    assert judge(results(["calls"], ("direct", "nginx"), messages=5)) == []
    assert terminal_lines([]) == []
    assert markdown_lines([]) == []


def test_the_table_stands_in_the_terminal_and_in_the_summary() -> None:
    made = exact("pingpong", relay=1.2)
    (line,) = (each for each in terminal_lines(judge(made)) if f" {PURE} " in each)
    cells = [cell for cell in line.split("  ") if cell.strip()]
    assert [cell.strip() for cell in cells] == [
        *("round trip, 1 call, p50", PURE, "x1.20 (x1.20 to x1.20)", "nginx"),
        *("<= x1.15", "<= x1.00", "MISSED"),
    ]
    assert "## Floors and goals" in summary(made)
    assert set(JUDGED) == {one.target for one in judge(made)}


def test_the_brief_table_has_a_row_for_each_floor() -> None:
    made = exact("bulk-64k", relay=0.9, relay_compiled=1.35)
    assert brief_lines(judge(made))[2:] == [
        "| 4 calls of 64 KiB, throughput | x0.90 | x1.35 | haproxy | >= x1.30 | missed, met |",
        "| the same | x0.90 | x1.35 | nginx-large | >= x0.90 | met, goal met |",
    ]
    (told,) = brief_lines([])
    assert "nothing that has a floor" in told


@pytest.mark.parametrize(
    ("factor", "agree"), [(1.0, True), (1 + LIMIT - 0.01, True), (1 + LIMIT + 0.01, False)]
)
@pytest.mark.parametrize("figure", ["p50", "cpu_us"])
def test_two_runs_agree_when_their_ratios_do(figure: str, factor: float, agree: bool) -> None:
    before = results(messages=50)
    for pair in ((before, multiplied(before, "relay", figure, factor)),
                 (multiplied(before, "relay", figure, factor), before)):  # fmt: skip
        lines, found = agreement(*pair)
        assert found is agree
        (line,) = (each for each in lines if f"{figure.removesuffix('_us')} relay/nginx" in each)
        assert line.endswith("agree" if agree else "APART")


def test_a_machine_that_is_slower_as_a_whole_is_no_disagreement() -> None:
    before = results(messages=50)
    slower = multiplied(multiplied(before, "relay", "p50", 3), "nginx", "p50", 3)
    assert agreement(before, slower)[1]


def test_a_ratio_that_only_one_run_has_is_no_agreement() -> None:
    before = results(messages=50)
    after = replace(before, parts=list(before.parts))
    for number in (1, 2, 3):
        after.parts[0] = spoilt(after.parts[0], "nginx", number, "saturated")
    lines, agree = agreement(before, after)
    assert not agree
    assert any(line.endswith("ONLY IN ONE") for line in lines)


def test_runs_without_a_common_ratio_do_not_agree() -> None:
    lines, agree = agreement(results(["calls"], messages=5), results(["setup"], messages=5))
    assert not agree
    assert lines == ["the runs have no ratio to nginx in common"]


def test_runs_of_two_machines_are_not_held_against_each_other() -> None:
    before = results(messages=5)
    with pytest.raises(OtherMachine):
        agreement(before, replace(before, facts=replace(FACTS, cores=64)))
