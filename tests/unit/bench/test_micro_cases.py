"""Every case of bench.micro does what it says it does."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import trio

from bench.micro import samples
from bench.micro.case import Loop, Repeated
from bench.micro.cases import CASES
from bench.micro.policy_cases import Lives
from bench.micro.pump_cases import Rings
from bench.micro.wire_cases import REQUEST_ID, TwoReads
from relay.errors import Refusal
from relay.policy import tokens
from relay.policy.interfaces import SessionFilter
from relay.policy.routes import Route
from relay.policy.sessions import SessionState
from relay.protocol.body import MAX_BODY
from relay.protocol.bot_http import BotHead
from relay.protocol.frames import FrameTracker
from relay.protocol.http1 import parse_request
from relay.pump.scratch import READ_SIZE

FRAME = len(samples.audio_frame())
BURST = READ_SIZE // FRAME
TOKEN = tokens.mint(samples.CLAIMS, samples.KEYS[1])


def result(loop: Loop) -> Any:
    """What one call of an ordinary loop's operation returns."""
    assert isinstance(loop, Repeated)
    assert loop.each == 1
    return loop.operation()


def tracks(size: int, frames: int = 1) -> Callable[[Loop], None]:
    """All bytes pass, as whole messages, time and again."""

    def check(loop: Loop) -> None:
        assert isinstance(loop, Repeated)
        operation: Any = loop.operation
        one_read = isinstance(operation, partial)
        tracker = operation.func.__self__ if one_read else operation.tracker
        assert isinstance(tracker, FrameTracker)
        for times in (1, 2):
            assert operation() == size
            assert tracker.at_boundary
            assert tracker.violation is None
            assert tracker.messages == times * frames
        assert loop.each == frames

    return check


def cuts_inside_the_header(loop: Loop) -> None:
    tracks(FRAME)(loop)
    assert isinstance(loop, Repeated)
    assert isinstance(loop.operation, TwoReads)
    tracker = loop.operation.tracker
    assert tracker.feed(loop.operation.first, len(loop.operation.first)) < FRAME
    assert not tracker.at_boundary
    assert tracker.messages == 2  # those of before: this one has only begun


def parses(method: bytes, fields: int) -> Callable[[Loop], None]:
    def check(loop: Loop) -> None:
        request = result(loop)
        assert request.method == method
        assert len(request.headers) == fields
        assert request.value(b"host") == b"relay.example.com"

    return check


def matches(route: Route, names: dict[str, str]) -> Callable[[Loop], None]:
    def check(loop: Loop) -> None:
        found = result(loop)
        assert (found.route, found.names) == (route, names)

    return check


def keeps_what_is_the_bots(loop: Loop) -> None:
    names = [name for name, _ in result(loop)]
    assert names[-1] == b"x-daily-session-id"
    assert {b"user-agent", b"origin"} <= set(names)
    assert not {b"connection", b"cookie", b"host", b"sec-websocket-key"} & set(names)


def keeps_what_is_the_clients(loop: Loop) -> None:
    assert result(loop) == [(b"x-bot-version", b"1.4.2")]


def decodes(value: object, least: int) -> Callable[[Loop], None]:
    def check(loop: Loop) -> None:
        data = base64.b64decode(result(loop), validate=True)
        assert json.loads(data) == value
        assert least <= len(data) <= MAX_BODY

    return check


def decodes_what_is_escaped(loop: Loop) -> None:
    decodes(samples.FULL_BODY, MAX_BODY - 50)(loop)
    assert b"%2B" in samples.base64_of(samples.FULL_BODY)


def exchanges(loop: Loop) -> None:
    sent, (head, *pieces) = result(loop)
    # A server reads what was sent; the answer is what the bot wrote.
    request = parse_request(sent)
    assert (request.method, request.target) == (b"GET", b"/items?limit=8")
    assert request.value(b"x-request-id") == REQUEST_ID.encode()
    assert request.value(b"authorization") is None
    assert isinstance(head, BotHead)
    assert head.status == 200
    assert b"".join(pieces) == samples.ANSWER_BODY


def mints(loop: Loop) -> None:
    assert result(loop) == TOKEN


def verifies(loop: Loop) -> None:
    assert result(loop) == samples.CLAIMS
    assert isinstance(loop, Repeated)
    operation = loop.operation
    assert isinstance(operation, partial)
    token, *others = operation.args
    forged = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    with pytest.raises(Refusal) as refusal:
        operation.func(forged, *others)
    assert refusal.value.cause == "token_bad_signature"


def lives_and_ends(loop: Loop) -> None:
    assert isinstance(loop, Lives)
    assert loop(2) == 2
    store = loop.store
    sessions, total = trio.run(store.find, SessionFilter())
    assert total == 2
    for session in sessions:
        assert session.state is SessionState.ENDED
        assert session.cause == "client_closed"
        assert session.instance == samples.INSTANCE
        assert None not in (session.admitted, session.started, session.ended)
    assert trio.run(store.leases) == []


def forwards(rings: int) -> Callable[[Loop], None]:
    def check(loop: Loop) -> None:
        assert isinstance(loop, Rings)
        assert loop.forwarded() == rings  # the one that each was started with
        turns = 20
        forwarded = loop(turns)
        # What the kernel delivers late is forwarded by a later turn; never more than one each.
        assert 0 < forwarded <= turns * rings
        assert loop.forwarded() == rings + forwarded
        figures = [tunnel.from_client for tunnel in loop.tunnels]
        assert sum(each.bytes for each in figures) == FRAME * loop.forwarded()
        assert not any(each.held for each in figures)

    return check


CHECKS: dict[str, Callable[[Loop], None]] = {
    "nothing": lambda loop: result(loop),
    "tracker-small": tracks(FRAME),
    "tracker-split": cuts_inside_the_header,
    "tracker-burst": tracks(BURST * FRAME, BURST),
    "tracker-64k": tracks(len(samples.audio_frame(64 * 1024))),
    "head-start": parses(b"POST", 7),
    "head-upgrade": parses(b"GET", 13),
    "route-start": matches(Route.START, {"agent": "my-agent"}),
    "route-upgrade": matches(Route.GENERIC_WEBSOCKET, {"host": "my-agent.acme"}),
    "fields-to-bot": keeps_what_is_the_bots,
    "fields-from-bot": keeps_what_is_the_clients,
    "body-small": decodes(samples.BODY, 1),
    "body-4k": decodes_what_is_escaped,
    "session-api": exchanges,
    "token-mint": mints,
    "token-check": verifies,
    "store-life": lives_and_ends,
    "pump-1": forwards(1),
    "pump-64": forwards(64),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    with ExitStack() as stack:
        CHECKS[name](CASES[name].setup(stack))


@pytest.mark.parametrize("name", CASES)
def test_a_loop_tells_its_operations(name: str) -> None:
    with ExitStack() as stack:
        loop = CASES[name].setup(stack)
        each = loop.each if isinstance(loop, Repeated) else 64 if name == "pump-64" else 1
        assert 0 < loop(3) <= 3 * each


def test_the_sample_frames_are_frames() -> None:
    for size in (126, samples.AUDIO, 65_535, 65_536):
        frame = samples.audio_frame(size)
        tracker = FrameTracker(masked=True, max_message=size)
        assert tracker.feed(frame, len(frame)) == len(frame)
        assert tracker.messages == 1
        tracker = FrameTracker(masked=True, max_message=size - 1)
        assert tracker.feed(frame, len(frame)) < len(frame)


def test_a_step_that_the_store_refuses_is_no_life() -> None:
    with ExitStack() as stack:
        lives = CASES["store-life"].setup(stack)
        assert isinstance(lives, Lives)
        # The one place is taken by somebody else from now on.
        connection = lives.store._database.connection
        lease = ("somebody", samples.INSTANCE, samples.AGENT.name, "node-2")
        connection.execute("INSERT INTO leases VALUES (?, ?, ?, ?)", lease)
        with pytest.raises(RuntimeError, match="refused a step"):
            lives(1)


def test_a_pump_that_forwards_nothing_is_no_figure() -> None:
    with ExitStack() as stack:
        rings = CASES["pump-1"].setup(stack)
        assert isinstance(rings, Rings)
        for tunnel in rings.tunnels:
            tunnel.pump.retire(tunnel, 0.0)
        with pytest.raises(RuntimeError, match="forwarded nothing"):
            rings(1)
