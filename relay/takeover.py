"""A restart in place: a second control process becomes the node (docs/operations.md).

The old process starts the new one with the same command, so that new code and a new
configuration are read, and gives it the listening sockets. Until the new one is ready
the old one goes on as if nothing had happened. Then it gives up what has one owner (the
pumps, the bots, the lock of the runtime directory) and finishes what only it can.

The new process's side is `relay.predecessor`.
"""

from __future__ import annotations

__all__ = ["Node", "Tasks", "Upgrades", "finish", "own_command"]

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from relay import __version__
from relay.errors import Refusal, RelayError
from relay.ops.supervisor import FOR_ONE_PROCESS
from relay.policy.interfaces import Log
from relay.predecessor import VARIABLE
from relay.server.exchange import Front
from relay.server.handing import Successor
from relay.server.inheriting import Inheritance
from relay.server.listener import Listener
from relay.server.succession import (
    VERSION,
    Failed,
    Listening,
    Offer,
    Ready,
    Role,
    Talk,
    TalkEnded,
    pair,
)
from relay.server.webhooks import Deliveries
from relay.sockets import Place
from relay.store.schema import SCHEMA_VERSION

# An interpreter's start, imports, a configuration, a store: a second, on a busy machine ten.
PREPARE_TIMEOUT = 30.0
# From there to the first connection: the pumps have said what they carry, or the new
# process goes on without one (`relay.server.pumps.ASK_TIMEOUT`).
SERVING_TIMEOUT = 15.0
# A process that was told to go leaves at once; longer is killed.
LEAVE_TIMEOUT = 2.0
POLL = 0.02
# After the last Close frames: closing handshakes (`close_timeout`) and their reports.
END_MARGIN = 2.0


def own_command() -> list[str] | None:
    """What started this process, to be started again; None if nothing can take its place.

    Process 1 of a container can't: the container ends with it.
    """
    if os.getpid() == 1:
        return None
    return [sys.executable, *sys.orig_argv[1:]]


class Tasks:
    """Tasks that end together, before the process does."""

    def __init__(self) -> None:
        self._gone = trio.Event()
        self.nursery: trio.Nursery

    @classmethod
    async def begin(cls, outer: trio.Nursery) -> Tasks:
        """With no task yet."""
        tasks = cls()
        await outer.start(tasks._run)
        return tasks

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._gone.set()

    async def end(self) -> None:
        """Cancel them, and return when they are gone."""
        self.nursery.cancel_scope.cancel()
        await self._gone.wait()


@dataclass(slots=True)
class Node:
    """A node that serves, as far as another process can take it over.

    Attributes:
        sockets: what it listens on, by role and setting.
        lock: the locked file of its runtime directory.
        owned: what only the node's one control process may do.
        tell: for the supervisor.
        ending: set when the node ends, or is another process's.
        before: what this process has got in the same way.
        hooks: deliveries, which rest while the node changes hands.
    """

    front: Front
    listeners: Mapping[Role, Listener]
    sockets: Sequence[Place]
    store: Path
    lock: int
    owned: Tasks
    tell: Callable[[str], None]
    ending: trio.Event
    before: Inheritance | None
    hooks: Deliveries


class Upgrades:
    """Restarts in place of this process's node, one at a time.

    Args:
        command: starts the new process; None if there can be none.
        environment: what it inherits.
    """

    def __init__(
        self, command: Sequence[str] | None, environment: Mapping[str, str], log: Log
    ) -> None:
        self._command = command
        self._environment = {k: v for k, v in environment.items() if k not in FOR_ONE_PROCESS}
        self._log = log
        self._busy = False
        self.node: Node | None = None

    @property
    def busy(self) -> bool:
        """Whether another process is taking over, or has."""
        return self._busy or (self.node is not None and self.node.front.successor is not None)

    async def ask(self) -> dict[str, object]:
        """Have a new process take the node over; both processes' pid and version.

        Raises:
            Refusal: 409 when this can't be done now, 500 when it has failed; the node goes on.
        """
        if why := self._why_not():
            self._log.warning("upgrade_refused", reason=why)
            raise Refusal(409, why, cause="upgrade_refused")
        assert self.node is not None
        assert self._command is not None
        self._busy = True
        try:
            return await self._replace(self.node, self._command)
        except Failure as failure:
            self._log.warning("upgrade_failed", reason=str(failure))
            raise Refusal(500, str(failure), cause="upgrade_failed") from None
        finally:
            self._busy = False

    async def ask_by_signal(self) -> None:
        """The same for somebody who hears no answer."""
        try:
            await self.ask()
        except Refusal:
            pass  # it is in the log

    def _why_not(self) -> str:
        if self._command is None:
            return "this daemon can't be replaced: nothing would start it again in its place"
        if self.node is None:
            return "the daemon does not serve yet"
        if self.busy:
            return "another process is taking over already"
        if self.node.ending.is_set():
            return "the daemon is about to end"
        return ""

    async def _replace(self, node: Node, command: Sequence[str]) -> dict[str, object]:
        since = trio.current_time()
        with _started(node, command, self._environment) as start:
            ready = await start.wait_ready()
            async with node.hooks.resting():
                if node.ending.is_set():
                    raise Failure("the daemon is about to end")
                with trio.CancelScope(shield=True):
                    successor = await _hand_over(node, start.talk, ready.pid)
            start.keep()
        with trio.move_on_after(SERVING_TIMEOUT):
            await successor.serving.wait()
        seconds = round(trio.current_time() - since, 3)
        self._log.event("upgraded", pid=ready.pid, version=ready.release, seconds=seconds)
        return {
            "old": {"pid": os.getpid(), "version": __version__},
            "new": {"pid": ready.pid, "version": ready.release},
        }


async def finish(node: Node, hurry: trio.Event) -> None:
    """Finish what only the old process can, within the drain's limit.

    That is exchanges that a bot has seen, callers whose bot is being asked, calls relayed
    here. When somebody is in a hurry, or the node has ended, it is cut short.

    Raises:
        RelayError: the new process has died before it served.
    """
    front = node.front
    successor = front.successor
    assert successor is not None
    with trio.move_on_after(front.limits.drain_timeout):
        async with trio.open_nursery() as nursery:
            for event in (hurry, successor.ended):
                nursery.start_soon(_cancel_at, event, nursery.cancel_scope)
            while True:
                await trio.sleep(POLL)  # first: what was just begun shows itself
                if not _unfinished(node, successor):
                    break
            nursery.cancel_scope.cancel()
    front.calls.frames.end_all()
    with trio.move_on_after(front.limits.close_timeout + END_MARGIN):
        while front.calls.frames.count():
            await trio.sleep(POLL)
    if not successor.serving.is_set():
        raise RelayError("the process that took over has died; start the daemon again")


def _unfinished(node: Node, successor: Successor) -> bool:
    front = node.front
    return (
        not successor.serving.is_set()
        or successor.is_busy()
        or bool(front.sessions.queue())
        or front.calls.frames.count() > 0
        or any(listener.is_busy() for listener in node.listeners.values())
        or (node.before is not None and not node.before.ended.is_set())
    )


async def _cancel_at(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


class Failure(RelayError):
    """Why no new process has taken over."""


@dataclass(slots=True)
class Start:
    """A new process that gets ready."""

    child: subprocess.Popen[bytes]
    talk: Talk
    kept: bool = field(default=False)

    async def wait_ready(self) -> Ready:
        """Wait until it could take over.

        Raises:
            Failure: it can't, ended, or takes too long.
        """
        try:
            with trio.move_on_after(PREPARE_TIMEOUT):
                message = await self.talk.from_new()
                if isinstance(message, Ready):
                    return message
                reason = message.reason if isinstance(message, Failed) else "it said nothing known"
                raise Failure(reason)
        except TalkEnded:
            raise Failure(await self._end_text()) from None
        raise Failure(f"the new process was not ready within {PREPARE_TIMEOUT:g} s")

    async def _end_text(self) -> str:
        with trio.move_on_after(LEAVE_TIMEOUT):
            while self.child.poll() is None:
                await trio.sleep(POLL)
            return f"the new process ended with status {self.child.returncode}"
        return "the new process closed the talk"

    def keep(self) -> None:
        """It lives on without this process."""
        self.kept = True
        self.child.returncode = 0  # so that nobody waits for it, and Popen does not warn


@contextmanager
def _started(node: Node, command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Start]:
    """A new process that has everything which it gets before it is ready; ended unless kept."""
    ours, theirs = pair()
    talk = Talk(ours)
    try:
        with theirs:
            _offer(node, talk)
            child = subprocess.Popen(
                command,
                env={**environment, VARIABLE: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
    except (OSError, TalkEnded) as error:
        talk.close()
        raise Failure(f"the new process can't be started: {error}") from None
    start = Start(child, talk)
    try:
        yield start
    finally:
        if not start.kept:
            talk.close()
            child.kill()
            child.wait()


def _offer(node: Node, talk: Talk) -> None:
    for role, bind, listener in node.sockets:
        talk.say(Listening(role, bind), listener.socket.fileno())
    there = os.fstat(node.lock)
    place = (there.st_dev, there.st_ino)
    talk.say(Offer(VERSION, __version__, os.getpid(), place, str(node.store), SCHEMA_VERSION))


async def _hand_over(node: Node, talk: Talk, pid: int) -> Successor:
    """From here on the node is the new process's; this one can't be it again."""
    front = node.front
    successor = front.successor = Successor(talk)
    front.background.start_soon(successor.run)
    try:
        for listener in node.listeners.values():
            listener.hand_over()
        await front.pumps.wait_handed_over()
        await front.drains.wait_written()
        await node.owned.end()
        kept = front.sessions.hand_over(successor) | front.calls.frames.sessions()
        if front.traces is not None:
            front.traces.hand_over()
        kept |= successor.attaching() | (node.before.kept if node.before else set())
        await successor.go(kept, node.lock)
        node.tell(f"MAINPID={pid}")  # at once: a supervisor starts another one when we die
    except TalkEnded:
        raise Failure("the new process died when it took over") from None
    finally:
        node.ending.set()
    return successor
