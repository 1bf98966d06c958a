"""The control process's side of the pumps: hand over, stop, hear what ended, survive a death.

A link is one connection to one pump. When it ends, a new one is made, to the same
process if that lives and to a new one otherwise; sessions that the new link does not
know have died with their pump. Only what a pump says ends a session here, never the
mere loss of a connection, nor the end of a side tunnel.
"""

from __future__ import annotations

__all__ = ["Pumps"]

import itertools
from typing import Literal

import trio

from relay.errors import ConfigError
from relay.policy.interfaces import Log
from relay.policy.sessions import SessionEnd
from relay.pump import channel
from relay.pump.channel import Adopt, BotEnded, Finished, Hold, Live, Ready, Refused, Taken, View
from relay.server.looks import Seen
from relay.server.pump_giving import Giving
from relay.server.pump_link import Link, PumpSource, Tunnels, sessions_of
from relay.server.pump_offers import FULL_WAIT
from relay.server.sessions import SessionKeeper
from relay.server.side_tunnels import Order, is_side

# Between a pump's death and the start of the next one, doubled up to the second
# number while pumps die young.
RESTART_WAIT = 0.05
RESTART_WAIT_MOST = 5.0
# A pump that lived so long did not die of its start.
LIVED = 10.0
# How long a new connection to a pump may take to tell what it holds.
ASK_TIMEOUT = 5.0
# Pumps without tunnels exit as soon as their last reports are recorded.
QUIT_TIMEOUT = 2.0
POLL = 0.02


class Pumps:
    """Keeps one link per pump.

    Args:
        count: how many pumps take calls; `resize` changes it.
    """

    def __init__(self, count: int, source: PumpSource, keeper: SessionKeeper, log: Log) -> None:
        # Those that take calls; others that live finish what they have.
        self._wanted = set(range(count))
        self._source = source
        self._keeper = keeper
        self._log = log
        self._links: dict[int, Link] = {}
        # Tunnels between two links of their pump.
        self._orphans: dict[int, Tunnels] = {}
        self._starting: set[int] = set()
        self._kept: set[int] = set()
        # A pump that refuses may have had the last call that it was to have.
        self._giving = Giving(self._takers, self._note, self._let_go)
        self._quitting = trio.Event()
        self._nursery: trio.Nursery

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Connect to every pump, reconcile, then serve until they have quit.

        Raises:
            ConfigError: a pump can't be started or reached at the first try.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self._record_spooled()
            self._starting = self._wanted | self._source.living()
            for index in sorted(self._starting):
                self._begin_keeping(index)
            with trio.move_on_after(ASK_TIMEOUT):
                while self._starting:
                    await trio.sleep(POLL)
            for index in self._starting:
                self._log.warning("pump_silent", pump=index)
            await self._keeper.reconcile(self.sessions())
            task_status.started()

    def resize(self, count: int) -> None:
        """Have so many pumps take calls from now on; further ones finish what they have."""
        for index in sorted(self._wanted)[count:]:
            self._wanted.discard(index)
        while len(self._wanted) < count:
            self._want_another()
        for link in self._links.values():
            self._nursery.start_soon(self._let_go, link)

    def _want_another(self) -> set[int]:
        """Have one more pump take calls: one that only finishes, if it can, or a new one.

        Returns:
            The new one, if it is that.
        """
        strangers = {index for index, link in self._links.items() if not link.understands}
        index = next(each for each in itertools.count() if each not in self._wanted | strangers)
        self._wanted.add(index)
        if index in self._kept:
            return set()
        self._begin_keeping(index)
        return {index}

    def _begin_keeping(self, index: int) -> None:
        self._kept.add(index)
        self._nursery.start_soon(self._keep, index)

    async def _let_go(self, link: Link) -> None:
        """Have a pump quit that is not wanted and carries nothing."""
        unwanted = link.index not in self._wanted
        if unwanted and link.ready.is_set() and not link.tunnels:
            link.leaving = True
            await link.send(channel.Quit())

    def sessions(self) -> set[str]:
        """Ids of the sessions that a pump carries, as far as is known."""
        return set[str]().union(*map(sessions_of, self._known()))

    def carries(self, session_id: str) -> bool:
        """Whether a session is one of them."""
        return any(session_id in tunnels for tunnels in self._known())

    def _known(self) -> list[Tunnels]:
        links = self._links.values()
        held = [tunnels for link in links for tunnels in (link.tunnels, link.orphans)]
        return [*held, *self._orphans.values()]

    def ready(self) -> bool:
        """Whether a pump can take a call."""
        return bool(self._takers())

    async def require(self) -> None:
        """Wait, but not for long, until a pump can take a call.

        Raises:
            Refusal: 503, none can: `no_pump`, or `pump_full`.
        """
        await self._giving.require()

    async def adopt(self, message: Adopt, client: int, bot: int) -> None:
        """Give two descriptors to the pump with the fewest calls; the caller closes its own.

        Raises:
            Refusal: 503, no pump took it, nor the next one where none was alive.
        """
        await self._giving.give(message, (client, bot))

    async def hold(self, message: Hold, bot: int) -> None:
        """The same for a request that has been sent to a bot, and its one descriptor."""
        await self._giving.give(message, (bot,))

    async def wait_handed_over(self) -> None:
        """Return when no call is on its way to a pump; the caller sees to it that none follows."""
        await self._giving.wait_done()

    def _note(self, link: Link, message: Adopt | Hold | Live) -> None:
        link.tunnels[message.tunnel] = message.session
        if is_side(message.tunnel, message.session):
            self._keeper.sides.carried(message.tunnel, message.session, self.end)

    async def end(self, tunnel: str, why: Order) -> bool:
        """End a tunnel with the Close that fits; False if there is none here."""
        for link in list(self._links.values()):
            if tunnel in link.tunnels:
                return await link.send(channel.End(tunnel, why))
        return False

    async def end_all(self) -> None:
        """End every tunnel with Close 1012."""
        await self._tell_all(channel.EndAll())

    async def quit(self) -> None:
        """Let the pumps exit once they are empty; see `wait_gone`."""
        self._quitting.set()
        await self._tell_all(channel.Quit())

    async def wait_gone(self) -> bool:
        """Wait, but not for ever, until every pump has quit or died and its ends are recorded."""
        with trio.move_on_after(QUIT_TIMEOUT):
            while self._kept:
                await trio.sleep(POLL)
        return not self._kept

    async def look(self, most: int) -> list[tuple[int, str, Seen]]:
        """Every pump's number, "ready" or why it takes no calls, and what it carries.

        Args:
            most: calls to be told of singly, by each pump.
        """
        takers = self._takers()
        states = [
            (link, "ready" if link in takers else "ending" if link.ready.is_set() else "starting")
            for link in self._links.values()
        ]
        return [(link.index, state, await link.look(most)) for link, state in states]

    def _takers(self) -> list[Link]:
        links = self._links.values()
        return [link for link in links if link.index in self._wanted and link.takes_calls]

    async def _tell_all(self, message: channel.ToPump) -> None:
        async with trio.open_nursery() as nursery:  # one that is stuck must not delay the others
            for link in self._links.values():
                nursery.start_soon(link.send, message)

    # One pump, life after life.

    async def _keep(self, index: int) -> None:
        wait = RESTART_WAIT
        try:
            while not self._quitting.is_set() and (
                index in self._wanted or index in self._source.living()
            ):
                lasted = await self._live(index)
                wait = RESTART_WAIT if lasted > LIVED else min(wait * 2, RESTART_WAIT_MOST)
                with trio.move_on_after(wait):
                    await self._quitting.wait()
            await self._record_spooled()
            await self._bury(self._orphans.pop(index, {}))
        finally:
            self._kept.discard(index)
            self._starting.discard(index)
        if index in self._wanted and not self._quitting.is_set():
            self._begin_keeping(index)  # it is wanted again since it was given up

    async def _live(self, index: int) -> float:
        """One link from its beginning to its end; the seconds that it lasted."""
        try:
            sock = await self._source.connect(index)
        except ConfigError as error:
            if index in self._starting:
                raise
            self._log.warning("pump_start", pump=index, error=str(error))
            if index not in self._source.living():
                await self._record_spooled()
                await self._bury(self._orphans.pop(index, {}))
            return 0.0
        link = Link(index, sock, trio.current_time(), self._orphans.pop(index, {}))
        self._links[index] = link
        try:
            await self._record_spooled()  # now, since the pump before this one is surely gone
            if await link.send(channel.Ask()):
                while (message := await link.hear()) is not None:
                    await self._take(link, message)
        finally:
            del self._links[index]
            link.give_up_offers()
            trio.lowlevel.notify_closing(sock)
            sock.close()
        self._orphans[index] = link.tunnels | link.orphans
        if not self._quitting.is_set() and index in self._wanted:
            sessions = len(sessions_of(self._orphans[index]))
            self._log.warning("pump_died", pump=index, sessions=sessions)
        return trio.current_time() - link.since

    async def _take(self, link: Link, message: channel.ToControl) -> None:
        if isinstance(message, Live):
            self._note(link, message)
        elif isinstance(message, BotEnded):
            self._nursery.start_soon(self._answer, link, message)
        elif isinstance(message, Finished):
            await self._keeper.tunnel_ended(message)
            # Only now: whoever waits for the last tunnel waits for its record too.
            link.forget(message.tunnel)
            await link.send(channel.Recorded([message.tunnel]))
            await self._let_go(link)
        elif isinstance(message, View):
            link.looks.take(message)
        elif isinstance(message, Taken | Refused):
            await self._answered(link, message)
        else:
            if message.lost:
                self._log.warning("reports_lost", pump=link.index, count=message.lost)
            await self._begin(link, message)

    async def _answered(self, link: Link, message: Taken | Refused) -> None:
        offer = link.offers.get(message.tunnel)
        if isinstance(message, Refused):
            link.full_until = trio.current_time() + FULL_WAIT
            if offer is None:  # so late that its caller has been told otherwise
                link.forget(message.tunnel)
                await self._bury({message.tunnel: message.session})
        if offer is not None:
            offer.answer("pump_full" if isinstance(message, Refused) else "")

    async def _answer(self, link: Link, question: BotEnded) -> None:
        failed = await self._keeper.bot_failed(question.session)
        why: Literal["bot lost", "bot ended"] = "bot lost" if failed else "bot ended"
        await link.send(channel.End(question.tunnel, why))

    async def _begin(self, link: Link, ready: Ready) -> None:
        """The link has told what its pump knows; what it did not name is gone."""
        orphans, link.orphans = link.orphans, {}
        await self._bury({name: orphans[name] for name in orphans.keys() - link.tunnels.keys()})
        link.capacity = ready.capacity
        link.understands = ready.version == channel.VERSION
        if not link.understands:
            self._log.warning("pump_version", pump=link.index, version=ready.version)
            self._replace(link.index)
        if self._quitting.is_set() or not link.understands:
            await link.send(channel.Quit())
        link.ready.set()
        self._starting.discard(link.index)
        await self._let_go(link)

    def _replace(self, index: int) -> None:
        """Have another pump take calls beside one that can't be given any."""
        if index in self._wanted and not self._quitting.is_set():
            self._wanted.discard(index)
            self._starting |= self._want_another()

    async def _bury(self, tunnels: Tunnels) -> None:
        for tunnel, session_id in tunnels.items():
            if is_side(tunnel, session_id):
                self._keeper.sides.lost(tunnel, session_id)
            else:
                await self._keeper.end(session_id, SessionEnd("pump_died"))

    async def _record_spooled(self) -> None:
        for report in self._source.spooled():
            await self._keeper.tunnel_ended(report)
            for link in self._links.values():
                link.forget(report.tunnel)
            for tunnels in self._orphans.values():
                tunnels.pop(report.tunnel, None)
