"""The administration's listener and token: which routes are where, and who may use them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.helpers.daemon import (
    NO_SESSION,
    PRIVATE_KEY,
    PUBLIC_KEY,
    Answer,
    Daemon,
    wait_until,
)
from tests.helpers.scripted_bot import nobody_listens, scripted_bot
from tests.helpers.shared import shared_daemon
from tests.helpers.wire import Wire, refused, request, serves

ADMIN_TOKEN = "an-administrators-token"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with scripted_bot() as bot, shared_daemon(tmp_path_factory, [bot.url]) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose administration asks for a token."""
    token, secrets = f'admin_token = "{ADMIN_TOKEN}"', (ADMIN_TOKEN,)
    with (
        nobody_listens() as dead,
        shared_daemon(tmp_path_factory, [dead], server=token, secrets=secrets) as daemon,
    ):
        yield daemon


def admin(daemon: Daemon, method: str, path: str, *fields: str) -> Answer:
    with Wire(daemon.admin_port) as wire:
        return wire.ask(request(method, path, *fields))


# --- each route on its own listener ---


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/instances", "/sessions", f"/sessions/{NO_SESSION}"]
)
def test_administration_is_not_on_the_public_listener(daemon: Daemon, path: str) -> None:
    for method in ("GET", "DELETE"):
        answer = daemon.request(method, path, Authorization=f"Bearer {PRIVATE_KEY}")
        refused(daemon, answer, 404, "no_such_path")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/public/bot/start"),
        ("DELETE", f"/v1/agents/bot/sessions/{NO_SESSION}"),
        ("GET", "/ws/generic/bot.acme"),
        ("OPTIONS", "/v1/public/bot/start"),
    ],
)
def test_the_public_routes_are_not_on_the_administrations(
    daemon: Daemon, method: str, path: str
) -> None:
    fields = f"Authorization: Bearer {PUBLIC_KEY}", "Origin: https://app.example.com"
    answer = admin(daemon, method, path, *fields, "Content-Length: 0")
    refused(daemon, answer, 404, "no_such_path")
    answer = admin(daemon, method, path, fields[1], "Access-Control-Request-Method: POST")
    refused(daemon, answer, 404, "no_such_path")


def test_pages_of_other_origins_cannot_read_the_administration(daemon: Daemon) -> None:
    for path in ("/livez", "/sessions", "/nothing"):
        answer = admin(daemon, "GET", path, "Origin: https://app.example.com")
        assert not [name for name in answer.headers if name.startswith("access-control-")]


# --- the administration's token ---


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("Authorization: Bearer wrong",),
        (f"Authorization: Basic {ADMIN_TOKEN}",),
        (f"Authorization: {ADMIN_TOKEN}",),
        (f"Authorization: Bearer {ADMIN_TOKEN}x",),
        (f"Authorization: Bearer {PRIVATE_KEY}",),
    ],
)
def test_with_an_admin_token_set_nothing_but_health_is_open(
    guarded: Daemon, fields: tuple[str, ...]
) -> None:
    for method, path in (
        ("GET", "/instances"),
        ("GET", "/sessions"),
        ("GET", "/sessions?state=gone"),
        ("GET", f"/sessions/{NO_SESSION}"),
        ("DELETE", f"/sessions/{NO_SESSION}"),
    ):
        answer = admin(guarded, method, path, *fields)
        refused(guarded, answer, 401, "bad_admin_token")
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/livez", "/readyz"):
        assert admin(guarded, "GET", path, *fields).status == 200


def test_the_admin_token_opens(guarded: Daemon) -> None:
    for field in (f"Authorization: Bearer {ADMIN_TOKEN}", f"authorization: bearer  {ADMIN_TOKEN}"):
        assert admin(guarded, "GET", "/sessions", field).json() == {"sessions": [], "total": 0}
        answer = admin(guarded, "DELETE", f"/sessions/{uuid.uuid4()}", field)
        refused(guarded, answer, 404, "no_session")


def test_an_instance_that_is_not_there_is_said_but_is_no_reason(guarded: Daemon) -> None:
    def said() -> str:
        (state,) = admin(guarded, "GET", "/readyz").json()["instances"]["bot"].values()
        return str(state)

    wait_until(lambda: said() == "cannot connect", "the instance has been looked at")
    assert admin(guarded, "GET", "/readyz").status == 200


def test_after_all_of_this_a_call_goes_through(daemon: Daemon) -> None:
    serves(daemon)
