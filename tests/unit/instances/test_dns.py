"""What names stand for: asked of a real name server on loopback, and of the system."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import dns.rcode
import pytest
import trio

from relay.instances import dns as module
from relay.instances.dns import LookupFailure, Resolver
from relay.policy.catalog import DnsName
from relay.policy.names import LEAST_WEIGHT, MAX_ADDRESSES, Found, Rank
from tests.helpers.name_server import NameServer, name_server

BOTS = DnsName("bots.test", 7860)
SERVICE = DnsName("_http._tcp.bots.test")


@pytest.fixture
def server() -> Iterator[NameServer]:
    with name_server() as server:
        yield server


def urls(*hosts: str, port: int = 7860) -> tuple[str, ...]:
    return tuple(f"http://{host}:{port}" for host in hosts)


@pytest.mark.parametrize(
    ("a", "aaaa", "found"),
    [
        (["127.0.0.2", "127.0.0.1"], [], ("127.0.0.1", "127.0.0.2")),
        (["127.0.0.1", "127.0.0.1"], [], ("127.0.0.1",)),
        (["127.0.0.1"], ["fd00::1"], ("127.0.0.1",)),
        ([], ["fd00::2", "::1"], ("[::1]", "[fd00::2]")),
        (["0.0.0.0"], ["fd00::1"], ("[fd00::1]",)),
        (["169.254.1.1", "224.0.0.1", "255.255.255.255"], ["fe80::1", "::", "ff02::1"], ()),
        ([], ["::ffff:10.0.0.9"], ("10.0.0.9",)),
    ],
)
async def test_addresses(
    server: NameServer, a: list[str], aaaa: list[str], found: tuple[str, ...]
) -> None:
    server.table = {("bots.test", "A"): a, ("bots.test", "AAAA"): aaaa}
    answer = await Resolver().look(BOTS, server.address)
    assert answer == Found(urls(*found), ttl=60.0 if found else None)


async def test_a_name_that_does_not_exist_stands_for_no_instance(server: NameServer) -> None:
    assert await Resolver().look(BOTS, server.address) == Found()
    assert await Resolver().look(SERVICE, server.address) == Found()


async def test_hundreds_are_cut_the_same_way_each_time(server: NameServer) -> None:
    hosts = [f"127.0.{n // 200}.{n % 200 + 1}" for n in range(MAX_ADDRESSES + 44)]
    server.table = {("bots.test", "A"): hosts[::-1]}
    found = await Resolver().look(BOTS, server.address)
    assert (found.urls, found.left_out) == (urls(*hosts[:MAX_ADDRESSES]), urls(*hosts[-44:]))


async def test_services_name_hosts_and_ports(server: NameServer) -> None:
    server.table = {
        ("_http._tcp.bots.test", "SRV"): [
            "1 10 7001 one.test.",
            "2 0 7002 one.test.",
            "1 10 7001 one.test.",
            "1 10 7001 two.test.",
            "1 10 7001 same.test.",
            "1 10 7001 nowhere.test.",
            "1 10 0 one.test.",
            "0 0 9 .",
        ],
        # several addresses of one host are one bot's
        ("one.test", "A"): ["127.0.0.9", "127.0.0.1"],
        ("two.test", "AAAA"): ["fd00::2"],
        ("same.test", "A"): ["127.0.0.1"],
    }
    found = await Resolver().look(SERVICE, server.address)
    assert set(found.urls) == {*urls("127.0.0.1", "[fd00::2]", port=7001), "http://127.0.0.1:7002"}
    assert len(found.urls) == 3
    assert found.ttl == 60.0
    assert server.asked.count(("one.test", "A")) == 1
    assert found.ranks["http://127.0.0.1:7001"] == found.ranks["http://[fd00::2]:7001"] == Rank()
    assert found.ranks["http://127.0.0.1:7002"] == Rank(1, 1.0)


async def test_the_weights_of_services_are_those_of_one_priority(server: NameServer) -> None:
    records = ["5 30 1 one.test.", "5 10 2 one.test.", "5 0 3 one.test.", "7 1 4 one.test."]
    # The same host and port again, worse.
    records += ["7 9 1 one.test.", "5 3 2 one.test."]
    server.table = {("_http._tcp.bots.test", "SRV"): records, ("one.test", "A"): ["127.0.0.1"]}
    found = await Resolver().look(SERVICE, server.address)
    assert found.ranks == {
        "http://127.0.0.1:1": Rank(0, 1.0),
        "http://127.0.0.1:2": Rank(0, 1 / 3),
        "http://127.0.0.1:3": Rank(0, LEAST_WEIGHT),
        "http://127.0.0.1:4": Rank(2, 1.0),
    }


async def test_hundreds_of_services(server: NameServer) -> None:
    many = [f"0 0 {port} one.test." for port in range(1, MAX_ADDRESSES + 2)]
    server.table = {("_http._tcp.bots.test", "SRV"): many, ("one.test", "A"): ["127.0.0.1"]}
    found = await Resolver().look(SERVICE, server.address)
    assert len(found.urls) == MAX_ADDRESSES
    assert found.left_out == (f"one.test.:{MAX_ADDRESSES + 1}",)


async def test_the_shortest_life_counts(server: NameServer) -> None:
    server.table = {("bots.test", "A"): ["127.0.0.1"]}
    server.ttl = 3
    assert (await Resolver().look(BOTS, server.address)).ttl == 3.0


@pytest.mark.parametrize("name", [BOTS, SERVICE], ids=["addresses", "services"])
@pytest.mark.parametrize(
    "code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED], ids=["servfail", "refused"]
)
async def test_a_server_that_fails_says_nothing_of_the_name(
    server: NameServer, name: DnsName, code: dns.rcode.Rcode
) -> None:
    server.rcode = code
    with pytest.raises(LookupFailure, match=dns.rcode.to_text(code)):
        await Resolver().look(name, server.address)


async def test_one_host_of_a_service_that_cannot_be_known(server: NameServer) -> None:
    """Without it the answer would be smaller than the truth."""
    server.table = {
        ("_http._tcp.bots.test", "SRV"): ["0 0 7001 one.test.", "0 0 7001 two.test."],
        ("one.test", "A"): ["127.0.0.1"],
    }
    server.failing = {"two.test"}
    with pytest.raises(LookupFailure, match="SERVFAIL"):
        await Resolver().look(SERVICE, server.address)


async def test_silence_is_a_failure(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_TIMEOUT", 0.1)
    server.silent = True
    for name in (BOTS, SERVICE):
        with pytest.raises(LookupFailure, match=r"within|timed out|lifetime"):
            await Resolver().look(name, server.address)


# The system's own resolver.


async def test_the_system_knows_localhost() -> None:
    assert await Resolver().look(DnsName("localhost", 7860), "") == Found(urls("127.0.0.1"))


@pytest.mark.parametrize(
    ("number", "known"),
    [
        (socket.EAI_NONAME, True),
        (socket.EAI_NODATA, True),
        (socket.EAI_AGAIN, False),
        (socket.EAI_FAIL, False),
        (socket.EAI_SYSTEM, False),
    ],
)
async def test_what_the_system_says_of_a_name_without_addresses(
    monkeypatch: pytest.MonkeyPatch, number: int, known: bool
) -> None:
    def refuse(*_arguments: object, **_options: object) -> object:
        raise socket.gaierror(number, "what it says")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    if known:
        assert await Resolver().look(BOTS, "") == Found()
    else:
        with pytest.raises(LookupFailure, match="what it says"):
            await Resolver().look(BOTS, "")


async def test_a_system_that_hangs_holds_nothing_else_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads are its own; the look is over when its time is."""
    gate = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: gate.wait(10) and [])
    monkeypatch.setattr(module, "LOOK_TIMEOUT", 0.05)
    resolver = Resolver()
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(module.MAX_THREADS * 2):
                nursery.start_soon(_fails, resolver)
        default = trio.to_thread.current_default_thread_limiter()
        assert default.borrowed_tokens == 0
    finally:
        gate.set()


async def _fails(resolver: Resolver) -> None:
    with pytest.raises(LookupFailure, match=r"no answer within 0\.05 s"):
        await resolver.look(BOTS, "")
