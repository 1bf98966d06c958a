"""The daemon: wires store, instances, pumps and server, and decides when it ends.

Start: raise the descriptor limit, open the store, listen, start or find the pumps,
bring the store in line with what is alive, serve.
End: SIGTERM drains (no new sessions, live ones go on up to a limit; a second one
hurries), SIGINT ends everything now; live calls get Close 1012 either way.
"""

from __future__ import annotations

__all__ = ["Daemon", "serve"]

import contextlib
import resource
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import trio

from relay.config import Bind, Config, derive_public_url
from relay.errors import StoreError
from relay.instances.fixed import FixedInstances
from relay.ops.log import Log, configure
from relay.policy.routes import ADMIN, PUBLIC, Route
from relay.pump_processes import PumpProcesses
from relay.server.admin import ADMIN_HANDLERS
from relay.server.connection import Routes
from relay.server.exchange import Front
from relay.server.listener import Listener, open_listeners
from relay.server.pumps import Pumps
from relay.server.sessions import SessionKeeper
from relay.server.start import Preflight, StartSession, StopSession
from relay.server.websocket import GenericWebSocket, ProviderWebSocket
from relay.store.sqlite import SQLiteStore

# Descriptors that connections can't use: store, listeners, channels, logs, probes.
SPARE_DESCRIPTORS = 64
# An upgrade holds a client's and a bot's descriptor until the pump has them.
DESCRIPTORS_PER_CONNECTION = 2
MAX_ADMIN_CONNECTIONS = 32
# Asked-for stops of sessions that this node holds are looked up so often.
STOP_POLL = 1.0
# Reservations that nobody claimed are ended, and old rows forgotten, so often.
SWEEP = 5.0
# After the last Close frames: closing handshakes (`close_timeout`) and their reports.
END_MARGIN = 2.0

PUBLIC_ROUTES = Routes(
    PUBLIC,
    {
        Route.START: StartSession,
        Route.STOP_SESSION: StopSession,
        Route.GENERIC_WEBSOCKET: GenericWebSocket,
        Route.PROVIDER_WEBSOCKET: ProviderWebSocket,
    },
    preflight=Preflight,
)
ADMIN_ROUTES = Routes(ADMIN, ADMIN_HANDLERS)


def serve(config: Config) -> int:
    """Run the daemon until a signal ends it; the exit code.

    Raises:
        ConfigError: an address, the store or the runtime directory can't be used.
    """
    log = configure(config.log_format, config.log_level, sys.stderr)
    trio.run(Daemon(config, log).run)
    return 0


class Daemon:
    """One node.

    Args:
        config: checked configuration.
        on_ready: called once with the real public URL and admin URL when serving.
    """

    def __init__(
        self, config: Config, log: Log, on_ready: Callable[[str, str], None] | None = None
    ) -> None:
        self._config = config
        self._log = log
        self._on_ready = on_ready or self._print_ready
        self._ending = trio.Event()
        self._hurry = trio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        config = self._config
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            most = _raise_descriptor_limit()
            _private_directory(config.runtime_dir)
            store = SQLiteStore(config.store_path, _node(config))
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey, signals)
                    await self._serve(store, most)
                    nursery.cancel_scope.cancel()
            finally:
                store.close()

    async def _serve(self, store: SQLiteStore, most: int) -> None:
        config = self._config
        public = [each for bind in config.binds for each in await _open(bind)]
        admin = await _open(config.admin_bind)
        public_url = config.public_url or _url_of(public[0])
        config = config.with_public_url(public_url)
        async with trio.open_nursery() as background:
            front = await self._wire(config, store, background)
            listener = Listener(public, front, PUBLIC_ROUTES, config.limits.max_connections or most)
            admin_listener = Listener(admin, front, ADMIN_ROUTES, MAX_ADMIN_CONNECTIONS)
            background.start_soon(admin_listener.serve)
            async with trio.open_nursery() as connections:
                connections.start_soon(listener.serve)
                self._log.event("listening", url=public_url, admin=_url_of(admin[0]))
                self._on_ready(public_url, _url_of(admin[0]))
                await self._wait_end(front, listener)
                connections.cancel_scope.cancel()
            await self._end_calls(front)
            background.cancel_scope.cancel()

    async def _wire(self, config: Config, store: SQLiteStore, background: trio.Nursery) -> Front:
        pool = FixedInstances(config.catalog.agents.values())
        keeper = SessionKeeper(
            config.catalog, config.limits, store, pool, self._log, time.time, background
        )
        processes = PumpProcesses(config.runtime_dir)
        pumps = Pumps(config.pumps, processes.connect, processes.spooled, keeper, self._log)
        background.start_soon(pool.run)
        await background.start(pumps.run)
        front = Front(
            catalog=config.catalog,
            limits=config.limits,
            store=store,
            pool=pool,
            sessions=keeper,
            pumps=pumps,
            log=self._log,
            now=time.time,
            clock=time.monotonic,
            new_id=lambda: str(uuid.uuid4()),
            admin_token=config.admin_token,
        )
        background.start_soon(self._poll_stops, front)
        background.start_soon(self._sweep, keeper)
        return front

    # The end.

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for signum in signals:
            if signum == signal.SIGINT or self._ending.is_set():
                self._hurry.set()
            self._log.event("ending", signal=signal.Signals(signum).name)
            self._ending.set()

    async def _wait_end(self, front: Front, listener: Listener) -> None:
        """Return when no call is left to wait for, or nobody wants to wait."""
        await self._ending.wait()
        front.draining = True
        listener.end_idle()
        with trio.move_on_after(self._config.limits.drain_timeout):
            while front.pumps.count() and not self._hurry.is_set():
                with trio.move_on_after(STOP_POLL):
                    await self._hurry.wait()

    async def _end_calls(self, front: Front) -> None:
        await front.pumps.end_all()
        with trio.move_on_after(self._config.limits.close_timeout + END_MARGIN):
            while front.pumps.count():
                await trio.sleep(0.05)
        await front.pumps.quit()

    # In the background.

    async def _poll_stops(self, front: Front) -> None:
        """Stops that another process has asked for, through the store."""
        while True:
            await trio.sleep(STOP_POLL)
            with contextlib.suppress(StoreError):
                for session in await front.store.stop_requests():
                    await front.sessions.stop(session.id)
                    await front.pumps.end(session.id, "stop")

    async def _sweep(self, keeper: SessionKeeper) -> None:
        while True:
            with contextlib.suppress(StoreError):
                await keeper.sweep()
            await trio.sleep(SWEEP)

    @staticmethod
    def _print_ready(public_url: str, admin_url: str) -> None:
        print(f"relay listens on {public_url}, administration on {admin_url}", flush=True)


async def _open(bind: Bind) -> list[trio.SocketListener]:
    return await open_listeners(bind.kind, bind.host, bind.port, bind.path)


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


def _private_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def _node(config: Config) -> str:
    """This node's name in the store: made once, kept in the runtime directory."""
    path = config.runtime_dir / "node"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        name = uuid.uuid4().hex
        path.write_text(name)
        return name
