"""`relay agents` and `relay top`: how a daemon stands, once or again and again."""

from __future__ import annotations

__all__ = ["add_arguments"]

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping

from relay.cli_admin import Record, add_where, aligned, ask, span, text
from relay.errors import RelayError

AGENTS = ("AGENT", "ORGANIZATION", "ACTIVE", "WAITING", "QUEUE", "RESERVED", "STARTABLE", "STATE")
INSTANCES = ("INSTANCE", "AGENT", "STATE", "SESSIONS")
CALLS = ("SESSION", "AGENT", "FOR", "CALLER", "QUIET", "GAP", "BOT", "QUIET", "GAP", "HELD")
# A direction of which messages have come and now none for so long, in seconds, is marked.
STALL = 1.0
# Between two pictures: what a person can follow.
EVERY = 1.0
# Lines that are no call: heading, totals, a blank one, columns, what is left out.
OTHER_LINES = 6
# Home and clear to the end (ECMA-48: CUP, ED), and the same with everything.
HOME, BELOW = "\x1b[H", "\x1b[J"


def add_arguments(
    agents: argparse.ArgumentParser,
    top: argparse.ArgumentParser,
    add_config: Callable[[argparse.ArgumentParser], None],
) -> None:
    """The options of both commands."""
    for command, run in ((agents, _agents), (top, _top)):
        add_where(command, add_config)
        command.set_defaults(run=run)
    top.add_argument("--once", action="store_true", help="one picture, then the end")


def _agents(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    status = ask(arguments, environ, "GET", "/status")
    if arguments.json:
        shown = {name: status.get(name) for name in ("agents", "instances")}
        print(json.dumps(shown, indent=2))
        return 0
    rows = [_agent(agent) for agent in _list(status, "agents")]
    lines = aligned([AGENTS, *rows])
    instances = [
        tuple(text(each.get(name)) for name in ("url", "agent", "state", "sessions"))
        for each in _list(status, "instances")
    ]
    print("\n".join([*lines, "", *aligned([INSTANCES, *instances])]))
    return 0


def _agent(agent: Record) -> tuple[str, ...]:
    names = ("name", "organization", "active", "waiting", "queue", "reserved", "startable")
    state = "draining" if agent.get("draining") else "takes calls"
    return (*(text(agent.get(name)) for name in names), state)


def _top(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    before: Record = {}
    steady = not arguments.once and not arguments.json and sys.stdout.isatty()
    while True:
        status = ask(arguments, environ, "GET", "/status")
        if arguments.json:
            print(json.dumps(status), flush=True)
        else:
            size = shutil.get_terminal_size()
            lines = picture(status, before, size.lines if steady else None)
            shown = "\n".join(line[: size.columns] if steady else line for line in lines)
            print(f"{HOME}{BELOW}{shown}" if steady else shown, flush=True)
        if arguments.once:
            return 0
        before = status
        time.sleep(EVERY)


def picture(status: Record, before: Record, most: int | None) -> list[str]:
    """One picture of a daemon's live calls, those first that have been quiet for longest.

    Args:
        before: the status of the picture before, for rates; empty for the first one.
        most: lines; None for as many as there are.
    """
    calls = sorted(_list(status, "calls"), key=lambda call: -_quiet(call))
    room = len(calls) if most is None else max(1, most - OTHER_LINES)
    earlier = {call["sessionId"]: call for call in _list(before, "calls")} if before else {}
    rows = [_call(call, earlier.get(call.get("sessionId"))) for call in calls[:room]]
    reasons = ", ".join(map(text, status.get("reasons") or [])) or "takes new calls"
    pumps = _list(status, "pumps")
    total = status.get("callsTotal") or 0
    longest = max((pump.get("longestTurn", 0.0) for pump in pumps), default=0.0)
    heading = [
        f"{text(status.get('publicUrl'))}  up {span(_age(status))}  {reasons}",
        f"{text(total)} call{'s' * (total != 1)}, {len(_list(status, 'queue'))} in the queue,"
        f" {len(pumps)} pump{'s' * (len(pumps) != 1)}, longest turn {longest * 1000:.1f} ms",
        "",
    ]
    left = [f"{total - len(rows)} calls more"] if total > len(rows) else []
    return [*heading, *aligned([CALLS, *rows]), *left]


def _call(call: Record, before: Record | None) -> tuple[str, ...]:
    sides = []
    held = 0.0
    for name in ("client", "bot"):
        side = call.get(name, {})
        held += side.get("heldTime", 0.0)
        sides += [_rate(call, before, name), _silence(side), f"{side.get('largestGap', 0.0):.3f}s"]
    shown = (text(call.get("sessionId")), text(call.get("agent")), span(call.get("seconds", 0)))
    return (*shown, *sides, f"{held:.3f}s")


def _rate(call: Record, before: Record | None, side: str) -> str:
    """Messages per second since the picture before, or since the start."""
    seconds, count = call.get("seconds", 0.0), call.get(side, {}).get("messages", 0)
    if before is not None:
        seconds -= before.get("seconds", 0.0)
        count -= before.get(side, {}).get("messages", 0)
    return f"{count / seconds:.0f}/s" if seconds > 0 else "-"


def _silence(side: Record) -> str:
    quiet = side.get("quiet", 0.0)
    return f"!{quiet:.1f}s" if side.get("messages") and quiet > STALL else f"{quiet:.1f}s"


def _quiet(call: Record) -> float:
    side = call.get("client", {})
    return float(side.get("quiet", 0.0)) if side.get("messages") else 0.0


def _age(status: Record) -> float:
    return float(status.get("now", 0.0)) - float(status.get("startedAt", 0.0))


def _list(status: Record, name: str) -> list[Record]:
    found = status.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise RelayError(f"the daemon's answer has no list of {name}")
    return found
