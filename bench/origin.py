"""A WebSocket echo server of a bot's shape, lean enough not to be what is measured.

`python -m bench.origin --port 0` prints `listening on http://127.0.0.1:PORT` and
echoes on `/ws`; `/readyz` and `/livez` answer 200. SIGTERM ends it.

Theory: one process, one level-triggered epoll, one scratch buffer. A message
that arrives whole costs one `recv` and one `send`. What a session cannot write
yet is held, and nothing more is read from it until that is gone, so a session
holds at most one read, one partial frame and their echo.
"""

from __future__ import annotations

import argparse
import gc
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from bench import wire

__all__ = ["Origin", "main"]

SCRATCH = 256 << 10  # the size that served large messages best, small ones equally
BACKLOG = 1024  # a burst of connects of the largest scenario may wait here
ACCEPTS_PER_TURN = 64  # so that a storm of connects cannot hold up the echoes
SPARE_DESCRIPTORS = 64  # left for the interpreter; connections above are closed at once
MAX_LISTENERS = 64  # each is a bot to the relay, which asks every bot whether it is ready
LIFETIME = 3600.0  # seconds; nobody measures longer, and a forgotten origin ends itself

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)


class Session:
    """One connection: what it has half received and what it could not send yet."""

    __slots__ = ("closing", "established", "held", "pending", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.established = False
        self.closing = False
        self.held = bytearray()
        self.pending = b""


class Origin:
    """The server; `run` serves until its deadline or an exception from a signal handler."""

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._epoll = select.epoll()
        for fd in self._listeners:
            self._epoll.register(fd, select.EPOLLIN)
        self._sessions: dict[int, Session] = {}
        self._scratch = bytearray(SCRATCH)
        self._view = memoryview(self._scratch)
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS

    def run(self, deadline: float) -> None:
        """Serve until `deadline` on the monotonic clock, in seconds."""
        poll, sessions = self._epoll.poll, self._sessions
        while (left := deadline - time.monotonic()) > 0:
            for fd, events in poll(left):
                session = sessions.get(fd)
                if session is None:
                    self._accept(self._listeners[fd])
                elif events & select.EPOLLOUT:
                    self._flush(session)
                else:
                    self._receive(session)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _ = listener.accept()
            except OSError:  # nobody waits any more, or the one who waited has gone
                return
            if len(self._sessions) >= self._limit:
                sock.close()
                continue
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sessions[sock.fileno()] = Session(sock)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _receive(self, session: Session) -> None:
        try:
            size = session.sock.recv_into(self._scratch)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._end(session)
        elif session.established and not session.held:
            # The common case: whole frames are echoed from the scratch buffer, uncopied.
            self._send(session, self._echo(session, self._view, size))
        else:
            session.held += self._view[:size]
            reply = b"" if session.established else self._answer(session)
            if session.established and session.held:
                data, session.held = session.held, bytearray()
                reply += self._echo(session, data, len(data))
            self._send(session, reply)

    def _answer(self, session: Session) -> bytes:
        """Answer the request heads that are complete, up to an upgrade."""
        reply = b""
        while not session.established and not session.closing:
            end = session.held.find(wire.HEAD_END, 0, wire.MAX_HEAD)
            if end < 0:
                session.closing = len(session.held) >= wire.MAX_HEAD
                return reply + (BAD_REQUEST if session.closing else b"")
            try:
                head = wire.parse_head(bytes(session.held[:end]))
            except ValueError:
                session.closing = True
                return reply + BAD_REQUEST
            del session.held[: end + len(wire.HEAD_END)]
            reply += self._answer_head(session, head)
        return reply

    def _answer_head(self, session: Session, head: wire.Head) -> bytes:
        path = head.first[1].partition(b"?")[0]
        key = head.fields.get(b"sec-websocket-key")
        if head.first[0] == b"GET" and path == b"/ws" and key:
            session.established = True
            return SWITCHING % wire.accept_key(key)
        if head.first[0] == b"GET" and path in (b"/readyz", b"/livez"):
            session.closing = head.fields.get(b"connection", b"").lower() == b"close"
            return OK
        session.closing = True
        return NOT_FOUND

    def _echo(self, session: Session, data: bytearray | memoryview, stop: int) -> bytes:
        """The echo of every whole frame in data[:stop]; what is left over is held."""
        position, replies = 0, b""
        try:
            while (found := wire.frame_at(data, position, stop, masked=True)) is not None:
                first, key, body, position = found
                payload = wire.xor(data[body:position], key)
                if first == wire.PING:
                    first = wire.PONG
                elif first == wire.PONG:
                    continue
                replies += wire.server_header(first, len(payload)) + payload
                if first == wire.CLOSE:
                    session.closing = True
                    return replies
        except wire.BadFrame as bad:
            session.closing = True
            return replies + wire.server_header(wire.CLOSE, 2) + bad.code.to_bytes(2, "big")
        if position < stop:
            session.held += data[position:stop]
        return replies

    def _send(self, session: Session, reply: bytes) -> None:
        if reply:
            try:
                sent = session.sock.send(reply)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._end(session)
                return
            if sent < len(reply):
                session.pending = reply[sent:]
                self._epoll.modify(session.sock.fileno(), select.EPOLLOUT)
                return
        if session.closing:
            self._end(session)

    def _flush(self, session: Session) -> None:
        pending, session.pending = session.pending, b""
        self._epoll.modify(session.sock.fileno(), select.EPOLLIN)
        self._send(session, pending)

    def _end(self, session: Session) -> None:
        fd = session.sock.fileno()
        self._epoll.unregister(fd)
        del self._sessions[fd]
        session.sock.close()


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as the machine's hard limit does."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or the end of the lifetime; the exit status is 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.origin", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--listeners", type=int, default=1, help="ports to listen on, as many bots would"
    )
    parser.add_argument("--lifetime", type=float, default=LIFETIME, help="seconds")
    options = parser.parse_args(arguments)
    if not 1 <= options.listeners <= MAX_LISTENERS:
        parser.error(f"--listeners is {options.listeners}; expected 1 to {MAX_LISTENERS}")
    if options.port and options.listeners > 1:
        parser.error("--listeners above 1 needs --port 0")
    raise_descriptor_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        listeners = [
            stack.enter_context(socket.create_server(("127.0.0.1", options.port), backlog=BACKLOG))
            for _ in range(options.listeners)
        ]
        for listener in listeners:
            listener.setblocking(False)
            print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        # What is allocated per message has no cycles; the collector would only add pauses.
        gc.disable()
        Origin(listeners).run(time.monotonic() + options.lifetime)
    return 0


if __name__ == "__main__":
    sys.exit(main())
