"""What an operator declares: organizations, agents, limits; plain frozen values.

`relay.config` decodes the configuration file into these; nothing here reads a
file, an environment or a clock.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

__all__ = [
    "AGENT_NAME",
    "ORGANIZATION_NAME",
    "Address",
    "Agent",
    "Catalog",
    "DnsName",
    "IceServer",
    "Limits",
    "Organization",
    "TokenKey",
    "TraceReceiver",
    "Trust",
    "Webhook",
]

# Service names of the public contract: lower case, digits and inner hyphens, and
# no dot, since the service host is `agent.organization` (docs/protocol.md).
AGENT_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,52}[a-z0-9])?")
ORGANIZATION_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,62}[a-z0-9])?")

SECOND = 1.0
KIB = 1024


INSTANCE_URL = re.compile(r"http(s?)://(\[[0-9A-Fa-f:.]+\]|[^/:?#@\[\]]+)(?::([0-9]{1,5}))?/?")


class Address(msgspec.Struct, frozen=True):
    """Where an instance listens: host and port, with or without TLS, and its Host field."""

    host: str
    port: int
    secure: bool = False

    @classmethod
    def of(cls, url: str) -> Address:
        """The address in an instance's base URL, `http://host[:port]` or `https://…`.

        Raises:
            ValueError: it has another form.
        """
        found = INSTANCE_URL.fullmatch(url)
        secure = found is not None and found[1] == "s"
        port = int(found[3] or (443 if secure else 80)) if found is not None else 0
        if found is None or not 0 < port < 2**16:
            raise ValueError(f"{url} is not of the form http://host:port")
        return cls(found[2].strip("[]"), port, secure)

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http{'s' if self.secure else ''}://{self.authority}"


class DnsName(msgspec.Struct, frozen=True):
    """A name of the domain name system that stands for instances.

    Attributes:
        port: of every instance; None asks for SRV records, which say it.
        secure: there is TLS toward them.
    """

    name: str
    port: int | None = None
    secure: bool = False

    @classmethod
    def of(cls, entry: str) -> DnsName | None:
        """The name in `dns+http://name:port` or `dns+srv+http://name`; None for other entries.

        With `https` there is TLS toward its instances.
        """
        scheme, _, rest = entry.partition("://")
        if scheme in ("dns+srv+http", "dns+srv+https"):
            return cls(rest, None, scheme.endswith("s"))
        name, _, port = rest.rpartition(":")
        known = scheme in ("dns+http", "dns+https")
        return cls(name, int(port), scheme.endswith("s")) if known else None


class Trust(msgspec.Struct, frozen=True):
    """Whom bots with TLS are to be.

    Attributes:
        ca: the authorities that are believed, as PEM text; "" for those of the system.
        name: what their certificates are for; "" for the host of each one's address.
    """

    ca: str = ""
    name: str = ""


class TokenKey(msgspec.Struct, frozen=True):
    """One HMAC key: a short id that tokens name, and at least 32 bytes of secret."""

    id: str
    secret: bytes


class Webhook(msgspec.Struct, frozen=True):
    """Where an organization hears of its sessions, and the key that signs what it hears."""

    url: str
    secret: bytes


class Organization(msgspec.Struct, frozen=True):
    """Who owns agents: API keys, and token keys of which the first one signs."""

    name: str
    public_keys: tuple[str, ...]
    private_keys: tuple[str, ...]
    token_keys: tuple[TokenKey, ...]
    # As an agent's, over all its agents.
    max_sessions: int = 0
    webhook: Webhook | None = None


class IceServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A STUN or TURN server for WebRTC clients (W3C WebRTC, RTCIceServer)."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = None


class Agent(msgspec.Struct, frozen=True):
    """One kind of bot and how its sessions are run; durations in seconds, sizes in bytes.

    Its bots are those in `instances`, or are started with `command`; exactly one of the
    two is not empty. The fields behind `command` belong to it. A timeout of 0 is off.
    An entry of `instances` is a base URL, or a `DnsName`; `dns_…` say how those are looked up.
    """

    name: str
    organization: str
    instances: tuple[str, ...] = ()
    dns_server: str = ""
    dns_interval: float = 5 * SECOND
    # Who bots with TLS are to be: see `Trust`.
    bot_ca: str = ""
    bot_name: str = ""
    command: tuple[str, ...] = ()
    cwd: str = ""
    env: tuple[tuple[str, str], ...] = ()
    min_agents: int = 0
    max_agents: int = 10
    # Callers who have not called yet, for whom there is a place that is ready.
    spare_places: int = 0
    idle_retirement: float = 300 * SECOND
    reuse_process: bool = False
    start_timeout: float = 60 * SECOND
    stop_timeout: float = 30 * SECOND
    log_size: int = 1024 * KIB
    websocket_auth: Literal["token", "none"] = "token"
    relay: Literal["tunnel", "frames"] = "tunnel"
    # A message in bytes; 0 is no limit.
    max_message_size: int = 0
    sessions_per_instance: int = 1
    # At a time, on all nodes, those that a place is held for too; 0 is no limit.
    max_sessions: int = 0
    max_session_duration: float = 7200 * SECOND
    idle_timeout: float = 0.0
    ping_interval: float = 0.0
    attach_timeout: float = 30 * SECOND
    ws_path: str = "/ws"
    ready_path: str = "/readyz"
    settle_time: float = 0.5 * SECOND
    stopping_time: float = 30 * SECOND
    ice_servers: tuple[IceServer, ...] = ()
    # Bodies too large for a URL are kept in the store, for the bot to fetch.
    stored_bodies: bool = False

    @property
    def service_host(self) -> str:
        return f"{self.name}.{self.organization}"

    @property
    def trust(self) -> Trust:
        return Trust(self.bot_ca, self.bot_name)

    @property
    def secure(self) -> bool:
        """Whether there is TLS toward bots of it."""
        return any(each.partition("://")[0].endswith("https") for each in self.instances)


class TraceReceiver(msgspec.Struct, frozen=True):
    """Who takes spans.

    Attributes:
        endpoint: the URL that they are posted to.
        ratio: of the traces that begin here, how many are recorded, 0 to 1.
        service_name: whose spans these are.
    """

    endpoint: str
    ratio: float = 1.0
    service_name: str = "relay"


class Limits(msgspec.Struct, frozen=True):
    """Bounds on what callers may make the daemon hold or wait for.

    Each default has its reason beside it; sizes in bytes, times in seconds.
    """

    # A request line of 24 KiB carries a 4 KiB body in its worst percent-encoding.
    max_target: int = 24 * KIB
    # The whole head: nginx and uvicorn allow 32 to 64 KiB; browsers' cookies fit.
    max_head: int = 48 * KIB
    # Field lines: what HAProxy (101) and `websockets` (128) accept.
    max_header_count: int = 100
    # A start request: the documented 1 MiB of body, with some escaping and properties.
    max_start_request: int = 1280 * KIB
    # A head that takes longer is a slow sender; the whole head, not each byte.
    head_timeout: float = 10 * SECOND
    # The same for a request body that the daemon itself reads.
    body_timeout: float = 10 * SECOND
    # An idle keep-alive connection; longer than common load balancers' 60 s.
    keep_alive_timeout: float = 75 * SECOND
    # A TLS handshake, from the connection on: as for a head.
    handshake_timeout: float = 10 * SECOND
    # TLS handshakes under way; the oldest makes room, which in a flood is a slow one.
    max_handshakes: int = 1000
    # A reader that takes no bytes of an answer for so long is gone.
    write_timeout: float = 10 * SECOND
    # The same for what a bot answers: a reader may pause in a download or between events.
    pause_timeout: float = 600 * SECOND
    # Requests of one session under way at a time: some pages' worth, streams included.
    session_requests: int = 100
    # Connections at a time; None derives it from the descriptor limit.
    max_connections: int | None = None
    # Of those one address, an IPv6 network of 64 bits; None is half of them, 0 no limit.
    max_connections_per_address: int | None = None
    # New sessions per minute with one key: a key may stand for all callers of a product,
    # so only the operator knows a number. 0 is no limit, here and below.
    key_sessions_per_minute: int = 0
    # The same from one address: one may stand for an office, or for a balancer that is
    # not declared as one.
    address_sessions_per_minute: int = 0
    # Refused keys and tokens from one address; beyond, all its requests are refused.
    address_refusals_per_minute: int = 0
    # Callers that wait for an instance, per agent.
    max_waiting: int = 100
    # WebSockets beside a session's own: who follows or steers a call opens one or two, and
    # each holds two descriptors of a pump.
    max_side_tunnels: int = 16
    # A place that /start holds for a caller who has not connected yet.
    reservation_timeout: float = 30 * SECOND
    # A control process of another node that has said nothing for so long is looked for, and
    # when it is dead, what it held is taken over: a supervisor restarts one within seconds.
    node_timeout: float = 10 * SECOND
    # A Close that was sent waits so long for its answer, then the sockets are closed.
    close_timeout: float = 5 * SECOND
    # Calls that end with the daemon end over so long a time: thousands of clients that come
    # back at once would be a crowd, and nobody should wait much longer for a restart.
    close_spread: float = 5 * SECOND
    # How long SIGTERM lets live calls go on: the longest default session.
    drain_timeout: float = 7200 * SECOND


class Catalog(msgspec.Struct, frozen=True):
    """The agents and organizations that the daemon serves, looked up by name."""

    organizations: dict[str, Organization]
    agents: dict[str, Agent]
    public_url: str = ""
    cors_origins: tuple[str, ...] = ("*",)

    def by_service_host(self, service_host: str) -> Agent | None:
        """The agent of `agent.organization`, or None for one that is not served."""
        agent = self.agents.get(service_host.partition(".")[0])
        return agent if agent is not None and agent.service_host == service_host else None

    def ws_url(self, agent: Agent) -> str:
        """Where a client of `agent` connects: the public URL as ws or wss, never with a query."""
        return (
            f"ws{self.public_url.removeprefix('http').rstrip('/')}/ws/generic/{agent.service_host}"
        )

    def webhooks(self) -> dict[str, Webhook]:
        """The organizations that are told of their sessions."""
        return {
            name: each.webhook
            for name, each in self.organizations.items()
            if each.webhook is not None
        }

    def max_together(self, agent: Agent) -> int:
        """How many sessions all agents of its organization may have together; 0 is no limit.

        An agent may have left the configuration since its caller came.
        """
        organization = self.organizations.get(agent.organization)
        return 0 if organization is None else organization.max_sessions

    def organization_of(self, agent: Agent) -> Organization:
        return self.organizations[agent.organization]
