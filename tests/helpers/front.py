"""A client connection of the daemon's in this process: what it answers to pieces and pauses.

The time is virtual where the test's clock is; the route reads each body and answers with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import trio

from relay.policy.catalog import Catalog, Limits
from relay.policy.routes import Pattern, Route
from relay.server.connection import Connection
from relay.server.exchange import Exchange, Front
from relay.server.routing import Routes
from relay.server.rules import Rules
from tests.helpers.strict_http import read_answers

LIMITS = Limits(head_timeout=10, body_timeout=10, keep_alive_timeout=75)
# For ever, to a client that waits for the end.
ENOUGH = 1000.0

Script = Sequence[bytes | float]


class Reader:
    """A route that reads the body whole and answers with it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body = b""

    async def authenticate(self) -> None:
        self._body = await self._exchange.read_body(LIMITS.max_start_request)

    async def resolve(self) -> None:
        pass

    async def relay(self) -> None:
        await self._exchange.reply(200, self._body + self._exchange.head.target)


@dataclass
class Talk:
    """What a client got of a script, and when the connection had ended, in seconds."""

    data: bytes = b""
    seconds: float = 0.0
    causes: list[str] = field(default_factory=list)

    # The log of the front.
    def exchange(self, fields: dict[str, object]) -> None:
        self.causes.append(str(fields.get("cause")))

    def failure(self, event: str, error: Exception, **fields: object) -> None:
        raise error

    @property
    def finals(self) -> bytes:
        """Without what asks for a body that has not come yet."""
        return self.data.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")

    @property
    def statuses(self) -> list[int]:
        answers, rest = read_answers(self.data, [], closed=True)
        assert rest == b""
        return [answer.status for answer in answers]


async def talk(script: Script) -> Talk:
    """Serve a client that sends the pieces with the pauses, then only reads."""
    found = Talk()
    parts: dict[str, Any] = {name: cast(Any, None) for name in Front.__slots__}
    parts |= {"rules": Rules(Catalog({}, {}), LIMITS), "ending": False, "log": found}
    parts |= {"new_id": lambda: "id", "clock": trio.current_time}
    pattern = Pattern(Route.SESSION_API, (), (), takes_rest=True)
    table = Routes("public", (pattern,), {Route.SESSION_API: Reader})
    ours, theirs = map(trio.SocketStream, trio.socket.socketpair())
    start = trio.current_time()

    async def send() -> None:
        for step in script:
            if isinstance(step, bytes):
                try:
                    await ours.send_all(step)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
            else:
                await trio.sleep(step)

    async def receive() -> None:
        try:
            async for piece in ours:
                found.data += piece
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        found.seconds = trio.current_time() - start
        await ours.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(theirs, "peer", Front(**parts), table).serve)
        nursery.start_soon(receive)
        with trio.move_on_after(ENOUGH):
            await send()
    return found
