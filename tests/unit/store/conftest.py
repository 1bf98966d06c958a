"""Stores on a file: two nodes on one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store.sqlite import SQLiteStore

# A lock that is held on purpose is waited for no longer than a test can bear.
BUSY_TIMEOUT = 0.05


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, "node-1", busy_timeout=BUSY_TIMEOUT)
    yield store
    store.close()


@pytest.fixture
def other(path: Path) -> Iterator[SQLiteStore]:
    """Another node on the same file."""
    store = SQLiteStore(path, "node-2", busy_timeout=BUSY_TIMEOUT)
    yield store
    store.close()
