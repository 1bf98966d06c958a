"""The configuration as the daemon sees it: plain frozen values that need no further check."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from relay.policy.catalog import Catalog, Limits, TraceReceiver
from relay.tls import ServerTls

__all__ = ["TLS_PREFIX", "AdminAccess", "Bind", "Config", "bracketed"]

# What a listener with TLS begins with, in the configuration and in every name of it.
TLS_PREFIX = "tls:"


@dataclass(frozen=True, slots=True)
class Bind:
    """Where a listener listens: a TCP address, or the path of a Unix socket.

    `host` has no brackets; `port` 0 lets the kernel choose; `path` is absolute; with
    `tls` connections begin with a TLS handshake.
    """

    kind: Literal["tcp", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        return f"{TLS_PREFIX if self.tls else ''}{bracketed(self.host)}:{self.port}"

    @property
    def address(self) -> Bind:
        """The same listener, whatever is spoken there."""
        return dataclasses.replace(self, tls=False)

    @property
    def is_wildcard(self) -> bool:
        """Listens on every address of the machine, so its own text is no address."""
        address = _address(self.host)
        return address is not None and address.is_unspecified

    @property
    def is_local(self) -> bool:
        """Only this machine can reach it: a Unix socket or a loopback address."""
        if self.kind == "unix" or self.host == "localhost":
            return True
        address = _address(self.host)
        return address is not None and address.is_loopback


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the daemon is told; all paths are absolute.

    `public_url` is "" when it is to be derived from a `bind` whose port is 0:
    the daemon then uses `derive_public_url` and `with_public_url`.
    """

    binds: tuple[Bind, ...]
    admin_bind: Bind
    admin_token: str | None = field(repr=False)
    public_url: str
    pumps: int
    runtime_dir: Path
    store_url: str
    catalog: Catalog = field(repr=False)
    limits: Limits
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["auto", "console", "json"]
    trusted_proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    proxy_protocol: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"], ...]
    traces: TraceReceiver | None
    bot_environment: Mapping[str, str] = field(repr=False)
    tls: ServerTls | None = None

    @property
    def store_path(self) -> Path:
        """The SQLite file of `store_url`."""
        return Path(self.store_url.removeprefix("sqlite:"))

    def with_public_url(self, public_url: str) -> Config:
        """The same configuration with the public URL that was not known before the bind."""
        catalog = msgspec.structs.replace(self.catalog, public_url=public_url)
        return dataclasses.replace(self, public_url=public_url, catalog=catalog)


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """How to reach the administration of a daemon."""

    bind: Bind
    token: str | None = field(repr=False)


def bracketed(host: str) -> str:
    """A host as URLs and authorities spell it: IPv6 addresses in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]" if ":" in host else host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
