"""What a node shows of itself at a moment: plain values for administration and metrics.

`server.status` fills them; the administration answers with them as JSON (names in
camelCase, docs/operations.md, "Status"), `ops.metrics` reads its gauges from them. Times
are unix seconds, durations seconds.
"""

from __future__ import annotations

__all__ = [
    "AgentStatus",
    "CallStatus",
    "DirectionStatus",
    "EndStatus",
    "InstanceStatus",
    "NodeStatus",
    "PumpStatus",
    "QueueEntry",
    "RefusalStatus",
]

import msgspec


class Shown(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A value that is shown as a JSON object."""


class InstanceStatus(Shown, frozen=True, kw_only=True):
    """One instance.

    Attributes:
        state: "ready" or why it is not.
        sessions: that hold it now.
        draining: it is given to no new session.
    """

    url: str
    agent: str
    state: str
    sessions: int = 0
    draining: bool = False


class AgentStatus(Shown, frozen=True, kw_only=True):
    """One agent.

    Attributes:
        draining: it takes no new sessions here, whatever the node does.
        reserved, waiting, active: its live sessions on all nodes of the store.
        queue: callers that wait here for an instance.
        held: requests of the Session API that wait here for their session.
        ready: instances that are ready. startable: that would be if somebody waited.
    """

    name: str
    organization: str
    draining: bool = False
    reserved: int = 0
    waiting: int = 0
    active: int = 0
    queue: int = 0
    held: int = 0
    ready: int = 0
    startable: int = 0


class DirectionStatus(Shown, frozen=True, kw_only=True):
    """One direction of a call; as `pump.channel.Figures`.

    Attributes:
        quiet: since the last message, or since the start.
    """

    bytes: int = 0
    messages: int = 0
    largest_gap: float = 0.0
    held_time: float = 0.0
    longest_hold: float = 0.0
    gaps: tuple[int, ...] = ()
    quiet: float = 0.0


class CallStatus(Shown, frozen=True, kw_only=True):
    """One live call of this node."""

    session_id: str
    agent: str = ""
    instance: str = ""
    seconds: float = 0.0
    client: DirectionStatus = DirectionStatus()
    bot: DirectionStatus = DirectionStatus()


class QueueEntry(Shown, frozen=True, kw_only=True):
    """One caller that waits for an instance."""

    session_id: str
    agent: str
    since: float


class EndStatus(Shown, frozen=True, kw_only=True):
    """One session that has ended lately."""

    session_id: str
    agent: str
    ended_at: float
    cause: str
    end_state: str
    seconds: float | None = None


class RefusalStatus(Shown, frozen=True, kw_only=True):
    """How often requests were refused in one phase for one cause, since the start."""

    phase: str
    cause: str
    status: int
    count: int
    last_at: float


class PumpStatus(Shown, frozen=True, kw_only=True):
    """One pump; counts are since its start.

    Attributes:
        state: "ready", or why it takes no calls.
        longest_turn: the longest that a message can have waited for others in it.
        turn_classes: turns by their length, see `pump.channel.Totals`.
    """

    index: int
    state: str
    tunnels: int = 0
    closing: int = 0
    adopted: int = 0
    turns: int = 0
    busy: float = 0.0
    longest_turn: float = 0.0
    turn_classes: tuple[int, ...] = ()
    client: DirectionStatus = DirectionStatus()
    bot: DirectionStatus = DirectionStatus()


class NodeStatus(Shown, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        reasons: why it takes no new sessions, if it does not.
        calls: live calls; at most as many as were asked for. calls_total: all of them.
    """

    name: str
    version: str
    public_url: str
    started_at: float
    now: float
    draining: bool
    reasons: tuple[str, ...] = ()
    calls_total: int = 0
    agents: tuple[AgentStatus, ...] = ()
    instances: tuple[InstanceStatus, ...] = ()
    pumps: tuple[PumpStatus, ...] = ()
    queue: tuple[QueueEntry, ...] = ()
    calls: tuple[CallStatus, ...] = ()
    ends: tuple[EndStatus, ...] = ()
    refusals: tuple[RefusalStatus, ...] = ()
