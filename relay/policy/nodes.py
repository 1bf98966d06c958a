"""Nodes on one store: what one sees of another, and what a dead one leaves."""

from __future__ import annotations

__all__ = ["Estate", "Lease", "Neighbour"]

import msgspec

from relay.policy.sessions import Session


class Neighbour(msgspec.Struct, frozen=True):
    """Another node on the store.

    Attributes:
        place: its runtime directory.
        life: differs from start to start.
        beat: grows for as long as its control process works.
    """

    name: str
    place: str
    life: str
    beat: int


class Lease(msgspec.Struct, frozen=True):
    """A session's hold on an instance.

    Attributes:
        transport, cause: of the session; None for one that is forgotten, or is not over.
    """

    session: str
    instance: str
    agent: str
    transport: str | None = None
    cause: str | None = None


class Estate(msgspec.Struct, frozen=True):
    """What a control process has left that died.

    Attributes:
        ended: sessions that have ended with it.
        leases: of instances that have to settle before they are free.
    """

    ended: tuple[Session, ...] = ()
    leases: tuple[Lease, ...] = ()
