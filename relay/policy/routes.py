"""Which target is what: the public routes and the administration's, and their methods.

A route names what was asked for; whether the caller may have it comes later. The
path is judged first (404), then the method (405 with Allow).
"""

from __future__ import annotations

__all__ = ["ADMIN", "PUBLIC", "Match", "Route", "match"]

import re
from dataclasses import dataclass
from enum import Enum

import msgspec

from relay.errors import Refusal
from relay.protocol.target import Target


class Route(Enum):
    __hash__ = object.__hash__  # an enumeration's own is a function in Python

    START = "start"
    SESSION_API = "session_api"
    ORGANIZATIONS = "organizations"
    SERVICES = "services"
    SERVICE = "service"
    SESSIONS = "sessions"
    SESSION = "session"
    GENERIC_WEBSOCKET = "generic_websocket"
    PROVIDER_WEBSOCKET = "provider_websocket"
    LIVEZ = "livez"
    BODY = "body"
    READYZ = "readyz"
    ADMIN_SESSIONS = "admin_sessions"
    ADMIN_SESSION = "admin_session"
    ADMIN_STATUS = "admin_status"
    ADMIN_METRICS = "admin_metrics"
    ADMIN_CONFIG = "admin_config"
    ADMIN_CONSOLE = "admin_console"
    ADMIN_ROOT = "admin_root"
    ADMIN_INSTANCES = "admin_instances"
    ADMIN_UPGRADE = "admin_upgrade"
    ADMIN_DRAIN = "admin_drain"
    ADMIN_RELOAD = "admin_reload"


class Match(msgspec.Struct, frozen=True):
    """A route and what its path named: organization, agent, session, host, token.

    Attributes:
        rest: where the pattern takes the rest of the path: its bytes as they were sent,
            beginning with `/`.
    """

    route: Route
    names: dict[str, str] = msgspec.field(default_factory=dict)
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A path of fixed and named segments, and the methods that it takes.

    An empty `methods` leaves the method to the route (a WebSocket has rules of its own).

    Attributes:
        takes_rest: the path goes on behind the segments, by any number of them.
    """

    route: Route
    segments: tuple[str, ...]
    methods: tuple[bytes, ...]
    takes_rest: bool = False


def _pattern(route: Route, path: str, *methods: bytes) -> Pattern:
    """A last segment `{name...}` in the path takes the rest."""
    segments = tuple(path.split("/"))
    takes_rest = segments[-1].endswith("...}")
    return Pattern(route, segments[:-1] if takes_rest else segments, methods, takes_rest)


READ = (b"GET", b"HEAD")
SERVICES = "v1/organizations/{organization}/services"

PUBLIC = (
    _pattern(Route.START, "v1/public/{agent}/start", b"POST"),
    _pattern(
        Route.SESSION_API,
        "v1/public/{agent}/sessions/{session}/{path...}",
        *(b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"HEAD"),
    ),
    # The private API, once as documented and once as the official command line asks.
    _pattern(Route.ORGANIZATIONS, "v1/organizations", *READ),
    _pattern(Route.SERVICES, "v1/agents", *READ),
    _pattern(Route.SERVICE, "v1/agents/{agent}", *READ),
    _pattern(Route.SESSIONS, "v1/agents/{agent}/sessions", *READ),
    _pattern(Route.SESSION, "v1/agents/{agent}/sessions/{session}", *READ, b"DELETE"),
    _pattern(Route.SERVICES, SERVICES, *READ),
    _pattern(Route.SERVICE, f"{SERVICES}/{{agent}}", *READ),
    _pattern(Route.SESSIONS, f"{SERVICES}/{{agent}}/sessions", *READ),
    _pattern(Route.SESSION, f"{SERVICES}/{{agent}}/sessions/{{session}}", *READ, b"DELETE"),
    _pattern(Route.BODY, "v1/bodies/{session}", *READ),
    _pattern(Route.GENERIC_WEBSOCKET, "ws/generic"),
    _pattern(Route.GENERIC_WEBSOCKET, "ws/generic/{host}"),
    _pattern(Route.GENERIC_WEBSOCKET, "ws/generic/{host}/{token}"),
    _pattern(Route.PROVIDER_WEBSOCKET, "ws/{provider}"),
)
ADMIN = (
    _pattern(Route.LIVEZ, "livez", b"GET", b"HEAD"),
    _pattern(Route.READYZ, "readyz", b"GET", b"HEAD"),
    _pattern(Route.ADMIN_INSTANCES, "instances", *READ),
    _pattern(Route.ADMIN_UPGRADE, "upgrade", b"POST"),
    _pattern(Route.ADMIN_SESSIONS, "sessions", *READ),
    _pattern(Route.ADMIN_SESSION, "sessions/{session}", *READ, b"DELETE"),
    _pattern(Route.ADMIN_STATUS, "status", *READ),
    _pattern(Route.ADMIN_STATUS, "status/{part}", *READ),
    _pattern(Route.ADMIN_METRICS, "metrics", *READ),
    _pattern(Route.ADMIN_CONFIG, "config", *READ),
    _pattern(Route.ADMIN_DRAIN, "drain", *READ, b"POST"),
    _pattern(Route.ADMIN_RELOAD, "reload", b"POST"),
    _pattern(Route.ADMIN_ROOT, "", *READ),
    _pattern(Route.ADMIN_ROOT, "console", *READ),
    _pattern(Route.ADMIN_CONSOLE, "console/", *READ),
    _pattern(Route.ADMIN_CONSOLE, "console/{file}", *READ),
)

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def match(table: tuple[Pattern, ...], method: bytes, target: Target) -> Match:
    """The first route of `table` that the target fits.

    Raises:
        Refusal: 404 for no such path, 405 with Allow for another method.
    """
    for pattern in table:
        fixed, segments = pattern.segments, target.segments
        names = _names(fixed, segments[: len(fixed)] if pattern.takes_rest else segments)
        if names is None:
            continue
        if pattern.methods and method not in pattern.methods:
            allow = b", ".join(pattern.methods)
            raise Refusal(
                405,
                f"this address takes {allow.decode()}",
                cause="method_not_allowed",
                headers=((b"allow", allow),),
            )
        rest = b""
        if pattern.takes_rest:
            rest = b"/" + b"/".join(target.raw_segments[len(fixed) :])
        return Match(pattern.route, names, rest)
    raise Refusal(404, "there is nothing at this path", cause="no_such_path")


def _names(pattern: tuple[str, ...], segments: tuple[str, ...]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    names = {}
    for expected, found in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            if not found:
                return None
            names[expected[1:-1]] = found
        elif expected != found:
            return None
    return names


def is_session_id(text: str) -> bool:
    """A session id is a UUID in its usual spelling."""
    return UUID.fullmatch(text) is not None
