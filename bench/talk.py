"""How the harness and its worker processes take turns: one JSON object per line.

A worker says `ready`, waits for a line, works, says `done`, waits for a line and
says `result`. The harness takes its samples while the worker waits, so that
neither opening nor closing connections is counted. Without `--held` (by hand)
a worker waits for nothing.
"""

from __future__ import annotations

import json
import sys

__all__ = ["Talk"]


class Talk:
    """The worker's side.

    Args:
        held: wait for the harness at each turn.
    """

    def __init__(self, held: bool) -> None:
        self._held = held

    def turn(self, event: str, **fields: object) -> None:
        """Say something, then wait for a line; ends the process when the harness has gone."""
        self.say(event, **fields)
        if self._held and not sys.stdin.readline():
            sys.exit(1)

    def say(self, event: str, **fields: object) -> None:
        """Write one line to standard output; a worker by hand says only its result."""
        if self._held or event not in ("ready", "done"):
            print(json.dumps({"event": event, **fields}), flush=True)
