"""A pump that was started by another version of relay takes no new calls."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from relay.errors import Refusal
from relay.pump import channel
from relay.pump.channel import VERSION, Ask, Finished, Quit, Ready
from relay.server.pumps import Pumps
from tests.helpers.desk import PATIENCE, open_desk


class Source:
    """One pump, which is the test."""

    def __init__(self, near: socket.socket) -> None:
        self._near = near

    async def connect(self, index: int) -> socket.socket:
        return self._near.dup()

    def living(self) -> set[int]:
        return {0}

    def spooled(self) -> list[Finished]:
        return []


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in (near, far):
        each.setblocking(False)
    with near, far:
        yield near, far


async def heard(far: socket.socket) -> channel.ToPump:
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(far)
    return channel.decode_to_pump(channel.receive(far)[0])


@pytest.mark.parametrize("version", [VERSION, VERSION + 1])
async def test_only_a_pump_of_this_version_takes_calls(
    tmp_path: Path,
    pair: tuple[socket.socket, socket.socket],
    version: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.server.pump_giving.NEXT_PUMP_WAIT", 0.0)
    near, far = pair
    async with open_desk(tmp_path / "relay.db") as desk, trio.open_nursery() as nursery:
        pumps = Pumps(1, Source(near), desk.keeper, desk.log)

        async def answer() -> None:
            assert await heard(far) == Ask()
            channel.send(far, Ready(version=version))

        nursery.start_soon(answer)
        await nursery.start(pumps.run)
        if version == VERSION:
            await pumps.require()
        else:
            assert await heard(far) == Quit()
            with pytest.raises(Refusal):
                await pumps.require()
        nursery.cancel_scope.cancel()
