"""Sessions in traces, and the thread that sends spans."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.ops import otlp, traces
from relay.ops.otlp import Exporter
from relay.ops.traces import Traces, recording
from relay.policy.catalog import TraceReceiver
from relay.policy.phases import Phase
from relay.policy.sessions import Session, SessionState
from relay.policy.traces import Span
from tests.helpers.daemon import wait_until
from tests.helpers.receiver import receiving
from tests.helpers.spans import seen

TIMES = {Phase.PARSE: 0.001, Phase.ROUTE: 0.002, Phase.AUTHENTICATE: 0.003}
NOWHERE = Path("/nonexistent/traces.json")
SPAN = Span("x", "1" * 32, "2" * 16, "", 1, 2, (), {}, serves=True, failed=False)


class Kept:
    """Spans as they were put."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def put(self, span: Span) -> None:
        self.spans.append(span)

    def counts(self) -> dict[str, int]:
        return {"sent": len(self.spans)}

    def end(self) -> None:
        """Nothing."""


def ended(session_id: str, started: float | None = 1001.0) -> Session:
    return Session(
        id=session_id,
        agent="bot",
        organization="acme",
        state=SessionState.ENDED,
        created=1000.0,
        started=started,
        ended=1005.0,
        cause="client_closed" if started else "unused",
    )


def test_a_session_of_another_process_has_a_trace_of_its_own() -> None:
    kept = Kept()
    held = Traces(kept, 1.0, NOWHERE)
    told = held.of("s")
    assert held.of("s") == told, "the bot is told once, and again"
    held.session_end(ended("s"))
    (span,) = kept.spans
    assert (span.trace, span.span, span.parent) == (told.trace, told.span, "")
    assert [moment.name for moment in span.moments] == ["relay", "close"]
    assert (span.begun, span.ended) == (1001 * 10**9, 1005 * 10**9)


def test_a_callers_next_attempt_is_beside_the_one_before() -> None:
    """Both below the exchange that reserved the session; whoever has a trace stays in it."""
    held = Traces(Kept(), 1.0, NOWHERE)
    start = held.opened("s", held.begin(()), TIMES)
    tries = [held.opened("s", held.begin(()), TIMES) for _ in range(2)]
    assert [(each.trace, each.parent) for each in tries] == [(start.trace, start.span)] * 2
    assert held.of("s").parent == tries[1].span
    own = (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    other = held.begin([own])
    assert held.opened("s", other, TIMES) == other
    assert held.of("s").trace == other.trace
    assert held.opened("s", held.begin(()), TIMES).trace == start.trace


@pytest.mark.parametrize("damage", [b"", b"{", b'{"s": 1}'])
def test_the_next_process_goes_on(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "traces.json"
    old, new = Traces(Kept(), 1.0, file), Traces(kept := Kept(), 1.0, file)
    new.inherit()  # there is nothing
    old.opened("s", old.begin([(b"tracestate", b"\xff")]), TIMES)
    old.hand_over()
    new.inherit()
    assert new.of("s") == old.of("s")
    new.session_end(ended("s"))
    assert [moment.name for moment in kept.spans[0].moments][-3:] == ["resolve", "relay", "close"]
    file.write_bytes(damage)
    new.inherit()
    assert not file.exists()


def test_a_session_that_nobody_used() -> None:
    kept = Kept()
    Traces(kept, 1.0, NOWHERE).session_end(ended("s", None))
    (span,) = kept.spans
    assert [moment.name for moment in span.moments] == ["close"]
    assert (span.begun, span.ended) == (1000 * 10**9, 1005 * 10**9)


def test_sessions_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MAX_SESSIONS", 2)
    held = Traces(Kept(), 1.0, NOWHERE)
    first, second, third = (held.begin(()) for _ in range(3))
    for name, trace in (("a", first), ("b", second), ("c", third)):
        held.opened(name, trace, TIMES)
    assert held.of("c").trace == third.trace
    assert held.of("b").trace == second.trace
    assert held.of("a").trace != first.trace


def test_a_dead_receiver_costs_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded queue, then drops; what was tried in vain is counted too."""
    monkeypatch.setattr(otlp, "MAX_QUEUE", 10)
    monkeypatch.setattr(otlp, "TIMEOUT", 0.1)
    exporter = Exporter("http://127.0.0.1:9/v1/traces", "relay", "node", "1")
    for _ in range(25):
        exporter.put(SPAN)
    wait_until(lambda: exporter.counts()["failed"] == 10, "the ten that had room")
    assert exporter.counts() == {"sent": 0, "failed": 10, "dropped": 15}
    exporter.end()


def test_what_is_left_is_sent_at_the_end() -> None:
    with receiving() as receiver:
        with recording(TraceReceiver(receiver.url), "node", "1", NOWHERE) as held:
            assert held is not None
            held.session_end(ended("s"))
        assert [each.name for each in seen(receiver)] == ["session bot"]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "relay.ops.otlp")
    wanted = TraceReceiver("http://127.0.0.1:9/v1/traces")
    with (
        pytest.raises(ConfigError, match=r"pip install 'relay\[otel\]'"),
        recording(wanted, "", "", NOWHERE),
    ):
        pass


def test_nobody_wants_spans() -> None:
    with recording(None, "node", "1", NOWHERE) as held:
        assert held is None
