"""What is different between two configurations, and what a running daemon can't take over."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from relay.config.model import Config
from relay.config.reading import dotted
from relay.errors import ConfigError

__all__ = ["changes", "check_reload"]

# Keys of `[server]`, and `[tls]` as a whole, by the attributes of `Config` that hold them.
SERVER = {
    "server.bind": "binds",
    "server.admin_bind": "admin_bind",
    "server.admin_token": "admin_token",
    "server.public_url": "public_url",
    "server.pumps": "pumps",
    "server.log_level": "log_level",
    "server.log_format": "log_format",
    "server.trusted_proxies": "trusted_proxies",
    "server.proxy_protocol": "proxy_protocol",
    "tls": "tls",  # with what the files hold that it names
}
# What lives as long as the process: sessions are in the one, pumps and bots in the other.
LASTING = {"store.url": "store_url", "server.runtime_dir": "runtime_dir"}


def changes(before: Config, after: Config) -> tuple[str, ...]:
    """The paths of the keys whose values differ, of organizations and agents those of their tables.

    Secrets count, and are not shown.
    """
    return tuple(_changes(before, after))


def _changes(before: Config, after: Config) -> Iterator[str]:
    for key, name in SERVER.items():
        if getattr(before, name) != getattr(after, name):
            yield key
    if before.catalog.cors_origins != after.catalog.cors_origins:
        yield "server.cors_origins"
    for name in before.limits.__struct_fields__:
        if getattr(before.limits, name) != getattr(after.limits, name):
            yield f"limits.{name}"
    old, new = before.catalog, after.catalog
    yield from _tables("organizations", old.organizations, new.organizations)
    yield from _tables("agents", old.agents, new.agents)


def _tables(where: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield dotted(where, name)


def check_reload(before: Config, after: Config) -> None:
    """Judge whether a running daemon can follow a new configuration.

    Raises:
        ConfigError: it cannot; a line for each key that needs a restart.
    """
    lines = []
    if before.traces != after.traces:
        # Its thread and its connections are made at the start; endpoints may hold a key.
        lines.append("traces: not as in force: restart needed")
    for key, name in LASTING.items():
        old, new = str(getattr(before, name)), str(getattr(after, name))
        if old != new:
            # Not cut: where long paths differ is at their ends.
            found, force = json.dumps(new), json.dumps(old)
            lines.append(f"{key}: found {found}, but {force} is in force: restart needed")
    if lines:
        raise ConfigError("\n".join(lines))
