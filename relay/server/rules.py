"""The configuration as the running daemon follows it."""

from __future__ import annotations

__all__ = ["Rules"]

from collections.abc import Callable
from dataclasses import dataclass

from relay.policy.catalog import Catalog, Limits
from relay.protocol.http1 import HeadLimits
from relay.server.peers import Networks, is_among
from relay.tls import ServerTls


@dataclass(slots=True)
class Rules:
    """What is configured at this moment.

    Law: a reload replaces the values (`relay.reloading`), all at once. Who needs one reads it
    here when it is needed. What has begun keeps what it began with: a call its limits and its
    agent, a wait its timeout.

    Attributes:
        trusted: networks of peers whose account of a request's way is believed.
        announcers: those that begin each connection with a PROXY header.
        tls: what callers of listeners with TLS meet.
        describe: the whole of it as text, secrets masked.
    """

    catalog: Catalog
    limits: Limits
    admin_token: str | None = None
    trusted: Networks = ()
    announcers: Networks = ()
    tls: ServerTls | None = None
    describe: Callable[[], str] = str

    @property
    def heads(self) -> HeadLimits:
        """The limits of request heads."""
        limits = self.limits
        return HeadLimits(limits.max_target, limits.max_head, limits.max_header_count)

    def trusts(self, peer: str) -> bool:
        """Whether a peer's account is believed; nobody else can open a Unix socket here."""
        return peer == "unix" or (len(self.trusted) > 0 and is_among(peer, self.trusted))
