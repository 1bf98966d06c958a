"""What the relay owes and what it is after, as data: a figure, held against whose, how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["COMPILED", "FLOORS", "JUDGED", "PURE", "Floor"]

PURE, COMPILED = "relay", "relay-compiled"
JUDGED = (PURE, COMPILED)

NGINX = ("nginx", "nginx-large")
HAPROXY = ("haproxy", "haproxy-large")
EITHER = (*NGINX, *HAPROXY)
# To be looked at must cost the calls nothing. Medians of ratios within a round come back to 1
# within some per cent; a 99th percentile of two seconds, which is that of fifty messages, within
# a quarter.
NOTHING, NO_TAIL = 1.05, 1.25


@dataclass(frozen=True, slots=True)
class Floor:
    """One row of the table.

    Args:
        work: what is done, in words.
        scenario: that measures it.
        figure: of that scenario.
        bases: the peers of which the best one is the base of the ratio; none for a figure
            that is itself what is judged.
        pure: what the relay owes: at most so much where lower is better, else at least.
        compiled: the same with a compiled pump.
        goal: what it is after; None without one.
        unit: behind the numbers; "x" for a ratio.
    """

    work: str
    scenario: str
    figure: str
    bases: Sequence[str]
    pure: float
    compiled: float
    goal: float | None = None
    unit: str = "x"

    def owed(self, target: str) -> float:
        """The floor of a target, one of JUDGED."""
        return self.compiled if target == COMPILED else self.pure


FLOORS = (
    Floor("round trip, 1 call, p50", "pingpong", "p50", EITHER, 1.15, 1.1, 1.0),
    Floor("50 calls, p50", "calls", "p50", EITHER, 1.2, 1.1, 1.0),
    Floor("200 calls, p50", "scale-200", "p50", EITHER, 1.2, 1.1, 1.0),
    Floor("50 calls, CPU per message", "calls", "cpu_us", NGINX, 1.3, 1.15, 1.0),
    Floor("200 calls, CPU per message", "scale-200", "cpu_us", NGINX, 1.3, 1.15, 1.0),
    Floor("50 calls, a core for itself, p50", "calls-apart", "p50", EITHER, 1.2, 1.1, 1.0),
    Floor("50 calls, a core for itself, CPU", "calls-apart", "cpu_us", NGINX, 1.3, 1.15, 1.0),
    Floor("4 calls of 64 KiB, throughput", "bulk-64k", "mb_per_second", HAPROXY, 1.3, 1.3, 1.5),
    Floor("the same", "bulk-64k", "mb_per_second", ("nginx-large",), 0.9, 0.9, 1.1),
    Floor("2 calls of 1 MiB, throughput", "bulk-2x1m", "mb_per_second", EITHER, 1.0, 1.0, 1.3),
    Floor("calls beside HTTP, p50 to alone", "mixed-http", "p50_grown", (), 1.5, 1.5),
    Floor("calls beside HTTP, p99", "mixed-http", "p99", ("nginx",), 2.0, 2.0, 1.0),
    Floor("calls beside sessions, p50 to alone", "mixed-sessions", "p50_grown", (), 1.5, 1.5),
    Floor("calls beside sessions, p99", "mixed-sessions", "p99", ("nginx",), 2.0, 2.0, 1.0),
    Floor("calls beside bulk, p99 to alone", "mixed-bulk", "p99_grown", (), 2.0, 2.0, 1.3),
    Floor("calls beside 5000 idle, CPU to alone", "mixed-idle", "cpu_grown", (), 1.1, 1.1),
    Floor("5000 idle, pump memory each", "mixed-idle", "pump_kib", (), 2.5, 2.5, 2.0, " KiB"),
    Floor("calls, /metrics fetched ten times a second, p50", "mixed-scrapes", "p50_scraped", (),
          NOTHING, NOTHING),
    Floor("the same, p99", "mixed-scrapes", "p99_scraped", (), NO_TAIL, NO_TAIL),
    Floor("the same, CPU of the pump", "mixed-scrapes", "pump_scraped", (), NOTHING, NOTHING),
    Floor("with 5000 idle, /metrics fetched once a second, p50", "mixed-idle", "p50_scraped", (),
          NOTHING, NOTHING),
    Floor("the same, p99", "mixed-idle", "p99_scraped", (), NO_TAIL, NO_TAIL),
    Floor("the same, CPU of the pump", "mixed-idle", "pump_scraped", (), NOTHING, NOTHING),
    Floor("the same, a fetch takes", "mixed-idle", "scrape_ms", (), 200, 200, None, " ms"),
    Floor("1 GiB to a slow reader, pump grows",
          "slow-reader", "pump_grown_kib", (), 1024, 1024, None, " KiB"),
    Floor("small JSON, 16 connections, per second",
          "requests-json", "per_second", ("aiohttp-uvloop",), 0.6, 0.6),
    Floor("1 MiB up, throughput", "requests-up", "mb_per_second", ("nginx",), 0.5, 0.5),
    Floor("1 MiB down, throughput", "requests-down", "mb_per_second", ("nginx",), 0.5, 0.5),
)  # fmt: skip
