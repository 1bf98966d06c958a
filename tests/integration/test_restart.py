"""The control process dies: calls go on, and the next one finds them and what it missed."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.daemon import (
    Daemon,
    config_text,
    end_pumps,
    spawn,
    start_daemon,
    wait_until,
)
from tests.helpers.ends import (
    Ends,
    begin,
    cause_of,
    close_seen,
    ends_cleanly,
    kill_control,
    kill_pump,
    nothing_is_held,
    restart,
    wait_ready,
)
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.shared import Mortal
from tests.helpers.wire import Wire, call, echoes, live, token_for, upgrade


class Node(Mortal):
    """The daemon, and how its bot's calls have ended."""

    def __init__(self, daemon: Daemon, ends: Ends) -> None:
        super().__init__(daemon)
        self.ends = ends


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One bot with two places, one pump."""
    with scripted_bot() as bot:
        bot.script = ends = Ends()
        config = config_text([bot.url], "sessions_per_instance = 2", "close_timeout = 1")
        node = Node(start_daemon(tmp_path, config), ends)
        with node.ended():
            yield node
            node.leaves_nothing()


@pytest.fixture(scope="module", autouse=True)
def orphan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, str]]:
    """A pump that has lost its control process and its call; in ten seconds it gives up.

    Made before the first test, looked at by the last one, so that nobody waits for it.
    """
    folder = tmp_path_factory.mktemp("orphan")
    with scripted_bot() as bot:
        bot.script = Ends()
        daemon = start_daemon(folder, config_text([bot.url]))
        try:
            with begin(daemon) as began:
                kill_control(daemon)
                assert echoes(began.ws)
                began.ws.close(4002, "nobody wrote it down")
            yield daemon, began.id
        finally:
            end_pumps(daemon)


def test_a_call_outlives_its_control_process(node: Node) -> None:
    with begin(node.daemon) as began:
        kill_control(node.daemon)
        for number in range(5):
            assert echoes(began.ws, f"nobody is in control {number}")
        daemon = node.again()
        assert [(one["sessionId"], one["state"]) for one in live(daemon)] == [(began.id, "active")]
        assert echoes(began.ws)
        answer = daemon.request("DELETE", f"/sessions/{began.id}", admin=True)
        assert answer.status == 200
        assert close_seen(began.ws) == (1001, "stopped")
        assert node.ends.next() == (1001, "stopped")
    record = daemon.wait_ended(began.id)
    assert record["cause"] == "stopped"
    assert record["figures"]["client"]["messages"] == 7
    assert len(daemon.pump_pids()) == 1


def test_an_end_that_nobody_heard(node: Node) -> None:
    """The pump lives and tells it to the next control process, which frees the place too."""
    began, other = begin(node.daemon), begin(node.daemon)
    kill_control(node.daemon)
    began.ws.close(4001, "done")
    assert node.ends.next() == (4001, "done")
    with other:
        daemon = node.again()
        record = daemon.session(began.id)
        assert (record["state"], record["cause"], record["closeCode"]) == (
            "ended",
            "client_closed",
            4001,
        )
        assert record["figures"]["bot"]["messages"] == 1
        with begin(daemon) as third:
            assert echoes(third.ws)
        assert echoes(other.ws)


def test_a_pump_that_died_too(node: Node) -> None:
    with begin(node.daemon) as began:
        kill_control(node.daemon)
        kill_pump(node.daemon)
        assert close_seen(began.ws)[0] == 1006
        daemon = node.again()
        assert daemon.session(began.id)["cause"] == "lost"
        with begin(daemon) as second:
            assert echoes(second.ws)


def test_a_token_from_before(node: Node) -> None:
    """One that was not used is good, one that was used is not, whatever died in between."""
    with begin(node.daemon) as used:
        unused = node.daemon.start_when_free()
        kill_control(node.daemon)
        daemon = node.again()
        with pytest.raises(InvalidStatus) as refused:
            call(daemon, token=used.token)
        assert refused.value.response.status_code == 403
        with call(daemon, token=unused["token"]) as ws:
            assert echoes(ws)
            assert ws.response is not None
            assert ws.response.headers["x-daily-session-id"] == unused["sessionId"]


def test_a_caller_who_was_waiting(node: Node) -> None:
    """The connection is lost; the token is good again at once (docs/operations.md)."""
    first, second = begin(node.daemon), begin(node.daemon)
    # A direct connection needs no reservation; its token is minted with the key of the test.
    token = token_for()
    with Wire(node.daemon.port) as waiting:
        waiting.send(upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token}"))
        wait_until(lambda: len(live(node.daemon)) == 3, "the third waits")
        kill_control(node.daemon)
        daemon = node.again()
    with first, second:
        assert len(live(daemon)) == 2
    with call(daemon, token=token) as ws:
        assert echoes(ws)


def test_a_call_that_was_being_attached(node: Node, tmp_path: Path) -> None:
    """Killed while the bot has the request and has not answered: the place is free again."""
    asked: queue.Queue[str] = queue.Queue()
    with scripted_bot() as bot:
        usual = Ends()
        bot.script = lambda talk: (asked.put(talk.target), talk.wait_closed())[1]
        folder = tmp_path / "other"
        folder.mkdir()
        daemon = start_daemon(folder, config_text([bot.url]))
        try:
            started = daemon.start_when_free()
            with Wire(daemon.port) as wire:
                carrier = f"Authorization: Bearer {started['token']}"
                wire.send(upgrade("/ws/generic/bot.acme", carrier))
                asked.get(timeout=15)
                kill_control(daemon)
                assert wire.rest() == b""
            bot.script = usual
            daemon = restart(daemon)
            with call(daemon, token=started["token"]) as ws:
                assert echoes(ws)
            nothing_is_held(daemon)
        finally:
            daemon.process.end()
            end_pumps(daemon)


def test_fewer_pumps_after_a_restart(node: Node) -> None:
    """Those beyond the new number keep their calls, take no others, and leave when empty."""
    node.daemon.process.end()
    config = node.daemon.config.read_text()
    daemon = node.again(config.replace("[store]", "pumps = 2\n[store]"))
    calls = [begin(daemon), begin(daemon)]
    assert len(daemon.pump_pids()) == 2
    kill_control(daemon)
    daemon = node.again(config)
    assert {one["sessionId"] for one in live(daemon)} == {each.id for each in calls}
    for each in calls:
        assert echoes(each.ws)
        each.ws.close()
        assert daemon.wait_ended(each.id)["cause"] == "client_closed"
    wait_until(lambda: len(daemon.pump_pids()) == 1, "the other pump has left")
    with begin(daemon) as began:
        assert echoes(began.ws)


def test_a_second_daemon_is_refused(node: Node) -> None:
    """Two control processes must not speak to one pump: the second says so and leaves."""
    with begin(node.daemon) as began:
        path = node.daemon.config
        second = spawn(["relay", "serve", "--config", str(path)], node.daemon.folder, "second")
        assert second.popen.wait(20) == 2
        (line,) = second.errors().splitlines()
        assert "server.runtime_dir" in line
        assert f"in use by another relay daemon (pid {node.daemon.process.pid})" in line
        assert second.output() == ""
        assert echoes(began.ws)
        assert node.daemon.session(began.id)["state"] == "active"


def test_a_restart_in_a_row_of_kills(node: Node) -> None:
    """Nothing is lost by being killed again and again, at the start too."""
    with begin(node.daemon) as began:
        kill_control(node.daemon)
        for number in range(2):
            killed = spawn(
                ["relay", "serve", "--config", str(node.daemon.config)],
                node.daemon.folder,
                f"killed{number}",
            )
            if number:
                wait_until(killed.output, "it listens")
            killed.popen.kill()
            killed.popen.wait()
        daemon = node.again()
        assert echoes(began.ws)
        assert len(live(daemon)) == 1


def test_reports_of_a_pump_that_has_left(orphan: tuple[Daemon, str]) -> None:
    daemon, session = orphan
    wait_until(lambda: not daemon.pump_pids(), "the pump gives up", 30)
    assert cause_of(daemon, session) is None
    again = restart(daemon)
    try:
        record = again.session(session)
        assert (record["cause"], record["closeCode"]) == ("client_closed", 4002)
        assert record["figures"]["client"]["messages"] == 2
        assert list((daemon.folder / "run").glob("*.finished")) == []
        wait_ready(again)
        nothing_is_held(again)
    finally:
        again.process.end()
    ends_cleanly(again)
