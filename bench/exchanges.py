"""Workloads of requests and of whole calls: the Session API, set-ups."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bench.children import Child, ChildFailed
from bench.client import KEY_VARIABLE, Door, Place
from bench.native import program
from bench.opening import http_base
from bench.outcome import Meter, Outcome, histogram, number, percentiles, ready, work
from bench.shapes import Requests, Setup
from bench.targets import Target

__all__ = ["measure_requests", "measure_setup", "requests_worker"]

WORK_GRACE = 45.0  # beyond the planned seconds: the workers' own bounds end before
NS_PER_US = 1_000
MAX_CALLS = 20_000  # of a round, as in bench/native/churn.c
# Nobody sets up more on one core; minting is not measured, but it takes time.
MAX_CALLS_PER_SECOND = 8_000


def measure_requests(scenario: Requests, target: Target, origin_pid: int | None) -> Outcome:
    """One round of HTTP requests to the origin, through the Session API where there is one."""
    with requests_worker(scenario, target.door) as load:
        meter = Meter(target, origin_pid)
        result = work(load, meter, scenario.warmup + scenario.seconds + WORK_GRACE)
    latency = histogram(result, "latency")
    completed, failed = number(result, "completed"), number(result, "failed")
    count = completed * (scenario.events if scenario.kind == "events" else 1)
    per_second, cpu = number(result, "per_second"), number(result, "cpu_ns")
    outcome = Outcome(
        figures={
            **percentiles(latency),
            "per_second": per_second,
            "failed": failed,
            **meter.per(count, 1, cpu),
        },
        histograms={"latency": latency},
        raw={"load": dict(result), **meter.raw()},
    )
    if scenario.kind in ("up", "down"):
        outcome.figures["mb_per_second"] = per_second * scenario.size / 1e6
    if failed:
        outcome.note = f"{failed:.0f} requests failed, the last with: {result['failure']}"
    if failed > completed or not latency.count:
        outcome.invalid = f"most requests failed: {result['failure']}"
    outcome.judge_load(meter.saturated(cpu), target)
    return outcome


@contextmanager
def requests_worker(scenario: Requests, door: Door, niceness: int = 0) -> Iterator[Child]:
    """The program that asks, ready, with a session of its own where the target wants one.

    Raises:
        ChildFailed: no session, no compiler.
    """
    with http_base(door) as base:
        place = Place.of(base)
        command = [*_address(place), "--base", place.target.rstrip("/")]
        command += ["--kind", scenario.kind, "--connections", str(scenario.connections)]
        command += ["--size", str(scenario.size), "--events", str(scenario.events)]
        command += ["--interval-ms", str(scenario.interval_ms), *_times(scenario)]
        with Child(
            "requests",
            command,
            program=program("requests"),
            niceness=niceness,
            environment=_key(door),
        ) as child:
            yield ready(child)


def measure_setup(scenario: Setup, target: Target, origin_pid: int | None) -> Outcome:
    """One round of calls, one after another by each worker."""
    door, seconds = target.door, scenario.warmup + scenario.seconds
    with _churn(scenario, door) as churn:
        meter = Meter(target, origin_pid)
        result = work(churn, meter, seconds + WORK_GRACE)
    parts = result["parts"]
    assert isinstance(parts, dict)
    histograms = {part: histogram(parts, part) for part in parts}
    latency = histogram(result, "latency")
    completed, failed = number(result, "completed"), number(result, "failed")
    figures = {
        f"{part}_p50": each.percentile(50) / NS_PER_US
        for part, each in histograms.items()
        if each.count
    }
    cpu = number(result, "cpu_ns")
    outcome = Outcome(
        invalid=f"most calls failed: {result['failure']}" if failed > completed else "",
        note=_describe_setup(result),
        figures={
            **percentiles(latency),
            "per_second": number(result, "per_second"),
            "failed": failed,
            **figures,
            **meter.per(completed, 1, cpu),
        },
        histograms={**histograms, "latency": latency},
        raw={"load": dict(result), **meter.raw()},
    )
    outcome.judge_load(meter.saturated(cpu), target)
    return outcome


@contextmanager
def _churn(scenario: Setup, door: Door) -> Iterator[Child]:
    """The program that calls, ready. Raises ChildFailed when it has no way in."""
    url = door.start_url if scenario.begins == "start" and door.start_url else door.ws_url
    if url is None:
        raise ChildFailed("the target wants tokens that only it can make; try whole-calls")
    place = Place.of(url)
    command = [*_address(place), *_times(scenario), "--workers", str(scenario.workers)]
    command += ["--size", str(scenario.size)]
    command += ["--start" if url == door.start_url else "--path", place.target]
    with tempfile.NamedTemporaryFile("w", prefix="relay-bench-") as tokens:
        if door.token is not None and url == door.ws_url:
            planned = round((scenario.warmup + scenario.seconds) * MAX_CALLS_PER_SECOND)
            tokens.writelines(f"{door.token()}\n" for _ in range(min(planned, MAX_CALLS)))
            tokens.flush()
            command += ["--tokens", tokens.name]
        with Child("churn", command, program=program("churn"), environment=_key(door)) as child:
            yield ready(child)


def _address(place: Place) -> list[str]:
    host, port = place.address
    return ["--address", host, "--port", str(port), "--host", place.host]


def _times(scenario: Requests | Setup) -> list[str]:
    seconds, warmup = round(scenario.seconds * 1000), round(scenario.warmup * 1000)
    return ["--milliseconds", str(seconds), "--warmup", str(warmup)]


def _key(door: Door) -> dict[str, str]:
    return {KEY_VARIABLE: door.key or os.environ.get(KEY_VARIABLE, "")}


def _describe_setup(result: Mapping[str, object]) -> str:
    notes = []
    if failed := number(result, "failed"):
        notes.append(f"{failed:.0f} calls failed, the last with: {result['failure']}")
    if result["bounded"]:
        notes.append("ended early at the bound on calls per round (bench/native/churn.c)")
    return "; ".join(notes)
