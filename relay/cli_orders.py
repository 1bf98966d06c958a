"""`relay drain` and `relay reload`: orders to a running daemon."""

from __future__ import annotations

__all__ = ["add_arguments"]

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from relay.cli_admin import Record, Refused, add_where, ask, text
from relay.errors import ConfigError, RelayError

# Between two looks at what is left.
EVERY = 1.0
CONFLICT = 409


def add_arguments(
    drain: argparse.ArgumentParser,
    reload: argparse.ArgumentParser,
    add_config: Callable[[argparse.ArgumentParser], None],
) -> None:
    """The options of both commands."""
    what = drain.add_mutually_exclusive_group()
    what.add_argument("--agent", metavar="NAME", help="this agent alone, not the whole node")
    what.add_argument("--instance", metavar="URL", help="this instance alone")
    how = drain.add_mutually_exclusive_group()
    how.add_argument("--off", action="store_true", help="take new sessions again")
    how.add_argument(
        "--wait",
        type=_seconds,
        nargs="?",
        const=math.inf,
        metavar="SECONDS",
        help="until nothing is left there, or for so long; default: without end",
    )
    for command, run in ((drain, _drain), (reload, _reload)):
        add_where(command, add_config)
        command.set_defaults(run=run)


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError("expected a number of seconds")
    return seconds


def _drain(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    order: dict[str, Any] = {"on": not arguments.off}
    if arguments.agent is not None:
        order["agent"] = arguments.agent
    elif arguments.instance is not None:
        order["instance"] = arguments.instance
    else:
        order["node"] = True
    answer = ask(arguments, environ, "POST", "/drain", order)
    print(json.dumps(answer) if arguments.json else "\n".join(_drains(answer)), flush=True)
    if not answer.get("kept"):
        print("relay: this could not be written down: a restart forgets it", file=sys.stderr)
    if arguments.wait is not None:
        _wait(arguments, environ, arguments.wait)
    return 0


def _drains(answer: Record) -> list[str]:
    """A line for each thing that drains."""
    named = [("agent", name) for name in answer.get("agents") or ()]
    named += [("instance", url) for url in answer.get("instances") or ()]
    lines = ["draining: this node"] if answer.get("node") else []
    lines += [f"draining: {kind} {text(name)}" for kind, name in named]
    return lines or ["nothing drains"]


def _wait(arguments: argparse.Namespace, environ: Mapping[str, str], seconds: float) -> None:
    """Return when nothing is left, raise RelayError when the time is over first."""
    end, before = time.monotonic() + seconds, -1
    while True:
        left = _left(arguments, ask(arguments, environ, "GET", "/status"))
        if left != before and not arguments.json:
            print(f"{left} left", flush=True)
        if not left:
            return
        rest = end - time.monotonic()
        if rest <= 0:
            raise RelayError(f"{left} left after {seconds:g} seconds")
        before = left
        time.sleep(min(EVERY, rest))


def _left(arguments: argparse.Namespace, status: Record) -> int:
    """Sessions, and callers in line, of what the command has named."""
    queue, instances = status.get("queue") or (), status.get("instances") or ()
    if arguments.agent is not None:
        of_agent = [each for each in instances if each.get("agent") == arguments.agent]
        waiting = len([each for each in queue if each.get("agent") == arguments.agent])
        return waiting + sum(int(each.get("sessions", 0)) for each in of_agent)
    if arguments.instance is not None:
        url = arguments.instance.rstrip("/")
        return sum(
            int(each.get("sessions", 0)) for each in instances if str(each.get("url")) == url
        )
    return int(status.get("callsTotal", 0)) + len(queue)


def _reload(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    try:
        answer = ask(arguments, environ, "POST", "/reload", {})
    except Refused as refused:
        if refused.status == CONFLICT:
            raise ConfigError(str(refused)) from None
        raise
    changed = answer.get("changed") or []
    if arguments.json:
        print(json.dumps(answer))
    else:
        print("\n".join(f"changed: {text(key)}" for key in changed) or "nothing has changed")
    return 0
