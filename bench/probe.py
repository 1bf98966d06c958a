"""What a tree of processes has used so far, read from the kernel.

Theory: a tree is a process with all its descendants, and every process whose
environment carries the harness's mark, so that one which has left its parent
still counts. CPU time of the living comes from their CPU clocks (nanoseconds),
that of ended and awaited children from /proc (10 ms ticks).
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "MARK",
    "PROC",
    "TICK",
    "Sample",
    "clock_of",
    "core_of",
    "marked",
    "processes",
    "sample",
    "tree",
]

MARK = "RELAY_BENCH_RUN"
PROC = Path("/proc")
PUMP = b"relay.pump"  # the module that relay/pump_processes.py runs
NANOSECONDS = 1_000_000_000
TICK = NANOSECONDS // os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat counted from behind the command's name (proc(5): state is 3).
PARENT, CHILD_USER, CHILD_SYSTEM, CORE = 4 - 3, 16 - 3, 17 - 3, 39 - 3
CPU_CLOCK_SCHED = 2  # linux/posix-timers.h: the precise clock of a whole process


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a tree; CPU, switches since the processes began, the rest as it is now.

    Args:
        cpu_ns: user and system time, ended children included.
        pss_kib: proportional set size of memory without a file behind it: pages shared
            after a fork count in parts. Code and libraries are left out, since their share
            falls whenever anybody starts another Python.
        pump_cpu_ns: CPU of the members that are pumps of a relay.
        pump_pss_kib: memory of those.
        switches: voluntary and involuntary context switches of all threads.
        descriptors: open file descriptors.
        processes: how many processes were seen.
    """

    cpu_ns: int
    pump_cpu_ns: int
    pss_kib: int
    pump_pss_kib: int
    switches: int
    descriptors: int
    processes: int


def sample(pid: int, mark: str | None = None) -> Sample:
    """Look at the tree of `pid` and what carries `mark`; what has ended meanwhile counts as 0."""
    members = tree(pid, mark)
    cpu = {member: _cpu_ns(member) for member in members}
    memory = {member: _pss_kib(member) for member in members}
    pumps = [member for member in members if _is_pump(member)]
    return Sample(
        cpu_ns=sum(cpu.values()),
        pump_cpu_ns=sum(cpu[member] for member in pumps),
        pss_kib=sum(memory.values()),
        pump_pss_kib=sum(memory[member] for member in pumps),
        switches=sum(map(_switches, members)),
        descriptors=sum(map(_descriptors, members)),
        processes=len(members),
    )


def core_of(pid: int) -> int | None:
    """The core on which a process ran last; None when it is gone."""
    fields = _stat(pid)
    return int(fields[CORE]) if fields else None


def tree(pid: int, mark: str | None = None) -> set[int]:
    """The process, its descendants, and those that carry the mark; own processes only."""
    children: dict[int, list[int]] = {}
    for other in processes():
        fields = _stat(other)
        if fields:
            children.setdefault(int(fields[PARENT]), []).append(other)
    members: set[int] = set()
    todo = [pid, *(marked(mark) if mark else ())]
    while todo:
        one = todo.pop()
        if one not in members and (PROC / str(one)).exists():
            members.add(one)
            todo += children.get(one, [])
    return members


def marked(mark: str) -> list[int]:
    """Every living process whose environment has MARK set to `mark`, or to something @`mark`.

    So a run's own mark finds the processes of all its targets, that of a target only its own.
    """
    is_mark = re.compile(rf"{MARK}=(.*@)?{re.escape(mark)}".encode()).fullmatch
    found = []
    for pid in processes():
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except OSError:  # ended, or not ours
            continue
        if any(map(is_mark, environment.split(b"\0"))):
            found.append(pid)
    return found


def processes() -> list[int]:
    """Every process that there is now."""
    return [int(entry) for entry in os.listdir(PROC) if entry.isdigit()]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold anything; [] when gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _cpu_ns(pid: int) -> int:
    fields = _stat(pid)
    if not fields:
        return 0
    return clock_of(pid) + (int(fields[CHILD_USER]) + int(fields[CHILD_SYSTEM])) * TICK


def clock_of(pid: int) -> int:
    """Nanoseconds of CPU of one process without its children; 0 when it is gone."""
    try:
        # linux/posix-timers.h, MAKE_PROCESS_CPUCLOCK.
        return time.clock_gettime_ns((~pid << 3) | CPU_CLOCK_SCHED)
    except OSError:
        return 0


def _pss_kib(pid: int) -> int:
    return _labelled(PROC / str(pid) / "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:"))


def _is_pump(pid: int) -> bool:
    try:
        return PUMP in (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _switches(pid: int) -> int:
    names = ("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")
    try:
        tasks = list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return 0
    return sum(_labelled(task / "status", names) for task in tasks)


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(PROC / str(pid) / "fd"))
    except OSError:
        return 0


def _labelled(path: Path, names: tuple[str, ...]) -> int:
    """The sum of the numbers behind these labels in a /proc file; 0 when it is gone."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(words[1]) for words in map(str.split, lines) if words and words[0] in names)
