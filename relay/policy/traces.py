"""Traces as plain values: where an exchange stands in one, and what its span says.

An exchange continues its caller's trace or begins one. A session's span is the child of
the exchange that brought its caller, and lasts until the session ends: the bot is told of
it. Spans are made from what is logged, so that they hold nothing that a log line may not
(docs/traces.md).

W3C Trace Context sections 3.2 and 3.3 (traceparent, tracestate).
"""

from __future__ import annotations

__all__ = [
    "TRACE_BYTES",
    "Moment",
    "Span",
    "Trace",
    "Tracing",
    "begin_trace",
    "exchange_span",
    "in_trace",
    "opening",
    "session_span",
]

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from relay.policy.phases import PHASE_FIELDS, Phase
from relay.policy.sessions import Session, public_end
from relay.protocol.forwarding import TRACE_BYTES, is_trace

Field = tuple[bytes, bytes]
Value = str | int | float | bool

# A caller chooses some of the texts; a receiver needs no more of them to tell them apart.
MAX_TEXT = 256
MILLISECOND = 1_000_000
SECOND = 1000 * MILLISECOND
# RFC 9110 section 9 and RFC 5789; a span's name is made from no other word of a caller.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
# End states of sessions that an operator should look at.
FAILED = ("agent_error", "agent_start_timeout", "unknown")


class Trace(msgspec.Struct, frozen=True):
    """The place of one span in a trace.

    Attributes:
        trace, span: 32 and 16 hexadecimal digits.
        parent: the caller's span, "" where this one is the first of its trace.
        sampled: whether the span is recorded.
        state: the caller's `tracestate`, to be passed on.
        begun: unix nanoseconds at which it was placed there.
    """

    trace: str
    span: str
    parent: str
    sampled: bool
    state: bytes
    begun: int

    def fields(self) -> dict[str, object]:
        """What the log line of its exchange says of it, with OpenTelemetry's names."""
        fields: dict[str, object] = {"trace_id": self.trace, "span_id": self.span}
        fields["trace_flags"] = f"{self.sampled:02}"
        if self.parent:
            fields["parent_span_id"] = self.parent
        return fields


class Moment(NamedTuple):
    """Something that happened within a span, at unix nanoseconds."""

    name: str
    at: int


class Span(msgspec.Struct, frozen=True):
    """A span that has ended; times are unix nanoseconds.

    Attributes:
        moments: the phases, each at its beginning, in order.
        serves: it answers a request from elsewhere.
        failed: an operator should look at it.
    """

    name: str
    trace: str
    span: str
    parent: str
    begun: int
    ended: int
    moments: tuple[Moment, ...]
    attributes: dict[str, Value]
    serves: bool
    failed: bool


class Tracing(Protocol):
    """Where exchanges get their place in a trace."""

    def begin(self, fields: Iterable[Field]) -> Trace:
        """The place of a new exchange whose request has these fields."""

    def opened(self, session_id: str, trace: Trace, times: Mapping[Phase, float]) -> Trace:
        """An exchange brings a session's caller; where the exchange stands from now on.

        A caller that names no trace is in that of the first exchange which did so, the one
        that reserved the session for instance.

        Args:
            times: seconds of the phases that the exchange has been through.
        """

    def of(self, session_id: str) -> Trace:
        """The place of a session's span, which its bot is told."""

    def hand_over(self) -> None:
        """Leave the places of sessions to the next process, which goes on with them."""


def begin_trace(fields: Iterable[Field], random: bytes, ratio: float, now: int) -> Trace:
    """The caller's trace continued, or a new one.

    A caller's decision to record holds for what follows; of new traces `ratio` are recorded,
    by the last bytes of their ids, so that everybody who goes by them decides alike.

    Args:
        random: `TRACE_BYTES` random bytes.
        now: unix nanoseconds.
    """
    digits = random.hex()
    parents, states = [], []
    for name, value in fields:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    if len(parents) == 1 and is_trace(parents[0]):
        _version, trace, parent, flags = parents[0].decode("ascii").split("-")[:4]
        sampled = bool(int(flags, 16) & 1)
        return Trace(trace, digits[32:], parent, sampled, b",".join(states), now)
    sampled = int.from_bytes(random[8:16]) < ratio * 2**64
    return Trace(digits[:32], digits[32:], "", sampled, b"", now)


def in_trace(fields: Iterable[Field], trace: Trace) -> list[Field]:
    """The fields with which the next hop continues a trace, in place of the request's own.

    Where nothing is recorded here the next hop is told of the caller's span: it can find that one.
    """
    span = trace.span if trace.sampled or not trace.parent else trace.parent
    value = f"00-{trace.trace}-{span}-{trace.sampled:02}"
    kept = [field for field in fields if field[0] not in (b"traceparent", b"tracestate")]
    kept.append((b"traceparent", value.encode()))
    if trace.state:
        kept.append((b"tracestate", trace.state))
    return kept


def exchange_span(record: Mapping[str, object], ended: int) -> Span:
    """The span of an exchange, from what its log line says."""
    took = {
        phase: round(value * MILLISECOND)
        for phase, name in PHASE_FIELDS.items()
        if isinstance(value := record.get(name), float)
    }
    begun = ended - sum(took.values())
    route, status = str(record.get("route", "none")), record.get("status")
    method = str(record.get("method", ""))
    known = {
        "http.request.method": method if method in METHODS else "_OTHER",
        "http.route": route,
        "url.path": record.get("path"),
        "http.response.status_code": status,
        "client.address": record.get("peer"),
        "relay.request_id": record.get("request_id"),
        "relay.session_id": record.get("session_id"),
        "relay.agent": record.get("agent"),
        "relay.cause": record.get("cause"),
        "relay.bytes_in": record.get("bytes_in"),
        "relay.bytes_out": record.get("bytes_out"),
    }
    return Span(
        name=f"{method if method in METHODS else 'HTTP'} {route}",
        trace=str(record["trace_id"]),
        span=str(record["span_id"]),
        parent=str(record.get("parent_span_id", "")),
        begun=begun,
        ended=ended,
        moments=(*_phases(begun, took), Moment(Phase.CLOSE.value, ended)),
        attributes=_attributes(known),
        serves=True,
        failed=isinstance(status, int) and status >= 500,
    )


def opening(begun: int, times: Mapping[Phase, float]) -> tuple[Moment, ...]:
    """The phases of a session that were those of the exchange which brought its caller.

    Args:
        begun: unix nanoseconds at the end of its phase parse.
        times: seconds of the phases that it has been through; it is in the next one now.
    """
    took = {phase: round(seconds * SECOND) for phase, seconds in times.items()}
    before = took.get(Phase.ACCEPT, 0) + took.get(Phase.PARSE, 0)
    moments = _phases(begun - before, took)
    return (*moments, Moment(Phase.RESOLVE.value, moments[-1].at + list(took.values())[-1]))


def _phases(begun: int, took: Mapping[Phase, int]) -> list[Moment]:
    """Each phase at its beginning; a connection was accepted before it was read from."""
    moments, at = [], begun
    if Phase.ACCEPT not in took:
        moments.append(Moment(Phase.ACCEPT.value, at))
    for phase, nanoseconds in took.items():
        moments.append(Moment(phase.value, at))
        at += nanoseconds
    return moments


def session_span(session: Session, trace: Trace, moments: tuple[Moment, ...]) -> Span:
    """The span of a session that has ended.

    Args:
        moments: its first phases, see `opening`; none when nobody here knows them.
    """
    first = session.created if session.started is None else session.started
    begun = moments[0].at if moments else round(first * SECOND)
    last = moments[-1].at if moments else begun
    if session.started is not None:
        # The clock may have been set meanwhile; the order of phases stays.
        last = max(last, round(session.started * SECOND))
        moments = (*moments, Moment(Phase.RELAY.value, last))
    ended = max(last, round(session.ended * SECOND) if session.ended is not None else 0)
    end_state, status = public_end(session.cause, session.transport)
    known = {
        "relay.session_id": session.id,
        "relay.agent": session.agent,
        "relay.organization": session.organization,
        "relay.transport": session.transport,
        "relay.instance": session.instance,
        "relay.cause": session.cause,
        "relay.end_state": end_state,
        "relay.completion_status": status,
        "relay.close_code": session.close_code,
        "relay.cold": session.cold,
        "relay.queued_seconds": session.queued,
        "relay.attach_seconds": session.took,
    }
    return Span(
        name=f"session {session.agent}",
        trace=trace.trace,
        span=trace.span,
        parent=trace.parent,
        begun=begun,
        ended=ended,
        moments=(*moments, Moment(Phase.CLOSE.value, ended)),
        attributes=_attributes(known),
        serves=False,
        failed=end_state in FAILED,
    )


def _attributes(known: Mapping[str, object]) -> dict[str, Value]:
    """Those that have a value."""
    return {
        name: value[:MAX_TEXT] if isinstance(value, str) else value
        for name, value in known.items()
        if isinstance(value, str | int | float | bool)
    }
