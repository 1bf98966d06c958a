"""A client's connection: exchange after exchange, each through the seven phases.

1. accept: the connection is counted; over the limit it is told so and closed.
2. parse: one head is read within its limits and judged.
3. route: the target names a route, or there is nothing there.
4. authenticate: the handler checks key or token, and that the request makes sense.
5. resolve: the handler finds the session, its instance, a bot that answers.
6. relay: the handler answers, or hands the WebSocket to a pump.
7. close: the log line is written, and the connection goes on or ends.

A `Refusal` raised in any phase becomes the answer. Anything else that is raised is a
bug: the caller gets a 500 without its text, the log gets all of it.
"""

from __future__ import annotations

__all__ = ["Connection"]

import math

import trio

from relay.errors import Refusal, StoreError
from relay.protocol.http1 import HeadBuffer, parse_request, request_body
from relay.server import replies
from relay.server.exchange import Exchange, Front, Phase
from relay.server.guard import Guard
from relay.server.handing import Moved, restarting
from relay.server.peers import Networks
from relay.server.routing import Routes, target_of
from relay.server.secure import Stream, leg_of, reset

# After an answer that ends the connection, what the client still sends is read and
# dropped for so long and so much, so that a reset does not destroy the answer.
LINGER_SECONDS = 1.0
LINGER_BYTES = 1024 * 1024
LINGER_READ = 64 * 1024
# The same for connections over the limit, which nothing else counts.
REFUSED_LINGER_SECONDS = 0.2


class Connection:
    """Serves one client connection until either side is done.

    Args:
        stream: the client; closed at the end unless a handler has taken it.
        peer: the client's address, for logs, forwarding fields and limits.
        early: what has been read of its first request.
        guard: what callers may ask for; None where nothing is limited.
    """

    def __init__(
        self,
        stream: Stream,
        peer: str,
        front: Front,
        table: Routes,
        early: bytes = b"",
        guard: Guard | None = None,
    ) -> None:
        self._stream = stream
        self._client = leg_of(stream)
        self._peer = peer
        self._front = front
        self._routes = table
        self._guard = guard
        self._first = True
        self._heads = HeadBuffer(front.rules.heads)
        self._heads.feed(early)
        # Around everything: its deadline is that of a wait for the next request, else none.
        self._scope = trio.CancelScope()
        self._idle = False
        self._reading = False  # a head, or a wait for one
        self._moving = False
        self._head = b""  # of the request that has no answer yet
        self._gave_turn = False  # to others, in the last exchange
        self._judged_by: Networks | None = None
        self._trusted = False
        self.session_given: str | None = None  # see `Exchange`

    async def serve(self) -> None:
        """Exchanges until the connection ends; never raises for what a client does."""
        taken = False
        try:
            try:
                with self._scope:
                    taken = await self._serve_all()
                if self._moving:
                    raise Moved()
            except Moved as moved:
                taken = await self._hand_over(moved)
                if not taken and self._head:
                    await self.refuse_accept(restarting())
        finally:
            if not taken:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(self._stream)

    async def _serve_all(self) -> bool:
        """One exchange after the other; whether a handler has taken the stream."""
        while True:
            self._head = b""
            if self._front.successor is not None:
                raise Moved()
            exchange = self._exchange()
            if not await self._serve_one(exchange):
                return exchange.taken
            self._gave_turn = exchange.gave_turn

    def move(self) -> None:
        """Let the next process read on if nothing of a request has been begun."""
        if self._reading:
            self._moving = True
            self._scope.cancel()

    async def _hand_over(self, moved: Moved) -> bool:
        """Give the connection with its unanswered request to the next process."""
        successor, stream = self._front.successor, self._stream
        if successor is None or not isinstance(stream, trio.SocketStream):
            return False  # what TLS has agreed upon is in this process
        data = self._head + moved.body + self._heads.take()
        sock, role = stream.socket, self._routes.role
        given = moved.session or self.session_given
        taken = await successor.client(role, sock.fileno(), self._peer, data, given)
        if taken:
            sock.close()
        return taken

    def end_idle(self) -> None:
        """End it now if it only waits for a next request."""
        if self._idle:
            self._scope.cancel()

    async def refuse_accept(self, refusal: Refusal, *, answered: bool = True) -> None:
        """Answer a connection over the limit, or end it; what it asks is not looked at."""
        exchange = self._exchange()
        exchange.request_id = self._front.new_id()
        exchange.enter(Phase.ACCEPT)
        try:
            if answered:
                await self._refuse(exchange, refusal)
            exchange.cause = refusal.cause
            self._front.log.exchange(exchange.record())
            if answered:
                await self._linger(REFUSED_LINGER_SECONDS)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)

    def _exchange(self) -> Exchange:
        exchange = Exchange(self._front, self._stream, self._client, self._heads, self._peer)
        exchange.guard = self._guard
        exchange.session_given, self.session_given = self.session_given, None
        return exchange

    async def _serve_one(self, exchange: Exchange) -> bool:
        """One exchange; whether the connection can carry another."""
        exchange.request_id = self._front.new_id()
        try:
            if not await self._parse(exchange):
                return False
            exchange.enter(Phase.ROUTE)
            handler = self._routes.handler(exchange)
            exchange.enter(Phase.AUTHENTICATE)
            if self._guard is not None:
                self._guard.check(exchange)
            await handler.authenticate()
            exchange.enter(Phase.RESOLVE)
            await handler.resolve()
            exchange.enter(Phase.RELAY)
            await handler.relay()
        except Moved:
            raise
        except Refusal as refusal:
            if self._guard is not None:
                self._guard.refused(exchange, refusal)
            await self._refuse(exchange, refusal)
        except StoreError as error:
            self._front.log.failure("store", error, request_id=exchange.request_id)
            await self._refuse(exchange, _store_failed())
        except Exception as error:
            self._front.log.failure("bug", error, request_id=exchange.request_id)
            await self._refuse(exchange, _internal())
        return await self._close(exchange)

    async def _parse(self, exchange: Exchange) -> bool:
        self._reading = True
        head = await self._wait_head(exchange)
        self._reading = False
        if head is None:
            return False
        self._head = head
        if self._moving:
            raise Moved()  # what came in that moment is begun there
        request = exchange.request = parse_request(head)
        exchange.body = request_body(request)
        # RFC 9112 section 9.3.
        exchange.keep_alive = request.version == b"1.1" and b"close" not in request.tokens(
            b"connection"
        )
        exchange.take_request_id()
        if self._front.traces is not None and self._routes.role == "public":
            exchange.trace = self._front.traces.begin(request.headers)
        exchange.target = target_of(request)
        return True

    async def _wait_head(self, exchange: Exchange) -> bytes | None:
        """The next head; None when the client is done or idle for too long."""
        limits = self._front.limits
        patience = limits.head_timeout if self._first else limits.keep_alive_timeout
        self._first = False
        if len(self._heads) or exchange.receive_ahead():
            if not self._gave_turn:  # who has sent ahead is not served out of turn
                await trio.lowlevel.checkpoint()
        else:
            self._idle, self._scope.deadline = True, trio.current_time() + patience
            self._heads.feed(await exchange.receive())
            self._idle, self._scope.deadline = False, math.inf
            # What came in the moment of the end is not begun: it could not be finished.
            if not len(self._heads) or self._scope.cancel_called:
                return None
        exchange.enter(Phase.PARSE)
        self._heads.limits = self._front.rules.heads
        exchange.trusted = self._is_trusted()
        head = self._heads.next_head()
        if head is not None:
            return head
        with trio.move_on_after(limits.head_timeout):
            while True:
                data = await exchange.receive()
                if not data:
                    return None
                self._heads.feed(data)
                head = self._heads.next_head()
                if head is not None:
                    return head
        reason = f"the request head took longer than {limits.head_timeout:g} s"
        raise Refusal(408, reason, cause="slow_head", close=True)

    def _is_trusted(self) -> bool:
        """Whether the peer's account is believed; asked once for each list of networks."""
        rules = self._front.rules
        if self._judged_by is not rules.trusted:
            self._judged_by, self._trusted = rules.trusted, rules.trusts(self._peer)
        return self._trusted

    async def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._reading = False
        exchange.cause = refusal.cause
        if exchange.taken or exchange.status is not None:
            exchange.keep_alive = False  # an answer is out already: ending is all that is left
            return
        if refusal.close:
            exchange.keep_alive = False
        self._finish_body(exchange)
        body = replies.error_body(refusal, exchange.phase)
        await exchange.reply(refusal.status, body, refusal.headers)

    def _finish_body(self, exchange: Exchange) -> None:
        """A body that nobody read: taken if it is all here already, else the connection ends."""
        body = exchange.body
        if body is not None and not body.whole:
            exchange.take_body(self._heads.take())
            if not body.whole:
                exchange.keep_alive = False

    async def _close(self, exchange: Exchange) -> bool:
        exchange.enter(Phase.CLOSE)
        self._front.log.exchange(exchange.record())
        if exchange.taken:
            return False
        if exchange.torn:
            reset(self._stream)
            return False
        self._finish_body(exchange)
        if exchange.request is not None and exchange.keep_alive:
            return not self._front.ending or len(self._heads) > 0
        await self._linger(LINGER_SECONDS)
        return False

    async def _linger(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            try:
                await self._stream.send_eof()
                seen = 0
                while seen < LINGER_BYTES:
                    data = await self._client.read(LINGER_READ)
                    if not data:
                        return
                    seen += len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return


def _store_failed() -> Refusal:
    return Refusal(
        503,
        "the session store can't be used at the moment; try again",
        cause="store_failed",
        headers=((b"retry-after", b"1"),),
    )


def _internal() -> Refusal:
    return Refusal(500, "something went wrong here; the log has it", cause="bug", close=True)
