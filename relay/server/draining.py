"""What drains on this node, kept in a file so that a new control process knows it too."""

from __future__ import annotations

__all__ = ["Draining"]

import contextlib
import os
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import trio

from relay.policy.drains import Drains, Order, kept, ordered
from relay.policy.interfaces import Log

# A file that is longer is not one of ours: see `policy.drains.MAX_DRAINED`.
MAX_FILE = 8 * 1024 * 1024


class Draining:
    """See the module.

    Args:
        path: of the file.
        hold_back: told which instances are given to nobody, at every change.

    Attributes:
        state: what drains now.
    """

    def __init__(self, path: Path, hold_back: Callable[[frozenset[str]], None], log: Log) -> None:
        self._path = path
        self._hold_back = hold_back
        self._log = log
        self._writing = trio.Lock()
        self._written = self.state = self._read()
        hold_back(self.state.instances)

    async def order(self, order: Order) -> bool:
        """Let something drain, or no longer, at once; whether that could be written down.

        Raises:
            Refusal: 409, too much drains already.
        """
        self._become(ordered(self.state, order))
        return await self._save()

    async def forget(self, agents: Collection[str], gone: Callable[[str], bool]) -> None:
        """Forget what is not configured any more; see `policy.drains.kept`."""
        self._become(kept(self.state, agents, gone))
        await self._save()

    async def wait_written(self) -> None:
        """Return when no order is being written down."""
        async with self._writing:
            pass

    def _become(self, state: Drains) -> None:
        before, self.state = self.state, state
        if state != before:
            agents, instances = sorted(state.agents), sorted(state.instances)
            self._log.event("drains", node=state.node, agents=agents, instances=instances)
            self._hold_back(state.instances)

    def _read(self) -> Drains:
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(MAX_FILE), type=Drains)
        except FileNotFoundError:
            return Drains()
        except (OSError, msgspec.DecodeError) as error:
            self._log.warning("drains_unread", error=str(error))
            return Drains()

    async def _save(self) -> bool:
        """Write what drains now, unless the file says so already."""
        async with self._writing:
            if self.state == self._written:
                return True
            state = self.state
            try:
                await trio.to_thread.run_sync(_write, self._path, state)
            except OSError as error:
                # Somebody may need to drain this node because its disk is full.
                self._log.warning("drains_unsaved", error=str(error))
                return False
            self._written = state
            return True


def _write(path: Path, state: Drains) -> None:
    """Replace the file whole, so that a crash leaves the old one or the new one."""
    new = path.with_suffix(".new")
    try:
        with new.open("wb") as file:
            file.write(msgspec.json.encode(state.shown()))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
