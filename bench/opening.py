"""What a round needs open before it begins: calls that have carried a message, a session.

The calls are opened here, in Python, and handed to the compiled workers as descriptors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench import wire
from bench.children import ChildFailed
from bench.client import Caller, Channel, Door, Refused
from bench.steps import Steps, run

__all__ = ["count_closed", "http_base", "open_calls"]

OPENERS = 4  # calls being set up at once: quick, and no storm
OPENING_SECONDS = 60.0  # + per call; the relay may hold an upgrade for 30 s
OPENING_SECONDS_PER_CALL = 0.05
CLOSING_SECONDS = 2.0  # + per call
CLOSING_SECONDS_PER_CALL = 0.002
FIRST_SIZE = 320  # of the message that each call carries first
SEED = 7
MSG_PEEK_NOW = 0x02 | 0x40  # MSG_PEEK | MSG_DONTWAIT


@contextmanager
def open_calls(door: Door, count: int) -> Iterator[list[Channel]]:
    """Calls that have each carried one message; all are ended with a Close and its answer.

    Raises:
        ChildFailed: any call could not be set up; the text says why.
    """
    channels: list[Channel] = []
    try:
        _open(door, count, channels)
        yield channels
        _close(channels, door)
    finally:
        for channel in channels:
            channel.close()


@contextmanager
def http_base(door: Door) -> Iterator[str]:
    """The URL under which the origin's HTTP paths are reached, with a session where it takes one.

    Raises:
        ChildFailed: there is no such URL, or the session could not be set up.
    """
    if door.http_url is not None or door.start_url is None:
        if door.http_url is None:
            raise ChildFailed("the target passes no HTTP requests on")
        yield door.http_url.rstrip("/")
        return
    sessions: list[tuple[Channel, str]] = []

    def hold() -> Steps[None]:
        caller = Caller(door, SEED)
        try:
            place, token, session = yield from caller.start_session()
            sessions.append(((yield from caller.attach(place, token)), session))
        finally:
            caller.close()

    failure = _attempt([hold()], OPENING_SECONDS)
    if failure or not sessions:
        raise ChildFailed(f"no session for the requests: {failure}")
    channel, session = sessions[0]
    try:
        yield f"{door.start_url.removesuffix('/start')}/sessions/{session}"
        _close([channel], door)
    finally:
        channel.close()


def count_closed(channels: Sequence[Channel]) -> int:
    """How many of the calls the other side has closed."""
    return sum(map(_is_closed, channels))


def _is_closed(channel: Channel) -> bool:
    try:
        return not channel.sock.recv(1, MSG_PEEK_NOW)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _open(door: Door, count: int, channels: list[Channel]) -> None:
    left = iter(range(count))

    def opener(seed: int) -> Steps[None]:
        caller = Caller(door, seed)
        try:
            for _ in left:
                place, token = yield from caller.start()
                channel = yield from caller.attach(place, token)
                channels.append(channel)
                yield from caller.echo(channel, FIRST_SIZE)
        finally:
            caller.close()

    openers = [opener(seed) for seed in range(OPENERS)]
    failure = _attempt(openers, OPENING_SECONDS + OPENING_SECONDS_PER_CALL * count)
    if failure:
        raise ChildFailed(f"{len(channels)} of {count} calls were set up, then: {failure}")
    if any(channel.held for channel in channels):
        raise ChildFailed("the target sent more than the echo of the first message")


def _attempt(tasks: Sequence[Steps[None]], seconds: float) -> str:
    """Run the tasks; why the first one failed, "" when none did."""
    failures: list[str] = []

    def guarded(task: Steps[None]) -> Steps[None]:
        try:
            yield from task
        except (OSError, Refused, ValueError, KeyError, wire.BadFrame) as error:
            failures.append(str(error) or type(error).__name__)

    ended = run([guarded(task) for task in tasks], time.monotonic() + seconds)
    if failures:
        return failures[0]
    return "" if ended else "no answer in time"


def _close(channels: Sequence[Channel], door: Door) -> None:
    def closer(channel: Channel) -> Steps[None]:
        try:
            yield from Caller(door, SEED).hang_up(channel)
        except (OSError, Refused, ValueError, wire.BadFrame):
            pass  # the figures are taken; how a call ends is not their subject

    seconds = CLOSING_SECONDS + CLOSING_SECONDS_PER_CALL * len(channels)
    run([closer(channel) for channel in channels], time.monotonic() + seconds)
