"""A reverse proxy for WebSockets and HTTP on aiohttp, with asyncio's own loop or uvloop.

A WebSocket is a server's end and a client's end with one task per direction, and
messages pass as aiohttp hands them out: whole. A Close is passed on with its code;
one without a code becomes 1000.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import TypeAlias

import aiohttp
from aiohttp import WSMsgType, web

from bench.client import raise_descriptor_limit
from bench.peers.options import MAX_MESSAGE, parser, say_listening

__all__ = ["main"]

KEEP_ALIVE = 3600.0  # seconds: no connection is to end while it is measured
NORMAL, GOING_AWAY = 1000, 1001
# RFC 9110 section 7.6.1: what belongs to one connection only.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

Socket: TypeAlias = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


class Proxy:
    """Passes everything on to `origin`, a http:// URL, over the connections of `session`."""

    def __init__(self, origin: str, session: aiohttp.ClientSession) -> None:
        self._origin, self._session = origin, session

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._tunnel(request)
        return await self._forward(request)

    async def _tunnel(self, request: web.Request) -> web.StreamResponse:
        async with self._session.ws_connect(
            self._origin + request.path_qs,
            autoping=False,
            autoclose=False,
            max_msg_size=MAX_MESSAGE,
            compress=0,
        ) as origin:
            client = web.WebSocketResponse(
                autoping=False, autoclose=False, max_msg_size=MAX_MESSAGE, compress=False
            )
            await client.prepare(request)
            await asyncio.gather(pass_on(client, origin), pass_on(origin, client))
            return client

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        async with self._session.request(
            request.method,
            self._origin + request.path_qs,
            headers=end_to_end(request.headers),
            data=request.content if request.body_exists else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=end_to_end(answer.headers)
            )
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


async def pass_on(source: Socket, sink: Socket) -> None:
    """Pass messages on until one end closes; then both are closed."""
    try:
        while not source.closed:  # it is when the other direction was quicker
            message = await source.receive()
            match message.type:
                case WSMsgType.TEXT:
                    await sink.send_str(message.data)
                case WSMsgType.BINARY:
                    await sink.send_bytes(message.data)
                case WSMsgType.PING:
                    await sink.ping(message.data)
                case WSMsgType.PONG:
                    await sink.pong(message.data)
                case WSMsgType.CLOSE:
                    code, reason = message.data or NORMAL, (message.extra or "").encode()
                    await sink.close(code=code, message=reason)
                    await source.close(code=code, message=reason)
                    return
                case WSMsgType.CLOSING:
                    return  # the other direction is closing it
                case _:
                    await sink.close(code=GOING_AWAY)
                    return
    except ConnectionError:
        pass  # the sink has gone, which the other direction sees as well


def end_to_end(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The header fields that are not about one connection; a name may come twice."""
    return [pair for pair in headers.items() if pair[0].lower() not in HOP_BY_HOP]


async def serve(origin: str) -> None:
    """Listen on a free port of loopback until the process ends."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    ) as session:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", Proxy(f"http://{origin}", session).handle)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        say_listening(runner.addresses[0][1])
        await asyncio.Event().wait()


def main() -> int:
    """Run until a signal ends the process."""
    made = parser("Pass WebSockets and HTTP requests on, with aiohttp.")
    made.add_argument("--uvloop", action="store_true", help="run on uvloop")
    options = made.parse_args()
    raise_descriptor_limit()
    make_loop = None
    if options.uvloop:
        import uvloop

        make_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(serve(options.origin))
    return 0


if __name__ == "__main__":
    sys.exit(main())
