"""What a bot may say of itself, and what is not taken for it."""

from __future__ import annotations

import json

import msgspec
import pytest

from relay.policy.capabilities import MAX_CAPABILITIES, parse


def body(entries: object, version: object = 1) -> bytes:
    return json.dumps({"version": version, "capabilities": entries}).encode()


def test_the_form_of_the_base_image() -> None:
    entries = {
        "transport.websocket": {"available": True},
        "transport.daily": {"available": False, "reason": "no key"},
        "whatsapp": {"available": True, "value": {"numbers": [1, 2]}},
    }
    found = parse(body(entries))
    assert json.loads(msgspec.json.encode(found)) == entries
    assert parse(body({})) == {}
    assert parse(body({"later": {"available": True, "more": 1}})) is not None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"ok",
        b"[]",
        b"\xff",
        b"[" * MAX_CAPABILITIES,
        body({}, version=2),
        body({}, version="1"),
        body([]),
        body({"transport.daily": True}),
        body({"transport.daily": {"available": "yes"}}),
        body({"transport.daily": {}}),
        body({str(n): {"available": True} for n in range(65)}),
        body({"long": {"available": True, "value": "x" * MAX_CAPABILITIES}}),
    ],
    ids=lambda each: f"{each[:40]!r}",
)
def test_everything_else_says_nothing(answer: bytes) -> None:
    assert parse(answer) is None
