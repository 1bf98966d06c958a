"""One round of one scenario against one target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.children import ChildFailed
from bench.client import raise_descriptor_limit
from bench.cores import pinned
from bench.echoes import measure_calls, measure_idle, measure_stream
from bench.exchanges import measure_requests, measure_setup
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
    """

    scenario: str
    target: str
    number: int
    invalid: str = ""
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    raw: Mapping[str, object] = field(default_factory=dict)


def measure(
    scenario: Scenario, target: Target, number: int, origin_pid: int | None = None
) -> Round:
    """Run one round; a worker or a target that fails makes an invalid one, not an exception.

    Args:
        origin_pid: the echo server's process, whose CPU then becomes `origin_cpu_us`.
    """
    raise_descriptor_limit()
    try:
        with pinned(scenario.cores, target.processes(), origin_pid):
            outcome = _measure(scenario, target, origin_pid)
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
    )


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
