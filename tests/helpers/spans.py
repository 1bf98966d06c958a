"""Spans as an OTLP receiver gets them: what was posted, decoded by OpenTelemetry's own messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.helpers.daemon import wait_until
from tests.helpers.receiver import Receiver

SEVEN = ["accept", "parse", "route", "authenticate", "resolve", "relay", "close"]


@dataclass(frozen=True)
class Seen:
    """A span as it was received."""

    name: str
    trace: str
    span: str
    parent: str
    begun: int
    ended: int
    phases: list[str]
    at: list[int]
    attributes: dict[str, Any]
    failed: bool
    service: str


def seen(receiver: Receiver) -> list[Seen]:
    """Every span so far."""
    found = []
    for told in list(receiver.told):
        request = ExportTraceServiceRequest.FromString(told.body)
        for resource in request.resource_spans:
            own = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                found += [_seen(span, own["service.name"]) for span in scope.spans]
    return found


def span_of(receiver: Receiver, name: str, count: int = 1) -> Seen:
    """The latest span of this name, once there are so many."""

    def latest() -> Seen | None:
        found = [each for each in seen(receiver) if each.name == name]
        assert len(found) <= count, found
        return found[-1] if len(found) == count else None

    span = wait_until(latest, f"span {name!r}")
    assert isinstance(span, Seen)
    return span


def _seen(span: Span, service: str) -> Seen:
    return Seen(
        name=span.name,
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        begun=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        phases=[event.name for event in span.events],
        at=[event.time_unix_nano for event in span.events],
        attributes={
            each.key: getattr(each.value, str(each.value.WhichOneof("value")))
            for each in span.attributes
        },
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
        service=service,
    )
