"""Where lines go: in whole lines, and nowhere when there is no room."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

import pytest

from relay.ops.log import Log


class Disk:
    """A file with a log on it, which may be made full."""

    def __init__(self, folder: Path, level: str = "info") -> None:
        self.file: IO[str] = (folder / "log").open("w+")
        self.log = Log("json", level, self.file)
        self.full = os.open("/dev/full", os.O_WRONLY)
        self.kept = os.dup(self.file.fileno())

    def fill(self) -> None:
        os.dup2(self.full, self.file.fileno())

    def make_room(self) -> None:
        os.dup2(self.kept, self.file.fileno())

    def lines(self) -> list[dict[str, Any]]:
        os.lseek(self.kept, 0, os.SEEK_SET)
        return [json.loads(line) for line in os.read(self.kept, 100_000).decode().splitlines()]

    def close(self) -> None:
        self.file.close()
        os.close(self.kept)
        os.close(self.full)


@pytest.fixture
def disk(tmp_path: Path) -> Any:
    disk = Disk(tmp_path)
    yield disk
    disk.close()


def test_a_full_disk_loses_lines_and_says_how_many(disk: Disk) -> None:
    disk.log.event("one")
    disk.fill()
    for _ in range(3):
        disk.log.event("lost")
    disk.log.exchange({"status": 200})
    disk.log.failure("bug", ValueError("x"))
    disk.make_room()
    disk.log.warning("two", more="\N{SNOWMAN}")
    disk.log.event("three")
    lines = disk.lines()
    assert [line["event"] for line in lines] == ["one", "two", "log_lost", "three"]
    assert lines[2]["count"] == 5
    assert lines[1]["more"] == "\N{SNOWMAN}"


def test_a_line_that_is_not_written_tells_no_loss(disk: Disk) -> None:
    """One below the level must not count as written."""
    disk.fill()
    disk.log.event("lost")
    disk.log.exchange({"status": 200, "route": "admin_status"})  # at debug
    disk.make_room()
    disk.log.event("back")
    assert [line.get("count") for line in disk.lines()] == [None, 2]


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        Log("json", "info", output).event("into the void")


def test_a_torn_line_is_ended_first() -> None:
    """A pipe takes a part of a line and then no more, and later again."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    with os.fdopen(reader, "rb", buffering=0) as source, os.fdopen(writer, "w") as output:
        log = Log("json", "info", output)
        log.event("long", text="x" * 1_000_000)
        torn = b"".join(iter(lambda: source.read(65536) or b"", b""))
        assert torn
        assert b"\n" not in torn
        log.event("next")
        rest = source.read(65536) or b""
    first, *lines = rest.decode().splitlines()
    assert first == ""
    assert [json.loads(line)["event"] for line in lines] == ["next", "log_lost"]


def test_form_and_level_may_change(disk: Disk) -> None:
    disk.log.become("json", "warning")
    disk.log.event("quiet")
    disk.log.exchange({"status": 200})
    disk.log.warning("loud")
    disk.log.become("console", "debug")
    disk.log.exchange({"status": 200, "route": "admin_status"})
    disk.log.become("json", "debug")
    disk.log.exchange({"status": 200, "route": "admin_status"})
    os.lseek(disk.kept, 0, os.SEEK_SET)
    shown = os.read(disk.kept, 100_000).decode().splitlines()
    assert len(shown) == 3
    assert json.loads(shown[0])["event"] == "loud"
    assert not shown[1].startswith("{")
    assert json.loads(shown[2])["level"] == "debug"
