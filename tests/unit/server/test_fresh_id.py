"""Identifiers are random UUIDs in their usual spelling."""

from __future__ import annotations

import uuid

from relay.policy.routes import is_session_id
from relay.server.identifiers import fresh_id


def test_an_identifier_is_a_random_uuid() -> None:
    for text in {fresh_id() for _ in range(200)}:
        read = uuid.UUID(text)
        assert (str(read), read.version, read.variant) == (text, 4, uuid.RFC_4122)
        assert is_session_id(text)


def test_none_comes_twice() -> None:
    assert len({fresh_id() for _ in range(200)}) == 200
