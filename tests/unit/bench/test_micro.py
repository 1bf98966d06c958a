"""The method of bench.micro over a clock that is set by hand, its files and its commands."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from bench.micro import instructions, report
from bench.micro.__main__ import main
from bench.micro.case import Case, Loop, Repeated
from bench.micro.cases import CASES, chosen
from bench.micro.instructions import Counted, CounterFailed, Tool
from bench.micro.report import BadFile, Result
from bench.micro.timing import GROWTH, MARGIN, Clocks, Timing, calibrate, measure
from bench.report.machine import Facts
from tests.helpers.daemon import wait_until

FACTS = Facts("now", "x86_64", "a processor", 2, "6.1", 0.5, "CPython 3.11.7", {}, "abc", "")
FAST = Timing(1000, (110.0, 100.0, 130.0), (95.0, 90.0, 99.0))
SLOW = Timing(500, (200.0, 300.0, 250.0), (180.0, 190.0, 200.0))


class Bench:
    """Time that passes only in loops, and loops that note what they were asked for."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0
        self.asked: list[tuple[str, int]] = []
        self.collected: list[bool] = []
        self.clocks = Clocks(lambda: self.wall, lambda: self.cpu)

    def case(self, name: str, wall: int, cpu: int, each: int = 1) -> Case:
        """A case whose rounds take so long, in ns."""

        def loop(count: int) -> int:
            self.asked.append((name, count))
            self.collected.append(gc.isenabled())
            self.wall += count * wall
            self.cpu += count * cpu
            return count * each

        return Case(name, "call", "", lambda stack: loop)


def test_a_loop_calls_its_operation_and_counts_what_that_does() -> None:
    calls: list[int] = []
    assert Repeated(lambda: calls.append(1))(7) == 7
    assert len(calls) == 7
    assert Repeated(lambda: None, each=3)(7) == 21


@pytest.mark.parametrize("cost", [1, 7, 333, 49_999, 50_000, 1_000_000])
def test_a_count_is_found_that_lasts_long_enough(cost: int) -> None:
    bench = Bench()
    loop = bench.case("a", cost, 0).setup(ExitStack())
    count = calibrate(loop, bench.clocks.wall, 50_000)
    assert count * cost >= 50_000
    assert count == 1 or count * cost <= 50_000 * MARGIN + cost
    counts = [asked for _, asked in bench.asked]
    assert counts == sorted(counts)
    assert all(more <= GROWTH * less for less, more in pairwise(counts))


def test_a_clock_too_coarse_to_see_the_first_runs_is_borne() -> None:
    bench = Bench()
    loop = bench.case("a", 1, 0).setup(ExitStack())
    assert calibrate(loop, lambda: bench.wall // 1000 * 1000, 50_000) >= 50_000


def test_figures_are_per_operation() -> None:
    bench = Bench()
    cases = [bench.case("a", 100, 60), bench.case("b", 1000, 900, each=10)]
    timings = measure(cases, clocks=bench.clocks, repetitions=3, long_enough=10_000)
    assert timings["a"].wall == (100.0,) * 3
    assert timings["a"].cpu == (60.0,) * 3
    assert timings["b"].wall == (100.0,) * 3
    assert timings["b"].cpu == (90.0,) * 3
    assert timings["b"].operations == 10 * bench.asked[-1][1]


def test_repetitions_go_through_all_cases_in_turn() -> None:
    bench, told = Bench(), list[str]()
    cases = [bench.case("a", 100, 0), bench.case("b", 100, 0)]
    measure(cases, clocks=bench.clocks, repetitions=4, long_enough=1000, tell=told.append)
    assert [name for name, _ in bench.asked[-8:]] == ["a", "b"] * 4
    assert len({count for _, count in bench.asked[-8:]}) == 1
    assert told == [
        *("warming up a", "warming up b"),
        *(f"repetition {number} of 4" for number in range(1, 5)),
    ]


def test_the_collector_is_off_meanwhile_and_then_as_before() -> None:
    bench, frozen = Bench(), gc.get_freeze_count()
    assert gc.isenabled()
    measure([bench.case("a", 1, 1)], clocks=bench.clocks, repetitions=2, long_enough=10)
    assert not any(bench.collected)
    assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen


def test_what_a_case_opened_is_closed_also_when_a_loop_fails() -> None:
    closed: list[str] = []

    def setup(stack: ExitStack) -> Loop:
        stack.callback(closed.append, "closed")
        return Repeated(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        measure([Case("a", "call", "", setup)])
    assert closed == ["closed"]
    assert gc.isenabled()


def test_the_spread_is_how_far_the_median_lies_above_the_minimum() -> None:
    assert FAST.spread == pytest.approx(0.1)
    assert Timing(1, (5.0,), (5.0,)).spread == 0


def test_start_and_end_cancel_out() -> None:
    assert instructions.per_operation(Counted(1_000_500, 5), Counted(1_001_500, 15)) == 100


@pytest.mark.parametrize(
    ("tool", "text", "found"),
    [
        (instructions.PERF, "# started\n\n606160548,,instructions:u,1000,100.00,,\n", "606160548"),
        (instructions.PERF, "606160548,,instructions,1000,100.00,,\n", "606160548"),
        (instructions.PERF, "<not supported>,,instructions:u,0,100.00,,\n", None),
        (instructions.PERF, "<not counted>,,instructions:u,0,0.00,,\n", None),
        (instructions.PERF, "12,,branch-instructions:u,1000,100.00,,\n", None),
        (instructions.CALLGRIND, "events: Ir\nsummary: 9\n\ntotals: 606160548\n", "606160548"),
        (instructions.CALLGRIND, "events: Ir\n", None),
    ],
)
def test_counts_are_found_in_what_the_tools_write(tool: Tool, text: str, found: str | None) -> None:
    match = tool.figure.search(text)
    assert (match and match[1]) == found


def counter(script: str) -> Tool:
    """A tool that is a shell script: $1 is the file for its figures, "$@" behind it the program."""
    return Tool(
        "counter",
        lambda file: ["sh", "-c", f"file=$1; shift; {script}", "counter", str(file)],
        instructions.CALLGRIND_LINE,
    )


def test_a_case_is_counted_in_two_runs_with_the_same_hashes() -> None:
    script = (
        'test "$PYTHONHASHSEED" = 0 && "$@" && '
        'for last in "$@"; do :; done && echo "totals: $((1000 + 7 * last))" > "$file"'
    )
    told: list[str] = []
    case = replace(CASES["nothing"], counted=10)
    assert instructions.count([case], counter(script), told.append) == {"nothing": 7.0}
    assert told == ["counting instructions of nothing with counter"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo it broke >&2; exit 1", "counter failed: it broke"),
        ("exit 3", "exit status 3"),
        ('echo "totals: none" > "$file"', "no count"),
        ('echo "totals: 12" > "$file"; exit 4', "exit status 4"),
    ],
)
def test_a_counter_that_fails_says_why(script: str, reason: str) -> None:
    with pytest.raises(CounterFailed, match=reason):
        instructions.count([CASES["nothing"]], counter(script))


def test_runs_are_ended_when_one_fails(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = (
        f"pid={pid}; "
        'for last in "$@"; do :; done; '
        'if test "$last" = 5; then until test -s "$pid"; do sleep 0.01; done; exit 3; fi; '
        'sleep 60 & echo $! > "$pid"; wait'
    )
    with pytest.raises(CounterFailed, match="exit status 3"):
        instructions.count([replace(CASES["nothing"], counted=10)], counter(script))
    stat = Path("/proc", pid.read_text().strip(), "stat")
    # Killed at once; how soon it is forgotten depends on the system's first process.
    wait_until(lambda: not stat.exists() or " Z " in stat.read_text(), "the program has ended")


def test_without_a_tool_none_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert instructions.find_tool() is None


def test_cases_are_chosen_by_name_in_the_order_of_the_table() -> None:
    assert [case.name for case in chosen(["token-check", "nothing"])] == ["nothing", "token-check"]
    assert chosen([]) == list(CASES.values())
    with pytest.raises(ValueError, match="no case 'else'"):
        chosen(["nothing", "else"])


def test_the_table_shows_minimum_median_and_what_is_missing() -> None:
    cases = [Case(name, "call", "", lambda stack: Repeated(int)) for name in ("a", "bb")]
    shown = report.table(cases, Result(FACTS, {"a": FAST, "bb": SLOW}, {"bb": 1234.5})).splitlines()
    assert shown[1].split() == ["a", "call", "100", "110", "+10%", "90.0", "95.0", "-", "1000"]
    assert shown[2].split() == ["bb", "call", "200", "250", "+25%", "180", "190", "1234", "500"]
    assert len({len(line) for line in shown}) == 1


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, result = tmp_path / "a.json", Result(FACTS, {"a": FAST, "b": SLOW}, {"a": 12.5})
    report.save(path, result)
    assert report.load(path) == result


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "bench.micro 0", "facts": {}, "timings": {}}', "\xff"]
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadFile, match="is no result"):
        report.load(path)


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="can't be read"):
        report.load(tmp_path / "none.json")


def rows(text: str) -> dict[str, list[str]]:
    return {cells[0]: cells[1:] for cells in map(str.split, text.splitlines()) if cells}


def test_ratios_are_those_of_the_minima() -> None:
    before, after = Result(FACTS, {"a": FAST}, {"a": 100}), Result(FACTS, {"a": SLOW}, {"a": 150})
    shown = report.compared(before, after)
    wall, cpu, counts = (
        ["x2.000", "100", "200"],
        ["x2.000", "90.0", "180"],
        ["x1.500", "100", "150"],
    )
    assert rows(shown)["a"] == [*wall, *cpu, *counts]
    assert len(shown.splitlines()) == 2


def test_instructions_compare_only_when_both_have_them() -> None:
    before, after = Result(FACTS, {"a": FAST}, {}), Result(FACTS, {"a": FAST}, {"a": 150})
    assert rows(report.compared(before, after))["a"][-3:] == ["-", "-", "150"]


def test_times_of_two_machines_do_not_compare_but_instructions_do() -> None:
    other = replace(FACTS, processor="another", python="CPython 3.13.0")
    before, after = Result(FACTS, {"a": FAST}, {"a": 100}), Result(other, {"a": FAST}, {"a": 150})
    shown = report.compared(before, after)
    assert rows(shown)["a"] == ["-"] * 6 + ["x1.500", "100", "150"]
    assert "times are left out, the machines differ: processor" in shown
    assert "the interpreters differ: CPython 3.11.7, CPython 3.13.0" in shown


def test_cases_of_one_file_are_named() -> None:
    before, after = Result(FACTS, {"a": FAST, "b": FAST}, {}), Result(FACTS, {"a": FAST}, {})
    shown = report.compared(before, after)
    assert "b" not in rows(shown)
    assert "in one of the files only: b" in shown


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    assert main(["nothing", "--json", str(path)]) == 0
    assert "nothing" in rows(capsys.readouterr().out)
    result = report.load(path)
    assert list(result.timings) == ["nothing"]
    assert min(result.timings["nothing"].wall) > 0
    assert result.facts.command == "python -m bench.micro nothing"
    assert main(["compare", str(path), str(path)]) == 0
    assert rows(capsys.readouterr().out)["nothing"][0] == "x1.000"


def test_the_list_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CASES)


def test_mistakes_have_their_exit_status(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as usage:
        main(["else"])
    assert usage.value.code == 2
    missing = str(tmp_path / "none.json")
    assert main(["compare", missing, missing]) == 1
    assert "can't be read" in capsys.readouterr().err
