"""The tables of routes: every path with every method, and what is no path at all."""

from __future__ import annotations

import pytest

from relay.errors import Refusal
from relay.policy.routes import ADMIN, PUBLIC, Match, Route, is_session_id, match
from relay.protocol.target import parse_target

SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"
METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"get"]
WEBSOCKET = Route.GENERIC_WEBSOCKET

# What stands behind a session's id, and the path that its bot sees.
RESTS = {
    b"": b"/",
    b"?x=1": b"/",
    b"/": b"/",
    b"//": b"//",
    b"/status": b"/status",
    b"/%73tatus?x=/a": b"/%73tatus",
    b"/a//b%20c;d/": b"/a//b%20c;d/",
    b"/sessions/x": b"/sessions/x",
}

PUBLIC_PATHS = [
    (b"/v1/public/bot/start", Route.START, {"agent": "bot"}, b"POST"),
    (b"/v1/public/b%6Ft/start?x=1", Route.START, {"agent": "bot"}, b"POST"),
    *(
        (
            b"/v1/public/bot/sessions/" + SESSION.encode() + rest,
            Route.SESSION_API,
            {"agent": "bot", "session": SESSION},
            b"GET, POST, PUT, PATCH, DELETE, OPTIONS, HEAD",
        )
        for rest in RESTS
    ),
    (b"/v1/organizations", Route.ORGANIZATIONS, {}, b"GET, HEAD"),
    *(
        (prefix + path, route, {**organization, **names}, allow)
        for prefix, organization in (
            (b"/v1/agents", {}),
            (b"/v1/organizations/acme/services", {"organization": "acme"}),
        )
        for path, route, names, allow in (
            (b"", Route.SERVICES, {}, b"GET, HEAD"),
            (b"?include=git", Route.SERVICES, {}, b"GET, HEAD"),
            (b"/bot", Route.SERVICE, {"agent": "bot"}, b"GET, HEAD"),
            (b"/bot/sessions?limit=1", Route.SESSIONS, {"agent": "bot"}, b"GET, HEAD"),
            (
                b"/bot/sessions/" + SESSION.encode(),
                Route.SESSION,
                {"agent": "bot", "session": SESSION},
                b"GET, HEAD, DELETE",
            ),
            (
                b"/b/sessions/x",
                Route.SESSION,
                {"agent": "b", "session": "x"},
                b"GET, HEAD, DELETE",
            ),
        )
    ),
    (b"/ws/generic", WEBSOCKET, {}, b""),
    (b"/ws/generic?serviceHost=bot.acme", WEBSOCKET, {}, b""),
    (b"/ws/generic/bot.acme", WEBSOCKET, {"host": "bot.acme"}, b""),
    (b"/ws/generic/bot.acme/t.s", WEBSOCKET, {"host": "bot.acme", "token": "t.s"}, b""),
    (b"/ws/twilio", Route.PROVIDER_WEBSOCKET, {"provider": "twilio"}, b""),
    (b"/ws/whatever", Route.PROVIDER_WEBSOCKET, {"provider": "whatever"}, b""),
]
ADMIN_PATHS = [
    (b"/livez", Route.LIVEZ, {}, b"GET, HEAD"),
    (b"/readyz", Route.READYZ, {}, b"GET, HEAD"),
    (b"/instances", Route.ADMIN_INSTANCES, {}, b"GET, HEAD"),
    (b"/sessions", Route.ADMIN_SESSIONS, {}, b"GET, HEAD"),
    (b"/sessions?state=live", Route.ADMIN_SESSIONS, {}, b"GET, HEAD"),
    (b"/sessions/x", Route.ADMIN_SESSION, {"session": "x"}, b"GET, HEAD, DELETE"),
]
NOWHERE = [
    b"/",
    b"//",
    b"/v1",
    b"/v1/public/bot",
    b"/v1/public//start",
    b"/v1/public/bot/start/",
    b"/v1/public/bot/start/x",
    b"/v1/public/bot/sessions",
    b"/v1/public/bot/sessions/",
    b"/v1/public/bot/sessions//status",
    b"/v1/public//sessions/x/status",
    b"//v1/public/bot/start",
    b"/v1//public/bot/start",
    b"/V1/public/bot/start",
    b"/v1/public/bot/Start",
    b"/v1/agents/",
    b"/v1/agents/bot/",
    b"/v1/agents/bot/sessions/",
    b"/v1/organizations/",
    b"/v1/organizations/acme",
    b"/v1/organizations/acme/services/",
    b"/v1/organizations//services",
    b"/v1/organizations/acme/services/bot/logs",
    b"/v1/agents//sessions/x",
    b"/ws",
    b"/ws/",
    b"/ws/generic/",
    b"/ws/generic//token",
    b"/ws/generic/bot.acme/",
    b"/ws/generic/bot.acme/token/x",
    b"/ws/twilio/",
    b"/ws/twilio/bot.acme",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("table", "path", "route", "names", "allow"),
    [(PUBLIC, *row) for row in PUBLIC_PATHS] + [(ADMIN, *row) for row in ADMIN_PATHS],
)
def test_each_path_with_each_method(
    table: tuple[object, ...],
    path: bytes,
    route: Route,
    names: dict[str, str],
    allow: bytes,
    method: bytes,
) -> None:
    target = parse_target(path, b"relay")
    if not allow or method in allow.split(b", "):
        found = match(table, method, target)  # type: ignore[arg-type]
        assert found == Match(route, names, rest=found.rest)
        assert bool(found.rest) == (route is Route.SESSION_API)
        return
    with pytest.raises(Refusal) as refused:
        match(table, method, target)  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.cause) == (405, "method_not_allowed")
    assert refused.value.headers == ((b"allow", allow),)
    assert allow.decode() in refused.value.reason


@pytest.mark.parametrize(("rest", "seen"), RESTS.items())
def test_the_rest_of_a_path_is_kept_as_it_was_sent(rest: bytes, seen: bytes) -> None:
    path = b"/v1/public/bot/sessions/" + SESSION.encode() + rest
    assert match(PUBLIC, b"GET", parse_target(path, b"relay")).rest == seen


@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS"])
@pytest.mark.parametrize("path", NOWHERE)
def test_there_is_nothing_there_whatever_the_method(path: bytes, method: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        match(PUBLIC, method, parse_target(path, b"relay"))
    assert (refused.value.status, refused.value.cause) == (404, "no_such_path")
    assert refused.value.headers == ()


@pytest.mark.parametrize("path", [b"//", b"/livez/", b"/sessions/", b"/sessions//", b"/metric"])
def test_nothing_else_is_on_the_administration(path: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        match(ADMIN, b"GET", parse_target(path, b"relay"))
    assert refused.value.status == 404


def test_the_two_tables_share_no_path() -> None:
    for table, paths in ((ADMIN, PUBLIC_PATHS), (PUBLIC, ADMIN_PATHS)):
        for path, *_ in paths:
            with pytest.raises(Refusal) as refused:
                match(table, b"GET", parse_target(path, b"relay"))
            assert refused.value.status == 404


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (SESSION, True),
        (SESSION.upper(), True),
        ("00000000-0000-0000-0000-000000000000", True),
        ("", False),
        (SESSION.replace("-", ""), False),
        (SESSION[:-1], False),
        (SESSION + "0", False),
        (SESSION + "\n", False),
        (" " + SESSION, False),
        ("{" + SESSION + "}", False),
        ("urn:uuid:" + SESSION, False),
        (SESSION.replace("f", "g"), False),
        (SESSION.replace("0", "\u0660"), False),
    ],
)
def test_a_session_id_is_a_uuid(text: str, valid: bool) -> None:
    assert is_session_id(text) is valid
