"""The command line says what is wrong before anything starts, and its exit statuses hold."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import native
from bench.__main__ import QUICK_ROUNDS, ROUNDS, _parser, main, rounds_of
from bench.core import core_rounds
from bench.report.results import Results, save
from bench.scenarios import SCENARIOS
from tests.helpers.bench_results import FACTS, multiplied, results


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without matplotlib, which takes seconds."""
    for name in ("plots", "bars", "curves", "drawing"):
        monkeypatch.delitem(sys.modules, f"bench.report.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def saved(path: Path, made: Results) -> str:
    path.mkdir()
    save(path, made)
    return str(path)


@pytest.mark.parametrize("action", [[], ["list"], ["run"], ["compare"], ["agree"], ["report"]])
def test_help(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args([*action, "--help"])
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: action"),
        (["walk"], "invalid choice"),
        (["run", "nothing"], "no scenario 'nothing'"),
        (["run", "--rounds", "0"], "--rounds is 0; expected 1 to 100"),
        (["run", "--rounds", "101"], "expected 1 to 100"),
        (["run", "calls", "--seconds", "0.1"], "seconds is 0.1; expected 0.2 to 600"),
        (["run", "--targets", "relay,apache"], "no target 'apache'; expected some of direct,relay"),
        (["run", "--targets", "relay,relay"], "target 'relay' is named twice"),
        (["run", "--url", "ftp://127.0.0.1"], "expected http://host:port or ws://"),
        (["compare", "one"], "required: B"),
        (["report"], "required: DIR"),
    ],
)
def test_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_results_never_go_into_a_directory_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "calls", "--out", str(tmp_path)]) == 2
    assert "File exists" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_list_names_every_scenario_and_what_it_does_not_show(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for scenario in SCENARIOS.values():
        assert f"{scenario.name}: {scenario.about}\n" in said
        assert scenario.shows_not in said


def test_floors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["floors", saved(tmp_path / "a", results(messages=20))]) == 0
    assert "| 50 calls, p50 | x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "rounds"),
    [
        ([], ROUNDS),
        (["--quick"], QUICK_ROUNDS),
        (["--core"], core_rounds("calls")),
        (["--core", "--rounds", "2"], 2),
    ],
    ids=["all", "quick", "core", "given"],
)
def test_how_often_a_target_is_measured(words: list[str], rounds: int) -> None:
    assert rounds_of(_parser().parse_args(["run", *words]), "calls") == rounds


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = results(messages=20)
    a = saved(tmp_path / "a", before)
    b = saved(tmp_path / "b", multiplied(before, "relay", "cpu_us", 2))
    assert main(["compare", a, b]) == 0
    assert "higher, worse" in capsys.readouterr().out


def test_agree_exits_with_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = results(messages=20)
    a, b = saved(tmp_path / "a", before), saved(tmp_path / "b", before)
    c = saved(tmp_path / "c", multiplied(before, "relay", "cpu_us", 2))
    assert main(["agree", a, b]) == 0
    assert main(["agree", a, c]) == 1
    assert "APART" in capsys.readouterr().out


@pytest.mark.parametrize(
    "selection",
    [
        ["--core", "mixed-idle"],
        ["mixed-scrapes"],  # has nothing to fetch
    ],
    ids=["core", "scrapes"],
)
def test_a_selection_that_meets_no_target_is_nothing_measured(
    selection: list[str], tmp_path: Path
) -> None:
    if native.compiler() is None:
        pytest.skip("no C compiler: apt-get install gcc")
    out = tmp_path / "out"
    assert main(["run", "--targets", "direct", *selection, "--out", str(out)]) == 1
    assert not out.exists()


def test_compare_refuses_another_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(messages=5)
    a = saved(tmp_path / "a", before)
    b = saved(tmp_path / "b", replace(before, facts=replace(FACTS, cores=64)))
    assert main(["compare", a, b]) == 2
    said = capsys.readouterr()
    assert "bench: these results are of different machines (cores 2 and 64)" in said.err
    assert said.out == ""


@pytest.mark.parametrize("action", ["compare", "report"])
def test_a_directory_without_results_is_said(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [str(tmp_path)] * (2 if action == "compare" else 1)
    assert main([action, *places]) == 2
    assert "holds no results: No such file" in capsys.readouterr().err


@pytest.mark.usefixtures("plain")
def test_report_makes_the_summary_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = saved(tmp_path / "a", results(messages=5))
    assert main(["report", place]) == 0
    assert (tmp_path / "a" / "summary.md").read_text().startswith("# Results of 2026-01-02")
    assert "pip install matplotlib" in capsys.readouterr().err
