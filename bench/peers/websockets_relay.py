"""A relay from a `websockets` server to a `websockets` client, on asyncio.

One task per direction; messages pass whole. A Close is passed on with its code;
one without a code becomes 1000. Each end answers pings itself.
"""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bench.client import raise_descriptor_limit
from bench.peers.options import MAX_MESSAGE, parser, say_listening

__all__ = ["main"]

NORMAL, GOING_AWAY = 1000, 1001
# What stands for a Close without a code and for none at all: RFC 6455 section 7.4.1.
NO_CODE, NO_CLOSE = 1005, 1006


async def relay(client: ServerConnection, origin: str) -> None:
    """Carry one call until one end closes."""
    assert client.request is not None
    async with connect(
        f"ws://{origin}{client.request.path}",
        compression=None,
        max_size=MAX_MESSAGE,
        ping_interval=None,
        proxy=None,
    ) as server:
        await asyncio.gather(pass_on(client, server), pass_on(server, client))


async def pass_on(source: Connection, sink: Connection) -> None:
    """Pass messages on until the source is closed; then the sink is closed as well."""
    try:
        async for message in source:
            await sink.send(message)
    except ConnectionClosed:
        pass  # of either end; the codes say how
    code = source.close_code or NORMAL
    code = {NO_CODE: NORMAL, NO_CLOSE: GOING_AWAY}.get(code, code)
    await sink.close(code, source.close_reason or "")


async def run(origin: str) -> None:
    """Listen on a free port of loopback until the process ends."""
    async with serve(
        lambda client: relay(client, origin),
        "127.0.0.1",
        0,
        compression=None,
        max_size=MAX_MESSAGE,
        ping_interval=None,
    ) as server:
        (listener,) = server.sockets
        say_listening(listener.getsockname()[1])
        await asyncio.Event().wait()


def main() -> int:
    """Run until a signal ends the process."""
    options = parser("Pass WebSockets on, with websockets.").parse_args()
    raise_descriptor_limit()
    asyncio.run(run(options.origin))
    return 0


if __name__ == "__main__":
    sys.exit(main())
