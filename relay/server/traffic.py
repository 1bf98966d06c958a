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

import trio

from relay.errors import Refusal, StoreError
from relay.policy.interfaces import Store
from relay.policy.sessions import SessionState
from relay.server.rules import Rules

# A request that stands in line so long, in seconds, is told to come again: the bot is
# busy with long answers, and others behind it would wait as long.
MAX_WAIT = 10.0
# Those in line may be so many times the share.
LINE_FACTOR = 2
RETRY_AFTER = 2
# Sessions that another node ends are looked up so often, in seconds.
POLL = 1.0


class Traffic:
    """See the module; one per daemon.

    Args:
        rules: say how many requests of one session may be under way.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._running: dict[str, int] = {}
        self._lines: dict[str, trio.lowlevel.ParkingLot] = {}
        self._scopes: dict[str, set[trio.CancelScope]] = {}

    def count(self) -> int:
        """How many requests are under way or in line."""
        return sum(self._running.values()) + sum(len(line) for line in self._lines.values())

    def begin_now(self, session_id: str) -> bool:
        """Count a request of a session if it need not wait."""
        running = self._running.get(session_id, 0)
        if running >= self._rules.limits.session_requests:
            return False
        self._running[session_id] = running + 1
        return True

    async def begin(self, session_id: str) -> None:
        """Wait for the right to a request; `end` gives it back.

        Raises:
            Refusal: 429 when too many wait, 503 when it takes too long.
        """
        if self.begin_now(session_id):
            return
        line = self._lines.setdefault(session_id, trio.lowlevel.ParkingLot())
        retry = ((b"retry-after", b"%d" % RETRY_AFTER),)
        if len(line) >= self._rules.limits.session_requests * LINE_FACTOR:
            raise Refusal(
                429,
                "too many requests of this session wait for their turn",
                cause="session_crowded",
                headers=retry,
            )
        with trio.move_on_after(MAX_WAIT):
            await line.park()  # whoever ends leaves his place to the first in line
            return
        raise Refusal(
            503,
            f"{self._rules.limits.session_requests} requests of this session have been under way"
            f" for {MAX_WAIT:g} s",
            cause="session_busy",
            headers=retry,
        )

    def end(self, session_id: str) -> None:
        """A request is over."""
        if line := self._lines.get(session_id):
            line.unpark()
            return
        self._running[session_id] -= 1
        if not self._running[session_id]:
            del self._running[session_id]
            self._lines.pop(session_id, None)

    def watch(self, session_id: str, scope: trio.CancelScope) -> None:
        """Cut a scope off when the session ends, until `unwatch`."""
        self._scopes.setdefault(session_id, set()).add(scope)

    def unwatch(self, session_id: str, scope: trio.CancelScope) -> None:
        scopes = self._scopes[session_id]
        scopes.remove(scope)
        if not scopes:
            del self._scopes[session_id]

    def session_ended(self, session_id: str, grace: float) -> None:
        """Cut off what is under way in `grace` seconds, in which an answer may still finish."""
        for scope in self._scopes.get(session_id, ()):
            scope.deadline = min(scope.deadline, trio.current_time() + grace)

    async def run(self, store: Store) -> None:
        """Notice the ends of sessions that other nodes hold, until cancelled."""
        while True:
            await trio.sleep(POLL)
            for session_id in list(self._scopes):
                try:
                    session = await store.get(session_id)
                except StoreError:
                    break  # it is asked again in a moment
                if session is None or session.state is SessionState.ENDED:
                    self.session_ended(session_id, 0.0)
