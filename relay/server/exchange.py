"""One request with its answer: what handlers read, write and are measured by."""

from __future__ import annotations

__all__ = ["Exchange", "Front", "Phase"]

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import h11
import trio

from relay.errors import Refusal
from relay.policy.catalog import Catalog, Limits
from relay.policy.interfaces import Figures, InstancePool, Log, Store
from relay.policy.routes import Match
from relay.protocol.http1 import HeadBuffer, Request
from relay.protocol.target import Target, redacted
from relay.server import replies

if TYPE_CHECKING:
    from relay.server.calls import Calls
    from relay.server.pumps import Pumps
    from relay.server.sessions import SessionKeeper

RECEIVE_SIZE = 16 * 1024
# Chunk sizes, extensions and trailers may take so many times what the body may; tiny
# chunks without extensions fit. Who sends more wants work done, not a body read.
FRAMING_ROOM = 8
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}")


class Phase(StrEnum):
    """The seven phases of an exchange, in order."""

    ACCEPT = "accept"
    PARSE = "parse"
    ROUTE = "route"
    AUTHENTICATE = "authenticate"
    RESOLVE = "resolve"
    RELAY = "relay"
    CLOSE = "close"


@dataclass(slots=True)
class Front:
    """What every exchange may use: the wired parts of the daemon.

    Attributes:
        now: unix seconds. clock: monotonic seconds. new_id: a fresh UUID as text.
        background: for what goes on when its exchange is over.
        draining: no new sessions are taken. sockets: names of the listeners' addresses.
        held: requests of the Session API that wait for their session, by agent.
        figures: what has been counted so far. describe: the configuration in force.
        console: content type and bytes of the console's files, by name.
        name: of this node. version: of the daemon. started_at: unix seconds.
    """

    catalog: Catalog
    limits: Limits
    store: Store
    pool: InstancePool
    sessions: SessionKeeper
    pumps: Pumps
    calls: Calls
    log: Log
    background: trio.Nursery
    now: Callable[[], float]
    clock: Callable[[], float]
    new_id: Callable[[], str]
    figures: Figures
    describe: Callable[[], str]
    console: Mapping[str, tuple[bytes, bytes]]
    name: str
    version: str
    started_at: float
    admin_token: str | None = None
    draining: bool = False
    held: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Exchange:
    """A request on its way through the phases.

    `reply` may be called once, and not after `leave`.
    """

    front: Front
    stream: trio.abc.HalfCloseableStream
    heads: HeadBuffer
    peer: str
    request_id: str = ""
    phase: Phase = Phase.ACCEPT
    request: Request | None = None
    target: Target | None = None
    match: Match | None = None
    http: h11.Connection | None = None
    session_id: str | None = None
    agent: str | None = None
    cause: str | None = None
    status: int | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    keep_alive: bool = True
    taken: bool = False
    client_left: bool = False
    phase_times: dict[Phase, float] = field(default_factory=dict)
    _entered: float = 0.0

    def enter(self, phase: Phase) -> None:
        """The next phase begins; the time since the last call belonged to the one before."""
        now = self.front.clock()
        if self._entered:
            spent = now - self._entered
            self.phase_times[self.phase] = self.phase_times.get(self.phase, 0.0) + spent
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
        given = self.request.value(b"x-request-id") if self.request else None
        if given is not None and REQUEST_ID.fullmatch(given):
            self.request_id = given.decode("ascii")

    async def receive(self) -> bytes:
        """The next bytes from the client, b"" at the end; the caller bounds the time."""
        try:
            data = await self.stream.receive_some(RECEIVE_SIZE)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""
        self.received_bytes += len(data)
        return bytes(data)

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
        assert self.http is not None
        if self.http.they_are_waiting_for_100_continue and not len(self.heads):
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            await self.send(self.http.send(go_on) or b"")
        try:
            with trio.fail_after(self.front.limits.body_timeout):
                return await self._collect(limit)
        except trio.TooSlowError:
            raise Refusal(
                408, "the request body took too long", cause="slow_body", close=True
            ) from None
        except h11.RemoteProtocolError:
            raise Refusal(
                400, "the request body is malformed or incomplete", cause="bad_body", close=True
            ) from None

    async def _collect(self, limit: int) -> bytes:
        http, body = self.http, bytearray()
        assert http is not None
        if len(self.heads):
            http.receive_data(self.heads.take())
        most = self.received_bytes + limit * FRAMING_ROOM
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                if self.received_bytes > most:
                    raise _too_large(limit)
                http.receive_data(await self.receive())
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > limit:
                    raise _too_large(limit)
            else:
                return bytes(body)

    async def send(self, data: bytes) -> bool:
        """Write within the write timeout; a client that is gone or stuck ends the connection.

        Returns:
            whether all of it was written.
        """
        with trio.move_on_after(self.front.limits.write_timeout):
            try:
                await self.stream.send_all(data)
                self.sent_bytes += len(data)
                return True
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
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
        await self.send(self._answer(status, body, fields))

    def _answer(self, status: int, body: bytes | None, fields: list[tuple[bytes, bytes]]) -> bytes:
        http, request = self.http, self.request
        if http is None or http.our_state is not h11.SEND_RESPONSE:
            # No request could be parsed: h11 has no exchange to answer.
            self.keep_alive = False
            return replies.raw(status, fields, body)
        data = http.send(
            h11.Response(status_code=status, headers=fields, reason=replies.reason(status))
        )
        parts = [data or b""]
        if body and request is not None and request.method != b"HEAD":
            parts.append(http.send(h11.Data(data=body)) or b"")
        parts.append(http.send(h11.EndOfMessage()) or b"")
        return b"".join(parts)

    def record(self) -> dict[str, object]:
        """What a log line may say of this exchange."""
        request, match = self.request, self.match
        reached = [phase.value for phase in self.phase_times if phase is not Phase.CLOSE]
        fields: dict[str, object] = {
            "request_id": self.request_id,
            "session_id": self.session_id,
            "agent": self.agent,
            "peer": self.peer,
            "method": request.method.decode("ascii") if request else None,
            "path": redacted(request.target) if request else None,
            "route": match.route.value if match else None,
            "phase": reached[-1] if reached else self.phase.value,
            "status": self.status,
            "cause": self.cause,
            "ms": round(sum(self.phase_times.values()) * 1000, 3),
            "bytes_in": self.received_bytes,
            "bytes_out": self.sent_bytes,
        }
        for phase, seconds in self.phase_times.items():
            fields[f"{phase.value}_ms"] = round(seconds * 1000, 3)
        return {key: value for key, value in fields.items() if value is not None}

    def leave(self) -> None:
        """The connection belongs to somebody else from now on; no answer is written."""
        self.taken = True
        self.keep_alive = False


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413,
        f"the request body is larger than {limit} bytes",
        cause="request_too_large",
        close=True,
    )
