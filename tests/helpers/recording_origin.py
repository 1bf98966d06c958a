"""A bot that records every byte it gets, reads it strictly, and answers what it is told to.

One thread serves every connection, so `take` knows that all that was sent before it has been
read. It holds its session by a `POST /bot` that it never answers.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.helpers.daemon import PATIENCE
from tests.helpers.strict_http import Message, NotStrict, read_request

RECEIVE = 1 << 16
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Said:
    """What the bot answers: bytes, perhaps none, and whether it closes behind them."""

    data: bytes = OK
    close: bool = False


Answers = Callable[[Message], Said]


@dataclass
class Record:
    """What came since the last look: the requests, and what was none.

    Attributes:
        raw: the bytes of each connection that got any.
        partial: begun and not whole: the bytes behind the last whole request.
        wrong: what a strict reader does not read, with the reason.
    """

    requests: list[Message] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    partial: list[bytes] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass
class _Talk:
    sock: socket.socket
    raw: bytearray = field(default_factory=bytearray)
    unread: bytes = b""
    told_to_go_on: bool = False
    holds_session: bool = False


class RecordingOrigin:
    """See the module; `answer` may be changed between two requests."""

    def __init__(self) -> None:
        self.answer: Answers = lambda request: Said()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._talks: dict[socket.socket, _Talk] = {}
        self._record = Record()
        self._taken: Record | None = None
        self._unasked = b""
        self._ready = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def take(self) -> Record:
        """What has come since the last time; everything that was sent before the call is in it."""
        self._wake.sendall(b"t")
        assert self._ready.acquire(timeout=PATIENCE)
        assert self._taken is not None
        return self._taken

    def say_unasked(self, data: bytes) -> None:
        """Send these bytes on every open connection that waits for a request."""
        self._unasked = data
        self._wake.sendall(b"u")
        assert self._ready.acquire(timeout=PATIENCE)

    def close(self) -> None:
        self._wake.sendall(b"q")
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        for sock in (self._listener, self._wake, self._woken, *self._talks):
            sock.close()
        self._selector.close()

    def _serve(self) -> None:
        while True:
            ready = [key.fileobj for key, _ in self._selector.select()]
            self._turn([sock for sock in ready if sock is not self._woken])
            if self._woken in ready:
                word = self._woken.recv(1)
                self._drain()
                if word == b"q":
                    return
                if word == b"u":
                    self._speak()
                else:
                    self._hand_over()
                self._ready.release()

    def _speak(self) -> None:
        for talk in list(self._talks.values()):
            if not talk.unread and not talk.holds_session:
                self._send(talk, Said(self._unasked))

    def _drain(self) -> None:
        """Serve until nothing is there to be read."""
        while True:
            ready = [key.fileobj for key, _ in self._selector.select(0)]
            if not (ready := [sock for sock in ready if sock is not self._woken]):
                return
            self._turn(ready)

    def _turn(self, ready: Sequence[object]) -> None:
        for sock in ready:
            if sock is self._listener:
                new, _ = self._listener.accept()
                # What is said is there at once, whatever was said just before.
                new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(new, selectors.EVENT_READ)
                self._talks[new] = _Talk(new)
            elif isinstance(sock, socket.socket) and sock in self._talks:
                self._read(self._talks[sock])

    def _hand_over(self) -> None:
        for talk in self._talks.values():
            self._note(talk)
        self._taken, self._record = self._record, Record()

    def _note(self, talk: _Talk) -> None:
        if talk.raw:
            self._record.raw.append(bytes(talk.raw))
            if talk.unread:
                self._record.partial.append(talk.unread)
            talk.raw.clear()

    def _read(self, talk: _Talk) -> None:
        try:
            data = talk.sock.recv(RECEIVE)
        except OSError:
            data = b""
        if not data:
            self._end(talk)
            return
        talk.raw += data
        talk.unread += data
        try:
            while talk in self._talks.values() and (found := read_request(talk.unread)):
                self._take_request(talk, *found)
        except NotStrict as error:
            self._record.wrong.append(str(error))
            self._end(talk)
            return
        if b"\r\nexpect:" in talk.unread.partition(b"\r\n\r\n")[0].lower():
            self._go_on(talk)

    def _go_on(self, talk: _Talk) -> None:
        if b"\r\n\r\n" in talk.unread and not talk.told_to_go_on:
            talk.told_to_go_on = True
            talk.sock.sendall(GO_ON)

    def _take_request(self, talk: _Talk, request: Message, rest: bytes) -> None:
        path = request.start[1]
        taken = talk.unread[: len(talk.unread) - len(rest)]
        talk.unread, talk.told_to_go_on = rest, False
        if path in (b"/bot", b"/readyz"):
            del talk.raw[: len(taken)]
            if path == b"/bot":
                talk.holds_session = True
                return
            said = Said(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            self._record.requests.append(request)
            said = self.answer(request)
        self._send(talk, said)

    def _send(self, talk: _Talk, said: Said) -> None:
        try:
            talk.sock.sendall(said.data)
        except OSError:
            said = Said(close=True)
        if said.close:
            self._end(talk)

    def _end(self, talk: _Talk) -> None:
        self._note(talk)
        self._selector.unregister(talk.sock)
        del self._talks[talk.sock]
        talk.sock.close()


@contextmanager
def recording_origin() -> Iterator[RecordingOrigin]:
    origin = RecordingOrigin()
    try:
        yield origin
    finally:
        origin.close()
