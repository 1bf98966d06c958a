"""A call that is offered to a pump, and why none has taken it."""

from __future__ import annotations

__all__ = ["FULL_WAIT", "HAND_OVER_TIMEOUT", "Offer", "not_taken"]

from collections.abc import Collection
from dataclasses import dataclass, field

import trio

from relay.errors import Refusal

# A pump that does not take a message for so long leaves the call to another one.
HAND_OVER_TIMEOUT = 1.0
# A message that is in its channel is taken, however late it says so.
ANSWER_TIMEOUT = 5.0
# A pump that has refused a call is not asked again for so long.
FULL_WAIT = 1.0


@dataclass(slots=True)
class Offer:
    """A call that a pump was given, until it has answered; the cause if it is not taken."""

    cause: str = ""
    answered: trio.Event = field(default_factory=trio.Event)

    def answer(self, cause: str) -> None:
        self.cause = cause
        self.answered.set()

    async def outcome(self) -> str:
        """The pump's answer: why it has not taken the call, "" if it has."""
        with trio.move_on_after(ANSWER_TIMEOUT):
            await self.answered.wait()
        return self.cause


def not_taken(causes: Collection[str]) -> Refusal:
    """503 with `pump_full` if a pump lives and has no room, with `no_pump` if none lives."""
    again = ((b"retry-after", b"1"),)
    if "pump_full" in causes:
        text = "every relay process is full at the moment; try again"
        return Refusal(503, text, cause="pump_full", headers=again)
    text = "no relay process can take the call at the moment; try again"
    return Refusal(503, text, cause="no_pump", headers=again)
