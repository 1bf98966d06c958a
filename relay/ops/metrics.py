"""Figures for Prometheus: what happened since the start, and how things stand at a scrape.

What happens is counted from the same records that become log lines, so that metrics and
logs never disagree; how things stand is read from a `NodeStatus` when somebody asks. The
names, labels and meanings are the table `FAMILIES` (docs/metrics.md).
"""

from __future__ import annotations

__all__ = ["FAMILIES", "Family", "Metrics"]

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from relay.ops.samples import Sample, samples_of
from relay.policy.sessions import Session, public_end
from relay.policy.status import NodeStatus

Labels = tuple[str, ...]

# Upper bounds in seconds. An exchange takes from 100 us (a refusal) to seconds (a body, a
# cold start); waiting for a bot takes from milliseconds to `attach_timeout`; calls last
# from seconds to hours.
EXCHANGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
ATTACH_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# How a log line names the time that an exchange has spent in each phase.
PHASES = tuple(
    f"{phase}_ms"
    for phase in ("accept", "parse", "route", "authenticate", "resolve", "relay", "close")
)
CALL_SECONDS = (1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0)


class Family(NamedTuple):
    """One metric: its name as scraped, without the suffixes that its kind adds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    meaning: str
    bounds: tuple[float, ...] = ()


def _table(*families: Family) -> Mapping[str, Family]:
    return {family.name: family for family in families}


FAMILIES = _table(
    Family(
        "relay_exchanges_total",
        "counter",
        ("route", "status"),
        "Requests answered, by route and class of status (2xx, 4xx, ... or none)",
    ),
    Family(
        "relay_refusals_total",
        "counter",
        ("phase", "cause"),
        "Requests refused, by phase and cause",
    ),
    Family(
        "relay_exchange_phase_seconds",
        "histogram",
        ("phase",),
        "Seconds that exchanges spent in each phase; calls are not in it",
        EXCHANGE_SECONDS,
    ),
    Family(
        "relay_sessions_ended_total",
        "counter",
        ("agent", "end_state", "cause"),
        "Sessions ended, by agent, end state and cause",
    ),
    Family(
        "relay_session_attach_seconds",
        "histogram",
        ("agent", "start"),
        "Seconds from a caller's arrival to its bot's answer, cold starts apart",
        ATTACH_SECONDS,
    ),
    Family(
        "relay_session_queue_seconds",
        "histogram",
        ("agent",),
        "Seconds from a caller's arrival to the lease of an instance",
        ATTACH_SECONDS,
    ),
    Family(
        "relay_session_seconds",
        "histogram",
        ("agent",),
        "Seconds that sessions were active",
        CALL_SECONDS,
    ),
    Family(
        "relay_tls_handshakes_total",
        "counter",
        ("version",),
        "TLS handshakes with callers that have succeeded, by version",
    ),
    Family(
        "relay_tls_certificate_end_seconds",
        "gauge",
        ("certificate",),
        "Unix time at which a certificate that callers are shown ends, by its file",
    ),
    Family(
        "relay_webhooks_total",
        "counter",
        ("event", "outcome"),
        "Attempts to deliver webhooks and events that were removed, by outcome",
    ),
    Family(
        "relay_webhooks_waiting",
        "gauge",
        ("organization",),
        "Events of the store that wait to be delivered",
    ),
    Family(
        "relay_spans_total",
        "counter",
        ("outcome",),
        "Spans that were sent to the receiver of traces, failed to be, or found the queue full",
    ),
    Family(
        "relay_warnings_total",
        "counter",
        ("event",),
        "Log lines of level warning and error, by event",
    ),
    Family("relay_build_info", "gauge", ("version",), "1, with the version of the daemon"),
    Family("relay_start_time_seconds", "gauge", (), "Unix time at which the daemon started"),
    Family("relay_ready", "gauge", (), "1 while new sessions are taken"),
    Family("relay_draining", "gauge", ("agent",), "1 while an agent takes no new sessions"),
    Family("relay_calls", "gauge", (), "Live calls of this node"),
    Family(
        "relay_sessions",
        "gauge",
        ("agent", "state"),
        "Live sessions of the store, by agent and state",
    ),
    Family("relay_queue_callers", "gauge", ("agent",), "Callers that wait for an instance"),
    Family(
        "relay_held_requests", "gauge", ("agent",), "Session API requests that wait for a session"
    ),
    Family(
        "relay_instances",
        "gauge",
        ("agent", "state"),
        "Instances: ready, busy, draining, not_ready",
    ),
    Family("relay_instances_startable", "gauge", ("agent",), "Bots that could still be started"),
    Family("relay_pump_up", "gauge", ("pump",), "1 while a pump takes calls"),
    Family("relay_pump_tunnels", "gauge", ("pump",), "Tunnels that a pump carries"),
    Family("relay_pump_adopted_total", "counter", ("pump",), "Tunnels that a pump was given"),
    Family("relay_pump_turns_total", "counter", ("pump",), "Wake-ups of a pump"),
    Family("relay_pump_busy_seconds_total", "counter", ("pump",), "Seconds that turns took"),
    Family(
        "relay_pump_longest_turn_seconds",
        "gauge",
        ("pump",),
        "The longest turn since the pump's start",
    ),
    Family(
        "relay_call_delay_seconds",
        "histogram",
        ("pump",),
        "Length of a pump's turns: the longest that a message can have waited in the relay",
    ),
    Family(
        "relay_call_bytes_total",
        "counter",
        ("pump", "source"),
        "Bytes relayed, live calls included",
    ),
    Family(
        "relay_call_messages_total",
        "counter",
        ("pump", "source"),
        "Messages relayed, live calls included",
    ),
    Family(
        "relay_call_gap_seconds",
        "histogram",
        ("pump", "source"),
        "Notable gaps between reads of live and ended calls, from 32 ms",
    ),
    Family(
        "relay_call_held_seconds_total",
        "counter",
        ("pump", "source"),
        "Seconds in which the other side did not take what was read",
    ),
)


class Tally:
    """A histogram: how many values lay at or below each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """Counts what happens and renders it; see the module."""

    def __init__(self) -> None:
        self._counters: Counter[tuple[str, Labels]] = Counter()
        self._tallies: dict[tuple[str, Labels], Tally] = {}
        self._phases: dict[str, Tally] = {}  # some of them, by the name in a log line

    def exchange(self, fields: Mapping[str, object]) -> None:
        """One exchange, as it is logged."""
        status = fields.get("status")
        shown = f"{status // 100}xx" if isinstance(status, int) else "none"
        self._counters["relay_exchanges_total", (str(fields.get("route", "none")), shown)] += 1
        cause = fields.get("cause")
        if cause is not None:
            self._counters["relay_refusals_total", (str(fields.get("phase")), str(cause))] += 1
        for name in PHASES:
            value = fields.get(name)
            if isinstance(value, float):
                tally = self._phases.get(name)
                if tally is None:
                    labels = (name.removesuffix("_ms"),)
                    tally = self._tally("relay_exchange_phase_seconds", labels)
                    self._phases[name] = tally
                tally.add(value / 1000)

    def session_end(self, session: Session) -> None:
        """One session that has ended."""
        end_state, _status = public_end(session.cause, session.transport)
        labels = (session.agent, end_state, session.cause or "unknown")
        self._counters["relay_sessions_ended_total", labels] += 1
        if session.started is None:
            return
        if session.took is not None:
            start = "cold" if session.cold else "warm"
            self._observe("relay_session_attach_seconds", (session.agent, start), session.took)
        if session.queued is not None:
            self._observe("relay_session_queue_seconds", (session.agent,), session.queued)
        if session.ended is not None:
            lasted = max(0.0, session.ended - session.started)
            self._observe("relay_session_seconds", (session.agent,), lasted)

    def warning(self, event: str) -> None:
        """One log line that an operator should look at."""
        self._counters["relay_warnings_total", (event,)] += 1

    def handshake(self, version: str) -> None:
        """One TLS connection that has come about."""
        self._counters["relay_tls_handshakes_total", (version,)] += 1

    def webhook(self, event: str, outcome: str) -> None:
        """One attempt to deliver an event, or one that was removed."""
        self._counters["relay_webhooks_total", (event, outcome)] += 1

    def webhooks_waiting(self, organization: str, count: int) -> None:
        """How many events wait, as the last look at the store has shown."""
        self._counters["relay_webhooks_waiting", (organization,)] = count

    def spans(self, counts: Mapping[str, int]) -> None:
        """How many spans met which outcome so far."""
        for outcome, count in counts.items():
            self._counters["relay_spans_total", (outcome,)] = count

    def _observe(self, name: str, labels: Labels, seconds: float) -> None:
        self._tally(name, labels).add(seconds)

    def _tally(self, name: str, labels: Labels) -> Tally:
        tally = self._tallies.get((name, labels))
        if tally is None:
            tally = self._tallies[name, labels] = Tally(FAMILIES[name].bounds)
        return tally

    def render(self, status: NodeStatus, certificates: Mapping[str, float]) -> bytes:
        """Everything in Prometheus's text format; certificates with unix seconds of their ends."""
        name = "relay_tls_certificate_end_seconds"
        ends = [Sample(name, (file,), end) for file, end in certificates.items()]
        return generate_latest(_Snapshot(self._families([*samples_of(status), *ends])))

    def _families(self, samples: Iterable[Sample]) -> Iterator[Metric]:
        values = [Sample(name, labels, value) for (name, labels), value in self._counters.items()]
        values += samples
        by_name: dict[str, list[Sample]] = {}
        for sample in values:
            by_name.setdefault(sample.name, []).append(sample)
        tallies: dict[str, list[Sample]] = {}
        for (name, labels), tally in self._tallies.items():
            sample = Sample(name, labels, tally.total, tally.bounds, tuple(tally.counts))
            tallies.setdefault(name, []).append(sample)
        for family in FAMILIES.values():
            found = by_name.get(family.name, []) + tallies.get(family.name, [])
            if found:
                yield _metric(family, found)


class _Snapshot(Collector):
    """What `generate_latest` takes for a registry."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _metric(family: Family, samples: Iterable[Sample]) -> Metric:
    if family.kind == "counter":
        counter = CounterMetricFamily(family.name, family.meaning, labels=family.labels)
        for sample in samples:
            counter.add_metric(sample.labels, sample.value or 0.0)
        return counter
    if family.kind == "gauge":
        gauge = GaugeMetricFamily(family.name, family.meaning, labels=family.labels)
        for sample in samples:
            gauge.add_metric(sample.labels, sample.value or 0.0)
        return gauge
    histogram = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
    for sample in samples:
        histogram.add_metric(sample.labels, list(_cumulative(sample)), sample.value)
    return histogram


def _cumulative(sample: Sample) -> Iterator[tuple[str, float]]:
    below = 0
    for bound, count in zip((*sample.bounds, float("inf")), sample.counts, strict=True):
        below += count
        yield ("+Inf" if bound == float("inf") else repr(bound)), below
