"""raw.json gives back what was written, and names no place of the machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.report.machine import ROOT, here, slug
from bench.report.results import Unreadable, directory, load, part_of, save
from bench.report.text import numbers
from bench.scenarios import SCENARIOS
from tests.helpers.bench_results import FACTS, results, spoilt


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    written = results(["calls", "bulk-1k", "setup"], rounds=2, messages=50)
    save(tmp_path, written)
    found = load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.json"]
    assert (found.facts, tuple(found.subjects)) == (written.facts, written.subjects)
    for before, after in zip(written.parts, found.parts, strict=True):
        assert replace(after, rounds=()) == replace(before, rounds=())
        assert numbers(after.numbers) == numbers(before.numbers)  # 50 is not 50.0
        for old, new in zip(before.rounds, after.rounds, strict=True):
            assert replace(new, histograms={}) == replace(old, histograms={})
            assert new.histograms["latency"].dump() == old.histograms["latency"].dump()


def test_every_round_has_a_line(tmp_path: Path) -> None:
    save(tmp_path, results(rounds=2, messages=5))
    lines = (tmp_path / "raw.json").read_text().splitlines()
    assert sum(line.startswith('{"scenario":') for line in lines) == 6
    json.loads((tmp_path / "raw.json").read_text())


def test_a_histogram_is_kept_once() -> None:
    (one, *_) = results(messages=5).parts[0].rounds
    dumped = one.histograms["latency"].dump()
    raw = {"load": {"sent": 1, "latency": dumped, "parts": {"start": dumped, "count": 2}}}
    (kept,) = part_of(SCENARIOS["calls"], [replace(one, raw=raw)]).rounds
    assert kept.raw == {"load": {"sent": 1, "parts": {"count": 2}}}
    assert kept.histograms == one.histograms


def test_paths_of_the_machine_stay_out(tmp_path: Path) -> None:
    written = results(messages=5)
    reason = f"load ended early; File {ROOT}/bench/load.py and {Path.home()}/x and {tmp_path}/y"
    written.parts[0] = spoilt(written.parts[0], "relay", 1, reason)
    save(tmp_path, written)
    text = (tmp_path / "raw.json").read_text()
    assert str(ROOT) not in text
    assert str(tmp_path) not in text
    assert f"{Path.home()}/" not in text
    assert "./bench/load.py" in text


def test_the_directory_is_named_by_date_machine_and_commit(tmp_path: Path) -> None:
    first = directory(tmp_path / "new", FACTS)
    second = directory(tmp_path / "new", FACTS)
    assert first.name == "2026-01-02-x86_64-2c-abc1234"
    assert second.name == "2026-01-02-030405-x86_64-2c-abc1234"
    assert first.is_dir()
    assert second.is_dir()
    with pytest.raises(FileExistsError):
        directory(tmp_path / "new", FACTS)


def test_this_machine_has_facts_and_the_command_no_places() -> None:
    facts = here(["run", "calls", "--out", "/some/place", "--quick"])
    assert facts.command == "python -m bench run calls --quick"
    assert here(["run", "--out=/some/place"]).command == "python -m bench run"
    assert facts.cores >= 1
    assert slug(facts) == f"{facts.machine}-{facts.cores}c"
    assert facts.versions["relay"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "holds no results"),
        ("", "damaged"),
        ("[]", "damaged"),
        ("{}", "format 0"),
        ('{"format": 1}', "format 1"),
        ('{"format": 2}', "damaged"),
    ],
)
def test_what_holds_no_results_is_said(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "raw.json").write_text(text)
    with pytest.raises(Unreadable, match=said):
        load(tmp_path)


def test_a_damaged_histogram_is_said(tmp_path: Path) -> None:
    save(tmp_path, results(messages=5))
    path = tmp_path / "raw.json"
    path.write_text(path.read_text().replace('"sub_bits":7', '"sub_bits":6'))
    with pytest.raises(Unreadable, match="damaged"):
        load(tmp_path)
