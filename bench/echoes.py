"""Workloads over WebSockets that the origin echoes: calls, streams, slow readers, idle tunnels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from bench.children import Child
from bench.client import Channel
from bench.crowd import at_rest, crowd
from bench.exchanges import requests_worker
from bench.native import program
from bench.opening import count_closed, open_calls
from bench.outcome import Meter, Outcome, histogram, number, percentiles, ready, work
from bench.probe import Sample
from bench.scenarios import beside
from bench.scraping import Scraper
from bench.shapes import MIB, Calls, Idle, Requests, Slow, Stream
from bench.stats import Histogram
from bench.targets import Target

__all__ = ["measure_calls", "measure_idle", "measure_stream"]

# A load beside takes what is left of the cores: it must not make the generator late.
BESIDE_NICENESS = 19
LOOKS = 20  # at the memory while a slow reader reads
MOSTLY = 0.9  # of what was to be pushed
# What something beside the calls may make larger. Of a scrape only what the calls pay counts.
GROWN = ("p50", "p99", "cpu_us")
SCRAPED = ("p50", "p99", "pump_cpu_us")
WORK_GRACE = 30.0  # beyond the planned seconds: the workers' own bounds end before


def measure_calls(scenario: Calls, target: Target, origin_pid: int | None) -> Outcome:
    """One round of paced calls; with another load beside them, they are measured alone first."""
    if not scenario.mixed and not scenario.scrapes:
        return _paced(scenario, target, origin_pid)
    if scenario.idle:
        at_rest(target)
    outcome = alone = _paced(scenario, target, origin_pid)
    with ExitStack() as stack:
        tunnels: Sequence[Channel] = ()
        if scenario.idle:
            tunnels = stack.enter_context(crowd(target, scenario.idle))
            # Beyond a fresh start: what a target keeps of a round is not for nothing in the next.
            memory = Meter.pss(target.idle, target.sample(), scenario.idle)
        if scenario.mixed:
            other = _start_beside(scenario, target, stack)
            outcome = _paced(scenario, target, origin_pid, other)
            _set_beside(outcome, alone, "grown", GROWN)
        if scenario.idle:
            outcome.figures |= memory
        if scenario.scrapes and target.door.metrics_url:
            scraped = _scrape(scenario, target, origin_pid, outcome)
            outcome = outcome if scenario.mixed else scraped
        if gone := count_closed(tunnels):
            outcome.invalid = f"{gone} of {scenario.idle} tunnels were closed while idle"
    outcome.raw["alone"] = alone.figures
    return outcome


def _set_beside(outcome: Outcome, alone: Outcome, what: str, names: Sequence[str]) -> None:
    """Note by how much the figures of the second are those of the first."""
    outcome.invalid = outcome.invalid or alone.invalid
    for name in names:
        if alone.figures.get(name) and name in outcome.figures:
            short = name.removesuffix("_us").removesuffix("_cpu")
            outcome.figures[f"{short}_{what}"] = outcome.figures[name] / alone.figures[name]


def _scrape(scenario: Calls, target: Target, origin_pid: int | None, before: Outcome) -> Outcome:
    """Measure the same again while the metrics are fetched; what that changed is in both."""
    seconds = scenario.warmup + scenario.seconds
    scraper = Scraper(str(target.door.metrics_url), scenario.scrapes, seconds)
    scraped = _paced(scenario, target, origin_pid, meanwhile=scraper)
    _set_beside(scraped, before, "scraped", SCRAPED)
    if scraper.failure or not scraper.took:
        why = scraper.failure or "no answer in time"
        scraped.invalid = f"fetching the metrics failed: {why}"
    else:
        scraped.figures["scrape_ms"] = statistics.median(scraper.took) * 1000
    scraped.raw["took"] = scraper.took
    wanted = ("p50_scraped", "p99_scraped", "pump_scraped", "scrape_ms")
    before.figures |= {name: scraped.figures[name] for name in wanted if name in scraped.figures}
    before.raw["scraped"] = {**scraped.figures, "took": scraper.took}
    before.invalid = before.invalid or scraped.invalid
    return scraped


def _paced(
    scenario: Calls,
    target: Target,
    origin_pid: int | None,
    other: Child | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Outcome:
    """The calls once.

    Args:
        other: a worker that is ready, to work beside them.
        meanwhile: done here while they go on.
    """
    seconds = scenario.warmup + scenario.seconds + WORK_GRACE
    with open_calls(target.door, scenario.calls) as calls, _calls_worker(scenario, calls) as load:
        ready(load)
        meter = Meter(target, origin_pid)
        if other is not None:
            other.go_on()
        result = work(load, meter, seconds, meanwhile)
        answers = _finish(other, seconds) if other is not None else None
    latency, lateness = histogram(result, "latency"), histogram(result, "lateness")
    outcome = _verified(result, latency, meter)
    outcome.figures["per_second"] = number(result, "per_second")
    outcome.figures |= {
        f"late_{name}": value
        for name, value in percentiles(lateness).items()
        if name in ("p50", "p99")
    }
    outcome.histograms["lateness"] = lateness
    outcome.invalid = outcome.invalid or _late(result)
    if answers is not None:
        outcome.raw["beside"] = answers
        outcome.note = _describe_beside(scenario, answers)
        return outcome
    outcome.figures |= meter.per(
        number(result, "echoed"), target.forwards, number(result, "cpu_ns")
    )
    return outcome


def measure_stream(scenario: Stream, target: Target, origin_pid: int | None) -> Outcome:
    """One round of messages as fast as they go, or as fast as a slow reader takes them."""
    loaded: list[Sample] = []

    def watch() -> None:
        """Look at the memory again and again: the most that was held is what counts."""
        for _ in range(LOOKS):
            time.sleep((scenario.warmup + scenario.seconds) * 0.95 / LOOKS)
            seen = target.sample()
            loaded.extend([] if seen is None else [seen])

    with (
        open_calls(target.door, scenario.connections) as calls,
        _stream_worker(scenario, calls) as load,
    ):
        ready(load)
        meter = Meter(target, origin_pid)
        seconds = scenario.warmup + scenario.seconds + WORK_GRACE
        result = work(load, meter, seconds, watch if isinstance(scenario, Slow) else None)
    outcome = _verified(result, histogram(result, "latency"), meter)
    outcome.figures["per_second"] = number(result, "per_second")
    outcome.figures["mb_per_second"] = number(result, "mb_per_second")
    count = number(result, "echoed")
    if scenario.cpu_per.endswith("MiB"):
        count *= scenario.size / MIB
    cpu = number(result, "cpu_ns")
    outcome.figures |= meter.per(count, target.forwards, cpu)
    if isinstance(scenario, Slow):
        outcome.figures |= meter.grown(loaded)
        outcome.raw["loaded"] = loaded
        came = number(result, "echoed") * scenario.size
        if came < MOSTLY * scenario.pushed:
            outcome.note = f"only {came / MIB:.0f} MiB came through in time"
    outcome.judge_load(meter.saturated(cpu), target)
    return outcome


def measure_idle(scenario: Idle, target: Target, origin_pid: int | None) -> Outcome:
    """Open tunnels, wait, and see what they cost while nothing happens."""
    with crowd(target, scenario.tunnels) as calls:
        meter = Meter(target, origin_pid)
        begun = time.monotonic()
        time.sleep(scenario.seconds)
        meter.end()
        elapsed = time.monotonic() - begun
        closed = count_closed(calls)
    outcome = Outcome(raw={**meter.raw(), "closed": closed})
    figures = meter.per(elapsed, 1, None)
    figures.pop("origin_cpu_us", None)
    # Beyond a fresh start: a target that keeps what a round has used is not measured twice.
    memory = meter.pss(target.idle, meter.after, scenario.tunnels)
    outcome.figures = {**memory, **figures, "failed": closed}
    if closed:
        outcome.invalid = f"{closed} of {scenario.tunnels} tunnels were closed while idle"
    return outcome


def _calls_worker(scenario: Calls, calls: Sequence[Channel]) -> Child:
    unrecorded = round(scenario.warmup * scenario.rate)
    messages = max(round(scenario.seconds * scenario.rate), 1) + unrecorded
    command = ["--rate", str(scenario.rate), "--size", str(scenario.size)]
    command += ["--messages", str(messages), "--unrecorded", str(unrecorded)]
    command += ["--text"] if scenario.kind == "text" else []
    return _worker("calls", command, calls)


def _stream_worker(scenario: Stream, calls: Sequence[Channel], niceness: int = 0) -> Child:
    command = ["--size", str(scenario.size), "--in-flight", str(scenario.in_flight)]
    command += ["--milliseconds", str(round(scenario.seconds * 1000))]
    command += ["--warmup", str(round(scenario.warmup * 1000))]
    command += ["--read-rate", str(scenario.read_rate if isinstance(scenario, Slow) else 0)]
    return _worker("stream", command, calls, niceness)


def _worker(
    name: str, command: Sequence[str], calls: Sequence[Channel], niceness: int = 0
) -> Child:
    descriptors = [call.sock.fileno() for call in calls]
    listed = ",".join(map(str, descriptors))
    return Child(
        name,
        [*command, "--descriptors", listed],
        program=program(name),
        descriptors=descriptors,
        niceness=niceness,
    )


def _start_beside(scenario: Calls, target: Target, stack: ExitStack) -> Child | None:
    """The worker of the other load, ready to go; None when it is only there, or there is none."""
    load = beside(scenario)
    if load is None:
        return None
    if isinstance(load, Requests):
        return stack.enter_context(requests_worker(load, target.door, BESIDE_NICENESS))
    calls = stack.enter_context(open_calls(target.door, load.connections))
    return ready(stack.enter_context(_stream_worker(load, calls, BESIDE_NICENESS)))


def _finish(worker: Child, seconds: float) -> dict[str, object]:
    worker.hear("done", seconds)
    worker.go_on()
    return worker.hear("result", seconds)


def _verified(result: Mapping[str, object], latency: Histogram, meter: Meter) -> Outcome:
    """What every verified echo load says."""
    faults = number(result, "reordered") + number(result, "duplicated")
    figures = {
        **percentiles(latency),
        "lost": number(result, "lost"),
        "reordered": faults,
        "changed": number(result, "changed"),
    }
    causes = result["causes"]
    assert isinstance(causes, list)
    broken = int(number(result, "broken"))
    return Outcome(
        invalid=f"{broken} calls broke: {'; '.join(map(str, causes))}" if broken else "",
        figures=figures,
        histograms={"latency": latency},
        raw={"load": dict(result), **meter.raw()},
    )


def _late(result: Mapping[str, object]) -> str:
    if not result["saturated"]:
        return ""
    share = number(result, "late_share")
    return f"saturated: the generator sent {share:.1%} of its messages over 5 ms late"


def _describe_beside(scenario: Calls, other: Mapping[str, object]) -> str:
    if scenario.flood:
        failed = int(number(other, "failed"))
        why = f", {failed} failed: {other['failure']}" if failed else ""
        return f"beside: {number(other, 'per_second'):.0f} requests/s{why}"
    return f"beside: {number(other, 'mb_per_second'):.0f} MB/s"
