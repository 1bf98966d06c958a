"""The official command line and SDK, unmodified, against a real daemon: `make test-clients`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.helpers.daemon import (
    PRIVATE_KEY,
    PUBLIC_KEY,
    Bot,
    Daemon,
    running_bot,
    running_daemon,
    wait_until,
)
from tests.helpers.wire import call, echoes, keeps_secrets

ROOT = Path(__file__).parents[2]
CLIENTS = Path(os.environ.get("CLIENTS_VENV", ROOT / ".venv-clients")).absolute()
# The command line imports for some seconds on a slow machine.
PATIENCE = 60.0

START = """
import asyncio, json, sys
from pipecatcloud.exception import AgentStartError
from pipecatcloud.session import Session, SessionParams

agent, key, params = json.loads(sys.argv[1])
try:
    print(json.dumps(asyncio.run(Session(agent, key, SessionParams(**params)).start())))
except AgentStartError as error:
    print(json.dumps({"raised": [error.error_code, error.message]}))
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with (
        running_bot(tmp_path_factory.mktemp("bot")) as bot,
        running_daemon(tmp_path_factory.mktemp("relay"), [bot.url]) as daemon,
    ):
        yield daemon
        keeps_secrets(daemon)


def run(
    daemon: Daemon, program: str, *words: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """A program of the clients, pointed at the daemon by its environment alone."""
    home = daemon.folder / "home"
    home.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "COLUMNS": "200",
        "PIPECAT_API_HOST": daemon.url,
        "PIPECAT_CONFIG_PATH": str(home / "none.toml"),
        "PIPECAT_TOKEN": PRIVATE_KEY,
        "PIPECAT_ORG": "acme",
    }
    environment = {key: value for key, value in (environment | settings).items() if value}
    return subprocess.run(
        [str(CLIENTS / "bin" / program), *words],
        env=environment,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def cloud(daemon: Daemon, *words: str, **settings: str) -> str:
    """What `pipecat cloud …` prints; it must have succeeded."""
    done = run(daemon, "pipecat", "cloud", *words, **settings)
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    return done.stdout


def cloud_json(daemon: Daemon, *words: str) -> Any:
    return json.loads(cloud(daemon, "--output", "json", *words))


def start(daemon: Daemon, agent: str = "bot", key: str = PUBLIC_KEY, **params: object) -> Any:
    """What the SDK's `Session.start()` returns or raises."""
    done = run(daemon, "python", "-c", START, json.dumps([agent, key, params]))
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def free(daemon: Daemon) -> None:
    """The bot's only place is neither taken nor promised."""
    stopped = daemon.start_when_free()["sessionId"]
    path = f"/v1/agents/bot/sessions/{stopped}"
    assert daemon.request("DELETE", path, Authorization=f"Bearer {PRIVATE_KEY}").status == 200


# --- the command line ---


def test_agent_list(daemon: Daemon) -> None:
    (agent,) = cloud_json(daemon, "agent", "list")["agents"]
    assert (agent["name"], agent["id"]) == ("bot", "bot.acme")
    for mode in ("plain", "rich"):
        assert "bot.acme" in cloud(daemon, "--output", mode, "agent", "list")


def test_the_organization_is_found_without_being_told(daemon: Daemon) -> None:
    assert "acme (1 results)" in cloud(daemon, "agent", "list", PIPECAT_ORG="")


def test_agent_status(daemon: Daemon) -> None:
    free(daemon)
    status = cloud_json(daemon, "agent", "status", "bot")
    assert (status["ready"], status["available"], status["activeSessionCount"]) == (True, True, 0)
    plain = cloud(daemon, "--output", "plain", "agent", "status", "bot")
    for line in ("Ready: True", "Active Session Count: 0", "Max Session Duration: 7200s"):
        assert line in plain.splitlines()
    assert "Health: Ready" in cloud(daemon, "--output", "rich", "agent", "status", "bot")


def test_agent_sessions_and_stop(daemon: Daemon) -> None:
    free(daemon)
    started = daemon.start_when_free()
    session = started["sessionId"]
    with call(daemon, token=started["token"]) as ws:
        assert echoes(ws)
        (active,) = cloud_json(daemon, "agent", "sessions", "bot", "--end-state", "active")[
            "sessions"
        ]
        assert (active["sessionId"], active["endState"]) == (session, "active")
        stopped = cloud(daemon, "agent", "stop", "bot", "-f", "-s", session)
        assert f"'{session}' stopped successfully" in " ".join(stopped.split())
        with pytest.raises(ConnectionClosed):
            ws.recv()
        assert (ws.close_code, ws.close_reason) == (1001, "stopped")
    daemon.wait_ended(session)
    for mode in ("plain", "rich"):
        lines = cloud(daemon, "--output", mode, "agent", "sessions", "bot").splitlines()
        (line,) = [each for each in lines if session in each]
        assert "Terminated" in line
        details = cloud(daemon, "--output", mode, "agent", "sessions", "bot", "-i", session)
        assert "Request arrived at agent" in details
        assert "Terminated" in details


def test_what_the_command_line_says_of_refusals(daemon: Daemon) -> None:
    for words, settings, said in (
        (("agent", "list"), {"PIPECAT_TOKEN": PUBLIC_KEY}, "Unauthorized"),
        (("agent", "status", "nobody"), {}, "No deployment data found"),
        (("agent", "sessions", "bot", "--end-state", "gone"), {}, "endState must be one of"),
        (("agent", "stop", "bot", "-f", "-s", "none"), {}, "the session id must be a UUID"),
    ):
        done = run(daemon, "pipecat", "cloud", *words, **settings)
        assert done.returncode == 1, done
        assert said in " ".join((done.stdout + done.stderr).split())


# --- the SDK ---


def test_the_sdk_is_told_why_a_start_is_refused(daemon: Daemon) -> None:
    assert start(daemon, key="pk_unknown") == {
        "raised": ["401", "401 - the API key is not valid here"]
    }
    assert start(daemon, agent="nobody") == {"raised": ["404", "404 - Service not found"]}
    code, text = start(daemon, use_daily=True)["raised"]
    assert (code, text.split(":")[0]) == ("400", '400 - "createDailyRoom" is not offered here')


# --- starts, which name no transport and so begin a session over HTTP ---


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Bot]:
    with running_bot(tmp_path) as bot:
        yield bot


@pytest.fixture
def fresh(bot: Bot, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose bot has had no session and may be left with one."""
    dead = """
[agents.dead]
organization = "acme"
instances = ["http://127.0.0.1:9"]
"""
    with running_daemon(tmp_path, [bot.url], dead) as daemon:
        yield daemon


def holds(bot: Bot, session: str) -> None:
    wait_until(lambda: session in bot.get("/status")["sessions"], "the bot has the session")


def test_the_sdk_starts_a_session_and_the_command_line_stops_it(fresh: Daemon, bot: Bot) -> None:
    started = start(fresh, data={"caller": "alice"})
    assert set(started) == {"sessionId"}
    session = started["sessionId"]
    holds(bot, session)
    # It holds the only place.
    assert start(fresh)["raised"] == [
        "429",
        "429 - PCC-AGENT-AT-CAPACITY: all instances of this agent are in use or reserved",
    ]
    assert cloud_json(fresh, "agent", "status", "bot")["activeSessionCount"] == 1
    cloud(fresh, "agent", "stop", "bot", "-f", "-s", session)
    fresh.wait_ended(session)
    assert cloud_json(fresh, "agent", "sessions", "bot", "-i", session)["endState"] == "terminated"


def test_the_command_line_starts_a_session(fresh: Daemon, bot: Bot) -> None:
    cloud(fresh, "agent", "start", "bot", "-f", "-k", PUBLIC_KEY)
    (active,) = cloud_json(fresh, "agent", "sessions", "bot")["sessions"]
    holds(bot, active["sessionId"])
    done = run(fresh, "pipecat", "cloud", "agent", "start", "dead", "-f", "-k", PUBLIC_KEY)
    assert done.returncode == 1
    assert start(fresh, agent="dead")["raised"][0] == "PCC-1001"
