"""Sessions over HTTP: start a bot with `POST /bot` and leave the request to a pump.

The caller of /start has its answer already. What happens here goes on in the
background, bounded by the agent's attach timeout, and ends in the session's record.
"""

from __future__ import annotations

__all__ = ["start_over_http"]

import trio

from relay.errors import RelayError
from relay.policy.admission import StartRequest
from relay.policy.catalog import Address, Agent
from relay.policy.health import Failure
from relay.policy.sessions import Session, SessionEnd
from relay.policy.traces import in_trace
from relay.protocol.bot_request import bot_start
from relay.pump.channel import Hold
from relay.server.callers import Caller
from relay.server.exchange import Front
from relay.server.secure import TlsStream, close
from relay.server.upstream import BotConnection, open_bot

# The bot ends by itself at the session's limit, of which it is told; the relay gives
# up a little later, so that a bot that does is not taken for one that does not.
LIMIT_MARGIN = 5.0


async def start_over_http(
    front: Front, agent: Agent, session: Session, request: StartRequest
) -> None:
    """Find an instance for a reserved session, start its bot there, hand over the request.

    Never raises: what goes wrong is logged and ends the session.
    """
    if await _leave(front, session, request):
        return
    try:
        caller = await front.sessions.admit(
            agent, session.id, None, session.expires, session.transport
        )
    except RelayError as error:
        front.log.failure("http_start", error, session_id=session.id)
        await front.sessions.end(session.id, SessionEnd("no_instance"))
        return
    cause = "no_instance"
    bot: BotConnection | None = None
    try:
        with trio.move_on_after(agent.attach_timeout), caller.scope:
            bot, address = await _reach(front, caller)
            cause = "bot_error"
            body = request.bot_body
            limit = agent.max_session_duration
            traces = front.traces
            further = [] if traces is None else in_trace((), traces.of(session.id))
            asked = bot_start(
                address.authority, session.id, request.transport, limit, body, further
            )
            await bot.stream.send_all(asked)
            if isinstance(bot.stream, TlsStream):
                # A pump has descriptors alone: what is decrypted here goes through one.
                bot = BotConnection(front.calls.frames.bridge(bot.stream))
            with trio.CancelScope(shield=True):
                await _hand_over(front, caller, bot)
            return
    except (RelayError, trio.BrokenResourceError) as error:
        front.log.failure("http_start", error, session_id=session.id)
    finally:
        if bot is not None:
            close(bot.stream)  # the pump has its own, or nobody needs it
        if front.sessions.is_waiting(caller):
            await front.sessions.give_back(caller, SessionEnd(cause))
    if caller.moving and not caller.stopped:
        await _leave(front, session, request)


async def _leave(front: Front, session: Session, request: StartRequest) -> bool:
    """Leave the start to the next process, if there is one."""
    if front.successor is None:
        return False
    await front.successor.begin(session, request)
    return True


async def _reach(front: Front, caller: Caller) -> tuple[BotConnection, Address]:
    while True:
        instance = await front.sessions.place(caller)
        bot = await open_bot(Address.of(instance), caller.agent.trust)
        if bot is not None:
            front.pool.served(instance)  # all that is known before the bot has finished
            return bot, Address.of(instance)
        front.pool.failed(instance, Failure.UNREACHABLE)
        front.sessions.let_go(caller)


async def _hand_over(front: Front, caller: Caller, bot: BotConnection) -> None:
    if front.successor is None:
        await front.pumps.require()
    await front.sessions.activate(caller)
    session_id = caller.session.id
    limit = caller.agent.max_session_duration + LIMIT_MARGIN
    try:
        relays = front.successor or front.pumps
        await relays.hold(Hold(session_id, session_id, limit), bot.stream.socket.fileno())
    except RelayError:
        await front.sessions.end(session_id, SessionEnd("pump_died"))
        raise
