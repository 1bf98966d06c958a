"""Readiness probes against small real servers on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from relay.instances import probe as module
from relay.instances.probe import READY, probe
from relay.policy.catalog import Address


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[tuple[Address, list[bytes]]]:
    """A server that answers each request with these bytes and closes; None says nothing."""
    requests: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            requests.append(bytes(await stream.receive_some(16384)))
            if answer is None:
                await stream.receive_some()  # until the prober leaves
            else:
                await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield Address("127.0.0.1", listeners[0].socket.getsockname()[1]), requests
        nursery.cancel_scope.cancel()


HEAD = b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (HEAD % b"200 OK", READY),
        (HEAD % b"404 Not Found", READY),
        (b"HTTP/1.0 200 OK\r\n\r\n", READY),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD % b"200 OK", READY),
        (HEAD % b"503 Service Unavailable", "answered 503"),
        (HEAD % b"500 Internal Server Error", "answered 500"),
        (HEAD % b"204 No Content", "answered 204"),
        (HEAD % b"302 Found", "answered 302"),
        (HEAD % b"401 Unauthorized", "answered 401"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "the answer is not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is not HTTP"),
        (b"\x16\x03\x01\x00\xff" * 100, "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000, "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "the answer is not HTTP"),
        (b"", "the answer is not HTTP"),
    ],
)
async def test_what_an_answer_means(answer: bytes, found: str) -> None:
    async with answering(answer) as (address, _):
        assert await probe(address, "/readyz") == found


async def test_what_is_asked() -> None:
    async with answering(HEAD % b"200 OK") as (address, requests):
        await probe(address, "/ready?deep=1")
    lines = requests[0].split(b"\r\n")
    assert lines[0] == b"GET /ready?deep=1 HTTP/1.1"
    assert {line.lower() for line in lines[1:3]} == {
        b"host: " + address.authority.encode(),
        b"connection: close",
    }


async def test_nobody_listens() -> None:
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", sock.getsockname()[1])
        assert await probe(address, "/readyz") == "cannot connect"


async def test_a_name_that_does_not_resolve() -> None:
    assert await probe(Address("nobody.invalid", 80), "/readyz") == "cannot connect"


async def test_silence_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_TIMEOUT", 0.05)
    async with answering(None) as (address, requests):
        assert await probe(address, "/readyz") == "no answer within 0.05 s"
        assert len(requests) == 1


async def test_a_probe_can_be_cancelled() -> None:
    async with answering(None) as (address, requests):
        with trio.move_on_after(0.05) as scope:
            await probe(address, "/readyz")
        assert scope.cancelled_caught
        assert len(requests) == 1
