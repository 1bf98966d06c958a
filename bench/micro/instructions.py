"""Instructions per operation, of the user's side only, by perf or by valgrind.

Method: a case is run in two processes of its own whose loops differ in their count alone;
the difference over the operations between them is the loop without start and end. The
hash seed is fixed; what still differs between two starts is some thousands of
instructions, less than one per operation. What the kernel does for a system call is in
neither tool's count.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.micro.case import Case

__all__ = [
    "HOW_TO_INSTALL",
    "Counted",
    "CounterFailed",
    "Tool",
    "count",
    "find_tool",
    "per_operation",
]

ROOT = Path(__file__).resolve().parents[2]
HOW_TO_INSTALL = (
    "instructions are not counted: perf has no hardware counters here and valgrind is not "
    "installed; apt-get install valgrind"
)
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    # Whether a run finds compiled files or makes them would be counted as well.
    "PYTHONDONTWRITEBYTECODE": "1",
}
PROBE_WAIT = 20.0
RUN_WAIT = 600.0  # a guard; the longest run takes well below a minute
TAIL = 500  # characters of a failed run's error output that are shown
PERF_LINE = re.compile(r"^(\d+),[^,]*,instructions(?::u)?(?:,|$)", re.MULTILINE)
CALLGRIND_LINE = re.compile(r"^totals: (\d+)", re.MULTILINE)

Started = tuple[subprocess.Popen[str], Path]  # a run and the file for its figures


class CounterFailed(Exception):
    """A counted run failed or counted nothing; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that counts the instructions of another.

    Args:
        name: for messages and files.
        command: what stands before the program, given the file for its figures.
        figure: finds the count in that file.
    """

    name: str
    command: Callable[[Path], list[str]]
    figure: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Counted:
    """One run: instructions of the whole process, and operations of its loop."""

    instructions: int
    operations: int


PERF = Tool(
    "perf",
    lambda file: ["perf", "stat", "-x,", "-e", "instructions:u", "-o", str(file), "--"],
    PERF_LINE,
)
CALLGRIND = Tool(
    "callgrind",
    lambda file: ["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={file}"],
    CALLGRIND_LINE,
)


def find_tool() -> Tool | None:
    """The first tool that is installed and does count here."""
    for tool, program in ((PERF, "perf"), (CALLGRIND, "valgrind")):
        if shutil.which(program) is None:
            continue
        try:
            with _started(tool, ["true"]) as started:
                _ended(tool, *started, PROBE_WAIT)
        except CounterFailed:
            continue  # installed, but for instance without counters in a virtual machine
        return tool
    return None


def count(
    cases: Sequence[Case], tool: Tool, tell: Callable[[str], None] = lambda text: None
) -> dict[str, float]:
    """Instructions per operation of these cases, by name.

    Raises:
        CounterFailed: a run failed.
    """
    counted = {}
    for case in cases:
        tell(f"counting instructions of {case.name} with {tool.name}")
        few, many = case.counted // 2, case.counted // 2 + case.counted
        # Counts don't depend on what runs beside: the two share the machine.
        with _once(tool, case, few) as first, _once(tool, case, many) as second:
            runs = [_ended(tool, *started, RUN_WAIT) for started in (first, second)]
        counted[case.name] = per_operation(*runs)
    return counted


def per_operation(few: Counted, many: Counted) -> float:
    """What one operation takes, from two runs that differ in their operations alone."""
    return (many.instructions - few.instructions) / (many.operations - few.operations)


def _once(tool: Tool, case: Case, rounds: int) -> AbstractContextManager[Started]:
    return _started(tool, [sys.executable, "-m", "bench.micro.once", case.name, str(rounds)])


@contextmanager
def _started(tool: Tool, program: Sequence[str]) -> Iterator[Started]:
    """Start a program under the tool; it is gone behind the block, finished or not.

    Raises:
        CounterFailed: it can't be started.
    """
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as directory:
        file = Path(directory, "figures")
        try:
            process = subprocess.Popen(
                [*tool.command(file), *program],
                cwd=ROOT,
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                # A group of its own: the tool and the program end together.
                start_new_session=True,
            )
        except OSError as error:
            raise CounterFailed(f"{tool.name} failed: {error}") from None
        try:
            yield process, file
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _ended(tool: Tool, process: subprocess.Popen[str], file: Path, wait: float) -> Counted:
    """Wait for a run and read its figures; a program without a loop made no operations."""
    try:
        output, errors = process.communicate(timeout=wait)
    except subprocess.TimeoutExpired:
        raise CounterFailed(f"{tool.name} failed: no end within {wait:.0f} s") from None
    found = tool.figure.search(file.read_text()) if file.exists() else None
    if process.returncode or found is None:
        reason = errors.strip() or f"exit status {process.returncode} and no count"
        raise CounterFailed(f"{tool.name} failed: {reason[-TAIL:]}")
    return Counted(int(found[1]), int(output or 0))
