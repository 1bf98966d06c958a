"""The old process of a restart in place, as the new one sees it until it is the node itself."""

from __future__ import annotations

__all__ = ["VARIABLE", "Predecessor"]

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from relay import __version__
from relay.errors import ConfigError, RelayError
from relay.server.inheriting import Inheritance
from relay.server.succession import (
    VERSION,
    Failed,
    Go,
    Kept,
    Listening,
    Offer,
    Ready,
    Role,
    Talk,
    TalkEnded,
)
from relay.store.schema import SCHEMA_VERSION

# Names the descriptor of the talk to the process that was started for it.
VARIABLE = "RELAY_TAKEOVER"
# The exit code of a new process that can't take over.
FAILED = 1


class Predecessor:
    """The old process, as the new one sees it until it is the node.

    Args:
        sock: of the talk.

    Attributes:
        may_go: it has been told that this process is ready, so it may be the node any moment.

    Raises:
        ConfigError: nobody there says what is expected.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._talk = Talk(sock)
        self._sockets: list[tuple[Role, str, socket.socket]] = []
        self._went = False
        self.may_go = False
        try:
            self._offer = self._hear_offer()
        except TalkEnded:
            raise ConfigError(f"{VARIABLE}: expected a running daemon there") from None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Predecessor | None:
        """The one that has started this process to be replaced, if that is so."""
        text = environ.get(VARIABLE, "")
        if not text:
            return None
        try:
            sock = socket.socket(fileno=int(text))
            sock.setblocking(False)
        except (ValueError, OSError):
            raise ConfigError(f"{VARIABLE} is for a daemon's own use; unset it") from None
        os.set_inheritable(sock.fileno(), False)
        return cls(sock)

    def _hear_offer(self) -> Offer:
        while True:
            message, fds = self._talk.hear()
            if isinstance(message, Listening) and len(fds) == 1:
                sock = socket.socket(fileno=fds[0])
                self._sockets.append((message.role, message.bind, sock))
            elif isinstance(message, Offer):
                return message

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tell the old process what is wrong with this one, before it is the node.

        Raises:
            SystemExit: it was told, and says it to whom it may concern; or it is gone.
        """
        try:
            yield
        except RelayError as error:
            if self._went:
                raise
            try:
                self._talk.say(Failed(str(error)))
            except TalkEnded:
                pass  # nobody wants this process any more
            raise SystemExit(FAILED) from None
        finally:
            self._close_rest()
            self._talk.close()

    def _close_rest(self) -> None:
        """Sockets that the configuration does not name."""
        for *_, sock in self._sockets:
            sock.close()
        self._sockets = []

    def sockets(self, role: Role, bind: str) -> list[socket.socket]:
        """Those that the old process listens on for a setting; the caller owns them."""
        taken = [each for each in self._sockets if each[:2] == (role, bind)]
        self._sockets = [each for each in self._sockets if each not in taken]
        for *_, sock in taken:
            sock.setblocking(False)
        return [sock for *_, sock in taken]

    def check(self, runtime_dir: Path, store: Path) -> None:
        """See that this process's node is the old one's, and that the two can talk.

        Raises:
            ConfigError: it has another runtime directory or store, or they can't.
        """
        if self._offer.version != VERSION:
            raise ConfigError(
                f"relay {self._offer.release} can't hand over to relay {__version__}; "
                "restart the daemon"
            )
        try:
            there = os.stat(runtime_dir / "control.lock")
            same = (there.st_dev, there.st_ino) == self._offer.place
        except OSError:
            same = False
        if not same:
            raise ConfigError(
                f"server.runtime_dir: {runtime_dir} is not the running daemon's; "
                "to change it, restart the daemon"
            )
        if str(store) != self._offer.store:
            raise ConfigError(
                f"store.url: {store} is not the running daemon's; to change it, restart the daemon"
            )
        if self._offer.schema != SCHEMA_VERSION:
            raise ConfigError(
                f"relay {__version__} has other tables in the store than relay "
                f"{self._offer.release}, which would not find its own; restart the daemon"
            )

    async def wait_turn(self) -> tuple[int, Inheritance]:
        """Say that this process is ready, and wait until it is the node.

        Returns:
            The locked file of the runtime directory, and what the old process brings later.

        Raises:
            RelayError: the old one has gone, or goes on.
        """
        kept: set[str] = set()
        self.may_go = True
        try:
            await self._talk.send(Ready(__version__, os.getpid()))
            while True:
                message, fds = await self._talk.from_old()
                if isinstance(message, Kept):
                    kept.update(message.sessions)
                elif isinstance(message, Go) and len(fds) == 1:
                    self._went = True
                    self._close_rest()
                    return fds[0], Inheritance(self._talk, kept)
        except TalkEnded:
            raise RelayError("the daemon that was to be replaced goes on, or is gone") from None
