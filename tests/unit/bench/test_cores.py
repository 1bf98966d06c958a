"""Where processes are pinned, in which order targets are measured."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cores import allowed, pinned, split
from bench.run import in_turn
from bench.targets import Target
from bench.targets.base import Door


@pytest.mark.parametrize(
    ("how", "cores", "load", "target"),
    [
        ("one", [0], {0}, {0}),
        ("one", [0, 1], {1}, {1}),
        ("apart", [0], {0}, {0}),
        ("apart", [0, 1, 2], {0}, {2}),
        ("two", [0], {0}, {0}),
        ("two", [2, 3, 7], {2}, {2, 3, 7}),
    ],
)
def test_who_is_where(how: str, cores: list[int], load: set[int], target: set[int]) -> None:
    assert split(how, cores) == (load, target)  # type: ignore[arg-type]


@pytest.mark.skipif(len(allowed()) < 2, reason="needs two cores")
def test_all_threads_are_pinned_and_let_go_again() -> None:
    last, everywhere = {allowed()[-1]}, set(allowed())
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pinned("one", [os.getpid()], None):
            for entry in Path("/proc/self/task").iterdir():
                assert os.sched_getaffinity(int(entry.name)) == last
            command = "import os; print(os.sched_getaffinity(0))"
            said = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
            assert said.stdout.strip() == str(last)  # what is started there is the load
        for entry in Path("/proc/self/task").iterdir():
            assert os.sched_getaffinity(int(entry.name)) == everywhere
    finally:
        stop.set()
        thread.join()


def test_a_process_that_has_gone_is_passed_over() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    with pinned("one", [gone.pid], gone.pid):
        pass
    assert os.sched_getaffinity(0) == set(allowed())


@given(st.integers(1, 12))
def test_every_target_is_once_in_every_round_and_none_is_always_first(count: int) -> None:
    measured = [Target(str(number), Door()) for number in range(count)]
    rounds = [in_turn(measured, number) for number in range(1, 2 * count + 1)]
    assert all(sorted(each.name for each in one) == sorted(t.name for t in measured)
               for one in rounds)  # fmt: skip
    assert len({one[0].name for one in rounds}) == count
    assert rounds[0] == measured
