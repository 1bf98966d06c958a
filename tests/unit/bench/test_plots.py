"""Every plot is drawn, also of results with holes, and without matplotlib the rest is."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.report.files import NO_PLOTS, write
from bench.report.results import Results
from tests.helpers.bench_results import WEIGHTS, results, spoilt

ALL = ("calls", "setup", "idle", "bulk-1k", "bulk-4k", "scale-10", "scale-50")
PLOTS = {
    *("latency-calls", "latency-setup", "scale-p50", "scale-p99", "scale-cpu-us"),
    *("bulk-mb-per-second", "bulk-p50", "bulk-p99", "bulk-cpu-us", "per-second", "pss-kib"),
    *("cpu-per-forwarded-message", "cpu-per-call", "cpu-per-second"),
}


def check(path: Path) -> set[str]:
    """The names of the plots in a directory, each of which is there in both forms."""
    names = {each.stem for each in path.glob("*.svg")}
    assert names == {each.stem for each in path.glob("*.png")}
    for name in names:
        ElementTree.parse(path / f"{name}.svg")
        assert f"![{name}]({name}.svg)" in (path / "summary.md").read_text()
    return names


def test_all_plots_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    assert write(tmp_path, results(ALL, WEIGHTS, rounds=2, messages=100)) is None
    assert check(tmp_path) == PLOTS


def test_one_target_alone_has_no_bars(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    write(tmp_path, results(("calls", "setup"), ("relay",), rounds=1, messages=100))
    assert check(tmp_path) == {"latency-calls", "latency-setup", "per-second"}


def without_valid_rounds(target: str) -> Results:
    made = results(("calls", "scale-10", "scale-50"), rounds=2, messages=100)
    for number in (1, 2):
        made.parts = [spoilt(part, target, number, "broken") for part in made.parts]
    return made


@pytest.mark.parametrize("target", ["direct", "relay"])
def test_a_target_without_valid_rounds_spoils_no_plot(tmp_path: Path, target: str) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    write(tmp_path, without_valid_rounds(target))
    assert {"latency-calls", "scale-p50", "cpu-per-forwarded-message"} <= check(tmp_path)


def test_the_same_results_make_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    made = results(rounds=1, messages=100)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, made)
    drawn = list((tmp_path / "a").glob("*.svg"))
    assert drawn
    for path in drawn:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_without_matplotlib_there_is_a_summary_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("bench.report.plots")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("bench.report.bars", "bench.report.curves", "bench.report.drawing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert write(tmp_path, results(messages=5)) == NO_PLOTS
    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]
