"""How much of a round's cores went to others: processes that are not the bench's, and the host.

Theory: the CPU clocks of all other processes, each counted where it ran last, and what the
hypervisor took away ("steal"). The kernel's own sums of each core in /proc/stat are no way to
it: they are sampled at ticks, and what wakes at every tick, like a generator of messages, is
always seen and seldom there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from bench.probe import PROC, TICK, clock_of, core_of, processes, tree

__all__ = ["MAX_FOREIGN", "Watch", "grown", "stolen_ticks"]

# Share of one core above which a round is repeated. A tenth of a core is what turns medians by
# several per cent; a machine that is left alone has one or two hundredths.
MAX_FOREIGN = 0.10
STEAL = 7  # its place behind the name of a core in /proc/stat (proc(5))


@dataclass(frozen=True, slots=True)
class Watch:
    """From `begin` until `share`: what others did on these cores.

    Args:
        cores: those that the round is measured on.
        at: seconds, monotonic.
        stolen: ticks that the host took from them since they began.
        used: CPU of every process until now, in nanoseconds.
    """

    cores: frozenset[int]
    at: float
    stolen: int
    used: Mapping[int, int]

    @classmethod
    def begin(cls, cores: Iterable[int]) -> Watch:
        """Look at the cores and at all processes."""
        watched = frozenset(cores)
        stolen = stolen_ticks((PROC / "stat").read_text(), watched)
        return cls(watched, time.monotonic(), stolen, {pid: clock_of(pid) for pid in processes()})

    def share(self, mark: str | None = None) -> float:
        """CPU that others used since, in cores: 0.1 is a tenth of one.

        A process that began and ended meanwhile is not seen.

        Args:
            mark: of processes of the bench that are not below this one (bench/probe.py).
        """
        now, own = Watch.begin(self.cores), tree(os.getpid(), mark)
        there = {pid for pid in now.used if core_of(pid) in self.cores}
        others = grown(self.used, now.used, there - own) + (now.stolen - self.stolen) * TICK
        return others / 1e9 / (now.at - self.at)


def grown(before: Mapping[int, int], now: Mapping[int, int], which: Set[int]) -> int:
    """What these processes used between two looks; all of it of those that have begun since.

    A number that was given to another process since has less than before: nothing of it counts.
    """
    return sum(max(0, now[pid] - before.get(pid, 0)) for pid in which)


def stolen_ticks(text: str, cores: Iterable[int]) -> int:
    """Ticks that the host took from these cores, by a text like that of /proc/stat."""
    wanted = {f"cpu{core}" for core in cores}
    lines = (line.split() for line in text.splitlines())
    return sum(int(words[1 + STEAL]) for words in lines if words and words[0] in wanted)
