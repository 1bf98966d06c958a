"""What is said goes to the log, to the metrics, and to a short memory for the console."""

from __future__ import annotations

__all__ = ["RECENT_ENDS", "Observer"]

from collections import deque
from collections.abc import Callable, Mapping

from relay.ops.metrics import Metrics
from relay.ops.traces import Traces
from relay.policy.interfaces import Log
from relay.policy.sessions import Session, public_end
from relay.policy.status import EndStatus, NodeStatus, RefusalStatus

# Ended sessions that the console shows: a screen of them; the store has all.
RECENT_ENDS = 50


class Observer:
    """`relay.policy.interfaces.Log` and `Figures` in one: see the module.

    Args:
        log: gets everything, unchanged.
        now: unix seconds.

    Attributes:
        traces: makes spans of it too, if anybody wants them.
        certificates: when those end that callers are shown, in unix seconds, by their files.
    """

    def __init__(self, log: Log, now: Callable[[], float]) -> None:
        self._log = log
        self._now = now
        self._metrics = Metrics()
        self.traces: Traces | None = None
        self.certificates: Callable[[], Mapping[str, float]] = dict
        self._ends: deque[EndStatus] = deque(maxlen=RECENT_ENDS)
        self._refusals: dict[tuple[str, str, int], tuple[int, float]] = {}

    # What is logged.

    def event(self, name: str, **fields: object) -> None:
        self._log.event(name, **fields)

    def warning(self, name: str, **fields: object) -> None:
        self._metrics.warning(name)
        self._log.warning(name, **fields)

    def failure(self, name: str, error: BaseException, **fields: object) -> None:
        self._metrics.warning(name)
        self._log.failure(name, error, **fields)

    def exchange(self, fields: dict[str, object]) -> None:
        self._metrics.exchange(fields)
        cause, status = fields.get("cause"), fields.get("status")
        if cause is not None:
            # Bounded: phases, causes and statuses are words of this program.
            key = (str(fields.get("phase")), str(cause), status if isinstance(status, int) else 0)
            count, _last = self._refusals.get(key, (0, 0.0))
            self._refusals[key] = count + 1, self._now()
        if self.traces is not None:
            self.traces.exchange(fields)
        self._log.exchange(fields)

    def session_end(self, session: Session) -> None:
        self._metrics.session_end(session)
        if self.traces is not None:
            self.traces.session_end(session)
        ended, started = session.ended, session.started
        self._ends.append(
            EndStatus(
                session_id=session.id,
                agent=session.agent,
                ended_at=ended if ended is not None else self._now(),
                cause=session.cause or "unknown",
                end_state=public_end(session.cause, session.transport)[0],
                seconds=ended - started if ended is not None and started is not None else None,
            )
        )
        self._log.session_end(session)

    # What is only counted.

    def webhook(self, event: str, outcome: str) -> None:
        self._metrics.webhook(event, outcome)

    def handshake(self, version: str) -> None:
        self._metrics.handshake(version)

    def webhooks_waiting(self, organization: str, count: int) -> None:
        self._metrics.webhooks_waiting(organization, count)

    # What is asked.

    def recent_ends(self) -> tuple[EndStatus, ...]:
        return tuple(reversed(self._ends))

    def refusals(self) -> tuple[RefusalStatus, ...]:
        found = [
            RefusalStatus(phase=phase, cause=cause, status=status, count=count, last_at=last)
            for (phase, cause, status), (count, last) in self._refusals.items()
        ]
        return tuple(sorted(found, key=lambda each: -each.last_at))

    def render(self, status: NodeStatus) -> bytes:
        if self.traces is not None:
            self._metrics.spans(self.traces.counts())
        return self._metrics.render(status, self.certificates())
