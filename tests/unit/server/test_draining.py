"""What drains outlives the control process, and a file that cannot be used harms nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.errors import Refusal
from relay.policy import drains
from relay.policy.drains import Drains, Order
from relay.server.draining import Draining
from tests.helpers.desk import Log

URL = "http://10.0.0.1:7860"


class Node:
    """A control process's view, and what its pool was told."""

    def __init__(self, folder: Path) -> None:
        self.log = Log()
        self.held_back: list[frozenset[str]] = []
        self.draining = Draining(folder / "drains.json", self.held_back.append, self.log)

    @property
    def state(self) -> Drains:
        return self.draining.state

    def said(self) -> list[str]:
        return [*(name for name, _fields in self.log.events), *self.log.warnings]


async def test_what_drains_is_known_to_the_next_one(tmp_path: Path) -> None:
    first = Node(tmp_path)
    assert first.state == Drains()
    for order in (Order(True, agent="bot"), Order(True, instance=URL), Order(True, node=True)):
        assert await first.draining.order(order)
    assert first.held_back == [frozenset(), frozenset(), {URL}, {URL}]
    second = Node(tmp_path)
    assert second.state == Drains(True, frozenset({"bot"}), frozenset({URL}))
    assert second.held_back == [{URL}]
    await second.draining.order(Order(False, node=True))
    await second.draining.forget((), lambda _url: True)
    assert Node(tmp_path).state == second.state == Drains()


async def test_the_same_order_again_writes_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.draining.order(Order(True, agent="bot"))
    (tmp_path / "drains.json").unlink()
    assert await node.draining.order(Order(True, agent="bot"))
    await node.draining.forget({"bot"}, lambda _url: False)
    assert list(tmp_path.iterdir()) == []
    assert node.said() == ["drains"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"node": 1}', b'{"agents": 3}', b"\xff" * 100])
async def test_a_damaged_file_is_told_and_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "drains.json").write_bytes(content)
    node = Node(tmp_path)
    assert node.state == Drains()
    assert node.said() == ["drains_unread"]
    await node.draining.order(Order(True, node=True))
    assert Node(tmp_path).state == Drains(node=True)


async def test_what_cannot_be_written_drains_all_the_same(tmp_path: Path) -> None:
    """Its directory is gone, as a disk may be full; it is written when there is room again."""
    folder = tmp_path / "run"
    node = Node(folder)
    assert not await node.draining.order(Order(True, agent="bot"))
    assert node.state.agents == {"bot"}
    assert node.said() == ["drains", "drains_unsaved"]
    folder.mkdir()
    await node.draining.forget({"bot"}, lambda _url: False)
    assert Node(folder).state.agents == {"bot"}
    assert [path.name for path in folder.iterdir()] == ["drains.json"]


async def test_too_many_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "MAX_DRAINED", 1)
    node = Node(tmp_path)
    await node.draining.order(Order(True, agent="a"))
    with pytest.raises(Refusal):
        await node.draining.order(Order(True, agent="b"))
    assert node.state.agents == {"a"}
