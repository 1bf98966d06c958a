"""Cases of the wire: frames, heads, targets, fields, bodies, an exchange with a bot."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from bench.micro import samples
from bench.micro.case import Case, Loop, Repeated
from relay.policy.catalog import Address, Limits
from relay.policy.routes import PUBLIC, Match, match
from relay.policy.tokens import mint
from relay.protocol.body import decode_body
from relay.protocol.bot_http import BotEnd, BotHead, BotTalk, request_head
from relay.protocol.forwarding import TRACE_BYTES, Hop
from relay.protocol.frames import FrameTracker
from relay.protocol.headers import for_bot, for_bot_upgrade, from_bot_upgrade
from relay.protocol.http1 import HeadBuffer, HeadLimits, Request, parse_request
from relay.protocol.target import parse_target
from relay.pump.scratch import READ_SIZE

__all__ = ["REQUEST_ID", "WIRE", "TwoReads"]

LARGE = 64 * 1024
REQUEST_ID = "fedcba98-7654-4210-8fed-cba987654321"
DEFAULTS = Limits()
LIMITS = HeadLimits(DEFAULTS.max_target, DEFAULTS.max_head, DEFAULTS.max_header_count)
HOP = Hop("127.0.0.1", trusted=False, host=b"relay", version=b"1.1")
UPGRADE = samples.browser_upgrade(mint(samples.CLAIMS, samples.KEYS[1]))
BOT_FIELDS = (
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-accept", b"0Hs0zGB6EJDJcF1SWhvTDT6fWiA="),
    (b"date", b"Tue, 14 Nov 2023 22:13:20 GMT"),
    (b"server", b"uvicorn"),
    (b"x-bot-version", b"1.4.2"),
)


def tracker_small(_: ExitStack) -> Loop:
    frame = bytearray(samples.audio_frame())
    tracker = FrameTracker(masked=True)
    return Repeated(partial(tracker.feed, frame, len(frame)))


class TwoReads:
    """A frame that comes in two reads, the second from byte `cut` on."""

    def __init__(self, frame: bytes, cut: int) -> None:
        self.tracker = FrameTracker(masked=True)
        self.first, self.second = bytearray(frame[:cut]), bytearray(frame[cut:])

    def __call__(self) -> int:
        feed, first, second = self.tracker.feed, self.first, self.second
        return feed(first, len(first)) + feed(second, len(second))


def tracker_split(_: ExitStack) -> Loop:
    # Inside the length: no more can be told than that there is a frame.
    return Repeated(TwoReads(samples.audio_frame(), cut=3))


def tracker_burst(_: ExitStack) -> Loop:
    frame = samples.audio_frame()
    frames = READ_SIZE // len(frame)
    read = bytearray(frame * frames)
    return Repeated(partial(FrameTracker(masked=True).feed, read, len(read)), each=frames)


def tracker_64k(_: ExitStack) -> Loop:
    return Repeated(TwoReads(samples.audio_frame(LARGE), cut=READ_SIZE))


def _head(head: bytes) -> Loop:
    def operation() -> Request:
        buffer = HeadBuffer(LIMITS)
        buffer.feed(head)
        cut = buffer.next_head()
        assert cut is not None
        return parse_request(cut)

    return Repeated(operation)


def head_start(_: ExitStack) -> Loop:
    return _head(samples.START)


def head_upgrade(_: ExitStack) -> Loop:
    return _head(UPGRADE)


def _route(head: bytes) -> Loop:
    request = parse_request(head)
    host = request.value(b"host")

    def operation() -> Match:
        return match(PUBLIC, request.method, parse_target(request.target, host))

    return Repeated(operation)


def route_start(_: ExitStack) -> Loop:
    return _route(samples.START)


def route_upgrade(_: ExitStack) -> Loop:
    return _route(UPGRADE)


def fields_to_bot(_: ExitStack) -> Loop:
    request = parse_request(UPGRADE)
    return Repeated(partial(for_bot_upgrade, request.headers, samples.SESSION, HOP))


def fields_from_bot(_: ExitStack) -> Loop:
    return Repeated(partial(from_bot_upgrade, BOT_FIELDS))


def body_small(_: ExitStack) -> Loop:
    return Repeated(partial(decode_body, [samples.base64_of(samples.BODY)]))


def body_4k(_: ExitStack) -> Loop:
    return Repeated(partial(decode_body, [samples.base64_of(samples.FULL_BODY)]))


def session_api(_: ExitStack) -> Loop:
    request = parse_request(
        samples.START.replace(b"POST", b"GET").replace(b"Content-Length: 60\r\n", b"")
    )
    authority = Address.of(samples.INSTANCE).authority
    random = bytes(TRACE_BYTES - 1) + b"x"

    def operation() -> tuple[bytes, list[BotHead | bytes]]:
        fields = for_bot(request, samples.SESSION, REQUEST_ID, HOP, random)
        sent = request_head(request, b"/items?limit=8", authority, fields)
        talk = BotTalk(request.method)
        talk.receive(samples.ANSWER)
        answer: list[BotHead | bytes] = []
        while (event := talk.next_event()) is not BotEnd.END:
            assert isinstance(event, BotHead | bytes)
            answer.append(event)
        return sent, answer

    return Repeated(operation)


WIRE = (
    Case(
        "tracker-small",
        "frame",
        f"FrameTracker.feed: a whole masked frame of {samples.AUDIO} bytes in one read",
        tracker_small,
        counted=10_000,
    ),
    Case(
        "tracker-split",
        "frame",
        "the same frame in two reads, cut inside its header",
        tracker_split,
    ),
    Case(
        "tracker-burst",
        "frame",
        "a read of 64 KiB full of such frames, per frame",
        tracker_burst,
    ),
    Case(
        "tracker-64k",
        "frame",
        "one frame of 64 KiB of payload in the two reads that it takes",
        tracker_64k,
    ),
    Case(
        "head-start",
        "head",
        "HeadBuffer and parse_request: a POST /start",
        head_start,
        counted=100,
    ),
    Case(
        "head-upgrade",
        "head",
        "the same: a browser's upgrade with token and body",
        head_upgrade,
        counted=100,
    ),
    Case("route-start", "target", "parse_target and match: a POST /start", route_start),
    Case("route-upgrade", "target", "the same: a browser's upgrade", route_upgrade),
    Case(
        "fields-to-bot",
        "head",
        "for_bot_upgrade: the fields of a browser's upgrade",
        fields_to_bot,
    ),
    Case("fields-from-bot", "head", "from_bot_upgrade: the fields of a bot's 101", fields_from_bot),
    Case("body-small", "body", "decode_body: a small object", body_small),
    Case(
        "body-4k",
        "body",
        "the same: nearly the longest body that is taken, percent-encoded",
        body_4k,
        counted=100,
    ),
    Case(
        "session-api",
        "exchange",
        "BotTalk: the request written, an answer of small JSON read; without sockets",
        session_api,
        counted=100,
    ),
)
