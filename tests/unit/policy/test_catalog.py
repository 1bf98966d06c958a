"""Addresses of instances, service hosts, and the URL that clients are sent to."""

from __future__ import annotations

import pytest

from relay.policy.catalog import (
    AGENT_NAME,
    ORGANIZATION_NAME,
    Address,
    Agent,
    Catalog,
    Limits,
    Organization,
)

ACME = Organization("acme", (), (), ())
BOT = Agent("bot", "acme", ("http://127.0.0.1:7860",))
OTHER = Agent("other", "acme-2", ())
CATALOG = Catalog({"acme": ACME}, {"bot": BOT, "other": OTHER}, "http://127.0.0.1:8080")


@pytest.mark.parametrize(
    ("url", "host", "port", "authority"),
    [
        ("http://127.0.0.1:7860", "127.0.0.1", 7860, "127.0.0.1:7860"),
        ("http://bots.internal", "bots.internal", 80, "bots.internal:80"),
        ("http://bots.internal/", "bots.internal", 80, "bots.internal:80"),
        ("http://[::1]:7860", "::1", 7860, "[::1]:7860"),
        ("http://[::1]", "::1", 80, "[::1]:80"),
        ("http://a:1", "a", 1, "a:1"),
        ("http://a:65535/", "a", 65535, "a:65535"),
        ("https://bots.internal", "bots.internal", 443, "bots.internal:443"),
        ("https://[::1]:7860", "::1", 7860, "[::1]:7860"),
    ],
)
def test_the_address_of_an_instance(url: str, host: str, port: int, authority: str) -> None:
    address = Address.of(url)
    assert (address.host, address.port, address.authority) == (host, port, authority)
    assert address.secure == url.startswith("https")
    assert Address.of(address.url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:7860",
        "httpss://a:1",
        "HTTP://a:1",
        "http://",
        "http://:80",
        "http://a:",
        "http://a:b",
        "http://a:0",
        "http://a:65536",
        "http://a:999999",
        "http://a/x",
        "http://a//",
        "http://a?x",
        "http://a#x",
        "http://user@a",
        "http://::1:80",
        "http://[::1",
        "http://a:80\n",
    ],
)
def test_what_is_no_address_of_an_instance(url: str) -> None:
    with pytest.raises(ValueError, match="not of the form http://host:port"):
        Address.of(url)


@pytest.mark.parametrize(
    ("service_host", "agent"),
    [
        ("bot.acme", BOT),
        ("other.acme-2", OTHER),
        ("bot.acme-2", None),
        ("bot.acme.", None),
        ("bot.acme.com", None),
        ("bot", None),
        ("bot.", None),
        (".acme", None),
        ("", None),
        ("BOT.acme", None),
        ("unknown.acme", None),
    ],
)
def test_agents_are_found_by_their_exact_service_host(
    service_host: str, agent: Agent | None
) -> None:
    assert CATALOG.by_service_host(service_host) is agent


@pytest.mark.parametrize(
    ("public_url", "ws_url"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/ws/generic/bot.acme"),
        ("https://voice.example", "wss://voice.example/ws/generic/bot.acme"),
        ("https://voice.example/", "wss://voice.example/ws/generic/bot.acme"),
        ("https://voice.example/eu/1", "wss://voice.example/eu/1/ws/generic/bot.acme"),
        ("http://[::1]:8080", "ws://[::1]:8080/ws/generic/bot.acme"),
    ],
)
def test_where_clients_are_sent(public_url: str, ws_url: str) -> None:
    catalog = Catalog({"acme": ACME}, {"bot": BOT}, public_url)
    assert catalog.ws_url(BOT) == ws_url
    assert "?" not in ws_url


def test_an_agent_knows_its_organization() -> None:
    assert CATALOG.organization_of(BOT) is ACME


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("a", True),
        ("a-1", True),
        ("9" * 54, True),
        ("a" * 55, False),
        ("", False),
        ("-a", False),
        ("a-", False),
        ("A", False),
        ("a.b", False),
        ("a_b", False),
        ("ä", False),
        ("a\n", False),
    ],
)
def test_names_that_agents_may_have(name: str, valid: bool) -> None:
    assert bool(AGENT_NAME.fullmatch(name)) is valid


def test_names_that_organizations_may_have() -> None:
    assert ORGANIZATION_NAME.fullmatch("a" * 64)
    assert not ORGANIZATION_NAME.fullmatch("a" * 65)
    assert not ORGANIZATION_NAME.fullmatch("a.b")


def test_the_limits_fit_together() -> None:
    """A target fits a head, and a claim's reservation the default time to attach."""
    limits = Limits()
    assert limits.max_target < limits.max_head
    assert limits.max_start_request >= 4096 * 6  # any escaping of a body, \\u0000 included
    assert limits.reservation_timeout <= BOT.attach_timeout
