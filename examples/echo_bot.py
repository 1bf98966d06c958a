"""A bot that echoes, in the shape of Pipecat Cloud's base image, on trio, h11 and wsproto alone.

    python -m relay_examples.echo_bot --port 7860 [--host 127.0.0.1] [--sessions 1]

prints `listening on http://127.0.0.1:7860` when it is ready. The port may come from $PORT; 0
picks a free one. Ctrl-C and SIGTERM end it at once; open calls lose their TCP connection.

    WS   /ws?body=…  a session: echoes text as text and binary as binary, message by message
    POST /bot        a session without WebSocket: a JSON object, answered `{}` when it has ended
    POST /end        ends the session of X-Daily-Session-Id, or every session without that field
    POST /speak      {"message": text} goes out as a text message on every open WebSocket
    POST /context    merges a JSON object into the bot's context
    GET  /status     {"status": "active" or "idle", "sessions": ids, "messages": n, "context": {…}}
    GET  /readyz     200, or 503 while it holds --sessions sessions; nothing refuses one more
    GET  /livez      200

These text messages are commands and steer the bot; everything else is echoed:

    !close 4001 why  Close with this code and reason (the reason may be left out)
    !body            answers the decoded `body` parameter as JSON text, `null` without one
    !session         answers the X-Daily-Session-Id, empty without one
    !headers         answers the upgrade request's [name, value] pairs as JSON, names in lower case
    !target          answers the upgrade request's target as it came
    !drop            closes TCP without a Close frame
    !reset           resets TCP
    !exit            ends the process with status 1, as a crash would
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

if __package__:
    from . import bot_wire as wire
else:  # python examples/echo_bot.py
    import bot_wire as wire  # type: ignore[import-not-found, no-redef]

MAX_MESSAGE = 16 * 1024 * 1024  # uvicorn's limit, so a client meets the same here
MAX_CONNECTIONS = 256  # a bot holds one session; more than this is a mistake somewhere
OUTBOX = 16  # spoken texts that may wait for a slow client
CLOSE_SECONDS = 5.0  # for the other side's Close after ours
SESSION_SECONDS = 7200.0  # the base image's limit

CLOSE_COMMAND = re.compile(r"!close ([0-9]{4})(?: (.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One caller; the HTTP routes put what it shall be sent into its outbox."""

    id: str
    outbox: trio.MemorySendChannel[Event]
    waiting: trio.MemoryReceiveChannel[Event]

    def put(self, event: Event) -> None:
        try:
            self.outbox.send_nowait(event)
        except trio.WouldBlock:
            raise wire.Refused(503, "a session takes no more messages at the moment") from None


class Bot:
    """What the process knows; like a bot's module globals it outlives a session."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.sessions: list[Session] = []
        self.messages = 0
        self.connections = 0
        self.context: dict[str, object] = {}

    @contextmanager
    def session(self, request: wire.Request) -> Iterator[Session]:
        session = Session(request.session_id, *trio.open_memory_channel[Event](OUTBOX))
        self.sessions.append(session)
        try:
            yield session
        finally:
            self.sessions.remove(session)


# --- HTTP routes ---


async def livez(bot: Bot, request: wire.Request) -> wire.Answer:
    return wire.Answer(200, {"status": "ok"})


async def readyz(bot: Bot, request: wire.Request) -> wire.Answer:
    if len(bot.sessions) >= bot.places:
        return wire.Answer(503, {"status": "not ready"})
    return wire.Answer(200, {"status": "ok"})


async def status(bot: Bot, request: wire.Request) -> wire.Answer:
    ids = [session.id for session in bot.sessions]
    state = "active" if ids else "idle"
    value = {"status": state, "sessions": ids, "messages": bot.messages, "context": bot.context}
    return wire.Answer(200, value)


async def context(bot: Bot, request: wire.Request) -> wire.Answer:
    merged = bot.context | request.json_object()
    try:
        size = len(json.dumps([[merged]]))  # deeper than /status nests it, so that one never fails
    except RecursionError:
        raise wire.Refused(400, "the object is nested too deeply") from None
    if size > wire.MAX_BODY:
        raise wire.Refused(413, f"the context would exceed {wire.MAX_BODY} bytes")
    bot.context = merged
    return wire.Answer(200, {"updated": True})


async def speak(bot: Bot, request: wire.Request) -> wire.Answer:
    message = request.json_object().get("message")
    if not isinstance(message, str) or any("\ud800" <= char <= "\udfff" for char in message):
        raise wire.Refused(400, "`message` must be a string, without unpaired surrogates")
    for session in bot.sessions:
        session.put(TextMessage(data=message))
    return wire.Answer(200, {"queued": True, "message": message})


async def hold(bot: Bot, request: wire.Request) -> wire.Answer:
    """Wait for the end of the session; as in the base image, hanging up does not end it."""
    request.json_object()
    with bot.session(request) as session, trio.move_on_after(SESSION_SECONDS):
        async for event in session.waiting:
            if isinstance(event, CloseConnection):  # texts to speak have no one to hear them
                break
    return wire.Answer(200, {})


async def end(bot: Bot, request: wire.Request) -> wire.Answer:
    wanted = request.session_id
    ended = [session for session in bot.sessions if wanted in ("", session.id)]
    for session in ended:
        session.put(CloseConnection(code=1000))
    return wire.Answer(200, {"ended": [session.id for session in ended]})


Route = Callable[[Bot, wire.Request], Awaitable[wire.Answer]]
ROUTES: dict[str, tuple[str, Route]] = {
    "/livez": ("GET", livez),
    "/readyz": ("GET", readyz),
    "/status": ("GET", status),
    "/context": ("POST", context),
    "/speak": ("POST", speak),
    "/bot": ("POST", hold),
    "/end": ("POST", end),
}


async def route(bot: Bot, request: wire.Request) -> wire.Answer:
    """Find and call the handler; raises Refused for 404, 405 and what the handler refuses."""
    if request.path == "/ws":
        method, handler = "GET", None
    elif request.path in ROUTES:
        method, handler = ROUTES[request.path]
    else:
        raise wire.Refused(404, "there is nothing at this path")
    allowed = ("GET", "HEAD") if handler and method == "GET" else (method,)
    if handler is None or request.method not in allowed:
        raise wire.Refused(405, "another method is needed", (b"Allow", ", ".join(allowed).encode()))
    return await handler(bot, request)


# --- the WebSocket ---


class Call:
    """One WebSocket: echoes, obeys commands, sends what lands in its session's outbox."""

    def __init__(self, bot: Bot, stream: trio.SocketStream, request: wire.Request) -> None:
        self.bot = bot
        self.stream = stream
        self.ws = WSConnection(ConnectionType.SERVER)
        self.scope = trio.CancelScope(deadline=trio.current_time() + SESSION_SECONDS)
        self.sending = trio.Lock()  # what wsproto returns must reach TCP in the same order
        self.message = bytearray()
        pairs = [[part.decode("latin-1") for part in field] for field in request.headers]
        self.answers = {
            "!body": json.dumps(request.query_body()),
            "!session": request.session_id,
            "!headers": json.dumps(pairs),
            "!target": request.target,
        }

    async def run(self, session: Session, hello: bytes, early: bytes) -> None:
        """Send the 101 and serve until either side ends, the time is up or a command says so."""
        await wire.send(self.stream, hello)
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.forward, session)
                await self.receive(early)
                nursery.cancel_scope.cancel()

    async def send(self, event: Event) -> None:
        """Send unless a Close has gone out; after the other side's Close, only the answer to it."""
        async with self.sending:
            closing = isinstance(event, CloseConnection)
            answers = closing and self.ws.state is ConnectionState.REMOTE_CLOSING
            if self.ws.state is not ConnectionState.OPEN and not answers:
                return
            data = self.ws.send(event)
            if closing:
                self.scope.deadline = trio.current_time() + CLOSE_SECONDS
            await wire.send(self.stream, data)

    async def forward(self, session: Session) -> None:
        async for event in session.waiting:
            await self.send(event)

    async def receive(self, data: bytes) -> None:
        """Feed wsproto until the closing handshake is done or TCP ends."""
        while True:
            self.ws.receive_data(data)
            for event in self.ws.events():
                await self.react(event)
            if self.ws.state is ConnectionState.CLOSED:
                return
            data = await self.stream.receive_some(wire.RECEIVE_BYTES)
            if not data:
                return

    async def react(self, event: Event) -> None:
        if isinstance(event, CloseConnection):
            theirs = self.ws.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED)
            await self.send(event.response())
            if not theirs:  # wsproto's way to report a protocol error; it cannot read on
                await wire.linger(self.stream)
                self.scope.cancel()
        elif isinstance(event, Ping):
            await self.send(event.response())
        elif isinstance(event, TextMessage | BytesMessage):
            await self.collect(event)

    async def collect(self, event: TextMessage | BytesMessage) -> None:
        """Gather the fragments of a message, then echo it or obey it."""
        if self.ws.state is not ConnectionState.OPEN:
            return  # what arrives between our Close and theirs is not ours to answer
        self.message += event.data.encode() if isinstance(event, TextMessage) else event.data
        if len(self.message) > MAX_MESSAGE:
            self.message.clear()
            await self.send(CloseConnection(code=1009, reason=f"over {MAX_MESSAGE} bytes"))
        elif event.message_finished:
            self.bot.messages += 1
            whole, self.message = bytes(self.message), bytearray()
            if isinstance(event, BytesMessage):
                await self.send(BytesMessage(data=whole))
            elif not await self.obey(text := whole.decode()):
                await self.send(TextMessage(data=text))

    async def obey(self, text: str) -> bool:
        """Carry out a command; False when the text is none."""
        if close := CLOSE_COMMAND.fullmatch(text):
            await self.send(CloseConnection(code=int(close[1]), reason=close[2]))
        elif text in self.answers:
            await self.send(TextMessage(data=self.answers[text]))
        elif text == "!drop":
            self.scope.cancel()
        elif text == "!reset":
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.scope.cancel()
        elif text == "!exit":
            os._exit(1)
        else:
            return False
        return True


# --- the process ---


async def exchange(bot: Bot, connection: wire.Connection) -> bool:
    """One request and its answer, or one call; True when another request may follow."""
    try:
        request = await connection.request()
        if request is None:
            return False
        if request.path == "/ws" and request.method == "GET":
            call = Call(bot, connection.stream, request)
            hello = wire.handshake(call.ws, request)
            with bot.session(request) as session:
                await call.run(session, hello, early=connection.http.trailing_data[0])
            return False
        answer = await route(bot, request)
    except wire.Refused as refusal:
        answer = refusal.answer
    return await connection.answer(answer)


async def converse(bot: Bot, stream: trio.SocketStream) -> None:
    """Serve one TCP connection; one that breaks or stalls concerns nobody else."""
    bot.connections += 1
    try:
        async with stream:
            if bot.connections <= MAX_CONNECTIONS:
                connection = wire.Connection(stream)
                while await exchange(bot, connection):
                    pass
    except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        pass
    finally:
        bot.connections -= 1


async def serve(host: str, port: int, places: int) -> None:
    """Listen, say so, serve for ever; raises SystemExit with a sentence when it cannot listen."""
    bot = Bot(places)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as fault:
        raise SystemExit(f"cannot listen on {host} port {port}: {fault}") from None
    address = f"[{host}]" if ":" in host else host
    port = listeners[0].socket.getsockname()[1]
    print(f"listening on http://{address}:{port}", flush=True)
    await trio.serve_listeners(partial(converse, bot), listeners)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="echo_bot", description="A bot that echoes.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=os.environ.get("PORT", "7860"))
    parser.add_argument("--sessions", type=int, default=1, help="sessions until it is not ready")
    options = parser.parse_args(argv)
    if not 0 <= options.port <= 65535:  # getaddrinfo would take it modulo 65536
        parser.error("--port must be from 0 to 65535")
    for number in (signal.SIGINT, signal.SIGTERM):
        # Nothing is to be saved, so leaving needs no clean-up and is right at any moment.
        signal.signal(number, lambda *_: os._exit(0))
    trio.run(serve, options.host, options.port, options.sessions)


if __name__ == "__main__":
    main()
