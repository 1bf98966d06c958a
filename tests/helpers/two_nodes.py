"""Two daemons on one store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.daemon import Daemon, config_text, end_all, start_daemon


def second_config(config: str) -> str:
    """The configuration of a daemon in a folder within the first one's, on the same store."""
    return config.replace("sqlite:relay.db", "sqlite:../relay.db")


@contextmanager
def two_nodes(
    folder: Path, bots: list[str], agents: str = "", limits: str = ""
) -> Iterator[tuple[Daemon, Daemon]]:
    """Both, and at the end both ended, whoever was killed meanwhile."""
    config = config_text(bots, agents, f"close_timeout = 1\nnode_timeout = 1\n{limits}")
    other = folder / "other"
    other.mkdir()
    nodes = []
    try:
        nodes.append(start_daemon(folder, config))
        nodes.append(start_daemon(other, second_config(config)))
        yield nodes[0], nodes[1]
    finally:
        for node in nodes:
            end_all(node)
