"""Secrets, organizations and agents: where they come from and what cannot be used."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest

from relay.config import effective
from relay.policy.catalog import TokenKey, Webhook
from tests.helpers.config_file import (
    AGENT,
    ORGANIZATION,
    PRIVATE,
    PUBLIC,
    SECRET,
    SMALLEST,
    ConfigFile,
)


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


def server(lines: str) -> str:
    return f"[server]\n{lines}\n{SMALLEST}"


def agent(lines: str) -> str:
    return f"{ORGANIZATION}\n[agents.bot]\norganization = 'acme'\n{lines}\n"


# Secrets


def token_key(lines: str) -> str:
    return f"[organizations.acme]\ntoken_keys = [{{ id = 'a', {lines} }}]\n{AGENT}"


def test_token_secrets_come_from_text_environment_or_file(file: ConfigFile) -> None:
    (file.directory / "key").write_bytes(bytes(range(32)) + b"\r\n")
    text = f"""
    [organizations.acme]
    token_keys = [
      {{ id = "text", secret = "{"ü" * 16}" }},
      {{ id = "environment", secret_env = "KEY" }},
      {{ id = "file", secret_file = "key" }},
    ]
    """
    config = file.load(text + AGENT, {"KEY": "\udcff" * 32})
    assert config.catalog.organizations["acme"].token_keys == (
        TokenKey("text", ("ü" * 16).encode()),
        TokenKey("environment", b"\xff" * 32),
        TokenKey("file", bytes(range(32))),
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("secret_env = 'NOPE'", "secret_env: the environment variable NOPE is not set"),
        ("secret_env = 'EMPTY'", "secret_env: the environment variable EMPTY is empty"),
        (f"secret_env = '{SECRET}'", "secret_env: expected the name of an environment variable"),
        ("secret_file = 'nope'", 'secret_file: cannot read "/'),
        ("secret_file = '.'", 'secret_file: cannot read "/'),
        ("secret_file = 'big'", "secret_file: expected a file of at most 4096 bytes"),
        ("secret = 'short'", "secret: found 5 bytes, expected at least 32"),
        ("secret_env = 'SHORT'", "secret: found 5 bytes, expected at least 32"),
        ("secret = 'a', secret_env = 'SHORT'", "secret: given 2 times, expected only one of"),
        ("secret = 5", "secret: found an integer, expected a string"),
        ("secrt = 'a'", 'secrt: unknown key; did you mean "secret"?'),
    ],
)
def test_token_secrets_that_cannot_be_used(file: ConfigFile, lines: str, expected: str) -> None:
    (file.directory / "big").write_bytes(b"x" * 4097)
    found = file.problems(token_key(lines), {"EMPTY": "", "SHORT": "short"})
    assert found[0].startswith(f"organizations.acme.token_keys[0].{expected}")
    assert SECRET not in "".join(found)


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ("[]", ""),
        ("[1]", "[0]"),
        ("'x'", ""),
        (f"[{{ secret = '{SECRET}' }}]", "[0].id"),
        (f"[{{ id = 'a b', secret = '{SECRET}' }}]", "[0].id"),
        (f"[{{ id = 'a', secret = '{SECRET}' }}, {{ id = 'a', secret = '{SECRET}' }}]", "[1].id"),
        ("[{ id = 'a' }]", "[0].secret"),
    ],
)
def test_token_keys_that_cannot_be_used(file: ConfigFile, keys: str, where: str) -> None:
    (line,) = file.problems(f"[organizations.acme]\ntoken_keys = {keys}\n{AGENT}")
    assert line.startswith(f"organizations.acme.token_keys{where}: ")
    assert SECRET not in line


def test_api_keys_come_from_the_environment_or_a_file(file: ConfigFile) -> None:
    (file.directory / "keys").write_text(f"{PRIVATE}\nsk_another-private-key\n")
    text = f"""
    [organizations.acme]
    public_keys_env = "KEYS"
    private_keys_file = "keys"
    token_keys = [{{ id = "a", secret = "{SECRET}" }}]
    """
    config = file.load(text + AGENT, {"KEYS": f" {PUBLIC}, pk_another-public-key,"})
    acme = config.catalog.organizations["acme"]
    assert acme.public_keys == (PUBLIC, "pk_another-public-key")
    assert acme.private_keys == (PRIVATE, "sk_another-private-key")


@pytest.mark.parametrize(
    ("keys", "where", "expected"),
    [
        ("public_keys = ['sk_1234567890123']", "public_keys[0]", "expected a key that starts with"),
        ("private_keys = ['pk_1234567890123']", "private_keys[0]", "expected a key that starts"),
        ("public_keys = ['pk_123456789012']", "public_keys[0]", "found 15 characters, expected 16"),
        ("public_keys = ['pk_12345678901 3']", "public_keys[0]", "expected only letters"),
        ("public_keys = [5]", "public_keys[0]", "found an integer, expected a string"),
        ("public_keys = 'pk_1234567890123'", "public_keys", "found a string, expected a list"),
        ("public_keys_env = 'NOPE'", "public_keys_env", "the environment variable NOPE is not set"),
        ("public_keys = []\npublic_keys_env = 'X'", "public_keys", "given 2 times"),
        (f"public_keys = ['{PUBLIC}', '{PUBLIC}']", "public_keys[1]", "the same key as organizat"),
    ],
)
def test_api_keys_that_cannot_be_used(
    file: ConfigFile, keys: str, where: str, expected: str
) -> None:
    text = f"""
    [organizations.acme]
    token_keys = [{{ id = "a", secret = "{SECRET}" }}]
    {keys}
    """
    (line,) = file.problems(text + AGENT)
    assert line.startswith(f"organizations.acme.{where}: {expected}")
    assert "1234567890" not in line
    assert PUBLIC not in line


def test_an_api_key_belongs_to_one_organization(file: ConfigFile) -> None:
    other = f"""
    [organizations.other]
    public_keys = ["{PUBLIC}"]
    token_keys = [{{ id = "a", secret = "{SECRET}" }}]
    """
    (line,) = file.problems(SMALLEST + other)
    assert line == (
        "organizations.other.public_keys[0]: the same key as organizations.acme.public_keys[0],"
        " expected each key once"
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("admin_token = 'short'", "admin_token: found 5 characters, expected at least 16"),
        ("admin_token = 'a token with spaces'", "admin_token: expected only letters"),
        ("admin_token_env = 'NOPE'", "admin_token_env: the environment variable NOPE is not set"),
        ("admin_token_file = 'nope'", "admin_token_file: cannot read"),
    ],
)
def test_admin_tokens_that_cannot_be_used(file: ConfigFile, lines: str, expected: str) -> None:
    (line,) = file.problems(server(f"admin_bind = '0.0.0.0:81'\n{lines}"))
    assert line.startswith(f"server.{expected}")


# Organizations and agents


@pytest.mark.parametrize("name", ["Acme", "-a", "a-", "a.b", "a b", "", "x" * 65, "ü"])
def test_names_of_organizations(file: ConfigFile, name: str) -> None:
    text = f'[organizations."{name}"]\ntoken_keys = [{{ id = "a", secret = "{SECRET}" }}]\n'
    (line,) = file.problems(text + SMALLEST)
    assert "not a name of an organization, expected 1 to 64 lower-case letters" in line


@pytest.mark.parametrize("name", ["Bot", "-a", "a-", "a.b", "", "x" * 55])
def test_names_of_agents(file: ConfigFile, name: str) -> None:
    text = f'[agents."{name}"]\norganization = "acme"\ninstances = ["http://h:1"]\n'
    (line,) = file.problems(text + ORGANIZATION)
    assert "not a name of an agent, expected 1 to 54 lower-case letters" in line


def test_tables_of_the_wrong_type_are_one_problem_each(file: ConfigFile) -> None:
    text = f"organizations = {{ acme = '{SECRET}' }}\nagents = {{ bot = 5 }}\nserver = []\n"
    assert file.problems(text) == [
        "server: found a list, expected a table",
        "organizations.acme: found a string, expected a table",
        "agents.bot: found an integer, expected a table",
    ]


@pytest.mark.parametrize(
    ("lines", "where", "expected"),
    [
        ("relay = 'x'\ninstances = ['http://h:1']", "relay", 'found "x" (a string), expected "tun'),
        ("max_message_size = -1\ninstances = ['http://h:1']", "max_message_size", "found -1 ("),
        ("", "instances", "no bot given, expected a list such as"),
        ("instances = []", "instances", "no bot given"),
        ("instances = 'http://h:1'", "instances", 'found "http://h:1" (a string), expected a list'),
        ("instances = [1]", "instances[0]", "found 1 (an integer), expected a string"),
        ("instances = ['http://h:1', 'http://H:01/']", "instances[1]", "the same bot as agents.b"),
        ("ws_path = 'ws'\ninstances = ['http://h:1']", "ws_path", 'found "ws" (a string), expect'),
        ("ready_path = '/a?b'\ninstances = ['http://h:1']", "ready_path", 'found "/a?b" (a stri'),
        ("websocket_auth = 'no'\ninstances = ['http://h:1']", "websocket_auth", 'found "no" (a'),
    ],
)
def test_agents_that_cannot_be_served(
    file: ConfigFile, lines: str, where: str, expected: str
) -> None:
    (line,) = file.problems(agent(lines))
    assert line.startswith(f"agents.bot.{where}: {expected}")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("dns+https://h:x", 'expected "dns+http://name:port" for addresses, or "dns+srv'),
        ("h:1", "expected a URL such as"),
        ("ws://h:1", "expected a URL such as"),
        ("http://h:1/ws", "expected a URL such as"),
        ("http://h:1?x", "expected a URL such as"),
        ("http://u:hunter2@h:1", "expected a URL such as"),
        ("http://h:0", "expected a port from 1 to 65535"),
        ("http://h:99999", "expected a URL such as"),
        ("http://:1", "expected a URL such as"),
    ],
)
def test_instances_refuse_other_forms(file: ConfigFile, url: str, expected: str) -> None:
    (line,) = file.problems(agent(f"instances = ['{url}']"))
    assert line.startswith("agents.bot.instances[0]: ")
    assert expected in line
    assert "hunter2" not in line


def test_a_bot_belongs_to_one_agent(file: ConfigFile) -> None:
    (line,) = file.problems(SMALLEST + AGENT.replace("bot", "other"))
    assert line.startswith(
        "agents.other.instances[0]: the same bot as agents.bot.instances[0], expected each bot once"
    )


def test_an_unknown_organization_is_refused_with_the_nearest_one(file: ConfigFile) -> None:
    (line,) = file.problems(ORGANIZATION + AGENT.replace("acme", "acmee"))
    expected = 'agents.bot.organization: no such organization: "acmee"; did you mean "acme"?'
    assert line == expected


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("http://LocalHost:7860/", "http://localhost:7860"),
        ("http://bots.internal", "http://bots.internal:80"),
        ("HTTP://[0:0::1]:7860", "http://[::1]:7860"),
        ("http://my_bot:1", "http://my_bot:1"),
    ],
)
def test_instances_have_one_spelling(file: ConfigFile, given: str, normal: str) -> None:
    config = file.load(agent(f"instances = ['{given}']"))
    assert config.catalog.agents["bot"].instances == (normal,)


@pytest.mark.parametrize(
    ("lines", "relay", "limit"),
    [
        ("", "tunnel", 0),
        ('relay = "frames"', "frames", 16 * 1024 * 1024),
        ('relay = "frames"\nmax_message_size = 0', "frames", 0),
        ("max_message_size = 500", "tunnel", 500),
    ],
)
def test_the_limit_of_messages_depends_on_the_relay(
    file: ConfigFile, lines: str, relay: str, limit: int
) -> None:
    config = file.load(agent(f"instances = ['http://h:1']\n{lines}"))
    bot = config.catalog.agents["bot"]
    assert (bot.relay, bot.max_message_size) == (relay, limit)


# Webhooks

HOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK_URL = "webhook_url = 'https://example.com/in?key=hidden-key'"


def hooked(lines: str) -> str:
    return f"{ORGANIZATION}\n{lines}\n{AGENT}"


@pytest.mark.parametrize(
    "secret",
    [
        f"webhook_secret = '{HOOK_SECRET}'",
        "webhook_secret_env = 'HOOK'",
        "webhook_secret_file = 'hook'",
    ],
)
def test_a_webhook(file: ConfigFile, secret: str) -> None:
    (file.directory / "hook").write_text(f"{HOOK_SECRET}\n")
    config = file.load(hooked(f"{HOOK_URL}\n{secret}"), {"HOOK": HOOK_SECRET})
    hook = Webhook(
        "https://example.com/in?key=hidden-key",
        b64decode(HOOK_SECRET.removeprefix("whsec_")),
    )
    assert config.catalog.webhooks() == {"acme": hook}
    assert ("HOOK" in config.bot_environment) == ("_env" not in secret)
    shown = effective(config)
    assert 'webhook_url = "https://example.com/…"' in shown
    assert "webhook_secret = (24 bytes)" in shown
    for hidden in ("hidden-key", HOOK_SECRET):
        assert hidden not in shown + repr(config)


def test_nobody_is_told_without_a_receiver(file: ConfigFile) -> None:
    config = file.load(SMALLEST)
    assert config.catalog.webhooks() == {}
    assert "webhook_url" not in effective(config)


@pytest.mark.parametrize(
    ("lines", "key", "expected"),
    [
        (HOOK_URL, "webhook_secret", "not given, expected exactly one of"),
        (f"webhook_secret = '{HOOK_SECRET}'", "webhook_url", "not given, expected it since"),
        (f"{HOOK_URL}\nwebhook_secret = 'secret'", "webhook_secret", "expected whsec_ and base64"),
        (f"{HOOK_URL}\nwebhook_secret = 'whsec_?'", "webhook_secret", "expected whsec_ and base6"),
        (f"{HOOK_URL}\nwebhook_secret = 'whsec_AAAA'", "webhook_secret", "found 3 bytes, expected"),
        (f"{HOOK_URL}\nwebhook_secret_env = 'NOPE'", "webhook_secret_env", "the environment varia"),
        *[
            (
                f"webhook_url = '{url}'\nwebhook_secret = '{HOOK_SECRET}'",
                "webhook_url",
                "expected a URL such as",
            )
            for url in (
                "example.com", "ftp://example.com", "https://", "https://a:b@example.com",
                "https://example.com/#x", "https://example.com/a b", "https://example.com:99999",
            )
        ],
    ],
)  # fmt: skip
def test_webhooks_that_cannot_be_used(
    file: ConfigFile, lines: str, key: str, expected: str
) -> None:
    (line,) = file.problems(hooked(lines))
    assert line.startswith(f"organizations.acme.{key}: {expected}")
