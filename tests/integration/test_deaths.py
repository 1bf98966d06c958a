"""Somebody dies, resets, drops or stops a call: what the others see, and what is recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.daemon import (
    PRIVATE_KEY,
    Bot,
    Daemon,
    running_bot,
    running_daemon,
    wait_until,
)
from tests.helpers.ends import (
    ABNORMAL,
    Began,
    Ends,
    begin,
    close_seen,
    descriptors,
    is_quiet,
    kill_pump,
    nothing_is_held,
    raw_call,
    readiness,
    reset,
    signal_daemon,
    sleeps,
    wait_idle,
    wait_ready,
    zombies_of,
)
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.wire import call, echoes, masked

PLACES = 4


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    with running_bot(tmp_path_factory.mktemp("bot"), sessions=PLACES) as bot:
        yield bot


@pytest.fixture(scope="module")
def noting() -> Iterator[tuple[list[str], Ends]]:
    """Two bots that tell how their calls end."""
    with scripted_bot() as one, scripted_bot() as other:
        one.script = other.script = ends = Ends()
        yield [one.url, other.url], ends


@pytest.fixture(scope="module")
def daemon(
    bot: Bot, noting: tuple[list[str], Ends], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    agents = f"""
sessions_per_instance = {PLACES}
[agents.noting]
organization = "acme"
instances = ["{noting[0][0]}"]
sessions_per_instance = {PLACES}
settle_time = 0
[agents.short]
organization = "acme"
instances = ["{noting[0][1]}"]
max_session_duration = 1
sessions_per_instance = {PLACES}
settle_time = 0
"""
    folder = tmp_path_factory.mktemp("relay")
    with running_daemon(folder, [bot.url], agents, "close_timeout = 1") as daemon:
        yield daemon
        nothing_is_held(daemon)
        is_quiet(daemon)


@pytest.fixture
def ends(noting: tuple[list[str], Ends]) -> Ends:
    return noting[1]


# The bot's side.


@pytest.mark.parametrize(
    ("command", "cause", "close"),
    [
        ("!drop", "bot_ended", (1000, "")),
        ("!reset", "bot_lost", (1011, "bot lost")),
        ("!close 4321 enough", "bot_closed", (4321, "enough")),
    ],
)
def test_a_bot_that_leaves(
    daemon: Daemon, bot: Bot, command: str, cause: str, close: tuple[int, str]
) -> None:
    began = begin(daemon)
    began.ws.send(command)
    assert close_seen(began.ws) == close
    record = daemon.wait_ended(began.id)
    assert (record["cause"], record["closeCode"]) == (cause, close[0])
    assert record["figures"]["client"]["messages"] == 2
    wait_idle(bot)


@pytest.mark.parametrize("death", ["kill", "exit"])
def test_a_bot_process_that_dies(tmp_path: Path, death: str) -> None:
    """The kernel ends its connection with a FIN; nobody here knows that it was no wish."""
    with (
        running_bot(tmp_path) as bot,
        running_daemon(tmp_path, [bot.url]) as daemon,
    ):
        began = begin(daemon)
        if death == "kill":
            bot.process.popen.kill()
        else:
            began.ws.send("!exit")
        assert close_seen(began.ws) == (1000, "")
        assert daemon.wait_ended(began.id)["cause"] == "bot_ended"
        # The instance is gone, and nobody is promised a place there.
        wait_until(lambda: daemon.start().json().get("code") == "PCC-1001", "no instance is ready")
        assert daemon.start().status == 400
        is_quiet(daemon)


# The client's side.


@pytest.mark.parametrize("way", ["reset", "fin", "inside a frame"])
def test_a_client_that_is_gone(daemon: Daemon, bot: Bot, way: str) -> None:
    started = daemon.start_when_free()
    wire = raw_call(daemon, started["token"])
    wait_until(lambda: started["sessionId"] in bot.get("/status")["sessions"], "the bot has it")
    if way == "inside a frame":
        wire.send(masked("never whole")[:-3])
    if way == "reset":
        reset(wire)
    else:
        wire.close()
    record = daemon.wait_ended(started["sessionId"])
    assert (record["cause"], record["endState"]) == ("client_gone", "completed")
    wait_idle(bot)


@pytest.mark.parametrize(
    ("way", "seen"),
    [
        ("reset", (1001, "client gone")),
        ("fin", (1001, "client gone")),
        # No Close can be written inside a frame (decision 21).
        ("inside a frame", ABNORMAL),
    ],
)
def test_what_the_bot_sees_of_it(
    daemon: Daemon, ends: Ends, way: str, seen: tuple[int, str]
) -> None:
    started = daemon.start_when_free("noting")
    wire = raw_call(daemon, started["token"], "noting")
    if way == "inside a frame":
        wire.send(masked("never whole")[:-3])
    if way == "reset":
        reset(wire)
    else:
        wire.close()
    assert ends.next() == seen


# Stops and limits.


def stop_by_key(daemon: Daemon, began: Began) -> None:
    path = f"/v1/agents/noting/sessions/{began.id}"
    answer = daemon.request("DELETE", path, Authorization=f"Bearer {PRIVATE_KEY}")
    assert answer.status == 200, answer


def stop_by_admin(daemon: Daemon, began: Began) -> None:
    assert daemon.request("DELETE", f"/sessions/{began.id}", admin=True).status == 200


def stop_by_command(daemon: Daemon, began: Began) -> None:
    admin = f"http://127.0.0.1:{daemon.admin_port}"
    command = [sys.executable, "-m", "relay", "sessions", "stop", began.id, "--admin", admin]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=daemon.folder)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("stop", [stop_by_key, stop_by_admin, stop_by_command])
def test_a_stopped_call(daemon: Daemon, ends: Ends, stop: object) -> None:
    began = begin(daemon, "noting")
    assert callable(stop)
    stop(daemon, began)
    assert close_seen(began.ws) == (1001, "stopped")
    assert ends.next() == (1001, "stopped")
    record = daemon.wait_ended(began.id)
    assert (record["cause"], record["endState"]) == ("stopped", "terminated")
    again = daemon.request("DELETE", f"/sessions/{began.id}", admin=True)
    assert again.status == 404


def test_the_longest_session(daemon: Daemon, ends: Ends) -> None:
    began = begin(daemon, "short")
    assert close_seen(began.ws) == (1001, "time limit")
    assert ends.next() == (1001, "time limit")
    record = daemon.wait_ended(began.id)
    assert record["cause"] == "time_limit"
    assert 1 <= record["figures"]["seconds"] < 4


# The pump.


def test_a_pump_that_dies(daemon: Daemon, bot: Bot, ends: Ends) -> None:
    calls = [begin(daemon), begin(daemon), begin(daemon, "noting")]
    wait_until(lambda: len(bot.get("/status")["sessions"]) == 2, "two calls at the bot")
    pid = kill_pump(daemon)
    assert [close_seen(each.ws) for each in calls] == [ABNORMAL] * 3
    assert ends.next() == ABNORMAL
    wait_idle(bot)
    for each in calls:
        record = daemon.wait_ended(each.id)
        assert (record["cause"], record["endState"]) == ("pump_died", "unknown")
    wait_ready(daemon)
    with begin(daemon) as began:
        assert echoes(began.ws)
    assert daemon.pump_pids() != [pid]
    assert zombies_of(daemon.process.pid) == []


def test_a_caller_who_comes_when_the_pump_has_just_died(daemon: Daemon) -> None:
    waiting = daemon.start_when_free()
    kill_pump(daemon)
    with call(daemon, token=waiting["token"]) as ws:
        assert echoes(ws)  # by the next one


def test_a_pump_that_dies_with_its_last_word_unheard(daemon: Daemon, ends: Ends) -> None:
    """A report that was sent counts, though nobody is left to be told that it was recorded."""
    began = begin(daemon, "noting")
    (pump,) = daemon.pump_pids()
    during = descriptors(pump)
    signal_daemon(daemon, signal.SIGSTOP)
    try:
        began.ws.close(4003, "done")
        assert ends.next() == (4003, "done")
        # It has closed the call's sockets, reported, and waits for what comes next.
        wait_until(lambda: descriptors(pump) == during - 2 and sleeps(pump), "the pump is done")
        os.kill(pump, signal.SIGKILL)
    finally:
        signal_daemon(daemon, signal.SIGCONT)
    record = daemon.wait_ended(began.id)
    assert (record["cause"], record["closeCode"]) == ("client_closed", 4003)
    # Readiness alone may still be that of the pump whose end has not been noticed yet.
    wait_until(lambda: daemon.pump_pids() not in ([], [pump]), "another pump is there")
    wait_ready(daemon)
    with begin(daemon) as began:
        assert echoes(began.ws)


def test_while_no_pump_can_be_started(daemon: Daemon) -> None:
    """The calls are recorded all the same, callers are told, and the daemon stays."""
    began = begin(daemon)
    waiting = daemon.start_when_free()
    lock = daemon.folder / "run" / "pump-0.lock"
    lock.rename(lock.with_suffix(".away"))
    lock.mkdir()
    kill_pump(daemon)
    assert close_seen(began.ws) == ABNORMAL
    assert daemon.wait_ended(began.id)["cause"] == "pump_died"
    wait_until(lambda: readiness(daemon) == (503, ["no pump"]), "readyz says that no pump is there")
    with pytest.raises(InvalidStatus) as refused:
        call(daemon, token=waiting["token"])
    assert refused.value.response.status_code == 503
    lock.rmdir()
    wait_ready(daemon)
    with begin(daemon) as began:
        assert echoes(began.ws)
