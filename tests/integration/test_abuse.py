"""Limits on what one address or key may ask for, each met by callers from several addresses."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.helpers.daemon import (
    PRIVATE_KEY,
    PUBLIC_KEY,
    Answer,
    Daemon,
    running_daemon,
    wait_until,
)
from tests.helpers.ends import Ends
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.wire import Wire, refused, request, token_for, upgrade

PROXY, BALANCER = "127.0.0.9", "127.0.0.8"
LIMITS = """
max_connections_per_address = 3
key_sessions_per_minute = 4
address_sessions_per_minute = 2
address_refusals_per_minute = 3
"""
# Each test has callers of its own, since none waits for a bucket to fill.
ADDRESSES = (f"127.0.{number // 200 + 1}.{number % 200 + 1}" for number in count())


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with scripted_bot() as bot, scripted_bot() as other:
        bot.script = other.script = Ends()
        agent = f"""
sessions_per_instance = 1000
[agents.open]
organization = "acme"
instances = ["{other.url}"]
websocket_auth = "none"
sessions_per_instance = 1000
"""
        folder = tmp_path_factory.mktemp("abuse")
        server = f'trusted_proxies = ["{PROXY}"]\nproxy_protocol = ["{BALANCER}"]'
        with running_daemon(folder, [bot.url], agent, LIMITS, server) as daemon:
            wait_until(lambda: b'"ready"' in daemon.request("GET", "/readyz", admin=True).body, "")
            yield daemon


@pytest.fixture
def source() -> str:
    return next(ADDRESSES)


def ask(daemon: Daemon, source: str, data: bytes) -> Answer:
    with Wire(daemon.port, source) as wire:
        return wire.ask(data)


def start(key: str, *fields: str, agent: str = "bot") -> bytes:
    body = b'{"transport": "websocket"}'
    fields = (f"Authorization: Bearer {key}", f"Content-Length: {len(body)}", *fields)
    return request("POST", f"/v1/public/{agent}/start", *fields, body=body)


def connect(token: str, *fields: str) -> bytes:
    return upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token}", *fields)


def limited(daemon: Daemon, answer: Answer, cause: str) -> None:
    refused(daemon, answer, 429, cause)
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def counted(daemon: Daemon, cause: str) -> float:
    """How often `/metrics` says that something was refused for a cause."""
    text = daemon.request("GET", "/metrics", admin=True).body.decode()
    found = re.findall(rf'^relay_refusals_total{{cause="{cause}",phase="\w+"}} (\S+)$', text, re.M)
    return sum(map(float, found))


def test_connections_of_one_address(daemon: Daemon, source: str) -> None:
    before = counted(daemon, "too_many_from_address")
    held = [Wire(daemon.port, source) for _ in range(3)]
    try:
        for wire in held:
            assert wire.ask(request("GET", "/")).status == 404
        with Wire(daemon.port, source) as wire:
            limited(daemon, wire.answer(), "too_many_from_address")
        assert counted(daemon, "too_many_from_address") == before + 1
        # Others, and callers behind a proxy whose connections are many callers', do not notice.
        assert ask(daemon, next(ADDRESSES), request("GET", "/")).status == 404
        behind = [Wire(daemon.port, PROXY) for _ in range(5)]
        for wire in behind:
            assert wire.ask(request("GET", "/")).status == 404
            wire.close()
    finally:
        for wire in held:
            wire.close()

    def served() -> bool:
        return ask(daemon, source, request("GET", "/")).status == 404

    wait_until(served, "the three are known to be gone")


def test_calls_are_no_connections_of_their_address(daemon: Daemon, source: str) -> None:
    """What has been handed to a pump does not count."""
    wires = [Wire(daemon.port, source) for _ in range(3)]
    for wire in wires:
        assert wire.ask(connect(token_for())).status == 101

    def served() -> bool:
        return ask(daemon, source, request("GET", "/")).status == 404

    wait_until(served, "the calls are in the pump")
    for wire in wires:
        wire.close()


def test_a_flood_is_ended_and_counted(daemon: Daemon, source: str) -> None:
    """Many at a time over the limit: some are told why, all are ended and counted."""
    before = counted(daemon, "too_many_from_address")
    held = [Wire(daemon.port, source) for _ in range(3)]
    for wire in held:
        assert wire.ask(request("GET", "/")).status == 404
    flood = [Wire(daemon.port, source) for _ in range(150)]
    answers: list[bytes] = []

    def read(wire: Wire) -> None:
        try:
            answers.append(wire.rest())
        except ConnectionResetError:
            answers.append(b"")
        wire.close()

    readers = [threading.Thread(target=read, args=(wire,)) for wire in flood]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(answers) == 150
    kinds = {data[:12] for data in answers}
    assert b"HTTP/1.1 429" in kinds
    assert kinds <= {b"", b"HTTP/1.1 429"}
    wait_until(lambda: counted(daemon, "too_many_from_address") == before + 150, "all are counted")
    for wire in held:
        assert wire.ask(request("GET", "/")).status == 404
        wire.close()


def test_sessions_of_one_address(daemon: Daemon, source: str) -> None:
    for _ in range(2):
        assert ask(daemon, source, start(PUBLIC_KEY)).status == 200
    limited(daemon, ask(daemon, source, start(PUBLIC_KEY)), "rate_limited_address")
    # Not a bad key's, and not by another address.
    assert ask(daemon, next(ADDRESSES), start(PUBLIC_KEY)).status == 200
    assert counted(daemon, "rate_limited_address") >= 1


def test_direct_calls_of_one_address(daemon: Daemon, source: str) -> None:
    direct = upgrade("/ws/generic/open.acme")
    for _ in range(2):
        assert ask(daemon, source, direct).status == 101
    limited(daemon, ask(daemon, source, direct), "rate_limited_address")
    # Who comes with a token has asked for the session before.
    assert ask(daemon, source, connect(token_for())).status == 101


def test_sessions_of_one_key(daemon: Daemon) -> None:
    for _ in range(4):
        assert ask(daemon, next(ADDRESSES), start(PRIVATE_KEY)).status == 200
    limited(daemon, ask(daemon, next(ADDRESSES), start(PRIVATE_KEY)), "rate_limited_key")
    assert counted(daemon, "rate_limited_key") >= 1


def test_an_address_over_its_limit_takes_nothing_from_the_key(tmp_path: Path) -> None:
    limits = "address_sessions_per_minute = 1\nkey_sessions_per_minute = 2"
    with scripted_bot() as bot:
        agent = "sessions_per_instance = 100"
        with running_daemon(tmp_path, [bot.url], agent, limits) as daemon:
            wait_until(lambda: ask(daemon, "127.0.0.2", start(PUBLIC_KEY)).status != 400, "ready")
            for _ in range(3):
                limited(daemon, ask(daemon, "127.0.0.2", start(PUBLIC_KEY)), "rate_limited_address")
            assert ask(daemon, "127.0.0.1", start(PUBLIC_KEY)).status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(start("pk_wrong"), 401, id="a key"),
        pytest.param(connect("wrong"), 403, id="a token"),
        pytest.param(connect(token_for(secret="x" * 32)), 403, id="a signature"),
    ],
)
def test_refused_handshakes_of_one_address(
    daemon: Daemon, source: str, data: bytes, status: int
) -> None:
    for _ in range(3):
        assert ask(daemon, source, data).status == status
    limited(daemon, ask(daemon, source, data), "too_many_refused")
    # Whatever it sends now, nothing of it is judged; who is elsewhere is served.
    limited(daemon, ask(daemon, source, connect(token_for())), "too_many_refused")
    assert ask(daemon, next(ADDRESSES), connect(token_for())).status == 101
    assert counted(daemon, "too_many_refused") >= 2


def test_a_used_token_again_and_again(daemon: Daemon, source: str) -> None:
    token = token_for()
    assert ask(daemon, source, connect(token)).status == 101
    for _ in range(3):
        assert ask(daemon, source, connect(token)).status == 403
    limited(daemon, ask(daemon, source, connect(token)), "too_many_refused")


def test_other_refusals_do_not_count(daemon: Daemon, source: str) -> None:
    for _ in range(5):
        assert ask(daemon, source, request("GET", "/nowhere")).status == 404
    assert ask(daemon, source, connect(token_for())).status == 101


def test_callers_behind_a_proxy_are_counted_by_what_it_says(daemon: Daemon) -> None:
    def bad(*fields: str) -> Answer:
        return ask(daemon, PROXY, connect("wrong", *fields))

    for _ in range(3):
        assert bad("X-Forwarded-For: 192.0.2.1").status == 403
    # The same one, whatever it put in front of what the proxy has added.
    limited(daemon, bad("X-Forwarded-For: 198.51.100.7, 192.0.2.1"), "too_many_refused")
    assert bad("X-Forwarded-For: 192.0.2.1, 192.0.2.2").status == 403
    assert bad("Forwarded: for=192.0.2.3;proto=https").status == 403
    limited(daemon, bad("Forwarded: for=192.0.2.1;proto=https"), "too_many_refused")


def test_callers_in_a_proxy_header_are_counted_by_it(daemon: Daemon) -> None:
    def announced(address: str) -> bytes:
        return f"PROXY TCP4 {address} 198.51.100.9 56288 443\r\n".encode()

    for _ in range(3):
        assert ask(daemon, BALANCER, announced("192.0.2.50") + connect("wrong")).status == 403
    again = ask(daemon, BALANCER, announced("192.0.2.50") + connect("wrong"))
    limited(daemon, again, "too_many_refused")
    assert ask(daemon, BALANCER, announced("192.0.2.51") + connect("wrong")).status == 403
    held = [Wire(daemon.port, BALANCER) for _ in range(3)]
    for wire in held:
        assert wire.ask(announced("192.0.2.52") + request("GET", "/")).status == 404
    over = ask(daemon, BALANCER, announced("192.0.2.52"))
    limited(daemon, over, "too_many_from_address")
    assert ask(daemon, BALANCER, announced("192.0.2.53") + request("GET", "/")).status == 404
    for wire in held:
        wire.close()


def test_a_caller_cannot_name_another(daemon: Daemon, source: str) -> None:
    """From a peer that nobody trusts such fields change nothing."""
    for number in range(3):
        named = f"X-Forwarded-For: 203.0.113.{number}"
        assert ask(daemon, source, connect("wrong", named)).status == 403
    limited(
        daemon,
        ask(daemon, source, connect("wrong", "X-Forwarded-For: 203.0.113.9")),
        "too_many_refused",
    )
    told = connect("wrong", "X-Forwarded-For: 203.0.113.1")
    assert ask(daemon, PROXY, told).status == 403
