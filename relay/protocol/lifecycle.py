"""How a tunnel ends: the states of its two transfers, as tables (docs/protocol.md, "Closing").

Laws
1. Every event is legal in every state, and no event re-opens what was closed.
2. The first event that is no plain traffic fixes the cause of the end; later ones
   only move the transfers on.
3. In each direction at most one Close is written and nothing follows it. Inside a
   frame no Close can be written: the side that waits for the rest is aborted.
4. After a close timeout a tunnel is finished, whatever its state.
5. Nothing is awaited of a side that broke the protocol, not even its Close, but its end
   (RFC 6455 section 7.1.7).

Theory of operation
   A transfer carries what one side sends to the other. `OWN` says what an event of
   a side does to the transfer that reads from this side, `OTHER` what it does to
   the transfer that writes to it. `ENDINGS` gives the cause and the codes by the
   first event. `step` is their interpreter; the pump carries out what a state asks
   for (`CUTTING`: write a Close at the next boundary; `torn`: abort the sink).
"""

from __future__ import annotations

__all__ = [
    "ENDINGS",
    "Ending",
    "Event",
    "Flow",
    "Kind",
    "Side",
    "TransferState",
    "TunnelState",
    "finished",
    "may_shut",
    "step",
]

from dataclasses import dataclass, replace
from enum import Enum


class Side(Enum):
    """Which end of a tunnel: the client's (downstream) or the bot's (upstream)."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"

    @property
    def peer(self) -> Side:
        return Side.UPSTREAM if self is Side.DOWNSTREAM else Side.DOWNSTREAM


class Flow(Enum):
    """What a transfer still does for its sink."""

    OPEN = "open"  # frames pass
    CUTTING = "cutting"  # a Close is to be written at the next frame boundary
    CLOSED = "closed"  # a Close has passed or was written; the rest is dropped
    BROKEN = "broken"  # nothing can be written any more


class Kind(Enum):
    """What can happen to a side or to the whole tunnel."""

    CLOSE = "close"  # a Close frame came from the side
    EOF = "eof"  # the side sent FIN, at a frame boundary
    LOST = "lost"  # reset, a failed write, or FIN inside a frame
    VIOLATION = "violation"  # an illegal header from the side
    TOO_BIG = "too big"  # a message over the limit from the side
    NOT_TEXT = "not text"  # text from the side that is not UTF-8, where it is looked at
    CUT = "cut"  # the awaited Close was written into the side's transfer
    TORN = "torn"  # the side's transfer ended inside a frame


class Event(Enum):
    """Everything that moves a tunnel: (side, kind), or an order for the whole of it."""

    DOWNSTREAM_CLOSE = (Side.DOWNSTREAM, Kind.CLOSE)
    DOWNSTREAM_EOF = (Side.DOWNSTREAM, Kind.EOF)
    DOWNSTREAM_LOST = (Side.DOWNSTREAM, Kind.LOST)
    DOWNSTREAM_VIOLATION = (Side.DOWNSTREAM, Kind.VIOLATION)
    DOWNSTREAM_TOO_BIG = (Side.DOWNSTREAM, Kind.TOO_BIG)
    DOWNSTREAM_NOT_TEXT = (Side.DOWNSTREAM, Kind.NOT_TEXT)
    DOWNSTREAM_CUT = (Side.DOWNSTREAM, Kind.CUT)
    DOWNSTREAM_TORN = (Side.DOWNSTREAM, Kind.TORN)
    UPSTREAM_CLOSE = (Side.UPSTREAM, Kind.CLOSE)
    UPSTREAM_EOF = (Side.UPSTREAM, Kind.EOF)
    UPSTREAM_LOST = (Side.UPSTREAM, Kind.LOST)
    UPSTREAM_VIOLATION = (Side.UPSTREAM, Kind.VIOLATION)
    UPSTREAM_TOO_BIG = (Side.UPSTREAM, Kind.TOO_BIG)
    UPSTREAM_NOT_TEXT = (Side.UPSTREAM, Kind.NOT_TEXT)
    UPSTREAM_CUT = (Side.UPSTREAM, Kind.CUT)
    UPSTREAM_TORN = (Side.UPSTREAM, Kind.TORN)
    STOP = (None, "stop")
    TIME_LIMIT = (None, "time limit")
    IDLE = (None, "idle")
    DRAIN = (None, "drain")
    SESSION_ENDED = (None, "session ended")  # for a side tunnel: its session is over
    CLOSE_TIMEOUT = (None, "close timeout")


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a tunnel ended and the Close that each side gets, None for "none can be sent".

    For a Close frame from a side the code is the frame's own.
    """

    cause: str
    to_downstream: int | None
    to_upstream: int | None
    reason: str = ""

    def code_from(self, source: Side) -> int | None:
        """The code to write into the transfer that reads from `source`."""
        return self.to_upstream if source is Side.DOWNSTREAM else self.to_downstream


ENDINGS: dict[Event, Ending] = {
    Event.DOWNSTREAM_CLOSE: Ending("client_closed", None, None),
    Event.UPSTREAM_CLOSE: Ending("bot_closed", None, None),
    Event.DOWNSTREAM_EOF: Ending("client_gone", None, 1001, "client gone"),
    Event.DOWNSTREAM_LOST: Ending("client_gone", None, 1001, "client gone"),
    Event.UPSTREAM_EOF: Ending("bot_ended", 1000, None),
    Event.UPSTREAM_LOST: Ending("bot_lost", 1011, None, "bot lost"),
    Event.DOWNSTREAM_VIOLATION: Ending("client_protocol_error", 1002, 1002, "protocol error"),
    Event.UPSTREAM_VIOLATION: Ending("bot_protocol_error", 1002, 1002, "protocol error"),
    Event.DOWNSTREAM_TOO_BIG: Ending("client_message_too_big", 1009, 1009, "message too big"),
    Event.UPSTREAM_TOO_BIG: Ending("bot_message_too_big", 1009, 1009, "message too big"),
    Event.DOWNSTREAM_NOT_TEXT: Ending("client_protocol_error", 1007, 1007, "not UTF-8"),
    Event.UPSTREAM_NOT_TEXT: Ending("bot_protocol_error", 1007, 1007, "not UTF-8"),
    Event.STOP: Ending("stopped", 1001, 1001, "stopped"),
    Event.TIME_LIMIT: Ending("time_limit", 1001, 1001, "time limit"),
    Event.IDLE: Ending("idle", 1001, 1001, "idle"),
    Event.DRAIN: Ending("drain", 1012, 1012, "service restart"),
    Event.SESSION_ENDED: Ending("session_ended", 1001, 1001, "session ended"),
}

OPEN, CUTTING, CLOSED, BROKEN = Flow.OPEN, Flow.CUTTING, Flow.CLOSED, Flow.BROKEN
FLOWS = (OPEN, CUTTING, CLOSED, BROKEN)

# Rows: the event's kind; columns: the flow before, in the order of FLOWS.
OWN: dict[Kind, tuple[Flow, Flow, Flow, Flow]] = {
    Kind.CLOSE: (CLOSED, CLOSED, CLOSED, BROKEN),
    Kind.EOF: (CUTTING, CUTTING, CLOSED, BROKEN),
    Kind.LOST: (CUTTING, CUTTING, CLOSED, BROKEN),
    Kind.VIOLATION: (CUTTING, CUTTING, CLOSED, BROKEN),
    Kind.TOO_BIG: (CUTTING, CUTTING, CLOSED, BROKEN),
    Kind.NOT_TEXT: (CUTTING, CUTTING, CLOSED, BROKEN),
    Kind.CUT: (OPEN, CLOSED, CLOSED, BROKEN),
    Kind.TORN: (BROKEN, BROKEN, CLOSED, BROKEN),
}
OTHER: dict[Kind, tuple[Flow, Flow, Flow, Flow]] = {
    Kind.CLOSE: (OPEN, CUTTING, CLOSED, BROKEN),
    Kind.EOF: (BROKEN, BROKEN, CLOSED, BROKEN),  # unless a Close came before: see `step`
    Kind.LOST: (BROKEN, BROKEN, BROKEN, BROKEN),
    Kind.VIOLATION: (CUTTING, CUTTING, CLOSED, BROKEN),
    Kind.TOO_BIG: (CUTTING, CUTTING, CLOSED, BROKEN),
    Kind.NOT_TEXT: (CUTTING, CUTTING, CLOSED, BROKEN),
    Kind.CUT: (OPEN, CUTTING, CLOSED, BROKEN),
    Kind.TORN: (BROKEN, BROKEN, BROKEN, BROKEN),
}
FAILURES = (Kind.VIOLATION, Kind.TOO_BIG, Kind.NOT_TEXT)
ORDERED = (CUTTING, CUTTING, CLOSED, BROKEN)  # both transfers, for an order


@dataclass(frozen=True, slots=True)
class TransferState:
    """One direction: its flow, and what is known of its source and sink.

    Attributes:
        eof: nothing more will come from the source.
        answered: a Close frame came from the source.
        failed: something illegal came from the source, so that nothing more of it is looked at.
        torn: the sink was left inside a frame and has to be aborted.
    """

    flow: Flow = Flow.OPEN
    eof: bool = False
    answered: bool = False
    failed: bool = False
    torn: bool = False

    def to(self, row: tuple[Flow, Flow, Flow, Flow]) -> TransferState:
        return replace(self, flow=row[FLOWS.index(self.flow)])


@dataclass(frozen=True, slots=True)
class TunnelState:
    """Both transfers, each named by the side that it reads from, and why the tunnel ends."""

    downstream: TransferState = TransferState()
    upstream: TransferState = TransferState()
    ending: Ending | None = None

    def reading(self, side: Side) -> TransferState:
        """The transfer that reads from `side`."""
        return self.downstream if side is Side.DOWNSTREAM else self.upstream


def step(state: TunnelState, event: Event) -> TunnelState:
    """The state after `event`."""
    ending = state.ending or ENDINGS.get(event)
    if event is Event.CLOSE_TIMEOUT:
        downstream = replace(state.downstream, flow=Flow.BROKEN, eof=True)
        upstream = replace(state.upstream, flow=Flow.BROKEN, eof=True)
        return TunnelState(downstream, upstream, ending)
    side, kind = event.value
    if not isinstance(side, Side) or not isinstance(kind, Kind):
        return TunnelState(state.downstream.to(ORDERED), state.upstream.to(ORDERED), ending)
    own, other = _moved(state.reading(side), state.reading(side.peer), kind)
    if side is Side.DOWNSTREAM:
        return TunnelState(own, other, ending)
    return TunnelState(other, own, ending)


def _moved(
    own: TransferState, other: TransferState, kind: Kind
) -> tuple[TransferState, TransferState]:
    if kind is Kind.EOF and own.answered:
        return replace(own, eof=True), other  # it may still read the Close that answers its own
    if kind is Kind.TORN and own.flow is Flow.CLOSED:
        return own, other  # the Close went out whole: no sink has to be aborted
    own, other = own.to(OWN[kind]), other.to(OTHER[kind])
    if kind is Kind.CLOSE:
        own = replace(own, answered=True)
    elif kind in (Kind.EOF, Kind.LOST):
        own = replace(own, eof=True)
    elif kind in FAILURES:
        own = replace(own, failed=True)
    elif kind is Kind.TORN:
        own = replace(own, torn=True)
        other = replace(other, eof=True)  # the sink is aborted: nothing more comes from it
    return own, other


def may_shut(state: TunnelState, side: Side) -> bool:
    """Both Close frames have passed at `side`: its write side may be shut once flushed.

    Ours is enough where the side has failed: its own would not be looked at.
    """
    source = state.reading(side)
    return state.reading(side.peer).flow is CLOSED and (source.answered or source.failed)


def finished(state: TunnelState) -> bool:
    """Nothing is left to wait for, once what is held for the sinks has been written.

    The bot's side must be at its end, since the instance is free only then; a client
    that has answered a Close need not be waited for.
    """
    client, bot = state.downstream, state.upstream
    if client.flow in (OPEN, CUTTING) or bot.flow in (OPEN, CUTTING):
        return False
    return bot.eof and (client.eof or client.answered or bot.flow is Flow.BROKEN)
