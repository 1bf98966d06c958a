"""Texts of the configuration that have a form of their own, as values: addresses and URLs.

Every parser takes the text and returns the value, or raises ValueError whose
text ends a sentence of the operator's error line: what was expected instead.
No parser repeats the text that it was given, since it may hold a password.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Literal

from relay.config.model import TLS_PREFIX, Bind, bracketed

__all__ = [
    "derive_public_url",
    "host_and_port",
    "parse_announcer",
    "parse_bind",
    "parse_dns_server",
    "parse_host",
    "parse_instance",
    "parse_network",
    "parse_origin",
    "parse_public_bind",
    "parse_public_url",
    "parse_store",
    "parse_trace_endpoint",
    "parse_webhook_url",
    "websocket_url",
]

MAX_PORT = 65535
DEFAULT_PORTS = {"http": 80, "https": 443}
DNS_PORT = 53
# sun_path of struct sockaddr_un has 108 bytes, one of them the final zero (unix(7)).
MAX_UNIX_PATH = 107

BIND_FORM = "host:port, [v6]:port or unix:/path"
TLS_FORM = "tls:host:port or tls:[v6]:port"
DNS_FORM = (
    '"dns+http://name:port" for addresses, or "dns+srv+http://name" for SRV records, '
    "or the same with https"
)
SQLITE_FORM = '"sqlite:PATH", for instance "sqlite:relay.db"'

# RFC 1123 §2.1 names; underscores too, since container networks use them.
HOST_NAME = re.compile(r"(?!.*\.\.)[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?")
# A last label of digits only would be read as an address by resolvers ("0" is 0.0.0.0).
NUMERIC_END = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)")
# RFC 1035 §2.3.4: labels of at most 63 characters. A final dot keeps search domains away.
DNS_NAME = re.compile(r"(?=.{1,254}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.|\Z))+")
PORT = re.compile(r"[0-9]{1,5}")
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)
# RFC 3986 §3.3 pchar and "/".
URL_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?")
# RFC 3986 §3.3 and 3.4: a path and a query, without a fragment.
URL_TARGET = re.compile(
    r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
)


def parse_bind(text: str, *, base: Path) -> Bind:
    """The listener address in a text; relative socket paths are relative to `base`."""
    scheme, _, path = text.partition(":")
    if scheme == "unix":
        if not path or "\0" in path:
            raise ValueError(f"expected {BIND_FORM}")
        full = str(base / path)
        if len(full.encode()) > MAX_UNIX_PATH:
            raise ValueError(f"expected a socket path of at most {MAX_UNIX_PATH} bytes")
        return Bind("unix", path=full)
    if text.startswith(":"):
        raise ValueError(f'expected {BIND_FORM}; every address is "0.0.0.0{_shown_port(text)}"')
    try:
        host, port = host_and_port(text)
    except ValueError:
        raise ValueError(f"expected {BIND_FORM}") from None
    return Bind("tcp", host=host, port=port)


def parse_public_bind(text: str, *, base: Path) -> Bind:
    """The same for a public listener, which may be one with TLS."""
    if not text.startswith(TLS_PREFIX):
        return parse_bind(text, base=base)
    try:
        host, port = host_and_port(text.removeprefix(TLS_PREFIX))
    except ValueError:
        raise ValueError(f"expected {TLS_FORM}") from None
    return Bind("tcp", host=host, port=port, tls=True)


def derive_public_url(host: str, port: int, *, tls: bool = False) -> str:
    """The URL under which callers reach a TCP listener at this host and port."""
    return f"{'https' if tls else 'http'}://{bracketed(host)}:{port}"


def websocket_url(public_url: str, service_host: str) -> str:
    """The `wsUrl` of an agent: http becomes ws, https wss, a path prefix is kept."""
    return f"ws{public_url.removeprefix('http')}/ws/generic/{service_host}"


def parse_public_url(text: str) -> str:
    """The public URL without a final slash; scheme and host in lower case."""
    expected = 'expected a URL such as "https://voice.example.com", without query or user'
    return _web_url(text, URL_PATH, expected).rstrip("/")


def parse_webhook_url(text: str) -> str:
    """Where webhooks are posted to; scheme and host in lower case."""
    expected = 'expected a URL such as "https://example.com/hooks", without user or fragment'
    return _web_url(text, URL_TARGET, expected)


def parse_trace_endpoint(text: str) -> str:
    """Where spans are posted to; scheme and host in lower case."""
    expected = 'expected a URL such as "http://127.0.0.1:4318/v1/traces", without user or fragment'
    return _web_url(text, URL_TARGET, expected)


def _web_url(text: str, behind: re.Pattern[str], expected: str) -> str:
    """A URL of http or https, what is behind its host as `behind` allows."""
    found = URL.fullmatch(text)
    if found is None or found[1].lower() not in ("http", "https"):
        raise ValueError(expected)
    if behind.fullmatch(found[3]) is None:
        raise ValueError(expected)
    try:
        authority = _authority(found[2])
    except ValueError:
        raise ValueError(expected) from None
    return f"{found[1].lower()}://{authority}{found[3]}"


def parse_instance(text: str) -> str:
    """The URL of a bot as `http://host:port`, the port always written out, or a name of bots.

    With TLS it is `https`.
    """
    expected = 'expected a URL such as "http://127.0.0.1:7860", without path, query or user'
    found = URL.fullmatch(text)
    if found is None:
        raise ValueError(expected)
    scheme = found[1].lower()
    if scheme.startswith("dns+"):
        return _dns_name(scheme, found[2] + found[3].removesuffix("/"))
    if scheme not in DEFAULT_PORTS or found[3] not in ("", "/"):
        raise ValueError(expected)
    try:
        host, port = host_and_port(found[2], default_port=DEFAULT_PORTS[scheme])
    except ValueError:
        raise ValueError(expected) from None
    if port == 0:
        raise ValueError(f"expected a port from 1 to {MAX_PORT}")
    return f"{scheme}://{bracketed(host)}:{port}"


def _dns_name(scheme: str, text: str) -> str:
    """An entry that stands for the bots that a name has, in its one spelling."""
    expected = f"expected {DNS_FORM}"
    name, _, port = text.lower().partition(":")
    by_srv = scheme in ("dns+srv+http", "dns+srv+https")
    known = by_srv or scheme in ("dns+http", "dns+https")
    if not known or (not by_srv and PORT.fullmatch(port) is None):
        raise ValueError(expected)
    if (by_srv and port) or DNS_NAME.fullmatch(name) is None or NUMERIC_END.fullmatch(name):
        raise ValueError(expected)
    if by_srv:
        return f"{scheme}://{name}"
    if not 0 < int(port) <= MAX_PORT:
        raise ValueError(f"expected a port from 1 to {MAX_PORT}")
    return f"{scheme}://{name}:{int(port)}"


def parse_host(text: str) -> str:
    """A host name or an address, as certificates name them."""
    try:
        return _host(text)
    except ValueError:
        raise ValueError('expected a host name such as "bots.example.com"') from None


def parse_dns_server(text: str) -> str:
    """A name server as `address:port`, the port always written out."""
    try:
        host, port = host_and_port(text, default_port=DNS_PORT)
        ipaddress.ip_address(host)
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError('expected the address of a name server, such as "127.0.0.1:8600"')
    return f"{bracketed(host)}:{port}"


def parse_origin(text: str) -> str:
    """An origin as browsers send it, or `*` (RFC 6454 §6.2)."""
    if text == "*":
        return text
    expected = 'expected "*" or an origin such as "https://app.example.com", without a path'
    found = URL.fullmatch(text)
    if found is None or found[3]:
        raise ValueError(expected)
    try:
        return f"{found[1].lower()}://{_authority(found[2])}"
    except ValueError:
        raise ValueError(expected) from None


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A network in CIDR form, or a single address (RFC 4632 §3.1)."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            'expected a network such as "10.0.0.0/8", without host bits, or an address'
        ) from None


def parse_announcer(
    text: str,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"]:
    """Who begins connections with a PROXY header: a network, or whoever uses Unix sockets."""
    return "unix" if text == "unix" else parse_network(text)


def parse_store(text: str, *, base: Path) -> Path:
    """The path of the SQLite file in a store URL, relative ones relative to `base`."""
    scheme, _, path = text.partition(":")
    if scheme in ("redis", "rediss"):
        raise ValueError(f"redis stores are not available in this version; use {SQLITE_FORM}")
    if scheme == "memory" or path == ":memory:":
        raise ValueError(
            f"sessions must outlive the process, so a store in memory is not offered; "
            f"use {SQLITE_FORM}"
        )
    if path.startswith("//"):
        raise ValueError(f'a path follows "sqlite:" directly; use {SQLITE_FORM}')
    if scheme != "sqlite" or not path or path.endswith("/") or "\0" in path:
        raise ValueError(f"expected {SQLITE_FORM}")
    return base / path


def host_and_port(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """Host (lower case, no brackets) and port of an authority; ValueError for any other text."""
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]@]*)(?::([0-9]{1,5}))?", text)
    if found is None or (found[2] is None and default_port is None):
        raise ValueError("no host:port")
    port = int(found[2]) if found[2] is not None else default_port
    if port is None or port > MAX_PORT:
        raise ValueError("no port")
    return _host(found[1]), port


def _host(text: str) -> str:
    lowered = text.lower()
    if lowered.startswith("["):
        # A zone ("%eth0") means nothing to a caller on another machine.
        if "%" in lowered:
            raise ValueError("no host")
        return str(ipaddress.IPv6Address(lowered[1:-1]))
    if NUMERIC_END.fullmatch(lowered):
        return str(ipaddress.IPv4Address(lowered))
    if HOST_NAME.fullmatch(lowered) is None:
        raise ValueError("no host")
    return lowered


def _authority(text: str) -> str:
    host, port = host_and_port(text, default_port=-1)
    if port == 0:
        raise ValueError("no port")
    return bracketed(host) if port < 0 else f"{bracketed(host)}:{port}"


def _shown_port(text: str) -> str:
    return text if re.fullmatch(r":[0-9]{1,5}", text) else ":8080"
