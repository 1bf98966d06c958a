"""A WebSocket echo server on which a test can see, and choose, how calls end.

It runs in threads of the test's own process. A text message "close CODE REASON" is
answered with that Close; every other message is echoed whole.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.helpers.daemon import PATIENCE, wait_until

MAX_MESSAGE = 4 << 20
ABNORMAL = (1006, "")


@dataclass
class ClosingOrigin:
    """Where it listens, and how calls ended: the caller's Close by the path of the call."""

    address: str
    ends: dict[str, tuple[int, str]] = field(default_factory=dict)

    def end_of(self, path: str) -> tuple[int, str]:
        """Wait for the end of a call; the code and reason of the caller's Close."""
        wait_until(lambda: path in self.ends, f"the call at {path} ends")
        return self.ends[path]


@contextmanager
def closing_origin() -> Iterator[ClosingOrigin]:
    """Run one; `/json` is answered too, as the first exchange of a target wants it."""

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(200, "{}") if request.path == "/json" else None

    def carry(connection: ServerConnection) -> None:
        try:
            for message in connection:
                if isinstance(message, str) and message.startswith("close "):
                    _, code, reason = message.split(" ", 2)
                    connection.close(int(code), reason)
                else:
                    connection.send(message)
        except ConnectionClosed:
            pass
        received = connection.protocol.close_rcvd
        assert connection.request is not None
        origin.ends[connection.request.path] = (
            (received.code, received.reason) if received else ABNORMAL
        )

    with serve(
        carry, "127.0.0.1", 0, process_request=answer, compression=None, max_size=MAX_MESSAGE
    ) as server:
        origin = ClosingOrigin(f"127.0.0.1:{server.socket.getsockname()[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield origin
        finally:
            server.shutdown()
            thread.join(PATIENCE)
