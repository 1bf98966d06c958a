"""An end with calls that do not end by themselves: every side of each gets a Close 1012.

Both sides talk all the time, in frames that come in pieces; wsproto reads what arrives and
refuses whatever is no frame. So a Close in the midst of one, or anything behind a Close,
would be seen.
"""

from __future__ import annotations

import base64
import hashlib
import re
import signal
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection
from wsproto.frame_protocol import CloseReason

from tests.helpers.daemon import Daemon, running_daemon, wait_until
from tests.helpers.ends import ends_cleanly, nothing_is_held, rows, signal_daemon
from tests.helpers.frames import BINARY, frame
from tests.helpers.reloads import said
from tests.helpers.scripted_bot import GUID
from tests.helpers.wire import upgrade

CALLS = 80
SPREAD = 1.0
MASK = b"\x01\x02\x03\x04"
# Two reads of a pump at least, so that frames are under way when the Close is due.
PAYLOAD = bytes(range(256)) * 12
# Inside a frame and between two. A pump waits a second for the rest of one, so a machine
# that is busy with other things must not keep the sides here from sending it in time.
PAUSE, REST = 0.1, 0.5


@dataclass
class Side:
    """One end of a call: what it has seen."""

    stream: trio.SocketStream
    is_client: bool
    messages: int = 0
    close: tuple[int, str] | None = None
    closed_at: float = 0.0
    rest: bytes = b""
    mid_frame: bool = False

    async def run(self, early: bytes) -> None:
        """Talk, and read strictly until the connection ends; answer the Close."""
        kind = ConnectionType.CLIENT if self.is_client else ConnectionType.SERVER
        ws = Connection(kind)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._talk)
            data = early
            while True:
                if self.close is not None:
                    self.rest += data
                elif data:
                    ws.receive_data(data)
                    if self._take(ws):
                        nursery.cancel_scope.cancel()
                        break
                try:
                    data = await self.stream.receive_some(65536)
                except trio.BrokenResourceError:
                    return
                if not data:
                    return
        await self._answer()

    def _take(self, ws: Connection) -> bool:
        """Whether a Close has come."""
        received = b""
        for event in ws.events():
            if isinstance(event, BytesMessage):
                received += bytes(event.data)
                if event.message_finished:
                    self.messages += 1
            elif isinstance(event, CloseConnection):
                self.close = (int(event.code), event.reason or "")
                self.closed_at = trio.current_time()
                return True
        return False

    async def _answer(self) -> None:
        """The Close back, as RFC 6455 asks; then nothing may come any more."""
        mask = MASK if self.is_client else None
        # A frame of its own may be cut off by the end of talking: nothing can be sent then.
        try:
            if not self.mid_frame:
                await self.stream.send_all(frame(8, b"\x03\xf4", mask=mask))
            while data := await self.stream.receive_some(65536):
                self.rest += data
        except trio.BrokenResourceError:
            pass

    async def _talk(self) -> None:
        data = frame(BINARY, PAYLOAD, mask=MASK if self.is_client else None)
        half = len(data) // 2
        try:
            while True:
                self.mid_frame = True
                await self.stream.send_all(data[:half])
                with trio.CancelScope(shield=True):  # a frame that is begun is finished
                    await trio.sleep(PAUSE)
                    await self.stream.send_all(data[half:])
                self.mid_frame = False
                await trio.sleep(REST)
        except trio.BrokenResourceError:
            pass  # what has come before is still to be read


@dataclass
class Stage:
    """A bot of this test's own, and the callers."""

    bots: list[Side] = field(default_factory=list)
    callers: list[Side] = field(default_factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        head = await _head(stream)
        if head.startswith(b"GET /readyz"):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        elif b"websocket" not in head.lower():
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        else:
            await stream.send_all(_switching(head))
            side = Side(stream, is_client=False)
            self.bots.append(side)
            await side.run(b"")
        await stream.aclose()

    async def call(self, port: int, agent: str) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(upgrade(f"/ws/generic/{agent}.acme"))
        head = await _head(stream)
        assert head.startswith(b"HTTP/1.1 101"), head
        side = Side(stream, is_client=True)
        self.callers.append(side)
        await side.run(head.partition(b"\r\n\r\n")[2])
        await stream.aclose()


async def _head(stream: trio.SocketStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(65536)
        if not data:
            break
        head += data
    return head


def _switching(head: bytes) -> bytes:
    key = re.search(rb"(?im)^sec-websocket-key:[ \t]*(.*?)\r$", head)
    assert key is not None
    accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


AGENTS = """
websocket_auth = "none"
sessions_per_instance = 1000
max_session_duration = 600
[agents.frames]
organization = "acme"
relay = "frames"
websocket_auth = "none"
sessions_per_instance = 1000
instances = ["{}"]
"""


async def test_every_client_and_every_bot_gets_its_close(tmp_path: Path) -> None:
    stage = Stage()
    async with trio.open_nursery() as nursery:
        listening = partial(trio.serve_tcp, stage.serve, 0, host="127.0.0.1")
        urls = []
        for _ in range(2):
            (listener,) = await nursery.start(listening)
            urls.append(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
        limits = f"drain_timeout = 1\nclose_timeout = 5\nclose_spread = {SPREAD}\nmax_waiting = 500"
        running = running_daemon(tmp_path, [urls[0]], AGENTS.format(urls[1]), limits)
        with trio.fail_after(100):
            daemon = await trio.to_thread.run_sync(running.__enter__)
            try:
                async with trio.open_nursery() as calls:
                    for number in range(CALLS):
                        agent = "bot" if number % 2 else "frames"
                        calls.start_soon(stage.call, daemon.port, agent)
                    await trio.to_thread.run_sync(_end, daemon, stage)
                await trio.to_thread.run_sync(_ended, daemon)
            finally:
                await trio.to_thread.run_sync(running.__exit__, None, None, None)
        nursery.cancel_scope.cancel()
    for side in (*stage.callers, *stage.bots):
        assert side.close == (CloseReason.SERVICE_RESTART, "service restart"), side
        assert side.rest == b"", "nothing behind a Close"
    assert len(stage.callers) == len(stage.bots) == CALLS
    times = sorted(side.closed_at for side in stage.callers)
    # Spread: who comes back at once would find a crowd.
    assert times[-1] - times[0] > SPREAD / 2
    assert times[CALLS // 2] - times[0] > SPREAD / 8
    assert len({round(at, 2) for at in times}) > 10


def _end(daemon: Daemon, stage: Stage) -> None:
    wait_until(
        lambda: all(
            len(sides) == CALLS and all(side.messages for side in sides)
            for sides in (stage.callers, stage.bots)
        ),
        "both sides of every call have been heard",
        60,
    )
    signal_daemon(daemon, signal.SIGTERM)


def _ended(daemon: Daemon) -> None:
    ends_cleanly(daemon, 30)
    (first, *_more) = said(daemon, "draining")
    assert (first["calls"], len(first["sessions"])) == (CALLS, 20)
    causes = rows(daemon, "SELECT cause, close_code, count(*) FROM sessions GROUP BY 1, 2")
    assert causes == [("drain", 1012, CALLS)]
    nothing_is_held(daemon)
