"""Two trio tasks per tunnel that pass bytes on, once the head of the handshake is there.

Whatever follows the head is not looked at: neither the answer nor frames.
"""

from __future__ import annotations

import sys
from functools import partial

import trio

from bench.client import raise_descriptor_limit
from bench.peers.options import parser, say_listening

__all__ = ["main"]

CHUNK = 64 << 10
HEAD_END = b"\r\n\r\n"
MAX_HEAD = 16 << 10
HEAD_WAIT = 30.0  # seconds


async def carry(origin: tuple[str, int], client: trio.SocketStream) -> None:
    """One tunnel, until both directions or one of its connections have ended."""
    try:
        async with client:
            head = await read_head(client)
            if not head:
                return
            async with await trio.open_tcp_stream(*origin) as server:
                await server.send_all(head)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pass_on, client, server, nursery.cancel_scope)
                    nursery.start_soon(pass_on, server, client, nursery.cancel_scope)
    except (trio.BrokenResourceError, OSError):
        pass  # the client has gone, or the origin is not there


async def read_head(client: trio.SocketStream) -> bytes:
    """Everything up to the end of a request's head and what came with it; b"" when none comes."""
    head = b""
    with trio.move_on_after(HEAD_WAIT):
        while len(head) <= MAX_HEAD:
            data = await client.receive_some(CHUNK)
            if not data:
                break
            head += data
            if HEAD_END in head:
                return head
    return b""


async def pass_on(
    source: trio.SocketStream, sink: trio.SocketStream, tunnel: trio.CancelScope
) -> None:
    """One direction; its end is passed on, and a broken connection ends the tunnel."""
    try:
        while data := await source.receive_some(CHUNK):
            await sink.send_all(data)
        await sink.send_eof()
    except trio.BrokenResourceError:
        tunnel.cancel()


async def serve(origin: tuple[str, int]) -> None:
    """Listen on a free port of loopback until the process ends."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    say_listening(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(partial(carry, origin), listeners)


def main() -> int:
    """Run until a signal ends the process."""
    options = parser("Pass WebSockets on as bytes, with two trio tasks each.").parse_args()
    host, _, port = options.origin.rpartition(":")
    raise_descriptor_limit()
    trio.run(serve, (host, int(port)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
