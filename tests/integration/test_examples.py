"""The example bot and the example client, each as a reader would run it: as a process."""

from __future__ import annotations

import base64
import http.client
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

EXAMPLES = Path(__file__).parents[2] / "examples"
MODULE = ("-m", "relay_examples.echo_bot")
START_SECONDS = 10.0  # a loaded machine may take seconds to import trio
WAIT_SECONDS = 15.0  # for any one answer, and for a process to end
NOTHING = (("", ""), 0)  # what a bot prints when it is told to end, and its exit status


class Bot:
    """A running echo bot."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def ask(
        self, method: str, path: str, value: object = None, **fields: str
    ) -> tuple[int, dict[str, str], Any]:
        """One HTTP request on a connection of its own: status, header, decoded body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        try:
            body = None if value is None else json.dumps(value)
            names = {name.replace("_", "-"): text for name, text in fields.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            text = response.read()
            return response.status, dict(response.getheaders()), json.loads(text or "null")
        finally:
            connection.close()

    def call(self, query: str = "", **options: Any) -> ClientConnection:
        options = {"proxy": None, "max_size": None, "compression": None} | options
        return connect(f"ws://127.0.0.1:{self.port}/ws{query}", **options)


def python(*command: str, **environment: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONWARNINGS": "error"} | environment
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=pipe, stderr=pipe, text=True
    )


@contextmanager
def running_bot(*command: str, **environment: str) -> Iterator[Bot]:
    """Start a bot, wait for its line, end it by its pid."""
    process = python(*command, **environment)
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], START_SECONDS)[0], "no line in time"
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), process.communicate()
        yield Bot(process, int(line.rpartition(":")[2]))
    finally:
        process.kill()
        process.communicate(timeout=WAIT_SECONDS)


@pytest.fixture(scope="module")
def bot() -> Iterator[Bot]:
    """One bot for the tests that leave it as they found it."""
    with running_bot(*MODULE, "--port", "0") as bot:
        yield bot
        bot.process.send_signal(signal.SIGTERM)
        assert (bot.process.communicate(timeout=WAIT_SECONDS), bot.process.returncode) == NOTHING


def wait_for_sessions(bot: Bot, *ids: str) -> None:
    """A session begins and ends a moment apart from what a client sees of it."""
    for _ in range(1000):
        if bot.ask("GET", "/status")[2]["sessions"] == list(ids):
            return
    pytest.fail(f"the bot never held just {ids}")


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_come_back_as_they_went(bot: Bot, compression: str | None) -> None:
    with bot.call(compression=compression) as ws:
        assert len(ws.protocol.extensions) == (1 if compression else 0)
        for message in ("", "", "grüße", b"", b"\x00\xff" * 160, "x" * 70_000, b"y" * 3_000_000):
            ws.send(message)
            assert ws.recv(WAIT_SECONDS) == message
        ws.send(["in ", "three ", "parts"])
        assert ws.recv(WAIT_SECONDS) == "in three parts"
        assert ws.ping().wait(WAIT_SECONDS)


def client_frame(first: int, payload: bytes) -> bytes:
    """A masked frame (RFC 6455 §5.2), mask zero, of at most 125 bytes."""
    return struct.pack("!BB4x", first, 0x80 | len(payload)) + payload


def raw_upgrade(bot: Bot, *fields: str, early: bytes = b"") -> socket.socket:
    """Send an upgrade by hand, with frames behind it; what comes back is left to be read."""
    sock = socket.create_connection(("127.0.0.1", bot.port), timeout=WAIT_SECONDS)
    head = ["GET /ws HTTP/1.1", "Host: bot", "Connection: Upgrade", "Upgrade: websocket"]
    head += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13", *fields]
    sock.sendall("\r\n".join([*head, "", ""]).encode() + early)
    return sock


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end) and (chunk := sock.recv(65536)):
        data += chunk
    return data


def test_early_compressed_fragments_with_a_ping_between_are_echoed(bot: Bot) -> None:
    deflate = zlib.compressobj(wbits=-15)
    packed = (deflate.compress(b"hello hello hello") + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    parts = client_frame(0x41, packed[:3]), client_frame(0x89, b"?"), client_frame(0x80, packed[3:])
    echo = bytes([0xC1, len(packed)]) + packed
    offer = "Sec-WebSocket-Extensions: permessage-deflate"
    with raw_upgrade(bot, offer, early=b"".join(parts)) as sock:
        assert read_until(sock, echo).endswith(b"\r\n\r\n\x8a\x01?" + echo)
        sock.sendall(client_frame(0x83, b"no such opcode"))
        assert sock.recv(65536)[2:4] == b"\x03\xea"  # Close 1002
    wait_for_sessions(bot)


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", None),
        ("?body=", None),
        ("?body=%%%", None),
        ("?body=eyJhIjoxfQ==", {"a": 1}),
        ("?x=1&body=eyJhIjoxfQ%3D%3D&y=2", {"a": 1}),
        ("?body=eyJhIjoxfQ", None),  # without its padding
        ("?body=" + base64.urlsafe_b64encode(b'"\xc3\xbf\xc3\xbf>>"').decode(), None),
        ("?body=" + base64.b64encode(b'"\xff"').decode(), None),  # no UTF-8
        ("?body=" + base64.b64encode(b"[" * 9000).decode(), None),  # deeper than Python recurses
    ],
)
def test_the_body_parameter_is_decoded_as_the_base_image_does(
    bot: Bot, query: str, body: object
) -> None:
    with bot.call(query) as ws:
        ws.send("!body")
        assert json.loads(ws.recv(WAIT_SECONDS)) == body
        ws.send("!target")
        assert ws.recv(WAIT_SECONDS) == f"/ws{query}"


def test_a_call_knows_its_session_and_headers(bot: Bot) -> None:
    odd = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits=many"}
    with bot.call(additional_headers=odd | {"X-Daily-Session-Id": "s-1", "X-Odd": "Value"}) as ws:
        assert ws.protocol.extensions == []  # an offer that makes no sense is declined
        ws.send("!session")
        assert ws.recv(WAIT_SECONDS) == "s-1"
        ws.send("!headers")
        assert ["x-odd", "Value"] in json.loads(ws.recv(WAIT_SECONDS))
        assert bot.ask("GET", "/readyz")[::2] == (503, {"status": "not ready"})
        wait_for_sessions(bot, "s-1")
        with bot.call() as second:  # one more is not refused
            second.send("still echoed")
            assert second.recv(WAIT_SECONDS) == "still echoed"
    wait_for_sessions(bot)


@pytest.mark.parametrize(
    ("text", "code"),
    [("!close 4001 so it goes", 4001), ("!close 1000", 1000), ("!drop", 1006), ("!reset", 1006)],
)
def test_the_bot_ends_a_call_as_it_is_told(bot: Bot, text: str, code: int) -> None:
    with bot.call() as ws:
        ws.send(text)
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(WAIT_SECONDS)
        assert (ws.close_code, ws.close_reason) == (code, text[len("!close 4001 ") :])
    if code == 1006:  # only a reset is an error of the socket
        assert isinstance(caught.value.__cause__, ConnectionResetError) is (text == "!reset")
    wait_for_sessions(bot)


@pytest.mark.parametrize("code", [1000, 1001, 1012, 4321])
def test_a_close_is_answered_with_its_code(bot: Bot, code: int) -> None:
    with bot.call() as ws:
        ws.close(code, "bye")
        assert (ws.close_code, ws.close_reason) == (code, "bye")


def test_a_message_over_16_mib_is_refused_with_1009(bot: Bot) -> None:
    with bot.call() as ws:
        ws.send(b"z" * (16 * 1024 * 1024 + 1))
        with pytest.raises(ConnectionClosedError):
            ws.recv(WAIT_SECONDS)
        assert ws.close_code == 1009


def test_a_held_bot_request_is_a_session_until_its_end(bot: Bot) -> None:
    wait_for_sessions(bot)
    with socket.create_connection(("127.0.0.1", bot.port), timeout=WAIT_SECONDS) as sock:
        sock.sendall(b"POST /bot HTTP/1.1\r\nHost: bot\r\nX-Daily-Session-Id: held\r\n")
        sock.sendall(b"Content-Length: 2\r\n\r\n{}")
        wait_for_sessions(bot, "held")
        assert bot.ask("GET", "/readyz")[0] == 503
        assert bot.ask("POST", "/speak", {"message": "unheard"})[0] == 200
        assert bot.ask("POST", "/end", X_Daily_Session_Id="other")[2] == {"ended": []}
        assert select.select([sock], [], [], 0)[0] == []
        assert bot.ask("POST", "/end", X_Daily_Session_Id="held")[2] == {"ended": ["held"]}
        assert read_until(sock, b"{}").startswith(b"HTTP/1.1 200")
    wait_for_sessions(bot)


def test_http_routes_reach_the_call(bot: Bot) -> None:
    with bot.call() as ws:
        queued = {"queued": True, "message": "hello Alice"}
        assert bot.ask("POST", "/speak", {"message": "hello Alice"})[2] == queued
        assert ws.recv(WAIT_SECONDS) == "hello Alice"
        assert bot.ask("POST", "/context", {"name": "Alice"})[2] == {"updated": True}
        assert bot.ask("POST", "/context", {"age": 7})[2] == {"updated": True}
        assert bot.ask("GET", "/status")[2]["context"] == {"name": "Alice", "age": 7}
        assert bot.ask("POST", "/end")[2] == {"ended": [""]}
        with pytest.raises(ConnectionClosed):
            ws.recv(WAIT_SECONDS)
        assert ws.close_code == 1000


@pytest.mark.parametrize(
    ("method", "path", "value", "status", "allow"),
    [
        ("GET", "/livez", None, 200, None),
        ("HEAD", "/livez", None, 200, None),
        ("GET", "/nothing", None, 404, None),
        ("POST", "/livez", {}, 405, "GET, HEAD"),
        ("GET", "/bot", None, 405, "POST"),
        ("POST", "/ws", {}, 405, "GET"),
        ("GET", "/ws", None, 426, None),
        ("POST", "/bot", [], 400, None),
        ("POST", "/speak", {"message": 5}, 400, None),
        ("POST", "/speak", {"message": "\ud800"}, 400, None),
        ("POST", "/context", {"x": "y" * 1024 * 1024}, 413, None),
    ],
)
def test_http_answers(
    bot: Bot, method: str, path: str, value: object, status: int, allow: str | None
) -> None:
    got, header, answer = bot.ask(method, path, value)
    assert (got, header.get("Allow")) == (status, allow)
    assert header["Content-Type"] == "application/json"
    assert method == "HEAD" or ("error" in answer) is (status >= 400)


def test_one_connection_carries_many_requests_and_a_bad_head_ends_it(bot: Bot) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", bot.port, timeout=WAIT_SECONDS)
    for _ in range(3):
        connection.request("GET", "/status")
        connection.getresponse().read()
        kept = connection.sock
    connection.request("GET", "/livez", headers={"X-Long": "x" * 70_000})
    assert connection.sock is kept
    with connection.getresponse() as answer:
        assert (answer.status, answer.getheader("Connection")) == (431, "close")
    connection.close()


def test_the_script_form_takes_its_port_from_the_environment_and_obeys_ctrl_c() -> None:
    with running_bot(str(EXAMPLES / "echo_bot.py"), PORT="0") as bot, bot.call():
        bot.process.send_signal(signal.SIGINT)
        assert (bot.process.communicate(timeout=WAIT_SECONDS), bot.process.returncode) == NOTHING


def test_exit_ends_the_process_as_a_crash_would() -> None:
    with running_bot(*MODULE, "--port", "0") as bot, bot.call() as ws:
        ws.send("!exit")
        assert bot.process.wait(WAIT_SECONDS) == 1


# --- the client ---


@contextmanager
def start_answers(status: int, answer: object) -> Iterator[str]:
    """An HTTP server that gives this answer to every POST; yields a start URL on it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/public/echo/start"
        finally:
            server.shutdown()
            thread.join(WAIT_SECONDS)


def client(url: str, *options: str) -> subprocess.Popen[str]:
    return python(str(EXAMPLES / "client.py"), url, "--key", "pk_test", *options)


def test_the_client_counts_every_echo_and_ends_well_on_ctrl_c(bot: Bot) -> None:
    answer = {"sessionId": "s-2", "wsUrl": f"ws://127.0.0.1:{bot.port}/ws", "token": "t"}
    with start_answers(200, answer | {"body": "eyJhIjoxfQ=="}) as url:
        whole = client(url, "--seconds", "0.4", "--token-in", "query", "--body", '{"a": 1}')
        stopped = client(url, "--seconds", "10")
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "session s-2\n"
        assert "frames sent" in stopped.stdout.readline()  # the first second
        stopped.send_signal(signal.SIGINT)
        for run, last in ((whole, "20 frames sent, 20 echoed, round"), (stopped, " frames sent, ")):
            out, err = run.communicate(timeout=WAIT_SECONDS)
            assert (run.returncode, err, last in out.splitlines()[-1]) == (0, "", True)


def test_the_client_says_in_one_line_what_went_wrong(bot: Bot) -> None:
    refusal = {"error": "no capacity", "code": "429"}
    elsewhere = {"sessionId": "s", "wsUrl": f"ws://127.0.0.1:{bot.port}/nothing", "token": "t"}
    with start_answers(429, refusal) as full, start_answers(200, elsewhere) as wrong:
        runs = [client("http://127.0.0.1:1/v1/public/echo/start"), client(full), client(wrong)]
        errors = [run.communicate(timeout=WAIT_SECONDS)[1] for run in runs]
    assert [run.returncode for run in runs] == [1, 1, 1]
    assert errors[0].startswith("client: no server answers at http://127.0.0.1:1/")
    assert errors[1] == "client: start was refused: 429 no capacity\n"
    assert errors[2] == "client: upgrade was refused: 404 there is nothing at this path\n"
