"""One launched bot as the operating system sees it: started, found again, ended for certain.

A process is known by its pid and its start time, watched through a pidfd, so that a
number that the kernel gives to another process is never taken for it. What it starts
itself inherits a mark in its environment, by which all of it is found.
"""

from __future__ import annotations

__all__ = ["MARK", "PROC", "Known", "Process", "end_marked", "mark_of", "stat_of"]

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import trio

# The variable of every process that belongs to an instance; its value is the instance's id.
MARK = "RELAY_INSTANCE"
# What the first process left behind is looked for so often while it may still end by itself.
LOOK_AGAIN = 0.05
KILL_AGAIN = 0.25
# After SIGKILL the kernel needs a moment; a process that takes longer hangs in the kernel.
KILL_WAIT = 5.0

PROC = Path("/proc")
# Fields of /proc/PID/stat, counted behind the command's name (proc_pid_stat(5)).
STAT_SESSION, STAT_START = 3, 19


class Known(msgspec.Struct, frozen=True):
    """Which process: its pid, and when it started, in clock ticks since a named boot."""

    pid: int
    started: int
    boot: str


class Process:
    """A bot's first process and whatever it has started.

    Attributes:
        status: the exit status once it is known: negative for a signal; None for a
            process that an earlier control process started, whose status nobody can read.
    """

    def __init__(
        self, mark: str, known: Known, pidfd: int, child: subprocess.Popen[bytes] | None
    ) -> None:
        self.mark = mark
        self.known = known
        self.status: int | None = None
        self.exited = trio.Event()
        self._pidfd = pidfd
        self._child = child

    @classmethod
    def start(
        cls, mark: str, command: Sequence[str], cwd: str, environment: Mapping[str, str], log: int
    ) -> Process:
        """Start a command in a process session of its own; `log` takes its output.

        Raises:
            OSError: there is no such program or directory, or no process can be made.
        """
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env={**environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            # The child is not reaped before `watch`, so its number is its own until then.
            return cls(mark, _known(child.pid), os.pidfd_open(child.pid), child)
        except OSError:  # no descriptor left
            child.kill()
            child.wait()
            raise

    @classmethod
    def adopt(cls, mark: str, known: Known | None) -> Process | None:
        """The process that an earlier control process has started; None if it is gone.

        Args:
            known: None when that one was killed before it could note the pid.
        """
        if known is None:
            known = _leader(_marked(mark))
            if known is None:
                return None
        try:
            pidfd = os.pidfd_open(known.pid)
        except OSError:
            return None
        try:
            if _known(known.pid) == known:  # looked at after the open: it is this one
                return cls(mark, known, pidfd, None)
        except OSError:
            pass
        os.close(pidfd)
        return None

    async def watch(self) -> None:
        """Wait for the first process to exit and read its status; by one task only."""
        try:
            await trio.lowlevel.wait_readable(self._pidfd)
            if self._child is not None:
                self.status = self._child.wait()  # it has exited: this does not wait
            self.exited.set()
        finally:
            os.close(self._pidfd)
            if self._child is not None and self._child.returncode is None:
                self._child.returncode = 0  # it lives on without us, of which Popen would warn

    async def end(self, grace: trio.CancelScope) -> bool:
        """End it and all that it has started: SIGTERM, SIGKILL when `grace` is over.

        `watch` runs meanwhile.

        Args:
            grace: with a deadline, which may be moved.

        Returns:
            False when something of it is still there after that.
        """
        await self._signal(signal.SIGTERM)
        with grace:
            await self._wait_gone()
            return True
        with trio.move_on_after(KILL_WAIT):
            while True:  # again for what was started between a look and a kill
                await self._signal(signal.SIGKILL)
                with trio.move_on_after(KILL_AGAIN):
                    await self._wait_gone()
                    return True
        return False

    async def _wait_gone(self) -> None:
        await self.exited.wait()
        while await trio.to_thread.run_sync(_marked, self.mark):
            await trio.sleep(LOOK_AGAIN)

    async def _signal(self, signum: signal.Signals) -> None:
        """Signal the first process's group, and what has left it."""
        others = await trio.to_thread.run_sync(_marked, self.mark)
        group = 0
        if not self.exited.is_set():
            group = self.known.pid  # its own number until `watch` has seen its end
            try:
                os.killpg(group, signum)
            except (ProcessLookupError, PermissionError):
                pass
        for pid in others:
            _signal_marked(pid, self.mark, signum, but_not_in=group)


async def end_marked(mark: str) -> None:
    """Kill what has this mark, where the first process is gone already."""
    with trio.move_on_after(KILL_WAIT):
        while left := await trio.to_thread.run_sync(_marked, mark):
            for pid in left:
                _signal_marked(pid, mark, signal.SIGKILL, but_not_in=0)
            await trio.sleep(LOOK_AGAIN)


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, the state first; OSError if it is gone."""
    # The name may hold blanks and parentheses of its own.
    return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _known(pid: int) -> Known:
    boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    return Known(pid, int(stat_of(pid)[STAT_START]), boot)


def _marked(mark: str) -> list[int]:
    """Processes with this mark, in the order of their start as a rule; zombies have none."""
    pids = sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return [pid for pid in pids if mark_of(pid) == mark]


def mark_of(pid: int) -> str | None:
    """The mark of a process; None for one that is gone, or somebody else's."""
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    for line in environment.split(b"\0"):
        name, _, value = line.partition(b"=")
        if name == MARK.encode():
            return value.decode(errors="replace")
    return None


def _leader(pids: Sequence[int]) -> Known | None:
    """The one that leads its process session, as the first process does."""
    for pid in pids:
        try:
            if int(stat_of(pid)[STAT_SESSION]) == pid:
                return _known(pid)
        except OSError:
            continue
    return None


def _signal_marked(pid: int, mark: str, signum: signal.Signals, *, but_not_in: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # Both looked at after the open, so that they are this process's.
        if mark_of(pid) == mark and os.getpgid(pid) != but_not_in:
            signal.pidfd_send_signal(pidfd, signum)
    except OSError:
        pass
    finally:
        os.close(pidfd)
