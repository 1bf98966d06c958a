"""Daemons that the tests of a module share, and daemons that outlive their control process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.helpers.daemon import Daemon, end_all, running_daemon
from tests.helpers.ends import ends_cleanly, nothing_is_held, restart
from tests.helpers.wire import keeps_secrets

# As many sessions on one bot as all tests of a module leave there.
MANY = "sessions_per_instance = 1000"


@contextmanager
def shared_daemon(
    folders: pytest.TempPathFactory,
    bots: list[str],
    agent: str = "",
    limits: str = "",
    server: str = "",
    secrets: tuple[str, ...] = (),
) -> Iterator[Daemon]:
    """A daemon in a folder of its own; after the tests no secret is in its output.

    Args:
        secrets: beside the keys, which every daemon has to keep.
    """
    with running_daemon(folders.mktemp("relay"), bots, agent, limits, server) as daemon:
        yield daemon
        keeps_secrets(daemon, *secrets)


class Mortal:
    """A daemon that may be killed and started anew over the same files."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def again(self, config: str | None = None) -> Daemon:
        """The next control process, with perhaps another configuration."""
        self.daemon = restart(self.daemon, config)
        return self.daemon

    @contextmanager
    def ended(self) -> Iterator[None]:
        """Ended when the block ends, its pumps too, whichever process it is by then."""
        try:
            yield
        finally:
            end_all(self.daemon)

    def leaves_nothing(self) -> None:
        """It holds nothing, and ends as it should."""
        nothing_is_held(self.daemon)
        self.daemon.process.end()
        ends_cleanly(self.daemon)
