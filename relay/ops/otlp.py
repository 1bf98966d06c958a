"""Spans on their way to a receiver: the one module that knows OpenTelemetry's SDK.

A thread of its own encodes and sends, so that a receiver that is slow or dead costs the
event loop nothing: `put` appends to a bounded queue, and what does not fit is counted.
"""

from __future__ import annotations

__all__ = ["Exporter"]

import logging
import threading
from collections import deque
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from relay.policy.traces import Span

# Some 2 KB each: a receiver that restarts is waited for, and 8 MB are not exceeded.
MAX_QUEUE = 4096
# Encoded at a time, in some 3 ms: for so long the event loop may wait for the interpreter.
MAX_BATCH = 32
# Seconds between two looks at the queue, so that spans go out together.
INTERVAL = 0.2
# Seconds for one batch, repetitions included; then it counts as failed.
TIMEOUT = 5.0
# Seconds for what is left at the daemon's end.
LAST_SECONDS = 1.0
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Exporter:
    """`relay.ops.traces.Receiver` over OTLP/HTTP with protobuf.

    Args:
        endpoint: the URL that takes spans, path included.
        service_name, node: say whose spans these are.
    """

    def __init__(self, endpoint: str, service_name: str, node: str, version: str) -> None:
        # It would write lines of its own among ours; what it has to say is counted.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        own = {"service.name": service_name, "service.version": version}
        self._resource = Resource.create(own | {"service.instance.id": node})
        self._scope = InstrumentationScope("relay", version)
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=TIMEOUT)
        self._queue: deque[Span] = deque()
        # All of them from the start: a thread adds to some while another one reads.
        self._counts = {"sent": 0, "failed": 0, "dropped": 0}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def put(self, span: Span) -> None:
        if len(self._queue) < MAX_QUEUE:
            self._queue.append(span)
        else:
            self._counts["dropped"] += 1

    def counts(self) -> Mapping[str, int]:
        return self._counts

    def end(self) -> None:
        self._ending.set()
        self._thread.join(LAST_SECONDS)
        # Ends a wait before a repetition.
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _run(self) -> None:
        while not self._ending.wait(INTERVAL):
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._queue:
            count = min(len(self._queue), MAX_BATCH)
            batch = [self._readable(self._queue.popleft()) for _ in range(count)]
            sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
            self._counts["sent" if sent else "failed"] += count

    def _readable(self, span: Span) -> ReadableSpan:
        """A span as the SDK has it when it ended."""
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace, span.span, remote=False),
            parent=_context(span.trace, span.parent, remote=span.serves) if span.parent else None,
            resource=self._resource,
            attributes=span.attributes,
            events=[Event(moment.name, timestamp=moment.at) for moment in span.moments],
            kind=SpanKind.SERVER if span.serves else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
            start_time=span.begun,
            end_time=span.ended,
            instrumentation_scope=self._scope,
        )


def _context(trace: str, span: str, *, remote: bool) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), remote, SAMPLED)
