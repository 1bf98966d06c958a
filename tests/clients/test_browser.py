"""The official JavaScript client in headless Chromium against a real daemon.

The page is `examples/browser`; `browser.mjs` fills its form and reads what its WebSocket carries.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.helpers.browser import RATE, SECOND, TONE, Browser, Caller, running_browser
from tests.helpers.daemon import PUBLIC_KEY, Daemon, running_bot, running_daemon, wait_until
from tests.helpers.pipecat_host import launched
from tests.helpers.wire import keeps_secrets, stop

# Pipecat's output keeps what fills no frame of 10 ms until more audio comes.
KEPT = 319


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    bots = launched("voice") + launched("voices", places=4)
    with (
        running_bot(tmp_path_factory.mktemp("bot")) as bot,
        running_daemon(tmp_path_factory.mktemp("relay"), [bot.url], bots) as daemon,
    ):
        yield daemon
        keeps_secrets(daemon)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("these tests need Chromium: apt-get install chromium", pytrace=False)
    with running_browser(tmp_path_factory.mktemp("browser"), chromium) as browser:
        yield browser


@pytest.fixture
def caller(browser: Browser, daemon: Daemon) -> Iterator[Caller]:
    caller = Caller(browser, daemon)
    yield caller
    caller.ask("close")


# --- what a call must have been ---


def audio(record: Any, direction: str) -> bytes:
    return base64.b64decode(record[f"{direction}_audio"])


def share(pcm: bytes, frequency: float) -> float:
    """How much of the energy lies at a frequency, 1 for a pure tone (Goertzel's algorithm)."""
    samples = [sample for (sample,) in struct.iter_unpack("<h", pcm)]
    turn = 2 * math.cos(2 * math.pi * frequency / RATE)
    last, before = 0.0, 0.0
    for sample in samples:
        last, before = sample + turn * last - before, last
    power = last**2 + before**2 - turn * last * before
    energy = sum(sample**2 for sample in samples)
    return 2 * power / (len(samples) * energy) if energy else 0.0


def echoed(record: Any, seconds: float = 1.0) -> None:
    """All audio of a finished call came back, byte for byte, and it was the microphone's."""
    sent, received = audio(record, "sent"), audio(record, "received")
    assert len(received) >= seconds * SECOND
    assert len(sent) - len(received) <= KEPT
    assert sent.startswith(received)
    steps = range(0, len(sent), SECOND // 10)
    assert max(share(sent[at : at + SECOND // 10], TONE) for at in steps) > 0.5
    assert record["faults"] == []


def ended(daemon: Daemon, record: Any, agent: str) -> None:
    """The session's record tells of a client that has closed."""
    session = daemon.wait_ended(record["session"])
    assert (session["agent"], session["cause"]) == (agent, "client_closed")


def free(daemon: Daemon, agent: str) -> None:
    """The bot's place is neither taken nor promised, whatever an earlier test has left."""
    for each in daemon.request("GET", "/sessions?state=reserved", admin=True).json()["sessions"]:
        stop(daemon, each["sessionId"])
    stop(daemon, daemon.start_when_free(agent)["sessionId"])


# --- calls ---


def test_ten_calls_in_a_row(caller: Caller, daemon: Daemon) -> None:
    sessions = set()
    for _ in range(10):
        free(daemon, "voice")
        told = caller.connect("voice")
        assert (told["state"], told["error"]) == ("ready", "")
        caller.ask("hear", bytes=SECOND)
        record = caller.ask("hangUp", missing=KEPT)
        echoed(record)
        ended(daemon, record, "voice")
        sessions.add(record["session"])
    assert len(sessions) == 10


def test_four_calls_at_once(browser: Browser, daemon: Daemon) -> None:
    callers = [Caller(browser, daemon) for _ in range(4)]
    wish = callers[0].wish("voices", PUBLIC_KEY, rate=RATE)
    connected = browser.ask(*(each.to("connect", **wish) for each in callers))
    assert [told["state"] for told in connected] == ["ready"] * 4, connected
    sessions = {told["session"] for told in connected}
    assert len(sessions) == 4
    assert {daemon.session(each)["state"] for each in sessions} == {"active"}
    browser.ask(*(each.to("hear", bytes=SECOND) for each in callers))
    for record in browser.ask(*(each.to("hangUp", missing=KEPT) for each in callers)):
        echoed(record)
        ended(daemon, record, "voices")
    browser.ask(*(each.to("close") for each in callers))


def test_what_a_call_is_made_of(caller: Caller, daemon: Daemon) -> None:
    """The preflight, the session id, the body in the address and then the token behind it."""
    free(daemon, "bot")
    before = len(daemon.logs())
    body = {"caller": "Zoë", "sign": "?>~", "n": [1]}
    told = caller.connect("bot", body=json.dumps(body))
    session = told["session"]
    assert bot_tells(daemon, session)["sessions"] == [session]
    record = caller.ask("hangUp", missing=KEPT)
    ended(daemon, record, "bot")
    preflight = [each for each in daemon.logs()[before:] if each.get("method") == "OPTIONS"]
    assert [(each["status"], each["path"]) for each in preflight] == [(204, "/v1/public/bot/start")]
    address = urlsplit(record["url"])
    assert address.path == "/ws/generic/bot.acme"
    query = parse_qs(address.query, strict_parsing=True)
    assert list(query) == ["body", "token"]
    assert json.loads(base64.b64decode(query["body"][0], validate=True)) == body
    steps = ["authenticated", f"session {session}", "connecting", "connected", "ready"]
    assert [each for each in record["log"] if each in steps] == steps


def bot_tells(daemon: Daemon, session: str) -> Any:
    """The example bot's state, through the Session API."""
    path = f"/v1/public/bot/sessions/{session}/status"
    return daemon.request("GET", path, Authorization=f"Bearer {PUBLIC_KEY}").json()


def test_what_the_bot_is_told(caller: Caller, daemon: Daemon) -> None:
    free(daemon, "bot")
    body = {"caller": "Zoë", "sign": "?>~", "n": [1]}
    commands = ["!body", "!session", "!headers"]
    told, session, headers = caller.inside("asks", "bot", body=body, commands=commands)
    assert json.loads(told) == body
    assert daemon.wait_ended(session)["cause"] == "client_closed"
    fields = dict(json.loads(headers))
    assert fields["origin"] == caller.browser.origin
    assert "authorization" not in fields


def test_a_call_that_is_stopped(caller: Caller, daemon: Daemon) -> None:
    free(daemon, "bot")
    session = caller.connect("bot")["session"]
    stop(daemon, session)
    wait_until(lambda: caller.ask("told")["state"] == "disconnected", "the page has hung up")
    log = caller.ask("told")["log"]
    assert "websocket connection closed. Code: 1001" in log
    assert daemon.wait_ended(session)["cause"] == "stopped"


# --- refusals, as the user reads them ---


def test_a_refused_start(caller: Caller, daemon: Daemon) -> None:
    free(daemon, "bot")
    assert daemon.start().status == 200
    full = "all instances of this agent are in use or reserved; try again later"
    for agent, key, said in (
        ("bot", "pk_unknown", "401: the API key is not valid here"),
        ("nobody", PUBLIC_KEY, "404: Service not found"),
        ("bot", PUBLIC_KEY, f"429: {full}"),
    ):
        told = caller.connect(agent, key)
        assert (told["state"], told["session"]) == ("disconnected", ""), told
        assert told["error"] == f"Start refused, {said}"
    # The same page can make a call afterwards.
    free(daemon, "bot")
    assert caller.connect("bot")["state"] == "ready"
    ended(daemon, caller.ask("hangUp", missing=KEPT), "bot")


def test_a_body_that_is_too_big(caller: Caller) -> None:
    told = caller.connect("bot", body=json.dumps({"text": "x" * 4096}))
    assert told["error"].startswith("Start refused, 413: "), told


def test_no_relay(caller: Caller, daemon: Daemon) -> None:
    caller.daemon = Daemon(daemon.process, daemon.folder, 9, 9, daemon.config)
    told = caller.connect("bot")
    assert told["error"] == "No relay answers at this URL, or it does not allow this page's origin."


def test_a_token_used_twice(caller: Caller, daemon: Daemon) -> None:
    free(daemon, "bot")
    before = len(daemon.logs())
    said = caller.inside("tokenTwice", "bot")
    # Browsers hide the status of a refused upgrade from the page.
    assert said == (
        "Failed to connect to websocket: WEBSOCKET_ERROR: WebSocket connection error (1006): "
    )

    def refused() -> list[Any]:
        return [each for each in daemon.logs()[before:] if each.get("status") == 403]

    (line,) = wait_until(refused, "the daemon has refused it")
    assert line["cause"] == "token_used"


def test_the_client_takes_no_answer_with_a_session_id(caller: Caller, daemon: Daemon) -> None:
    """Why the example does not use `startBotAndConnect()`."""
    free(daemon, "bot")
    said = caller.inside("inOneStep", "bot")
    assert "Unrecognized connection parameter: sessionId." in said
