"""How a tunnel that ends is told of: the Close that each side gets, and the report."""

from __future__ import annotations

__all__ = ["LOST", "close_for", "report"]

from typing import TYPE_CHECKING

from relay.protocol.lifecycle import Side
from relay.pump.channel import Finished

if TYPE_CHECKING:
    from relay.pump.transfer import Transfer
    from relay.pump.tunnel import Tunnel

# The cause of a tunnel that ended in a way that is in no table.
LOST = "lost"


def close_for(tunnel: Tunnel, source: Side) -> tuple[int | None, str]:
    """Code and reason to write into the transfer that reads from `source`; None for none."""
    ending = tunnel.state.ending
    if ending is None:
        return None, ""
    closer = _closer(tunnel)
    if closer is not None and closer.sink.side is source:
        # The source is gone without an answer to the Close that it got: the closing
        # handshake is completed for it, with the same code (RFC 6455 section 5.5.1).
        return closer.tracker.close_code, closer.tracker.close_reason
    return ending.code_from(source), ending.reason


def report(tunnel: Tunnel, now: float) -> Finished:
    """The one cause, the close code, what was carried."""
    ending = tunnel.state.ending
    cause = ending.cause if ending else LOST
    code: int | None = None
    reason = ""
    if ending is not None:
        code, reason = ending.to_downstream or ending.to_upstream, ending.reason
    closer = _closer(tunnel)
    if closer is not None:
        code, reason = closer.tracker.close_code, closer.tracker.close_reason
    return Finished(
        tunnel=tunnel.adopt.tunnel,
        session=tunnel.adopt.session,
        cause=cause,
        code=code,
        reason=reason,
        seconds=round(now - tunnel.started, 6),
        from_client=tunnel.from_client.figures(now),
        from_bot=tunnel.from_bot.figures(now),
    )


def _closer(tunnel: Tunnel) -> Transfer | None:
    """The transfer that carried the Close which began the end, where one did."""
    cause = tunnel.state.ending.cause if tunnel.state.ending else ""
    return {"client_closed": tunnel.from_client, "bot_closed": tunnel.from_bot}.get(cause)
