"""The seams of the control process: what the server asks of the store and of instances.

`daemon` wires implementations of these; none of them knows another.
"""

from __future__ import annotations

__all__ = [
    "Admission",
    "Figures",
    "InstancePool",
    "Log",
    "Places",
    "Reservation",
    "SessionFilter",
    "Store",
    "Wait",
]

from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Protocol

import msgspec

from relay.policy.catalog import Agent
from relay.policy.health import Failure
from relay.policy.names import Rank
from relay.policy.nodes import Estate, Neighbour
from relay.policy.sessions import Beginning, Session, SessionEnd, SessionState, Standing
from relay.policy.status import EndStatus, NodeStatus, RefusalStatus


class Admission(Enum):
    """What the store says to a caller who presents a verified token."""

    ADMITTED = "admitted"
    REPLAYED = "replayed"  # the token is claimed or spent
    OVER = "over"  # the session has ended or is held already


class Reservation(Enum):
    """What the store says to a start request."""

    HELD = "held"
    FULL = "full"
    CAPPED = "capped"  # there is a place, but no further session is allowed
    NONE_READY = "none ready"
    NO_ROOM = "no room"  # for the body


class Wait(Enum):
    """Why a caller gets no instance now."""

    FULL = "full"
    BEHIND = "behind"  # there is a place, and another node's caller was there before


class Places(msgspec.Struct, frozen=True):
    """Where an agent's sessions may go, as one node sees it.

    Attributes:
        ready: base URLs of the instances that are ready, in the order in which to try them.
        startable: how many further instances will be there if somebody waits for them.
        ranks: of those whose name's answer has them; of the others the default.
    """

    ready: tuple[str, ...] = ()
    startable: int = 0
    ranks: Mapping[str, Rank] = {}

    def any(self) -> bool:
        """Whether there is an instance, or will be one if somebody waits."""
        return bool(self.ready or self.startable)


class SessionFilter(msgspec.Struct, frozen=True):
    """Which sessions to list, newest first; what is empty or None does not matter.

    Attributes:
        causes: of the end; sessions that have not ended have none.
        since, before: when it was created, unix seconds, the first included.
        cold: whether its bot was started for it; sessions without a bot are neither.
        longer, shorter: seconds that its bot's start took, neither bound included.
    """

    states: tuple[SessionState, ...] = ()
    agent: str | None = None
    limit: int = 100
    offset: int = 0
    organization: str | None = None
    causes: tuple[str, ...] = ()
    since: float | None = None
    before: float | None = None
    cold: bool | None = None
    longer: float | None = None
    shorter: float | None = None


class Store(Protocol):
    """Where sessions, used tokens and leases live. Every call is one atomic step.

    All raise `relay.errors.StoreError` when the store can't be used. Times are unix seconds.
    """

    async def reserve(
        self,
        session: Session,
        agent: Agent,
        places: Places,
        now: float,
        together: int = 0,
        body: bytes = b"",
    ) -> Reservation:
        """Add a reserved session if there is a place that is neither taken nor promised.

        FULL rather than NONE_READY when no instance is ready or startable, but one holds a
        session.

        Args:
            together: sessions that the agent's organization may have at a time, 0 for any.
            body: kept until the session ends, if it is not empty.
        """

    async def open_body(self, session_id: str, key: str) -> bool:
        """Let who has this key, and nobody else any more, read a session's body, if it has one."""

    async def body(self, session_id: str, key: str) -> bytes | None:
        """A session's body; None for a wrong key, and for a session that has none."""

    async def admit(
        self, session: Session, nonce: str | None, claimed_until: float, now: float
    ) -> Admission:
        """Claim the token and move its session to waiting; an unknown session is added.

        A claim that was not given back lapses at `claimed_until`, and a session that waits
        under a lapsed claim counts as reserved. Only ADMITTED leaves a trace.
        """

    async def lease(
        self,
        session_id: str,
        agent: Agent,
        places: Places,
        now: float,
        together: int = 0,
        *,
        defer: bool = True,
    ) -> str | Wait:
        """Give a ready instance with room to a waiting session of this node.

        Of instances that several nodes may use the one whose last lease is the longest ago,
        else the first. Places held by other sessions' reservations are not given away, and
        an instance that the session still holds is not given twice.

        Args:
            together: as for `reserve`.
            defer: leave the place to a caller of another node who was there before.
        """

    async def activate(
        self, session_id: str, nonce: str | None, now: float, beginning: Beginning
    ) -> bool:
        """Move waiting to active and spend the token; False if it was stopped meanwhile.

        Only on the node that admitted it, like `give_back`.
        """

    async def give_back(
        self, session_id: str, nonce: str, now: float, cause: str | None = None
    ) -> None:
        """Move waiting to reserved and release the token's claim.

        Args:
            cause: why; what the session ends with if nobody comes any more.
        """

    async def pass_on(self, session_id: str, nonce: str) -> None:
        """The same for a caller who is let in again in a moment: turn and promise are kept."""

    async def end(self, session_id: str, end: SessionEnd, now: float) -> Session | None:
        """End a live session; None when there is none to end."""

    async def free(self, session_id: str, instance: str) -> None:
        """Drop the session's lease of this instance, which has room again."""

    async def request_stop(self, session_id: str) -> Session | None:
        """Mark a live session to be stopped by the node that holds it; None if not live."""

    async def stop_requests(self) -> list[Session]:
        """Live sessions of this node that somebody asked to stop."""

    async def get(self, session_id: str) -> Session | None:
        """One session, whatever its state."""

    async def look(self, session_id: str) -> Standing | None:
        """How one session stands, in half the time that all of it takes."""

    async def find(self, which: SessionFilter) -> tuple[list[Session], int]:
        """One page of sessions, and how many match in all."""

    async def count_live(self) -> dict[tuple[str, SessionState], int]:
        """How many sessions are in each live state, by agent, on all nodes."""

    async def leases(self) -> list[tuple[str, str]]:
        """This node's leases: session id and instance."""

    async def sweep(self, now: float) -> list[Session]:
        """End reserved sessions whose time is over and forget what is old; returns the ended."""

    # Nodes on one store (docs/operations.md, "Several nodes").

    async def join(self, place: str, is_held: Callable[[str], bool]) -> None:
        """Say that this node lives at `place`, its runtime directory, which it holds.

        What nodes of other names have left at this place becomes this node's.

        Args:
            is_held: whether a process lives at another place; asked within the step.

        Raises:
            ConfigError: this node's name is used by one that lives at another place.
        """

    async def beat(self) -> list[Neighbour] | None:
        """Say that this node lives; the others, or None when it has to join again."""

    async def recover(self, live: Collection[str], now: float) -> Estate:
        """Clear up after this node's earlier life.

        Its sessions but those in `live` end as `lost`; those that wait with a token go back
        to reserved, and their claims are released. Leases of other sessions stay until they
        are freed.
        """

    async def take_over(
        self,
        dead: Neighbour,
        now: float,
        *,
        pumps: bool,
        ends: Mapping[str, SessionEnd],
        foreign: Collection[str],
    ) -> Estate | None:
        """The same for another node that has died; its leases become this node's.

        None, and nothing happens, when it has been heard of since `dead` was seen.

        Args:
            pumps: pumps of it live: what they may carry is left to them, and the node stays.
            ends: how sessions are known to have ended.
            foreign: agents whose instances only that node can use. Their leases stay with
                it, until it comes back or the session is forgotten.
        """


class InstancePool(Protocol):
    """Where bots come from. Instances are named by their base URL."""

    async def wait_known(self, agent: Agent) -> None:
        """Return once every instance of the agent has been looked at, bounded."""

    def places(self, agent: Agent) -> Places:
        """What is ready now and what could be."""

    def want(self, agent: Agent, waiting: int) -> None:
        """So many callers wait for a place now."""

    async def wait_change(self, agent: Agent) -> None:
        """Return when an instance may have become free or ready."""

    def taken(self, instance: str, session_id: str) -> None:
        """A session has been placed there: it is the most recently used."""

    def failed(self, instance: str, failure: Failure) -> None:
        """An instance did not take a call that was placed there."""

    def served(self, instance: str) -> None:
        """An instance took a call that was placed there."""

    async def wait_settled(
        self, agent: Agent, instance: str, session_id: str, *, deaf: bool
    ) -> None:
        """Return when an instance may be given out again whose session has ended.

        Args:
            deaf: its bot may not have heard of the end and be at work still.
        """

    async def has_failed(self, instance: str) -> bool:
        """Whether an instance that has just closed a connection has died of a failure.

        Answers in a moment, since a tunnel waits for it.
        """

    def freed(self, instance: str, session_id: str) -> None:
        """The session's lease on it was dropped: wake those who wait for a change."""

    def hold_back(self, instances: frozenset[str]) -> None:
        """These, and no others, are given to nobody from now on."""

    def gone(self, instance: str) -> bool:
        """Whether it is none of this node's instances, for certain."""

    def reconciled(self) -> None:
        """Every session that an earlier control process placed has been named to `taken`."""

    def statistics(self) -> dict[str, dict[str, str]]:
        """Per agent and instance: "ready" or why not. Names of instances stand there too."""

    def details(self) -> dict[str, dict[str, dict[str, object]]]:
        """The same with all that is known, as JSON objects."""

    def started_at(self, instance: str) -> float | None:
        """When this daemon started it, in seconds of trio's clock; None if it did not."""


class Log(Protocol):
    """Where the daemon says what happens. Fields never hold a token, a key or a body."""

    def event(self, name: str, **fields: object) -> None:
        """Something that an operator may want to know."""

    def warning(self, name: str, **fields: object) -> None:
        """Something that an operator should look at."""

    def failure(self, name: str, error: BaseException, **fields: object) -> None:
        """A failure of ours; the log gets the traceback unless the cause is known."""

    def exchange(self, fields: dict[str, object]) -> None:
        """One exchange, answered or taken over."""

    def session_end(self, session: Session) -> None:
        """One session that has ended."""


class Figures(Protocol):
    """What has been counted of what was logged."""

    def recent_ends(self) -> tuple[EndStatus, ...]:
        """The last sessions that ended, newest first."""

    def refusals(self) -> tuple[RefusalStatus, ...]:
        """Refusals by phase and cause, the latest first."""

    def render(self, status: NodeStatus) -> bytes:
        """All figures in Prometheus's text format."""
