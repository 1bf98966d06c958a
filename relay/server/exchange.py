"""One request with its answer: what handlers read, write and are measured by."""

from __future__ import annotations

__all__ = ["Exchange", "Front", "Phase"]

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import trio

from relay.errors import Refusal
from relay.policy.catalog import Catalog, Limits
from relay.policy.interfaces import Figures, InstancePool, Log, Store
from relay.policy.phases import PHASE_FIELDS, Phase
from relay.policy.routes import Match
from relay.policy.traces import Trace, Tracing
from relay.protocol.chunks import ChunkedBody, LengthBody
from relay.protocol.http1 import HeadBuffer, Request
from relay.protocol.target import Target, redacted
from relay.server import replies
from relay.server.draining import Draining
from relay.server.identifiers import is_request_id
from relay.server.leg import Leg
from relay.server.rules import Rules
from relay.server.secure import Stream

if TYPE_CHECKING:
    from relay.server.bot_pool import BotPool
    from relay.server.calls import Calls
    from relay.server.guard import Guard
    from relay.server.handing import Successor
    from relay.server.pumps import Pumps
    from relay.server.sessions import SessionKeeper
    from relay.server.traffic import Traffic

# Heads and small bodies come in one read of this size.
RECEIVE_SIZE = 16 * 1024
# Chunk sizes, extensions and trailers may take so many times what the body may; tiny
# chunks without extensions fit. Who sends more wants work done, not a body read.
FRAMING_ROOM = 8
# Clients ask for few addresses again and again; what a log line shows of them is kept.
MAX_KNOWN_PATH = 512
_known_path = lru_cache(maxsize=512)(redacted)


def _set() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Front:
    """What every exchange may use: the wired parts of the daemon.

    Attributes:
        now: unix seconds. clock: monotonic seconds. new_id: a fresh UUID as text.
        background: for what goes on when its exchange is over.
        rules: the configuration in force. drains: what takes no new sessions for now.
        ending: the daemon is about to stop. alone: the process before this one is gone.
        successor: the next process, once it is the node.
        held: requests of the Session API that wait for their session, by agent.
        figures: what has been counted so far.
        reload: follows the configuration file as it is now, see `relay.reloading`.
        upgrade: has another process take this one's place.
        console: content type and bytes of the console's files, by name.
        name: of this node. version: of the daemon. started_at: unix seconds.
        traces: gives exchanges their place in a trace; None when nobody wants spans.
    """

    rules: Rules
    drains: Draining
    store: Store
    pool: InstancePool
    sessions: SessionKeeper
    bots: BotPool
    traffic: Traffic
    pumps: Pumps
    calls: Calls
    log: Log
    background: trio.Nursery
    now: Callable[[], float]
    clock: Callable[[], float]
    new_id: Callable[[], str]
    figures: Figures
    reload: Callable[[], Awaitable[Sequence[str]]]
    upgrade: Callable[[], Awaitable[dict[str, object]]]
    console: Mapping[str, tuple[bytes, bytes]]
    name: str
    version: str
    started_at: float
    ending: bool = False
    alone: trio.Event = field(default_factory=_set)
    successor: Successor | None = None
    held: Counter[str] = field(default_factory=Counter)
    traces: Tracing | None = None

    @property
    def catalog(self) -> Catalog:
        return self.rules.catalog

    @property
    def limits(self) -> Limits:
        return self.rules.limits

    @property
    def draining(self) -> bool:
        """Whether no agent takes new sessions here."""
        return self.ending or self.drains.state.node


@dataclass(slots=True)
class Exchange:
    """A request on its way through the phases.

    `reply` may be called once, and not after `leave`.

    Attributes:
        body: the request's body, as far as it has been taken; see `take_body`.
        trusted: the peer's own account of the request's way is believed.
        guard: what its caller may ask for; None where nothing is limited.
        session_given: the session that it had in the process before this one, without a token.
        gave_turn: others have had a turn of the loop meanwhile.
        torn: the answer broke off where its framing does not show it: the connection is reset.
        trace: its place in a trace, where there are any.
    """

    front: Front
    stream: Stream
    client: Leg
    heads: HeadBuffer
    peer: str
    request_id: str = ""
    phase: Phase = Phase.ACCEPT
    request: Request | None = None
    target: Target | None = None
    match: Match | None = None
    body: LengthBody | ChunkedBody | None = None
    trusted: bool = False
    guard: Guard | None = None
    session_id: str | None = None
    agent: str | None = None
    cause: str | None = None
    status: int | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    keep_alive: bool = True
    taken: bool = False
    client_left: bool = False
    gave_turn: bool = False
    torn: bool = False
    session_given: str | None = None
    trace: Trace | None = None
    phase_times: dict[Phase, float] = field(default_factory=dict)
    _entered: float = 0.0

    def enter(self, phase: Phase) -> None:
        """The next phase begins; the time since the last call belonged to the one before."""
        now = self.front.clock()
        if self._entered:
            self.phase_times[self.phase] = now - self._entered
        self._entered = now
        self.phase = phase

    @property
    def head(self) -> Request:
        assert self.request is not None, "only after the parse phase"
        return self.request

    @property
    def url(self) -> Target:
        assert self.target is not None, "only after the parse phase"
        return self.target

    @property
    def names(self) -> dict[str, str]:
        assert self.match is not None, "only after the route phase"
        return self.match.names

    def take_request_id(self) -> None:
        """Keep the caller's X-Request-Id when it is short and safe, else make one."""
        given = self.head.value(b"x-request-id")
        if given is not None and is_request_id(given):
            self.request_id = given.decode("ascii")

    async def receive(self) -> bytes:
        """The next bytes from the client, b"" at the end; the caller bounds the time."""
        data = await self.client.read(RECEIVE_SIZE)
        self.received_bytes += len(data)
        return data

    def receive_ahead(self) -> bool:
        """Keep what the client has sent already; whether there was anything."""
        data = self.client.read_now(RECEIVE_SIZE)
        if not data:
            return False  # nothing yet, or the end, which the next read meets as well
        self.received_bytes += len(data)
        self.heads.feed(data)
        return True

    def take_body(self, data: bytes) -> bytes:
        """The body's part of what came, out of its framing; what is behind it is kept."""
        assert self.body is not None, "only after the parse phase"
        piece = self.body.take(data)
        if self.body.rest:
            self.heads.feed(self.body.rest)
        return piece

    async def cancel_when_left(self, scope: trio.CancelScope, most: int) -> None:
        """Cancel `scope` when the client goes; keep what it sends meanwhile, `most` bytes."""
        while len(self.heads) < most:
            data = await self.receive()
            if not data:
                self.client_left = True
                scope.cancel()
                return
            self.heads.feed(data)

    async def read_body(self, limit: int) -> bytes:
        """The whole request body, for handlers that need it in one piece.

        Raises:
            Refusal: 413 over `limit` bytes, 408 when it takes too long, 400 when it is
                malformed or ends early.
        """
        length = self.head.value(b"content-length")
        if length is not None and int(length) > limit:
            raise _too_large(limit)
        expects = self.head.version == b"1.1" and self.head.tokens(b"expect") != []
        if expects and self.head.has_body and not len(self.heads):
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        with trio.move_on_after(self.front.limits.body_timeout):
            return await self._collect(limit)
        raise Refusal(408, "the request body took too long", cause="slow_body", close=True)

    async def _collect(self, limit: int) -> bytes:
        body = self.body
        assert body is not None
        collected = bytearray(self.take_body(self.heads.take()))
        most = self.received_bytes + limit * FRAMING_ROOM
        while len(collected) <= limit and not body.whole:
            data = b"" if body.faulty else await self.receive()
            if not data:
                raise Refusal(
                    400, "the request body is malformed or incomplete", cause="bad_body", close=True
                )
            if self.received_bytes > most:
                raise _too_large(limit)
            collected += self.take_body(data)
        if len(collected) > limit:
            raise _too_large(limit)
        return bytes(collected)

    async def send(self, data: bytes) -> bool:
        """Write; a client that is gone, or that takes nothing for the write timeout, ends it.

        Returns:
            whether all of it was written.
        """
        left = memoryview(data)
        while (taken := self.client.write_now(left)) is not None:
            self.sent_bytes += taken
            left = left[taken:]
            if not left:
                return True
            with trio.move_on_after(self.front.limits.write_timeout) as waiting:
                await self.client.wait_writable()
            if waiting.cancelled_caught:
                break
        self.keep_alive = False
        return False

    async def reply(
        self,
        status: int,
        body: bytes | None = None,
        headers: replies.Fields = (),
        *,
        passed: bool = False,
    ) -> None:
        """Answer the request: with JSON of our own, or with what a bot said, `passed` on."""
        self.status = status
        fields = replies.fields(self, body, headers, passed=passed)
        if status == 204 or (self.request is not None and self.request.method == b"HEAD"):
            body = None
        await self.send(replies.raw(status, replies.reason(status), fields) + (body or b""))

    def record(self) -> dict[str, object]:
        """What a log line may say of this exchange."""
        request, match, times = self.request, self.match, self.phase_times
        known: dict[str, object] = {
            "request_id": self.request_id,
            "session_id": self.session_id,
            "agent": self.agent,
            "peer": self.peer,
            "method": request.method.decode("ascii") if request else None,
            "path": _shown(request.target) if request else None,
            "route": match.route.value if match else None,
            # The last one that was left: whoever asks is in the phase `close`.
            "phase": str(next(reversed(times), self.phase)),
            "status": self.status,
            "cause": self.cause,
            "ms": _milliseconds(sum(times.values())),
            "bytes_in": self.received_bytes,
            "bytes_out": self.sent_bytes,
        }
        fields = {key: value for key, value in known.items() if value is not None}
        for phase, seconds in times.items():
            fields[PHASE_FIELDS[phase]] = _milliseconds(seconds)
        if self.trace is not None:
            fields.update(self.trace.fields())
        return fields

    def opens(self, session_id: str) -> None:
        """It brings the caller of this session, or has reserved it."""
        self.session_id = session_id
        if self.trace is not None and self.front.traces is not None:
            self.trace = self.front.traces.opened(session_id, self.trace, self.phase_times)

    def leave(self) -> None:
        """The connection belongs to somebody else from now on; no answer is written."""
        self.taken = True
        self.keep_alive = False


def _milliseconds(seconds: float) -> float:
    """To the microsecond; `round` takes three times as long."""
    return int(seconds * 1e6 + 0.5) / 1000


def _shown(target: bytes) -> str:
    return _known_path(target) if len(target) <= MAX_KNOWN_PATH else redacted(target)


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413,
        f"the request body is larger than {limit} bytes",
        cause="request_too_large",
        close=True,
    )
