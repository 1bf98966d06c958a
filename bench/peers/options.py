"""What the programs of this package have in common: their options and their first line."""

from __future__ import annotations

import argparse

__all__ = ["MAX_MESSAGE", "parser", "say_listening"]

MAX_MESSAGE = 16 << 20  # as much as the origin takes in one frame


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options of every program."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--origin", required=True, metavar="HOST:PORT", help="where calls go")
    return made


def say_listening(port: int) -> None:
    """Tell the harness that, and where, connections are accepted."""
    print(f"listening on http://127.0.0.1:{port}", flush=True)
