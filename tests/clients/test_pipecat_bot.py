"""A Pipecat bot behind a real daemon, and its users: `make test-clients`."""

from __future__ import annotations

import json
import os
import pty
import random
import select
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from tests.clients.test_official import cloud, cloud_json, start
from tests.helpers.daemon import PATIENCE, PUBLIC_KEY, Answer, Daemon, running_daemon, wait_until
from tests.helpers.pipecat_host import audio_frame, audio_of, launched, message_of
from tests.helpers.wire import base64_of, call, keeps_secrets

ROOT = Path(__file__).parents[2]
NPM = Path(os.environ.get("CLIENTS_NPM", ROOT / ".clients-npm")).absolute()
WSCAT = Path(os.environ.get("WSCAT", NPM / "node_modules" / ".bin" / "wscat"))

RATE = 16000
BODY = {"caller_id": "abc123", "note": "ÿ>?~"}  # in base64 with a plus


@contextmanager
def running(folder: Path, **agents: str) -> Iterator[Daemon]:
    """A daemon with agents of these names and ways of authentication."""
    tables = [launched(name.replace("_", "-"), auth=auth) for name, auth in agents.items()]
    # The configuration's own agent is nobody here.
    with running_daemon(folder, ["http://127.0.0.1:9"], "".join(tables)) as daemon:
        yield daemon
        keeps_secrets(daemon)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("relay"), my_agent="token", open="none") as daemon:
        yield daemon


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose bot has had no session and may be left with one."""
    with running(tmp_path, my_agent="token") as daemon:
        yield daemon


@contextmanager
def session(daemon: Daemon) -> Iterator[tuple[ClientConnection, str]]:
    """A WebSocket session with the bot, and its id; it has ended behind the block."""
    started = daemon.start_when_free("my-agent")
    with call(daemon, "/ws/generic/my-agent.acme", started["token"]) as ws:
        status_of(daemon, started["sessionId"])
        yield ws, started["sessionId"]
    daemon.wait_ended(started["sessionId"])


def ask(daemon: Daemon, session_id: str, method: str, path: str, agent: str = "my-agent") -> Answer:
    """A request through the Session API."""
    target = f"/v1/public/{agent}/sessions/{session_id}/{path}"
    return daemon.request(method, target, Authorization=f"Bearer {PUBLIC_KEY}")


def status_of(daemon: Daemon, session_id: str, agent: str = "my-agent") -> Any:
    """The bot's status once it has the session: the host accepts a moment before bot() runs."""

    def status() -> Any:
        answer = ask(daemon, session_id, "GET", "status", agent)
        assert answer.status == 200, answer
        return answer.json() if answer.json()["session_id"] == session_id else None

    return wait_until(status, f"the bot has session {session_id}")


# --- WebSocket sessions ---


def test_the_bot_is_told_its_session_and_the_callers_body(daemon: Daemon) -> None:
    started = daemon.start_when_free("my-agent", body=BODY)
    assert "+" in started["body"]
    target = f"/ws/generic/my-agent.acme?body={started['body']}"
    with call(daemon, target, started["token"]):
        assert status_of(daemon, started["sessionId"])["body"] == BODY
    daemon.wait_ended(started["sessionId"])


def test_audio_comes_back_byte_for_byte(daemon: Daemon) -> None:
    sent = random.Random(1).randbytes(2 * RATE)  # a second
    step = 2 * RATE // 50
    received = b""
    with session(daemon) as (ws, _):
        for at in range(0, len(sent), step):
            ws.send(audio_frame(sent[at : at + step], RATE))
        while len(received) < len(sent):
            samples, rate, channels = audio_of(ws.recv(PATIENCE))
            assert (rate, channels) == (RATE, 1)
            received += samples
    assert received == sent


def test_text_comes_back_as_text(daemon: Daemon) -> None:
    with session(daemon) as (ws, _):
        for text in ("hello", "größer", "x" * 100_000):
            ws.send(text)
            assert ws.recv(PATIENCE) == text


def test_the_bots_own_end_is_a_normal_close(daemon: Daemon) -> None:
    with session(daemon) as (ws, session_id):
        assert ask(daemon, session_id, "POST", "finish").json() == {"status": "finishing"}
        assert not list(ws)  # ends with the Close
        assert ws.close_code == 1000


def test_without_a_token_where_none_is_asked_for(daemon: Daemon) -> None:
    with call(daemon, f"/ws/generic/open.acme?body={base64_of(BODY)}") as ws:
        assert ws.response
        session_id = ws.response.headers["X-Daily-Session-Id"]
        assert status_of(daemon, session_id, "open")["body"] == BODY
        ws.send("hello")
        assert ws.recv(PATIENCE) == "hello"
    daemon.wait_ended(session_id)


# --- the Session API, as its users are shown to call it ---

HOST, KEY = "https://api.pipecat.daily.co", "pk_..."
STATUS = """
curl -X GET \\
  'https://api.pipecat.daily.co/v1/public/my-agent/sessions/{session_id}/status' \\
  -H 'Authorization: Bearer pk_...'
"""
CONTEXT = """
curl -X POST \\
  'https://api.pipecat.daily.co/v1/public/my-agent/sessions/{session_id}/context' \\
  -H 'Authorization: Bearer pk_...' \\
  -H 'Content-Type: application/json' \\
  -d '{"user_name": "Alice", "preferences": {"language": "Spanish"}}'
"""
SPEAK = """
curl -X POST \\
  'https://api.pipecat.daily.co/v1/public/my-agent/sessions/{session_id}/speak' \\
  -H 'Authorization: Bearer pk_...' \\
  -H 'Content-Type: application/json' \\
  -d '{"message": "Hello Alice, welcome back!"}'
"""


def curl(daemon: Daemon, command: str, session_id: str) -> Any:
    """What a command prints once host, key and session are filled in."""
    for text, value in ((HOST, daemon.url), (KEY, PUBLIC_KEY), ("{session_id}", session_id)):
        assert text in command
        command = command.replace(text, value)
    words = [
        *shlex.split(command.replace("\\\n", "")),
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_documented_curl_commands(daemon: Daemon) -> None:
    with session(daemon) as (ws, session_id):
        status = curl(daemon, STATUS, session_id)
        assert (status["message_count"], status["user_name"]) == (0, None)

        updated = {"status": "context updated", "user_name": "Alice"}
        assert curl(daemon, CONTEXT, session_id) == updated
        wait_until(
            lambda: curl(daemon, STATUS, session_id)["message_count"] == 1, "the context has it"
        )
        assert curl(daemon, STATUS, session_id)["user_name"] == "Alice"

        said = "Hello Alice, welcome back!"
        assert curl(daemon, SPEAK, session_id) == {"queued": True, "message": said}
        message = json.loads(message_of(ws.recv(PATIENCE)))
        assert message == {"label": "rtvi-ai", "type": "server-message", "data": said}
        assert any(audio_of(ws.recv(PATIENCE))[0])


def test_speech_is_text_for_who_speaks_text(daemon: Daemon) -> None:
    with session(daemon) as (ws, session_id):
        ws.send("hello")
        assert ws.recv(PATIENCE) == "hello"
        curl(daemon, SPEAK, session_id)
        assert ws.recv(PATIENCE) == "Hello Alice, welcome back!"
        assert any(audio_of(ws.recv(PATIENCE))[0])


# --- sessions over HTTP ---


def test_the_sdk_starts_a_session_that_the_bot_finishes(fresh: Daemon) -> None:
    session_id = start(fresh, "my-agent", data=BODY)["sessionId"]
    assert status_of(fresh, session_id)["body"] == BODY
    assert ask(fresh, session_id, "POST", "finish").json() == {"status": "finishing"}
    fresh.wait_ended(session_id)
    assert ask(fresh, session_id, "GET", "status").status == 404
    listed = cloud_json(fresh, "agent", "sessions", "my-agent", "-i", session_id)
    assert listed["endState"] == "completed"


def test_the_command_line_stops_a_session_over_http(fresh: Daemon) -> None:
    session_id = start(fresh, "my-agent")["sessionId"]
    status_of(fresh, session_id)
    cloud(fresh, "agent", "stop", "my-agent", "-f", "-s", session_id)
    fresh.wait_ended(session_id)
    assert ask(fresh, session_id, "GET", "status").status == 404
    listed = cloud_json(fresh, "agent", "sessions", "my-agent", "-i", session_id)
    assert listed["endState"] == "terminated"


# --- wscat ---
@contextmanager
def wscat(*words: str) -> Iterator[Callable[[str, str], None]]:
    """wscat in a terminal; yields what types a text and waits until another one is shown."""
    terminal, end = pty.openpty()
    process = subprocess.Popen([str(WSCAT), *words], stdin=end, stdout=end, stderr=end)
    os.close(end)
    shown = ""

    def types(text: str, wanted: str) -> None:
        nonlocal shown
        os.write(terminal, text.encode())
        while wanted not in shown:
            ready, _, _ = select.select([terminal], [], [], PATIENCE)
            assert ready, f"{wanted!r} is not in {shown!r}"
            shown += os.read(terminal, 4096).decode()

    try:
        yield types
        os.write(terminal, b"\x03")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


@pytest.mark.parametrize("name", ["open", "my-agent"])
def test_what_is_typed_into_wscat_comes_back(daemon: Daemon, name: str) -> None:
    words = ["-c", f"ws://127.0.0.1:{daemon.port}/ws/generic/{name}.acme"]
    if name == "my-agent":
        token = daemon.start_when_free(name)["token"]
        words += ["-H", f"Authorization: Bearer {token}"]
    with wscat(*words) as types:
        types("", "Connected (press CTRL+C to quit)")
        types("hello bot\r", "< hello bot")
