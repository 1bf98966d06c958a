"""Calls that are relayed here: counted, ended, recorded, and none takes another along."""

from __future__ import annotations

from pathlib import Path

import trio

from relay.pump.channel import Adopt
from relay.server.calls import Frames
from tests.helpers.desk import Desk, active, open_desk
from tests.helpers.pump import Peer, tcp_pair


def adopt(frames: Frames, session: str, *, watched: bool = False) -> tuple[Peer, Peer]:
    """A call of a session that is active; its client and its bot."""
    (client, downstream), (bot, upstream) = tcp_pair(), tcp_pair()
    streams = []
    for sock in (downstream, upstream):
        sock.setblocking(False)
        streams.append(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
    message = Adopt(session, session, watched=watched, close_timeout=5.0)
    frames.adopt(message, *streams)
    return Peer(client, masked=True), Peer(bot, masked=False)


async def ends(peer: Peer, desk: Desk) -> str:
    """Answer what comes, and tell how the connection has ended."""

    async def ended() -> bool:
        peer.poll()
        if peer.received and not peer.unsent and peer.sock.fileno() >= 0 and peer.closes():
            peer.close_frame(1000)
            peer.shut()
        return bool(peer.end)

    await desk.until(ended)
    peer.sock.close()
    return peer.end


async def until_none(frames: Frames, desk: Desk) -> None:
    async def none() -> bool:
        return frames.count() == 0

    await desk.until(none)


async def test_a_call_is_counted_until_its_end_is_recorded(tmp_path: Path) -> None:
    async with open_desk(tmp_path / "relay.db") as desk:
        frames = Frames(desk.keeper, desk.log, desk.nursery)
        await active(desk, "one")
        client, bot = adopt(frames, "one")
        assert frames.count() == 1
        assert not frames.end("another", "stop")
        assert frames.end("one", "stop")
        assert await ends(client, desk) == "fin"
        assert await ends(bot, desk) == "fin"
        await until_none(frames, desk)
        (session,) = desk.log.ended
        assert (session.id, session.cause, session.close_code) == ("one", "stopped", 1001)
        assert not frames.end("one", "stop")


async def test_a_fault_breaks_off_one_call_and_is_told(tmp_path: Path) -> None:
    async with open_desk(tmp_path / "relay.db") as desk:
        frames = Frames(desk.keeper, desk.log, desk.nursery)
        await active(desk, "one")
        client, bot = adopt(frames, "one", watched=True)
        del desk.pool.dead  # so that the question whether its process has failed is a fault
        bot.sock.close()
        assert await ends(client, desk) == "reset"
        await until_none(frames, desk)
        assert len(desk.log.failures) == 1
        (session,) = desk.log.ended
        assert (session.id, session.cause) == ("one", "lost")


async def test_all_calls_are_ended(tmp_path: Path) -> None:
    async with open_desk(tmp_path / "relay.db") as desk:
        frames = Frames(desk.keeper, desk.log, desk.nursery)
        peers = []
        await active(desk, "one")
        peers += adopt(frames, "one")
        frames.end_all()
        for peer in peers:
            await ends(peer, desk)
            assert peer.closes() == [(1012, "service restart")]
        await until_none(frames, desk)
        assert [session.cause for session in desk.log.ended] == ["drain"]
