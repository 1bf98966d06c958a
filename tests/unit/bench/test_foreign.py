"""What others take of the cores is seen, bounds what is repeated, and is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from bench.cores import allowed
from bench.foreign import MAX_FOREIGN, Watch, grown, stolen_ticks
from bench.probe import clock_of, core_of, tree
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
cpu0 100 10 1 5000 5 0 20 7 3 3
cpu1 1000 100 10 4999 0 0 20 13 0 0
intr 1 2 3
"""


@pytest.mark.parametrize(("cores", "ticks"), [({0}, 7), ({0, 1}, 20), (set(), 0), ({11}, 0)])
def test_stolen_time_of_the_cores_that_are_meant(cores: set[int], ticks: int) -> None:
    assert stolen_ticks(STAT, cores) == ticks


# Ends by itself, should nobody do it.
SPIN = f"""
import os, signal
signal.alarm(60)
os.sched_setaffinity(0, {{{allowed()[-1]}}})
while True: pass
"""
LEAVE = f"""
import subprocess, sys
nothing = subprocess.DEVNULL
left = subprocess.Popen([sys.executable, "-c", {SPIN!r}], stdout=nothing, stderr=nothing)
print(left.pid)
"""
WORKED = 200_000_000  # nanoseconds


@contextmanager
def stranger() -> Iterator[int]:
    """A process that works on the last core and is not below this one."""
    left = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True, check=True)
    pid = int(left.stdout)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)


def seen(pid: int, core: int) -> tuple[float, float]:
    """What a watch says about others while a process worked, and what that used, in seconds."""
    wait_until(lambda: core_of(pid) == allowed()[-1] and clock_of(pid), "it works")
    watch, before = Watch.begin({core}), clock_of(pid)
    wait_until(lambda: clock_of(pid) - before > WORKED, "it has worked")
    used, now = clock_of(pid) - before, Watch.begin({core})
    return watch.share() * (now.at - watch.at), used / 1e9


def test_what_a_stranger_uses_is_seen() -> None:
    with stranger() as pid:
        assert pid not in tree(os.getpid())
        others, used = seen(pid, allowed()[-1])
    assert others >= used


@pytest.mark.parametrize(
    ("before", "now", "which", "ns"),
    [
        ({1: 5, 2: 7}, {1: 15, 2: 70}, {1, 2}, 73),
        ({1: 5, 2: 7}, {1: 15, 2: 70}, {1}, 10),
        ({1: 5}, {1: 5, 2: 70}, {1, 2}, 70),  # has begun
        ({1: 5, 2: 7}, {1: 6}, {1}, 1),  # has ended
        ({1: 5}, {1: 3}, {1}, 0),  # is another one
    ],
    ids=["all", "some", "begun", "ended", "reused"],
)
def test_the_growth_of_those_that_are_meant(
    before: dict[int, int], now: dict[int, int], which: set[int], ns: int
) -> None:
    assert grown(before, now, which) == ns


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
