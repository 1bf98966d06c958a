"""Processes that the harness starts, talks with, and ends whatever happens."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from bench.probe import marked

__all__ = ["Child", "ChildFailed", "end_marked"]

ROOT = Path(__file__).resolve().parent.parent
TAIL = 1500  # characters of a failed child's error output that are shown
MAX_LINE = 4 << 20  # a result with its histograms is some 20 KiB
KILL_WAIT = 5.0  # seconds; only a process stuck in the kernel takes longer
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class ChildFailed(Exception):
    """A child process ended, or did not answer in time; the text is for the user."""


class Child:
    """A process with lines for input and output; a context manager that ends it.

    Args:
        name: for messages.
        command: argument vector behind the interpreter, or behind `program`.
        program: what to run instead of the interpreter.
        descriptors: open descriptors that it gets, under their own numbers.
        niceness: how far it lets others go first, 0 to 19.
        environment: variables added to the harness's own.
        output: what becomes of standard output: lines for `read_line`, or, for a process
            that may log without end, the file that also takes its errors.
        stop_signal: sent at the end, also by the kernel if the harness is killed.
        stop_wait: seconds until SIGKILL follows.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        program: str | Path | None = None,
        descriptors: Sequence[int] = (),
        niceness: int = 0,
        environment: Mapping[str, str] | None = None,
        output: Literal["lines", "file"] = "lines",
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_wait: float = 5.0,
    ) -> None:
        self.name, self._stop_signal, self._stop_wait = name, stop_signal, stop_wait
        # Lives as long as the child; `end` closes it.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._buffer = b""
        self._process = subprocess.Popen(
            [str(program or sys.executable), *command],
            pass_fds=descriptors,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if output == "lines" else self._errors,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            # Ctrl-C is for the harness, which then ends its children in order.
            start_new_session=True,
            preexec_fn=_prepare(stop_signal, niceness),
        )
        self.pid = self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def read_line(self, timeout: float) -> str:
        """The next line of its output.

        Raises:
            ChildFailed: it ended, or said nothing for `timeout` seconds.
        """
        assert self._process.stdout is not None
        fd, deadline = self._process.stdout.fileno(), time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not _is_readable(fd, left):
                raise ChildFailed(f"{self.name} said nothing for {timeout:.0f} s{self.tail()}")
            data = os.read(fd, 64 << 10)
            if not data or len(self._buffer) > MAX_LINE:
                raise ChildFailed(f"{self.name} ended early{self.tail()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

    def hear(self, event: str, timeout: float) -> dict[str, object]:
        """Wait for a worker to say `event`: a JSON object in a line.

        Raises:
            ChildFailed: it said something else, or nothing in time.
        """
        said = json.loads(self.read_line(timeout))
        if not isinstance(said, dict) or said.get("event") != event:
            reason = said.get("reason", "no reason") if isinstance(said, dict) else said
            raise ChildFailed(f"{self.name} failed: {reason}")
        return said

    def go_on(self) -> None:
        """Let a worker that waits take its turn."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended; the next `hear` says so with its error output

    def tail(self) -> str:
        """The end of its error output, for a message."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - TAIL))
        text = self._errors.read().decode(errors="replace").strip()
        return f"; its error output ends:\n{text}" if text else ""

    def end(self) -> None:
        """Signal it, wait, kill it; returns when it is gone. Calling it twice is harmless."""
        process = self._process
        try:
            if process.poll() is None:
                process.send_signal(self._stop_signal)
                try:
                    process.communicate(timeout=self._stop_wait)
                except subprocess.TimeoutExpired:
                    print(f"bench: {self.name} did not end, killing it", file=sys.stderr)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(timeout=KILL_WAIT)
            for stream in (process.stdin, process.stdout):
                if stream is not None and not stream.closed:
                    stream.close()
            self._errors.close()


def _is_readable(fd: int, seconds: float) -> bool:
    poll = select.poll()  # unlike select(2) it takes descriptors above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def end_marked(mark: str) -> int:
    """Kill what is left of a run's processes, found by the mark that it made; how many."""
    left = [pid for pid in marked(mark) if pid != os.getpid()]
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return len(left)


def _lower_session(niceness: int) -> None:
    """Linux weighs a session against others by a niceness of its own (sched(7), autogroup)."""
    try:
        Path("/proc/self/autogroup").write_text(str(niceness))
    except OSError:  # a kernel without it
        pass


def _prepare(stop_signal: signal.Signals, niceness: int) -> Callable[[], None]:
    """What a child does before it becomes its program: it dies with its parent."""

    def prepare() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(stop_signal))
        if niceness:
            os.nice(niceness)
            _lower_session(niceness)

    return prepare
