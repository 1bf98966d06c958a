"""What the daemon listens on: opened, or handed over by a supervisor or another process."""

from __future__ import annotations

__all__ = ["Place", "descriptor_room", "open_places", "url_of"]

import contextlib
import resource
import socket

import trio

from relay.config import Bind, Config, derive_public_url
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
    wanted: list[tuple[Role, Bind]] = [("public", bind) for bind in config.binds]
    places: list[Place] = []
    for role, bind in [*wanted, ("admin", config.admin_bind)]:
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
    return await take_inherited(given, *where) or await open_listeners(*where)


def url_of(listener: trio.SocketListener) -> str:
    """Where it listens, as a URL."""
    address = listener.socket.getsockname()
    if isinstance(address, tuple):
        return derive_public_url(address[0], address[1])
    return f"unix:{address}"


def descriptor_room() -> int:
    """Raise the soft limit of descriptors to the hard one; how many connections fit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, (soft - SPARE_DESCRIPTORS) // DESCRIPTORS_PER_CONNECTION)
