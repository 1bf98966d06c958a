"""SIGINT ends everything now, SIGTERM drains, and either way the daemon leaves clean."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.daemon import Daemon, running_daemon, wait_until
from tests.helpers.ends import (
    Ends,
    begin,
    cause_of,
    close_seen,
    ends_cleanly,
    nothing_is_held,
    readiness,
    rows,
    signal_daemon,
)
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.wire import Wire, call, echoes, live, request, upgrade

RESTART = (1012, "service restart")


@contextmanager
def noting_daemon(
    folder: Path, agent: str = "sessions_per_instance = 4", limits: str = ""
) -> Iterator[tuple[Daemon, Ends]]:
    """A daemon with a bot that tells how its calls end."""
    with (
        scripted_bot() as bot,
        running_daemon(folder, [bot.url], agent, f"close_timeout = 1\n{limits}") as daemon,
    ):
        bot.script = ends = Ends()
        yield daemon, ends


def test_an_interrupt_ends_live_calls(tmp_path: Path) -> None:
    with noting_daemon(tmp_path) as (daemon, ends):
        calls = [begin(daemon) for _ in range(3)]
        signal_daemon(daemon, signal.SIGINT)
        assert [close_seen(each.ws) for each in calls] == [RESTART] * 3
        assert [ends.next() for _ in calls] == [RESTART] * 3
        ends_cleanly(daemon, 5)
        # Recorded before the exit, not by a later start.
        assert [cause_of(daemon, each.id) for each in calls] == ["drain"] * 3


def test_an_interrupt_does_not_wait_for_a_side_that_never_answers(tmp_path: Path) -> None:
    with noting_daemon(tmp_path) as (daemon, _ends):
        started = daemon.start_when_free()
        with Wire(daemon.port) as wire:
            wire.send(upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {started['token']}"))
            assert wire.answer().status == 101
            signal_daemon(daemon, signal.SIGINT)
            assert wire.file.read(4) == b"\x88\x11\x03\xf4"  # Close, 17 bytes, code 1012
            ends_cleanly(daemon, 5)
        assert cause_of(daemon, started["sessionId"]) == "drain"


def test_a_drain_lets_live_calls_end(tmp_path: Path) -> None:
    with noting_daemon(tmp_path) as (daemon, ends), begin(daemon) as began:
        early = daemon.start().json()
        signal_daemon(daemon, signal.SIGTERM)
        wait_until(lambda: readiness(daemon) == (503, ["draining"]), "readyz says draining")
        answer = daemon.start()
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        with pytest.raises(InvalidStatus) as refused:
            call(daemon, token=early["token"])
        assert refused.value.response.status_code == 503
        assert daemon.request("GET", "/livez", admin=True).status == 200
        for number in range(20):
            assert echoes(began.ws, f"still {number}")
        began.ws.close(1000, "done")
        assert ends.next() == (1000, "done")
        ends_cleanly(daemon, 5)
        assert cause_of(daemon, began.id) == "client_closed"


def test_a_caller_in_line_is_served_during_a_drain(tmp_path: Path) -> None:
    agent = 'websocket_auth = "none"'
    with noting_daemon(tmp_path, agent) as (daemon, ends), ExitStack() as stack:
        first = stack.enter_context(begin(daemon))
        second = stack.enter_context(Wire(daemon.port))
        second.send(upgrade("/ws/generic/bot.acme"))
        wait_until(lambda: len(live(daemon)) == 2, "the second waits")
        signal_daemon(daemon, signal.SIGTERM)
        wait_until(lambda: readiness(daemon)[0] == 503, "the daemon drains")
        first.ws.close()
        assert second.answer().status == 101
        second.close()
        assert [ends.next()[0] for _ in range(2)] == [1000, 1001]
        ends_cleanly(daemon, 5)


def test_a_second_sigterm_hurries(tmp_path: Path) -> None:
    with noting_daemon(tmp_path) as (daemon, ends), begin(daemon) as began:
        signal_daemon(daemon, signal.SIGTERM)
        wait_until(lambda: readiness(daemon)[0] == 503, "the daemon drains")
        assert echoes(began.ws)
        signal_daemon(daemon, signal.SIGTERM)
        assert close_seen(began.ws) == RESTART
        assert ends.next() == RESTART
        ends_cleanly(daemon, 5)


def test_a_drain_has_an_end(tmp_path: Path) -> None:
    with (
        noting_daemon(tmp_path, limits="drain_timeout = 1") as (daemon, ends),
        begin(daemon) as began,
    ):
        signal_daemon(daemon, signal.SIGTERM)
        assert close_seen(began.ws) == RESTART
        assert ends.next() == RESTART
        ends_cleanly(daemon, 5)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_without_calls_the_end_is_at_once(tmp_path: Path, signum: int) -> None:
    with (
        noting_daemon(tmp_path) as (daemon, _ends),
        Wire(daemon.port) as idle,
        Wire(daemon.admin_port) as admin,
    ):
        # Neither idle connections nor a promised place hold it.
        assert idle.ask(request("GET", "/")).status == 404
        assert admin.ask(request("GET", "/livez")).status == 200
        daemon.start_when_free()
        signal_daemon(daemon, signum)
        ends_cleanly(daemon, 2)
        assert idle.rest() == b""


def test_an_instance_that_rests_is_given_back(tmp_path: Path) -> None:
    """Nobody would free it before this node is started again."""
    with scripted_bot() as bot, scripted_bot() as idle:
        resting = f'[agents.resting]\norganization = "acme"\ninstances = ["{bot.url}"]'
        with running_daemon(tmp_path, [idle.url], f"{resting}\nsettle_time = 0.5") as daemon:
            with begin(daemon, "resting"):
                signal_daemon(daemon, signal.SIGINT)
                ends_cleanly(daemon, 5)
            assert rows(daemon, "SELECT * FROM leases") == []


def test_a_burst_of_signals(tmp_path: Path) -> None:
    """It changes nothing: one end, exit code 0."""
    with noting_daemon(tmp_path) as (daemon, _ends), begin(daemon) as began:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            signal_daemon(daemon, signum)
        assert close_seen(began.ws) == RESTART
        ends_cleanly(daemon, 5)


def test_a_pump_that_does_not_quit(tmp_path: Path) -> None:
    """It is killed in the end, and its call recorded; nothing hangs."""
    with noting_daemon(tmp_path) as (daemon, _ends), begin(daemon) as began:
        (pump,) = daemon.pump_pids()
        os.kill(pump, signal.SIGSTOP)
        signal_daemon(daemon, signal.SIGINT)
        ends_cleanly(daemon, 10)
        assert any(line["event"] == "pump_stuck" for line in daemon.logs())
        assert close_seen(began.ws)[0] == 1006
        assert cause_of(daemon, began.id) == "pump_died"


def test_clients_that_are_cut_off_hold_nothing(tmp_path: Path) -> None:
    """An interrupt in the middle of requests of every kind leaves a store that is clean."""
    with noting_daemon(tmp_path, 'websocket_auth = "none"') as (daemon, _ends):
        with begin(daemon), Wire(daemon.port) as waiting, Wire(daemon.port) as half:
            waiting.send(upgrade("/ws/generic/bot.acme"))
            half.send(b"POST /v1/public/bot/start HTTP/1.1\r\nHost: relay\r\nContent-Le")
            wait_until(lambda: len(live(daemon)) == 2, "one waits")
            signal_daemon(daemon, signal.SIGINT)
            ends_cleanly(daemon, 5)
            assert waiting.rest() == b""
        with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
            sock.connect(("127.0.0.1", daemon.port))
        nothing_is_held(daemon)
