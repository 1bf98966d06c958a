"""A target at rest is waited for, a core is kept awake: with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench import native
from bench.awake import awake
from bench.children import ChildFailed
from bench.client import Door
from bench.cores import allowed
from bench.crowd import RESTING, at_rest, crowd
from bench.origin import start_origin
from bench.probe import clock_of, sample, tree
from bench.targets import Target
from tests.helpers.daemon import wait_until

needs_cc = pytest.mark.skipif(
    native.compiler() is None, reason="no C compiler: apt-get install gcc"
)

# Works until it hears a line, then rests with no more descriptors open than at its begin.
WORKER = """
import os, select, sys
opened = [os.dup(0) for _ in range(8)]
print("works", flush=True)
while not select.select([0], [], [], 0)[0]:
    pass
sys.stdin.readline()
if "keeps" not in sys.argv:
    for fd in opened:
        os.close(fd)
print("rests", flush=True)
sys.stdin.readline()
"""


@contextmanager
def working(*words: str) -> Iterator[tuple[Target, subprocess.Popen[str]]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "works\n"
        try:
            yield Target("worker", Door(), pid=process.pid), process
        finally:
            process.kill()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "rests\n"


def test_a_target_that_works_is_not_at_rest_and_one_that_has_ended_its_work_is() -> None:
    with working() as (target, process):
        with pytest.raises(ChildFailed, match="worker was not at rest"):
            at_rest(target, patience=0.6)
        go_on(process)
        found = at_rest(target)
        assert found is not None
        assert at_rest(target, found.descriptors) is not None
        assert found.cpu_ns > 0.5e9 * RESTING


def test_a_target_that_keeps_descriptors_open_is_not_at_rest() -> None:
    with working("keeps") as (target, process):
        go_on(process)
        found = at_rest(target)
        assert found is not None
        with pytest.raises(ChildFailed, match=f"had {found.descriptors} descriptors open"):
            at_rest(target, found.descriptors - 8, patience=0.6)


def test_nobody_waits_for_a_target_that_cannot_be_seen() -> None:
    assert at_rest(Target("given", Door())) is None


@needs_cc
def test_a_crowd_leaves_nothing_behind() -> None:
    with start_origin() as (child, urls):
        door = Door(ws_url=f"ws{urls[0].removeprefix('http')}/ws")
        target = Target("origin", door, pid=child.pid)
        before = sample(child.pid).descriptors
        with crowd(target, 20) as tunnels:
            assert len(tunnels) == 20
            assert sample(child.pid).descriptors == before + 20
        assert sample(child.pid).descriptors == before


@needs_cc
def test_a_core_is_kept_awake_by_a_process_of_the_lowest_priority() -> None:
    core, before = allowed()[-1], tree(os.getpid())
    with awake([core]):
        (keeper,) = tree(os.getpid()) - before

        def keeps() -> bool:
            return os.sched_getscheduler(keeper) == os.SCHED_IDLE and clock_of(keeper) > 0

        wait_until(keeps, "it has its priority and works")
        assert os.sched_getaffinity(keeper) == {core}
    assert keeper not in tree(os.getpid())
