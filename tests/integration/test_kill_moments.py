"""The control process is killed at any moment, again and again: the store is right each time."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.helpers.daemon import (
    PRIVATE_KEY,
    Daemon,
    config_text,
    end_all,
    start_daemon,
    wait_until,
)
from tests.helpers.ends import ends_cleanly, kill_control, nothing_is_held, restart, rows
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.wire import call, echoes, live

ROUNDS = 3
CALLERS = 4
# The daemon is killed so long after the callers have begun, at most: a start, an upgrade
# and a stop take a few milliseconds each, so that every step of theirs is hit at times.
LATEST = 0.06


class Caller(threading.Thread):
    """Starts sessions, calls, hangs up or has them stopped, until the daemon is gone."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        super().__init__()
        self.daemon_ = daemon
        self.random = random.Random(seed)
        self.used: list[str] = []  # tokens with which a 101 came
        self.calls: list[Any] = []
        self.wrong: list[BaseException] = []

    def run(self) -> None:
        try:
            while True:
                self.once()
        except (OSError, WebSocketException, EOFError):
            pass  # the daemon is dead
        except BaseException as error:
            self.wrong.append(error)

    def once(self) -> None:
        started = self.daemon_.start()
        if started.status != 200:
            return
        ws = call(self.daemon_, token=started.json()["token"])
        ws.__enter__()
        self.used.append(started.json()["token"])
        self.calls.append(ws)
        what = self.random.choice(["stay", "leave", "stop"])
        if what == "leave":
            ws.close()
        elif what == "stop":
            path = f"/v1/agents/bot/sessions/{started.json()['sessionId']}"
            self.daemon_.request("DELETE", path, Authorization=f"Bearer {PRIVATE_KEY}")


def kill_in_the_midst(daemon: Daemon, seed: int) -> list[Caller]:
    callers = [Caller(daemon, seed * CALLERS + number) for number in range(CALLERS)]
    for each in callers:
        each.start()
    wait_until(lambda: any(each.used for each in callers), "a call has begun")
    time.sleep(random.Random(seed).uniform(0, LATEST))
    kill_control(daemon)
    for each in callers:
        each.join()
        assert each.wrong == []
    return callers


def talks(ws: Any) -> bool:
    try:
        return echoes(ws)
    except WebSocketException:
        return False


def is_right(daemon: Daemon, callers: list[Caller]) -> None:
    """After the restart: exactly the calls that go on are live, and no used token is good."""
    going_on = [ws for each in callers for ws in each.calls if talks(ws)]
    wait_until(lambda: len(live(daemon)) == len(going_on), "every live session is a call")
    assert all(each["state"] == "active" for each in live(daemon))

    def leases() -> bool:
        held = rows(daemon, "SELECT session FROM leases")
        return sorted(name for (name,) in held) == sorted(
            each["sessionId"] for each in live(daemon)
        )

    wait_until(leases, "a lease for each call, and no other")
    for token in (token for each in callers for token in each.used):
        with pytest.raises(InvalidStatus) as refused:
            call(daemon, token=token)
        assert refused.value.response.status_code == 403
    for ws in going_on:
        ws.close()
    nothing_is_held(daemon)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    with scripted_bot() as bot:
        more = "sessions_per_instance = 1000\nmax_sessions = 1000"
        daemon = start_daemon(tmp_path, config_text([bot.url], more, "close_timeout = 1"))
        try:
            for seed in range(ROUNDS):
                callers = kill_in_the_midst(daemon, seed)
                daemon = restart(daemon)
                is_right(daemon, callers)
            twice = "SELECT id FROM sessions WHERE (state = 'ended') <> (ended IS NOT NULL)"
            assert rows(daemon, twice) == []
            daemon.process.end()
            ends_cleanly(daemon)
        finally:
            end_all(daemon)
