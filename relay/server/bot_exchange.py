"""One HTTP exchange between a client and a bot: both bodies streamed, both ways at a time.

Nothing is held but one read per direction, so each side is read as fast as the other
takes it, and every piece goes on as it comes. Whoever leaves ends the exchange: the
client at once, the bot by an answer that the client sees as cut off.
"""

from __future__ import annotations

__all__ = ["HEAD_TIMEOUT", "BotExchange"]

import math

import h11
import trio

from relay.errors import Refusal
from relay.protocol.bot_http import BotEnd, BotHead, BotTalk, bot_died
from relay.protocol.headers import end_to_end
from relay.server import replies
from relay.server.exchange import Exchange

# Seconds without a head of the bot's answer, counted from the last piece of the request
# that it took: long polls of a minute or two fit, and a bot that hangs is noticed.
HEAD_TIMEOUT = 300.0
# One read of either side; larger ones cost memory per exchange and save little.
RECEIVE_SIZE = 16 * 1024
# What a client may send behind its request while the answer comes: pipelined requests.
# Over it the client is not read, and that it leaves is noticed by the next write only.
MAX_AHEAD = 48 * 1024


class BotExchange:
    """Sends a request to a bot and passes the answer on.

    Args:
        exchange: the client's side; its request's body has not been read.
        stream: the connection to the bot; the caller closes it.
    """

    def __init__(self, exchange: Exchange, stream: trio.abc.Stream, talk: BotTalk) -> None:
        assert exchange.http is not None, "only after the parse phase"
        self._exchange = exchange
        self._http = exchange.http
        self._bot = stream
        self._talk = talk
        self._request_whole = False
        self._answer_whole = False
        self._client_left = False
        self._failure: Refusal | None = None
        self._patience = trio.CancelScope()
        self._all = trio.CancelScope()

    async def run(self) -> None:
        """Return when the answer has been passed on, or the client has left.

        Raises:
            Refusal: 400 for a malformed body, 408 for one that does not come, 502 and 504
                for what the bot did. An answer may have begun by then.
        """
        exchange = self._exchange
        async with trio.open_nursery() as nursery:
            self._all = nursery.cancel_scope
            self._be_patient()
            nursery.start_soon(self._upload)
            with self._patience:
                try:
                    await self._download()
                except Refusal as refusal:
                    self._failure = refusal
            nursery.cancel_scope.cancel()
        if self._answer_whole:
            return  # a client that has left since then has what it wanted
        if self._client_left:
            exchange.cause, exchange.keep_alive = "client_left", False
        elif self._failure is not None:
            raise self._failure
        elif self._patience.cancelled_caught:
            raise self._too_late()

    def _be_patient(self) -> None:
        if self._exchange.status is None:
            self._patience.deadline = trio.current_time() + HEAD_TIMEOUT

    def _too_late(self) -> Refusal:
        if self._request_whole:
            reason = f"the bot did not answer within {HEAD_TIMEOUT:g} s"
            return Refusal(504, reason, cause="bot_timeout")
        return Refusal(408, "the request body took too long", cause="slow_body", close=True)

    def _leave(self) -> None:
        self._client_left = True
        self._all.cancel()

    # From the client to the bot.

    async def _upload(self) -> None:
        """Pass the request on; then watch the client, whose leaving ends the exchange."""
        http, heads = self._http, self._exchange.heads
        if len(heads):
            http.receive_data(heads.take())
        reached, first = True, self._talk.head
        while reached and not self._request_whole:
            try:
                piece, first = first + self._next_piece(), b""
            except h11.RemoteProtocolError:
                reason = "the request body is malformed"
                self._failure = Refusal(400, reason, cause="bad_body", close=True)
                self._all.cancel()
                return
            reached = await self._to_bot(piece)
            if reached and not self._request_whole:
                await self._from_client()
        # Also when the bot takes no more of the request: its answer decides what becomes of it.
        while len(http.trailing_data[0]) < MAX_AHEAD:
            await self._from_client()

    def _next_piece(self) -> bytes:
        """What is here of the request's body, framed for the bot."""
        pieces = []
        while isinstance(event := self._http.next_event(), h11.Data):
            pieces.append(self._talk.body(bytes(event.data)))
        if isinstance(event, h11.EndOfMessage):
            self._request_whole = True
            pieces.append(self._talk.end())
        return b"".join(pieces)

    async def _from_client(self) -> None:
        data = await self._exchange.receive()
        if not data:
            self._leave()
            await trio.lowlevel.checkpoint()
        self._http.receive_data(data)

    async def _to_bot(self, data: bytes) -> bool:
        """Send to the bot; whether it still takes anything."""
        if not data:
            return True
        try:
            await self._bot.send_all(data)
        except trio.BrokenResourceError:
            return False
        self._be_patient()
        return True

    # From the bot to the client.

    async def _download(self) -> None:
        """Pass the answer on, each read of it with one write."""
        while True:
            pieces: list[bytes] = []
            try:
                whole = self._take_events(pieces)
            finally:
                # What came in front of a fault goes out too: the fault is seen where it is.
                await self._to_client(b"".join(pieces))
            if whole:
                self._answer_whole = True
                return
            self._talk.receive(await self._from_bot())

    def _take_events(self, pieces: list[bytes]) -> bool:
        """Collect what is here of the answer; whether it is whole now."""
        while (event := self._talk.next_event()) is not None:
            pieces.append(self._passed(event))
            if isinstance(event, BotEnd):
                return True
        return False

    async def _to_client(self, data: bytes) -> None:
        if data and not await self._exchange.send(data):
            self._leave()
            await trio.lowlevel.checkpoint()

    async def _from_bot(self) -> bytes:
        try:
            return bytes(await self._bot.receive_some(RECEIVE_SIZE))
        except trio.BrokenResourceError:
            raise bot_died() from None

    def _passed(self, event: BotHead | bytes | BotEnd) -> bytes:
        """The same for the client, in the framing that it understands."""
        if isinstance(event, BotHead):
            return self._interim(event) if event.interim else self._head(event)
        if isinstance(event, BotEnd):
            return self._http.send(h11.EndOfMessage()) or b""
        return self._http.send(h11.Data(data=event)) or b""

    def _interim(self, head: BotHead) -> bytes:
        if self._exchange.head.version == b"1.0":
            return b""  # RFC 9110 section 15.2: HTTP/1.0 knows none
        fields = [field for field in end_to_end(head.fields) if field[0] not in replies.OWN_FIELDS]
        event = h11.InformationalResponse(
            status_code=head.status, headers=fields, reason=head.reason
        )
        return self._http.send(event) or b""

    def _head(self, head: BotHead) -> bytes:
        exchange = self._exchange
        self._patience.deadline = math.inf
        if not self._request_whole:
            # An answer to half a request: the other half may or may not be read by the bot.
            exchange.keep_alive = False
        exchange.status = head.status
        lengths = [value for name, value in head.fields if name == b"content-length"]
        # RFC 9110 section 8.6: none on a 204.
        length = lengths[0] if lengths and head.status != 204 else None
        fields = replies.passed_fields(exchange, end_to_end(head.fields), length)
        event = h11.Response(status_code=head.status, headers=fields, reason=head.reason)
        return self._http.send(event) or b""
