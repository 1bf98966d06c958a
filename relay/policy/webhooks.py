"""Webhooks: what is told of a session, how it is signed, when it is told again.

The form is that of Standard Webhooks (version 1, docs/operations.md, "Webhooks").

Laws:
- An event's id and body follow from the stored session alone, so every attempt to
  deliver it carries the same, whichever node makes it.
- Waits between attempts grow up to a bound, and there are `MAX_ATTEMPTS` of them.
"""

from __future__ import annotations

__all__ = [
    "AT_ONCE",
    "CLAIM",
    "LONGEST_WAIT",
    "MAX_AGE",
    "MAX_ATTEMPTS",
    "MAX_WAITING",
    "Answer",
    "Claimed",
    "Counts",
    "Event",
    "Outbox",
    "Outcome",
    "asked_wait",
    "fields",
    "message",
    "outcome_of",
    "signature",
    "wait",
]

import re
from base64 import b64encode
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from relay.policy.health import spread
from relay.policy.records import iso, session_record
from relay.policy.sessions import Session
from relay.policy.signing import sign

# The wait after the first attempt that failed, and how much longer each further one is.
FIRST_WAIT = 1.0
GROWTH = 4.0
# A receiver that is away for long is asked every other hour.
LONGEST_WAIT = 7200.0
# With these waits the last attempt comes about nine hours after the first.
MAX_ATTEMPTS = 12
# Events that no node could try for so long, since none was running, are old news.
MAX_AGE = 86_400.0
# For each organization: what an hour of outage at some three sessions a second leaves.
MAX_WAITING = 20_000
# For each organization: a slow receiver gets no more at a time.
AT_ONCE = 8
# Nobody else tries an event for so long: longer than an attempt may take.
CLAIM = 60.0

GONE = 410
# A number with more digits is no time that anybody means.
SECONDS = re.compile(r"[0-9]{1,9}")


class Outcome(StrEnum):
    """What became of an event, or of one attempt to deliver it."""

    DELIVERED = "delivered"
    FAILED = "failed"  # it will be tried again
    GIVEN_UP = "given_up"  # tried too often, or too old
    DROPPED = "dropped"  # too many wait
    GONE = "gone"  # the receiver wants no more


class Event(msgspec.Struct, frozen=True):
    """One thing to be told.

    Attributes:
        type: `session.started` or `session.ended`.
        session: as it is now; what it was at the event follows from it.
        attempts: to deliver it, the one that it was claimed for included.
    """

    type: str
    session: Session
    attempts: int = 1

    @property
    def id(self) -> str:
        return f"msg_{self.session.id}_{self.type.removeprefix('session.')}"


class Answer(msgspec.Struct, frozen=True):
    """A receiver's answer to an attempt: its status, and the field Retry-After if it is there."""

    status: int
    retry_after: str | None = None


class Claimed(msgspec.Struct, frozen=True):
    """What a look at the outbox gave.

    Attributes:
        events: that are this node's to deliver now.
        waiting: how many there are, those included.
        old, over: types of events that were removed: too old, or more than may wait.
    """

    events: tuple[Event, ...] = ()
    waiting: int = 0
    old: tuple[str, ...] = ()
    over: tuple[str, ...] = ()


class Outbox(Protocol):
    """Events to be delivered, kept with the sessions and written with their moves.

    All raise `relay.errors.StoreError` when the store can't be used. Times are unix seconds.
    """

    async def release(self, organization: str) -> None:
        """Give up the claims of this node's earlier life."""

    async def claim(self, organization: str, now: float) -> Claimed:
        """Take events that are due, so that no other node does for `CLAIM` seconds."""

    async def remove(self, event: Event) -> None:
        """It needs no further attempt."""

    async def put_off(self, event: Event, due: float) -> None:
        """Release a claimed event, for an attempt at a later time."""

    async def clear(self, organization: str) -> tuple[str, ...]:
        """Remove everything that waits for an organization's receiver; the events' types."""


class Counts(Protocol):
    """What is counted of webhooks."""

    def webhook(self, event: str, outcome: Outcome) -> None:
        """One attempt to deliver an event of this type, or one that was removed."""

    def webhooks_waiting(self, organization: str, count: int) -> None:
        """How many events wait, as the last look at the outbox has shown."""


def message(event: Event) -> bytes:
    """The body: JSON with `type`, `timestamp` and the session's record of that moment."""
    session = event.session
    at = session.ended
    if event.type == "session.started":
        at = session.started
        session = msgspec.structs.replace(session, ended=None, cause=None)
    told = {
        "type": event.type,
        "timestamp": iso(at if at is not None else session.created),
        "data": session_record(session),
    }
    return msgspec.json.encode(told)


def fields(event: Event, body: bytes, secret: bytes, now: float) -> Mapping[str, str]:
    """The header fields of one attempt.

    Args:
        now: unix seconds; receivers refuse attempts that are minutes old.
    """
    at = int(now)
    return {
        "content-type": "application/json",
        "user-agent": "relay",
        "webhook-id": event.id,
        "webhook-timestamp": str(at),
        "webhook-signature": signature(event.id, at, body, secret),
    }


def signature(event_id: str, at: int, body: bytes, secret: bytes) -> str:
    """The signature of one attempt at `at`, in unix seconds."""
    signed = sign(secret, b"%s.%d.%s" % (event_id.encode(), at, body))
    return f"v1,{b64encode(signed).decode()}"


def outcome_of(status: int | None, attempts: int) -> Outcome:
    """What an attempt's answer means; None for no answer."""
    if status is not None and 200 <= status < 300:
        return Outcome.DELIVERED
    if status == GONE:
        return Outcome.GONE
    return Outcome.GIVEN_UP if attempts >= MAX_ATTEMPTS else Outcome.FAILED


def wait(attempts: int, share: float) -> float:
    """Seconds until the next attempt after so many have failed.

    Args:
        share: from 0 to 1, at random: so many events are not told again at one moment.
    """
    return spread(min(FIRST_WAIT * GROWTH ** (attempts - 1), LONGEST_WAIT), share)


def asked_wait(retry_after: str | None, now: float) -> float:
    """Seconds for which a receiver asks to be left alone, `LONGEST_WAIT` at most.

    RFC 9110 section 10.2.3: a number of seconds, or a date. 0 for anything else.

    Args:
        now: unix seconds.
    """
    text = (retry_after or "").strip()
    if SECONDS.fullmatch(text):
        return min(float(text), LONGEST_WAIT)
    try:
        date = parsedate_to_datetime(text)
        seconds = date.timestamp() - now if date.tzinfo is not None else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), LONGEST_WAIT)
