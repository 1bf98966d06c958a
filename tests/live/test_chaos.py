"""A thousand calls through twenty launched bots while bots and callers die at random moments.

Every call is served whole, cut off by a death that this test has caused, or refused with a
reason; afterwards nothing is left over. `CHAOS_CALLS` and `CHAOS_SEED` change the run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.helpers.daemon import Daemon, wait_until
from tests.helpers.launched import bots_of, launching
from tests.helpers.wire import ask, call, request, token_for

CALLS = int(os.environ.get("CHAOS_CALLS", "1000"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
BOTS = 20
CALLERS = 40  # at a time: twice what the bots hold, so that there is always a line
DEATHS = 0.05  # of callers; and a bot is killed for as many calls
MESSAGES = 25
PACE = 0.02
SIZE = 320
# Why a caller may be turned away when twice as many come as there are bots.
REASONS = {400, 429, 502, 503}
QUIET = 20.0  # seconds for everything to come to rest afterwards


class Chaos:
    """What became of the calls, and who was killed."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.outcomes: Counter[str] = Counter()
        self.odd: list[str] = []
        self.killed_bots = 0
        self.lock = threading.Lock()

    def call(self, number: int) -> None:
        """One caller from start to end; what became of it is counted."""
        dice = random.Random(SEED * 1_000_003 + number)
        time.sleep(dice.expovariate(1 / 0.1))
        try:
            outcome = self._talk(number, dice)
        except (ConnectionClosed, OSError, EOFError) as error:
            # A bot died with the call: 1011, or the TCP connection's end inside a frame.
            code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else 1006
            outcome = f"cut off {code}"
        except InvalidStatus as error:
            outcome = self._refused(error.response.status_code, error.response.body)
        with self.lock:
            self.outcomes[outcome] += 1
        if dice.random() < DEATHS:
            self._kill_a_bot(dice)

    def _talk(self, number: int, dice: random.Random) -> str:
        token = token_for()  # waits in line where a start would be refused
        if number % 2:
            started = self.daemon.start("bot")
            if started.status != 200:
                return self._refused(started.status, started.body)
            token = started.json()["token"]
        dies_at = dice.randrange(MESSAGES) if dice.random() < DEATHS else None
        with call(self.daemon, token=token) as ws:
            for index in range(MESSAGES):
                if index == dies_at:
                    ws.socket.shutdown(2)
                    return "caller died"
                message = b"%d %d " % (number, index) + dice.randbytes(SIZE)
                ws.send(message)
                assert ws.recv(timeout=30) == message, "another message came back"
                time.sleep(PACE)
        return "whole"

    def _refused(self, status: int, body: bytes | None) -> str:
        error = json.loads(body or b"{}")
        if status not in REASONS or not error.get("error"):
            with self.lock:
                self.odd.append(f"{status} {body!r}")
        return f"refused {status}"

    def _kill_a_bot(self, dice: random.Random) -> None:
        bots = sorted(bots_of(self.daemon))
        if bots:
            try:
                os.kill(dice.choice(bots), signal.SIGKILL)
            except ProcessLookupError:
                return
            with self.lock:
                self.killed_bots += 1


def status(daemon: Daemon) -> Any:
    return ask(daemon, request("GET", "/status"), admin=True).json()


def at_rest(daemon: Daemon) -> bool:
    """No session lives, no instance is held, no tunnel is left."""
    now = status(daemon)
    busy = [each for each in now["instances"] if each["sessions"]]
    live = [each for each in now["agents"] if each["active"] or each["waiting"]]
    tunnels = sum(pump["tunnels"] for pump in now["pumps"])
    return not (busy or live or tunnels or now["queue"] or now["callsTotal"])


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_calls_and_deaths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "relay_examples.echo_bot", "--port", "{port}"]
    more = f"reuse_process = true\nmin_agents = {BOTS}\nmax_agents = {BOTS}"
    with launching(tmp_path, command, more) as daemon:
        wait_until(lambda: len(ready(daemon)) == BOTS, "all bots are ready", 60)
        pids = [daemon.process.pid, *daemon.pump_pids()]
        before = [descriptors(pid) for pid in pids]
        chaos = Chaos(daemon)
        began = time.monotonic()
        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(chaos.call, range(CALLS)))
        took = time.monotonic() - began
        with capsys.disabled():
            print(f"\n{CALLS} calls in {took:.0f} s, {chaos.killed_bots} bots killed")
            print(dict(chaos.outcomes))
        assert chaos.odd == []
        assert sum(chaos.outcomes.values()) == CALLS
        cut = sum(count for name, count in chaos.outcomes.items() if name.startswith("cut off"))
        assert cut <= chaos.killed_bots, "more calls were cut off than bots have died"
        assert chaos.outcomes["whole"] > CALLS // 2
        rest(daemon)
        wait_until(lambda: len(ready(daemon)) == BOTS, "the bots are back", 60)
        assert len(bots_of(daemon)) == BOTS, "a bot is orphaned or doubled"
        after = [descriptors(pid) for pid in pids]
        assert all(now <= then + SPARE for now, then in zip(after, before, strict=True))
        ends = records(daemon)
        assert all(record["state"] in ("ended", "reserved") for record in ends)
        assert daemon.process.popen.poll() is None
        assert not [line for line in daemon.logs() if line["event"] == "bug"]


# Connections that are kept to bots, and bots' own descriptors while they start.
SPARE = 3 * BOTS


def rest(daemon: Daemon) -> None:
    wait_until(lambda: at_rest(daemon), "everything comes to rest", QUIET)


def ready(daemon: Daemon) -> list[Any]:
    return [each for each in status(daemon)["instances"] if each["state"] == "ready"]


def records(daemon: Daemon) -> list[Any]:
    answer = ask(daemon, request("GET", "/sessions?state=all&limit=1000"), admin=True)
    found: list[Any] = answer.json()["sessions"]
    return found
