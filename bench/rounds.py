"""One round of one scenario against one target."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

from bench.awake import awake
from bench.children import ChildFailed
from bench.client import raise_descriptor_limit
from bench.cores import pinned, used
from bench.echoes import measure_calls, measure_idle, measure_stream
from bench.exchanges import measure_requests, measure_setup
from bench.foreign import MAX_FOREIGN, Watch
from bench.outcome import Outcome
from bench.shapes import Calls, Idle, Requests, Scenario, Setup, Stream
from bench.stats import Histogram
from bench.targets import Target

__all__ = ["Round", "measure"]


@dataclass(frozen=True, slots=True)
class Round:
    """What one round says.

    Args:
        number: of the round, from 1.
        invalid: why the round says nothing about the target; empty when it does.
        note: what a reader should know beside the figures.
        figures: by name, see bench/figures.py; one about which nothing can be said is absent.
        histograms: "latency" and others by name, in nanoseconds.
        raw: the workers' own results and samples, for the JSON file.
        foreign: what others used of its cores meanwhile, in cores (bench/foreign.py).
        repeated: how many rounds were thrown away for this one because of others.
    """

    scenario: str
    target: str
    number: int
    invalid: str = ""
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    raw: Mapping[str, object] = field(default_factory=dict)
    foreign: float = 0.0
    repeated: int = 0

    @property
    def disturbed(self) -> bool:
        """Whether others used more of its cores than a figure bears."""
        return self.foreign > MAX_FOREIGN


def measure(
    scenario: Scenario, target: Target, number: int, origin_pid: int | None = None
) -> Round:
    """Run one round; a worker or a target that fails makes an invalid one, not an exception.

    Args:
        origin_pid: the echo server's process, whose CPU then becomes `origin_cpu_us`.
    """
    raise_descriptor_limit()
    cores, foreign = used(scenario.cores), 0.0
    try:
        kept = awake(cores) if _keeps_awake(scenario) else nullcontext()
        with pinned(scenario.cores, target.processes(), origin_pid), kept:
            watch = Watch.begin(cores)
            outcome = _measure(scenario, target, origin_pid)
            # What runs already is not among the processes of the bench: nobody can tell.
            foreign = 0.0 if target.pid is None else watch.share(target.mark)
    except ChildFailed as failed:
        outcome = Outcome(invalid=str(failed))
    return Round(
        scenario.name,
        target.name,
        number,
        outcome.invalid,
        outcome.note,
        outcome.figures,
        outcome.histograms,
        outcome.raw,
        foreign,
    )


def _keeps_awake(scenario: Scenario) -> bool:
    """Whether its cores are kept from halting between two messages: calls without a load beside.

    Where one is never without work, what keeps it awake could only take time from it.
    """
    return isinstance(scenario, Calls) and scenario.cores != "two" and not scenario.halting


def _measure(scenario: Scenario, target: Target, origin_pid: int | None) -> Outcome:
    match scenario:
        case Calls():
            return measure_calls(scenario, target, origin_pid)
        case Stream():
            return measure_stream(scenario, target, origin_pid)
        case Setup():
            return measure_setup(scenario, target, origin_pid)
        case Requests():
            return measure_requests(scenario, target, origin_pid)
        case Idle():
            return measure_idle(scenario, target, origin_pid)
        case _:
            raise AssertionError(f"no way to measure {scenario}")
