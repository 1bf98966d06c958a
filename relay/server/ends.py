"""Ends of calls as ends of sessions."""

from __future__ import annotations

__all__ = ["end_of", "is_deaf"]

import msgspec

from relay.policy.sessions import SessionEnd
from relay.pump.channel import Finished

# A session over HTTP that ended so was ended by its bot.
BOT_ENDED = ("bot_completed", "bot_error")


def end_of(report: Finished) -> SessionEnd:
    """What a tunnel's report says of its session's end."""
    figures = msgspec.json.encode(
        {"seconds": report.seconds, "client": report.from_client, "bot": report.from_bot}
    )
    return SessionEnd(
        report.cause, report.code, report.reason, figures.decode(), lasted=report.seconds
    )


def is_deaf(transport: str | None, cause: str | None) -> bool:
    """Whether a bot that was started over HTTP may not have heard of its session's end."""
    return transport not in (None, "websocket") and cause not in BOT_ENDED
