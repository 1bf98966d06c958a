"""Identifiers are random UUIDs in their usual spelling, and callers' own are short and safe."""

from __future__ import annotations

import uuid

import pytest

from relay.policy.routes import is_session_id
from relay.server.identifiers import POOL_BYTES, fresh_id, is_request_id, random_bytes


def test_an_identifier_is_a_random_uuid() -> None:
    for text in {fresh_id() for _ in range(200)}:
        read = uuid.UUID(text)
        assert (str(read), read.version, read.variant) == (text, 4, uuid.RFC_4122)
        assert is_session_id(text)


def test_none_comes_twice() -> None:
    assert len({fresh_id() for _ in range(200)}) == 200


def test_no_random_byte_is_given_out_twice() -> None:
    pieces = [random_bytes(count) for count in (16, 24, POOL_BYTES) * 100]
    assert [len(piece) for piece in pieces] == [16, 24, POOL_BYTES] * 100
    beginnings = {piece[:16] for piece in pieces}
    assert len(beginnings) == len(pieces)


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        (b"a", True),
        (b"x" * 128, True),
        (b"A-z0:9@/+=._", True),
        (b"", False),
        (b"x" * 129, False),
        (b"a b", False),
        (b'a"', False),
        (b"\xe9", False),
    ],
)
def test_what_of_a_caller_is_an_identifier(given: bytes, safe: bool) -> None:
    assert is_request_id(given) is safe
