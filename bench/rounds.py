"""One round of one scenario against one target: worker processes, samples, figures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from bench.children import Child, ChildFailed
from bench.client import KEY_VARIABLE, Door
from bench.probe import Sample
from bench.scenarios import Calls, Scenario, Setup
from bench.stats import Histogram
from bench.targets import Target

__all__ = ["Round", "Times", "measure"]

NS_PER_US = 1_000
READY_WAIT = 20.0  # seconds for a worker to start up
OPENING_WAIT = 62.0  # + per call: a little more than the load generator's own bound
OPENING_WAIT_PER_CALL = 0.05
WORK_GRACE = 45.0  # beyond the planned seconds: the workers' own bounds end before


@dataclass(frozen=True, slots=True)
class Times:
    """Percentiles of round trips or of call set-ups, in microseconds."""

    p50: float
    p90: float
    p99: float
    highest: float


@dataclass(frozen=True, slots=True)
class Round:
    """The figures of one round; times in microseconds, None where nothing can be said.

    Args:
        invalid: why the round says nothing about the target; empty when it does.
        note: what a reader should know beside the figures.
        cpu_us: CPU of the target's tree per forwarded message, or per call set up.
        raw: the workers' own results and samples, for the JSON file.
    """

    scenario: str
    target: str
    number: int
    invalid: str = ""
    times: Times | None = None
    per_second: float | None = None
    lost: int | None = None
    reordered: int | None = None
    changed: int | None = None
    failed: int | None = None
    cpu_us: float | None = None
    pss_kib: float | None = None
    late_p50: float | None = None
    start_p50: float | None = None
    connect_p50: float | None = None
    echo_p50: float | None = None
    note: str = ""
    raw: Mapping[str, object] | None = None


def measure(scenario: Scenario, target: Target, number: int, flood: int) -> Round:
    """Run one round; a worker or a target that fails makes an invalid one, not an exception."""
    try:
        if isinstance(scenario, Calls):
            return _measure_calls(scenario, target, number, flood)
        return _measure_setup(scenario, target, number)
    except ChildFailed as failed:
        return Round(scenario.name, target.name, number, invalid=str(failed))


def _measure_calls(scenario: Calls, target: Target, number: int, flood: int) -> Round:
    opening = OPENING_WAIT + OPENING_WAIT_PER_CALL * scenario.calls
    working = scenario.warmup + scenario.seconds + WORK_GRACE
    command = ["-m", "bench.load", "--calls", str(scenario.calls), "--rate", str(scenario.rate)]
    with ExitStack() as stack:
        load = stack.enter_context(_worker("load", command, scenario, target.door))
        load.hear("ready", opening)
        flooding = None
        if flood and target.flood is not None:
            flooding = stack.enter_context(_flood(scenario, target.flood, flood))
            flooding.hear("ready", READY_WAIT)
        before = target.sample()
        if flooding is not None:
            flooding.go_on()
        load.go_on()
        load.hear("done", working)
        after = target.sample()
        answers = flooding.hear("result", working) if flooding is not None else None
        load.go_on()
        result = load.hear("result", working)
    forwarded = _number(result, "echoed") * target.forwards
    return Round(
        scenario.name,
        target.name,
        number,
        invalid=_calls_invalid(result),
        times=_times(_histogram(result, "latency")),
        per_second=_number(result, "per_second"),
        lost=int(_number(result, "lost")),
        reordered=int(_number(result, "reordered") + _number(result, "duplicated")),
        changed=int(_number(result, "changed")),
        # With a flood the tree's CPU is mostly the flood's, so nothing can be said.
        cpu_us=None if flooding else _cpu_us(before, after, forwarded),
        pss_kib=_pss_per_call(target.idle, before, scenario.calls),
        late_p50=_p50(result, "lateness"),
        note=_describe_flood(answers),
        raw={"load": result, "flood": answers, **_samples(target, before, after)},
    )


def _measure_setup(scenario: Setup, target: Target, number: int) -> Round:
    working = scenario.warmup + scenario.seconds + WORK_GRACE
    command = ["-m", "bench.churn", "--workers", str(scenario.workers)]
    with _worker("churn", command, scenario, target.door) as churn:
        churn.hear("ready", READY_WAIT)
        before = target.sample()
        churn.go_on()
        churn.hear("done", working)
        after = target.sample()
        churn.go_on()
        result = churn.hear("result", working)
    parts = result["parts"]
    assert isinstance(parts, dict)
    return Round(
        scenario.name,
        target.name,
        number,
        invalid=_setup_invalid(result),
        times=_times(_histogram(result, "latency")),
        per_second=_number(result, "per_second"),
        failed=int(_number(result, "failed")),
        cpu_us=_cpu_us(before, after, _number(result, "completed")),
        start_p50=_p50(parts, "start") if target.door.start_url else None,
        connect_p50=_p50(parts, "connect"),
        echo_p50=_p50(parts, "echo"),
        note=_describe_setup(result),
        raw={"churn": result, **_samples(target, before, after)},
    )


def _worker(name: str, command: list[str], scenario: Scenario, door: Door) -> Child:
    common = ["--size", str(scenario.size), "--seconds", str(scenario.seconds)]
    common += ["--warmup", str(scenario.warmup)]
    return _child(name, [*command, *common], door)


def _flood(scenario: Calls, door: Door, connections: int) -> Child:
    seconds = str(scenario.warmup + scenario.seconds)
    command = ["-m", "bench.flood", "--connections", str(connections), "--seconds", seconds]
    return _child("flood", command, door)


def _child(name: str, command: list[str], door: Door) -> Child:
    where = ["--start", door.start_url] if door.start_url else ["--ws", door.ws_url or ""]
    environment = {KEY_VARIABLE: door.key or os.environ.get(KEY_VARIABLE, "")}
    return Child(name, [*command, *where, "--held"], environment=environment)


def _calls_invalid(result: Mapping[str, object]) -> str:
    if result["broken"]:
        return f"{result['broken']} calls broke: {'; '.join(map(str, _list(result, 'causes')))}"
    if result["saturated"]:
        share = _number(result, "late_share")
        return f"saturated: the generator sent {share:.1%} of its messages over 5 ms late"
    return ""


def _setup_invalid(result: Mapping[str, object]) -> str:
    failed, completed = _number(result, "failed"), _number(result, "completed")
    if failed > completed:
        return f"most calls failed: {result['failures']}"
    return ""


def _describe_setup(result: Mapping[str, object]) -> str:
    notes = [f"failures: {result['failures']}"] if result["failed"] else []
    if result["bounded"]:
        notes.append("ended early at the bound on calls per round (bench/churn.py)")
    return "; ".join(notes)


def _describe_flood(answers: Mapping[str, object] | None) -> str:
    if answers is None:
        return ""
    counts = answers["answers"]
    assert isinstance(counts, dict)
    kinds = ", ".join(f"{count} x {status}" for status, count in counts.items())
    return f"flood {_number(answers, 'per_second'):.0f}/s: {kinds}"


def _times(histogram: Histogram) -> Times | None:
    if not histogram.count:
        return None
    return Times(
        histogram.percentile(50) / NS_PER_US,
        histogram.percentile(90) / NS_PER_US,
        histogram.percentile(99) / NS_PER_US,
        histogram.highest / NS_PER_US,
    )


def _p50(result: Mapping[str, object], key: str) -> float:
    return _histogram(result, key).percentile(50) / NS_PER_US


def _cpu_us(before: Sample | None, after: Sample | None, count: float) -> float | None:
    if before is None or after is None or not count:
        return None
    return (after.cpu_ns - before.cpu_ns) / NS_PER_US / count


def _pss_per_call(idle: Sample | None, loaded: Sample | None, calls: int) -> float | None:
    if idle is None or loaded is None:
        return None
    return (loaded.pss_kib - idle.pss_kib) / calls


def _samples(
    target: Target, before: Sample | None, after: Sample | None
) -> dict[str, Sample | None]:
    return {"idle": target.idle, "before": before, "after": after}


def _histogram(result: Mapping[str, object], key: str) -> Histogram:
    dumped = result[key]
    assert isinstance(dumped, dict)
    return Histogram.load(dumped)


def _number(result: Mapping[str, object], key: str) -> float:
    value = result[key]
    assert isinstance(value, int | float)
    return value


def _list(result: Mapping[str, object], key: str) -> list[object]:
    value = result[key]
    assert isinstance(value, list)
    return value
