"""Callers on their way to a bot, and why one is not let in."""

from __future__ import annotations

__all__ = ["Caller", "session_over", "token_used"]

from dataclasses import dataclass, field

import trio

from relay.errors import Refusal
from relay.policy.catalog import Agent
from relay.policy.sessions import Session


@dataclass(slots=True)
class Caller:
    """A caller between admission and the 101 (or the end of trying).

    Attributes:
        since: when it was admitted, on trio's clock.
        queued: seconds from then to the lease of `instance`.
        cold: that was started since.
        instance: leased to it.
        missed: leased to it too, but no bot could be reached there.
        stopped, moving: why its scope was cancelled: its session is to end, or it goes to
            the next process.
    """

    session: Session
    agent: Agent
    nonce: str | None
    since: float = field(default_factory=trio.current_time)
    queued: float = 0.0
    cold: bool = False
    instance: str | None = None
    missed: str | None = None
    stopped: bool = False
    moving: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def move(self) -> None:
        """Have it begin anew at the next process."""
        self.moving = True
        self.scope.cancel()


def token_used() -> Refusal:
    return Refusal(403, "the token has been used already", cause="token_used")


def session_over() -> Refusal:
    return Refusal(403, "the token's session is in use or over", cause="session_over")
