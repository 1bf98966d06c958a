"""`relay upgrade`: another process takes the place of a running daemon's."""

from __future__ import annotations

__all__ = ["add_arguments"]

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any

from relay.cli_admin import Record, add_where, ask, text
from relay.errors import RelayError

# The daemon gives up by itself before: it waits 30 s for the new process to be ready and
# 15 s until it serves.
TIMEOUT = 60.0


def add_arguments(
    upgrade: argparse.ArgumentParser, add_config: Callable[[argparse.ArgumentParser], None]
) -> None:
    """The options of the command."""
    add_where(upgrade, add_config)
    upgrade.set_defaults(run=_upgrade)


def _upgrade(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    answer = ask(arguments, environ, "POST", "/upgrade", timeout=TIMEOUT)
    if arguments.json:
        print(json.dumps(answer))
        return 0
    print(f"{_named(answer.get('old'))} was replaced by {_named(answer.get('new'))}")
    return 0


def _named(process: Any) -> str:
    if not isinstance(process, dict):
        raise RelayError("the daemon's answer names no processes; is it of another version?")
    known: Record = process
    return f"relay {text(known.get('version'))} (pid {text(known.get('pid'))})"
