"""What every WebSocket to a bot has in common, whoever may open it.

The bot's handshake while its client is watched, the bot's refusal, and the hand-over to
who relays the two connections and sends the client its 101.
"""

from __future__ import annotations

__all__ = ["RETRY_AFTER", "BotWebSocket", "bot_silent", "in_vain"]

from abc import ABC, abstractmethod
from dataclasses import replace

import trio

from relay.errors import Refusal, RelayError, StoreError
from relay.policy.catalog import Address, Agent
from relay.protocol.handshake import BotAnswer, BotHandshake, BotRefusal, Upgrade, switching
from relay.protocol.headers import Field, end_to_end, from_bot_upgrade
from relay.pump.channel import MAX_EARLY, Adopt
from relay.server.exchange import Exchange
from relay.server.secure import Stream, TlsStream
from relay.server.upstream import BotConnection

# A caller that had to wait in vain may try again after so many seconds.
RETRY_AFTER = 5


class BotWebSocket(ABC):
    """The common part of the handlers of WebSockets.

    `_offer` comes first, then `_while_connected`, `_shake_hands` within its `_attach`, and
    `_pass_refusal` or `_hand_over`.
    """

    _agent: Agent
    _upgrade: Upgrade
    _frames: bool

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._bot: BotConnection | None = None
        self._answer: BotAnswer | BotRefusal | None = None

    def _offer(self, agent: Agent, upgrade: Upgrade) -> None:
        """The bot of this agent is to be offered what the client's upgrade offers."""
        self._agent = agent
        plain = isinstance(self._exchange.stream, trio.SocketStream) and not agent.secure
        # Pumps have descriptors alone; who speaks TLS is here.
        self._frames = agent.relay == "frames" or not plain
        # Who reads messages can't read compressed ones.
        self._upgrade = replace(upgrade, extensions=()) if self._frames else upgrade

    @abstractmethod
    async def _attach(self) -> BotAnswer | BotRefusal:
        """Find a bot and shake hands; raises Refusal or StoreError."""

    @abstractmethod
    def _called_off(self) -> Refusal | None:
        """Why the caller's scope was cancelled, if it was."""

    async def _while_connected(self, scope: trio.CancelScope) -> BotAnswer | BotRefusal | None:
        """Attach, in `scope`, for as long as the client is there; None when it has left.

        Raises:
            Refusal: the caller can't be served.
            StoreError: nor can it be known where.
        """
        outcome: BotAnswer | BotRefusal | RelayError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._exchange.cancel_when_left, nursery.cancel_scope, MAX_EARLY)
            with scope:
                try:
                    outcome = await self._attach()
                except (Refusal, StoreError) as error:
                    outcome = error  # raised below: a nursery would wrap it in a group
            nursery.cancel_scope.cancel()
        refusal = self._called_off()
        if refusal is not None and not isinstance(outcome, BotAnswer):
            raise refusal
        if isinstance(outcome, RelayError):
            raise outcome
        return outcome

    async def _shake_hands(
        self, bot: BotConnection, address: Address, target: str, fields: list[Field]
    ) -> BotAnswer | BotRefusal:
        """Repeat the upgrade at a bot.

        Args:
            fields: those of the client's that the bot gets, without Host and the handshake's.
        """
        handshake = BotHandshake(self._upgrade)
        return await bot.upgrade(handshake, handshake.request(address.authority, target, fields))

    async def _close_bot(self) -> None:
        if self._bot is not None:
            bot, self._bot = self._bot, None
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(bot.stream)

    async def _pass_refusal(self, answer: BotRefusal) -> None:
        self._exchange.cause = "bot_refused"
        fields = end_to_end(answer.fields)
        await self._exchange.reply(answer.status, answer.body, fields, passed=True)

    def _adoption(
        self, answer: BotAnswer, tunnel: str, session_id: str, max_seconds: float
    ) -> Adopt:
        """The connections as their relay is told of them; once for each, it takes what came."""
        exchange, bot = self._exchange, self._bot
        assert bot is not None
        own = [
            (b"X-Daily-Session-Id", session_id.encode()),
            (b"X-Request-Id", exchange.request_id.encode()),
        ]
        chosen = BotAnswer(
            answer.subprotocol, answer.extensions, tuple(from_bot_upgrade(answer.fields))
        )
        return Adopt(
            tunnel=tunnel,
            session=session_id,
            preface=switching(self._upgrade.key, chosen, own),
            from_client=exchange.heads.take(),
            from_bot=bot.early,
            rsv=answer.rsv,
            max_message=self._agent.max_message_size,
            max_seconds=max_seconds,
            idle_seconds=self._agent.idle_timeout,
            ping_seconds=self._agent.ping_interval,
            close_timeout=exchange.front.limits.close_timeout,
            watched=bool(self._agent.command),
        )

    async def _hand_over(self, message: Adopt) -> None:
        """Give both connections to who relays them, and sends the 101.

        Raises:
            Refusal: 503, no pump took them; they are the caller's still.
        """
        exchange, bot = self._exchange, self._bot
        front, client = exchange.front, exchange.stream
        assert bot is not None
        tls = isinstance(client, TlsStream) or isinstance(bot.stream, TlsStream)
        # A reload may have made `bot` one with TLS since `_offer`: it is never given away.
        if tls or (self._frames and front.successor is None):
            front.calls.frames.adopt(message, _taken(client), bot.stream)
        else:
            fds = client.socket.fileno(), bot.stream.socket.fileno()
            if front.successor is not None:
                await front.successor.adopt(message, *fds, frames=self._frames)
            else:
                await front.pumps.adopt(message, *fds)
            client.socket.close()
            bot.stream.socket.close()
        exchange.status = 101
        exchange.leave()


def _taken(stream: Stream) -> Stream:
    """The same connection in a stream that is not closed with its connection's task."""
    if isinstance(stream, TlsStream):
        return stream
    return trio.SocketStream(trio.socket.socket(fileno=stream.socket.detach()))


def in_vain(reason: str, *, cause: str) -> Refusal:
    """503 for a caller who has waited for nothing."""
    headers = ((b"retry-after", b"%d" % RETRY_AFTER),)
    return Refusal(503, reason, cause=cause, headers=headers)


def bot_silent(agent: Agent) -> Refusal:
    """A bot was there and has not answered the upgrade in time."""
    reason = f"the bot did not answer within {agent.attach_timeout:g} s"
    return in_vain(reason, cause="bot_silent")
