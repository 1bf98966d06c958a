"""Where the daemon listens, and starts that are refused: exit code 2, one line, no traceback."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.sync.client import connect, unix_connect

from tests.helpers.daemon import (
    PATIENCE,
    Daemon,
    config_text,
    raw_exchange,
    running_daemon,
    spawn,
    start_daemon,
    wait_until,
)
from tests.helpers.ends import Ends, ends_cleanly
from tests.helpers.scripted_bot import ScriptedBot, scripted_bot
from tests.helpers.wire import echoes, request, token_for

BIND = '\nbind = "127.0.0.1:0"'
ADMIN = '\nadmin_bind = "127.0.0.1:0"'
# Every connection of a test comes from one address.
ALL_FOR_ONE = "max_connections = 2\nmax_connections_per_address = 0"


@pytest.fixture(scope="module")
def bot() -> Iterator[ScriptedBot]:
    with scripted_bot() as bot:
        bot.script = Ends()
        yield bot


def configured(bot: ScriptedBot, **changes: str) -> str:
    """The usual configuration with some of its lines replaced."""
    text = config_text([bot.url])
    for old, new in ((BIND, changes.get("bind")), (ADMIN, changes.get("admin"))):
        text = text.replace(old, f"\n{new}") if new is not None else text
    return text.replace('runtime_dir = "run"', f'runtime_dir = "{changes.get("run", "run")}"')


def unix_get(path: Path, target: str) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(request("GET", target, "Connection: close"))
        return b"".join(iter(lambda: sock.recv(65536), b""))


# Listening.


def test_unix_sockets(bot: ScriptedBot, tmp_path: Path) -> None:
    """Public and administration on Unix sockets: mode 0600, a stale one is taken over."""
    public, admin = tmp_path / "public.sock", tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(public))  # bound, never listened to: what a killed daemon leaves
    changes = {"bind": 'bind = "unix:public.sock"', "admin": 'admin_bind = "unix:admin.sock"'}
    text = configured(bot, **changes).replace(
        "[store]", 'public_url = "https://calls.example/voice"\n[store]'
    )
    config = tmp_path / "relay.toml"
    config.write_text(text)
    process = spawn(["relay", "serve", "--config", str(config)], tmp_path, "relay")
    daemon = Daemon(process, tmp_path, 0, 0, config)
    try:
        wait_until(process.output, "the daemon listens")
        assert process.output().strip() == (
            f"relay listens on https://calls.example/voice, administration on unix:{admin}"
        )
        for path in (public, admin):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
        assert unix_get(admin, "/readyz").startswith(b"HTTP/1.1 200 ")
        with unix_connect(
            str(public),
            "ws://relay/ws/generic/bot.acme",
            additional_headers={"Authorization": f"Bearer {token_for()}"},
        ) as ws:
            assert echoes(ws)
        # A second daemon finds it alive and leaves it alone.
        other = tmp_path / "other"
        other.mkdir()
        second = text.replace("unix:public.sock", f"unix:{public}")
        refused(other, second, f"{public} is in use by another process")
        assert unix_get(public, "/").startswith(b"HTTP/1.1 404 ")
    finally:
        process.end()
    ends_cleanly(daemon)


def test_several_addresses_one_of_them_ipv6(bot: ScriptedBot, tmp_path: Path) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    with socket.socket() as one, socket.socket(socket.AF_INET6) as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("::1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    # The IPv6 address stands first, so it is the one that the URL is made from.
    bind = f'bind = ["[::1]:{ports[1]}", "127.0.0.1:{ports[0]}", "unix:third.sock"]'
    text = configured(bot, bind=bind)
    public_url = f'public_url = "http://[::1]:{ports[1]}"\n[store]'
    daemon = start_daemon(tmp_path, text.replace("[store]", public_url))
    try:
        assert f"relay listens on http://[::1]:{ports[1]}," in daemon.process.output()
        hosts = [f"[::1]:{ports[1]}", f"127.0.0.1:{ports[0]}"]
        for host in hosts:
            url = f"ws://{host}/ws/generic/bot.acme/{token_for()}"
            with connect(url, proxy=None) as ws:
                assert echoes(ws)
            daemon.wait_ended(ws.response.headers["x-daily-session-id"])  # type: ignore[union-attr]
        assert unix_get(tmp_path / "third.sock", "/").startswith(b"HTTP/1.1 404 ")
    finally:
        daemon.process.end()
    ends_cleanly(daemon)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_more_connections_than_allowed(bot: ScriptedBot, tmp_path: Path) -> None:
    with running_daemon(tmp_path, [bot.url], limits=ALL_FOR_ONE) as daemon:
        address = ("127.0.0.1", daemon.port)
        with socket.create_connection(address), socket.create_connection(address):
            answer = raw_exchange(daemon.port, b"")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"too many connections" in answer

        def answered() -> bool:
            return raw_exchange(daemon.port, request("GET", "/")).startswith(b"HTTP/1.1 404 ")

        wait_until(answered, "the two are known to be gone")


# Starts that are refused.


def refused(folder: Path, config: str, *parts: str) -> None:
    """The daemon does not start: exit code 2 and one line that has these parts."""
    path = folder / "relay.toml"
    path.write_text(config)
    process = spawn(["relay", "serve", "--config", str(path)], folder, "refused")
    assert process.popen.wait(PATIENCE) == 2, process.errors()
    lines = process.errors().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("relay: ")
    for part in parts:
        assert part in lines[0]
    assert process.output() == ""


@pytest.mark.parametrize("which", ["bind", "admin"])
def test_a_port_in_use(bot: ScriptedBot, tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        key = "bind" if which == "bind" else "admin_bind"
        text = configured(bot, **{which: f'{key} = "{address}"'})
        refused(tmp_path, text, f"server.{key}: {address} is in use by another process")


def test_an_address_that_is_not_ours(bot: ScriptedBot, tmp_path: Path) -> None:
    # 192.0.2.0/24 is for documentation (RFC 5737): no machine has an address of it.
    text = configured(bot, bind='bind = "192.0.2.1:8080"')
    refused(tmp_path, text, "can't listen on 192.0.2.1:8080")


def test_a_file_where_the_socket_should_be(bot: ScriptedBot, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    file.write_text("of somebody")
    text = configured(bot, admin='admin_bind = "unix:notes"')
    refused(tmp_path, text, f"can't listen on {file}: there is a file that is no socket")
    assert file.read_text() == "of somebody"


def test_a_runtime_directory_that_is_a_file(bot: ScriptedBot, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    refused(
        tmp_path, configured(bot), "server.runtime_dir", f"{tmp_path}/run", "expected a directory"
    )


def test_a_runtime_directory_below_a_file(bot: ScriptedBot, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = configured(bot, run="file/run")
    refused(tmp_path, text, "server.runtime_dir", f"{tmp_path}/file/run", "Not a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="for root every directory is writable")
def test_a_runtime_directory_that_is_not_ours_to_write(bot: ScriptedBot, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    text = configured(bot, run="locked/run")
    refused(tmp_path, text, "server.runtime_dir", f"{tmp_path}/locked/run", "Permission denied")


def test_a_runtime_directory_with_a_long_path(bot: ScriptedBot, tmp_path: Path) -> None:
    text = configured(bot, run="r" * 100)
    refused(tmp_path, text, "server.runtime_dir", "too long", "107 bytes")
    assert not (tmp_path / ("r" * 100)).exists()


def test_the_longest_runtime_directory_that_fits(bot: ScriptedBot, tmp_path: Path) -> None:
    room = 107 - len(os.fsencode(tmp_path)) - len("//pump-0.sock")
    assert room > 0, "the temporary directory's own path is too long"
    daemon = start_daemon(tmp_path, configured(bot, run="r" * room))
    daemon.process.end()
    ends_cleanly(daemon)


def test_a_store_of_another_version(bot: ScriptedBot, tmp_path: Path) -> None:
    daemon = start_daemon(tmp_path, configured(bot))
    daemon.process.end()
    store = tmp_path / "relay.db"
    with closing(sqlite3.connect(store)) as file:
        file.execute("PRAGMA user_version = 999")
    refused(tmp_path, configured(bot), "store.url", str(store), "schema version 999")


def test_a_store_of_another_program(bot: ScriptedBot, tmp_path: Path) -> None:
    store = tmp_path / "relay.db"
    with closing(sqlite3.connect(store)) as file:
        file.execute("CREATE TABLE bookmarks (url TEXT)")
    refused(tmp_path, configured(bot), str(store), "another program")
    store.write_bytes(b"no database at all, but a text of some length" * 20)
    refused(tmp_path, configured(bot), str(store), "not a database")


def test_a_key_that_the_environment_lacks(bot: ScriptedBot, tmp_path: Path) -> None:
    text = configured(bot)
    before, _, rest = text.partition('secret = "')
    text = f'{before}secret_env = "RELAY_TEST_MISSING_KEY"{rest.partition(chr(34))[2]}'
    refused(tmp_path, text, "secret_env", "RELAY_TEST_MISSING_KEY")
