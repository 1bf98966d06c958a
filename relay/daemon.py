"""The daemon: wires store, instances, pumps and server, and decides when it ends.

Start: raise the descriptor limit, open the store, listen, start or find the pumps,
bring the store in line with what is alive, serve.
End: SIGTERM drains (no new sessions, live ones go on up to a limit; a second one
hurries), SIGINT ends everything now; live calls get Close 1012 either way. SIGUSR2 has
another process take this one's place.
"""

from __future__ import annotations

__all__ = ["Daemon", "serve"]

import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import trio

from relay import __version__
from relay.chores import poll_stops, sweep
from relay.config import Config
from relay.endings import END_MARGIN, Ending, end_calls, end_pumps, run_to_end, wait_end
from relay.handlers import ADMIN_ROUTES, PUBLIC_ROUTES
from relay.instances.files import BotFiles
from relay.instances.pool import Instances
from relay.ops.console import console_files
from relay.ops.log import Log
from relay.ops.observer import Observer
from relay.ops.supervisor import NOBODY, VARIABLES, Supervisor
from relay.ops.traces import recording
from relay.predecessor import Predecessor
from relay.pump_processes import PumpProcesses, RuntimeDirectories, hold_directory, node_name
from relay.reloading import Parts, Reloading, in_force
from relay.server.bot_pool import BotPool
from relay.server.calls import Calls, Frames
from relay.server.draining import Draining
from relay.server.exchange import Front
from relay.server.guard import Guard
from relay.server.handshakes import Handshakes
from relay.server.identifiers import fresh_id
from relay.server.inheriting import Inheritance
from relay.server.listener import Listener
from relay.server.nodes import Nodes
from relay.server.pumps import Pumps
from relay.server.rules import Rules
from relay.server.sessions import SessionKeeper
from relay.server.succession import Role
from relay.server.traffic import Traffic
from relay.server.webhooks import Deliveries
from relay.sockets import Place, descriptor_room, listeners_of, open_places, secured, url_of
from relay.store.sqlite import SQLiteStore
from relay.takeover import Node, Tasks, Upgrades, finish, own_command

MAX_ADMIN_CONNECTIONS = 32


def serve(load: Callable[[], Config], environ: Mapping[str, str]) -> int:
    """Run the daemon until a signal ends it, or the next one takes over; the exit code.

    Args:
        load: reads and judges the configuration file; it is called again for each reload.

    Raises:
        ConfigError: the configuration, an address, the store or the runtime directory can't
            be used.
        RelayError: it fails before it serves.
    """
    # Until the daemon takes it this signal would end the process; it is kept for then.
    early: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _frame: early.append(number))
    before = Predecessor.of(environ)
    with before.told() if before is not None else contextlib.nullcontext():
        config = load()
        log = Log(config.log_format, config.log_level, sys.stderr)
        daemon = Daemon(
            config,
            log,
            supervisor=Supervisor(environ, os.getpid()),
            before=before,
            command=own_command(),
            load=load,
            early=early,
        )
        run_to_end(daemon.run)
    return 0


class Daemon:
    """One node.

    Args:
        config: checked configuration.
        on_ready: called once with the real public URL and admin URL when serving.
        supervisor: who started the process and is told how it fares.
        before: the process whose place it takes, if any.
        command: starts the process that takes this one's place.
        load: reads the configuration again; None when there is no file to read.
        early: signals that have come already.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        on_ready: Callable[[str, str], None] | None = None,
        supervisor: Supervisor = NOBODY,
        before: Predecessor | None = None,
        command: Sequence[str] | None = None,
        load: Callable[[], Config] | None = None,
        early: Sequence[int] = (),
    ) -> None:
        self._supervisor = supervisor
        # What a supervisor has said is for this process, not for bots.
        inherited = {k: v for k, v in config.bot_environment.items() if k not in VARIABLES}
        self._config = dataclasses.replace(config, bot_environment=inherited)
        self._lines = log
        self._log = Observer(log, time.time)
        self._on_ready = on_ready or _print_ready
        self._homes = RuntimeDirectories()
        self._processes = PumpProcesses(config.runtime_dir)
        self._place = str(config.runtime_dir.resolve())
        self._before = before
        self._inheritance: Inheritance | None = None
        self._upgrades = Upgrades(command, os.environ, self._log)
        self._ending = Ending()
        self._reloads = Reloading(self._config, load, self._log, supervisor)
        self._early = early

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until another process has taken over."""
        config, before = self._config, self._before
        watched = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2
        with trio.open_signal_receiver(*watched) as signals, contextlib.ExitStack() as held:
            for number in self._early:
                signal.raise_signal(number)
            if before is None:
                lock = held.enter_context(hold_directory(config.runtime_dir, config.pumps))
            else:
                before.check(config.runtime_dir, config.store_path)
                lock = -1
            self._room = descriptor_room()
            node = node_name(config.runtime_dir)
            file = config.runtime_dir / "traces.json"
            traces = held.enter_context(recording(config.traces, node, __version__, file))
            self._log.traces = traces
            store = SQLiteStore(config.store_path, node, told=config.catalog.webhooks())
            held.callback(store.close)
            async with trio.open_nursery() as nursery, contextlib.AsyncExitStack() as opened:
                nursery.start_soon(self._obey, signals, nursery)
                sockets = await open_places(config, self._supervisor.sockets, before, opened)
                if before is not None:
                    given, self._inheritance = await before.wait_turn()
                    own = hold_directory(config.runtime_dir, config.pumps, given)
                    lock = held.enter_context(own)
                if traces is not None:
                    traces.inherit()
                await store.join(self._place, self._homes.control_lives)
                await self._serve_on(sockets, store, lock)
                nursery.cancel_scope.cancel()

    async def _serve_on(self, sockets: list[Place], store: SQLiteStore, lock: int) -> None:
        url = url_of(sockets, "public")
        self._config = self._config.with_public_url(self._config.public_url or url)
        async with trio.open_nursery() as background:
            async with trio.open_nursery() as settling:
                node, parts = await self._assemble(sockets, store, lock, background, settling)
                await self._serve(node, parts, background)
                if node.front.successor is None:
                    await end_calls(self._ending, node.front)
                    await end_pumps(node.front, self._processes, self._log)
                    await parts.pool.end(self._ending.hurry)
                self._processes.leave()
                node.front.sessions.settling.end(END_MARGIN)
            background.cancel_scope.cancel()

    async def _serve(self, node: Node, parts: Parts, background: trio.Nursery) -> None:
        """Take connections until the end has begun and nobody is left to wait for."""
        front, listeners, owned = node.front, node.listeners, node.owned.nursery
        url, admin_url = front.catalog.public_url, url_of(parts.sockets, "admin")
        background.start_soon(listeners["admin"].serve)  # to the very end
        self._log.event("listening", url=url, admin=admin_url)
        async with trio.open_nursery() as connections:
            connections.start_soon(listeners["public"].serve)
            self._on_ready(url, admin_url)
            self._supervisor.tell("READY=1", f"STATUS=listens on {url}")
            owned.start_soon(self._supervisor.keep_alive)
            owned.start_soon(self._reloads.run)
            if self._inheritance is not None:
                background.start_soon(self._inheritance.run, front, listeners)
            await wait_end(self._ending, front, parts.pool, listeners["public"])
            if front.successor is not None:
                await finish(node, self._ending.hurry)
            connections.cancel_scope.cancel()

    async def _assemble(
        self,
        sockets: list[Place],
        store: SQLiteStore,
        lock: int,
        background: trio.Nursery,
        settling: trio.Nursery,
    ) -> tuple[Node, Parts]:
        """Everything that serves, wired: as it can be taken over, and as it follows reloads.

        Args:
            background: for what goes on to the very end.
            settling: for instances whose session is over.
        """
        config, owned = self._config, await Tasks.begin(background)
        pool = self._instances(config)
        front = await self._wire(config, store, pool, background, settling, owned.nursery)
        hooks = Deliveries(store.outbox, store.outbox.tell, self._log, self._log, time.time)
        owned.nursery.start_soon(hooks.run, config.catalog.webhooks())
        listeners, guard = self._listeners(front, sockets)
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
            hooks,
        )
        why_not = self._why_no_reload
        parts = Parts(front, pool, sockets, listeners, guard, hooks, self._lines, why_not)
        self._reloads.begin(config, parts)
        return node, parts

    def _listeners(
        self, front: Front, sockets: Sequence[Place]
    ) -> tuple[dict[Role, Listener], Guard]:
        """The public one and the administration's, and what guards the first."""
        rules = front.rules

        def most() -> int:
            return front.limits.max_connections or self._room

        guard = Guard(rules, most, time.monotonic)
        public = Listener(
            listeners_of(sockets, "public"),
            front,
            PUBLIC_ROUTES,
            most,
            front.calls.frames.count,
            lambda: rules.announcers,
            guard,
            secured(sockets),
            Handshakes(rules, self._log.handshake),
        )
        own = listeners_of(sockets, "admin")
        admin = Listener(own, front, ADMIN_ROUTES, lambda: MAX_ADMIN_CONNECTIONS)
        return {"public": public, "admin": admin}, guard

    async def _wire(
        self,
        config: Config,
        store: SQLiteStore,
        pool: Instances,
        background: trio.Nursery,
        settling: trio.Nursery,
        owned: trio.Nursery,
    ) -> Front:
        rules = Rules(**in_force(config))
        self._log.certificates = lambda: rules.tls.ends if rules.tls is not None else {}
        traffic, bots = Traffic(rules), BotPool()
        keeper = SessionKeeper(rules, store, pool, traffic, self._log, time.time, settling)
        pumps = Pumps(config.pumps, self._processes, keeper, self._log)
        if self._inheritance is not None:
            keeper.elsewhere = self._inheritance.kept
        await owned.start(pool.run)
        await owned.start(pumps.run)
        front = Front(
            rules=rules,
            drains=Draining(config.runtime_dir / "drains.json", pool.hold_back, self._log),
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
            figures=self._log,
            reload=self._reloads.reload,
            upgrade=self._upgrades.ask,
            console=console_files(),
            name=node_name(config.runtime_dir),
            version=__version__,
            started_at=time.time(),
            traces=self._log.traces,
        )
        self._begin_chores(front, store, owned)
        return front

    def _begin_chores(self, front: Front, store: SQLiteStore, owned: trio.Nursery) -> None:
        """What is done again and again; in `owned` what only one process may do."""
        nodes = Nodes(
            self._place, self._homes, store, front.sessions, front.calls, front.rules, self._log
        )
        owned.start_soon(nodes.run)
        owned.start_soon(sweep, front)
        front.background.start_soon(front.bots.run)
        front.background.start_soon(front.traffic.run, store)
        front.background.start_soon(poll_stops, front)

    def _instances(self, config: Config) -> Instances:
        agents, files = config.catalog.agents.values(), BotFiles(config.runtime_dir / "bots")
        return Instances(agents, files, config.bot_environment, self._log)

    def _why_no_reload(self) -> str:
        if self._upgrades.busy:
            return "another process is taking over"
        return "the daemon is about to end" if self._ending.begun.is_set() else ""

    async def _obey(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for signum in signals:
            if signum == signal.SIGHUP and self._reloads.possible:
                self._reloads.ask()
                continue
            if signum == signal.SIGUSR2:
                nursery.start_soon(self._upgrades.ask_by_signal)
                continue
            if self._before is not None and not self._before.may_go:
                nursery.cancel_scope.cancel()  # the node is another process's
                return
            # Without a file a hangup means that the terminal has gone.
            if signum != signal.SIGTERM or self._ending.begun.is_set():
                self._ending.hurry.set()
            self._log.event("ending", signal=signal.Signals(signum).name)
            self._supervisor.tell("STOPPING=1")
            self._ending.begun.set()


def _print_ready(public_url: str, admin_url: str) -> None:
    line = f"relay listens on {public_url}, administration on {admin_url}\n"
    # A full disk behind stdout must not keep the daemon from serving.
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), line.encode())
