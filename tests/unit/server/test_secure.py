"""Streams with TLS: what goes in at one side comes out at the other, and how they end."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing

from relay.server.secure import (
    TlsStream,
    close,
    detached,
    leg_of,
    reset,
    shake_hands,
    wrap,
)
from relay.tls import read_certificate, server_tls
from tests.helpers.tls import Authority

MIB = 1024 * 1024
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
Pair = tuple[TlsStream, TlsStream]
Paired = Callable[[], AbstractAsyncContextManager[Pair]]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    path = authority.issue("server", "server.example")
    return server_tls([read_certificate(path, path)], None, "required").context, authority.client()


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.open_tcp_stream(*listener.socket.getsockname())
        return ours, await listener.accept()


@pytest.fixture(params=VERSIONS, ids=lambda each: each.name)
def paired(
    request: pytest.FixtureRequest, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> Paired:
    """Makes the two ends of a connection, the server's first."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Pair]:
        server, client = contexts
        client.maximum_version = request.param
        near, far = await tcp_pair()
        turn = trio.Lock()
        theirs, ours = wrap(detached(near), client, "server.example"), wrap(detached(far), server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake_hands, theirs, turn)
            nursery.start_soon(shake_hands, ours, turn)
        ends = TlsStream(ours), TlsStream(theirs)
        try:
            yield ends
        finally:
            for each in ends:
                close(each)

    return make


async def everything(stream: TlsStream, step: int = 8192) -> bytes:
    received = b""
    while data := await stream.receive_some(step):
        received += data
    return received


async def test_both_ways_at_a_time_in_pieces_of_any_size(paired: Paired) -> None:
    up, down = bytes(range(256)) * 8 * 1024, bytes(reversed(range(256))) * 12 * 1024
    got: dict[str, bytes] = {}

    async def send(stream: TlsStream, data: bytes, step: int) -> None:
        for at in range(0, len(data), step):
            await stream.send_all(data[at : at + step])

    async def receive(name: str, stream: TlsStream, step: int, count: int) -> None:
        got[name] = b""
        while len(got[name]) < count:
            got[name] += await stream.receive_some(step)

    async with paired() as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(send, theirs, up, MIB)
        nursery.start_soon(send, ours, down, 100_000)
        nursery.start_soon(receive, "up", ours, 3000, len(up))
        nursery.start_soon(receive, "down", theirs, 100_000, len(down))
    assert got == {"up": up, "down": down}


async def test_a_reader_that_pauses_gets_all_of_it(paired: Paired) -> None:
    data = bytes(range(256)) * 16 * 1024
    async with paired() as (ours, theirs):
        left, taken = memoryview(data), 0
        while (taken := ours.leg.write_now(left)) == len(left[:taken]) and taken:
            left = left[taken:]  # until the other side's buffers are full
        assert ours.leg.write_now(left) == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, left)
            received = b""
            while len(received) < len(data):
                received += await theirs.receive_some(70_000)
        assert received == data


async def test_what_one_read_leaves_is_there_without_a_wait(paired: Paired) -> None:
    async with paired() as (ours, theirs):
        await theirs.send_all(b"0123456789")
        assert await ours.receive_some(4) == b"0123"
        await ours.leg.wait_readable()
        assert ours.leg.read_now(4) == b"4567"
        view = memoryview(bytearray(8))
        assert ours.leg.read_into(view) == 2
        assert ours.leg.read_now(4) is None
        assert ours.leg.read_into(view) is None


async def test_an_end_that_was_told(paired: Paired) -> None:
    async with paired() as (ours, theirs):
        await theirs.send_all(b"bye")
        close(theirs)
        assert await everything(ours) == b"bye"
        assert not ours.leg.broken
        assert leg_of(ours) is ours.leg


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_an_end_that_was_not_told_is_none(paired: Paired, how: str) -> None:
    async with paired() as (ours, theirs):
        await theirs.send_all(b"half of")
        assert await ours.receive_some() == b"half of"
        if how == "reset":
            reset(theirs)
        else:
            theirs.socket.close()
        with pytest.raises(trio.BrokenResourceError):
            await ours.receive_some()
        assert ours.leg.broken
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_all(b"x" * 16 * MIB)


async def test_bytes_of_somebody_else_are_not_the_peers(paired: Paired) -> None:
    async with paired() as (ours, theirs):
        socket.socket.send(theirs.socket, b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(trio.BrokenResourceError):
            await ours.receive_some()
        assert ours.leg.read_into(memoryview(bytearray(8))) == 0


async def test_behind_an_end_nothing_is_heard_but_the_others(paired: Paired) -> None:
    async with paired() as (ours, theirs):
        await theirs.send_all(b"on its way")
        await ours.send_eof()
        assert await theirs.receive_some() == b""
        await theirs.send_all(b"said too late")
        close(theirs)
        assert await everything(ours) == b""


async def test_who_waits_is_told_when_it_is_closed_here(paired: Paired) -> None:
    async with paired() as (ours, _theirs):

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            close(ours)
        close(ours)
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_all(b"x")
