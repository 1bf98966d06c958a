"""A session on a bot whose HTTP answers are scripts, and ways to ask through the Session API."""

from __future__ import annotations

import re
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from websockets.sync.client import ClientConnection

from tests.helpers.daemon import PATIENCE, PUBLIC_KEY, Daemon
from tests.helpers.scripted_bot import RECEIVE, Conversation, Script, ScriptedBot, accept, say
from tests.helpers.wire import Wire, call, request, token_for

# With trailers, of which no test sends more than some.
LAST_CHUNK = re.compile(rb"(?<![^\n])0\r\n(?:[^\r\n]+\r\n)*\r\n\Z")
BEARER = f"Authorization: Bearer {PUBLIC_KEY}"


@dataclass
class SessionBot:
    """A scripted bot with one session on it, held open by a WebSocket.

    Requests other than the upgrade meet `script`.
    """

    daemon: Daemon
    bot: ScriptedBot
    session: str
    call: ClientConnection
    script: Script = field(default_factory=lambda: say(answer()))

    def path(self, rest: str = "/x") -> str:
        return f"/v1/public/bot/sessions/{self.session}{rest}"

    def request(
        self, method: str = "GET", rest: str = "/x", *fields: str, body: bytes = b""
    ) -> bytes:
        return request(method, self.path(rest), BEARER, *fields, body=body)

    @property
    def last(self) -> Conversation:
        return self.bot.conversations[-1]

    @contextmanager
    def wire(self) -> Iterator[Wire]:
        with Wire(self.daemon.port, tls=self.daemon.tls) as wire:
            yield wire


@contextmanager
def session_on(daemon: Daemon, bot: ScriptedBot) -> Iterator[SessionBot]:
    """A new session of the agent "bot", whose only instance is the scripted bot."""
    session = str(uuid.uuid4())
    greet = accept()
    bot.script = greet
    with call(daemon, "/ws/generic/bot.acme", token_for(session=session)) as ws:
        held = SessionBot(daemon, bot, session, ws)
        bot.script = lambda talk: (greet if talk.field("upgrade") else held.script)(talk)
        yield held
    daemon.wait_ended(session)


def answer(status: str = "200 OK", *fields: str, body: bytes = b"") -> bytes:
    """An answer of known length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def head(status: str = "200 OK", *fields: str) -> bytes:
    """The head of an answer; its framing is the caller's matter."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def sent_body(talk: Conversation) -> bytes:
    """The request's body, read to its end and taken out of its framing."""
    data = talk.head.partition(b"\r\n\r\n")[2]
    length = talk.field("content-length")
    if length:
        while len(data) < int(length):
            data += _more(talk.sock)
        return data
    if not talk.field("transfer-encoding"):
        return data
    while not LAST_CHUNK.search(data, max(0, len(data) - 1000)):
        data += _more(talk.sock)
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        if int(size, 16) == 0:
            break
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body


def _more(sock: socket.socket) -> bytes:
    data = sock.recv(RECEIVE)
    assert data, "the request ended early"
    return data


def echo(talk: Conversation) -> None:
    """Answer with the request's body, in the framing of the request."""
    body = sent_body(talk)
    if talk.field("transfer-encoding"):
        pieces = [body[at : at + 10_000] for at in range(0, len(body), 10_000)]
        framed = b"".join(map(chunk, pieces)) + b"0\r\n\r\n"
        talk.sock.sendall(head("200 OK", "Transfer-Encoding: chunked") + framed)
    else:
        talk.sock.sendall(answer(body=body))


class Steps:
    """Lets a test say when a script goes on, and see how far it has come."""

    def __init__(self) -> None:
        self._go = threading.Semaphore(0)
        self._done = threading.Semaphore(0)

    def go(self) -> None:
        self._go.release()

    def wait_go(self) -> None:
        assert self._go.acquire(timeout=PATIENCE)

    def done(self) -> None:
        self._done.release()

    def wait_done(self) -> None:
        assert self._done.acquire(timeout=PATIENCE)


def read_head(wire: Wire) -> tuple[int, dict[str, str]]:
    """Status and fields of the next answer; repeated fields are joined."""
    line = wire.file.readline()
    found = re.fullmatch(rb"HTTP/1\.1 ([0-9]{3}) .*\r\n", line)
    assert found, line
    fields: dict[str, str] = {}
    while (line := wire.file.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        old = fields.get(name.lower())
        fields[name.lower()] = value.strip() if old is None else f"{old}, {value.strip()}"
    return int(found[1]), fields


def read_chunk(wire: Wire) -> bytes:
    """The next chunk's data, b"" for the last one."""
    size = int(wire.file.readline(), 16)
    data = wire.file.read(size)
    assert wire.file.readline() == b"\r\n"
    return data


def read_chunks(wire: Wire) -> bytes:
    pieces = []
    while piece := read_chunk(wire):
        pieces.append(piece)
    return b"".join(pieces)
