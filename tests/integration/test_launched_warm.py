"""Bots that are ready before anybody calls: taken, replaced, found again, never doubled."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemon import PRIVATE_KEY, Daemon, wait_until
from tests.helpers.ends import begin, ends_cleanly, kill_control, readiness, signal_daemon
from tests.helpers.launched import bots_of, events, instances, launching, naughty, pid_of
from tests.helpers.launched_node import PATIENT, Node, open_node
from tests.helpers.wire import echoes

WARM = "min_agents = 2\nmax_agents = 5"
KEPT = f"{WARM}\nreuse_process = true\nspare_places = 1\nidle_retirement = 1"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """With an agent whose bots have one call each, and one whose bots are kept."""
    others = {"kept": (naughty(), f"{KEPT}\n{PATIENT}")}
    folder = tmp_path_factory.mktemp("warm")
    with launching(folder, naughty(), f"{WARM}\n{PATIENT}", others) as daemon:
        yield daemon


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with open_node(tmp_path) as node:
        yield node


def wait_warm(daemon: Daemon, number: int, agent: str = "bot") -> set[int]:
    """Wait until so many bots are there, and all of them are ready; their processes."""
    wait_until(
        lambda: list(instances(daemon, agent).values()) == ["ready"] * number,
        f"{number} bots are ready; {instances(daemon, agent)}",
    )
    found = bots_of(daemon, agent)
    assert len(found) == len(set(found.values())) == number
    return set(found)


def test_a_call_takes_a_warm_bot_and_another_one_is_started(daemon: Daemon) -> None:
    warm = wait_warm(daemon, 2)
    with begin(daemon) as first, begin(daemon) as second:
        assert {pid_of(first.ws), pid_of(second.ws)} == warm
        assert warm < wait_warm(daemon, 4)
        with begin(daemon) as third:
            assert pid_of(third.ws) not in warm
            wait_warm(daemon, 5)  # and no more than that
    wait_until(lambda: not warm & set(bots_of(daemon)), "each call had a process of its own")
    wait_warm(daemon, 2)


def test_kept_bots_are_retired_when_the_rush_is_over(daemon: Daemon) -> None:
    warm = wait_warm(daemon, 2, "kept")
    with begin(daemon, "kept") as first, begin(daemon, "kept") as second:
        assert {pid_of(first.ws), pid_of(second.ws)} == warm
        assert warm < wait_warm(daemon, 3, "kept")
    wait_until(lambda: events(daemon, "bot_ended", "kept"), "one is too many")
    wait_warm(daemon, 2, "kept")
    assert events(daemon, "bot_lost", "kept") == events(daemon, "bot_failed", "kept") == []


def test_a_warm_bot_that_dies_is_replaced(daemon: Daemon) -> None:
    dead, alive = wait_warm(daemon, 2)
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: len(bots_of(daemon, "bot").keys() - {dead, alive}) == 1, "another one")
    assert wait_warm(daemon, 2) > {alive}


def test_what_is_shown(daemon: Daemon) -> None:
    warm = wait_warm(daemon, 2)
    answer = daemon.request("GET", "/v1/agents/bot", Authorization=f"Bearer {PRIVATE_KEY}")
    assert answer.json()["autoScaling"] == {"minReplicas": 2, "maxReplicas": 5}
    with begin(daemon) as began:
        shown = daemon.request("GET", "/instances", admin=True).json()["bot"]
        assert warm <= {figures["pid"] for figures in shown.values()}
        instance = daemon.session(began.id)["instance"]
        assert shown[instance]["pid"] == pid_of(began.ws)
        assert (shown[instance]["state"], shown[instance]["sessions"]) == ("ready", 1)


# The control process ends.


@pytest.mark.parametrize(
    ("event", "number"),
    [("listening", 1), ("bot_started", 1)],
)
def test_killed_while_the_pool_fills(node: Node, event: str, number: int) -> None:
    """Those that are there are adopted; only what is missing is started."""
    daemon = node.start(more=WARM)
    agent = None if event == "listening" else "bot"
    while sum((line["event"], line.get("agent")) == (event, agent) for line in daemon.logs()) < (
        number
    ):
        assert daemon.process.popen.poll() is None
    kill_control(daemon)
    daemon = node.again()
    found = {line["pid"] for line in events(daemon, "bot_adopted")}
    warm = wait_warm(daemon, 2)
    assert found <= warm
    assert found | {line["pid"] for line in events(daemon, "bot_started")} == warm


@pytest.mark.parametrize(
    ("event", "number"),
    [("bot_started", 3), ("bot_ended", 1)],
)
def test_killed_while_calls_come_and_go(node: Node, event: str, number: int) -> None:
    daemon = node.start(more=WARM)
    wait_warm(daemon, 2)
    with begin(daemon) as other, begin(daemon) as began:
        over, pid = pid_of(other.ws), pid_of(began.ws)
        other.ws.close()
        while len(events(daemon, event)) < number:
            assert daemon.process.popen.poll() is None
        kill_control(daemon)
        daemon = node.again()
        wait_until(lambda: over not in bots_of(daemon), "the one of the call that is over ends")
        assert pid in wait_warm(daemon, 3)  # two spare ones beside the one in the call
        assert len(events(daemon, "bot_adopted")) + len(events(daemon, "bot_started")) <= 5
        assert echoes(began.ws)
    wait_until(lambda: pid not in bots_of(daemon), "the other one ends too")
    wait_warm(daemon, 2)


def test_another_command_replaces_the_warm_ones(node: Node) -> None:
    daemon = node.start(more=WARM)
    old = wait_warm(daemon, 2)
    kill_control(daemon)
    daemon = node.start("--post", "hold", more=WARM)
    wait_until(lambda: not old & set(bots_of(daemon)), "the old ones are gone")
    wait_warm(daemon, 2)


def test_a_drain_starts_no_more(node: Node) -> None:
    daemon = node.start(more=f"{WARM}\nstop_timeout = 1")
    wait_warm(daemon, 2)
    with begin(daemon) as first, begin(daemon) as second:
        wait_warm(daemon, 4)
        signal_daemon(daemon, signal.SIGTERM)
        wait_until(lambda: readiness(daemon) == (503, ["draining"]), "the daemon drains")
        first.ws.close()
        daemon.wait_ended(first.id)
        wait_until(lambda: len(events(daemon, "bot_ended")) == 1, "its bot has ended")
        assert echoes(second.ws)
    ends_cleanly(daemon)
    assert bots_of(daemon) == {}
    assert len(events(daemon, "bot_started")) == 4
