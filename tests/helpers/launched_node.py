"""A daemon with launched bots that may be killed and started anew over the same files."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.daemon import Daemon, start_daemon
from tests.helpers.ends import kill_control, nothing_is_held, restart
from tests.helpers.launched import bots_of, ended, launching_config, naughty, wait_no_bots

PATIENT = "attach_timeout = 20"


class Node:
    """One daemon after the other, with the bots of each found by the next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = folder / "gate"
        self.daemon: Daemon | None = None

    def start(self, *faults: str, more: str = "") -> Daemon:
        """The first control process, or the next one, with perhaps another configuration."""
        config = launching_config(self.folder, naughty(*faults), f"{PATIENT}\n{more}")
        return self.again(config)

    def again(self, config: str | None = None) -> Daemon:
        if self.daemon is None:
            assert config is not None
            self.daemon = start_daemon(self.folder, config)
        else:
            self.daemon = restart(self.daemon, config)
        return self.daemon


@contextmanager
def open_node(folder: Path) -> Iterator[Node]:
    """Nothing is held when the test has ended, and nothing is left when the daemon has."""
    node = Node(folder)
    try:
        yield node
        assert node.daemon is not None
        with ended(node.daemon):
            if node.daemon.process.popen.poll() is None:
                nothing_is_held(node.daemon)
    finally:
        if node.daemon is not None:
            clean_up(node.daemon)


def clean_up(daemon: Daemon) -> None:
    if daemon.process.popen.poll() is None:
        kill_control(daemon)
    with ended(daemon):
        for pid in bots_of(daemon):
            os.kill(pid, signal.SIGKILL)
        wait_no_bots(daemon)
