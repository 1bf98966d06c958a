"""After a restart: what the pool of instances is told of the leases that were found."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.desk import A, active, open_desk


async def test_a_lost_session_is_counted_out_once(tmp_path: Path) -> None:
    """Else a bot of several sessions seems to have none and is ended under a live call."""
    async with open_desk(tmp_path / "relay.db") as desk:
        await active(desk, "lost")
    async with open_desk(tmp_path / "relay.db") as desk:
        await desk.keeper.reconcile(set())
        await desk.until_free()
        assert desk.pool.used == [A]
        assert desk.pool.frees == 1
