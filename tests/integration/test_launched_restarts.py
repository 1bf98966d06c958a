"""The daemon ends, by a signal or a kill: bots with a call go on, nobody is orphaned or doubled."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection

from tests.helpers.daemon import PATIENCE, Daemon, config_text, wait_until
from tests.helpers.ends import (
    begin,
    close_seen,
    ends_cleanly,
    kill_control,
    nothing_is_held,
    readiness,
    signal_daemon,
)
from tests.helpers.launched import (
    bots_of,
    events,
    instances,
    pid_of,
    records_of,
    start_http,
    wait_no_bots,
)
from tests.helpers.launched_node import Node, open_node
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.wire import call, echoes, live, stop, token_for

RESTART = (1012, "service restart")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with open_node(tmp_path) as node:
        yield node


def served(daemon: Daemon, pid: int | None = None) -> int:
    """A call goes through; the process that serves it, the expected one if it is named."""
    with begin(daemon) as began:
        found = pid_of(began.ws)
    assert pid in (None, found)
    daemon.wait_ended(began.id)
    return found


# Killed while a bot starts.


@contextmanager
def a_caller(daemon: Daemon) -> Iterator[None]:
    """Somebody waits for a bot, until the daemon is killed."""
    with ThreadPoolExecutor() as pool:
        future = pool.submit(call, daemon, "/ws/generic/bot.acme", token_for())
        yield
        assert future.exception(PATIENCE) is not None


def adopted(node: Node, daemon: Daemon) -> None:
    """One bot is there, was adopted, and serves the next caller; no other one was started."""
    (pid,) = bots_of(daemon)
    assert [line["pid"] for line in events(daemon, "bot_adopted")] == [pid]
    with ThreadPoolExecutor() as pool:
        future = pool.submit(served, daemon)
        wait_until(lambda: live(daemon), "somebody waits")
        assert list(bots_of(daemon)) == [pid]
        node.gate.touch()
        assert future.result(PATIENCE) == pid
    assert events(daemon, "bot_started") == []
    wait_no_bots(daemon)
    wait_until(lambda: not records_of(daemon), "no record is left")


def test_killed_when_a_bot_has_just_started(node: Node) -> None:
    daemon = node.start("--gate", str(node.gate))
    with a_caller(daemon):
        wait_until(lambda: events(daemon, "bot_started"), "a bot starts")
        kill_control(daemon)
    adopted(node, node.again())


@pytest.mark.parametrize("killed_again", [False, True])
def test_killed_before_it_could_note_the_pid(node: Node, killed_again: bool) -> None:
    """The bot is found by its mark alone."""
    daemon = node.start("--gate", str(node.gate))
    with a_caller(daemon):
        wait_until(lambda: events(daemon, "bot_started"), "a bot starts")
        kill_control(daemon)
    (path,) = records_of(daemon)
    record = json.loads(path.read_text())
    assert record["process"]["pid"] in bots_of(daemon)
    path.write_text(json.dumps(record | {"process": None}))
    if killed_again:
        kill_control(node.again())
    adopted(node, node.again())


def test_killed_before_it_could_start_the_bot(node: Node) -> None:
    daemon = node.start()
    kill_control(daemon)
    folder = daemon.folder / "run" / "bots"
    folder.mkdir()
    record = {"id": "0123456789ab", "agent": "bot", "port": 1, "launch": "x", "process": None}
    (folder / "0123456789ab.json").write_text(json.dumps(record))
    (folder / "torn.json").write_text('{"id": "0123')
    daemon = node.again()
    served(daemon)
    wait_until(lambda: [path.name for path in records_of(daemon)] == ["torn.json"], "only one left")


@pytest.mark.parametrize("attempt", range(3))
def test_killed_at_some_moment_of_a_start(node: Node, attempt: int) -> None:
    """As soon as a record is there, which is before, while or after the process is started."""
    daemon = node.start("--gate", str(node.gate))
    with a_caller(daemon):
        folder = daemon.folder / "run" / "bots"
        while not folder.is_dir() or not any(name.endswith("json") for name in os.listdir(folder)):
            assert daemon.process.popen.poll() is None
        kill_control(daemon)
    daemon = node.again()
    # Looked at now: at the kill the process may not have had its mark yet, before its exec.
    found = bots_of(daemon)
    assert len(found) <= 1
    assert {line["pid"] for line in events(daemon, "bot_adopted")} == set(found)
    node.gate.touch()
    assert set(found) <= {served(daemon)}
    wait_no_bots(daemon)
    wait_until(lambda: not records_of(daemon), "no record is left")


# Killed in mid-call.


def test_a_call_goes_on_and_its_bot_is_adopted(node: Node) -> None:
    daemon = node.start()
    with begin(daemon) as began:
        pid = pid_of(began.ws)
        kill_control(daemon)
        assert echoes(began.ws)
        daemon = node.again()
        assert [line["pid"] for line in events(daemon, "bot_adopted")] == [pid]
        with begin(daemon) as other:  # the bot is not given to a second caller
            assert pid_of(other.ws) != pid
        assert echoes(began.ws)
        assert pid in bots_of(daemon)
    assert daemon.wait_ended(began.id)["cause"] == "client_closed"
    wait_no_bots(daemon)
    wait_until(lambda: not records_of(daemon), "no record is left")


def test_a_call_that_ended_while_nobody_was_in_control(node: Node) -> None:
    daemon = node.start()
    began = begin(daemon)
    kill_control(daemon)
    began.ws.close()
    assert len(bots_of(daemon)) == 1
    daemon = node.again()
    assert daemon.wait_ended(began.id)["cause"] == "client_closed"
    wait_no_bots(daemon)


def test_a_bot_that_ended_while_nobody_was_in_control(node: Node) -> None:
    """With a child of its own that did not."""
    daemon = node.start("--child")
    with begin(daemon) as began:
        first = pid_of(began.ws)
        kill_control(daemon)
        began.ws.send("!exit 0")
        assert close_seen(began.ws)[0] == 1000
        wait_until(lambda: first not in bots_of(daemon), "the bot has ended")
    assert len(bots_of(daemon)) == 1
    daemon = node.again()
    wait_no_bots(daemon)
    assert served(daemon) != first


def test_a_held_request_goes_on(node: Node) -> None:
    daemon = node.start("--post", "hold")
    session = start_http(daemon)
    wait_until(lambda: daemon.session(session)["state"] == "active", "it is active")
    (pid,) = bots_of(daemon)
    kill_control(daemon)
    daemon = node.again()
    assert daemon.session(session)["state"] == "active"
    assert list(bots_of(daemon)) == [pid]
    stop(daemon, session)
    assert daemon.wait_ended(session)["cause"] == "stopped"
    wait_no_bots(daemon)


@pytest.mark.parametrize("more", ["", "reuse_process = true"])
def test_a_changed_command(node: Node, more: str) -> None:
    """The old bot finishes its call and ends; new calls have the new command."""
    daemon = node.start("--post", "hold", more=more)
    with begin(daemon) as began:
        old = pid_of(began.ws)
        kill_control(daemon)
        daemon = node.start("--post", "answer", more=more)
        with begin(daemon) as other:
            new = pid_of(other.ws)
            assert new != old
            assert echoes(began.ws)
        assert old in bots_of(daemon)
    daemon.wait_ended(began.id)
    wait_until(lambda: old not in bots_of(daemon), "the old one is gone")
    assert served(daemon) != old
    if more:
        assert list(bots_of(daemon)) == [new]


def test_an_agent_that_is_gone(node: Node) -> None:
    """Its bot finishes the call and ends; one without a call ends at once."""
    daemon = node.start(more="reuse_process = true")
    with begin(daemon) as began, begin(daemon) as idle:
        kept, ending = pid_of(began.ws), pid_of(idle.ws)
        idle.ws.close()
        instance = daemon.wait_ended(idle.id)["instance"]
        wait_until(lambda: instances(daemon).get(instance) == "ready", "it waits for the next")
        kill_control(daemon)
        with scripted_bot() as bot:
            config = config_text([bot.url]).replace("[agents.bot]", "[agents.other]")
            daemon = node.again(config)
            wait_until(lambda: ending not in bots_of(daemon), "the idle one is gone")
            assert list(bots_of(daemon)) == [kept]
            assert echoes(began.ws)
            began.ws.close()
            wait_no_bots(daemon)
            daemon.wait_ended(began.id)
            nothing_is_held(daemon)


def test_an_agent_that_has_instances_now(node: Node) -> None:
    daemon = node.start()
    with begin(daemon) as began, scripted_bot() as bot:
        kill_control(daemon)
        daemon = node.again(config_text([bot.url]))
        with begin(daemon):
            assert len(bot.conversations) == 1
        assert echoes(began.ws)
        began.ws.close()
        wait_no_bots(daemon)
        nothing_is_held(daemon)


# Ended.


def test_a_drain_ends_bots_after_the_last_call(node: Node) -> None:
    daemon = node.start(more="reuse_process = true\nsessions_per_instance = 1")
    with begin(daemon) as began, begin(daemon) as other:
        other.ws.close()
        daemon.wait_ended(other.id)
        signal_daemon(daemon, signal.SIGTERM)
        wait_until(lambda: readiness(daemon) == (503, ["draining"]), "the daemon drains")
        assert echoes(began.ws)
    ends_cleanly(daemon)
    assert bots_of(daemon) == {}
    assert records_of(daemon) == []


def test_a_caller_in_line_gets_a_bot_during_a_drain(node: Node) -> None:
    daemon = node.start("--gate", str(node.gate))
    with ThreadPoolExecutor() as pool:
        future = pool.submit(call, daemon, "/ws/generic/bot.acme", token_for())
        wait_until(lambda: bots_of(daemon), "a bot starts")
        signal_daemon(daemon, signal.SIGTERM)
        wait_until(lambda: readiness(daemon)[0] == 503, "the daemon drains")
        node.gate.touch()
        ws: ClientConnection = future.result(PATIENCE)
        with ws:
            assert echoes(ws)
    ends_cleanly(daemon)
    assert bots_of(daemon) == {}


def test_an_interrupt_ends_every_bot(node: Node) -> None:
    """Within seconds, one that does not want to end too."""
    daemon = node.start("--stubborn", more="stop_timeout = 3600")
    with begin(daemon) as began:
        signal_daemon(daemon, signal.SIGINT)
        assert close_seen(began.ws) == RESTART
    ends_cleanly(daemon)
    assert bots_of(daemon) == {}


def test_an_interrupt_ends_a_bot_that_starts(node: Node) -> None:
    daemon = node.start("--gate", str(node.gate))
    start_http(daemon)
    wait_until(lambda: bots_of(daemon), "a bot starts")
    signal_daemon(daemon, signal.SIGINT)
    ends_cleanly(daemon)
    assert bots_of(daemon) == {}
