"""`relay sessions`: asks a daemon's administration listener and prints what it says.

Plain `http.client` over TCP or a Unix socket; one request for one command,
bounded in time and size. What the daemon sends is data: control characters
never reach the terminal.
"""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from relay.cli_admin import Record, add_where, aligned, ask, span, text
from relay.errors import RelayError

__all__ = ["add_arguments", "session_id"]

STATES = ("reserved", "waiting", "active", "ended", "live", "all")
DEFAULT_LIMIT = 100
MAX_LIMIT = 100_000
# Figures of a direction are as deep as records go; what is deeper is shown as JSON.
MAX_NESTED = 2
COLUMNS = ("SESSION", "AGENT", "STATE", "TIME", "INSTANCE", "CAUSE")


def add_arguments(
    sessions: argparse.ArgumentParser, add_config: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Adds list, show and stop, each with the options that lead to the daemon."""
    actions = sessions.add_subparsers(metavar="list|show|stop", required=True)
    listing = actions.add_parser("list", help="sessions, newest first")
    listing.add_argument("--state", choices=STATES, default="live", help="default: live")
    listing.add_argument("--agent", metavar="NAME", help="only sessions of this agent")
    listing.add_argument(
        "--limit", type=_limit, default=DEFAULT_LIMIT, metavar="N", help="default: %(default)s"
    )
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", help="everything about one session")
    show.set_defaults(run=_show)
    stop = actions.add_parser("stop", help="end one session")
    stop.set_defaults(run=_stop)
    for action in (show, stop):
        action.add_argument("id", metavar="ID", type=session_id)
    for action in (listing, show, stop):
        add_where(action, add_config)


def session_id(text: str) -> str:
    """A session id in its one spelling; argparse's error for anything else."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError("expected a session id (a UUID)") from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_LIMIT):
        raise argparse.ArgumentTypeError(f"expected an integer from 1 to {MAX_LIMIT}")
    return int(text)


def _list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    query = {"state": arguments.state, "agent": arguments.agent, "limit": arguments.limit}
    given = {name: value for name, value in query.items() if value is not None}
    answer = ask(arguments, environ, "GET", f"/sessions?{urlencode(given)}")
    records = answer.get("sessions")
    if not isinstance(records, list):
        raise RelayError("the daemon's answer has no list of sessions")
    if arguments.json:
        print(json.dumps(answer, indent=2))
        return 0
    now = datetime.now(UTC)
    for line in aligned([COLUMNS, *(_row(record, now) for record in records)]):
        print(line)
    total = answer.get("total")
    if isinstance(total, int) and total > len(records):
        print(f"{len(records)} of {total} sessions; --limit shows more")
    return 0


def _show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    record = ask(arguments, environ, "GET", f"/sessions/{quote(arguments.id, safe='')}")
    if arguments.json:
        print(json.dumps(record, indent=2))
        return 0
    for line in aligned([(f"{name}:", text(value)) for name, value in _flat(record)]):
        print(line)
    return 0


def _stop(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    answer = ask(arguments, environ, "DELETE", f"/sessions/{quote(arguments.id, safe='')}")
    print(json.dumps(answer, indent=2) if arguments.json else f"{arguments.id} is being stopped")
    return 0


def _row(record: object, now: datetime) -> tuple[str, ...]:
    if not isinstance(record, dict):
        raise RelayError("the daemon's answer has a session that is no JSON object")
    names = ("sessionId", "agent", "state")
    named = tuple(text(record.get(name)) for name in names)
    return (*named, _time(record, now), text(record.get("instance")), text(record.get("cause")))


def _time(record: Record, now: datetime) -> str:
    """How long the call took or has taken; for one that has not begun, how old it is."""
    if isinstance(seconds := record.get("durationSeconds"), int | float):
        return span(seconds)
    since = record.get("startedAt") or record.get("createdAt")
    try:
        return span((now - datetime.fromisoformat(str(since))).total_seconds())
    except (ValueError, TypeError):
        return "-"


def _flat(record: Record, prefix: str = "") -> list[tuple[str, object]]:
    """The members of a record, those of objects within as `outer.inner`."""
    rows: list[tuple[str, object]] = []
    for name, value in record.items():
        if isinstance(value, dict) and prefix.count(".") < MAX_NESTED:
            rows += _flat(value, f"{prefix}{text(name)}.")
        else:
            rows.append((f"{prefix}{text(name)}", value))
    return rows
