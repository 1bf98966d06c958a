"""Spans of exchanges and sessions: begun where requests are read, made from what is logged."""

from __future__ import annotations

__all__ = ["MAX_SESSIONS", "Receiver", "Traces", "recording"]

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from relay.errors import ConfigError
from relay.policy.catalog import TraceReceiver
from relay.policy.phases import Phase
from relay.policy.sessions import Session
from relay.policy.traces import (
    TRACE_BYTES,
    Moment,
    Span,
    Trace,
    begin_trace,
    exchange_span,
    opening,
    session_span,
)

# Sessions whose place in a trace is remembered until they end: more than one machine
# carries. Those that another node ends are forgotten when newer ones need the room.
MAX_SESSIONS = 20_000
SPAN_BYTES = 8


class Receiver(Protocol):
    """Who takes spans; none of it waits."""

    def put(self, span: Span) -> None:
        """Take a span, or count it as dropped."""

    def counts(self) -> Mapping[str, int]:
        """How many spans met which outcome."""

    def end(self) -> None:
        """Send what is left, within a bounded time; nothing is put afterwards."""


class Opened(NamedTuple):
    """A session whose caller has come, or has asked for it.

    Attributes:
        own: the place of its span.
        first: that of the first exchange which opened it.
        moments: its first phases.
    """

    own: Trace
    first: Trace
    moments: tuple[Moment, ...]


class Traces:
    """`relay.policy.traces.Tracing`, and the spans of what has been recorded.

    Args:
        ratio: of the traces that begin here, how many are recorded, 0 to 1.
        file: where a process leaves what the next one goes on with.
    """

    def __init__(self, receiver: Receiver, ratio: float, file: Path) -> None:
        self._file = file
        self._receiver = receiver
        self._ratio = ratio
        self._sessions: dict[str, Opened] = {}

    def begin(self, fields: Iterable[tuple[bytes, bytes]]) -> Trace:
        return begin_trace(fields, os.urandom(TRACE_BYTES), self._ratio, time.time_ns())

    def opened(self, session_id: str, trace: Trace, times: Mapping[Phase, float]) -> Trace:
        before = self._sessions.pop(session_id, None)
        first = trace if before is None else before.first
        if before is not None and not trace.parent:
            trace = msgspec.structs.replace(
                trace, trace=first.trace, parent=first.span, sampled=first.sampled
            )
        own = trace
        if trace.sampled:
            span = os.urandom(SPAN_BYTES).hex()
            own = msgspec.structs.replace(trace, parent=trace.span, span=span)
        self._remember(session_id, Opened(own, first, opening(trace.begun, times)))
        return trace

    def of(self, session_id: str) -> Trace:
        known = self._sessions.get(session_id)
        if known is None:
            known = self._unknown()
            self._remember(session_id, known)
        return known.own

    def _unknown(self) -> Opened:
        """A session of a process that has died, or of another node: in a trace of its own."""
        own = self.begin(())
        return Opened(own, own, ())

    def _remember(self, session_id: str, opened: Opened) -> None:
        if len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session_id] = opened

    def hand_over(self) -> None:
        with suppress(OSError):  # without it they are in traces of their own
            self._file.write_bytes(msgspec.json.encode(self._sessions))

    def inherit(self) -> None:
        """Go on with what the process before this one has left, if it has."""
        with suppress(OSError, msgspec.DecodeError):
            data = self._file.read_bytes()
            self._file.unlink()
            self._sessions |= msgspec.json.decode(data, type=dict[str, Opened])

    # What is logged.

    def exchange(self, record: Mapping[str, object]) -> None:
        """One exchange, as it is logged."""
        if record.get("trace_flags") == "01":
            self._receiver.put(exchange_span(record, time.time_ns()))

    def session_end(self, session: Session) -> None:
        """One session that has ended."""
        known = self._sessions.pop(session.id, None) or self._unknown()
        if known.own.sampled:
            self._receiver.put(session_span(session, known.own, known.moments))

    def counts(self) -> Mapping[str, int]:
        """How many spans met which outcome."""
        return self._receiver.counts()


@contextmanager
def recording(
    wanted: TraceReceiver | None, node: str, version: str, file: Path
) -> Iterator[Traces | None]:
    """What makes spans and has them sent over OTLP/HTTP; None when nobody wants them.

    Args:
        node: this node's name, which tells it from others of the same service.
        file: see `Traces`.

    Raises:
        ConfigError: what sends them is not installed.
    """
    if wanted is None:
        yield None
        return
    try:
        # Not at the top: it is an extra, and takes longer than the rest of the daemon.
        from relay.ops.otlp import Exporter
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"traces.endpoint: there is no module {error.name}, expected the extra"
            " `otel` to be installed: pip install 'relay[otel]'"
        ) from None
    receiver = Exporter(wanted.endpoint, wanted.service_name, node, version)
    try:
        yield Traces(receiver, wanted.ratio, file)
    finally:
        receiver.end()
