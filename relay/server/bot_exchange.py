"""One HTTP exchange between a client and a bot: both bodies streamed, both ways at a time.

Nothing is held but what one read brought and the other side has not taken, so each side
is read as fast as the other takes it, and every piece goes on as it comes. Whoever
leaves ends the exchange: the client at once, the bot by an answer that the client sees
as cut off.

Theory of operation
   Most requests are whole when they come, and most answers are there in a moment. Such
   an exchange is one task that does what can be done at once, gives others a turn, and
   waits for `PROMPT` seconds at most. One that takes longer, or whose body still comes, gets
   a second task, which passes the request on and then watches the client.
"""

from __future__ import annotations

__all__ = ["HEAD_TIMEOUT", "BotExchange"]

import math

import trio

from relay.errors import Refusal
from relay.protocol.bot_http import CHUNKED, BotEnd, BotHead, BotTalk, bot_died, framed_request
from relay.protocol.chunks import LengthBody, chunk, last_chunk
from relay.protocol.headers import end_to_end, in_trailers
from relay.server import replies
from relay.server.exchange import Exchange
from relay.server.leg import SCRATCH, Leg
from relay.server.traffic import Traffic

# Seconds without a head of the bot's answer, counted from the last piece of the request
# that it took: long polls of a minute or two fit, and a bot that hangs is noticed.
HEAD_TIMEOUT = 300.0
# For so many seconds nobody looks whether the client is still there: nobody leaves and is
# missed in that time, and most answers are out by then.
PROMPT = 0.02
# Chunks are read in pieces of this size; what passes as it is in larger ones. The first read
# is for a head and a small body: making room for more costs more than it brings.
RECEIVE_SIZE = 64 * 1024
FIRST_SIZE = 16 * 1024
# What a client may send behind its request while the answer comes: pipelined requests.
# Over it the client is not read, and that it leaves is noticed by the next write only.
MAX_AHEAD = 48 * 1024


class BotExchange:
    """Sends a request to a bot and passes the answer on.

    Args:
        exchange: the client's side, with what is left of its request's body.
        bot: the connection to the bot; the caller closes it or gives it back.
        first: the request's head for the bot and what is here of its body, framed.
    """

    def __init__(self, exchange: Exchange, bot: Leg, talk: BotTalk, first: bytes) -> None:
        assert exchange.body is not None, "only after the parse phase"
        self._exchange = exchange
        self._body = exchange.body
        self._bot = bot
        self._talk = talk
        self._unsent: bytes | memoryview = first  # toward the bot
        self._held: bytes | memoryview = b""  # toward the client
        self._answer_whole = False
        self._chunked = False
        self._client_left = False
        # What is wrong with the answer: told when all in front of it has been passed on.
        self._fault: Refusal | None = None
        self._failure: Refusal | None = None
        # The time for a head, and everything; only where it takes time.
        self._patience: trio.CancelScope | None = None
        self._all: trio.CancelScope | None = None

    @property
    def reusable(self) -> bool:
        """Whether the connection to the bot may carry another request."""
        return self._done and self._sent_whole and self._talk.reusable

    @property
    def _sent_whole(self) -> bool:
        """Whether the bot has been sent all of the request."""
        return self._body.whole and not self._unsent

    @property
    def _done(self) -> bool:
        """Whether the client has all of the answer."""
        return self._answer_whole and not self._held

    @property
    def _over(self) -> bool:
        return self._done or self._client_left

    async def run(self, traffic: Traffic, session_id: str) -> None:
        """Return when the answer has been passed on, or the client has left.

        Raises:
            Refusal: 400 for a malformed body, 404 when the session has ended, 408 for a body
                that does not come, 502 and 504 for what the bot did. An answer may have
                begun by then.
        """
        try:
            if self._body.whole:
                self._send_now()
                # Meanwhile the bot answers, for a third of what a deadline costs.
                await trio.lowlevel.checkpoint()
                self._exchange.gave_turn = True
                self._do_at_once()
                if not self._over:
                    with trio.move_on_after(PROMPT):
                        await self._send()
                        await self._download()
            if not self._over:
                await self._take_time(traffic, session_id)
        except Refusal as refusal:
            self._failure = refusal
        if self._done:
            return  # a client that has left since then has what it wanted
        exchange = self._exchange
        # Neither chunks nor a length tell the client that the answer is not whole.
        unframed = not self._chunked and not isinstance(self._talk.body, LengthBody)
        exchange.torn = exchange.status is not None and unframed
        if self._client_left:
            exchange.cause, exchange.keep_alive = "client_left", False
        elif self._failure is not None:
            raise self._failure
        elif self._patience is not None and self._patience.cancelled_caught:
            raise self._too_late()
        else:
            raise Refusal(404, "the session has ended", cause="session_ended")

    def _do_at_once(self) -> None:
        """Send, and pass on what is here of the answer, as far as nothing has to wait."""
        if self._unsent:
            self._send_now()
        ready = not (self._unsent or self._held or self._fault)
        if ready and (data := self._bot.read_now(FIRST_SIZE)) is not None:
            self._receive(data)
            self._take_events()
            if self._held:
                self._flush_now()

    async def _take_time(self, traffic: Traffic, session_id: str) -> None:
        """The same with both ways at a time, until one of all the ends comes."""
        async with trio.open_nursery() as nursery:
            self._all, self._patience = nursery.cancel_scope, trio.CancelScope()
            traffic.watch(session_id, nursery.cancel_scope)
            try:
                self._be_patient()
                nursery.start_soon(self._upload)
                with self._patience:
                    try:
                        await self._download()
                    except Refusal as refusal:
                        self._failure = self._failure or refusal
                nursery.cancel_scope.cancel()
            finally:
                traffic.unwatch(session_id, nursery.cancel_scope)

    def _be_patient(self) -> None:
        if self._patience is not None and self._exchange.status is None:
            self._patience.deadline = trio.current_time() + HEAD_TIMEOUT

    def _too_late(self) -> Refusal:
        if self._sent_whole:
            reason = f"the bot did not answer within {HEAD_TIMEOUT:g} s"
            return Refusal(504, reason, cause="bot_timeout")
        return Refusal(408, "the request body took too long", cause="slow_body", close=True)

    def _leave(self) -> None:
        self._client_left = True
        self._end()

    def _end(self) -> None:
        if self._all is not None:
            self._all.cancel()

    # From the client to the bot.

    async def _upload(self) -> None:
        """Pass the request on; then watch the client, whose leaving ends the exchange."""
        exchange, body = self._exchange, self._body
        while await self._send() and not body.whole:
            if body.faulty:
                reason = "the request body is malformed"
                self._failure = Refusal(400, reason, cause="bad_body", close=True)
                self._end()
                return
            if not await self._take_more():
                self._leave()
                return
        # Also when the bot takes no more of the request: its answer decides what becomes of it.
        while len(exchange.heads) < MAX_AHEAD:
            data = await exchange.receive()
            if not data:
                self._leave()
                return
            if body.whole:
                exchange.heads.feed(data)
            else:
                exchange.take_body(data)

    async def _take_more(self) -> bool:
        """The next piece of the request's body, framed for the bot; False at the client's end."""
        exchange, body = self._exchange, self._body
        if isinstance(body, LengthBody):
            while (count := exchange.client.read_into(SCRATCH[: body.left])) is None:
                await exchange.client.wait_readable()
            exchange.received_bytes += count
            body.left -= count
            self._pass_up(SCRATCH[:count])
            await trio.lowlevel.checkpoint()  # two fast ends never block: others have a turn
            return count > 0
        data = await exchange.client.read(RECEIVE_SIZE)
        exchange.received_bytes += len(data)
        self._unsent = framed_request(body, exchange.take_body(data))
        return len(data) > 0

    def _pass_up(self, data: memoryview) -> None:
        """Send what stands in `SCRATCH`; what the bot does not take at once is copied."""
        taken = self._bot.write_now(data)
        self._unsent = bytes(data[taken or 0 :])
        if taken:
            self._be_patient()

    async def _send(self) -> bool:
        """Send what is to be sent to the bot; whether it still takes anything."""
        while self._unsent:
            if not self._send_now():
                return False
            if self._unsent:
                await self._bot.wait_writable()
        return True

    def _send_now(self) -> bool:
        taken = self._bot.write_now(self._unsent)
        if taken:
            self._be_patient()
            whole = taken == len(self._unsent)
            self._unsent = b"" if whole else memoryview(self._unsent)[taken:]
        return taken is not None

    # From the bot to the client.

    async def _download(self) -> None:
        """Pass the answer on, each read of it with one write; goes on where it was cancelled."""
        while await self._flush() and not self._answer_whole:
            if self._fault is not None:
                raise self._fault
            if self._talk.passing:
                await self._pass_down()
            else:
                await self._take_answer()

    async def _flush(self) -> bool:
        """Send what the client has not taken; whether it takes anything."""
        exchange = self._exchange
        while self._held:
            if not self._flush_now():
                return False
            if not self._held:
                break
            with trio.move_on_after(exchange.front.limits.pause_timeout) as waiting:
                await exchange.client.wait_writable()
            if waiting.cancelled_caught:
                self._leave()
                return False
        return True

    def _flush_now(self) -> bool:
        taken = self._exchange.client.write_now(self._held)
        if taken is None:
            self._leave()
            return False
        self._exchange.sent_bytes += taken
        self._held = b"" if taken == len(self._held) else memoryview(self._held)[taken:]
        return True

    async def _pass_down(self) -> None:
        """One read of a body that needs no decoding."""
        room = min(self._talk.passing, len(SCRATCH))
        while (count := self._bot.read_into(SCRATCH[:room])) is None:
            await self._bot.wait_readable()
        self._talk.passed(count)
        if not count:
            self._receive(b"")
        elif self._chunked:
            self._held = chunk(bytes(SCRATCH[:count]))
        else:
            taken = self._exchange.client.write_now(SCRATCH[:count])
            self._exchange.sent_bytes += taken or 0
            self._held = bytes(SCRATCH[taken or 0 : count])
        if count and self._talk.passing:
            await trio.lowlevel.checkpoint()  # as above
        else:
            self._take_events()

    async def _take_answer(self) -> None:
        while (data := self._bot.read_now(RECEIVE_SIZE)) is None:
            await self._bot.wait_readable()
        self._receive(data)
        self._take_events()
        if not self._answer_whole:
            await trio.lowlevel.checkpoint()  # as above

    def _receive(self, data: bytes) -> None:
        if self._bot.broken:  # where only the end says that an answer is whole, this is none
            self._fault = bot_died()
        else:
            self._talk.receive(data)

    def _take_events(self) -> None:
        """Collect what is here of the answer."""
        pieces = [self._held] if self._held else []
        try:
            while (
                not (self._answer_whole or self._fault)
                and (event := self._talk.next_event()) is not None
            ):
                pieces.append(self._passed(event))
        except Refusal as refusal:
            self._fault = refusal
        self._held = pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _passed(self, event: BotHead | bytes | BotEnd) -> bytes:
        """The same for the client, in the framing that it understands."""
        if isinstance(event, bytes):
            return chunk(event) if self._chunked else event
        if isinstance(event, BotHead):
            return self._interim(event) if event.interim else self._head(event)
        self._answer_whole = True
        return last_chunk(in_trailers(self._talk.trailers)) if self._chunked else b""

    def _interim(self, head: BotHead) -> bytes:
        if self._exchange.head.version == b"1.0":
            return b""  # RFC 9110 section 15.2: HTTP/1.0 knows none
        fields = [field for field in end_to_end(head.fields) if field[0] not in replies.OWN_FIELDS]
        return replies.raw(head.status, head.reason, fields)

    def _head(self, head: BotHead) -> bytes:
        exchange = self._exchange
        if self._patience is not None:
            self._patience.deadline = math.inf
        if not self._sent_whole:
            # An answer to half a request: the other half may or may not be read by the bot.
            exchange.keep_alive = False
        exchange.status = head.status
        framing = self._talk.framing(exchange.head.version)
        self._chunked = CHUNKED in framing
        fields = replies.passed_fields(exchange, end_to_end(head.fields), framing)
        return replies.raw(head.status, head.reason, fields)
