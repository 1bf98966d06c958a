"""How much of a round's cores went to others: processes that are not the bench's, and the host.

Theory: /proc/stat counts what each core did in user and system mode and what the hypervisor
took away ("steal"). What the bench's own processes used, read from their CPU clocks, is the
rest of it. Some kernels count interrupts apart from the process that they came upon, in its
clock and in /proc/stat; the others have 0 in the column "irq" and count them as its work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from bench.probe import PROC, TICK, cpu_ns

__all__ = ["MAX_FOREIGN", "Watch", "busy_ticks"]

# Share of one core above which a round is repeated. A tenth of a core is what turns medians by
# several per cent; a machine that is left alone has one or two hundredths.
MAX_FOREIGN = 0.10
# Columns of a core's line behind its name (proc(5)).
USER, NICE, SYSTEM, IRQ, SOFTIRQ, STEAL = 0, 1, 2, 5, 6, 7


@dataclass(frozen=True, slots=True)
class Watch:
    """From `begin` until `share`: what others did on these cores.

    Args:
        cores: those that the round is measured on.
        mark: of the bench's processes (bench/probe.py).
    """

    cores: frozenset[int]
    mark: str | None
    at: float
    busy: int
    own: int

    @classmethod
    def begin(cls, cores: Iterable[int], mark: str | None) -> Watch:
        """Look at the cores and at everything that this process has started."""
        watched = frozenset(cores)
        return cls(watched, mark, time.monotonic(), _busy(watched), cpu_ns(os.getpid(), mark))

    def share(self) -> float:
        """CPU that others used since, in cores: 0.1 is a tenth of one. Never below 0."""
        now = Watch.begin(self.cores, self.mark)
        others = (now.busy - self.busy) * TICK - (now.own - self.own)
        return max(0.0, others / 1e9 / (now.at - self.at))


def busy_ticks(text: str, cores: Iterable[int]) -> int:
    """Ticks that these cores worked, or were taken away, by a text like that of /proc/stat."""
    wanted, ticks = {f"cpu{core}" for core in cores}, 0
    for line in text.splitlines():
        name, *words = line.split() or [""]
        if name in wanted:
            columns = [USER, NICE, SYSTEM, STEAL, *(() if int(words[IRQ]) else (SOFTIRQ,))]
            ticks += sum(int(words[column]) for column in columns)
    return ticks


def _busy(cores: Iterable[int]) -> int:
    return busy_ticks((PROC / "stat").read_text(), cores)
