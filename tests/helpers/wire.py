"""HTTP and upgrades written by hand, tokens of any kind, and what every refusal must look like."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
import uuid
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

from relay.policy.catalog import TokenKey
from relay.policy.tokens import Claims, mint
from tests.helpers.daemon import PATIENCE, PRIVATE_KEY, TOKEN_SECRET, Answer, Daemon, wait_until

WS_KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
ERROR_KEYS = {"error", "code", "message", "status", "detail", "phase"}
PHASES = ("accept", "parse", "route", "authenticate", "resolve", "relay", "close")
# What a log line of an exchange may hold, and what it always holds.
LINE_ALWAYS = {"event", "level", "timestamp", "request_id", "peer", "phase", "ms"}
LINE_ALWAYS |= {"bytes_in", "bytes_out"}
LINE_MAY = {"session_id", "agent", "method", "path", "route", "status", "cause"}
LINE_MAY |= {f"{phase}_ms" for phase in PHASES}


def request(method: str, target: str, *fields: str, body: bytes = b"") -> bytes:
    """A request as it stands on the wire; Content-Length is the caller's matter."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def upgrade(target: str, *fields: str, without: str = "", method: str = "GET") -> bytes:
    """A right upgrade request, or one without the field of one name."""
    own = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {WS_KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    kept = [line for line in own if not without or not line.startswith(without + ":")]
    return request(method, target, *kept, *fields)


class Wire:
    """A TCP connection on which the test writes bytes and reads answers.

    Args:
        source: the address that it comes from, one of this machine's.
        tls: speaks TLS with what it trusts.
    """

    def __init__(
        self, port: int, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        address = ("127.0.0.1", port)
        self.sock = socket.create_connection(address, PATIENCE, source_address=(source, 0))
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="127.0.0.1")
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, *, head: bool = False) -> Answer:
        """The next answer; its body too unless it answers a HEAD."""
        version, status, _ = self.file.readline().split(b" ", 2)
        assert version == b"HTTP/1.1"
        fields: dict[str, str] = {}
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            assert name.lower() not in fields, f"{name} comes twice"
            fields[name.lower()] = value.strip()
        length = 0 if head or status in (b"100", b"101", b"204") else int(fields["content-length"])
        return Answer(int(status), fields, self.file.read(length))

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer()

    def rest(self) -> bytes:
        """Everything until the daemon closes."""
        return self.file.read()


def ask(daemon: Daemon, data: bytes, *, admin: bool = False) -> Answer:
    """One answer on a connection of its own."""
    with Wire(daemon.admin_port if admin else daemon.port) as wire:
        return wire.ask(data)


def refused(daemon: Daemon, answer: Answer, status: int, cause: str) -> Any:
    """Check a refusal's published form and its one log line; the error object."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()
    assert set(error) == ERROR_KEYS
    assert error["status"] == status
    assert error["phase"] in PHASES
    assert isinstance(error["code"], str)
    assert error["message"] == error["detail"]
    for text in (error["error"], error["message"]):
        assert text
        assert "Traceback" not in text
    line = exchange_line(daemon, answer.headers["x-request-id"])
    assert (line["status"], line.get("cause"), line["phase"]) == (status, cause, error["phase"])
    return error


def exchange_line(daemon: Daemon, request_id: str) -> dict[str, Any]:
    """The one log line of an exchange."""

    def lines() -> list[dict[str, Any]]:
        of_it = (line for line in daemon.logs() if line.get("request_id") == request_id)
        return [line for line in of_it if line["event"] == "exchange"]

    found = wait_until(lines, f"a log line of {request_id}")
    assert len(found) == 1, found
    line: dict[str, Any] = found[0]
    assert set(line) >= LINE_ALWAYS
    assert set(line) <= LINE_ALWAYS | LINE_MAY
    return line


def token_for(
    service_host: str = "bot.acme",
    *,
    ttl: float = 3600,
    session: str | None = None,
    key: str = "k1",
    secret: str = TOKEN_SECRET,
) -> str:
    """A token as the daemon itself would mint it; it outlives a slow run of the tests."""
    claims = Claims(
        service_host,
        session or str(uuid.uuid4()),
        int(time.time() + ttl),
        uuid.uuid4().hex,
        key,
    )
    return mint(claims, TokenKey(key, secret.encode()))


def call(
    daemon: Daemon, target: str = "/ws/generic/bot.acme", token: str = "", **options: Any
) -> ClientConnection:
    """A WebSocket with the token, where one is given, in the header."""
    headers = dict(options.pop("headers", {}))
    if token:
        headers["Authorization"] = f"Bearer {token}"
    options = {"proxy": None, "compression": None, "open_timeout": PATIENCE} | options
    url = f"{daemon.url.replace('http', 'ws', 1)}{target}"
    if daemon.tls is not None:
        options = {"ssl": _without_tickets(daemon.tls)} | options
    return connect(url, additional_headers=headers, **options)


def _without_tickets(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same trust, with TLS 1.2.

    This client reads in one thread and writes in another. When a ticket of TLS 1.3 is read in
    that moment, its write may wait for ever: one handshake of 2 700, whatever the server.
    """
    same = ssl.create_default_context(cadata=b"".join(context.get_ca_certs(binary_form=True)))
    same.maximum_version = ssl.TLSVersion.TLSv1_2
    return same


def told(daemon: Daemon, command: str, target: str = "/ws/generic/bot.acme", **options: Any) -> Any:
    """What the example bot answers to a command, in a call of its own with a fresh token."""
    with call(daemon, target, **({"token": token_for()} | options)) as ws:
        ws.send(command)
        return ws.recv(PATIENCE)


def echoes(ws: ClientConnection, text: str = "still here") -> bool:
    """Whether a text comes back."""
    ws.send(text)
    return ws.recv(PATIENCE) == text


def serves(daemon: Daemon, agent: str = "bot") -> None:
    """Nothing is left over: no session is live, and a call from /start on goes through."""
    wait_until(lambda: not live(daemon), f"no live session; {live(daemon)}")
    started = daemon.start_when_free(agent)
    with call(daemon, f"/ws/generic/{agent}.acme", started["token"]) as ws:
        assert echoes(ws)
    daemon.wait_ended(started["sessionId"])


def live(daemon: Daemon) -> list[Any]:
    """Sessions that wait or are active; a reservation alone costs nobody a bot for long."""
    found: list[Any] = []
    for state in ("waiting", "active"):
        answer = daemon.request("GET", f"/sessions?state={state}", admin=True)
        found += answer.json()["sessions"]
    return found


def stop(daemon: Daemon, session_id: str) -> None:
    """End a session, a reserved one too, through the private API's route of the administration."""
    answer = daemon.request("DELETE", f"/sessions/{session_id}", admin=True)
    assert answer.status == 200, answer


def keeps_secrets(daemon: Daemon, *secrets: str) -> None:
    """None of these, nor a key, is anywhere in the daemon's output; no exchange was a bug."""
    output = daemon.process.output() + daemon.process.errors()
    for secret in (*secrets, TOKEN_SECRET, PRIVATE_KEY, "pk_test_"):
        assert secret not in output, f"{secret!r} is in the log"
    lines = daemon.logs()
    assert lines, "nothing was logged that could be read"
    for line in lines:
        assert line["event"] not in ("bug", "store"), line


def base64_of(value: object) -> str:
    """JSON as it travels in `?body=`."""
    return base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()


def masked(text: str) -> bytes:
    """A client's text frame of at most 125 bytes, its mask zero (RFC 6455 section 5.2)."""
    data = text.encode()
    return bytes((0x81, 0x80 | len(data), 0, 0, 0, 0)) + data
