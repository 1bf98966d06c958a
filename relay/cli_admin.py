"""Asking a running daemon's administration, and showing its answers in a terminal."""

from __future__ import annotations

__all__ = ["Record", "Refused", "add_where", "aligned", "ask", "span", "text"]

import argparse
import http.client
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from relay.config import DEFAULT_FILE, AdminAccess, Bind, load_admin, parse_admin
from relay.errors import ConfigError, RelayError

# The daemon answers from its store at once; longer means that it hangs.
TIMEOUT = 10.0
# A hundred thousand kept sessions, listed in full, with room.
MAX_ANSWER = 64 * 1024 * 1024

Record = Mapping[str, Any]


class Refused(RelayError):
    """The daemon has said no; the text is its reason, of one line or several."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def add_where(
    action: argparse.ArgumentParser, add_config: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Adds the options that lead to the daemon, and `--json`."""
    add_config(action)
    action.add_argument(
        "--admin",
        metavar="URL",
        help="http://host:port or unix:/path instead of admin_bind of the configuration",
    )
    action.add_argument("--json", action="store_true", help="print the daemon's JSON")


def ask(
    arguments: argparse.Namespace,
    environ: Mapping[str, str],
    method: str,
    target: str,
    body: object = None,
    timeout: float = TIMEOUT,
) -> dict[str, Any]:
    """The JSON object that the daemon answers.

    Args:
        body: sent as JSON unless it is None.
        timeout: seconds that the daemon may take.

    Raises:
        Refused: the answer is a refusal.
        RelayError: nobody answers, or not as a daemon does.
    """
    access = _access(arguments, environ)
    connection, shown = _connection(access.bind)
    connection.timeout = timeout
    headers = {"Accept": "application/json", "Connection": "close"}
    if access.token is not None:
        headers["Authorization"] = f"Bearer {access.token}"
    try:
        content = None
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body), "application/json"
        connection.request(method, target, content, headers)
        response = connection.getresponse()
        status, body = response.status, response.read(MAX_ANSWER + 1)
    except (OSError, http.client.HTTPException) as error:
        raise RelayError(
            f"no daemon answers at {shown} ({_reason(error, timeout)}); is it running?"
        ) from None
    finally:
        connection.close()
    return _decoded(status, body, shown, access)


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


def _decoded(status: int, body: bytes, shown: str, access: AdminAccess) -> dict[str, Any]:
    try:
        answer = json.loads(body) if len(body) <= MAX_ANSWER else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise RelayError(f"{shown} answered {status} without a JSON object; is it a relay daemon?")
    if status >= http.HTTPStatus.BAD_REQUEST:
        raise Refused(status, _refusal(status, answer, shown, access))
    return answer


def _refusal(status: int, answer: Record, shown: str, access: AdminAccess) -> str:
    """Why a daemon has said no, for who sits at a terminal."""
    if status == http.HTTPStatus.UNAUTHORIZED:
        if access.token is None:
            return f"{shown} asks for the admin_token; name the daemon's file with --config FILE"
        return f"{shown} does not take the admin_token of the configuration"
    reason = str(answer.get("error") or f"the daemon answered {status}")
    if status == http.HTTPStatus.NOT_FOUND and answer.get("phase") == "route":
        reason += f"; is {shown} the address of admin_bind?"
    return "\n".join(map(text, reason.splitlines()))


def _reason(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} seconds"
    said = error.strerror if isinstance(error, OSError) else None
    return (said or type(error).__name__).lower()


def span(seconds: float) -> str:
    """A duration in its two largest units: 42s, 3m07s, 1h05m."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def text(value: object) -> str:
    """A value for a terminal: `-` for none, no control characters."""
    if value is None or value == "":
        return "-"
    shown = value if isinstance(value, str) else json.dumps(value)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
