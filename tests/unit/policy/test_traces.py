"""Where an exchange stands in a trace, and what its span says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.phases import PHASE_FIELDS, Phase
from relay.policy.traces import (
    MAX_TEXT,
    TRACE_BYTES,
    begin_trace,
    exchange_span,
    in_trace,
    opening,
)
from relay.protocol.forwarding import is_trace

CALLER = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
RANDOM = bytes(range(1, TRACE_BYTES + 1))
random_bytes = st.binary(min_size=TRACE_BYTES, max_size=TRACE_BYTES).filter(all)
phases = st.integers(1, 6).map(lambda count: [p for p in Phase if p is not Phase.ACCEPT][:count])


@pytest.mark.parametrize(
    ("flags", "sampled"), [(b"00", False), (b"01", True), (b"02", False), (b"03", True)]
)
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_callers_decision_holds(flags: bytes, sampled: bool, ratio: float) -> None:
    found = begin_trace([(b"traceparent", CALLER + flags)], RANDOM, ratio, 5)
    assert (found.trace, found.parent) == (CALLER[3:35].decode(), CALLER[36:52].decode())
    assert (found.sampled, found.begun) == (sampled, 5)


@pytest.mark.parametrize(
    "values", [[], [b"no"], [CALLER + b"01"] * 2, [b"ff" + CALLER[2:] + b"01"]], ids=range(4)
)
def test_without_one_valid_field_it_begins_here(values: list[bytes]) -> None:
    fields = [(b"tracestate", b"a=1"), *((b"traceparent", value) for value in values)]
    found = begin_trace(fields, RANDOM, 1.0, 5)
    assert (found.trace, found.span) == (RANDOM.hex()[:32], RANDOM.hex()[32:])
    assert (found.parent, found.state, found.sampled) == ("", b"", True)


@given(random_bytes, st.floats(0, 1))
def test_the_ratio_goes_by_the_trace_and_nothing_else(random: bytes, ratio: float) -> None:
    found = begin_trace([], random, ratio, 0)
    assert found.sampled == (int(found.trace[16:], 16) / 2**64 < ratio)
    assert begin_trace([], random[:16] + RANDOM[:8], ratio, 9).sampled == found.sampled


@given(random_bytes, st.sampled_from([None, b"00", b"01"]), st.floats(0, 1))
def test_the_next_hop_is_told_a_span_that_is_recorded_somewhere(
    random: bytes, flags: bytes | None, ratio: float
) -> None:
    given = [] if flags is None else [(b"traceparent", CALLER + flags), (b"tracestate", b"a=1")]
    trace = begin_trace(given, random, ratio, 0)
    fields = dict(in_trace([*given, (b"x", b"y")], trace))
    assert is_trace(fields[b"traceparent"])
    _version, name, span, sampled = fields[b"traceparent"].decode().split("-")
    assert name == trace.trace
    assert span == (trace.span if trace.sampled or not trace.parent else trace.parent)
    assert sampled == ("01" if trace.sampled else "00")
    assert fields.get(b"tracestate") == (b"a=1" if given else None)
    assert fields[b"x"] == b"y"


@given(phases, st.data())
def test_phases_are_in_order_and_fill_the_span(through: list[Phase], data: st.DataObject) -> None:
    took = {phase: data.draw(st.integers(0, 10**9)) / 1000 for phase in through}
    record: dict[str, object] = {PHASE_FIELDS[phase]: ms for phase, ms in took.items()}
    record |= {"trace_id": "1" * 32, "span_id": "2" * 16, "ms": sum(took.values())}
    span = exchange_span(record, 10**18)
    names = [moment.name for moment in span.moments]
    if through[-1] is Phase.CLOSE:
        assert names[:-1] == ["accept", *through]
    else:
        assert names == ["accept", *through, "close"]
    at = [moment.at for moment in span.moments]
    assert at == sorted(at)
    assert (at[0], at[-1]) == (span.begun, span.ended)
    assert abs(span.ended - span.begun - sum(took.values()) * 10**6) < 1000


def test_a_sessions_first_phases_are_its_callers() -> None:
    times = {Phase.PARSE: 0.001, Phase.ROUTE: 0.002, Phase.AUTHENTICATE: 0.003}
    assert opening(10**10, times) == (
        ("accept", 10**10 - 10**6),
        ("parse", 10**10 - 10**6),
        ("route", 10**10),
        ("authenticate", 10**10 + 2 * 10**6),
        ("resolve", 10**10 + 5 * 10**6),
    )


def test_texts_are_bounded() -> None:
    record = {"trace_id": "1" * 32, "span_id": "2" * 16, "path": "/" + "x" * 20_000}
    span = exchange_span(record, 1)
    assert span.attributes["url.path"] == ("/" + "x" * 20_000)[:MAX_TEXT]
