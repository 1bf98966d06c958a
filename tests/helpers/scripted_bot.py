"""A bot whose answer to the upgrade is a script: one that refuses, hangs, talks nonsense or dies.

It runs in threads of the test's own process, says on `/readyz` that it is ready, and
remembers every upgrade request. A script is a function of the conversation; when it
returns, the connection is closed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
RECEIVE = 65536
# How long a script may wait for its caller; a test that needs it all has failed.
PATIENCE = 20.0


@dataclass(frozen=True)
class Conversation:
    """One upgrade request and the socket on which to answer it."""

    sock: socket.socket
    head: bytes

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    def field(self, name: str) -> bytes:
        """The value of the first field of this name, b"" without one."""
        found = re.search(rb"(?im)^" + name.encode() + rb":[ \t]*(.*?)\r$", self.head)
        return found[1] if found else b""

    def accept_key(self) -> bytes:
        digest = hashlib.sha1(self.field("sec-websocket-key") + GUID).digest()
        return base64.b64encode(digest)

    def wait_closed(self) -> None:
        """Read and drop until the caller has closed."""
        while self.sock.recv(RECEIVE):
            pass


Script = Callable[[Conversation], None]


def say(data: bytes) -> Script:
    """Send these bytes, perhaps none, and close."""
    return lambda talk: talk.sock.sendall(data)


def hang(data: bytes = b"") -> Script:
    """Send these bytes and then nothing, until the caller closes."""

    def script(talk: Conversation) -> None:
        talk.sock.sendall(data)
        talk.wait_closed()

    return script


def reset(data: bytes = b"") -> Script:
    """Send these bytes and reset the connection."""

    def script(talk: Conversation) -> None:
        talk.sock.sendall(data)
        talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return script


def refuse(status: str, body: bytes, *fields: str) -> Script:
    """Answer with a status line's rest ("403 Forbidden") and a body of known length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return say("\r\n".join(head).encode() + body)


def endless_head(talk: Conversation) -> None:
    """A 101 whose head never ends, for as long as somebody reads it."""
    talk.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
    while True:
        talk.sock.sendall(b"X-More: and more\r\n" * 100)


def accept(
    *,
    early: bytes = b"",
    key: bytes | None = None,
    upgrade: str = "Upgrade: websocket",
    fields: tuple[str, ...] = (),
    slow: bool = False,
) -> Script:
    """A 101, then an echo of every message until a Close.

    Args:
        early: frames in the same segment as the 101.
        key: the Sec-WebSocket-Accept instead of the right one.
        upgrade: the Upgrade field's line, or another in its place.
        slow: send head and early frames byte by byte.
    """

    def script(talk: Conversation) -> None:
        accepted = (key if key is not None else talk.accept_key()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", upgrade, "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accepted}", *fields, "", ""]
        data = "\r\n".join(lines).encode() + early
        talk.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (data[i : i + 1] for i in range(len(data))) if slow else (data,):
            talk.sock.sendall(piece)
        _echo(talk.sock)

    return script


def _echo(sock: socket.socket) -> None:
    ws = Connection(ConnectionType.SERVER)
    while data := sock.recv(RECEIVE):
        ws.receive_data(data)
        for event in ws.events():
            if isinstance(event, TextMessage):
                sock.sendall(ws.send(TextMessage(event.data, event.frame_finished)))
            elif isinstance(event, BytesMessage):
                sock.sendall(ws.send(BytesMessage(bytes(event.data), event.frame_finished)))
            elif isinstance(event, Ping):
                sock.sendall(ws.send(event.response()))
            elif isinstance(event, CloseConnection):
                sock.sendall(ws.send(event.response()))
                return


class ScriptedBot:
    """See the module; `script` may be changed between two calls.

    Attributes:
        tls: speaks TLS if it is given.
        capabilities: the answer to `GET /pcc/capabilities`, b"" for a 404.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.tls = tls
        self.script: Script = accept()
        self.conversations: list[Conversation] = []
        self.capabilities = b""
        self._listener = socket.create_server((host, port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{host}:{self.port}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop_listening(self) -> None:
        """From now on connecting fails; what is connected stays."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        except OSError:
            pass
        self._threads[0].join(PATIENCE)
        self._listener.close()

    def hang_up(self) -> None:
        """End every conversation."""
        for sock in list(self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # its script has ended it

    def close(self) -> None:
        """End every conversation and every thread."""
        self.stop_listening()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a script does not end"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self.tls is not None:
                self._open.discard(sock)
                sock = self.tls.wrap_socket(sock, server_side=True)
                self._open.add(sock)
            head = b""
            while b"\r\n\r\n" not in head:
                data = sock.recv(RECEIVE)
                if not data:
                    return
                head += data
            if head.startswith(b"GET /readyz "):
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                return
            if head.startswith(b"GET /pcc/capabilities "):
                status = b"200 OK" if self.capabilities else b"404 Not Found"
                length = b"\r\nContent-Length: %d\r\n\r\n" % len(self.capabilities)
                sock.sendall(b"HTTP/1.1 " + status + length + self.capabilities)
                return
            talk = Conversation(sock, head)
            self.conversations.append(talk)
            self.script(talk)
        except OSError:
            pass  # the caller went, or the test is over
        finally:
            self._open.discard(sock)
            sock.close()


@contextmanager
def scripted_bot(
    host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[ScriptedBot]:
    """A bot that accepts and echoes until it gets another script."""
    bot = ScriptedBot(host, port, tls)
    try:
        yield bot
    finally:
        bot.close()


@contextmanager
def nobody_listens() -> Iterator[str]:
    """The URL of a port that is taken, so that nobody else gets it, and refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
