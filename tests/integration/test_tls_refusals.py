"""What a listener with TLS lets nobody do: versions, ciphers, and everything that is no TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemon import PATIENCE, Daemon, raw_exchange, read_all, wait_until
from tests.helpers.ends import begin, is_quiet, nothing_is_held
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.tls import Authority, running_secure, secure_config
from tests.helpers.wire import echoes, exchange_line, keeps_secrets, request

# The records with which clients of other times begin: SSL 2, and SSL 3 with one old cipher.
SSL2 = b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x01\x00\x80" * 7 + bytes(16)
HELLO3 = b"\x01\x00\x00\x29\x03\x00" + bytes(32) + b"\x00\x00\x02\x00\x0a\x01\x00"
SSL3 = b"\x16\x03\x00" + len(HELLO3).to_bytes(2, "big") + HELLO3
# All that TLS 1.2 may use here: forward secrecy, and encryption that authenticates.
GOOD = {
    f"ECDHE-{key}-{cipher}"
    for key in ("ECDSA", "RSA")
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
}
SUITES = ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
BALANCER = "127.0.0.2"
LIMITS = "handshake_timeout = 1\nclose_timeout = 1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def daemon(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One with a key of each kind; a call goes on through everything that is tried here."""
    shown = authority.issue("shown"), authority.issue("rsa", "rsa.example", rsa=True)
    folder = tmp_path_factory.mktemp("relay")
    with scripted_bot() as bot:
        server = f'proxy_protocol = ["{BALANCER}"]'
        config = secure_config([bot.url], *shown, limits=LIMITS, server=server)
        with running_secure(folder, config, authority.client()) as daemon:
            with begin(daemon) as began:
                yield daemon
                assert echoes(began.ws)
            daemon.wait_ended(began.id)
            nothing_is_held(daemon)
            is_quiet(daemon)
            keeps_secrets(daemon)


def old_client() -> ssl.SSLContext:
    """One that speaks, and believes, everything that this machine's OpenSSL still can."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return context


def agreed(daemon: Daemon, context: ssl.SSLContext, name: str | None = None) -> str | None:
    """The cipher that a client gets, None when the handshake fails."""
    with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=name) as secure:
                return str(secure.cipher()[0])  # type: ignore[index]
        except OSError:
            return None


def causes(daemon: Daemon) -> Counter[str]:
    """Failed handshakes so far, which the metrics and the log tell alike."""
    counted: Counter[str] = Counter()
    for line in daemon.request("GET", "/metrics", admin=True).body.decode().splitlines():
        if line.startswith('relay_refusals_total{cause="') and 'phase="accept"' in line:
            counted[line.split('"')[1]] = int(float(line.rpartition(" ")[2]))
    return counted


def only(daemon: Daemon, before: Counter[str], cause: str, count: int = 1) -> None:
    """So many handshakes have failed since, all with this cause."""
    wait_until(lambda: (causes(daemon) - before).total() >= count, f"{count} {cause}")
    assert causes(daemon) - before == {cause: count}
    assert [line for line in daemon.logs() if line.get("cause") == cause][-1]["reason"]


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_versions(daemon: Daemon, version: str) -> None:
    before, context = causes(daemon), old_client()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    good = version in ("TLSv1_2", "TLSv1_3")
    assert (agreed(daemon, context) is not None) is good
    if not good:
        only(daemon, before, "tls_version")


@pytest.mark.parametrize(
    ("hello", "cause"), [(SSL2, "not_tls"), (SSL3, "tls_version")], ids=["SSL 2", "SSL 3"]
)
def test_versions_of_other_times(daemon: Daemon, hello: bytes, cause: str) -> None:
    before = causes(daemon)
    answer = raw_exchange(daemon.port, hello)
    assert answer == b"" or answer[0] == 0x15  # an alert at most
    only(daemon, before, cause)


def test_ciphers(daemon: Daemon) -> None:
    """Each that OpenSSL can offer alone; those are let in that are good, with either key."""
    before, context = causes(daemon), old_client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    offered = {each["name"] for each in context.get_ciphers()}
    offered = {name for name in offered if not name.startswith("TLS_")}  # those of TLS 1.3
    assert len(offered) > 50
    found = set()
    for cipher in sorted(offered):
        context.set_ciphers(f"{cipher}:@SECLEVEL=0")
        for name in (None, "rsa.example"):
            found |= {agreed(daemon, context, name)}
    assert found - {None} == GOOD
    failed = 2 * len(offered) - len(GOOD)
    wait_until(lambda: (causes(daemon) - before).total() == failed, "all have failed")
    # A client that can't offer its only cipher either, for want of a key, sends an alert at once.
    assert set(causes(daemon) - before) <= {"tls_no_cipher", "not_tls"}


def test_suites_of_tls_1_3(daemon: Daemon) -> None:
    suite = agreed(daemon, ssl._create_unverified_context())
    assert suite in {f"TLS_{each}" for each in SUITES}


def test_plain_http_is_told(daemon: Daemon) -> None:
    before = causes(daemon)
    answer = raw_exchange(daemon.port, request("GET", "/v1/agents"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"this port speaks TLS; use https:// or wss://" in answer
    wait_until(lambda: causes(daemon) - before, "it was counted")
    assert causes(daemon) - before == {"plain_http": 1}


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        pytest.param(b"\x00" * 1000, "not_tls", id="zeros"),
        pytest.param(b"\xff" * 1000, "not_tls", id="ones"),
        pytest.param(b"\x16" * 1000, "tls_malformed", id="the first byte again and again"),
        pytest.param(b"\x16\x03\x01\x00\x02\x01\x00", "tls_left", id="a part"),
        pytest.param(b"\x16\x03\x01\x40\x01" + bytes(20000), "tls_malformed", id="too long"),
        pytest.param(b"", "tls_left", id="nothing"),
    ],
)
def test_garbage(daemon: Daemon, data: bytes, cause: str) -> None:
    before = causes(daemon)
    answer = raw_exchange(daemon.port, data)
    assert answer == b"" or answer[0] == 0x15
    only(daemon, before, cause)


@pytest.mark.parametrize("pause", [False, True], ids=["at once", "in two parts"])
def test_tls_behind_a_proxy_header(daemon: Daemon, pause: bool) -> None:
    assert daemon.tls is not None
    address, line = ("127.0.0.1", daemon.port), b"PROXY TCP4 192.0.2.7 198.51.100.9 56288 443\r\n"
    with socket.create_connection(address, PATIENCE, source_address=(BALANCER, 0)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if pause:
            plain.sendall(line[:20])
            daemon.request("GET", "/")  # the first part has been read meanwhile
            plain.sendall(line[20:])
        else:
            plain.sendall(line)
        with daemon.tls.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            name = f"behind-a-balancer-{pause}"
            secure.sendall(request("GET", "/", f"X-Request-Id: {name}"))
            assert secure.recv(12) == b"HTTP/1.1 404"
    assert exchange_line(daemon, name)["peer"] == "192.0.2.7:56288"


def test_garbage_behind_the_handshake(daemon: Daemon) -> None:
    assert daemon.tls is not None
    with (
        socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as plain,
        daemon.tls.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        socket.socket.sendall(secure, request("GET", "/"))
        assert secure.fileno() >= 0
        with pytest.raises(ssl.SSLError):
            secure.recv(1)


def test_slow_handshakes_end(daemon: Daemon) -> None:
    before = causes(daemon)
    slow = [socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) for _ in range(3)]
    slow[1].sendall(b"\x16")
    slow[2].sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01")
    assert daemon.request("GET", "/").status == 404  # others go on meanwhile
    for each in slow:
        assert read_all(each) == b""
        each.close()
    only(daemon, before, "tls_timeout", 3)


def test_who_does_not_trust_the_certificate(daemon: Daemon, tmp_path: Path) -> None:
    before = causes(daemon)
    assert agreed(daemon, Authority(tmp_path, "other").client(), "127.0.0.1") is None
    only(daemon, before, "tls_refused")


def test_who_leaves_in_the_midst(daemon: Daemon) -> None:
    before = causes(daemon)
    context, hello, answer = old_client(), ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(answer, hello)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as plain:
        plain.sendall(hello.read())
        assert plain.recv(1) == b"\x16"  # the server's part is on its way
    only(daemon, before, "tls_left")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="Python can't ask for a renegotiation")
def test_no_renegotiation(daemon: Daemon) -> None:
    address = f"127.0.0.1:{daemon.port}"
    done = subprocess.run(
        ["openssl", "s_client", "-tls1_2", "-connect", address],
        input=b"R\n", capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said
    assert daemon.request("GET", "/").status == 404
