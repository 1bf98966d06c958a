"""What modules with a daemon of their own have in common; any of them may have its own instead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.daemon import Daemon
from tests.helpers.scripted_bot import ScriptedBot, scripted_bot
from tests.helpers.scripted_http import SessionBot, session_on


@pytest.fixture(scope="module")
def bot() -> Iterator[ScriptedBot]:
    """A bot that does what the test says."""
    with scripted_bot() as bot:
        yield bot


@pytest.fixture
def held(daemon: Daemon, bot: ScriptedBot) -> Iterator[SessionBot]:
    """A session on this bot, which is the only one of the module's daemon."""
    with session_on(daemon, bot) as held:
        yield held
