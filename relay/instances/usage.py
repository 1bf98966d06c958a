"""What launched bots use: memory and processor time of all their processes, from /proc.

One walk over /proc for all bots of the daemon, since a process is known to be a bot's by
the mark in its environment alone. Reading it costs about 20 us for each process of the
machine, and a kernel's walk over the page tables for each one of a bot.
"""

from __future__ import annotations

__all__ = ["Usage", "measure"]

import os
from collections.abc import Collection

import msgspec

from relay.instances.process import PROC, mark_of, stat_of

# Processes of one bot that are looked at; the rest of one that forks without end is not.
MAX_PROCESSES = 100
# Fields of /proc/PID/stat, counted behind the command's name (proc_pid_stat(5)): the
# process's own clock ticks in user and system mode, and those of its children that have ended.
STAT_TIMES = slice(11, 15)
TICK = 1.0 / os.sysconf("SC_CLK_TCK")
KIB = 1024


class Usage(msgspec.Struct, frozen=True):
    """What the living processes of one bot use.

    Attributes:
        processes: how many there are.
        rss: resident bytes, shared pages counted in each process that has them.
        pss: resident bytes, each shared page divided among those that share it.
        cpu: seconds of processor time so far; of processes that have ended only those
            that were waited for.
    """

    processes: int = 0
    rss: int = 0
    pss: int = 0
    cpu: float = 0.0

    def plus(self, rss: int, pss: int, cpu: float) -> Usage:
        """With one process more."""
        return Usage(self.processes + 1, self.rss + rss, self.pss + pss, round(self.cpu + cpu, 2))


def measure(marks: Collection[str]) -> dict[str, Usage]:
    """The usage of each bot, by its mark; of none whose processes are all gone.

    It takes milliseconds, so it is called in a thread.
    """
    found: dict[str, Usage] = {}
    for entry in os.listdir(PROC):
        mark = mark_of(int(entry)) if entry.isdigit() else None
        if mark is None or mark not in marks:
            continue
        usage = found.get(mark, Usage())
        if usage.processes < MAX_PROCESSES:
            try:
                found[mark] = usage.plus(*_memory(entry), _cpu(int(entry)))
            except OSError:
                continue  # it has just ended
    return found


def _memory(pid: str) -> tuple[int, int]:
    """Rss and Pss in bytes (proc_pid_smaps(5))."""
    sizes = {"Rss:": 0, "Pss:": 0}
    for line in (PROC / pid / "smaps_rollup").read_text().splitlines():
        name, *values = line.split()
        if name in sizes:
            sizes[name] = int(values[0]) * KIB
    return sizes["Rss:"], sizes["Pss:"]


def _cpu(pid: int) -> float:
    return sum(map(int, stat_of(pid)[STAT_TIMES])) * TICK
