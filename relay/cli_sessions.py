"""`relay sessions`: asks a daemon's administration listener and prints what it says.

Plain `http.client` over TCP or a Unix socket; one request for one command,
bounded in time and size. What the daemon sends is data: control characters
never reach the terminal.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from relay.config import DEFAULT_FILE, AdminAccess, Bind, load_admin, parse_admin
from relay.errors import ConfigError, RelayError

__all__ = ["add_arguments", "session_id"]

STATES = ("reserved", "waiting", "active", "ended", "live", "all")
# The daemon answers from its store at once; longer means that it hangs.
TIMEOUT = 10.0
# A hundred thousand kept sessions, listed in full, with room.
MAX_ANSWER = 64 * 1024 * 1024
DEFAULT_LIMIT = 100
MAX_LIMIT = 100_000
COLUMNS = ("SESSION", "AGENT", "STATE", "TIME", "INSTANCE", "CAUSE")

Record = Mapping[str, Any]


class UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def add_arguments(
    sessions: argparse.ArgumentParser, add_config: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Adds list, show and stop, each with the options that lead to the daemon."""
    actions = sessions.add_subparsers(metavar="ACTION", required=True)
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
        add_config(action)
        action.add_argument(
            "--admin",
            metavar="URL",
            help="http://host:port or unix:/path instead of admin_bind of the configuration",
        )
        action.add_argument("--json", action="store_true", help="print the daemon's JSON")


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
    answer = _ask(arguments, environ, "GET", f"/sessions?{urlencode(given)}")
    records = answer.get("sessions")
    if not isinstance(records, list):
        raise RelayError("the daemon's answer has no list of sessions")
    if arguments.json:
        print(json.dumps(answer, indent=2))
        return 0
    now = datetime.now(UTC)
    for line in _aligned([COLUMNS, *(_row(record, now) for record in records)]):
        print(line)
    total = answer.get("total")
    if isinstance(total, int) and total > len(records):
        print(f"{len(records)} of {total} sessions; --limit shows more")
    return 0


def _show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    record = _ask(arguments, environ, "GET", f"/sessions/{quote(arguments.id, safe='')}")
    if arguments.json:
        print(json.dumps(record, indent=2))
        return 0
    for line in _aligned([(f"{name}:", _text(value)) for name, value in _flat(record)]):
        print(line)
    return 0


def _stop(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    answer = _ask(arguments, environ, "DELETE", f"/sessions/{quote(arguments.id, safe='')}")
    print(json.dumps(answer, indent=2) if arguments.json else f"{arguments.id} is being stopped")
    return 0


def _ask(
    arguments: argparse.Namespace, environ: Mapping[str, str], method: str, target: str
) -> dict[str, Any]:
    """The JSON object that the daemon answers; RelayError for every failure."""
    access = _access(arguments, environ)
    connection, shown = _connection(access.bind)
    headers = {"Accept": "application/json", "Connection": "close"}
    if access.token is not None:
        headers["Authorization"] = f"Bearer {access.token}"
    try:
        connection.request(method, target, headers=headers)
        response = connection.getresponse()
        status, body = response.status, response.read(MAX_ANSWER + 1)
    except (OSError, http.client.HTTPException) as error:
        raise RelayError(
            f"no daemon answers at {shown} ({_reason(error)}); is it running?"
        ) from None
    finally:
        connection.close()
    return _decoded(status, body, shown)


def _access(arguments: argparse.Namespace, environ: Mapping[str, str]) -> AdminAccess:
    """Where to ask and with what token: the configuration, `--admin` over its address."""
    file: Path | None = arguments.config
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    configured = None if file is None else load_admin(file, environ)
    if arguments.admin is not None:
        token = None if configured is None else configured.token
        return AdminAccess(bind=parse_admin(arguments.admin), token=token)
    if configured is None:
        raise ConfigError(
            f"no {DEFAULT_FILE} in this directory; say which daemon with --config FILE"
            " or --admin URL"
        )
    if configured.bind.kind == "tcp" and configured.bind.port == 0:
        raise ConfigError(
            "server.admin_bind has port 0; give the address that the daemon printed with --admin"
        )
    return configured


def _connection(bind: Bind) -> tuple[http.client.HTTPConnection, str]:
    """An unopened connection to a listener, and its address for people."""
    if bind.kind == "unix":
        return UnixConnection(bind.path), str(bind)
    # A wildcard listener is reached through loopback.
    loopback = "::1" if ":" in bind.host else "127.0.0.1"
    host = loopback if bind.is_wildcard else bind.host
    shown = Bind("tcp", host=host, port=bind.port)
    return http.client.HTTPConnection(host, bind.port, timeout=TIMEOUT), f"http://{shown}"


def _decoded(status: int, body: bytes, shown: str) -> dict[str, Any]:
    try:
        answer = json.loads(body) if len(body) <= MAX_ANSWER else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise RelayError(f"{shown} answered {status} without a JSON object; is it a relay daemon?")
    if status >= http.HTTPStatus.BAD_REQUEST:
        raise RelayError(_text(answer.get("error") or f"the daemon answered {status}"))
    return answer


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} seconds"
    text = error.strerror if isinstance(error, OSError) else None
    return (text or type(error).__name__).lower()


def _row(record: object, now: datetime) -> tuple[str, ...]:
    if not isinstance(record, dict):
        raise RelayError("the daemon's answer has a session that is no JSON object")
    names = ("sessionId", "agent", "state")
    named = tuple(_text(record.get(name)) for name in names)
    return (*named, _time(record, now), _text(record.get("instance")), _text(record.get("cause")))


def _time(record: Record, now: datetime) -> str:
    """How long the call took or has taken; for one that has not begun, how old it is."""
    if isinstance(seconds := record.get("durationSeconds"), int | float):
        return _span(seconds)
    since = record.get("startedAt") or record.get("createdAt")
    try:
        return _span((now - datetime.fromisoformat(str(since))).total_seconds())
    except (ValueError, TypeError):
        return "-"


def _span(seconds: float) -> str:
    """A duration in its two largest units: 42s, 3m07s, 1h05m."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def _flat(record: Record, prefix: str = "") -> list[tuple[str, object]]:
    """The members of a record, those of objects within as `outer.inner`."""
    rows: list[tuple[str, object]] = []
    for name, value in record.items():
        if isinstance(value, dict) and not prefix.count("."):
            rows += _flat(value, f"{prefix}{_text(name)}.")
        else:
            rows.append((f"{prefix}{_text(name)}", value))
    return rows


def _text(value: object) -> str:
    """A value for a terminal: `-` for none, no control characters."""
    if value is None or value == "":
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
