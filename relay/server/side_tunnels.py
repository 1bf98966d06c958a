"""Side tunnels: WebSockets that were opened through the Session API, beside a session's own.

A side tunnel belongs to a session that is active by other means. It has a name of its
own, where what carries the session bears the session's (`is_side`); it takes no lease and
no token, and its end ends nothing else.

Law: from `open` to its end a side tunnel is known here. So whoever finds its session
active after `open` may be sure that `end` reaches it when the session ends.
"""

from __future__ import annotations

__all__ = ["Order", "SideTunnel", "SideTunnels", "is_side"]

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

import trio
from msgspec import to_builtins

from relay.errors import Refusal
from relay.policy.interfaces import Log
from relay.pump.channel import Finished
from relay.server.rules import Rules

Order = Literal["stop", "drain", "session ended"]
# Ends what carries a tunnel of this name; whether it could be told does not matter here.
Tell = Callable[[str, Order], Awaitable[object]]

# Who has too many may try again after so many seconds.
RETRY_AFTER = 5


def is_side(tunnel: str, session: str) -> bool:
    """Whether a tunnel is not what carries its session."""
    return tunnel != session


@dataclass(slots=True)
class SideTunnel:
    """A side tunnel, from its caller's request to its end.

    Attributes:
        scope: its caller's way to the bot; cancelled when the session ends.
        over: its session has ended, or is about to.
        tell: whom to tell to end it, once somebody carries it.
    """

    name: str
    session: str
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    over: bool = False
    tell: Tell | None = None


@dataclass(slots=True)
class Group:
    """The side tunnels of one session."""

    tunnels: dict[str, SideTunnel] = field(default_factory=dict)
    gone: trio.Event = field(default_factory=trio.Event)


class SideTunnels:
    """Every side tunnel of this daemon, by its session.

    Args:
        rules: say how many one session may have at a time.
    """

    def __init__(self, rules: Rules, log: Log) -> None:
        self._rules = rules
        self._log = log
        self._groups: dict[str, Group] = {}

    def open(self, side: SideTunnel) -> None:
        """Know a side tunnel from now on, until `leave` or its end.

        Raises:
            Refusal: 429, the session has too many.
        """
        group = self._groups.get(side.session)
        most = self._rules.limits.max_side_tunnels
        if group is not None and len(group.tunnels) >= most:
            raise Refusal(
                429,
                f"this session has {most} WebSockets beside its own already",
                cause="too_many_side_tunnels",
                headers=((b"retry-after", b"%d" % RETRY_AFTER),),
            )
        self._add(side)

    def leave(self, side: SideTunnel) -> None:
        """It did not come about."""
        self._remove(side.name, side.session)

    def carried(self, name: str, session: str, tell: Tell) -> None:
        """Somebody carries it now: after `open`, or found alive by a new control process."""
        group = self._groups.get(session)
        side = group.tunnels.get(name) if group is not None else None
        if side is None:
            side = SideTunnel(name, session)
            self._add(side)
        side.tell = tell

    def ended(self, report: Finished) -> None:
        """Its end, as who carried it tells."""
        self._remove(report.tunnel, report.session)
        self._log.event(
            "side_tunnel_ended",
            session_id=report.session,
            tunnel=report.tunnel,
            cause=report.cause,
            close_code=report.code,
            close_reason=report.reason,
            seconds=report.seconds,
            figures=to_builtins({"client": report.from_client, "bot": report.from_bot}),
        )

    def lost(self, name: str, session: str) -> None:
        """It has died with its pump, and nobody can say more."""
        if self._remove(name, session):
            self._log.event("side_tunnel_ended", session_id=session, tunnel=name, cause="pump_died")

    async def end(self, session: str, why: Order) -> None:
        """End every side tunnel of a session, those on their way too."""
        group = self._groups.get(session)
        if group is None:
            return
        async with trio.open_nursery() as nursery:  # a pump that is stuck delays no other
            for side in group.tunnels.values():
                side.over = True
                side.scope.cancel()
                if side.tell is not None:
                    nursery.start_soon(side.tell, side.name, why)

    async def wait_gone(self, session: str) -> None:
        """Return when a session has no side tunnel."""
        group = self._groups.get(session)
        if group is not None:
            await group.gone.wait()

    def sessions(self) -> list[str]:
        """Sessions that have a side tunnel."""
        return list(self._groups)

    def count(self) -> int:
        """Side tunnels that somebody carries."""
        groups = self._groups.values()
        return sum(side.tell is not None for group in groups for side in group.tunnels.values())

    def _add(self, side: SideTunnel) -> None:
        self._groups.setdefault(side.session, Group()).tunnels[side.name] = side

    def _remove(self, name: str, session: str) -> bool:
        group = self._groups.get(session)
        if group is None or name not in group.tunnels:
            return False
        del group.tunnels[name]
        if not group.tunnels:
            del self._groups[session]
            group.gone.set()
        return True
