"""What the Session API refuses, and requests for sessions that have not begun or are over."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.helpers.daemon import NO_SESSION, Daemon, wait_until
from tests.helpers.scripted_bot import (
    ScriptedBot,
    accept,
    say,
    scripted_bot,
)
from tests.helpers.scripted_http import (
    BEARER,
    SessionBot,
    answer,
    session_on,
)
from tests.helpers.shared import shared_daemon
from tests.helpers.wire import (
    Wire,
    ask,
    call,
    exchange_line,
    refused,
    request,
    stop,
    token_for,
)

AGENTS = """
sessions_per_instance = 1000
attach_timeout = 30
[agents.hasty]
organization = "acme"
instances = ["{hasty}"]
attach_timeout = 1
[agents.other]
organization = "acme"
instances = ["{other}"]
[organizations.rival]
public_keys = ["pk_rival_0123456789abcdef"]
private_keys = ["sk_rival_0123456789abcdef"]
token_keys = [{{ id = "k2", secret = "another secret of at least thirty-two bytes" }}]
"""
RESERVED = ["/bot", "/%62ot", "//bot", "/bot/", "/bot//", "/bot?x=1", "/ws", "/readyz"]
RESERVED += ["/%6c%69vez", "/whatsapp", "/pcc/capabilities", "/pcc//capabilities/"]
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def daemon(bot: ScriptedBot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with scripted_bot() as hasty, scripted_bot() as other:
        agents = AGENTS.format(hasty=hasty.url, other=other.url)
        with shared_daemon(tmp_path_factory, [bot.url], agents, "max_waiting = 2") as daemon:
            yield daemon


def refuses(held: SessionBot, data: bytes, status: int, cause: str) -> None:
    """This request is refused so, and no bot has seen it."""
    seen = len(held.bot.conversations)
    refused(held.daemon, ask(held.daemon, data), status, cause)
    assert len(held.bot.conversations) == seen


# --- who may, and what ---


@pytest.mark.parametrize(
    "field",
    [
        "X-No: key",
        "Authorization: Bearer pk_bad",
        "Authorization: Bearer pk_rival_0123456789abcdef",
    ],
)
def test_without_a_key_of_the_organization(held: SessionBot, field: str) -> None:
    refuses(held, request("GET", held.path(), field), 401, "bad_api_key")
    refuses(held, request("GET", held.path("/bot"), field), 401, "bad_api_key")


@pytest.mark.parametrize(
    "path",
    [
        "/bot",
        "/%62ot",
        "//bot",
        "/bot/",
        "/bot?x=1",
        "/bot//",
        "/ws",
        "/readyz",
        "/%6c%69vez",
        "/whatsapp",
        "/pcc/capabilities",
        "/pcc//capabilities/",
    ],
)
def test_reserved_paths_however_they_are_spelt(held: SessionBot, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        refuses(held, held.request(method, path), 403, "reserved_path")


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/./bot", "target_dot_segment"),
        ("/x/../bot", "target_dot_segment"),
        ("/%2e%2E/bot", "target_dot_segment"),
        ("/x%2fbot", "target_separator"),
        ("/bot%00", "target_separator"),
        ("/\\bot", "target_backslash"),
        ("/bot%", "target_percent"),
    ],
)
def test_paths_that_can_be_read_in_two_ways(held: SessionBot, path: str, cause: str) -> None:
    refuses(held, held.request("GET", path), 400, cause)


@pytest.mark.parametrize("path", ["/api/offer", "/api/offer/", "//api//offer", "/%61pi/offer"])
def test_offers_are_for_sessions_over_http(held: SessionBot, path: str) -> None:
    refuses(held, held.request("POST", path), 409, "not_over_http")


def test_a_session_of_another_agent_or_none_or_no_agent(held: SessionBot) -> None:
    for agent, session, cause in (
        ("other", held.session, "no_session"),
        ("bot", NO_SESSION, "no_session"),
        ("bot", held.session[:-1], "no_session"),
        ("nobody", held.session, "unknown_agent"),
    ):
        path = f"/v1/public/{agent}/sessions/{session}/x"
        refuses(held, request("GET", path, BEARER), 404, cause)


# --- a session that is not active ---


def test_a_session_that_has_ended(daemon: Daemon, bot: ScriptedBot) -> None:
    with session_on(daemon, bot) as held:
        assert ask(daemon, held.request()).status == 200
    refuses(held, held.request(), 404, "no_session")


def test_a_request_waits_for_its_session(daemon: Daemon, bot: ScriptedBot) -> None:
    started = daemon.start().json()
    bot.script = lambda talk: say(answer(body=b"at last"))(talk)
    path = f"/v1/public/bot/sessions/{started['sessionId']}/x"
    with Wire(daemon.port) as wire:
        wire.send(request("POST", path, BEARER, "Content-Length: 4", body=b"body"))
        # In line: one that comes behind it is served at once, this one is not answered.
        assert daemon.request("GET", "/").status == 404
        bot.script = lambda talk: (
            accept()(talk) if talk.field("upgrade") else say(answer(body=b"at last"))(talk)
        )
        with call(daemon, token=started["token"]):
            found = wire.answer()
            assert (found.status, found.body) == (200, b"at last")
            assert bot.conversations[-1].head.endswith(b"body")
    line = exchange_line(daemon, found.headers["x-request-id"])
    assert line["resolve_ms"] > 0


def test_a_session_that_does_not_begin(daemon: Daemon) -> None:
    started = daemon.start("hasty").json()
    path = f"/v1/public/hasty/sessions/{started['sessionId']}/x"
    found = ask(daemon, request("GET", path, BEARER))
    refused(daemon, found, 503, "session_not_started")
    assert int(found.headers["retry-after"]) >= 1
    assert found.headers["x-daily-session-id"] == started["sessionId"]
    stop(daemon, started["sessionId"])


def test_a_session_that_ends_before_it_begins(daemon: Daemon) -> None:
    started = daemon.start().json()
    path = f"/v1/public/bot/sessions/{started['sessionId']}/x"
    with Wire(daemon.port) as wire:
        wire.send(request("GET", path, BEARER))
        stop(daemon, started["sessionId"])
        refused(daemon, wire.answer(), 404, "no_session")


def test_only_so_many_wait_and_who_leaves_makes_room(daemon: Daemon) -> None:
    started = daemon.start().json()
    path = f"/v1/public/bot/sessions/{started['sessionId']}/x"

    def asks(wire: Wire) -> str:
        name = str(uuid.uuid4())
        wire.send(request("GET", path, BEARER, f"X-Request-Id: {name}"))
        return name

    with Wire(daemon.port) as first, Wire(daemon.port) as second:
        name = asks(first)
        asks(second)

        def full() -> bool:
            with Wire(daemon.port) as third:
                asks(third)
                third.sock.settimeout(0.3)
                try:
                    found = third.answer()
                except TimeoutError:
                    return False
                refused(daemon, found, 429, "too_many_held")
                return int(found.headers["retry-after"]) > 0

        wait_until(full, "no more may wait")
        first.close()
        line = exchange_line(daemon, name)
        assert line["cause"] == "client_left"
        assert "status" not in line
        with Wire(daemon.port) as third:
            asks(third)
            stop(daemon, started["sessionId"])
            for wire in (second, third):
                refused(daemon, wire.answer(), 404, "no_session")


def test_a_call_with_its_token_alone_is_not_enough(held: SessionBot) -> None:
    field = f"Authorization: Bearer {token_for()}"
    refuses(held, request("GET", held.path(), field), 401, "bad_api_key")
