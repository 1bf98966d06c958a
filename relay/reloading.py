"""A new configuration for the running daemon: judged whole, then followed whole, or not at all.

What can fail comes first: the file is read and judged, new places are listened on. Then
every part that follows the configuration is told, without a pause in between. Nothing
that is live is touched: a call, a request, a caller in line goes on as it began.
"""

from __future__ import annotations

__all__ = ["Parts", "Reloading", "in_force"]

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from relay.config import Config, effective
from relay.config.changes import changes, check_reload
from relay.errors import ConfigError
from relay.instances.pool import Instances
from relay.ops.log import Log as Lines
from relay.ops.supervisor import Supervisor
from relay.policy.interfaces import Log
from relay.pump_processes import check_socket_paths
from relay.server.exchange import Front
from relay.server.guard import Guard
from relay.server.listener import Listener
from relay.server.succession import Role
from relay.server.webhooks import Deliveries
from relay.sockets import Place, close_places, listeners_of, reopen, secured, url_of

# Of what has changed, or is wrong, a log line names so much.
MAX_SHOWN = 20


def in_force(config: Config) -> dict[str, Any]:
    """The values of `server.rules.Rules`."""
    return {
        "catalog": config.catalog,
        "limits": config.limits,
        "admin_token": config.admin_token,
        "trusted": config.trusted_proxies,
        "announcers": config.proxy_protocol,
        "tls": config.tls,
        "describe": partial(effective, config),
    }


@dataclass(frozen=True, slots=True)
class Parts:
    """What follows the configuration.

    Attributes:
        front: `rules` and `pumps` of it.
        sockets: what is listened on, for everybody who asks.
        why_not: says why the daemon follows nothing now, if it does not.
    """

    front: Front
    pool: Instances
    sockets: list[Place]
    listeners: Mapping[Role, Listener]
    guard: Guard
    deliveries: Deliveries
    lines: Lines
    why_not: Callable[[], str]


class Reloading:
    """Reloads on demand; see the module.

    Args:
        config: in force.
        load: reads and judges the file, raises ConfigError; None when there is none.
    """

    def __init__(
        self, config: Config, load: Callable[[], Config] | None, log: Log, supervisor: Supervisor
    ) -> None:
        self._config = config
        self._load = load
        self._log = log
        self._supervisor = supervisor
        self._asked = trio.Event()
        self._one_at_a_time = trio.Lock()
        self._parts: Parts

    @property
    def possible(self) -> bool:
        """Whether there is a file to read again."""
        return self._load is not None

    def begin(self, config: Config, parts: Parts) -> None:
        """Who follows; nothing is reloaded before."""
        self._config, self._parts = config, parts

    def ask(self) -> None:
        """Have `run` reload soon, once, however often it was asked."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever asked; the log tells how it went."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            try:
                await self.reload()
            except ConfigError:
                pass

    async def reload(self) -> tuple[str, ...]:
        """Follow the file as it is now; the keys that have changed.

        Raises:
            ConfigError: the configuration in force stays; one line for each problem.
        """
        async with self._one_at_a_time:
            self._supervisor.tell_reloading()
            try:
                changed = await self._follow()
            except ConfigError as error:
                problems = str(error).splitlines()
                self._log.warning(
                    "reload_refused", problems=problems[:MAX_SHOWN], count=len(problems)
                )
                raise
            finally:
                self._supervisor.tell("READY=1")
            self._log.event("reloaded", changed=changed[:MAX_SHOWN], count=len(changed))
            return changed

    async def _follow(self) -> tuple[str, ...]:
        before, parts = self._config, self._parts
        if self._load is None:
            raise ConfigError("there is no configuration file to read again")
        # In a thread: a file system that hangs must not stop the daemon.
        config = await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)
        check_reload(before, config)
        check_socket_paths(config.runtime_dir, config.pumps)
        sockets = await reopen(config, parts.sockets)
        if why := parts.why_not():
            await close_places(each for each in sockets if each not in parts.sockets)
            raise ConfigError(why)
        config = config.with_public_url(config.public_url or url_of(sockets, "public"))
        # A variable that has held a secret is never handed on to bots.
        known = before.bot_environment.keys()
        inherited = {k: v for k, v in config.bot_environment.items() if k in known}
        self._config = config = dataclasses.replace(config, bot_environment=inherited)
        parts.sockets[:] = sockets
        self._tell(config)
        front = parts.front
        await front.drains.forget(front.catalog.agents, front.pool.gone)
        return changes(before, config)

    def _tell(self, config: Config) -> None:
        """The one place where a configuration comes into force while the daemon runs."""
        parts = self._parts
        for name, value in in_force(config).items():
            setattr(parts.front.rules, name, value)
        parts.pool.configure(config.catalog.agents.values(), config.bot_environment)
        parts.front.pumps.resize(config.pumps)
        parts.guard.follow()
        for role, listener in parts.listeners.items():
            listener.listen(listeners_of(parts.sockets, role), secured(parts.sockets))
        parts.deliveries.follow(config.catalog.webhooks())
        parts.lines.become(config.log_format, config.log_level)
