"""Daemons that start their bots themselves, and the processes of such bots."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection

from tests.helpers.daemon import (
    PATIENCE,
    PUBLIC_KEY,
    Daemon,
    config_text,
    end_all,
    start_daemon,
    wait_until,
)

NAUGHTY_BOT = str(Path(__file__).with_name("naughty_bot.py"))
MARK = "RELAY_INSTANCE"
# In the environment of every bot of these daemons: whose it is, for the test to find it.
OWNER = "RELAY_TEST_OWNER"


def naughty(*faults: str) -> list[str]:
    """The command of a bot with these faults, none for a good one."""
    return [sys.executable, "-S", NAUGHTY_BOT, "--port", "{port}", *faults]


def launched(folder: Path, command: list[str], more: str = "", agent: str = "bot") -> str:
    """The lines of an agent's table behind its name, for bots that are started."""
    lines = f"command = {json.dumps(command)}\n"
    if "settle_time" not in more:
        lines += "settle_time = 0\n"
    return f'{lines}env = {{ {OWNER} = "{folder}/{agent}" }}\n{more}\n'


def launching_config(
    folder: Path,
    command: list[str],
    more: str = "",
    others: Mapping[str, tuple[list[str], str]] | None = None,
) -> str:
    """A configuration with one agent "bot", and perhaps others by name, each as its own."""
    tables = "".join(
        f'[agents.{name}]\norganization = "acme"\n{launched(folder, words, lines, name)}'
        for name, (words, lines) in (others or {}).items()
    )
    text = config_text([], tables, "close_timeout = 1")
    own = launched(folder, command, more)
    return text.replace("instances = []\nsettle_time = 0.05\n", own, 1)


@contextmanager
def launching(folder: Path, *arguments: Any) -> Iterator[Daemon]:
    """A daemon with `launching_config`; see `serving`."""
    with serving(folder, launching_config(folder, *arguments)) as daemon:
        yield daemon


@contextmanager
def serving(folder: Path, config: str) -> Iterator[Daemon]:
    """A daemon that is ended with SIGINT; see `ended`."""
    daemon = start_daemon(folder, config)
    with ended(daemon):
        yield daemon


@contextmanager
def ended(daemon: Daemon) -> Iterator[None]:
    """End the daemon with the block, and all that runs of it; it may leave no bot itself."""
    try:
        yield
        if daemon.process.popen.poll() is None:
            assert daemon.process.end() == 0
        assert bots_of(daemon) == {}
    finally:
        end_all(daemon, signal.SIGKILL)
        for pid in bots_of(daemon):
            os.kill(pid, signal.SIGKILL)


def environ_of(pid: int) -> dict[str, str]:
    """The environment of a process; empty for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


def bots_of(daemon: Daemon, agent: str = "") -> dict[int, str]:
    """Processes that an agent's bots are, or have started, and their marks; "" is all agents."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            environ = environ_of(int(entry.name))
            folder, _, owner = environ.get(OWNER, "").rpartition("/")
            if folder == str(daemon.folder) and agent in ("", owner):
                found[int(entry.name)] = environ[MARK]
    return found


def wait_no_bots(daemon: Daemon, agent: str = "") -> None:
    """Wait until no process of the agent's bots is left."""
    wait_until(lambda: not bots_of(daemon, agent), f"no bot left; {bots_of(daemon, agent)}")


def pid_of(ws: ClientConnection) -> int:
    """The process that answers in a call with a naughty bot."""
    ws.send("!pid")
    return int(ws.recv(PATIENCE))


def start_http(daemon: Daemon, agent: str = "bot") -> str:
    """A session over HTTP that its bot has been told of; its id."""
    path, key = f"/v1/public/{agent}/start", f"Bearer {PUBLIC_KEY}"
    answer = daemon.request("POST", path, {}, Authorization=key)
    assert answer.status == 200, answer
    session: str = answer.json()["sessionId"]
    return session


def records_of(daemon: Daemon) -> list[Path]:
    """The records of bots that are there, or were when the daemon was killed."""
    return sorted((daemon.folder / "run" / "bots").glob("*.json"))


def events(daemon: Daemon, name: str, agent: str = "bot") -> list[dict[str, Any]]:
    """The log lines of one kind about an agent."""
    return [line for line in daemon.logs() if (line["event"], line.get("agent")) == (name, agent)]


def instances(daemon: Daemon, agent: str = "bot") -> dict[str, str]:
    """The agent's bots as the administration shows them."""
    found: dict[str, str] = daemon.request("GET", "/readyz", admin=True).json()["instances"][agent]
    return found
