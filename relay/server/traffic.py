"""Requests of the Session API under way: how many for each session, and their end with it.

Laws:
- No session has more than its share of requests under way; those over it wait in line,
  first come first served, a bounded number for a bounded time.
- Whoever begins ends, once; a session without requests takes no memory.
- What is under way when its session ends is cut off, at the latest when its bot may be
  given to another session.
"""

from __future__ import annotations

__all__ = ["Traffic"]

from dataclasses import dataclass, field

import trio

from relay.errors import Refusal, StoreError
from relay.policy.interfaces import Store
from relay.policy.sessions import SessionState

# A request that stands in line so long, in seconds, is told to come again: the bot is
# busy with long answers, and others behind it would wait as long.
MAX_WAIT = 10.0
# Those in line may be so many times the share.
LINE_FACTOR = 2
RETRY_AFTER = 2
# Sessions that another node ends are looked up so often, in seconds.
POLL = 1.0


@dataclass(slots=True)
class _Session:
    """Requests of one session: how many run, who waits, and the scopes that its end cuts off."""

    running: int = 0
    line: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    scopes: set[trio.CancelScope] = field(default_factory=set)


class Traffic:
    """See the module; one per daemon.

    Args:
        share: how many requests of one session may be under way.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._sessions: dict[str, _Session] = {}

    def count(self) -> int:
        """How many requests are under way or in line."""
        return sum(each.running + len(each.line) for each in self._sessions.values())

    def begin_now(self, session_id: str) -> bool:
        """Count a request of a session if it need not wait."""
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session()
        if session.running >= self._share:
            return False
        session.running += 1
        return True

    async def begin(self, session_id: str) -> None:
        """Wait for the right to a request; `end` gives it back.

        Raises:
            Refusal: 429 when too many wait, 503 when it takes too long.
        """
        if self.begin_now(session_id):
            return
        session = self._sessions[session_id]
        retry = ((b"retry-after", b"%d" % RETRY_AFTER),)
        if len(session.line) >= self._share * LINE_FACTOR:
            raise Refusal(
                429,
                "too many requests of this session wait for their turn",
                cause="session_crowded",
                headers=retry,
            )
        with trio.move_on_after(MAX_WAIT):
            await session.line.park()  # whoever ends leaves his place to the first in line
            return
        raise Refusal(
            503,
            f"{self._share} requests of this session have been under way for {MAX_WAIT:g} s",
            cause="session_busy",
            headers=retry,
        )

    def end(self, session_id: str) -> None:
        """A request is over."""
        session = self._sessions[session_id]
        if session.line:
            session.line.unpark()
            return
        session.running -= 1
        if not session.running:
            del self._sessions[session_id]

    def watch(self, session_id: str, scope: trio.CancelScope) -> None:
        """Cut a scope off when the session ends; only between `begin` and `end`."""
        self._sessions[session_id].scopes.add(scope)

    def unwatch(self, session_id: str, scope: trio.CancelScope) -> None:
        self._sessions[session_id].scopes.discard(scope)

    def session_ended(self, session_id: str, grace: float) -> None:
        """Cut off what is under way in `grace` seconds, in which an answer may still finish."""
        session = self._sessions.get(session_id)
        for scope in session.scopes if session is not None else ():
            scope.deadline = min(scope.deadline, trio.current_time() + grace)

    async def run(self, store: Store) -> None:
        """Notice the ends of sessions that other nodes hold, until cancelled."""
        while True:
            await trio.sleep(POLL)
            for session_id in [name for name, each in self._sessions.items() if each.scopes]:
                try:
                    session = await store.get(session_id)
                except StoreError:
                    break  # it is asked again in a moment
                if session is None or session.state is SessionState.ENDED:
                    self.session_ended(session_id, 0.0)
