"""Handshakes that do not come about: slow ones, too many, and none at all; the time is virtual."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from relay.policy.catalog import Catalog, Limits
from relay.server.handshakes import HandshakeFailed, Handshakes
from relay.server.rules import Rules
from relay.server.secure import close
from relay.tls import read_certificate, server_tls
from tests.helpers.tls import Authority

# The first bytes of a ClientHello that never comes whole.
BEGUN = b"\x16\x03\x01\x02\x00\x01"
LIMITS = Limits(handshake_timeout=10, max_handshakes=2)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def rules(authority: Authority) -> Rules:
    path = authority.issue("server", "server.example")
    tls = server_tls([read_certificate(path, path)], None, "required")
    return Rules(Catalog({}, {}), LIMITS, tls=tls)


class Callers:
    """Connections, and how their handshakes end here, in the order of the ends."""

    def __init__(self, rules: Rules, nursery: trio.Nursery) -> None:
        self.versions: list[str] = []
        self.handshakes = Handshakes(rules, self.versions.append)
        self.ends: list[tuple[str, str]] = []
        self._nursery = nursery
        self._streams: list[trio.SocketStream] = []

    async def leave(self) -> None:
        for stream in self._streams:
            await trio.aclose_forcefully(stream)

    async def call(self, name: str, first: bytes = b"") -> trio.SocketStream:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            theirs = await trio.open_tcp_stream(*listener.socket.getsockname())
            ours = await listener.accept()
        self._streams.append(theirs)
        await theirs.send_all(first)
        self._nursery.start_soon(self._secure, name, ours)
        await trio.testing.wait_all_tasks_blocked(0.01)
        return theirs

    async def _secure(self, name: str, stream: trio.SocketStream) -> None:
        try:
            close(await self.handshakes.secure(stream))
            self.ends.append((name, ""))
        except HandshakeFailed as failure:
            self.ends.append((name, failure.cause))
        finally:
            await trio.aclose_forcefully(stream)


@pytest.fixture
async def callers(rules: Rules, nursery: trio.Nursery) -> AsyncIterator[Callers]:
    callers = Callers(rules, nursery)
    yield callers
    await callers.leave()


@pytest.mark.parametrize("first", [b"", BEGUN[:1], BEGUN], ids=["silent", "a byte", "begun"])
async def test_a_slow_one_ends(
    callers: Callers, autojump_clock: trio.testing.MockClock, first: bytes
) -> None:
    started = trio.current_time()
    stream = await callers.call("slow", first)
    assert await stream.receive_some() == b""
    assert 10 <= trio.current_time() - started < 11
    assert callers.ends == [("slow", "tls_timeout")]


async def test_the_oldest_makes_room(
    callers: Callers, autojump_clock: trio.testing.MockClock
) -> None:
    streams = [await callers.call(name, BEGUN) for name in "abcd"]
    assert callers.ends == [("a", "tls_crowded"), ("b", "tls_crowded")]
    assert await streams[0].receive_some() == b""
    assert await streams[3].receive_some() == b""
    assert {cause for _, cause in callers.ends[2:]} == {"tls_timeout"}


async def test_when_the_daemon_hands_over_they_end(callers: Callers) -> None:
    stream = await callers.call("late", BEGUN)
    callers.handshakes.give_up()
    assert await stream.receive_some() == b""
    assert callers.ends == [("late", "tls_crowded")]


@pytest.mark.parametrize(
    ("first", "cause"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n", "plain_http", id="HTTP"),
        pytest.param(b"\x80\x2e\x01\x00\x02", "not_tls", id="SSL 2"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x28", "not_tls", id="an alert"),
        pytest.param(b"\x00", "not_tls", id="zero"),
        pytest.param(b"\x16\x03\x01\x00\x05hello", "tls_malformed", id="no ClientHello"),
        pytest.param(b"\x16\x03\x01\xff\xff" + bytes(100), "tls_malformed", id="too long"),
        pytest.param(b"\x16\x09\x09\x00\x05hello", "tls_malformed", id="no version"),
    ],
)
async def test_what_is_none(callers: Callers, first: bytes, cause: str) -> None:
    await callers.call("odd", first)
    assert callers.ends == [("odd", cause)]


@pytest.mark.parametrize("first", [b"", BEGUN], ids=["before", "in the midst"])
async def test_who_leaves(callers: Callers, first: bytes) -> None:
    stream = await callers.call("leaver", first)
    await stream.aclose()
    with trio.fail_after(10):
        while not callers.ends:
            await trio.sleep(0.001)
    assert callers.ends == [("leaver", "tls_left")]


async def test_no_tls_any_more(callers: Callers, rules: Rules) -> None:
    rules.tls = None
    await callers.call("late", BEGUN)
    assert callers.ends == [("late", "tls_left")]


async def test_many_at_a_time_while_slow_ones_hang(
    callers: Callers, rules: Rules, authority: Authority
) -> None:
    rules.limits = Limits(handshake_timeout=10, max_handshakes=50)
    for _ in range(5):
        await callers.call("slow", BEGUN)

    async def shake() -> None:
        stream = await callers.call("honest")
        context = authority.client()
        secure = trio.SSLStream(stream, context, server_hostname="server.example")
        await secure.do_handshake()
        await secure.aclose()

    async with trio.open_nursery() as together:
        for _ in range(20):
            together.start_soon(shake)
    with trio.fail_after(10):
        while len(callers.ends) < 20:  # of the last ones this side may hear a moment later
            await trio.sleep(0.001)
    assert callers.ends == [("honest", "")] * 20
    assert callers.versions == ["TLSv1.3"] * 20
