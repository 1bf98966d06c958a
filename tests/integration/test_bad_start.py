"""What /start refuses, with status, reason and cause, and that a refusal costs nobody a place."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.helpers.daemon import (
    PRIVATE_KEY,
    PUBLIC_KEY,
    Answer,
    Daemon,
    running_bot,
)
from tests.helpers.scripted_bot import nobody_listens, scripted_bot
from tests.helpers.shared import shared_daemon
from tests.helpers.wire import ask, keeps_secrets, refused, request, serves, stop

FOREIGN_KEY = "pk_foreign_0123456789abcdef"
SENT = "a-word-that-only-a-caller-knows"
BEARER = f"Authorization: Bearer {PUBLIC_KEY}"

AGENTS = """
[agents.open]
organization = "acme"
websocket_auth = "none"
instances = ["{open}"]
sessions_per_instance = 100
[agents.dead]
organization = "acme"
instances = ["{dead}"]
[agents.roomy]
organization = "acme"
instances = ["{roomy}"]
sessions_per_instance = 1000
[organizations.globex]
public_keys = ["{key}"]
private_keys = ["sk_foreign_0123456789abcdef"]
token_keys = [{{ id = "k1", secret = "another secret of at least thirty-two bytes" }}]
[agents.theirs]
organization = "globex"
instances = ["{theirs}"]
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    sent = (SENT, base64.b64encode(SENT.encode()).decode()[:20])
    with (
        running_bot(tmp_path_factory.mktemp("bot")) as bot,
        scripted_bot() as open_bot,
        scripted_bot() as roomy,
        nobody_listens() as dead,
        nobody_listens() as theirs,
    ):
        urls = {"open": open_bot.url, "roomy": roomy.url, "dead": dead, "theirs": theirs}
        agents = AGENTS.format(key=FOREIGN_KEY, **urls)
        secrets = (*sent, FOREIGN_KEY)
        with shared_daemon(tmp_path_factory, [bot.url], agents, secrets=secrets) as daemon:
            yield daemon


def total(daemon: Daemon) -> int:
    """Sessions that the daemon has ever made."""
    found: int = daemon.request("GET", "/sessions?limit=1", admin=True).json()["total"]
    return found


def start(daemon: Daemon, body: bytes, *fields: str, agent: str = "roomy") -> Answer:
    """POST /start with exactly this body and these fields."""
    length = f"Content-Length: {len(body)}"
    return ask(daemon, request("POST", f"/v1/public/{agent}/start", length, *fields, body=body))


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (f"Authorization: Basic {SENT}",),
        (f"Authorization: Bearer {SENT}",),
        ("Authorization: Bearer",),
        (f"Authorization: {PUBLIC_KEY}",),
        (f"Authorization: Bearer {PUBLIC_KEY}x",),
        (f"Authorization: Bearer {PUBLIC_KEY[:-1]}",),
        (BEARER, BEARER),
        (f"Authorization: Bearer {FOREIGN_KEY}",),
    ],
)
def test_a_wrong_key_is_401(daemon: Daemon, fields: tuple[str, ...]) -> None:
    before = total(daemon)
    answer = start(daemon, b'{"transport": "websocket"}', *fields)
    assert refused(daemon, answer, 401, "bad_api_key")["phase"] == "authenticate"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert total(daemon) == before


def test_who_has_no_key_learns_nothing_of_agents(daemon: Daemon) -> None:
    for agent in ("roomy", "nothing"):
        refused(daemon, start(daemon, b"{}", agent=agent), 401, "bad_api_key")
    answer = start(daemon, b"{}", BEARER, agent="nothing")
    assert refused(daemon, answer, 404, "unknown_agent")["error"] == "Service not found"
    answer = start(daemon, b"{}", BEARER, agent="theirs")
    refused(daemon, answer, 401, "bad_api_key")


def test_a_private_key_starts_too(daemon: Daemon) -> None:
    body = b'{"transport": "websocket"}'
    answer = start(daemon, body, f"Authorization: bearer  {PRIVATE_KEY}")
    assert answer.status == 200
    stop(daemon, answer.json()["sessionId"])


@pytest.mark.parametrize(
    ("body", "status", "cause"),
    [
        (b'{"transport": "websocket"', 400, "bad_json"),
        (b"[]", 400, "bad_json"),
        (b'"websocket"', 400, "bad_json"),
        (b'{"transport": "websocket", "body": {"x": NaN}}', 400, "bad_json"),
        (b'{"transport": "websocket", "body": {"x": 1e999}}', 400, "bad_json"),
        (b'{"transport": "websocket", "x": "\xff"}', 400, "bad_json"),
        (b"\x00" * 10, 400, "bad_json"),
        (b"[" * 60_000, 400, "bad_json"),
        (b'{"transport": "carrier pigeon"}', 400, "bad_transport"),
        (b'{"transport": ["websocket"]}', 400, "bad_transport"),
        (b'{"transport": 5}', 400, "bad_transport"),
        (b'{"createDailyRoom": true}', 400, "daily_not_offered"),
        (b'{"transport": "websocket", "createDailyRoom": true}', 400, "daily_not_offered"),
        (b'{"transport": "websocket", "body": ["x"]}', 400, "body_not_object"),
        (b'{"transport": "websocket", "body": "eA=="}', 400, "body_not_object"),
        (b'{"transport": "websocket", "body": {"x": "\\ud800"}}', 400, "body_not_utf8"),
        (b'{"transport": "websocket", "body": {"x": ' + b"[" * 200 + b"]" * 200 + b"}}",
         400, "body_too_deep"),
        (b'{"transport": "webrtc", "body": "x"}', 400, "body_not_object"),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense(
    daemon: Daemon, body: bytes, status: int, cause: str
) -> None:
    before = total(daemon)
    refused(daemon, start(daemon, body, BEARER), status, cause)
    assert total(daemon) == before


def test_4096_bytes_of_compact_json_are_the_most(daemon: Daemon) -> None:
    room = 4096 - len('{"x":""}')
    for size, wanted in ((room, 200), (room + 1, 413)):
        # Spaces and escapes of the request do not count: its compact UTF-8 form does.
        text = "\\u0078" * (size % 7) + "x" * (size - size % 7)
        body = f'{{"transport": "websocket",   "body": {{ "x" : "{text}" }} }}'.encode()
        answer = start(daemon, body, BEARER)
        if wanted == 200:
            assert json.loads(base64.b64decode(answer.json()["body"])) == {"x": "x" * size}
            stop(daemon, answer.json()["sessionId"])
        else:
            refused(daemon, answer, 413, "body_too_large")


def test_the_answer_holds_what_it_should_and_no_more(daemon: Daemon) -> None:
    for body in (b'{"transport":"websocket"}', b'{"transport":"websocket","body":null}'):
        answer = start(daemon, body, BEARER)
        assert set(answer.json()) == {"sessionId", "token", "wsUrl"}
        assert answer.json()["wsUrl"] == f"ws://127.0.0.1:{daemon.port}/ws/generic/roomy.acme"
        assert answer.headers["x-daily-session-id"] == answer.json()["sessionId"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
        keeps_secrets(daemon, answer.json()["token"])
        stop(daemon, answer.json()["sessionId"])


@pytest.mark.parametrize(
    ("method", "path", "status", "cause"),
    [
        ("GET", "/v1/public/bot/start", 405, "method_not_allowed"),
        ("PUT", "/v1/public/bot/start", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/public/bot/start", 405, "method_not_allowed"),
        ("POST", "/v1/public/bot/start/", 404, "no_such_path"),
        ("POST", "/v1/public//start", 404, "no_such_path"),
        ("POST", "/v1/public/bot/stop", 404, "no_such_path"),
        ("POST", "//v1/public/bot/start", 404, "no_such_path"),
        ("GET", "/", 404, "no_such_path"),
        ("POST", "/v1/public/%2e%2e/start", 400, "target_dot_segment"),
        ("POST", "/v1/public/a%2Fb/start", 400, "target_separator"),
        ("POST", "/v1/public/bot/start#x", 400, "target_byte"),
    ],
)
def test_other_paths_and_methods(
    daemon: Daemon, method: str, path: str, status: int, cause: str
) -> None:
    answer = ask(daemon, request(method, path, BEARER, "Content-Length: 0"))
    refused(daemon, answer, status, cause)
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)


def test_when_full_start_is_429_at_once_and_a_place_given_up_is_free(daemon: Daemon) -> None:
    held = daemon.start_when_free()
    answer = daemon.start()
    error = refused(daemon, answer, 429, "at_capacity")
    assert error["error"].startswith("PCC-AGENT-AT-CAPACITY")
    assert (error["code"], error["phase"]) == ("429", "resolve")
    assert int(answer.headers["retry-after"]) >= 1
    stop(daemon, held["sessionId"])
    again = daemon.start()
    assert again.status == 200
    stop(daemon, again.json()["sessionId"])


def test_without_a_ready_instance_start_is_400_pcc_1001(daemon: Daemon) -> None:
    before = total(daemon)
    answer = daemon.start("dead")
    assert refused(daemon, answer, 400, "not_ready")["code"] == "PCC-1001"
    assert int(answer.headers["retry-after"]) >= 1
    assert total(daemon) == before


def test_an_agent_without_tokens_takes_no_body_but_answers_with_a_token(daemon: Daemon) -> None:
    answer = daemon.start("open", body={"x": SENT})
    assert "websocket_auth" in refused(daemon, answer, 400, "body_without_token")["error"]
    answer = daemon.start("open")
    assert set(answer.json()) == {"sessionId", "token", "wsUrl"}
    stop(daemon, answer.json()["sessionId"])


def test_after_all_of_this_a_call_goes_through(daemon: Daemon) -> None:
    refused(daemon, daemon.start(body={"x": SENT * 400}), 413, "body_too_large")
    serves(daemon)
    serves(daemon, "open")
