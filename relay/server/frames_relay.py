"""The `frames` way of relaying: a call in the control process, message by message.

What one side sends is read with wsproto and written anew for the other side, so text
is known to be UTF-8, messages can be bounded, and a Close fits between any two frames,
whatever the source is in the midst of. The lifecycle (`protocol.lifecycle`) decides how
a call ends, as for a tunnel; this module carries out.

Laws
1. All that changes the lifecycle or adds to an outbox does not wait: what is read and
   what is ordered have one order.
2. One task reads a side, one writes it. What is to be written is a whole number of
   frames, behind a Close there is nothing.
3. A side is not read while an open other side has not taken what came from it, so a
   call holds one read with what wsproto makes of it, in each direction.
"""

from __future__ import annotations

__all__ = ["FramesCall"]

from collections.abc import Awaitable, Callable

import trio
from wsproto.events import CloseConnection, Message, Ping
from wsproto.events import Event as Received

from relay.protocol.lifecycle import (
    ENDINGS,
    Event,
    Flow,
    Kind,
    Side,
    TunnelState,
    finished,
    may_shut,
    step,
)
from relay.pump.channel import Adopt, Finished, Live
from relay.server.frames_leg import Leg
from relay.server.secure import Stream

# One read: audio is far smaller, and wsproto takes it apart before other tasks run.
READ_SIZE = 64 * 1024
# Frames that are passed on before other tasks have their turn: one read may hold
# thousands of tiny ones, each of which costs wsproto some ten microseconds.
FRAMES_AT_A_TIME = 50
# A write that takes less counts as taken at once: other tasks may have had their turn
# before this one, and less than a frame of audio is no stall.
LEAST_HOLD = 0.02
# A side that can't be written to any more may have said something before it went. So
# long it is waited for that its reader finds the end; it does at once, unless it is in
# the midst of many frames or held back.
LAST_WORDS = 1.0
# How long a client that broke the protocol has to leave; as in a pump.
LINGER = 1.0
# How long a bot that has gone is waited for to be judged; as in a pump.
ANSWER_TIMEOUT = 1.0
NEVER = float("inf")
# The cause of a call that ended in a way that is in no table.
LOST = "lost"
# The sides whose Close begins an end that has no code of our own.
CLOSERS = {
    ENDINGS[Event.DOWNSTREAM_CLOSE]: Side.DOWNSTREAM,
    ENDINGS[Event.UPSTREAM_CLOSE]: Side.UPSTREAM,
}


class FramesCall:
    """One relayed WebSocket, from both handshakes to its report.

    Args:
        adopt: what a pump would be told.
        client, bot: both are closed at the end.
        bot_failed: asked when a watched bot has gone without a Close.
    """

    def __init__(
        self,
        adopt: Adopt,
        client: Stream,
        bot: Stream,
        bot_failed: Callable[[], Awaitable[bool]],
    ) -> None:
        self._adopt = adopt
        self._bot_failed = bot_failed
        self._client = Leg(Side.DOWNSTREAM, client, adopt.max_message)
        self._bot = Leg(Side.UPSTREAM, bot, adopt.max_message)
        self._client.outbox += adopt.preface
        self._state = TunnelState()
        self._asking = False
        self._ending = trio.Event()
        self._done = trio.Event()
        self._started = self._active = trio.current_time()

    async def run(self) -> None:
        """Relay until the lifecycle is finished; see `report`."""
        legs = (self._bot, self._client)
        early_bytes = (self._adopt.from_bot, self._adopt.from_client)
        self._started = self._active = trio.current_time()
        for leg in legs:
            leg.last_read = self._started
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_time)
                for leg in legs:
                    nursery.start_soon(self._write, leg)
                for leg, early in zip(legs, early_bytes, strict=True):
                    await self._take(leg, early)
                for leg in legs:
                    nursery.start_soon(self._read, leg)
                await self._done.wait()
                nursery.cancel_scope.cancel()
        finally:
            for leg in legs:
                if not self._done.is_set():
                    leg.reset()
                leg.close()

    def end(self, event: Event) -> None:
        """End the call with the Close that `event` stands for."""
        self._apply(event)

    def live(self) -> Live:
        """How it stands."""
        return Live(
            tunnel=self._adopt.tunnel,
            session=self._adopt.session,
            seconds=round(trio.current_time() - self._started, 6),
            from_client=self._client.figures(),
            from_bot=self._bot.figures(),
        )

    def report(self) -> Finished:
        """The one cause, the close code, what was carried."""
        ending = self._state.ending
        cause, code, reason = LOST, None, ""
        if ending is not None:
            cause, code, reason = ending.cause, ending.to_downstream, ending.reason
            code = code or ending.to_upstream
            closer = CLOSERS.get(ending)
            if closer is not None:
                code, reason = self._close_of(closer)
        return Finished(
            tunnel=self._adopt.tunnel,
            session=self._adopt.session,
            cause=cause,
            code=None if code is None else int(code),
            reason=reason,
            seconds=round(trio.current_time() - self._started, 6),
            from_client=self._client.figures(),
            from_bot=self._bot.figures(),
        )

    # What a side sends.

    async def _read(self, leg: Leg) -> None:
        other = self._peer(leg)
        while True:
            while other.held and self._flow_from(leg) is Flow.OPEN:
                await other.changed.park()
            try:
                data = await leg.stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                leg.ended.set()
                self._apply(Event((leg.side, Kind.LOST)))
                return
            if not data:
                break
            await self._take(leg, bytes(data))
        leg.ended.set()
        whole = leg.reader.at_boundary
        asked = self._adopt.watched and leg is self._bot and self._state.ending is None
        if whole and asked:
            await self._ask()
        else:
            self._apply(Event((leg.side, Kind.EOF if whole else Kind.LOST)))

    async def _take(self, leg: Leg, data: bytes) -> None:
        if not data:
            return
        leg.note_read(trio.current_time())
        for number, event in enumerate(leg.reader.feed(data), 1):
            self._pass_on(leg, event)
            if number % FRAMES_AT_A_TIME == 0:
                await trio.lowlevel.checkpoint()

    def _pass_on(self, leg: Leg, event: Received | Kind) -> None:
        """Write for the other side what a side has sent; behind a Close only another one counts."""
        is_open = self._flow_from(leg) is Flow.OPEN
        if isinstance(event, Kind):
            if is_open:
                self._apply(Event((leg.side, event)))
            return
        if is_open:
            leg.bytes += self._peer(leg).write(event)
            if isinstance(event, Message) and event.message_finished:
                leg.messages += 1
                self._active = trio.current_time()
        if isinstance(event, CloseConnection):
            leg.closing = event
            self._apply(Event((leg.side, Kind.CLOSE)))

    async def _ask(self) -> None:
        """The bot has gone without a Close: has its process failed?"""
        self._asking = True
        failed = False
        with trio.move_on_after(ANSWER_TIMEOUT):
            failed = await self._bot_failed()
        if self._asking:
            self._asking = False
            self._apply(Event.UPSTREAM_LOST if failed else Event.UPSTREAM_EOF)

    # What is written to a side.

    async def _write(self, leg: Leg) -> None:
        try:
            while True:
                if leg.outbox:
                    await self._send(leg)
                elif may_shut(self._state, leg.side):
                    await leg.stream.send_eof()
                    return
                else:
                    await leg.changed.park()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            leg.give_up()
            with trio.move_on_after(LAST_WORDS):
                await leg.ended.wait()
            self._apply(Event((leg.side, Kind.LOST)))

    async def _send(self, leg: Leg) -> None:
        data, leg.outbox, leg.sending = leg.outbox, bytearray(), True
        start = trio.current_time()
        try:
            await leg.stream.send_all(data)
        finally:
            leg.sending = False
            took = trio.current_time() - start
            if took > LEAST_HOLD:
                self._peer(leg).note_hold(took)
        leg.changed.unpark_all()
        self._check_done()

    # What the lifecycle asks for.

    def _apply(self, event: Event) -> None:
        """Move the lifecycle by `event` and carry out what the new state asks for."""
        if self._done.is_set():
            return
        if self._asking:
            if event is Event.UPSTREAM_LOST:
                return  # a failed write tells nothing new: the bot is known to be gone
            self._asking = False
            self._apply(Event.UPSTREAM_EOF)
        self._state = step(self._state, event)
        for leg in (self._client, self._bot):
            if self._flow_from(leg) is Flow.CUTTING:
                self._cut(leg)
        for leg in (self._client, self._bot):
            if self._flow_from(self._peer(leg)) is Flow.BROKEN:
                leg.give_up()
            leg.changed.unpark_all()
        if self._state.ending is not None:
            self._ending.set()
        self._check_done()

    def _cut(self, source: Leg) -> None:
        """Write the Close that ends what comes from `source`: all that was written is whole."""
        ending = self._state.ending
        assert ending is not None
        sink = self._peer(source)
        code, reason = ending.code_from(source.side), ending.reason
        if CLOSERS.get(ending) is sink.side:
            # The source is gone without an answer to the Close that it got: the closing
            # handshake is completed for it, with the same code (RFC 6455 section 5.5.1).
            code, reason = self._close_of(sink.side)
        if code is not None:
            sink.write(CloseConnection(code=code, reason=reason))
        self._state = step(self._state, Event((source.side, Kind.CUT)))

    def _check_done(self) -> None:
        if finished(self._state) and not self._client.held and not self._bot.held:
            self._done.set()

    async def _watch_time(self) -> None:
        """Time limit, idleness and pings, then the closing handshake's time."""
        adopt = self._adopt
        limit = self._started + (adopt.max_seconds or NEVER)
        idle_at = self._started + (adopt.idle_seconds or NEVER)
        ping_at = self._started + (adopt.ping_seconds or NEVER)
        while self._state.ending is None:
            with trio.move_on_at(min(limit, idle_at, ping_at)):
                await self._ending.wait()
            now = trio.current_time()
            if now >= limit:
                self._apply(Event.TIME_LIMIT)
            idle_at = self._active + (adopt.idle_seconds or NEVER)
            if now >= idle_at:
                self._apply(Event.IDLE)
            if now >= ping_at and self._state.ending is None:
                ping_at = now + adopt.ping_seconds
                if not self._client.held:  # else there is traffic enough
                    self._client.write(Ping())
        ended = trio.current_time()
        await trio.sleep(min(LINGER, adopt.close_timeout))
        told = may_shut(self._state, Side.DOWNSTREAM) and not self._client.held
        if self._state.downstream.failed and told:
            self._apply(Event.DOWNSTREAM_EOF)
        await trio.sleep_until(ended + adopt.close_timeout)
        for leg in (self._client, self._bot):
            if not self._state.reading(leg.side).eof:
                leg.reset()
        self._apply(Event.CLOSE_TIMEOUT)

    def _peer(self, leg: Leg) -> Leg:
        return self._bot if leg is self._client else self._client

    def _flow_from(self, leg: Leg) -> Flow:
        """The state of the direction that reads from `leg`."""
        return self._state.reading(leg.side).flow

    def _close_of(self, side: Side) -> tuple[int | None, str]:
        """Code and reason of the Close that came from a side."""
        closing = (self._client if side is Side.DOWNSTREAM else self._bot).closing
        return (closing.code, closing.reason or "") if closing else (None, "")
