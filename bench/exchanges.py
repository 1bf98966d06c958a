"""Workloads of requests and of whole calls: the Session API, set-ups."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bench.children import Child
from bench.client import KEY_VARIABLE, Door, Place
from bench.native import program
from bench.opening import http_base
from bench.outcome import Meter, Outcome, histogram, number, percentiles
from bench.scenarios import Requests, Setup
from bench.targets import Target

__all__ = ["measure_requests", "measure_setup", "requests_worker"]

READY_WAIT = 20.0  # seconds for a worker to start up
WORK_GRACE = 45.0  # beyond the planned seconds: the workers' own bounds end before
NS_PER_US = 1_000


def measure_requests(scenario: Requests, target: Target, origin_pid: int | None) -> Outcome:
    """One round of HTTP requests to the origin, through the Session API where there is one."""
    working = scenario.warmup + scenario.seconds + WORK_GRACE
    with requests_worker(scenario, target.door) as load:
        load.hear("ready", READY_WAIT)
        meter = Meter(target, origin_pid)
        load.go_on()
        load.hear("done", working)
        meter.end()
        load.go_on()
        result = load.hear("result", working)
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
    full = meter.saturated(cpu)
    if full and target.forwards > 1:
        outcome.invalid = outcome.invalid or full
    elif full:
        outcome.note = full
    return outcome


@contextmanager
def requests_worker(scenario: Requests, door: Door, niceness: int = 0) -> Iterator[Child]:
    """The program that asks, with a session of its own where the target wants one.

    Raises:
        ChildFailed: no session, no compiler.
    """
    with http_base(door) as base:
        place = Place.of(base)
        command = ["--address", place.address[0], "--port", str(place.address[1])]
        command += ["--host", place.host, "--base", place.target.rstrip("/")]
        command += ["--kind", scenario.kind, "--connections", str(scenario.connections)]
        command += ["--size", str(scenario.size), "--events", str(scenario.events)]
        command += ["--interval-ms", str(scenario.interval_ms)]
        command += ["--milliseconds", str(round(scenario.seconds * 1000))]
        command += ["--warmup", str(round(scenario.warmup * 1000))]
        with Child(
            "requests",
            command,
            program=program("requests"),
            niceness=niceness,
            environment=_key(door),
        ) as child:
            yield child


def measure_setup(scenario: Setup, target: Target, origin_pid: int | None) -> Outcome:
    """One round of whole calls, one after another by each worker."""
    working = scenario.warmup + scenario.seconds + WORK_GRACE
    door = target.door
    command = ["-m", "bench.churn", "--workers", str(scenario.workers)]
    command += ["--size", str(scenario.size), "--seconds", str(scenario.seconds)]
    command += ["--warmup", str(scenario.warmup), "--held"]
    command += ["--start", door.start_url] if door.start_url else ["--ws", door.ws_url or ""]
    with Child("churn", command, environment=_key(door)) as churn:
        churn.hear("ready", READY_WAIT)
        meter = Meter(target, origin_pid)
        churn.go_on()
        churn.hear("done", working)
        meter.end()
        churn.go_on()
        result = churn.hear("result", working)
    parts = result["parts"]
    assert isinstance(parts, dict)
    histograms = {part: histogram(parts, part) for part in parts}
    latency = histograms["latency"] = histogram(result, "latency")
    completed, failed = number(result, "completed"), number(result, "failed")
    figures = {
        f"{part}_p50": histogram(parts, part).percentile(50) / NS_PER_US
        for part in parts
        if part != "start" or door.start_url
    }
    return Outcome(
        invalid=f"most calls failed: {result['failures']}" if failed > completed else "",
        note=_describe_setup(result, meter),
        figures={
            **percentiles(latency),
            "per_second": number(result, "per_second"),
            "failed": failed,
            **figures,
            **meter.per(completed, 1, number(result, "cpu_ns")),
        },
        histograms=histograms,
        raw={"load": dict(result), **meter.raw()},
    )


def _key(door: Door) -> dict[str, str]:
    return {KEY_VARIABLE: door.key or os.environ.get(KEY_VARIABLE, "")}


def _describe_setup(result: Mapping[str, object], meter: Meter) -> str:
    notes = [f"failures: {result['failures']}"] if result["failed"] else []
    if result["bounded"]:
        notes.append("ended early at the bound on calls per round (bench/churn.py)")
    full = meter.saturated(number(result, "cpu_ns"))
    if full:  # in Python; only the quickest targets come up to it
        notes.append(f"{full}: calls per second are a lower bound")
    return "; ".join(notes)
