"""The start of one bot: its port, its record, its process."""

from __future__ import annotations

__all__ = ["free_port", "launch"]

import contextlib
import os
import socket
from collections.abc import Callable, Mapping

import msgspec

from relay.instances.bot import HOST
from relay.instances.files import BotFiles, Record
from relay.instances.process import Process
from relay.policy.catalog import Agent


def free_port(is_taken: Callable[[str], bool]) -> int:
    """A port that is free now; a bot that loses the race for it is started again.

    Args:
        is_taken: whether a base URL is not to be used, though nobody listens there.
    """
    while True:
        with socket.socket() as sock:
            sock.bind((HOST, 0))
            port: int = sock.getsockname()[1]
        if not is_taken(f"http://{HOST}:{port}"):
            return port


def launch(
    record: Record, agent: Agent, environment: Mapping[str, str], files: BotFiles
) -> tuple[Record, Process]:
    """Write the bot's record, start its process, and write the record with it.

    Raises:
        OSError: it can't be started; the record may have been written.
    """
    files.write(record)
    log = files.open_log(record)
    try:
        process = Process.start(
            record.id,
            [word.replace("{port}", str(record.port)) for word in agent.command],
            agent.cwd,
            {**environment, **dict(agent.env), "PORT": str(record.port)},
            log,
        )
    finally:
        os.close(log)
    record = msgspec.structs.replace(record, process=process.known)
    with contextlib.suppress(OSError):  # without the pid it is found by its mark
        files.write(record)
    return record, process
