"""Metrics: the rules for names, what is counted of what was logged, what a scrape shows."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.ops.metrics import FAMILIES, Family, Metrics
from relay.ops.samples import GAP_BOUNDS, TURN_BOUNDS, samples_of
from relay.policy.sessions import Session, SessionState
from relay.policy.status import AgentStatus, DirectionStatus, InstanceStatus, NodeStatus, PumpStatus
from relay.pump.channel import GAP_CLASSES, NOTABLE_GAP, SHORT_TURN, TURN_CLASSES

NAME = re.compile(r"relay_[a-z]+(_[a-z]+)*")
LABEL = re.compile(r"[a-z]+(_[a-z]+)*")
# What belongs to the format, or says what the name says (prometheus.io, "Naming").
RESERVED_LABELS = {"le", "quantile", "job", "instance", "name"}
SESSION = Session(
    id="x", agent="a", organization="o", state=SessionState.ENDED, created=1.0,
    admitted=2.0, started=2.004, ended=12.004, queued=0.001, took=0.004, cold=False,
    cause="client_closed",
)  # fmt: skip


def status(**given: Any) -> NodeStatus:
    fields: dict[str, Any] = {
        "name": "n", "version": "1", "public_url": "", "started_at": 5.0, "now": 9.0,
        "draining": False,
    }  # fmt: skip
    return NodeStatus(**(fields | given))


FULL = status(
    reasons=("no pump",),
    calls_total=3,
    agents=(AgentStatus(name="a", organization="o", active=2, queue=1, startable=4),),
    instances=(
        InstanceStatus(url="1", agent="a", state="ready"),
        InstanceStatus(url="2", agent="a", state="ready", sessions=1),
        InstanceStatus(url="3", agent="a", state="cannot connect"),
        InstanceStatus(url="4", agent="a", state="ready", draining=True),
    ),
    pumps=(
        PumpStatus(
            index=0, state="ready", tunnels=3, turns=8, busy=0.5,
            turn_classes=(3, *[0] * (TURN_CLASSES - 2), 5),
            client=DirectionStatus(bytes=10, messages=2, gaps=(1, *[0] * (GAP_CLASSES - 2), 4)),
        ),
    ),
)  # fmt: skip


def scraped(
    metrics: Metrics, of: NodeStatus
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels, read by Prometheus's own parser."""
    text = metrics.render(of, {}).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**given: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(given.items()))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_names_follow_the_rules(family: Family) -> None:
    assert NAME.fullmatch(family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    unit = family.name.removesuffix("_total")
    assert not re.search(r"_(ms|milliseconds|minutes|kb|kib|percent)$", unit), "base units only"
    assert all(LABEL.fullmatch(label) for label in family.labels)
    assert not RESERVED_LABELS & set(family.labels)
    assert family.meaning[0].isupper() or family.meaning[0].isdigit()
    assert not family.meaning.endswith(".")
    assert list(family.bounds) == sorted(set(family.bounds))
    if family.kind == "histogram":
        assert unit.endswith("_seconds")


def test_every_family_appears_and_none_that_is_not_in_the_table() -> None:
    metrics = Metrics()
    metrics.exchange(
        {"route": "start", "status": 429, "phase": "resolve", "cause": "x", "parse_ms": 1.0}
    )
    metrics.session_end(SESSION)
    metrics.warning("store")
    metrics.webhook("session.ended", "delivered")
    metrics.webhooks_waiting("acme", 1)
    metrics.spans({"sent": 1})
    metrics.handshake("TLSv1.3")
    text = metrics.render(FULL, {"shown.pem": 2e9}).decode()
    found = {family.name for family in text_string_to_metric_families(text)}
    assert found == {name.removesuffix("_total") for name in FAMILIES}


def test_samples_fit_their_families() -> None:
    for sample in samples_of(FULL):
        family = FAMILIES[sample.name]
        assert len(sample.labels) == len(family.labels), sample
        assert (len(sample.counts) > 0) == (family.kind == "histogram"), sample


def test_bounds_are_those_of_the_pump() -> None:
    assert tuple(NOTABLE_GAP * 2**n for n in range(1, GAP_CLASSES)) == GAP_BOUNDS
    assert tuple(SHORT_TURN * 2**n for n in range(TURN_CLASSES - 1)) == TURN_BOUNDS


def test_an_exchange() -> None:
    metrics = Metrics()
    refused = {"route": "start", "status": 429, "phase": "resolve", "cause": "at_capacity"}
    metrics.exchange({**refused, "parse_ms": 0.25, "resolve_ms": 40.0, "ms": 41.0})
    metrics.exchange({"route": "start", "status": 200, "phase": "relay", "parse_ms": 0.25})
    metrics.exchange({"phase": "parse", "cause": "bad_head", "status": 400})
    seen = scraped(metrics, status())
    assert seen["relay_exchanges_total", labels(route="start", status="4xx")] == 1
    assert seen["relay_exchanges_total", labels(route="start", status="2xx")] == 1
    assert seen["relay_exchanges_total", labels(route="none", status="4xx")] == 1
    assert seen["relay_refusals_total", labels(phase="resolve", cause="at_capacity")] == 1
    name = "relay_exchange_phase_seconds"
    assert seen[f"{name}_count", labels(phase="parse")] == 2
    assert seen[f"{name}_sum", labels(phase="resolve")] == pytest.approx(0.04)
    assert seen[f"{name}_bucket", labels(phase="resolve", le="0.025")] == 0
    assert seen[f"{name}_bucket", labels(phase="resolve", le="0.05")] == 1


def test_the_end_of_a_session() -> None:
    metrics = Metrics()
    metrics.session_end(SESSION)
    never = {"state": SessionState.ENDED, "started": None, "cause": "unused"}
    metrics.session_end(msgspec.structs.replace(SESSION, **never))
    seen = scraped(metrics, status())
    ended = "relay_sessions_ended_total"
    assert seen[ended, labels(agent="a", end_state="completed", cause="client_closed")] == 1
    assert seen[ended, labels(agent="a", end_state="ended_before_agent_start", cause="unused")] == 1
    assert seen["relay_session_seconds_sum", labels(agent="a")] == pytest.approx(10.0)
    assert seen["relay_session_queue_seconds_sum", labels(agent="a")] == pytest.approx(0.001)
    attach = "relay_session_attach_seconds"
    assert seen[f"{attach}_count", labels(agent="a", start="warm")] == 1
    assert seen[f"{attach}_sum", labels(agent="a", start="warm")] == pytest.approx(0.004)


def test_how_things_stand() -> None:
    seen = scraped(Metrics(), FULL)
    assert seen["relay_ready", ()] == 0
    assert seen["relay_calls", ()] == 3
    assert seen["relay_sessions", labels(agent="a", state="active")] == 2
    assert seen["relay_queue_callers", labels(agent="a")] == 1
    for state in ("ready", "busy", "draining", "not_ready"):
        assert seen["relay_instances", labels(agent="a", state=state)] == 1
    assert seen["relay_call_messages_total", labels(pump="0", source="client")] == 2
    gaps = "relay_call_gap_seconds"
    assert seen[f"{gaps}_bucket", labels(pump="0", source="client", le="0.064")] == 1
    assert seen[f"{gaps}_bucket", labels(pump="0", source="client", le="+Inf")] == 5
    delay = "relay_call_delay_seconds"
    assert seen[f"{delay}_count", labels(pump="0")] == 8
    assert seen[f"{delay}_sum", labels(pump="0")] == 0.5


def test_labels_cannot_break_the_format() -> None:
    metrics = Metrics()
    odd = 'a"b\\c\nd'
    metrics.exchange({"route": odd, "status": 200, "phase": "relay"})
    assert scraped(metrics, status())["relay_exchanges_total", labels(route=odd, status="2xx")] == 1
