"""The tables of the configuration file: every key with its type, bounds and default.

One struct for each table; `relay.config.reading` decodes them, and
`docs/configuration.md` lists the same keys with the same defaults (a test
compares them). Sizes in bytes, durations in seconds. A key that must be given
has the default None, and `relay.config.checks` asks for it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from relay.policy.catalog import KIB, Agent, Limits, TraceReceiver

__all__ = [
    "AgentTable",
    "CertificateTable",
    "FileTable",
    "IceServerTable",
    "LimitsTable",
    "OrganizationTable",
    "ServerTable",
    "StoreTable",
    "TlsTable",
    "TokenKeyTable",
    "TracesTable",
]

MIB = 1024 * KIB
HOUR = 3600
DAY = 24 * HOUR
# The longest call or drain that can be asked for: a month, so that a typing error
# (milliseconds for seconds) is noticed.
MAX_CALL = 30 * DAY
# The longest wait for anything else; callers' own timeouts are far shorter.
MAX_WAIT = HOUR
# One pump carries thousands of calls; more pumps than cores gain nothing.
MAX_PUMPS = 64
# A list longer than this belongs into a launcher or a name server.
MAX_LIST = 1000
# More sockets than one process can hold; stand-ins for load tests come near it.
MAX_SESSIONS_PER_INSTANCE = 100_000

# Far beyond what one store's machine carries.
MAX_SESSIONS = 1_000_000

# Bot processes of one agent on one machine: about 90 MB each, so far more than fit.
MAX_AGENTS = 10_000
GIB = 1024 * MIB

_AGENT = Agent(name="", organization="")
_LIMITS = Limits()
_TRACES = TraceReceiver("")


def _integer(low: int, high: int, unit: str = "") -> msgspec.Meta:
    of = f" of {unit}" if unit else ""
    return msgspec.Meta(ge=low, le=high, description=f"an integer{of} from {low} to {high}")


def _seconds(low: int, high: int) -> msgspec.Meta:
    return msgspec.Meta(ge=low, le=high, description=f"a number of seconds from {low} to {high}")


def _is(description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description)


def _secret(description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description, extra={"secret": True})


Text = Annotated[str, _is("a string")]
OptionalText = Annotated[str | None, _is("a string")]
Texts = Annotated[
    tuple[str, ...],
    msgspec.Meta(max_length=MAX_LIST, description=f"a list of at most {MAX_LIST} strings"),
]
SecretText = Annotated[str | None, _secret("a string")]
VariableName = Annotated[str | None, _secret("the name of an environment variable")]
SecretTexts = Annotated[tuple[str, ...] | None, _secret("a list of strings")]
Subtable = Annotated[dict[str, Any], _is("a table")]
Wait = Annotated[float, _seconds(1, MAX_WAIT)]
OptionalWait = Annotated[
    Annotated[float, msgspec.Meta(ge=1, le=MAX_WAIT)] | None,
    _is(f"a number of seconds from 1 to {MAX_WAIT}"),
]
Call = Annotated[float, _seconds(1, MAX_CALL)]
PerMinute = Annotated[
    Annotated[int, msgspec.Meta(ge=0, le=1_000_000)],
    _is("an integer from 0, for no limit, to 1000000"),
]


MaxSessions = Annotated[int, _integer(0, MAX_SESSIONS)]


class FileTable(msgspec.Struct, frozen=True):
    """The whole file."""

    server: Subtable = {}
    tls: Subtable = {}
    limits: Subtable = {}
    store: Subtable = {}
    traces: Subtable = {}
    organizations: Subtable = {}
    agents: Subtable = {}


class ServerTable(msgspec.Struct, frozen=True):
    """`[server]`: listeners, processes, logs."""

    bind: Annotated[str | tuple[str, ...], _is("a string or a list of strings")] = "127.0.0.1:8080"
    admin_bind: Text = "127.0.0.1:8081"
    admin_token: SecretText = None
    admin_token_env: VariableName = None
    admin_token_file: OptionalText = None
    public_url: OptionalText = None
    pumps: Annotated[int, _integer(1, MAX_PUMPS)] = 1
    runtime_dir: OptionalText = None
    cors_origins: Texts = ("*",)
    trusted_proxies: Texts = ()
    proxy_protocol: Texts = ()
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _is('"debug", "info", "warning" or "error"'),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"], _is('"auto", "console" or "json"')
    ] = "auto"


class TlsTable(msgspec.Struct, frozen=True):
    """`[tls]`: what listeners with TLS show their callers."""

    certificates: Annotated[tuple[dict[str, Any], ...], _is("a list of tables")] = ()
    client_ca: OptionalText = None
    client_certificates: Annotated[
        Literal["optional", "required"], _is('"optional" or "required"')
    ] = "required"


class CertificateTable(msgspec.Struct, frozen=True):
    """One item of `certificates`."""

    certificate: OptionalText = None
    key: OptionalText = None


class LimitsTable(msgspec.Struct, frozen=True):
    """`[limits]`: the fields of `Limits`, where the reason of each default stands."""

    max_target: Annotated[int, _integer(KIB, 64 * KIB, "bytes")] = _LIMITS.max_target
    max_head: Annotated[int, _integer(2 * KIB, 256 * KIB, "bytes")] = _LIMITS.max_head
    max_header_count: Annotated[int, _integer(16, 1000)] = _LIMITS.max_header_count
    max_start_request: Annotated[int, _integer(KIB, 16 * MIB, "bytes")] = _LIMITS.max_start_request
    head_timeout: Wait = _LIMITS.head_timeout
    body_timeout: Wait = _LIMITS.body_timeout
    keep_alive_timeout: Wait = _LIMITS.keep_alive_timeout
    handshake_timeout: Wait = _LIMITS.handshake_timeout
    max_handshakes: Annotated[int, _integer(1, 100_000)] = _LIMITS.max_handshakes
    write_timeout: Wait = _LIMITS.write_timeout
    pause_timeout: Wait = _LIMITS.pause_timeout
    session_requests: Annotated[int, _integer(1, 10_000)] = _LIMITS.session_requests
    max_connections: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None,
        _is("an integer from 1 to 1000000"),
    ] = _LIMITS.max_connections
    max_connections_per_address: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None,
        _is("an integer from 0, for no limit, to 1000000"),
    ] = _LIMITS.max_connections_per_address
    key_sessions_per_minute: PerMinute = _LIMITS.key_sessions_per_minute
    address_sessions_per_minute: PerMinute = _LIMITS.address_sessions_per_minute
    address_refusals_per_minute: PerMinute = _LIMITS.address_refusals_per_minute
    max_waiting: Annotated[int, _integer(1, 100_000)] = _LIMITS.max_waiting
    max_side_tunnels: Annotated[int, _integer(1, 1000)] = _LIMITS.max_side_tunnels
    reservation_timeout: Wait = _LIMITS.reservation_timeout
    node_timeout: Wait = _LIMITS.node_timeout
    close_timeout: Wait = _LIMITS.close_timeout
    close_spread: Annotated[float, _seconds(0, MAX_WAIT)] = _LIMITS.close_spread
    drain_timeout: Call = _LIMITS.drain_timeout


class StoreTable(msgspec.Struct, frozen=True):
    """`[store]`: where sessions live."""

    url: Text = "sqlite:relay.db"


class TracesTable(msgspec.Struct, frozen=True):
    """`[traces]`: the fields of `TraceReceiver`."""

    endpoint: OptionalText = None
    ratio: Annotated[Annotated[float, msgspec.Meta(ge=0, le=1)], _is("a number from 0 to 1")] = (
        _TRACES.ratio
    )
    service_name: Annotated[
        Annotated[str, msgspec.Meta(min_length=1, max_length=255)],
        _is("a string of 1 to 255 characters"),
    ] = _TRACES.service_name


class TokenKeyTable(msgspec.Struct, frozen=True):
    """One item of `token_keys`."""

    id: OptionalText = None
    secret: SecretText = None
    secret_env: VariableName = None
    secret_file: OptionalText = None


class OrganizationTable(msgspec.Struct, frozen=True):
    """`[organizations.NAME]`."""

    public_keys: SecretTexts = None
    public_keys_env: VariableName = None
    public_keys_file: OptionalText = None
    private_keys: SecretTexts = None
    private_keys_env: VariableName = None
    private_keys_file: OptionalText = None
    token_keys: Annotated[tuple[dict[str, Any], ...], _secret("a list of tables")] = ()
    max_sessions: MaxSessions = 0
    webhook_url: SecretText = None
    webhook_secret: SecretText = None
    webhook_secret_env: VariableName = None
    webhook_secret_file: OptionalText = None


class IceServerTable(msgspec.Struct, frozen=True):
    """One item of `ice_servers`."""

    urls: Texts = ()
    username: OptionalText = None
    credential: SecretText = None
    credential_env: VariableName = None
    credential_file: OptionalText = None


class AgentTable(msgspec.Struct, frozen=True):
    """`[agents.NAME]`.

    A key that only bots with a `command` have is None when it is not given.
    """

    organization: OptionalText = None
    websocket_auth: Annotated[Literal["token", "none"], _is('"token" or "none"')] = (
        _AGENT.websocket_auth
    )
    relay: Annotated[Literal["tunnel", "frames"], _is('"tunnel" or "frames"')] = _AGENT.relay
    max_message_size: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=GIB)] | None,
        _is(f"an integer of bytes from 0, for no limit, to {GIB}"),
    ] = None
    instances: Texts | None = None
    dns_server: OptionalText = None
    dns_interval: OptionalWait = None
    bot_ca: OptionalText = None
    bot_name: OptionalText = None
    command: Texts | None = None
    cwd: OptionalText = None
    env: Annotated[dict[str, str] | None, _secret("a table of strings")] = None
    min_agents: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=MAX_AGENTS)] | None,
        _is(f"an integer from 0 to {MAX_AGENTS}"),
    ] = None
    max_agents: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=MAX_AGENTS)] | None,
        _is(f"an integer from 1 to {MAX_AGENTS}"),
    ] = None
    spare_places: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=MAX_SESSIONS_PER_INSTANCE)] | None,
        _is(f"an integer from 0 to {MAX_SESSIONS_PER_INSTANCE}"),
    ] = None
    idle_retirement: Annotated[
        Annotated[float, msgspec.Meta(ge=1, le=MAX_CALL)] | None,
        _is(f"a number of seconds from 1 to {MAX_CALL}"),
    ] = None
    reuse_process: Annotated[bool | None, _is("true or false")] = None
    start_timeout: OptionalWait = None
    stop_timeout: OptionalWait = None
    log_size: Annotated[
        Annotated[int, msgspec.Meta(ge=4 * KIB, le=GIB)] | None,
        _is(f"an integer of bytes from {4 * KIB} to {GIB}"),
    ] = None
    sessions_per_instance: Annotated[int, _integer(1, MAX_SESSIONS_PER_INSTANCE)] = (
        _AGENT.sessions_per_instance
    )
    max_sessions: MaxSessions = _AGENT.max_sessions
    max_session_duration: Call = _AGENT.max_session_duration
    idle_timeout: Annotated[float, _seconds(0, MAX_CALL)] = _AGENT.idle_timeout
    ping_interval: Annotated[float, _seconds(0, MAX_WAIT)] = _AGENT.ping_interval
    attach_timeout: Wait = _AGENT.attach_timeout
    ws_path: Text = _AGENT.ws_path
    ready_path: Text = _AGENT.ready_path
    settle_time: Annotated[float, _seconds(0, MAX_WAIT)] = _AGENT.settle_time
    stopping_time: Annotated[float, _seconds(0, MAX_WAIT)] = _AGENT.stopping_time
    ice_servers: Annotated[tuple[dict[str, Any], ...], _secret("a list of tables")] = ()
    stored_bodies: Annotated[bool, _is("true or false")] = _AGENT.stored_bodies
