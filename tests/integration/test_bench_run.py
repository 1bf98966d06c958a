"""A run of the bench, from the command line to the files; Ctrl-C ends all of it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench import native
from bench.probe import MARK, marked
from bench.report.results import ROOT, load
from tests.helpers.daemon import wait_until

pytestmark = pytest.mark.skipif(
    native.compiler() is None, reason="no C compiler: apt-get install gcc"
)

LONG = 60.0  # seconds; far more than any of this takes
INTERRUPTED = 130


@contextmanager
def running(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run against the origin alone, which must leave no process behind."""
    mark = secrets.token_hex(16)
    command = ["run", *arguments, "--targets", "direct", "--out", str(path / "out")]
    with (path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, MARK: mark},  # carried by all that it starts
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()
    # What the harness has just killed may take a moment to be gone.
    wait_until(lambda: not marked(mark), "no process is left")


def test_a_run_writes_what_it_measured(tmp_path: Path) -> None:
    with running(tmp_path, "pingpong", "--rounds", "2", "--seconds", "0.2") as process:
        said, _ = process.communicate(timeout=LONG)
    assert process.returncode == 0, (tmp_path / "errors").read_text()
    (row,) = (line.split() for line in said.splitlines() if line.split()[:1] == ["direct"])
    assert row[:2] == ["direct", "2"]
    results = load(tmp_path / "out")
    assert results.complete
    assert results.valid
    assert [(one.target, one.number) for one in results.parts[0].rounds] == [
        ("direct", 1),
        ("direct", 2),
    ]
    assert "--out" not in results.facts.command
    assert "## pingpong" in (tmp_path / "out" / "summary.md").read_text()


def test_ctrl_c_keeps_what_was_measured_and_marks_it(tmp_path: Path) -> None:
    arguments = ("pingpong", "calls", "--rounds", "4", "--seconds", "0.3")
    with running(tmp_path, *arguments) as process:
        wait_until((tmp_path / "out" / "raw.json").exists, "raw.json is there", LONG)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LONG)
    assert process.returncode == INTERRUPTED
    results = load(tmp_path / "out")
    assert not results.complete
    assert len(results.parts[0].rounds) == 4
    assert "interrupted" in (tmp_path / "out" / "summary.md").read_text()
    assert (tmp_path / "errors").read_text().endswith("bench: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_without_a_round_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, "pingpong", "--seconds", "60") as process:
        wait_until(lambda: "bench: pingpong" in (tmp_path / "errors").read_text(), "began", LONG)
        process.send_signal(number)
        process.communicate(timeout=LONG)
    assert process.returncode == INTERRUPTED
    assert not (tmp_path / "out").exists()


def test_the_marks_of_two_targets_of_a_run() -> None:
    """Each finds its own processes, the run finds those of both."""
    run = f"run-{os.getpid()}"
    names = [f"{name}@{run}" for name in ("relay", "relay-compiled")]
    command = [sys.executable, "-c", "input()"]
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(command, env={**os.environ, MARK: name}, stdin=subprocess.PIPE)
            )
            for name in names
        ]
        wait_until(lambda: len(marked(run)) == 2, "both are there")
        assert [marked(name) for name in names] == [[child.pid] for child in children]
        assert sorted(marked(run)) == sorted(child.pid for child in children)
        for child in children:
            child.kill()
