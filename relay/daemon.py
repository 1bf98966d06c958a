"""The daemon: wires store, instances, pumps and server, and decides when it ends.

Start: raise the descriptor limit, open the store, listen, start or find the pumps,
bring the store in line with what is alive, serve.
End: SIGTERM drains (no new sessions, live ones go on up to a limit; a second one
hurries), SIGINT ends everything now; live calls get Close 1012 either way. SIGUSR2 has
another process take this one's place.
"""

from __future__ import annotations

__all__ = ["Daemon", "run_to_end", "serve"]

import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial

import trio

from relay import __version__
from relay.config import Config, effective
from relay.endings import END_MARGIN, Ending, end_calls, end_pumps, wait_end
from relay.errors import RelayError, StoreError
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
from relay.predecessor import Predecessor
from relay.pump_processes import PumpProcesses, RuntimeDirectories, hold_directory, node_name
from relay.server.admin import ADMIN_HANDLERS
from relay.server.admin_views import VIEW_HANDLERS
from relay.server.bot_pool import BotPool
from relay.server.calls import Calls, Frames
from relay.server.connection import Routes
from relay.server.exchange import Front, fresh_id
from relay.server.guard import Guard
from relay.server.inheriting import Inheritance
from relay.server.listener import Listener
from relay.server.nodes import Nodes
from relay.server.private_api import PRIVATE_HANDLERS
from relay.server.pumps import Pumps
from relay.server.session_websocket import session_api
from relay.server.sessions import SessionKeeper
from relay.server.start import Preflight, StartSession
from relay.server.stored_bodies import StoredBody
from relay.server.succession import Role
from relay.server.traffic import Traffic
from relay.server.webhooks import deliver
from relay.server.websocket import GenericWebSocket, ProviderWebSocket
from relay.sockets import Place, descriptor_room, open_places, url_of
from relay.store.sqlite import SQLiteStore
from relay.takeover import Node, Tasks, Upgrades, finish, own_command

MAX_ADMIN_CONNECTIONS = 32
# Asked-for stops of sessions that this node holds are looked up so often.
STOP_POLL = 1.0
# Reservations that nobody claimed are ended, and old rows forgotten, so often.
SWEEP = 5.0

PUBLIC_ROUTES = Routes(
    "public",
    PUBLIC,
    {
        Route.START: StartSession,
        Route.SESSION_API: session_api,
        **PRIVATE_HANDLERS,
        Route.BODY: StoredBody,
        Route.GENERIC_WEBSOCKET: GenericWebSocket,
        Route.PROVIDER_WEBSOCKET: ProviderWebSocket,
    },
    preflight=Preflight,
)
ADMIN_ROUTES = Routes("admin", ADMIN, {**ADMIN_HANDLERS, **VIEW_HANDLERS})


def serve(load: Callable[[], Config], environ: Mapping[str, str]) -> int:
    """Run the daemon until a signal ends it, or the next one takes over; the exit code.

    Raises:
        ConfigError: the configuration, an address, the store or the runtime directory can't
            be used.
        RelayError: it fails before it serves.
    """
    before = Predecessor.of(environ)
    with before.told() if before is not None else contextlib.nullcontext():
        config = load()
        log = configure(config.log_format, config.log_level, sys.stderr)
        daemon = Daemon(
            config,
            log,
            supervisor=Supervisor(environ, os.getpid()),
            before=before,
            command=own_command(),
        )
        run_to_end(daemon.run)
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
        before: the process whose place it takes, if any.
        command: starts the process that takes this one's place.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        on_ready: Callable[[str, str], None] | None = None,
        supervisor: Supervisor = NOBODY,
        before: Predecessor | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._config = config
        self._log = Observer(log, time.time)
        self._on_ready = on_ready or self._print_ready
        self._homes = RuntimeDirectories()
        self._place = str(config.runtime_dir.resolve())
        self._before = before
        self._inheritance: Inheritance | None = None
        self._upgrades = Upgrades(command, os.environ, self._log)
        self._ending = Ending()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until another process has taken over."""
        config, before = self._config, self._before
        watched = signal.SIGTERM, signal.SIGINT, signal.SIGUSR2
        with trio.open_signal_receiver(*watched) as signals, contextlib.ExitStack() as held:
            if before is None:
                lock = held.enter_context(hold_directory(config.runtime_dir, config.pumps))
            else:
                before.check(config.runtime_dir, config.store_path)
                lock = -1
            self._room = descriptor_room()
            node = node_name(config.runtime_dir)
            store = SQLiteStore(config.store_path, node, told=config.catalog.webhooks())
            held.callback(store.close)
            async with trio.open_nursery() as nursery, contextlib.AsyncExitStack() as opened:
                nursery.start_soon(self._obey, signals, nursery)
                sockets = await open_places(config, self._supervisor.sockets, before, opened)
                if before is not None:
                    given, self._inheritance = await before.wait_turn()
                    own = hold_directory(config.runtime_dir, config.pumps, given)
                    lock = held.enter_context(own)
                await store.join(self._place, self._homes.control_lives)
                await self._serve_on(sockets, store, lock)
                nursery.cancel_scope.cancel()

    async def _serve_on(
        self,
        sockets: Sequence[Place],
        store: SQLiteStore,
        lock: int,
    ) -> None:
        public = [each for role, _, each in sockets if role == "public"]
        admin = [each for role, _, each in sockets if role == "admin"]
        public_url = self._config.public_url or url_of(public[0])
        config = self._config.with_public_url(public_url)
        pool = self._instances(config)
        processes = PumpProcesses(config.runtime_dir)
        async with trio.open_nursery() as background:
            async with trio.open_nursery() as settling:
                owned = await Tasks.begin(background)
                front = await self._wire(
                    config, store, pool, processes, background, settling, owned.nursery
                )
                admin_listener = Listener(admin, front, ADMIN_ROUTES, MAX_ADMIN_CONNECTIONS)
                background.start_soon(admin_listener.serve)  # to the very end
                most = config.limits.max_connections or self._room
                guard = Guard(config.limits, most, config.trusted_proxies, time.monotonic)
                kept, announcers = front.calls.frames.count, config.proxy_protocol
                listener = Listener(public, front, PUBLIC_ROUTES, most, kept, announcers, guard)
                self._log.event("listening", url=public_url, admin=url_of(admin[0]))
                async with trio.open_nursery() as connections:
                    connections.start_soon(listener.serve)
                    self._on_ready(public_url, url_of(admin[0]))
                    self._supervisor.tell("READY=1", f"STATUS=listens on {public_url}")
                    owned.nursery.start_soon(self._supervisor.keep_alive)
                    listeners: dict[Role, Listener] = {"public": listener, "admin": admin_listener}
                    self._upgrades.node = node = Node(
                        front,
                        listeners,
                        sockets,
                        config.store_path,
                        lock,
                        owned,
                        self._supervisor.tell,
                        self._ending.begun,
                        self._inheritance,
                    )
                    if self._inheritance is not None:
                        background.start_soon(self._inheritance.run, front, listeners)
                    await wait_end(self._ending, front, pool, listener)
                    if front.successor is not None:
                        await finish(node, self._ending.hurry)
                    connections.cancel_scope.cancel()
                if front.successor is None:
                    await end_calls(front)
                    await end_pumps(front, processes, self._log)
                    await pool.end(self._ending.hurry)
                processes.leave()
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
        owned: trio.Nursery,
    ) -> Front:
        traffic, bots = Traffic(config.limits.session_requests), BotPool()
        keeper = SessionKeeper(
            config.catalog, config.limits, store, pool, traffic, self._log, time.time, settling
        )
        pumps = Pumps(config.pumps, processes, keeper, self._log)
        if self._inheritance is not None:
            keeper.elsewhere = self._inheritance.kept
        await owned.start(pool.run)
        await owned.start(pumps.run)
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
            upgrade=self._upgrades.ask,
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
        owned.start_soon(nodes.run)
        background.start_soon(self._poll_stops, front)
        owned.start_soon(self._sweep, keeper)
        hooks = config.catalog.webhooks()
        owned.start_soon(deliver, hooks, store.outbox, self._log, self._log, time.time)
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

    async def _obey(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for signum in signals:
            if signum == signal.SIGUSR2:
                nursery.start_soon(self._upgrades.ask_by_signal)
                continue
            if self._before is not None and not self._before.may_go:
                nursery.cancel_scope.cancel()  # the node is another process's
                return
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
