"""Calls of the `frames` relay when somebody dies or is told to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemon import Daemon, config_text, start_daemon, wait_until
from tests.helpers.ends import (
    ABNORMAL,
    Ends,
    begin,
    cause_of,
    close_seen,
    descriptors,
    ends_cleanly,
    kill_control,
    kill_pump,
    nothing_is_held,
    raw_call,
    readiness,
    reset,
    restart,
    signal_daemon,
    wait_ready,
)
from tests.helpers.launched import launching, naughty
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.shared import Mortal
from tests.helpers.wire import echoes, masked

FRAMES = 'relay = "frames"'
RESTART = (1012, "service restart")


class Node(Mortal):
    """The daemon, and how its bot's calls have ended."""

    def __init__(self, daemon: Daemon, ends: Ends) -> None:
        super().__init__(daemon)
        self.ends = ends


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One bot with four places, one pump."""
    with scripted_bot() as bot:
        bot.script = ends = Ends()
        agent = f"{FRAMES}\nsessions_per_instance = 4"
        config = config_text([bot.url], agent, "close_timeout = 1")
        node = Node(start_daemon(tmp_path, config), ends)
        with node.ended():
            yield node


def test_an_interrupt_ends_live_calls(node: Node) -> None:
    calls = [begin(node.daemon) for _ in range(3)]
    signal_daemon(node.daemon, signal.SIGINT)
    assert [close_seen(each.ws) for each in calls] == [RESTART] * 3
    assert [node.ends.next() for _ in calls] == [RESTART] * 3
    ends_cleanly(node.daemon, 5)
    # Recorded before the exit, not by a later start.
    assert [cause_of(node.daemon, each.id) for each in calls] == ["drain"] * 3


def test_an_interrupt_does_not_wait_for_a_side_that_never_answers(node: Node) -> None:
    started = node.daemon.start_when_free()
    with raw_call(node.daemon, started["token"]) as wire:
        signal_daemon(node.daemon, signal.SIGINT)
        assert wire.file.read(4) == b"\x88\x11\x03\xf4"  # Close, 17 bytes, code 1012
        ends_cleanly(node.daemon, 5)
    assert cause_of(node.daemon, started["sessionId"]) == "drain"


def test_a_drain_lets_live_calls_end(node: Node) -> None:
    with begin(node.daemon) as began:
        signal_daemon(node.daemon, signal.SIGTERM)
        wait_until(lambda: readiness(node.daemon) == (503, ["draining"]), "readyz says draining")
        for number in range(20):
            assert echoes(began.ws, f"still {number}")
        began.ws.close(1000, "done")
        assert node.ends.next() == (1000, "done")
        ends_cleanly(node.daemon, 5)
    assert cause_of(node.daemon, began.id) == "client_closed"


def test_a_control_process_that_dies_takes_its_calls_along(node: Node) -> None:
    began = begin(node.daemon)
    kill_control(node.daemon)
    assert close_seen(began.ws) == ABNORMAL
    assert node.ends.next() == ABNORMAL
    node.daemon = restart(node.daemon)
    assert node.daemon.wait_ended(began.id)["cause"] == "lost"
    nothing_is_held(node.daemon)
    with begin(node.daemon) as again:
        assert echoes(again.ws)
    node.daemon.process.end()
    ends_cleanly(node.daemon)


def test_a_pump_that_dies_is_no_matter(node: Node) -> None:
    with begin(node.daemon) as began:
        kill_pump(node.daemon)
        wait_ready(node.daemon)
        assert echoes(began.ws)
    assert node.daemon.wait_ended(began.id)["cause"] == "client_closed"


def test_nothing_is_left_of_calls_that_ended_in_any_way(node: Node) -> None:
    daemon = node.daemon
    with begin(daemon) as first:
        assert echoes(first.ws)
    daemon.wait_ended(first.id)
    before = descriptors(daemon.process.pid)
    causes = []
    for how in ("close", "reset", "half a frame", "illegal", "leave"):
        started = daemon.start_when_free()
        wire = raw_call(daemon, started["token"])
        if how == "close":
            wire.send(b"\x88\x80\0\0\0\0")
            assert wire.rest() == b"\x88\x00"
        elif how == "reset":
            reset(wire)
        elif how == "half a frame":
            wire.send(masked("never whole")[:-3])
        elif how == "illegal":
            wire.send(b"\x83\x80\0\0\0\0")
            assert wire.file.read(4) == b"\x88\x10\x03\xea"
        wire.close()
        causes.append(daemon.wait_ended(started["sessionId"])["cause"])
    gone = "client_gone"
    assert causes == ["client_closed", gone, gone, "client_protocol_error", gone]
    nothing_is_held(daemon)
    # A probe of the bot comes and goes by itself.
    wait_until(lambda: descriptors(daemon.process.pid) <= before, "every descriptor is closed")
    answer = daemon.request("GET", "/readyz", admin=True).json()
    assert answer["calls"] == 0


@pytest.mark.parametrize(
    ("command", "cause", "code"),
    [("!exit 0", "bot_ended", 1000), ("!exit 3", "bot_lost", 1011), ("!kill", "bot_lost", 1011)],
)
def test_a_launched_bot_that_dies_is_told_from_one_that_finishes(
    tmp_path: Path, command: str, cause: str, code: int
) -> None:
    with launching(tmp_path, naughty(), f"{FRAMES}\nattach_timeout = 20") as daemon:
        began = begin(daemon)
        began.ws.send(command)
        assert close_seen(began.ws)[0] == code
        assert daemon.wait_ended(began.id)["cause"] == cause
