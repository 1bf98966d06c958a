"""Who may start a session, in which order that is decided, and what a start may ask for."""

from __future__ import annotations

import base64
import json

import pytest

from relay.errors import Refusal
from relay.policy.admission import (
    StartRequest,
    agent_for_key,
    at_capacity,
    not_ready,
    organization_for_key,
    organizations_for_key,
    parse_start,
)
from relay.policy.catalog import Agent, Catalog, Organization

PUBLIC, PRIVATE = "pk_acme_0123456789", "sk_acme_0123456789"
FOREIGN, FOREIGN_PRIVATE = "pk_other_0123456789", "sk_other_0123456789"
BOT = Agent("bot", "acme", ())
OPEN = Agent("open", "acme", (), websocket_auth="none")
CATALOG = Catalog(
    {
        "acme": Organization("acme", (PUBLIC, "pk_acme_second"), (PRIVATE,), ()),
        "other": Organization("other", (FOREIGN,), (FOREIGN_PRIVATE,), ()),
        "closed": Organization("closed", (), (), ()),
    },
    {"bot": BOT, "open": OPEN, "shut": Agent("shut", "closed", ())},
)


def bearer(key: str) -> list[bytes]:
    return [b"Bearer " + key.encode()]


def refusal_of(name: str, authorization: list[bytes], private: bool = False) -> Refusal:
    with pytest.raises(Refusal) as refused:
        agent_for_key(CATALOG, name, authorization, private=private)
    for key in (PUBLIC, PRIVATE, FOREIGN, FOREIGN_PRIVATE):
        assert key not in refused.value.reason
    return refused.value


def test_organizations_of_a_private_key() -> None:
    assert organizations_for_key(CATALOG, bearer(PRIVATE)) == ["acme"]
    assert organization_for_key(CATALOG, "acme", bearer(PRIVATE)) == "acme"
    both = Organization("both", (), (PRIVATE,), ())
    shared = Catalog({**CATALOG.organizations, "both": both}, CATALOG.agents)
    assert organizations_for_key(shared, bearer(PRIVATE)) == ["acme", "both"]
    assert organization_for_key(shared, "both", bearer(PRIVATE)) == "both"


@pytest.mark.parametrize(
    ("name", "authorization", "status", "cause"),
    [
        ("acme", [], 401, "bad_api_key"),
        ("acme", bearer(PUBLIC), 401, "bad_api_key"),
        ("acme", bearer(FOREIGN_PRIVATE), 401, "bad_api_key"),
        ("nobody", bearer(PUBLIC), 401, "bad_api_key"),
        ("nobody", bearer(PRIVATE), 404, "unknown_organization"),
        ("closed", bearer(PRIVATE), 401, "bad_api_key"),
    ],
)
def test_the_key_is_judged_before_the_organization(
    name: str, authorization: list[bytes], status: int, cause: str
) -> None:
    with pytest.raises(Refusal) as refused:
        organization_for_key(CATALOG, name, authorization)
    assert (refused.value.status, refused.value.cause) == (status, cause)
    if status == 401 and authorization != bearer(FOREIGN_PRIVATE) and name != "closed":
        with pytest.raises(Refusal):
            organizations_for_key(CATALOG, authorization)


@pytest.mark.parametrize(
    ("key", "private", "opened"),
    [
        (PUBLIC, False, True),
        ("pk_acme_second", False, True),
        (PRIVATE, False, True),
        (PRIVATE, True, True),
        (PUBLIC, True, False),
        (FOREIGN, False, False),
        (FOREIGN_PRIVATE, False, False),
        (FOREIGN_PRIVATE, True, False),
        (PUBLIC[:-1], False, False),
        (PUBLIC + "x", False, False),
        (PUBLIC.upper(), False, False),
        ("", False, False),
    ],
)
def test_which_key_opens_which_route(key: str, private: bool, opened: bool) -> None:
    if opened:
        assert agent_for_key(CATALOG, "bot", bearer(key), private=private) is BOT
    else:
        refused = refusal_of("bot", bearer(key), private)
        assert (refused.status, refused.cause) == (401, "bad_api_key")
        assert refused.headers == ((b"www-authenticate", b"Bearer"),)


@pytest.mark.parametrize(
    ("authorization", "name", "status"),
    [
        ([], "bot", 401),
        ([], "unknown", 401),
        (bearer("wrong"), "unknown", 401),  # nothing is learnt without a key
        (bearer(PUBLIC), "unknown", 404),
        (bearer(FOREIGN), "unknown", 404),
        (bearer(FOREIGN), "bot", 401),
        (bearer(PUBLIC), "shut", 401),
    ],
)
def test_the_key_is_judged_before_the_agent(
    authorization: list[bytes], name: str, status: int
) -> None:
    assert refusal_of(name, authorization).status == status


def test_an_unknown_agent_is_told_in_the_public_words() -> None:
    refused = refusal_of("unknown", bearer(PUBLIC))
    assert (refused.error, refused.code) == ("Service not found", "404")


@pytest.mark.parametrize(
    "authorization",
    [
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer    "],
        [PUBLIC.encode()],
        [b"Basic " + PUBLIC.encode()],
        [b"Bearer:" + PUBLIC.encode()],
        [b"Bearer " + PUBLIC.encode() + b" x"],
        [b"Bearer " + PUBLIC.encode() + b"," + PUBLIC.encode()],
        [b"Bearer \xff\xfe\x00"],
        [*bearer(PUBLIC), *bearer(PUBLIC)],
        [*bearer(PUBLIC), b"Basic eDp5"],
    ],
)
def test_a_malformed_authorization_is_401(authorization: list[bytes]) -> None:
    assert refusal_of("bot", authorization).status == 401


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"Bearer   "])
def test_the_scheme_in_any_case(scheme: bytes) -> None:
    assert agent_for_key(CATALOG, "bot", [scheme + PUBLIC.encode()], private=False) is BOT


# What a start request may ask for.

WS = '"transport": "websocket"'


def encoded(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("{%s}", None),
        ("  {%s}\r\n", None),
        ('{%s, "body": null}', None),
        ('{%s, "body": {}}', {}),
        ('{%s, "body": {"a": [1, 2.5, true, null, "\\u00fc"]}}', {"a": [1, 2.5, True, None, "ü"]}),
        ('{%s, "body": {"\\u0000": "\\ud83d\\ude00"}}', {"\0": "😀"}),
        ('{%s, "createDailyRoom": false}', None),
        ('{%s, "createDailyRoom": null}', None),
        ('{%s, "dailyRoomProperties": {"x": 1}, "unknown": [[]]}', None),
    ],
)
def test_start_requests_that_are_served(text: str, body: object) -> None:
    request = parse_start((text % WS).encode(), BOT)
    assert request == StartRequest("websocket", None if body is None else encoded(body))


BIG = '{%s, "body": {"a": "' + "x" * (4096 - len('{"a":""}'))
DEEP = 100_000


@pytest.mark.parametrize(
    ("text", "status", "cause"),
    [
        ('{"transport": "smoke signals"}', 400, "bad_transport"),
        ('{"transport": "WebSocket"}', 400, "bad_transport"),
        ('{"transport": ""}', 400, "bad_transport"),
        ('{"transport": ["websocket"]}', 400, "bad_transport"),
        ('{"transport": {}}', 400, "bad_transport"),
        ('{"transport": 1}', 400, "bad_transport"),
        ('{"createDailyRoom": true}', 400, "daily_not_offered"),
        ('{%s, "createDailyRoom": true}', 400, "daily_not_offered"),
        ('{%s, "createDailyRoom": "false"}', 400, "daily_not_offered"),
        ('{%s, "createDailyRoom": {}}', 400, "daily_not_offered"),
        # decision 6: an object, finite, within its size
        ('{%s, "body": []}', 400, "body_not_object"),
        ('{%s, "body": ""}', 400, "body_not_object"),
        ('{%s, "body": "e30="}', 400, "body_not_object"),
        ('{%s, "body": 0}', 400, "body_not_object"),
        ('{%s, "body": false}', 400, "body_not_object"),
        ('{%s, "body": {"a": NaN}}', 400, "bad_json"),
        ('{%s, "body": {"a": -Infinity}}', 400, "bad_json"),
        ('{%s, "body": {"a": 1e999}}', 400, "bad_json"),
        ('{%s, "other": Infinity}', 400, "bad_json"),
        ('{%s, "body": {"a": "\\ud800"}}', 400, "body_not_utf8"),
        ('{%s, "body": {"a": ' + "[" * 100 + "]" * 100 + "}}", 400, "body_too_deep"),
        ('{%s, "body": {"a": ' + "[" * DEEP + "]" * DEEP + "}}", 400, "bad_json"),
        ('{%s, "other": ' + "[" * DEEP + "]" * DEEP + "}", 400, "bad_json"),
        ("[" * DEEP, 400, "bad_json"),
        ('{"a":' * DEEP, 400, "bad_json"),
        ('{%s, "body": {"a": ' + "1" * 5000 + "}}", 400, "bad_json"),
        (BIG + 'x"}}', 413, "body_too_large"),
        # what is no JSON object
        ('{%s, "transport": "websocket"}', 400, "bad_json"),
        ('{%s, "body": {}, "body": {"a": 1}}', 400, "bad_json"),
        ('{%s, "body": {"a": 1, "a": 1}}', 400, "bad_json"),
        ("[]", 400, "bad_json"),
        ("null", 400, "bad_json"),
        ('"websocket"', 400, "bad_json"),
        ("{%s", 400, "bad_json"),
        ("{%s}{%s}", 400, "bad_json"),
        ("{%s,}", 400, "bad_json"),
        ("{'transport': 'websocket'}", 400, "bad_json"),
        ("\ufeff{%s}", 400, "bad_json"),
        ("transport=websocket", 400, "bad_json"),
        ("\0", 400, "bad_json"),
    ],
)
def test_start_requests_that_are_refused(text: str, status: int, cause: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_start(text.replace("%s", WS).encode(), BOT)
    assert (refused.value.status, refused.value.cause) == (status, cause)
    assert len(refused.value.reason) < 200


@pytest.mark.parametrize(
    ("text", "transport", "body"),
    [
        # decision 5: no transport, webrtc, daily without a room are started over HTTP
        ("", None, b"{}"),
        (" \r\n\t", None, b"{}"),
        ("{}", None, b"{}"),
        ('{"createDailyRoom": false, "body": null}', None, b"{}"),
        ('{"transport": null}', None, b"{}"),
        ('{"transport": "webrtc", "body": {"a": "Zo\\u00eb"}}', "webrtc", '{"a":"Zoë"}'.encode()),
        ('{"transport": "daily", "body": {}}', "daily", b"{}"),
    ],
)
@pytest.mark.parametrize("agent", [BOT, OPEN])
def test_starts_over_http(text: str, transport: str | None, body: bytes, agent: Agent) -> None:
    request = parse_start(text.encode(), agent)
    assert request == StartRequest(transport, bot_body=body)
    assert request.over_http


@pytest.mark.parametrize(
    ("body", "status", "cause"),
    [
        ('{"a": "' + "x" * (1024 * 1024) + '"}', 413, "body_too_large"),
        ('{"a": "\\ud800"}', 400, "body_not_utf8"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", 400, "body_too_deep"),
        ("[]", 400, "body_not_object"),
    ],
)
def test_bodies_over_http_have_rules_too(body: str, status: int, cause: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_start(('{"body": ' + body + "}").encode(), BOT)
    assert (refused.value.status, refused.value.cause) == (status, cause)


@pytest.mark.parametrize("raw", [b'{"body": {"a": "\xff"}}', '{"a": 1}'.encode("utf-16"), b"\xed"])
def test_what_is_not_utf8_is_400(raw: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse_start(raw, BOT)
    assert (refused.value.status, refused.value.cause) == (400, "bad_json")


def test_a_body_of_exactly_the_limit_is_served() -> None:
    request = parse_start((BIG % WS + '"}}').encode(), BOT)
    assert request.body is not None
    assert len(base64.b64decode(request.body)) == 4096


def test_the_compact_form_of_the_body_counts() -> None:
    spaced = f'{{{WS}, "body": {{"a":{" " * 5000}1}}}}'
    assert parse_start(spaced.encode(), BOT).body == encoded({"a": 1})


def test_without_token_authentication_there_is_no_body() -> None:
    assert parse_start(f"{{{WS}}}".encode(), OPEN) == StartRequest("websocket", None)
    assert parse_start(f'{{{WS}, "body": null}}'.encode(), OPEN).body is None
    with pytest.raises(Refusal) as refused:
        parse_start(f'{{{WS}, "body": {{}}}}'.encode(), OPEN)
    assert (refused.value.status, refused.value.cause) == (400, "body_without_token")
    assert "?body=" in refused.value.reason


# Refusals for want of room (decisions 5 and 12).


def test_refusals_when_full() -> None:
    for status in (429, 503):
        refused = at_capacity(3, status=status)
        assert (refused.status, refused.code, refused.cause) == (status, str(status), "at_capacity")
        assert refused.error.startswith("PCC-AGENT-AT-CAPACITY")
        assert refused.headers == ((b"retry-after", b"3"),)
    assert at_capacity(3).status == 429


def test_the_refusal_when_no_instance_is_ready() -> None:
    refused = not_ready()
    assert (refused.status, refused.code, refused.cause) == (400, "PCC-1001", "not_ready")
    assert refused.headers == ((b"retry-after", b"5"),)
