"""Addresses, URLs and origins in the configuration: forms, refusals, what follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config import (
    AdminAccess,
    Bind,
    derive_public_url,
    effective,
    load_admin,
    parse_admin,
    websocket_url,
)
from relay.errors import ConfigError
from relay.policy.catalog import TraceReceiver
from tests.helpers.config_file import SMALLEST, ConfigFile


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


def server(lines: str) -> str:
    return f"[server]\n{lines}\n{SMALLEST}"


# Addresses


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8080", Bind("tcp", "127.0.0.1", 8080)),
        ("[::1]:8080", Bind("tcp", "::1", 8080)),
        ("localhost:0", Bind("tcp", "localhost", 0)),
        ("Node-1.example.com:65535", Bind("tcp", "node-1.example.com", 65535)),
        ("unix:/run/r.sock", Bind("unix", path="/run/r.sock")),
    ],
)
def test_bind_forms(file: ConfigFile, text: str, bind: Bind) -> None:
    config = file.load(server(f"bind = '{text}'\npublic_url = 'http://x'"))
    assert config.binds == (bind,)
    assert str(bind) == text.lower() or bind.kind == "unix"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        "localhost",
        ":8080",
        "::1:8080",
        "[::1]",
        "[::1%lo]:80",
        "[x]:80",
        "0:80",
        "1.2.3:80",
        "256.1.1.1:80",
        "a..b:80",
        "-a:80",
        "h:65536",
        "h:-1",
        "h:٣",
        "h:",
        "u@h:80",
        "http://h:80",
        "unix:",
        "a b:80",
        "h:80/",
        "0x7f.1:80",
    ],
)
def test_bind_refuses_other_forms(file: ConfigFile, text: str) -> None:
    (line,) = file.problems(server(f"bind = '{text}'"))
    assert line.startswith("server.bind: ")
    assert "expected host:port, [v6]:port or unix:/path" in line


def test_bind_without_a_host_says_how_to_name_every_address(file: ConfigFile) -> None:
    (line,) = file.problems(server("bind = ':80'"))
    assert line.endswith('every address is "0.0.0.0:80"')


def test_unix_path_must_fit_the_kernel(file: ConfigFile) -> None:
    (line,) = file.problems(server(f"bind = 'unix:/{'x' * 107}'\npublic_url = 'http://x'"))
    assert "at most 107 bytes" in line


@pytest.mark.parametrize("text", ["0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80", "unix:/x"])
@pytest.mark.parametrize("form", ["'{}'", "['127.0.0.1:8080', '{}']"])
def test_public_url_is_required_where_bind_does_not_tell(
    file: ConfigFile, text: str, form: str
) -> None:
    (line,) = file.problems(server(f"bind = {form.format(text)}"))
    assert line.startswith("server.public_url: not given")


def test_public_url_is_unknown_until_the_port_is(file: ConfigFile) -> None:
    config = file.load(server("bind = '[::1]:0'"))
    assert config.public_url == ""
    known = config.with_public_url(derive_public_url("::1", 4711))
    assert known.public_url == known.catalog.public_url == "http://[::1]:4711"
    assert known.binds == config.binds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "voice.example.com",
        "ws://x",
        "https://",
        "https://x?y",
        "https://x/?",
        "https://x#y",
        "https://u:hunter2@x",
        "https://x:0",
        "https://x:y",
        "https://x/a b",
        "https://x/%zz",
    ],
)
def test_public_url_refuses_other_forms(file: ConfigFile, text: str) -> None:
    (line,) = file.problems(server(f"public_url = '{text}'"))
    assert line.startswith("server.public_url: ")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("public_url", "expected"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/ws/generic/bot.acme"),
        ("https://x.example/calls", "wss://x.example/calls/ws/generic/bot.acme"),
    ],
)
def test_websocket_url(public_url: str, expected: str) -> None:
    assert websocket_url(public_url, "bot.acme") == expected


def test_listeners_stand_once(file: ConfigFile) -> None:
    (line,) = file.problems(server("bind = ['127.0.0.1:80', '127.0.0.1:80']"))
    assert line.startswith("server.bind[1]: found")
    (line,) = file.problems(server("bind = '127.0.0.1:8081'"))
    assert line.startswith("server.admin_bind: the same as bind")
    (line,) = file.problems(server("bind = []"))
    assert line == "server.bind: found 0, expected 1 to 16 listeners"
    both = file.load(server("bind = ['127.0.0.1:0', '127.0.0.1:0']\nadmin_bind='127.0.0.1:0'"))
    assert len(both.binds) == 2


@pytest.mark.parametrize("text", ["0.0.0.0:81", "[::]:81", "10.0.0.1:81", "node:81"])
def test_administration_that_others_reach_needs_a_token(file: ConfigFile, text: str) -> None:
    (line,) = file.problems(server(f"admin_bind = '{text}'"))
    assert line.startswith("server.admin_token: not given")
    file.load(server(f"admin_bind = '{text}'\nadmin_token = 'a-token-of-acme.'"))


@pytest.mark.parametrize("text", ["127.9.9.9:81", "[::1]:81", "localhost:81", "unix:admin"])
def test_local_administration_needs_no_token(file: ConfigFile, text: str) -> None:
    assert file.load(server(f"admin_bind = '{text}'")).admin_token is None


@pytest.mark.parametrize(
    ("origins", "where"),
    [
        ("['*', 'https://x']", "cors_origins"),
        ("['https://x/']", "cors_origins[0]"),
        ("['x']", "cors_origins[0]"),
        ("[1]", "cors_origins[0]"),
        ("'*'", "cors_origins"),
    ],
)
def test_origins_refuse_other_forms(file: ConfigFile, origins: str, where: str) -> None:
    (line,) = file.problems(server(f"cors_origins = {origins}"))
    assert line.startswith(f"server.{where}: ")


@pytest.mark.parametrize("key", ["trusted_proxies", "proxy_protocol"])
@pytest.mark.parametrize(
    ("proxies", "where"),
    [
        ("['10.0.0.1/8']", "[0]"),
        ("['10.0.0.0/8', 'proxy.example']", "[1]"),
        ("['10.0.0.0/8', 'unix:/run/front.sock']", "[1]"),
        ("'10.0.0.0/8'", ""),
    ],
)
def test_peers_refuse_other_forms(file: ConfigFile, key: str, proxies: str, where: str) -> None:
    (line,) = file.problems(server(f"{key} = {proxies}"))
    assert line.startswith(f"server.{key}{where}: ")


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:hunter2@h:1/0",
        "memory:",
        "sqlite::memory:",
        "sqlite:",
        "sqlite:///x",
        "x.db",
        "",
        "sqlite:dir/",
    ],
)
def test_store_refuses_other_forms_and_says_what_to_use(file: ConfigFile, url: str) -> None:
    (line,) = file.problems(f"store.url = '{url}'\n" + SMALLEST)
    assert line.startswith("store.url: ")
    assert '"sqlite:PATH"' in line
    assert "hunter2" not in line


# What a command needs to reach the daemon


def test_admin_access_does_not_need_the_rest_of_the_file(file: ConfigFile) -> None:
    file.path.write_text(
        "[server]\nadmin_bind = '10.0.0.1:81'\nadmin_token_env = 'TOKEN'\npumps = 'x'\n"
        "[organizations.acme]\ntoken_keys = [{ id = 'a', secret_env = 'NOT-HERE' }]\n"
    )
    found = load_admin(file.path, {"TOKEN": "admin-token-of-acme"})
    assert found == AdminAccess(Bind("tcp", "10.0.0.1", 81), "admin-token-of-acme")
    with pytest.raises(ConfigError, match="admin_token_env: the environment variable TOKEN is not"):
        load_admin(file.path, {})


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("http://127.0.0.1:8081/", Bind("tcp", "127.0.0.1", 8081)),
        ("[::1]:8081", Bind("tcp", "::1", 8081)),
        ("unix:/run/admin.sock", Bind("unix", path="/run/admin.sock")),
    ],
)
def test_admin_addresses(text: str, bind: Bind) -> None:
    assert parse_admin(text) == bind


@pytest.mark.parametrize("text", ["https://x:1", "x", "http://x", "http://x:1/path"])
def test_admin_addresses_refuse_other_forms(text: str) -> None:
    with pytest.raises(ConfigError, match="expected http://host:port or unix:/path"):
        parse_admin(text)


# Traces


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:4318", "ftp://x/v1", "http://user:pw@x/v1", "http://x/v1#part", "http://x:0/", ""],
)
def test_trace_endpoints_refuse_other_forms(file: ConfigFile, url: str) -> None:
    (line,) = file.problems(f'[traces]\nendpoint = "{url}"\n{SMALLEST}')
    assert line.startswith("traces.endpoint: ")
    assert "expected a URL" in line
    assert "pw" not in line


def test_traces_need_an_endpoint(file: ConfigFile) -> None:
    (line,) = file.problems(f"[traces]\nratio = 0.5\n{SMALLEST}")
    assert line == "traces.endpoint: not given, expected the URL that takes spans"
    assert file.load(SMALLEST).traces is None


def test_traces_are_shown_without_a_key_in_their_address(file: ConfigFile) -> None:
    url = "http://collector:4318/v1/traces?key=hidden"
    config = file.load(f'[traces]\nendpoint = "{url}"\nratio = 0\n{SMALLEST}')
    assert config.traces == TraceReceiver(url, 0.0, "relay")
    shown = '[traces]\nendpoint = "http://collector:4318/…"\nratio = 0\nservice_name = "relay"'
    assert shown in effective(config)
