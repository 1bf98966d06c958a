"""The daemon: wires store, instances, pumps and server, and decides when it ends.

Start: raise the descriptor limit, open the store, listen, start or find the pumps,
bring the store in line with what is alive, serve.
End: SIGTERM drains (no new sessions, live ones go on up to a limit; a second one
hurries), SIGINT ends everything now; live calls get Close 1012 either way.
"""

from __future__ import annotations

__all__ = ["Daemon", "run_to_end", "serve"]

import contextlib
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import trio

from relay import __version__
from relay.config import Bind, Config, derive_public_url, effective
from relay.endings import END_MARGIN, Ending, end_calls, end_pumps, wait_end
from relay.errors import ConfigError, RelayError, StoreError
from relay.instances.files import BotFiles
from relay.instances.fixed import FixedInstances
from relay.instances.launched import LaunchedInstances
from relay.instances.pool import Instances
from relay.ops.console import console_files
from relay.ops.log import configure
from relay.ops.observer import Observer
from relay.ops.supervisor import NOBODY, VARIABLES, Supervisor
from relay.policy.interfaces import Log
from relay.policy.routes import ADMIN, PUBLIC, Route
from relay.pump_processes import PumpProcesses, RuntimeDirectories, hold_directory, node_name
from relay.server.admin import ADMIN_HANDLERS
from relay.server.admin_views import VIEW_HANDLERS
from relay.server.bot_pool import MAX_IDLE, BotPool
from relay.server.calls import Calls, Frames
from relay.server.connection import Routes
from relay.server.exchange import Front, fresh_id
from relay.server.guard import Guard
from relay.server.listener import Listener, open_listeners, take_inherited
from relay.server.nodes import Nodes
from relay.server.private_api import PRIVATE_HANDLERS
from relay.server.pumps import Pumps
from relay.server.session_websocket import session_api
from relay.server.sessions import SessionKeeper
from relay.server.start import Preflight, StartSession
from relay.server.traffic import Traffic
from relay.server.websocket import GenericWebSocket, ProviderWebSocket
from relay.store.sqlite import SQLiteStore

# Descriptors that connections can't use: store, listeners, channels, logs, probes, and the
# idle connections to bots.
SPARE_DESCRIPTORS = 64 + MAX_IDLE
# An upgrade holds a client's and a bot's descriptor until the pump has them.
DESCRIPTORS_PER_CONNECTION = 2
MAX_ADMIN_CONNECTIONS = 32
# Asked-for stops of sessions that this node holds are looked up so often.
STOP_POLL = 1.0
# Reservations that nobody claimed are ended, and old rows forgotten, so often.
SWEEP = 5.0

PUBLIC_ROUTES = Routes(
    PUBLIC,
    {
        Route.START: StartSession,
        Route.SESSION_API: session_api,
        **PRIVATE_HANDLERS,
        Route.GENERIC_WEBSOCKET: GenericWebSocket,
        Route.PROVIDER_WEBSOCKET: ProviderWebSocket,
    },
    preflight=Preflight,
)
ADMIN_ROUTES = Routes(ADMIN, {**ADMIN_HANDLERS, **VIEW_HANDLERS})


def serve(config: Config) -> int:
    """Run the daemon until a signal ends it; the exit code.

    Raises:
        ConfigError: an address, the store or the runtime directory can't be used.
        StoreError: the store fails before the daemon serves.
    """
    log = configure(config.log_format, config.log_level, sys.stderr)
    supervisor = Supervisor(os.environ, os.getpid())
    run_to_end(Daemon(config, log, supervisor=supervisor).run)
    return 0


def run_to_end(main: Callable[[], Awaitable[None]]) -> None:
    """`trio.run`, with an error that is meant for the operator out of its nurseries' groups."""
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        known, rest = group.split(RelayError)
        if known is None or rest is not None:
            raise
        error: BaseException = known
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


class Daemon:
    """One node.

    Args:
        config: checked configuration.
        on_ready: called once with the real public URL and admin URL when serving.
        supervisor: who started the process and is told how it fares.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        on_ready: Callable[[str, str], None] | None = None,
        supervisor: Supervisor = NOBODY,
    ) -> None:
        self._supervisor = supervisor
        self._config = config
        self._log = Observer(log, time.time)
        self._on_ready = on_ready or self._print_ready
        self._homes = RuntimeDirectories()
        self._place = str(config.runtime_dir.resolve())
        self._ending = Ending()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        config = self._config
        with (
            trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
            hold_directory(config.runtime_dir, config.pumps),
        ):
            most = _raise_descriptor_limit()
            store = SQLiteStore(config.store_path, node_name(config.runtime_dir))
            try:
                await store.join(self._place, self._homes.control_lives)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey, signals)
                    await self._serve(store, most)
                    nursery.cancel_scope.cancel()
            finally:
                store.close()

    async def _serve(self, store: SQLiteStore, most: int) -> None:
        config = self._config
        async with contextlib.AsyncExitStack() as opened:
            given = self._supervisor.sockets
            public = [each for bind in config.binds for each in await _open(bind, given, opened)]
            admin = await _open(config.admin_bind, given, opened)
            if given:
                raise ConfigError(
                    f"a socket that listens on {given[0].getsockname()} was handed over;"
                    " expected one that bind or admin_bind names"
                )
            await self._serve_on(public, admin, store, most)

    async def _serve_on(
        self,
        public: list[trio.SocketListener],
        admin: list[trio.SocketListener],
        store: SQLiteStore,
        most: int,
    ) -> None:
        public_url = self._config.public_url or _url_of(public[0])
        config = self._config.with_public_url(public_url)
        pool = self._instances(config)
        processes = PumpProcesses(config.runtime_dir)
        async with trio.open_nursery() as background:
            async with trio.open_nursery() as settling:
                front = await self._wire(config, store, pool, processes, background, settling)
                admin_listener = Listener(admin, front, ADMIN_ROUTES, MAX_ADMIN_CONNECTIONS)
                background.start_soon(admin_listener.serve)  # to the very end
                most = config.limits.max_connections or most
                guard = Guard(config.limits, most, config.trusted_proxies, time.monotonic)
                kept, announcers = front.calls.frames.count, config.proxy_protocol
                listener = Listener(public, front, PUBLIC_ROUTES, most, kept, announcers, guard)
                self._log.event("listening", url=public_url, admin=_url_of(admin[0]))
                async with trio.open_nursery() as connections:
                    connections.start_soon(listener.serve)
                    self._on_ready(public_url, _url_of(admin[0]))
                    self._supervisor.tell("READY=1", f"STATUS=listens on {public_url}")
                    background.start_soon(self._supervisor.keep_alive)
                    await wait_end(self._ending, front, pool, listener)
                    connections.cancel_scope.cancel()
                await end_calls(front)
                await end_pumps(front, processes, self._log)
                await pool.end(self._ending.hurry)
                # Instances that rest after their last call are given back, unless that
                # takes long; then the next start does it.
                settling.cancel_scope.deadline = trio.current_time() + END_MARGIN
            background.cancel_scope.cancel()

    async def _wire(
        self,
        config: Config,
        store: SQLiteStore,
        pool: Instances,
        processes: PumpProcesses,
        background: trio.Nursery,
        settling: trio.Nursery,
    ) -> Front:
        traffic, bots = Traffic(config.limits.session_requests), BotPool()
        keeper = SessionKeeper(
            config.catalog, config.limits, store, pool, traffic, self._log, time.time, settling
        )
        pumps = Pumps(config.pumps, processes, keeper, self._log)
        await background.start(pool.run)
        await background.start(pumps.run)
        front = Front(
            catalog=config.catalog,
            limits=config.limits,
            store=store,
            pool=pool,
            sessions=keeper,
            bots=bots,
            traffic=traffic,
            pumps=pumps,
            calls=Calls(pumps, Frames(keeper, self._log, background), keeper.sides),
            log=self._log,
            background=background,
            now=time.time,
            clock=time.monotonic,
            new_id=fresh_id,
            admin_token=config.admin_token,
            figures=self._log,
            describe=partial(effective, config),
            console=console_files(),
            name=node_name(config.runtime_dir),
            version=__version__,
            started_at=time.time(),
            trusted=config.trusted_proxies,
        )
        background.start_soon(bots.run)
        background.start_soon(traffic.run, store)
        timeout = config.limits.node_timeout
        nodes = Nodes(self._place, self._homes, store, keeper, front.calls, timeout, self._log)
        background.start_soon(nodes.run)
        background.start_soon(self._poll_stops, front)
        background.start_soon(self._sweep, keeper)
        return front

    def _instances(self, config: Config) -> Instances:
        agents = config.catalog.agents.values()
        fixed = FixedInstances((agent for agent in agents if not agent.command), self._log)
        launched = LaunchedInstances(
            (agent for agent in agents if agent.command),
            BotFiles(config.runtime_dir / "bots"),
            {k: v for k, v in config.bot_environment.items() if k not in VARIABLES},
            self._log,
        )
        return Instances(fixed, launched)

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for signum in signals:
            if signum == signal.SIGINT or self._ending.begun.is_set():
                self._ending.hurry.set()
            self._log.event("ending", signal=signal.Signals(signum).name)
            self._supervisor.tell("STOPPING=1")
            self._ending.begun.set()

    # In the background.

    async def _poll_stops(self, front: Front) -> None:
        """Stops and ends that another process has told the store of."""
        while True:
            await trio.sleep(STOP_POLL)
            with contextlib.suppress(StoreError):
                for session in await front.store.stop_requests():
                    await front.sessions.stop(session.id)
                    await front.calls.end(session.id, "stop")
                await front.calls.end_strays(front.store)

    async def _sweep(self, keeper: SessionKeeper) -> None:
        while True:
            with contextlib.suppress(StoreError):
                await keeper.sweep()
            await trio.sleep(SWEEP)

    @staticmethod
    def _print_ready(public_url: str, admin_url: str) -> None:
        print(f"relay listens on {public_url}, administration on {admin_url}", flush=True)


async def _open(
    bind: Bind, inherited: list[socket.socket], opened: contextlib.AsyncExitStack
) -> list[trio.SocketListener]:
    where = (bind.kind, bind.host, bind.port, bind.path)
    listeners = await take_inherited(inherited, *where) or await open_listeners(*where)
    return [await opened.enter_async_context(each) for each in listeners]


def _url_of(listener: trio.SocketListener) -> str:
    address = listener.socket.getsockname()
    if isinstance(address, tuple):
        return derive_public_url(address[0], address[1])
    return f"unix:{address}"


def _raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one; how many connections fit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, (soft - SPARE_DESCRIPTORS) // DESCRIPTORS_PER_CONNECTION)
