"""Runs conformance cases against whatever listens on a port in front of a recording origin."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.conformance import PROBE, SMUGGLED, Case, Seen
from tests.helpers.daemon import PATIENCE, PUBLIC_KEY, Daemon, running_daemon, wait_until
from tests.helpers.recording_origin import RecordingOrigin, recording_origin
from tests.helpers.strict_http import Message

KEY = b"Authorization: Bearer " + PUBLIC_KEY.encode() + b"\r\n"
RECEIVE = 1 << 16
# What is between two programs and not between client and bot (RFC 9110 section 7.6.1).
BETWEEN = (b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade",
           b"proxy-authorization", b"proxy-authenticate")  # fmt: skip


@dataclass
class Stand:
    """A daemon, a session on its only bot, and that bot."""

    daemon: Daemon
    origin: RecordingOrigin
    session: str
    _seen: int = 0

    @property
    def base(self) -> bytes:
        return f"/v1/public/bot/sessions/{self.session}".encode()

    def line(self, request_id: bytes) -> dict[str, Any]:
        """The log line of an exchange that began after the last one that was asked for."""
        path: Path = self.daemon.process.err

        def found() -> dict[str, Any] | None:
            with path.open("rb") as file:
                file.seek(self._seen)
                for text in file.read().splitlines():
                    if request_id in text and text.endswith(b"}"):
                        line: dict[str, Any] = json.loads(text)
                        return line
            return None

        line: dict[str, Any] = wait_until(found, f"a log line of {request_id!r}")
        self._seen = path.stat().st_size
        return line


@contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    """A daemon in front of an origin that holds a session over HTTP."""
    with recording_origin() as origin, running_daemon(folder, [origin.url]) as daemon:
        bearer = f"Bearer {PUBLIC_KEY}"

        def started() -> Any:
            answer = daemon.request("POST", "/v1/public/bot/start", {}, Authorization=bearer)
            return answer.json()["sessionId"] if answer.status == 200 else None

        session = wait_until(started, "the bot is ready")
        wait_until(lambda: daemon.session(session)["state"] == "active", "it is active")
        yield Stand(daemon, origin, session)


def written(data: bytes, base: bytes) -> bytes:
    """A case's bytes as they are sent."""
    return data.replace(b"@E", SMUGGLED).replace(b"@S", base).replace(b"@K", KEY)


def sent_bytes(case: Case, base: bytes) -> bytes:
    """A case's bytes with what stands behind every one."""
    return written(case.send if case.ends else case.send + PROBE, base)


def converse(port: int, data: bytes, *, ends: bool = False, patience: float = PATIENCE) -> bytes:
    """Send, perhaps shut the side, and read until the other one closes.

    Args:
        patience: seconds of silence after which the side is shut all the same.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as sock:
        try:
            sock.sendall(data)
            if ends:
                sock.shutdown(socket.SHUT_WR)
            while piece := _receive(sock):
                answer += piece
        except OSError:
            pass  # closed in the middle of what it was sent
    return answer


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(RECEIVE)
    except TimeoutError:
        # Not just left: who closes then has done with all that it was sent.
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(PATIENCE)
        return sock.recv(RECEIVE)


def check_seen(message: Message, seen: Seen, session: str | None) -> None:
    """The request that the bot has seen is this one, and has nothing that it must not have."""
    method, target, _ = message.start
    assert (method, target, message.body) == (seen.method, seen.target, seen.body)
    assert message.chunked == seen.chunked
    for name, value in seen.fields:
        assert message.values(name) == [value], name
    for name in (*seen.without, *BETWEEN, b"authorization"):
        assert not message.values(name), name
    for value in message.values(b"connection"):
        assert value.lower() in (b"close", b"keep-alive", b"te")
    if session is not None:
        assert message.value(b"x-daily-session-id") == session.encode()
        assert message.value(b"x-request-id")
