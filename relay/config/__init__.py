"""The configuration: one TOML file, read and judged once at start.

`load` gives a `Config` that needs no further check, or raises ConfigError with
one line for each problem. Keys, defaults and reasons: docs/configuration.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from relay.config.agents import bots_path
from relay.config.checks import check_catalog
from relay.config.model import TLS_PREFIX, AdminAccess, Bind, Config
from relay.config.reading import Problems, quoted, read_table, suggestion
from relay.config.secret import Sources, check_secret
from relay.config.tables import FileTable, LimitsTable, ServerTable, StoreTable, TracesTable
from relay.config.text import effective
from relay.config.tls import check_tls
from relay.config.values import (
    derive_public_url,
    parse_announcer,
    parse_bind,
    parse_network,
    parse_origin,
    parse_public_bind,
    parse_public_url,
    parse_store,
    parse_trace_endpoint,
    websocket_url,
)
from relay.errors import ConfigError
from relay.policy.catalog import Limits, TraceReceiver

__all__ = [
    "DEFAULT_FILE",
    "TLS_PREFIX",
    "AdminAccess",
    "Bind",
    "Config",
    "derive_public_url",
    "effective",
    "load",
    "load_admin",
    "parse_admin",
    "suggestion",
    "websocket_url",
]

T = TypeVar("T")

# Where commands look when no file is named.
DEFAULT_FILE = Path("relay.toml")
# A thousand agents fit; anything larger is another file.
MAX_FILE = 4 * 1024 * 1024
# The admin token is compared like an API key and should be no easier to guess.
MIN_ADMIN_TOKEN = 16
# RFC 6750 §2.1: what a Bearer token may consist of.
ADMIN_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# The runtime directory's name where only the store's place is known.
RUNTIME_DIR = "relay.run"
# One listener for each network of a machine; more is a mistake.
MAX_BINDS = 16


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Reads and judges a configuration file.

    Args:
        path: the TOML file; relative paths in it are relative to its directory.
        environ: where the keys that end in `_env` are looked up.

    Raises:
        ConfigError: one line for each problem, each with the file and the key's path.
    """
    problems = Problems(str(path))
    sources = Sources(environ=environ, base=path.absolute().parent)
    file = read_table(problems, "", _parse(path), FileTable)
    server = read_table(problems, "server", file.server, ServerTable)
    binds = _binds(problems, server, sources.base)
    admin = _admin(problems, server, sources)
    _check_admin(problems, binds, admin)
    public_url = _public_url(problems, server, binds)
    origins = _origins(problems, server)
    proxies = _parsed(problems, "server.trusted_proxies", server.trusted_proxies, parse_network)
    announcers = _parsed(problems, "server.proxy_protocol", server.proxy_protocol, parse_announcer)
    limits = _limits(problems, file)
    store = read_table(problems, "store", file.store, StoreTable)
    store_path = problems.parse(
        "store.url", store.url, lambda text: parse_store(text, base=sources.base)
    ) or (sources.base / "relay.db")
    traces = _traces(problems, file)
    tls = check_tls(problems, file.tls, binds, sources.base)
    catalog = check_catalog(problems, file.organizations, file.agents, sources)
    problems.raise_if_any()
    return Config(
        binds=binds,
        admin_bind=admin.bind,
        admin_token=admin.token,
        public_url=public_url,
        pumps=server.pumps,
        runtime_dir=sources.base / (server.runtime_dir or store_path.parent / RUNTIME_DIR),
        store_url=f"sqlite:{store_path}",
        catalog=msgspec.structs.replace(
            catalog,
            public_url=public_url,
            cors_origins=origins,
        ),
        limits=limits,
        log_level=server.log_level,
        log_format=server.log_format,
        trusted_proxies=proxies,
        proxy_protocol=announcers,
        traces=traces,
        bot_environment=_bot_environment(sources),
        tls=tls,
    )


def _bot_environment(sources: Sources) -> dict[str, str]:
    """What launched bots inherit: everything but the daemon's own secrets."""
    inherited = {name: text for name, text in sources.environ.items() if name not in sources.used}
    return inherited | {"PATH": bots_path(sources.environ)}


def load_admin(path: Path, environ: Mapping[str, str]) -> AdminAccess:
    """Reads only what a command needs to reach a daemon; the rest of the file is not judged.

    So `relay sessions` works in a shell that does not have the daemon's secrets.

    Raises:
        ConfigError: the file, `admin_bind` or `admin_token` cannot be used.
    """
    problems = Problems(str(path))
    server = _parse(path).get("server", {})
    keys = ("admin_bind", "admin_token", "admin_token_env", "admin_token_file")
    known = {key: server[key] for key in keys if key in server} if isinstance(server, dict) else {}
    table = read_table(problems, "server", known, ServerTable)
    access = _admin(problems, table, Sources(environ=environ, base=path.absolute().parent))
    problems.raise_if_any()
    return access


def parse_admin(text: str) -> Bind:
    """The administration listener of a daemon: `http://host:port` or `unix:/path`.

    Raises:
        ConfigError: any other text.
    """
    address = text.removeprefix("http://").removesuffix("/") if text.startswith("http://") else text
    try:
        return parse_bind(address, base=Path.cwd())
    except ValueError:
        raise ConfigError(
            f"expected http://host:port or unix:/path, found {quoted(text)}"
        ) from None


def _parse(path: Path) -> dict[str, Any]:
    """The decoded TOML of a file; ConfigError when it cannot be read or is no TOML."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ConfigError(f"{path}: cannot be read ({reason})") from None
    if len(content) > MAX_FILE:
        raise ConfigError(f"{path}: longer than {MAX_FILE} bytes, expected a configuration file")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {_syntax(str(error), content)}") from None
    except (ValueError, RecursionError):
        # An integer of thousands of digits, or lists within lists without end.
        raise ConfigError(f"{path}: not TOML that can be read: a value is too large") from None


def _syntax(message: str, content: bytes) -> str:
    """The parser's message with its place in front: `line 3, column 5: …`."""
    found = re.fullmatch(r"(.*) \(at (?:(line \d+, column \d+)|end of document)\)", message, re.S)
    if found is None:
        return f"not TOML: {message}"
    place = found[2] or f"line {len(content.splitlines()) or 1} (end of file)"
    return f"{place}: not TOML: {found[1]}"


def _limits(problems: Problems, file: FileTable) -> Limits:
    table = read_table(problems, "limits", file.limits, LimitsTable)
    if table.max_head <= table.max_target:
        problems.add(
            "limits.max_head",
            f"found {table.max_head}, expected more than max_target ({table.max_target}),"
            " which is a part of the head",
        )
    return Limits(**msgspec.structs.asdict(table))


def _traces(problems: Problems, file: FileTable) -> TraceReceiver | None:
    """Where spans are sent; None when nobody wants them."""
    table = read_table(problems, "traces", file.traces, TracesTable)
    if table.endpoint is None:
        if file.traces and not problems.has("traces.endpoint"):
            problems.add("traces.endpoint", "not given, expected the URL that takes spans")
        return None
    endpoint = problems.parse("traces.endpoint", table.endpoint, parse_trace_endpoint)
    return TraceReceiver(endpoint or "", table.ratio, table.service_name)


def _binds(problems: Problems, server: ServerTable, base: Path) -> tuple[Bind, ...]:
    """The public listeners in the order of the file."""
    single = isinstance(server.bind, str)
    texts = (server.bind,) if isinstance(server.bind, str) else server.bind
    if not 1 <= len(texts) <= MAX_BINDS:
        problems.add("server.bind", f"found {len(texts)}, expected 1 to {MAX_BINDS} listeners")
    binds: list[Bind] = []
    for number, text in enumerate(texts):
        where = "server.bind" if single else f"server.bind[{number}]"
        bind = problems.parse(where, text, lambda text: parse_public_bind(text, base=base))
        if bind is None:
            continue
        taken = bind.address in [each.address for each in binds]
        if taken and (bind.kind, bind.port) != ("tcp", 0):
            problems.add(where, f"found {quoted(text)} twice, expected each listener once")
        binds.append(bind)
    return tuple(binds)


def _admin(problems: Problems, server: ServerTable, sources: Sources) -> AdminAccess:
    bind = problems.parse(
        "server.admin_bind", server.admin_bind, lambda text: parse_bind(text, base=sources.base)
    )
    secret = check_secret(
        problems,
        "server.admin_token",
        sources,
        text=server.admin_token,
        variable=server.admin_token_env,
        file=server.admin_token_file,
    )
    token = None if secret is None else secret.decode("utf-8", "replace")
    if token is not None and len(token) < MIN_ADMIN_TOKEN:
        problems.add(
            "server.admin_token",
            f"found {len(token)} characters, expected at least {MIN_ADMIN_TOKEN}",
        )
    elif token is not None and ADMIN_TOKEN.fullmatch(token) is None:
        problems.add("server.admin_token", "expected only letters, digits and - . _ ~ + /")
    return AdminAccess(bind=bind or Bind("tcp", host="127.0.0.1"), token=token)


def _check_admin(problems: Problems, binds: tuple[Bind, ...], admin: AdminAccess) -> None:
    """The administration is apart from the public side, and guarded where others can reach it."""
    fixed = admin.bind.kind == "unix" or admin.bind.port != 0
    if fixed and admin.bind in [bind.address for bind in binds]:
        problems.add("server.admin_bind", "the same as bind, expected a listener of its own")
    wrong = any(problems.has(f"server.admin_token{end}") for end in ("", "_env", "_file"))
    if not admin.bind.is_local and admin.token is None and not wrong:
        problems.add(
            "server.admin_token",
            "not given, expected one since other machines can reach admin_bind",
        )


def _public_url(problems: Problems, server: ServerTable, binds: tuple[Bind, ...]) -> str:
    """What `wsUrl` is made from; "" when the port is not known yet."""
    if server.public_url is not None:
        return problems.parse("server.public_url", server.public_url, parse_public_url) or ""
    for bind in binds:
        if bind.kind == "unix" or bind.is_wildcard:
            problems.add(
                "server.public_url",
                f'not given, expected the URL that callers use, since bind "{bind}" does not tell',
            )
            return ""
    if not binds or binds[0].port == 0:
        return ""
    return derive_public_url(binds[0].host, binds[0].port, tls=binds[0].tls)


def _origins(problems: Problems, server: ServerTable) -> tuple[str, ...]:
    origins = _parsed(problems, "server.cors_origins", server.cors_origins, parse_origin)
    if "*" in origins and len(server.cors_origins) > 1:
        problems.add("server.cors_origins", 'found "*" among others, expected it alone')
    return origins


def _parsed(
    problems: Problems, where: str, texts: tuple[str, ...], parse: Callable[[str], T]
) -> tuple[T, ...]:
    """The values of a list of texts, each by its own parser."""
    parsed = [problems.parse(f"{where}[{at}]", text, parse) for at, text in enumerate(texts)]
    return tuple(value for value in parsed if value is not None)
