"""Every figure that a round can have: its unit, its digits, which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["FIGURES", "Figure"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Args:
        name: its key in `Round.figures`.
        heading: of a table's column.
        unit: for axes and text.
        digits: behind the decimal point.
        better: which way is better; None where a comparison of targets says nothing.
        about: one sentence for a reader.
    """

    name: str
    heading: str
    unit: str
    digits: int
    better: Literal["lower", "higher"] | None
    about: str


_ALL = (
    Figure("p50", "p50 us", "us", 0, "lower", "median of the scenario's latency"),
    Figure("p90", "p90 us", "us", 0, "lower", "90 % were at most this late"),
    Figure("p99", "p99 us", "us", 0, "lower", "99 % were at most this late"),
    Figure("p999", "p99.9 us", "us", 0, "lower", "99.9 % were at most this late"),
    Figure("max", "max us", "us", 0, "lower", "the latest of all"),
    Figure("per_second", "per s", "1/s", 0, "higher", "echoes, calls, requests or events a second"),
    Figure(
        "mb_per_second", "MB/s", "MB/s", 0, "higher", "payload echoed or carried, in 10^6 bytes"
    ),
    Figure("lost", "lost", "messages", 0, "lower", "sent, not back within the time to drain"),
    Figure("reordered", "reord", "messages", 0, "lower", "came back late or twice, unchanged"),
    Figure("changed", "changed", "messages", 0, "lower", "came back other than they were sent"),
    Figure("failed", "failed", "attempts", 0, "lower", "calls or requests that did not succeed"),
    Figure(
        "cpu_us",
        "cpu us",
        "us",
        1,
        "lower",
        "CPU of the target's process tree, kernel included, per what the scenario's cpu_per names",
    ),
    Figure("pump_cpu_us", "pump cpu", "us", 1, "lower", "the same, of the relay's pumps alone"),
    Figure(
        "pss_kib",
        "PSS KiB",
        "KiB",
        1,
        "lower",
        "memory of the tree per tunnel, less that before the first one",
    ),
    Figure("pump_kib", "pump KiB", "KiB", 2, "lower", "the same, of the relay's pumps alone"),
    Figure("grown_kib", "grown KiB", "KiB", 0, "lower", "what the tree's memory grew by meanwhile"),
    Figure(
        "pump_grown_kib", "pump grown", "KiB", 0, "lower", "the same, of the relay's pumps alone"
    ),
    Figure("p50_grown", "p50 grown", "times", 2, "lower", "p50 by that of the calls alone"),
    Figure("p99_grown", "p99 grown", "times", 2, "lower", "p99 by that of the calls alone"),
    Figure("cpu_grown", "cpu grown", "times", 2, "lower", "cpu us by that of the calls alone"),
    Figure(
        "p50_scraped",
        "p50 scraped",
        "times",
        2,
        "lower",
        "p50 while /metrics is fetched, by that of the same calls without",
    ),
    Figure("p99_scraped", "p99 scraped", "times", 2, "lower", "the same of p99"),
    Figure("pump_scraped", "pump scraped", "times", 2, "lower", "the same of pump cpu"),
    Figure("scrape_ms", "scrape ms", "ms", 0, "lower", "the median of these fetches"),
    Figure(
        "switches",
        "switches",
        "switches",
        2,
        "lower",
        "context switches of the tree per what the scenario's cpu_per names",
    ),
    Figure("late_p50", "late p50", "us", 0, None, "how late the generator itself sent; in p50"),
    Figure("late_p99", "late p99", "us", 0, None, "the same, 99 % of the messages"),
    Figure("start_p50", "start p50", "us", 0, None, "POST /start; the peers have none"),
    Figure("connect_p50", "connect p50", "us", 0, "lower", "TCP connect and WebSocket handshake"),
    Figure("echo_p50", "echo p50", "us", 0, "lower", "the first message there and back"),
    Figure(
        "generator_cpu_us",
        "gen us",
        "us",
        1,
        None,
        "CPU of the load generator, per echo, MiB, call, request or event",
    ),
    Figure("origin_cpu_us", "origin us", "us", 1, None, "CPU of the echo server, per the same"),
)

FIGURES: dict[str, Figure] = {figure.name: figure for figure in _ALL}
