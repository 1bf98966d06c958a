"""Connections to bots for the Session API: opened, kept while idle, and used again.

Laws:
- A connection is given back only when its last exchange left no doubt (`BotTalk.reusable`).
- One that has anything to read while it is idle, be it the end or bytes that nobody asked
  for, is closed and never used.
- No more than `MAX_IDLE_PER_BOT` idle ones for a bot and `MAX_IDLE` in all are kept, none
  for longer than `IDLE_SECONDS`.

Which request may use one that is not new is the caller's decision (docs/http.md,
"Connections to bots").
"""

from __future__ import annotations

__all__ = ["BotLink", "BotPool"]

import errno
import socket
from collections import deque

import trio

from relay.policy.catalog import Address, Trust
from relay.server.leg import Leg
from relay.server.secure import TlsLeg, secure_bot
from relay.server.upstream import CONNECT_TIMEOUT, FAMILIES, address_family

# The connections of a bot with as many callers as its default share (`session_requests`)
# that are worth keeping: a burst of a page or two.
MAX_IDLE_PER_BOT = 16
# In all; the daemon keeps as many descriptors free for them, since a connection in use is
# paid for by its client's and an idle one by nobody.
MAX_IDLE = 128
# Common bot servers close after 5 s (uvicorn's default): whoever closes first decides
# whether a request can be lost.
IDLE_SECONDS = 4.0
# How often those that are too old are looked for.
SWEEP_SECONDS = 1.0


class BotLink:
    """A connection to a bot.

    Attributes:
        authority: the bot's host and port, as its Host field has them.
        reused: it has carried an exchange before.
        since: when it became idle, in trio's time.
    """

    __slots__ = ("authority", "leg", "reused", "since", "sock", "url")

    def __init__(self, url: str, sock: socket.socket, leg: Leg | None = None) -> None:
        self.url = url
        self.authority = Address.of(url).authority
        self.sock = sock
        self.leg = leg or Leg(sock.fileno())
        self.reused = False
        self.since = 0.0

    def is_quiet(self) -> bool:
        """Whether it is open with nothing to read; after one that is not, only `close`."""
        return self.leg.read_now(1) is None

    def close(self) -> None:
        if isinstance(self.leg, TlsLeg):
            self.leg.end()
        self.sock.close()


class BotPool:
    """Idle connections, by the bot's base URL; the last one used is the first one taken."""

    def __init__(self) -> None:
        self._idle: dict[str, deque[BotLink]] = {}
        self._count = 0

    def take(self, url: str) -> BotLink | None:
        """An idle connection to this bot that is still good."""
        links = self._idle.get(url)
        while links:
            link = links.pop()
            self._count -= 1
            if not links:
                del self._idle[url]
            if trio.current_time() - link.since < IDLE_SECONDS and link.is_quiet():
                return link
            link.close()
        return None

    def give_back(self, link: BotLink) -> None:
        """Keep a connection whose exchange is over and left no doubt."""
        links = self._idle.get(link.url)
        if links is not None and len(links) >= MAX_IDLE_PER_BOT:
            links.popleft().close()
            self._count -= 1
        elif self._count >= MAX_IDLE:
            self._drop_oldest()
        link.reused, link.since = True, trio.current_time()
        self._idle.setdefault(link.url, deque()).append(link)
        self._count += 1

    def _drop_oldest(self) -> None:
        url = min(self._idle, key=lambda each: self._idle[each][0].since)
        self._idle[url].popleft().close()
        self._count -= 1
        if not self._idle[url]:
            del self._idle[url]

    def drop(self, url: str) -> None:
        """Close what is idle to a bot that is gone."""
        for link in self._idle.pop(url, ()):
            link.close()
            self._count -= 1

    async def run(self) -> None:
        """Close what has been idle for too long, or was closed by its bot, until cancelled."""
        try:
            while True:
                await trio.sleep(SWEEP_SECONDS)
                self._sweep(trio.current_time() - IDLE_SECONDS)
        finally:
            for url in list(self._idle):
                self.drop(url)

    def _sweep(self, oldest: float) -> None:
        for url, links in list(self._idle.items()):
            good = deque(link for link in links if link.since > oldest and link.is_quiet())
            for link in links:
                if link not in good:
                    link.close()
            self._count -= len(links) - len(good)
            if good:
                self._idle[url] = good
            else:
                del self._idle[url]


async def open_link(url: str, trust: Trust) -> BotLink | None:
    """A new connection to the bot at a base URL; None when it cannot be had."""
    address = Address.of(url)
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            sock = await _connect(address)
            if not address.secure:
                return BotLink(url, sock)
            secure = await secure_bot(sock, address.host, trust)
            return BotLink(url, secure, TlsLeg(secure))
    except (OSError, trio.TooSlowError):
        return None


async def _connect(address: Address) -> socket.socket:
    family = address_family(address.host)
    if family is None:
        stream = await trio.open_tcp_stream(address.host, address.port)
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        return sock
    sock = socket.socket(FAMILIES[family], socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failed = sock.connect_ex((address.host, address.port))
        if failed == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, "cannot connect")
        return sock
    except BaseException:
        sock.close()
        raise
