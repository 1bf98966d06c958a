"""Every test of the pump runs with each poller."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.pollers import POLLERS
from tests.helpers.pump import Rig, rig


@pytest.fixture(name="poller", params=POLLERS)
def _poller(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(name="r")
def _rig(poller: str) -> Iterator[Rig]:
    with rig(poller) as made:
        yield made
