"""Upgrades: which are refused and why, and what of a right one reaches the bot."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.helpers.daemon import PUBLIC_KEY, Bot, Daemon, running_bot, wait_until
from tests.helpers.shared import shared_daemon
from tests.helpers.wire import (
    WS_KEY,
    Wire,
    ask,
    base64_of,
    call,
    echoes,
    exchange_line,
    keeps_secrets,
    live,
    refused,
    request,
    serves,
    token_for,
    told,
    upgrade,
)

BOT = "/ws/generic/bot.acme"
OPEN = "/ws/generic/open.acme"
SENT = "a-word-that-only-a-caller-knows"
AGENTS = """
sessions_per_instance = 1000
[agents.open]
organization = "acme"
websocket_auth = "none"
instances = ["{}"]
sessions_per_instance = 1000
"""


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    with running_bot(tmp_path_factory.mktemp("bot"), sessions=1000) as bot:
        yield bot


@pytest.fixture(scope="module")
def daemon(bot: Bot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    secrets = (SENT, base64_of(SENT)[:24], WS_KEY)
    with running_bot(tmp_path_factory.mktemp("open"), sessions=1000) as open_bot:
        agents = AGENTS.format(open_bot.url)
        with shared_daemon(tmp_path_factory, [bot.url], agents, secrets=secrets) as daemon:
            yield daemon


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


# --- where to ---


@pytest.mark.parametrize(
    ("target", "status", "cause"),
    [
        ("/ws/generic/nobody.acme", 404, "unknown_service_host"),
        ("/ws/generic/bot.nobody", 404, "unknown_service_host"),
        ("/ws/generic/bot.acme.acme", 404, "unknown_service_host"),
        ("/ws/generic/Bot.acme", 404, "unknown_service_host"),
        ("/ws/generic/bot", 404, "unknown_service_host"),
        ("/ws/generic?serviceHost=", 404, "unknown_service_host"),
        ("/ws/generic", 400, "no_service_host"),
        ("/ws/generic?servicehost=bot.acme", 400, "no_service_host"),
        ("/ws/generic?serviceHost=bot.acme&serviceHost=bot.acme", 400, "two_service_hosts"),
        (BOT + "?serviceHost=open.acme", 400, "two_service_hosts"),
        (BOT + "?serviceHost=bot.acme&serviceHost=bot.acme", 400, "two_service_hosts"),
        ("/ws/generic/", 404, "no_such_path"),
        (BOT + "/", 404, "no_such_path"),
        (BOT + "/a/b", 404, "no_such_path"),
        ("/ws", 404, "no_such_path"),
        ("/ws/", 404, "no_such_path"),
        ("/ws/nothing", 404, "no_such_path"),
        ("/WS/generic/bot.acme", 404, "no_such_path"),
        ("/ws/generic/../generic/bot.acme", 400, "target_dot_segment"),
        ("/ws/generic/bot.acme%2Fx", 400, "target_separator"),
        ("/ws/generic/bot.acme%zz", 400, "target_percent"),
        ("/ws/twilio?serviceHost=bot.acme", 501, "provider_path"),
    ],
)
def test_what_is_not_there(daemon: Daemon, target: str, status: int, cause: str) -> None:
    refused(daemon, ask(daemon, upgrade(target, bearer(token_for()))), status, cause)


@pytest.mark.parametrize(
    "target",
    [
        BOT + "?token={token}",
        BOT + "/{token}",
        BOT + "/{token}?serviceHost=bot.acme",
        BOT + "?x=1&token={token}&y=2",
        BOT + "?tok%65n={token}",
        "/ws/generic?serviceHost=bot.acme&token={token}",
        "/ws/generic?token={token}&serviceHost=bot%2Eacme",
        "/ws/generic/bot%2Eacme?token={token}",
        "http://localhost/ws/generic/bot.acme?token={token}",
        "ws://LOCALHOST/ws/generic/bot.acme/{token}",
    ],
)
def test_every_form_of_the_url(daemon: Daemon, target: str) -> None:
    session, field = str(uuid.uuid4()), f"X-Request-Id: {uuid.uuid4()}"
    token = token_for(session=session).replace("_", "%5F")  # as an over-careful client writes it
    with Wire(daemon.port) as wire:
        answer = wire.ask(upgrade(target.format(token=token), field))
        assert answer.status == 101
        assert answer.headers["x-daily-session-id"] == session
        assert answer.headers["x-request-id"] == field.split()[1]
        line = exchange_line(daemon, field.split()[1])
    assert (line["status"], line["route"], line["phase"]) == (101, "generic_websocket", "relay")
    assert line["session_id"] == session
    keeps_secrets(daemon, token)


# --- who may ---


def tampered(token: str, at: int) -> str:
    """The token with another character at a place."""
    other = "A" if token[at] != "A" else "B"
    return token[:at] + other + token[at + 1 :]


@pytest.mark.parametrize(
    ("token", "cause"),
    [
        ("", "token_missing"),
        ("nonsense", "token_malformed"),
        (SENT + "." + SENT, "token_malformed"),
        ("x" * 5000, "token_malformed"),
        (PUBLIC_KEY, "token_malformed"),
        (token_for()[:-1], "token_malformed"),
        (token_for() + "=", "token_malformed"),
        (tampered(token_for(), -20), "token_bad_signature"),
        (token_for(secret="another secret of at least 32 bytes"), "token_bad_signature"),
        (token_for(key="k2"), "token_unknown_key"),
        (token_for(ttl=-1), "token_expired"),
        (token_for(ttl=-(10**6)), "token_expired"),
        (token_for("open.acme"), "token_wrong_scope"),
        (token_for("bot.globex"), "token_wrong_scope"),
    ],
)
def test_a_wrong_token_is_403_wherever_it_stands(daemon: Daemon, token: str, cause: str) -> None:
    for target, fields in (
        (BOT, (bearer(token),)),
        (f"{BOT}?token={token}", ()),
        (f"{BOT}/{token}" if token else BOT, ()),
    ):
        answer = ask(daemon, upgrade(target, *fields))
        assert refused(daemon, answer, 403, cause)["phase"] == "authenticate"
    if token:
        keeps_secrets(daemon, token)


def test_any_tampered_character_is_noticed(daemon: Daemon) -> None:
    token = token_for()
    for at in range(0, len(token), 7):
        answer = ask(daemon, upgrade(BOT, bearer(tampered(token, at))))
        assert answer.status == 403, (at, answer)
    with call(daemon, BOT, token) as ws:
        assert echoes(ws)


def test_a_token_is_good_once_and_for_one_session(daemon: Daemon) -> None:
    session = str(uuid.uuid4())
    first, second = token_for(session=session), token_for(session=session)
    with call(daemon, BOT, first):
        answer = ask(daemon, upgrade(BOT, bearer(first)))
        assert refused(daemon, answer, 403, "token_used")["phase"] == "resolve"
        refused(daemon, ask(daemon, upgrade(BOT, bearer(second))), 403, "session_over")
    daemon.wait_ended(session)
    refused(daemon, ask(daemon, upgrade(f"{BOT}?token={first}")), 403, "token_used")
    for token in (second, token_for(session=session)):
        refused(daemon, ask(daemon, upgrade(BOT, bearer(token))), 403, "session_over")


@pytest.mark.parametrize(
    ("fields", "target", "status"),
    [
        (["Authorization: Bearer {good}"], BOT + "?token=bad", 101),
        (["Authorization: Bearer {good}"], BOT + "/bad?token=bad", 101),
        (["Authorization: Bearer bad"], BOT + "?token={good}", 403),
        (["Authorization: Basic Ym90Ong="], BOT + "?token={good}", 101),
        (["Authorization: Bearer"], BOT + "?token={good}", 101),
        ([], BOT + "/bad?token={good}", 101),
        ([], BOT + "/{good}?token=bad", 403),
        ([], BOT + "/{good}?token=", 101),
        ([], BOT + "?token={good}&token={good}", 400),
        ([], BOT + "?token=&token={good}", 400),
        (["Authorization: Bearer {good}"], BOT + "?token=bad&token=bad", 400),
        (["Authorization: Bearer {good}", "Authorization: Bearer {good}"], BOT, 400),
    ],
)
def test_the_first_place_with_a_token_decides(
    daemon: Daemon, fields: list[str], target: str, status: int
) -> None:
    good = token_for()
    filled = [field.format(good=good) for field in fields]
    with Wire(daemon.port) as wire:
        assert wire.ask(upgrade(target.format(good=good), *filled)).status == status
    if status != 101:  # what was not used can be used
        with call(daemon, BOT, good) as ws:
            assert echoes(ws)
    keeps_secrets(daemon, good)


def test_without_websocket_auth_no_token_is_needed(daemon: Daemon) -> None:
    ids = set()
    for query in ("", "?token=nonsense", f"?token={token_for('open.acme', ttl=-5)}"):
        with call(daemon, OPEN + query) as ws:
            ws.send("!session")
            ids.add(ws.recv())
            assert ws.response is not None
            assert ws.response.headers["x-daily-session-id"] in ids
            ws.send("!target")
            assert ws.recv() == "/ws"
    assert len(ids) == 3
    for session in ids:
        assert daemon.wait_ended(str(session))["cause"] == "client_closed"


def test_without_websocket_auth_a_valid_token_binds_its_session(daemon: Daemon) -> None:
    session = str(uuid.uuid4())
    token = token_for("open.acme", session=session)
    assert told(daemon, "!session", OPEN, token=token) == session
    daemon.wait_ended(session)
    # Another agent's, a tampered one, and the same once more, which is used.
    for other in (token_for(session=session), tampered(token, 0), token):
        assert told(daemon, "!session", OPEN, token=other) != session


# --- the handshake ---

VERSION = {"sec-websocket-version": "13"}
ASK = {"upgrade": "websocket"}


@pytest.mark.parametrize(
    ("data", "status", "cause", "fields"),
    [
        (request("GET", BOT), 426, "upgrade_required", ASK),
        (upgrade(BOT, without="Upgrade"), 426, "upgrade_required", ASK),
        (upgrade(BOT, without="Connection"), 426, "upgrade_required", ASK),
        (upgrade(BOT, "Upgrade: h2c", without="Upgrade"), 426, "upgrade_required", ASK),
        (upgrade(BOT, without="Sec-WebSocket-Version"), 426, "websocket_version", VERSION),
        (upgrade(BOT, "Sec-WebSocket-Version: 12", without="Sec-WebSocket-Version"),
         426, "websocket_version", VERSION),
        (upgrade(BOT, "Sec-WebSocket-Version: 13"), 426, "websocket_version", VERSION),
        (upgrade(BOT, without="Sec-WebSocket-Key"), 400, "websocket_key", {}),
        (upgrade(BOT, f"Sec-WebSocket-Key: {WS_KEY}"), 400, "websocket_key", {}),
        (upgrade(BOT, "Sec-WebSocket-Key: c2hvcnQ=", without="Sec-WebSocket-Key"),
         400, "websocket_key", {}),
        (upgrade(BOT, "Sec-WebSocket-Key: !" + WS_KEY[1:], without="Sec-WebSocket-Key"),
         400, "websocket_key", {}),
        (upgrade(BOT, "Sec-WebSocket-Protocol: a, a"), 400, "websocket_subprotocol", {}),
        (upgrade(BOT, "Sec-WebSocket-Protocol: a b"), 400, "websocket_subprotocol", {}),
        (upgrade(BOT, "Sec-WebSocket-Protocol:"), 400, "websocket_subprotocol", {}),
        (upgrade(BOT, "Content-Length: 3") + b"abc", 400, "upgrade_with_body", {}),
        (upgrade(BOT, "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, "upgrade_with_body", {}),
        (upgrade(BOT, method="POST"), 405, "method_not_allowed", {"allow": "GET"}),
        (upgrade(BOT, "Content-Length: 0", method="PUT"),
         405, "method_not_allowed", {"allow": "GET"}),
        (upgrade(BOT).replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "upgrade_version", {}),
        (upgrade(BOT, bearer(token_for()), "X-Long: " + "x" * 8200), 431, "field_too_long", {}),
    ],
)  # fmt: skip
def test_what_is_no_right_upgrade(
    daemon: Daemon, data: bytes, status: int, cause: str, fields: dict[str, str]
) -> None:
    answer = ask(daemon, data)
    refused(daemon, answer, status, cause)
    assert answer.headers.items() >= fields.items()


def test_the_connection_goes_on_after_a_refusal(daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        for data, status in (
            (request("GET", BOT), 426),
            (upgrade(BOT, bearer("bad")), 403),
            (upgrade("/ws/generic/nobody.acme"), 404),
            (upgrade(BOT, bearer(token_for())), 101),
        ):
            assert wire.ask(data).status == status


def test_after_all_of_this_a_call_goes_through(daemon: Daemon, bot: Bot) -> None:
    wait_until(lambda: not live(daemon), "every session has ended")
    wait_until(lambda: bot.get("/status")["sessions"] == [], "the bot is idle")
    serves(daemon)
    serves(daemon, "open")
