"""What lets a page of another origin use the API, and only the API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.daemon import PUBLIC_KEY, Answer, Daemon
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.shared import shared_daemon
from tests.helpers.wire import (
    ask,
    exchange_line,
    refused,
    request,
    serves,
    stop,
    upgrade,
)

START = "/v1/public/bot/start"
APP = "https://app.example.com"
BEARER = f"Authorization: Bearer {PUBLIC_KEY}"
BODY = b'{"transport": "websocket"}'
EXPOSED = {"x-request-id", "x-daily-session-id", "retry-after"}
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"}
PREFLIGHT = "Access-Control-Request-Method: POST"
HEADERS = "Access-Control-Request-Headers: authorization,content-type"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Open to pages of every origin."""
    with scripted_bot() as bot, shared_daemon(tmp_path_factory, [bot.url]) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def picky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Open to pages of two origins."""
    origins = f'cors_origins = ["{APP}", "http://localhost:5173"]'
    with (
        scripted_bot() as bot,
        shared_daemon(tmp_path_factory, [bot.url], server=origins) as daemon,
    ):
        yield daemon


def post(*fields: str, body: bytes = BODY, path: str = START) -> bytes:
    return request("POST", path, f"Content-Length: {len(body)}", *fields, body=body)


def readable(answer: Answer, origin: str | None) -> None:
    """A page of the asking origin may read the answer (None: it may not)."""
    assert answer.headers.get("access-control-allow-origin") == origin
    exposed = answer.headers.get("access-control-expose-headers", "").lower().split(", ")
    assert (set(exposed) >= EXPOSED) == (origin is not None)
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", [(f"Origin: {APP}",), ("Origin: null",), ()])
def test_success_and_errors_can_be_read_by_every_page(
    daemon: Daemon, origin: tuple[str, ...]
) -> None:
    answer = ask(daemon, post(BEARER, *origin))
    assert answer.status == 200
    readable(answer, "*")
    assert "vary" not in answer.headers
    for data, status, cause in (
        (post(*origin), 401, "bad_api_key"),
        (post(BEARER, *origin, path="/v1/public/nobody/start"), 404, "unknown_agent"),
        (post(BEARER, *origin, path="/v1/nothing"), 404, "no_such_path"),
        (post(BEARER, *origin, body=b"{"), 400, "bad_json"),
        (post(BEARER, *origin, body=b" " * 1_400_000), 413, "request_too_large"),
        (post(BEARER, *origin), 429, "at_capacity"),
        (request("GET", START, BEARER, *origin), 405, "method_not_allowed"),
    ):
        error = ask(daemon, data)
        refused(daemon, error, status, cause)
        readable(error, "*")
    stop(daemon, answer.json()["sessionId"])


@pytest.mark.parametrize(
    "path", [START, "/v1/public/nobody/start", "/v1/public/bot/sessions/x/speak", "/v1/agents/bot"]
)
def test_a_preflight_is_answered_here_without_a_key(daemon: Daemon, path: str) -> None:
    answer = ask(daemon, request("OPTIONS", path, f"Origin: {APP}", PREFLIGHT, HEADERS))
    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.headers
    assert "content-type" not in answer.headers
    readable(answer, "*")
    assert set(answer.headers["access-control-allow-methods"].split(", ")) == METHODS
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert int(answer.headers["access-control-max-age"]) > 0
    line = exchange_line(daemon, answer.headers["x-request-id"])
    assert (line["method"], line["status"]) == ("OPTIONS", 204)


def test_a_preflight_that_names_no_headers_hears_of_those_that_matter(daemon: Daemon) -> None:
    answer = ask(daemon, request("OPTIONS", START, f"Origin: {APP}", PREFLIGHT))
    named = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert set(named) == {"authorization", "content-type"}


@pytest.mark.parametrize(
    "fields",
    [
        (f"Origin: {APP}", PREFLIGHT, HEADERS, BEARER),
        (f"Origin: {APP}",),
        (PREFLIGHT,),
        (),
    ],
)
def test_any_other_options_is_an_ordinary_request(daemon: Daemon, fields: tuple[str, ...]) -> None:
    answer = ask(daemon, request("OPTIONS", START, *fields))
    refused(daemon, answer, 405, "method_not_allowed")
    readable(answer, "*")
    assert "access-control-allow-methods" not in answer.headers


def test_outside_the_api_nothing_is_said_to_pages(daemon: Daemon) -> None:
    for data, status in (
        (request("OPTIONS", "/ws/generic/bot.acme", f"Origin: {APP}", PREFLIGHT), 405),
        (request("OPTIONS", "/", f"Origin: {APP}", PREFLIGHT), 404),
        (upgrade("/ws/generic/bot.acme", f"Origin: {APP}"), 403),
    ):
        answer = ask(daemon, data)
        assert answer.status == status
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (APP, True),
        ("http://localhost:5173", True),
        ("https://evil.example.com", False),
        (APP + ".evil.example", False),
        (APP + ":8443", False),
        ("http://app.example.com", False),
        ("null", False),
        ("*", False),
        (None, False),
    ],
)
def test_with_cors_origins_only_their_pages_can_read(
    picky: Daemon, origin: str | None, allowed: bool
) -> None:
    fields = (f"Origin: {origin}",) if origin else ()
    started = ask(picky, post(BEARER, *fields))
    assert started.status == 200  # keys, not origins, guard the API
    error = ask(picky, post(*fields))
    refused(picky, error, 401, "bad_api_key")
    answers = [started, error]
    if origin is not None:
        answers.append(ask(picky, request("OPTIONS", START, *fields, PREFLIGHT, HEADERS)))
        assert answers[-1].status == 204
    for answer in answers:
        readable(answer, origin if allowed else None)
        assert answer.headers["vary"] == "Origin"  # whatever a cache keeps is for this origin
    stop(picky, started.json()["sessionId"])


def test_after_all_of_this_calls_go_through(daemon: Daemon, picky: Daemon) -> None:
    serves(daemon)
    serves(picky)
