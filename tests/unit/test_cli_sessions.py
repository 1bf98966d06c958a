"""`relay sessions` against a small real server: requests, tables, refusals, nobody there."""

from __future__ import annotations

import json
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from relay.cli import main

SESSION = "0b9c5c5e-6f0a-4d0e-9d53-0a5f0f4f8f11"
TOKEN = "admin-token-of-acme"
Captured = pytest.CaptureFixture[str]
# A test that waits longer than this for a thread or a process has failed.
PATIENCE = 30


def record(**members: object) -> dict[str, object]:
    return {
        "sessionId": SESSION,
        "agent": "bot",
        "organization": "acme",
        "state": "ended",
        "instance": "http://127.0.0.1:7860",
        "createdAt": "2026-11-21T10:00:00Z",
        "startedAt": "2026-11-21T10:00:01Z",
        "endedAt": "2026-11-21T10:01:31Z",
        "cause": "client_closed",
        "completionStatus": "completed",
        "durationSeconds": 90.4,
        "closeCode": 1000,
        "figures": {"toBot": {"bytes": 7}, "toClient": None},
        **members,
    }


class Daemon:
    """An administration listener that gives one prepared answer and notes what it was asked."""

    def __init__(self, path: Path | None = None) -> None:
        self.status = 200
        self.body = b"{}"
        self.seen: list[tuple[str, str, str | None]] = []
        self.before_answer: Callable[[], None] = lambda: None
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                self.client_address = ("test", 0)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                daemon.seen.append((self.command, self.path, self.headers["Authorization"]))
                daemon.before_answer()
                self.send_response(daemon.status)
                self.send_header("Content-Length", str(len(daemon.body)))
                self.end_headers()
                self.wfile.write(daemon.body)
                self.close_connection = True

            def log_message(self, format: str, *arguments: Any) -> None:
                """The test reads `seen` instead."""

        if path is None:
            self.server: socketserver.BaseServer = socketserver.TCPServer(("127.0.0.1", 0), Handler)
            self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        else:
            self.server = socketserver.UnixStreamServer(str(path), Handler)
            self.url = f"unix:{path}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def answer(self, value: object, status: int = 200) -> None:
        self.body, self.status = json.dumps(value).encode(), status

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(PATIENCE)
        self.server.server_close()


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.chdir(tmp_path)
    running = Daemon()
    yield running
    running.close()


def configured(daemon: Daemon) -> None:
    """Writes a ./relay.toml that leads to the daemon; the daemon's other secrets are not here."""
    address = daemon.url.removeprefix("http://")
    Path("relay.toml").write_text(
        f"[server]\nadmin_bind = '{address}'\nadmin_token = '{TOKEN}'\n"
        "[organizations.acme]\ntoken_keys = [{ id = 'a', secret_env = 'NOT_HERE' }]\n"
    )


def errors(captured: Captured) -> str:
    """The one line of stderr; nothing may stand on stdout."""
    out, err = captured.readouterr()
    assert out == ""
    assert err.startswith("relay: ")
    assert err.count("\n") == 1
    return err.removeprefix("relay: ").rstrip("\n")


def test_list_asks_for_live_sessions_with_the_admin_token(daemon: Daemon, capsys: Captured) -> None:
    configured(daemon)
    daemon.answer({"sessions": [], "total": 0})
    assert main(["sessions", "list"]) == 0
    assert daemon.seen == [("GET", "/sessions?state=live&limit=100", f"Bearer {TOKEN}")]
    assert capsys.readouterr().out == "SESSION  AGENT  STATE  TIME  INSTANCE  CAUSE\n"


def test_list_passes_its_filters_on(daemon: Daemon) -> None:
    daemon.answer({"sessions": [], "total": 0})
    options = ["--state", "all", "--agent", "a&b", "--limit", "5", "--admin", daemon.url]
    assert main(["sessions", "list", *options]) == 0
    assert daemon.seen == [("GET", "/sessions?state=all&agent=a%26b&limit=5", None)]


def test_list_is_an_aligned_table(daemon: Daemon, capsys: Captured) -> None:
    started = datetime.now(UTC) - timedelta(hours=1, minutes=5, seconds=30)
    active = record(state="active", startedAt=started.isoformat(), durationSeconds=None, cause=None)
    waiting = record(
        agent="a-longer-name",
        state="waiting",
        instance=None,
        createdAt="soon",
        startedAt=None,
        durationSeconds=None,
        cause=None,
    )
    daemon.answer({"sessions": [record(), active, waiting], "total": 7})
    assert main(["sessions", "list", "--admin", daemon.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    columns = [lines[0].index(name) for name in ("AGENT", "STATE", "TIME", "INSTANCE", "CAUSE")]
    rows = [[line[:36], *(line[at:].split("  ")[0] for at in columns)] for line in lines[1:4]]
    assert rows == [
        [SESSION, "bot", "ended", "1m30s", "http://127.0.0.1:7860", "client_closed"],
        [SESSION, "bot", "active", "1h05m", "http://127.0.0.1:7860", "-"],
        [SESSION, "a-longer-name", "waiting", "-", "-", "-"],
    ]
    assert lines[4:] == ["3 of 7 sessions; --limit shows more"]


def test_show_has_a_line_for_each_member(daemon: Daemon, capsys: Captured) -> None:
    daemon.answer(record(cause="\x1b[2J"))
    assert main(["sessions", "show", SESSION.upper(), "--admin", daemon.url]) == 0
    assert daemon.seen == [("GET", f"/sessions/{SESSION}", None)]
    lines = capsys.readouterr().out.splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown["durationSeconds:"] == "90.4"
    assert shown["cause:"] == "\N{REPLACEMENT CHARACTER}[2J"
    assert shown["figures.toBot.bytes:"] == "7"
    assert shown["figures.toClient:"] == "-"
    assert len({line.index(value) for line, value in zip(lines, shown.values(), strict=True)}) == 1


def test_stop_deletes_the_session(daemon: Daemon, capsys: Captured) -> None:
    daemon.answer({"status": "terminated", "session_id": SESSION})
    assert main(["sessions", "stop", SESSION, "--admin", daemon.url]) == 0
    assert daemon.seen == [("DELETE", f"/sessions/{SESSION}", None)]
    assert capsys.readouterr().out == f"{SESSION} is being stopped\n"


@pytest.mark.parametrize("arguments", [["list"], ["show", SESSION], ["stop", SESSION]])
def test_json_is_the_answer_of_the_daemon(
    daemon: Daemon, arguments: list[str], capsys: Captured
) -> None:
    answer = {"sessions": [record()], "total": 1}
    daemon.answer(answer)
    assert main(["sessions", *arguments, "--json", "--admin", daemon.url]) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_a_refusal_is_the_daemons_sentence(daemon: Daemon, capsys: Captured) -> None:
    daemon.answer({"error": "no such session\x07", "code": "404"}, status=404)
    assert main(["sessions", "show", SESSION, "--admin", daemon.url]) == 1
    assert errors(capsys) == "no such session\N{REPLACEMENT CHARACTER}"


def test_a_token_that_is_missing_or_wrong(daemon: Daemon, capsys: Captured) -> None:
    """What helps at a terminal is another thing than what helps a program."""
    daemon.answer({"error": "send the header"}, status=401)
    assert main(["sessions", "list", "--admin", daemon.url]) == 1
    assert "asks for the admin_token; name the daemon's file with --config" in errors(capsys)
    configured(daemon)
    assert main(["sessions", "list"]) == 1
    assert "does not take the admin_token of the configuration" in errors(capsys)


def test_the_public_address_instead_of_the_administrations(
    daemon: Daemon, capsys: Captured
) -> None:
    daemon.answer({"error": "there is nothing at this path", "phase": "route"}, status=404)
    assert main(["sessions", "list", "--admin", daemon.url]) == 1
    assert errors(capsys).endswith(f"; is {daemon.url} the address of admin_bind?")


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"<html>", 200, "answered 200 without a JSON object; is it a relay daemon?"),
        (b"[]", 404, "answered 404 without a JSON object; is it a relay daemon?"),
        (b"[" * 100_000, 200, "answered 200 without a JSON object; is it a relay daemon?"),
        (b"{}", 500, "the daemon answered 500"),
        (b"{}", 200, "the daemon's answer has no list of sessions"),
        (b'{"sessions": [1]}', 200, "the daemon's answer has a session that is no JSON object"),
    ],
)
def test_answers_of_something_else(
    daemon: Daemon, body: bytes, status: int, expected: str, capsys: Captured
) -> None:
    daemon.body, daemon.status = body, status
    assert main(["sessions", "list", "--admin", daemon.url]) == 1
    assert errors(capsys).endswith(expected)


def test_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    daemon = Daemon(Path("admin.sock"))
    try:
        configured(daemon)
        daemon.answer({"sessions": [], "total": 0})
        assert main(["sessions", "list"]) == 0
        assert main(["sessions", "list", "--admin", "unix:admin.sock"]) == 0
    finally:
        daemon.close()
    assert [token for _, _, token in daemon.seen] == [f"Bearer {TOKEN}"] * 2
    assert capsys.readouterr().err == ""


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as bound:
        # Bound and not listening: nobody else can take the port, and connecting is refused.
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        assert main(["sessions", "list", "--admin", url]) == 1
    assert errors(capsys) == f"no daemon answers at {url} (connection refused); is it running?"
    assert main(["sessions", "list", "--admin", "unix:nobody.sock"]) == 1
    assert "(no such file or directory); is it running?" in errors(capsys)


def test_a_wildcard_listener_is_asked_through_loopback(daemon: Daemon) -> None:
    daemon.answer({"sessions": [], "total": 0})
    port = daemon.url.rpartition(":")[2]
    assert main(["sessions", "list", "--admin", f"http://0.0.0.0:{port}"]) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "no relay.toml in this directory; say which daemon with --config FILE or --admin"),
        ("server.admin_bind = '127.0.0.1:0'", "server.admin_bind has port 0; give the address"),
        ("server.admin_bind = 5", "relay.toml: server.admin_bind: found 5 (an integer), expected"),
        ("server.admin_token_env = 'X_'", "relay.toml: server.admin_token_env: the environment"),
    ],
)
def test_a_configuration_that_does_not_lead_to_a_daemon(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    text: str | None,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("relay.toml").write_text(text)
    assert main(["sessions", "list"]) == 2
    assert errors(capsys).startswith(expected)


def test_an_interrupt_ends_a_command_cleanly(daemon: Daemon) -> None:
    started = threading.Event()
    asking: list[subprocess.Popen[bytes]] = []

    def interrupt() -> None:
        assert started.wait(PATIENCE)
        asking[0].send_signal(signal.SIGINT)
        asking[0].wait(PATIENCE)

    daemon.before_answer = interrupt
    command = [sys.executable, "-m", "relay", "sessions", "list", "--admin", daemon.url]
    asking.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    started.set()
    out, err = asking[0].communicate(timeout=PATIENCE)
    assert (asking[0].returncode, out, err) == (0, b"", b"")
