"""A caller that measures: starts a session, sends audio-like frames, times their echoes.

    python examples/client.py http://127.0.0.1:8080/v1/public/echo/start --key pk_… \
        [--body '{"caller": "alice"}'] [--seconds 5] [--frame-bytes 320] [--token-in header]

Every 20 ms a binary frame leaves, as a telephone's audio would. It carries its number and the
time at which it was due, and the round trip is counted from that time: a frame that had to wait
to be sent is not measured as if it had been early. The bot behind the front door must echo
binary messages, as `echo_bot.py` does; text messages from it are printed.

Exit status: 0 when every frame came back in order and unchanged (or Ctrl-C ended the run
before), 1 when not or when there was no call, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import random
import selectors
import signal
import struct
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

PERIOD = 0.02  # seconds between frames: one packet of telephone audio
FRAME_HEAD = struct.Struct("!QQ")  # the frame's number, the nanoseconds from the start to its due
MAX_FRAME = 1024 * 1024  # what the official JavaScript client may send in one message
MAX_SECONDS = 7200.0  # Pipecat Cloud's longest session
START_SECONDS = 40.0  # for /start and for the upgrade: a front door may wait 30 s for a bot
LATE_SECONDS = 2.0  # after the last frame: an echo later than this counts as lost
MAX_ANSWER = 64 * 1024  # bytes read of an HTTP answer; /start's holds 4 KiB of body as base64


class Failure(Exception):
    """There was no call, or it went wrong; the text is one line for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Start:
    """What /start answered."""

    session_id: str
    ws_url: str
    token: str | None
    body: str | None


@dataclass(slots=True)
class Figures:
    """What was sent and what came back, the round trips in milliseconds."""

    sent: int = 0
    round_trips: list[float] = field(default_factory=list)

    @property
    def echoed(self) -> int:
        return len(self.round_trips)

    def since(self, sent: int, echoed: int) -> str:
        """What happened since these counts: (0, 0) for the whole call."""
        trips = sorted(self.round_trips[echoed:])
        counts = f"{self.sent - sent} frames sent, {len(trips)} echoed"
        if not trips:
            return counts
        p50, p95 = (trips[int(len(trips) * share)] for share in (0.50, 0.95))
        return f"{counts}, round trip ms: p50 {p50:.2f}, p95 {p95:.2f}, max {trips[-1]:.2f}"


# --- the session ---


def reason_in(answer: bytes) -> str:
    """The `error` of a JSON error answer, or what there is instead."""
    try:
        value = json.loads(answer)
        return str(value.get("error") or value.get("message") or value)
    except (ValueError, AttributeError, RecursionError):
        return answer[:200].decode("utf-8", "replace").strip() or "no reason given"


def start(url: str, key: str, body: dict[str, object] | None) -> Start:
    """Ask for a session; raises Failure when there is none to be had."""
    wish: dict[str, object] = {"transport": "websocket"}
    if body is not None:
        wish["body"] = body
    fields = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(wish).encode(), fields, method="POST")
    # The address is meant as it is written, whatever proxies the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=START_SECONDS) as response:
            text = response.read(MAX_ANSWER)
    except urllib.error.HTTPError as refusal:
        with refusal:
            reason = reason_in(refusal.read(MAX_ANSWER))
        raise Failure(f"start was refused: {refusal.code} {reason}") from None
    except urllib.error.URLError as fault:
        raise Failure(f"no server answers at {url}: {fault.reason}") from None
    except (OSError, http.client.HTTPException) as fault:
        raise Failure(f"no HTTP answer from {url}: {fault or type(fault).__name__}") from None
    try:
        value = json.loads(text)
        answer = [value[key] for key in ("sessionId", "wsUrl")]
        optional = [value.get(key) for key in ("token", "body")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        answer, optional = [None], []
    if not all(isinstance(text, str) for text in [*answer, *filter(None, optional)]):
        raise Failure("start answered without a sessionId and a wsUrl; is it a start URL?")
    return Start(*answer, *optional)


def address(session: Start, token_in: str) -> tuple[str, dict[str, str]]:
    """The URL to connect to and the header fields to send, the token where it was asked for."""
    url, parameters, fields = session.ws_url, [], {}
    if session.token and token_in == "header":
        fields["Authorization"] = f"Bearer {session.token}"
    elif session.token and token_in == "path":
        url = f"{url}/{quote(session.token, safe='')}"
    elif session.token:
        parameters.append(f"token={quote(session.token, safe='')}")
    if session.body:
        parameters.append(f"body={quote(session.body, safe='')}")
    if parameters:
        url += ("&" if "?" in url else "?") + "&".join(parameters)
    return url, fields


# --- the call ---


def frame(number: int, size: int) -> bytes:
    """Frame `number` of any call: its head, then bytes that no other frame has."""
    head = FRAME_HEAD.pack(number, round(number * PERIOD * 1e9))
    return head + random.Random(number).randbytes(size - len(head))


class Call:
    """One call: a sender on an absolute schedule, a receiver that checks, a line each second."""

    def __init__(self, ws: ClientConnection, total: int, size: int, figures: Figures) -> None:
        self.ws = ws
        self.total = total
        self.size = size
        self.figures = figures
        self.began = time.perf_counter()
        self.reported = (0, 0)
        self.interrupted = False
        self.all_sent = False
        self.complete = asyncio.Event()

    async def run(self) -> None:
        """Make the call; raises Failure for lost or changed frames and for an early end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.interrupt)
        ends = {loop.create_task(self.send()), loop.create_task(self.receive())}
        reporter = loop.create_task(self.report())
        try:
            limit = self.total * PERIOD + 2 * LATE_SECONDS
            done, _ = await asyncio.wait(ends, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except ConnectionClosed as fault:
            raise Failure(f"the call ended early: {fault}") from None
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            for task in (*ends, reporter):
                task.cancel()
            await asyncio.gather(*ends, reporter, return_exceptions=True)
            if self.reported != (self.figures.sent, self.figures.echoed):
                self.print_line()
        if not done:
            raise Failure("the call stalled: the frames could not be sent in time")
        if lost := self.figures.sent - self.figures.echoed:
            raise Failure(f"{lost} of {self.figures.sent} frames were lost")

    def interrupt(self) -> None:
        """Stop sending and wait for the last echoes; a second Ctrl-C does not wait."""
        self.interrupted = True
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    async def send(self) -> None:
        """Send every frame at its time, then wait for the echoes that are still on their way."""
        for number in range(self.total):
            message = frame(number, self.size)  # made before its time, not at it
            due = self.began + number * PERIOD
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if self.interrupted:
                break
            await self.ws.send(message)
            self.figures.sent += 1
        self.all_sent = True
        if self.figures.echoed < self.figures.sent:
            try:
                async with asyncio.timeout(LATE_SECONDS):
                    await self.complete.wait()
            except TimeoutError:
                pass  # run() counts what is missing

    async def receive(self) -> None:
        """Check each echo; raises Failure at the first that is not the frame that was due."""
        while True:
            message = await self.ws.recv()
            now = time.perf_counter()
            number = self.figures.echoed
            if isinstance(message, str):
                print(f"the bot says: {message!r}", flush=True)
                continue
            if message != frame(number, self.size):
                raise Failure(f"frame {number} {self.difference(message)}")
            self.figures.round_trips.append((now - self.began - number * PERIOD) * 1000)
            if self.all_sent and self.figures.echoed == self.figures.sent:
                self.complete.set()

    def difference(self, message: bytes) -> str:
        if len(message) != self.size:
            return f"came back with {len(message)} bytes instead of {self.size}"
        number, _ = FRAME_HEAD.unpack_from(message)
        if number < self.total and message == frame(number, self.size):
            return f"was due, but frame {number} came back"
        return "came back changed"

    async def report(self) -> None:
        for second in itertools.count(1):
            await asyncio.sleep(max(0.0, self.began + second - time.perf_counter()))
            self.print_line()

    def print_line(self) -> None:
        elapsed = time.perf_counter() - self.began
        print(f"{elapsed:6.1f} s: {self.figures.since(*self.reported)}", flush=True)
        self.reported = (self.figures.sent, self.figures.echoed)


def precise_loop() -> asyncio.AbstractEventLoop:
    """A loop on select(2): epoll would round every wait up to a whole millisecond."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def call(session: Start, options: argparse.Namespace, figures: Figures) -> None:
    """Connect and make the call; raises Failure when it does not come about or goes wrong."""
    url, fields = address(session, options.token_in)
    try:
        # Without permessage-deflate: it would measure zlib, and audio hardly gets smaller.
        ws = await connect(
            url,
            additional_headers=fields,
            compression=None,
            proxy=None,
            open_timeout=START_SECONDS,
            max_size=MAX_FRAME,
        )
    except InvalidStatus as refusal:
        reason = reason_in(bytes(refusal.response.body or b""))
        raise Failure(f"upgrade was refused: {refusal.response.status_code} {reason}") from None
    except InvalidURI:
        raise Failure("start answered with a wsUrl that is no WebSocket address") from None
    except (OSError, InvalidHandshake) as fault:
        raise Failure(f"the upgrade failed: {fault or type(fault).__name__}") from None
    async with ws:
        total = max(1, round(options.seconds / PERIOD))
        await Call(ws, total, options.frame_bytes, figures).run()


# --- the command line ---


def json_object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError("must be an address that begins with http:// or https://")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Call a bot and time the echoes of audio frames.")
    parser.add_argument("url", type=http_url, metavar="START_URL", help="…/v1/public/AGENT/start")
    parser.add_argument("--key", required=True, help="public key of the organization")
    parser.add_argument("--body", type=json_object, help="JSON object for the bot")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the call")
    parser.add_argument("--frame-bytes", type=int, default=320, help="bytes per frame")
    parser.add_argument("--token-in", choices=("header", "query", "path"), default="header")
    options = parser.parse_args(argv)
    if not 0 < options.seconds <= MAX_SECONDS:
        parser.error(f"--seconds must be above 0 and at most {MAX_SECONDS:.0f}")
    if not FRAME_HEAD.size <= options.frame_bytes <= MAX_FRAME:
        parser.error(f"--frame-bytes must be from {FRAME_HEAD.size} to {MAX_FRAME}")
    if not (options.key.isascii() and options.key.isprintable()):
        parser.error("--key must be printable ASCII")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    figures = Figures()
    failure = None
    try:
        session = start(options.url, options.key, options.body)
        print(f"session {session.session_id}", flush=True)
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            runner.run(call(session, options, figures))
    except KeyboardInterrupt:
        pass
    except Failure as fault:
        failure = fault
    if figures.sent or not failure:
        print(figures.since(0, 0))
    if failure:
        print(f"client: {failure}", file=sys.stderr)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
