"""Laws of admission: what a key opens, and that any bytes are a request or a refusal."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.policy.admission import StartRequest, agent_for_key, parse_start
from relay.policy.catalog import Agent, Catalog, Organization

TOKEN_AGENT = Agent("bot", "o0", ())
OPEN_AGENT = Agent("open", "o0", (), websocket_auth="none")
KEYS = st.text("abcdefgh_-0", min_size=16, max_size=20)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=4), st.data())
def test_a_key_opens_the_agents_of_its_organization_and_no_other(
    pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    organizations = {
        f"o{n}": Organization(f"o{n}", (public,), (private,), ())
        for n, (public, private) in enumerate(pairs)
    }
    agents = {f"a{n}": Agent(f"a{n}", f"o{n}", ()) for n in range(len(pairs))}
    catalog = Catalog(organizations, agents)
    known = st.sampled_from([key for pair in pairs for key in pair])
    key = data.draw(known | KEYS)
    private = data.draw(st.booleans())
    name = data.draw(st.sampled_from([*agents, "unknown"]))
    opened = [f"a{n}" for n, pair in enumerate(pairs) if key in (pair[1:] if private else pair)]
    authorization = [b"Bearer " + key.encode()]
    if name in opened:
        found = agent_for_key(catalog, name, authorization, private=private)
        assert found is agents[name]
        return
    with pytest.raises(Refusal) as refused:
        agent_for_key(catalog, name, authorization, private=private)
    assert refused.value.status == (404 if opened and name == "unknown" else 401)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_request_or_a_refusal(raw: bytes) -> None:
    try:
        request = parse_start(raw, TOKEN_AGENT)
    except Refusal as refusal:
        assert refusal.status in (400, 413)  # noqa: PT017
    else:
        assert request.over_http is (request.transport != "websocket")


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_a_body_comes_back_as_the_same_value(body: dict[str, object]) -> None:
    raw = json.dumps({"transport": "websocket", "body": body}).encode()
    try:
        request = parse_start(raw, TOKEN_AGENT)
    except Refusal as refusal:
        assert refusal.status == 413  # noqa: PT017
        return
    assert request.body is not None
    assert json.loads(base64.b64decode(request.body)) == body


@given(JSON)
def test_an_agent_without_tokens_takes_no_body(body: object) -> None:
    raw = json.dumps({"transport": "websocket", "body": body}).encode()
    if body is None:
        assert parse_start(raw, OPEN_AGENT) == StartRequest("websocket", None)
        return
    with pytest.raises(Refusal) as refused:
        parse_start(raw, OPEN_AGENT)
    assert refused.value.status == 400
