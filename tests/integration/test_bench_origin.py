"""The bench's echo server as others see it: WebSocket and HTTP, also when they are wrong."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from bench import native, wire
from bench.origin import start_origin

pytestmark = pytest.mark.skipif(
    native.compiler() is None, reason="no C compiler: apt-get install gcc"
)

TIMEOUT = 10.0
KEY = 0x01020304
UPGRADE = wire.upgrade_request("localhost", "/some/ws?x=1", b"dGhlIHNhbXBsZSBub25jZQ==", None)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with start_origin() as (_, urls):
        yield int(urls[0].rpartition(":")[2])


@pytest.fixture
def raw(port: int) -> Iterator[socket.socket]:
    """A connection that has been upgraded."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
        sock.sendall(UPGRADE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert b" 101 " in head
        # The example of RFC 6455 section 1.3.
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
        yield sock


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


@pytest.mark.parametrize("size", [0, 1, 7, 125, 126, 65_535, 65_536, 4 << 20])
def test_messages_of_every_length_come_back(port: int, size: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/ws", max_size=None, compression=None) as ws:
        for message in (os.urandom(size), "x" * size):
            ws.send(message)
            assert ws.recv(TIMEOUT) == message


def test_fragments_and_pings(port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/ws", compression=None) as ws:
        ws.send([b"one", b"", b"two"])
        assert ws.recv(TIMEOUT) == b"onetwo"
        assert ws.ping(b"are you there").wait(TIMEOUT)
        ws.pong(b"nobody asked")
        ws.send("still here")
        assert ws.recv(TIMEOUT) == "still here"


def test_a_frame_that_arrives_byte_by_byte(raw: socket.socket) -> None:
    for byte in wire.client_frame(wire.BINARY, b"x" * 130, KEY):
        raw.sendall(bytes((byte,)))
    wanted = wire.server_header(wire.BINARY, 130) + b"x" * 130
    assert b"".join(raw.recv(1) for _ in wanted) == wanted


def test_a_close_is_answered_and_nothing_behind_it(raw: socket.socket) -> None:
    close = wire.client_frame(wire.CLOSE, b"\x03\xe8bye", KEY)
    raw.sendall(close[:3])
    raw.sendall(close[3:] + wire.client_frame(wire.BINARY, b"too late", KEY))
    assert read_to_end(raw) == wire.server_header(wire.CLOSE, 5) + b"\x03\xe8bye"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x82\x01x", 1002),  # no mask
        (b"\xc2\x81\0\0\0\0x", 1002),  # a reserved bit
        (b"\x09\x81\0\0\0\0x", 1002),  # a ping in fragments
        (b"\x89\xfe\x00\x7e\0\0\0\0", 1002),  # a ping that is too long
        (b"\x82\xff\x00\x00\x00\x01\x00\x00\x00\x00\0\0\0\0", 1009),
    ],
)
def test_bad_frames_are_answered_with_a_close(raw: socket.socket, frame: bytes, code: int) -> None:
    raw.sendall(frame)
    assert read_to_end(raw) == wire.server_header(wire.CLOSE, 2) + code.to_bytes(2, "big")


def test_a_reader_that_waits_gets_everything(raw: socket.socket) -> None:
    frame = wire.client_frame(wire.BINARY, b"y" * 100_000, KEY)
    raw.settimeout(0.5)
    sent = 0
    try:
        while sent < 64 << 20:  # until nothing more fits into the buffers on the way
            sent += raw.send(frame[sent % len(frame) :])
    except TimeoutError:
        pass
    whole = sent // len(frame)
    assert whole > 1
    raw.settimeout(TIMEOUT)
    wanted = whole * (4 + 6 + 100_000)
    got = bytearray()
    while len(got) < wanted:
        got += raw.recv(1 << 20)
    echo = wire.server_header(wire.BINARY, 100_000) + b"y" * 100_000
    assert bytes(got[: len(echo) * 2]) == echo * 2


def test_requests_on_one_connection(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    for path, body in (("/readyz", b"ok"), ("/livez", b"ok"), ("/json", None)):
        connection.request("GET", path)
        answer = connection.getresponse()
        said = answer.read()
        assert (answer.status, body or said) == (200, said)
    connection.request("GET", "/down?size=300000")
    assert len(connection.getresponse().read()) == 300_000
    connection.request("POST", "/up", body=b"z" * 70_000)
    assert connection.getresponse().read() == b'{"size":70000}'
    connection.request("POST", "/up", body=b"")
    assert connection.getresponse().read() == b'{"size":0}'
    connection.request("GET", "/nothing")
    assert connection.getresponse().status == 404
    connection.close()


def test_events_carry_their_time(port: int) -> None:
    begun = time.monotonic_ns()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    connection.request("GET", "/events?count=3&interval_ms=2")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"
    lines = answer.read().decode().split("\n\n")
    assert lines.pop() == ""
    times = []
    for number, line in enumerate(lines):
        name, said, sent_at = line.split(" ")
        assert (name, said) == ("data:", str(number))
        times.append(int(sent_at))
    assert len(times) == 3
    assert begun < times[0] < times[1] < times[2] < time.monotonic_ns()
    connection.close()


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"POST /up HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"POST /up HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", b"413"),
        (b"GET /json HTTP/1.1\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /json HTTP/1.0\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 17_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_the_connection_ends_behind_these(port: int, request_head: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
        sock.sendall(request_head)
        try:
            answer = read_to_end(sock)
        except ConnectionResetError:  # what it did not read of a head that is too long
            answer = b"HTTP/1.1 431"
        assert answer.split(b" ")[1] == status


def test_it_takes_no_number_out_of_its_limits() -> None:
    command = [str(native.program("origin")), "--port", "0", "--listeners", "65"]
    command += ["--lifetime", "5", "--delay-us", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 1
    assert "--listeners is 65; expected 1 to 64" in done.stdout
