"""What the daemon listens on: opened, or handed over by a supervisor or another process."""

from __future__ import annotations

__all__ = [
    "Place",
    "close_places",
    "descriptor_room",
    "listeners_of",
    "open_places",
    "reopen",
    "secured",
    "url_of",
]

import contextlib
import resource
import socket
from collections import Counter
from collections.abc import Iterable, Sequence

import trio

from relay.config import TLS_PREFIX, Bind, Config, derive_public_url
from relay.errors import ConfigError
from relay.predecessor import Predecessor
from relay.server.bot_pool import MAX_IDLE
from relay.server.listener import open_listeners, take_inherited
from relay.server.succession import Role

# Descriptors that connections can't use: store, listeners, channels, logs, probes, and the
# idle connections to bots.
SPARE_DESCRIPTORS = 64 + MAX_IDLE
# An upgrade holds a client's and a bot's descriptor until the pump has them.
DESCRIPTORS_PER_CONNECTION = 2

# What a problem with a socket is a problem of.
KEYS: dict[Role, str] = {"public": "server.bind", "admin": "server.admin_bind"}

# A listening socket, whom it is for, and the setting that names it.
Place = tuple[Role, str, trio.SocketListener]


async def open_places(
    config: Config,
    given: list[socket.socket],
    before: Predecessor | None,
    opened: contextlib.AsyncExitStack,
) -> list[Place]:
    """Every socket that the configuration asks for: handed over, or new.

    Args:
        given: by a supervisor.
        before: the process before this one, which may have some.
        opened: closes them.

    Raises:
        ConfigError: an address can't be had, or a given socket is not asked for.
    """
    places: list[Place] = []
    for role, bind in _wanted(config):
        for each in await _open(role, bind, given, before):
            await opened.enter_async_context(each)
            places.append((role, str(bind), each))
    if given:
        raise ConfigError(
            f"a socket that listens on {given[0].getsockname()} was handed over;"
            " expected one that bind or admin_bind names"
        )
    return places


async def _open(
    role: Role, bind: Bind, given: list[socket.socket], before: Predecessor | None
) -> list[trio.SocketListener]:
    if before is not None and (former := before.sockets(role, str(bind))):
        return [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in former]
    where = (bind.kind, bind.host, bind.port, bind.path)
    try:
        return await take_inherited(given, *where) or await open_listeners(*where)
    except ConfigError as error:
        raise ConfigError(f"{KEYS[role]}: {error}") from None


async def reopen(config: Config, before: Sequence[Place]) -> list[Place]:
    """Every socket that another configuration asks for: one that is there already, or new.

    Args:
        before: what is listened on now; what is not asked for stays open.

    Raises:
        ConfigError: an address can't be had; nothing more is open than before.
    """
    left, places = list(before), list[Place]()
    wanted = _wanted(config)
    rest = Counter((role, str(bind)) for role, bind in wanted)
    try:
        for role, bind in wanted:
            key = role, str(bind)
            there = [each for each in left if each[:2] == key]
            # Port 0 may be asked for several times.
            taken, rest[key] = there[: len(there) // rest[key]], rest[key] - 1
            left = [each for each in left if each not in taken]
            if not taken:
                _check_overlap(role, bind, before)
            places += taken or [(*key, each) for each in await _open(role, bind, [], None)]
    except BaseException:
        await close_places(each for each in places if each not in before)
        raise
    return places


async def close_places(places: Iterable[Place]) -> None:
    for *_, listener in places:
        await trio.aclose_forcefully(listener)


def _check_overlap(role: Role, bind: Bind, before: Sequence[Place]) -> None:
    """Raises ConfigError for an address that the kernel can't give to who has another one of it."""
    if bind.kind == "unix" or bind.port == 0:
        return
    for _, name, listener in before:
        address = listener.socket.getsockname()
        if isinstance(address, tuple) and address[1] == bind.port and _overlap(bind, address[0]):
            raise ConfigError(
                f"{KEYS[role]}: can't listen on {bind}, since this daemon listens on {name}: "
                "restart needed"
            )


def _overlap(bind: Bind, host: str) -> bool:
    other = Bind("tcp", host=host)
    return bind.host == host or bind.is_wildcard or other.is_wildcard


def _wanted(config: Config) -> list[tuple[Role, Bind]]:
    return [*(("public", bind) for bind in config.binds), ("admin", config.admin_bind)]


def listeners_of(places: Iterable[Place], role: Role) -> list[trio.SocketListener]:
    """Those that are for one role, in the order of the configuration."""
    return [listener for whom, _, listener in places if whom == role]


def secured(places: Iterable[Place]) -> frozenset[trio.SocketListener]:
    """Those whose connections begin with a TLS handshake."""
    return frozenset(listener for _, name, listener in places if name.startswith(TLS_PREFIX))


def url_of(places: Iterable[Place], role: Role) -> str:
    """Where the first one of a role listens, as a URL."""
    _, name, listener = next(place for place in places if place[0] == role)
    address = listener.socket.getsockname()
    if isinstance(address, tuple):
        return derive_public_url(address[0], address[1], tls=name.startswith(TLS_PREFIX))
    return f"unix:{address}"


def descriptor_room() -> int:
    """Raise the soft limit of descriptors to the hard one; how many connections fit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, (soft - SPARE_DESCRIPTORS) // DESCRIPTORS_PER_CONNECTION)
