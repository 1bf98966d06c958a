"""The configuration file as a whole: what it gives, what is refused, what is shown."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from relay.config import Bind, effective, load
from relay.config.agents import OF_COMMAND, OF_NAMES
from relay.config.reading import key_types
from relay.config.tables import (
    AgentTable,
    CertificateTable,
    IceServerTable,
    LimitsTable,
    OrganizationTable,
    ServerTable,
    StoreTable,
    TlsTable,
    TokenKeyTable,
    TracesTable,
)
from relay.config.text import toml_value
from relay.errors import ConfigError
from relay.policy.catalog import Agent, Limits
from tests.helpers.config_file import ORGANIZATION, PRIVATE, PUBLIC, SECRET, SMALLEST, ConfigFile

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


# What is accepted


def test_smallest_file_has_the_documented_defaults(file: ConfigFile) -> None:
    config = file.load(SMALLEST)
    assert config.binds == (Bind("tcp", "127.0.0.1", 8080),)
    assert config.admin_bind == Bind("tcp", "127.0.0.1", 8081)
    assert config.admin_token is None
    assert config.public_url == config.catalog.public_url == "http://127.0.0.1:8080"
    assert config.pumps == 1
    assert config.store_url == f"sqlite:{file.directory}/relay.db"
    assert config.store_path == file.directory / "relay.db"
    assert config.runtime_dir == file.directory / "relay.run"
    assert (config.log_level, config.log_format) == ("info", "auto")
    assert config.limits == Limits()
    assert config.catalog.agents == {
        "bot": Agent("bot", "acme", instances=("http://127.0.0.1:7860",))
    }
    assert config.catalog.organizations["acme"].public_keys == (PUBLIC,)
    assert config.catalog.cors_origins == ("*",)
    assert config.trusted_proxies == ()
    assert config.proxy_protocol == ()


def test_all_keys_reach_their_values(file: ConfigFile) -> None:
    text = """
    [server]
    bind = ["0.0.0.0:80", "[::1]:8080", "unix:front.sock"]
    admin_bind = "unix:/run/relay/admin.sock"
    admin_token = "admin-token-of-acme"
    public_url = "https://Voice.example.com/calls/"
    pumps = 4
    runtime_dir = "run"
    cors_origins = ["https://App.example.com", "http://localhost:3000"]
    trusted_proxies = ["10.0.0.0/8", "fd00::/8", "192.0.2.1"]
    proxy_protocol = ["10.0.0.0/8", "unix"]
    log_level = "debug"
    log_format = "json"
    [limits]
    reservation_timeout = 12.5
    max_connections = 500
    [store]
    url = "sqlite:data/sessions.db"
    """
    more = """
    websocket_auth = "none"
    relay = "tunnel"
    sessions_per_instance = 3
    max_session_duration = 1
    attach_timeout = 1.5
    ws_path = "/talk"
    ready_path = "/"
    settle_time = 0
    """
    config = file.load(text + SMALLEST + more)
    front = str(file.directory / "front.sock")
    assert config.binds == (
        Bind("tcp", "0.0.0.0", 80),
        Bind("tcp", "::1", 8080),
        Bind("unix", path=front),
    )
    assert config.admin_bind == Bind("unix", path="/run/relay/admin.sock")
    assert config.admin_token == "admin-token-of-acme"
    assert config.public_url == "https://voice.example.com/calls"
    assert config.pumps == 4
    assert config.runtime_dir == file.directory / "run"
    assert config.catalog.cors_origins == ("https://app.example.com", "http://localhost:3000")
    assert [str(each) for each in config.trusted_proxies] == [
        "10.0.0.0/8",
        "fd00::/8",
        "192.0.2.1/32",
    ]
    assert [str(each) for each in config.proxy_protocol] == ["10.0.0.0/8", "unix"]
    assert (config.log_level, config.log_format) == ("debug", "json")
    assert config.limits == Limits(reservation_timeout=12.5, max_connections=500)
    assert config.limits.reservation_timeout == 12.5
    assert config.store_path == file.directory / "data" / "sessions.db"
    assert config.catalog.agents["bot"] == Agent(
        name="bot",
        organization="acme",
        instances=("http://127.0.0.1:7860",),
        websocket_auth="none",
        sessions_per_instance=3,
        max_session_duration=1,
        attach_timeout=1.5,
        ws_path="/talk",
        ready_path="/",
        settle_time=0,
    )


def test_runtime_directory_is_beside_the_store(file: ConfigFile) -> None:
    config = file.load("store.url = 'sqlite:/var/lib/relay/calls.db'\n" + SMALLEST)
    assert config.runtime_dir == Path("/var/lib/relay/relay.run")


def test_paths_are_absolute_for_a_relative_file(
    file: ConfigFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.path.write_text(SMALLEST)
    monkeypatch.chdir(file.directory)
    assert load(Path("relay.toml"), {}).store_path == file.directory / "relay.db"


# The file


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a =\n", "line 1, column 4: not TOML: Invalid value"),
        (b"\n[a\n", "line 2, column 3: not TOML: Expected"),
        (b"[a]\n[a]\n", "line 2, column 3: not TOML: Cannot declare"),
        (b'a = "', "line 1 (end of file): not TOML: Unterminated string"),
        (b"\n\xff", "line 2: not UTF-8"),
        (b"a = " + b"[" * 20_000, "not TOML that can be read: a value is too large"),
        (b"a = 1" + b"0" * 5000, "not TOML that can be read: a value is too large"),
        (b"#" * (4 * 1024 * 1024 + 1), "longer than 4194304 bytes"),
    ],
)
def test_syntax_errors_name_the_line(file: ConfigFile, content: bytes, line: str) -> None:
    file.path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file.path, {})
    assert str(caught.value).startswith(f"{file.path}: {line}")


def test_a_file_that_cannot_be_read(file: ConfigFile) -> None:
    with pytest.raises(ConfigError, match=r"relay\.toml: no such file$"):
        load(file.path, {})
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)$"):
        load(file.directory, {})
    with pytest.raises(ConfigError, match=r"cannot be read \(not a path\)$"):
        load(Path("a\0b"), {})


def test_a_file_without_agents_serves_nothing(file: ConfigFile) -> None:
    (line,) = file.problems(ORGANIZATION)
    assert line.startswith("agents: none found")


# What is shown


def test_effective_shows_every_setting_and_no_secret(file: ConfigFile) -> None:
    text = "[server]\nadmin_token = 'the-token-of-admins'\nbind = '127.0.0.1:0'\n" + SMALLEST
    config = file.load(text)
    shown = effective(config)
    # test_command.py, test_names.py and tests/unit/test_tls.py
    elsewhere = {"command", *OF_COMMAND, *OF_NAMES, "bot_ca", "bot_name"}
    of_agent = [name for name in Agent.__struct_fields__[1:] if name not in elsewhere]
    for name in (*Limits.__struct_fields__, *of_agent):
        assert re.search(f"^{name} = ", shown, re.MULTILINE)
    assert 'public_keys = ["pk_pu…"]' in shown
    assert 'token_keys = [{ id = "2026-11", secret = (32 bytes) }]' in shown
    assert "admin_token = (19 characters)" in shown
    for text in (shown, repr(config)):
        for secret in (SECRET, PUBLIC, PRIVATE, "the-token-of-admins"):
            assert secret[:6] not in text


# The page

TABLES: dict[str, type[msgspec.Struct]] = {
    "[server]": ServerTable,
    "[tls]": TlsTable,
    "certificates": CertificateTable,
    "[limits]": LimitsTable,
    "[store]": StoreTable,
    "[traces]": TracesTable,
    "[organizations.NAME]": OrganizationTable,
    "token_keys": TokenKeyTable,
    "[agents.NAME]": AgentTable,
    "ice_servers": IceServerTable,
}


def documented() -> dict[tuple[str, str], str]:
    """The keys of the page with their defaults, by section."""
    found: dict[tuple[str, str], str] = {}
    section = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## `(.+?)`", line):
            section = heading[1]
        elif row := re.match(r"\| `(\w+)` \| [^|]+ \| ([^|]+) \|(?: [^|]+)? ?\| [^|]+ \|$", line):
            assert (section, row[1]) not in found
            found[section, row[1]] = row[2]
    return found


def test_the_page_lists_the_keys_of_the_code_with_their_defaults() -> None:
    page = documented()
    code = {
        (section, name): getattr(table(), name)
        for section, table in TABLES.items()
        for name in key_types(table)
    }
    # What only bots with a command, or only names, have is None where it is not given.
    for name in {*OF_COMMAND, *OF_NAMES} - {"cwd", "env", "dns_server", "spare_places"}:
        code["[agents.NAME]", name] = getattr(Agent("", ""), name)
    code["ice_servers", "urls"] = None  # must be given, though its default is an empty list
    assert page.keys() == code.keys()
    for key, default in code.items():
        words = (
            ("none", "derived", "required") if default is None else (f"`{toml_value(default)}`",)
        )
        assert page[key] in words, key


def test_the_tables_have_the_fields_of_the_catalog() -> None:
    assert set(key_types(LimitsTable)) == set(Limits.__struct_fields__)
    assert set(Agent.__struct_fields__) - {"name"} <= set(key_types(AgentTable))
