"""What the runtime directory knows of launched bots: a record and bounded logs for each.

A record is written before its process is started and once more with the pid, so that a
control process that is killed at any moment leaves enough to find the bot again. A bot
writes its output to its own file, not to a pipe: it goes on when nobody reads.
"""

from __future__ import annotations

__all__ = ["BotFiles", "Record", "launch_of"]

import contextlib
import os
from hashlib import sha256
from pathlib import Path

import msgspec

from relay.instances.process import Known
from relay.policy.catalog import Agent

# Logs of ended bots that are kept, per agent: the last calls of a busy hour.
KEEP_LOGS = 50
# What a report of a failed start quotes.
TAIL = 2000
MAX_RECORD = 64 * 1024


class Record(msgspec.Struct, frozen=True):
    """One launched bot.

    Attributes:
        id: marks its processes and names its files.
        launch: `launch_of` its agent; another one means that this bot is outdated.
        process: None until it was started.
    """

    id: str
    agent: str
    port: int
    launch: str
    process: Known | None = None


def launch_of(agent: Agent) -> str:
    """Names the way in which an agent's bots are started, until it is changed."""
    parts = (agent.command, agent.cwd, agent.env, agent.ready_path)
    return sha256(msgspec.json.encode(parts)).hexdigest()


class BotFiles:
    """The folder of one daemon's launched bots.

    Args:
        folder: made, mode 0700, when the first bot is started.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, record: Record) -> None:
        """Raises OSError when the folder can't be written."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._folder / f"{record.id}.new"
        fresh.write_bytes(msgspec.json.encode(record))
        fresh.rename(self._record(record))

    def remove(self, record: Record) -> None:
        """Forget a bot that is gone; its log stays, and the oldest such logs are removed."""
        with contextlib.suppress(OSError):
            self._record(record).unlink()
            self._forget_old(record.agent)

    def records(self) -> list[Record]:
        """Every bot that was not seen to its end; what can't be read is passed over."""
        for path in self._folder.glob("*.new"):
            path.unlink(missing_ok=True)  # a control process died while it wrote it
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                with path.open("rb") as file:
                    found.append(msgspec.json.decode(file.read(MAX_RECORD), type=Record))
            except (OSError, msgspec.MsgspecError):
                continue
        return found

    def log(self, record: Record) -> Path:
        """Where the bot's output goes; the part before it is in the same name with `.1`."""
        return self._folder / f"{record.agent}.{record.id}.log"

    def open_log(self, record: Record) -> int:
        """A descriptor for the bot's output; OSError when there can be none."""
        # Appending: after `trim` the bot goes on at the new end.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.log(record), flags, 0o600)

    def is_long(self, record: Record, most: int) -> bool:
        """Whether its log has more than `most` bytes."""
        try:
            return self.log(record).stat().st_size > most
        except OSError:
            return False

    def trim(self, record: Record, most: int) -> None:
        """Cut a log that has grown over `most` bytes; its last part becomes the `.1` file."""
        path = self.log(record)
        if self.is_long(record, most):
            with contextlib.suppress(OSError):
                path.with_suffix(".log.1").write_bytes(_last(path, most))
                os.truncate(path, 0)

    def tail(self, record: Record) -> str:
        """The end of the bot's output, for a report."""
        try:
            return _last(self.log(record), TAIL).decode(errors="replace").strip()
        except OSError:
            return ""

    def _record(self, record: Record) -> Path:
        return self._folder / f"{record.id}.json"

    def _forget_old(self, agent: str) -> None:
        logs = [
            path
            for path in self._folder.glob(f"{agent}.*.log")
            if not (self._folder / f"{path.name.split('.')[1]}.json").exists()
        ]
        for path in sorted(logs, key=lambda each: each.stat().st_mtime)[:-KEEP_LOGS]:
            path.unlink(missing_ok=True)
            path.with_suffix(".log.1").unlink(missing_ok=True)


def _last(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        return file.read(most)
