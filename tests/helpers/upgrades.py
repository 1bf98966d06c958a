"""Daemons that are restarted in place, and who calls them meanwhile without a pause."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.daemon import (
    PATIENCE,
    PUBLIC_KEY,
    Daemon,
    end_pumps,
    pids_with,
    start_daemon,
    wait_until,
)
from tests.helpers.ends import is_quiet
from tests.helpers.wire import Wire, request

START_BODY = b'{"transport":"websocket"}'


def control_pid(daemon: Daemon) -> int:
    """The process that is the node now."""
    return int((daemon.folder / "run" / "control.lock").read_text().splitlines()[0])


def controls(daemon: Daemon) -> list[int]:
    """Every control process of this daemon, those too that get ready or finish."""
    return [pid for pid in pids_with(str(daemon.config)) if not is_zombie(pid)]


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def upgrade(daemon: Daemon) -> Any:
    """Restart in place; what the old process says of both."""
    answer = daemon.request("POST", "/upgrade", admin=True)
    assert answer.status == 200, answer
    said = answer.json()
    assert said["new"]["pid"] == control_pid(daemon)
    return said


def upgrade_by_signal(daemon: Daemon) -> int:
    """The same with SIGUSR2; the new process's pid."""
    old = control_pid(daemon)
    os.kill(old, signal.SIGUSR2)
    wait_until(lambda: control_pid(daemon) != old, "another process is the node")
    return control_pid(daemon)


def wait_alone(daemon: Daemon) -> None:
    """The old process has finished and left."""
    wait_until(lambda: len(controls(daemon)) == 1, "one control process is left")


def end_node(daemon: Daemon) -> None:
    """End whatever control processes there are, and see that everything goes."""
    for pid in controls(daemon):
        try:
            os.kill(pid, signal.SIGINT)
        except ProcessLookupError:
            pass
    wait_until(lambda: not controls(daemon), "the daemon ends")
    wait_until(lambda: not daemon.pump_pids(), "its pumps end")
    is_quiet(daemon)


@contextmanager
def upgradable(folder: Path, config: str) -> Iterator[Daemon]:
    """A daemon that may be another process when the block ends."""
    daemon = start_daemon(folder, config)
    try:
        yield daemon
        end_node(daemon)
    finally:
        for pid in controls(daemon):
            os.kill(pid, signal.SIGKILL)
        if daemon.process.popen.poll() is None:
            daemon.process.popen.wait(PATIENCE)
        end_pumps(daemon)


@dataclass
class Prober:
    """Opens connections and asks for sessions, one after the other, until the block ends.

    Attributes:
        refused: connections that were refused, broken off, or not answered as they should be.
        started: answers 200.
        slowest: seconds that the slowest answer took.
    """

    daemon: Daemon
    refused: list[str] = field(default_factory=list)
    started: int = 0
    slowest: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._probe)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(PATIENCE)

    def _probe(self) -> None:
        asked = request(
            "POST",
            "/v1/public/probed/start",
            f"Authorization: Bearer {PUBLIC_KEY}",
            f"Content-Length: {len(START_BODY)}",
            body=START_BODY,
        )
        while not self._over.is_set():
            begun = time.monotonic()
            try:
                with Wire(self.daemon.port) as wire:
                    # A second request on the same connection, which may change hands between.
                    for _ in range(2):
                        answer = wire.ask(asked)
                        if answer.status != 200:
                            self.refused.append(f"{answer.status} {answer.body!r}")
                        self.started += 1
            except (OSError, ValueError) as error:
                self.refused.append(repr(error))
            self.slowest = max(self.slowest, time.monotonic() - begun)
