"""What others take of the cores is seen, bounds what is repeated, and is said."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from bench.cores import allowed
from bench.foreign import MAX_FOREIGN, Watch, busy_ticks
from bench.report.agreement import agreement
from bench.report.results import Results
from bench.report.summary import summary
from bench.report.tally import Tally, disturbance
from bench.report.terminal import table
from bench.rounds import Round
from bench.run import Patience, chosen
from tests.helpers.bench_results import results
from tests.helpers.daemon import wait_until

STAT = """\
cpu  1110 1110 1110 9999 5 0 40 20 0 0
cpu0 100 10 1 5000 5 {irq} 20 7 3 3
cpu1 1000 100 10 4999 0 {irq} 20 13 0 0
intr 1 2 3
"""


@pytest.mark.parametrize(
    ("irq", "cores", "ticks"),
    [
        (0, {0}, 100 + 10 + 1 + 20 + 7),
        (0, {0, 1}, 138 + 1000 + 100 + 10 + 20 + 13),
        # A kernel that counts interrupts apart: those upon our processes are in no clock of them.
        (5, {0}, 100 + 10 + 1 + 7),
        (0, set(), 0),
    ],
)
def test_work_and_stolen_time_of_the_cores_that_are_meant(
    irq: int, cores: set[int], ticks: int
) -> None:
    assert busy_ticks(STAT.format(irq=irq), cores) == ticks


SPIN = "import os; os.sched_setaffinity(0, {%d})\nwhile True: pass"


def test_what_our_own_processes_use_is_not_foreign() -> None:
    core = allowed()[-1]
    with subprocess.Popen([sys.executable, "-c", SPIN % core]) as spinner:
        try:
            watch = Watch.begin({core}, None)
            wait_until(lambda: Watch.begin({core}, None).own - watch.own > 3e8, "it works")
            now = Watch.begin({core}, None)
            other = watch.share() * (now.at - watch.at)
        finally:
            spinner.kill()
    # The core was busy with it for 0.3 s; all of that, and not more, is taken off again.
    busy = (now.busy - watch.busy) / os.sysconf("SC_CLK_TCK")
    assert other <= max(0.0, busy - 0.2)


def attempt(number: int, foreign: float, invalid: str = "") -> Round:
    return Round("calls", "relay", number, invalid, foreign=foreign)


@pytest.mark.parametrize(
    ("tried", "kept"),
    [
        ([attempt(1, 0.01)], 0),
        ([attempt(1, 0.5), attempt(1, 0.01)], 1),
        ([attempt(1, 0.5), attempt(1, 0.3), attempt(1, 0.4)], 1),
        ([attempt(1, 0.3, "saturated"), attempt(1, 0.5)], 1),
        # One that failed although nobody disturbed it tells something about its target.
        ([attempt(1, 0.5), attempt(1, 0.01, "calls broke")], 1),
    ],
)
def test_the_attempt_that_was_disturbed_least_is_kept(tried: list[Round], kept: int) -> None:
    assert chosen(tried) == replace(tried[kept], repeated=len(tried) - 1)


def test_patience_is_bounded() -> None:
    patience = Patience(10.0)
    assert [patience.allows(seconds) for seconds in (4, 7, 6, 0.1)] == [True, False, True, False]


def with_foreign(share: float, repeated: int) -> Results:
    made = results(messages=5)
    part = made.parts[0]
    rounds = [replace(one, foreign=share, repeated=repeated) for one in part.rounds]
    made.parts[0] = replace(part, rounds=tuple(rounds))
    return made


def test_it_is_said_how_often_others_disturbed() -> None:
    made = with_foreign(0.42, 1)
    tally = Tally(made.parts[0], made.subjects)
    said = disturbance([tally])
    assert said == (
        "others used the cores, so rounds were measured again: 9; rounds that count although others"
        f" used more than {MAX_FOREIGN:.0%} of a core, at most 42%: 9"
    )
    assert any(said in line for line in table(tally))
    assert summary(made).count(said) == 2  # as a whole, and with the scenario


def test_two_runs_are_told_what_disturbed_them() -> None:
    lines, _ = agreement(with_foreign(0.42, 0), with_foreign(0.0, 0))
    assert [line for line in lines if "others used" in line] == [
        f"A: rounds that count although others used more than {MAX_FOREIGN:.0%} of a core, at most"
        " 42%: 9"
    ]


def test_nothing_is_said_of_a_machine_that_was_left_alone() -> None:
    made = with_foreign(MAX_FOREIGN, 0)
    assert disturbance([Tally(made.parts[0], made.subjects)]) == ""
    assert "others used" not in summary(made)
