"""What the runtime directory knows of launched bots: records, bounded logs, old logs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from relay.instances import files as module
from relay.instances.files import BotFiles, Record
from relay.instances.process import Known

RECORD = Record("0123456789ab", "bot", 7860, "digest")
KNOWN = Known(12, 3456, "boot")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "bots"


@pytest.fixture
def files(folder: Path) -> BotFiles:
    return BotFiles(folder)


def test_a_record_is_read_back(files: BotFiles, folder: Path) -> None:
    files.write(RECORD)
    assert files.records() == [RECORD]
    started = msgspec.structs.replace(RECORD, process=KNOWN)
    files.write(started)
    assert files.records() == [started]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == ["0123456789ab.json"]
    files.remove(started)
    assert files.records() == []
    assert list(folder.iterdir()) == []


def test_without_a_folder_there_are_no_records(files: BotFiles, folder: Path) -> None:
    assert files.records() == []
    files.remove(RECORD)
    assert files.tail(RECORD) == ""
    files.trim(RECORD, 1)
    assert not folder.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"id": "a", "agent": "bot", "port": "x", "launch": "y"}',
        b'{"id": "a", "agent": "bot", "port": 1}',
        b'{"id": "a", "agent": "bot", "port": 1, "launch": "y", "process": {"pid": 1}}',
        b'{"id": "' + b"a" * 100_000 + b'", "agent": "bot", "port": 1, "launch": "y"}',
    ],
)
def test_a_record_that_cannot_be_read_is_passed_over(
    files: BotFiles, folder: Path, content: bytes
) -> None:
    files.write(RECORD)
    (folder / "00.json").write_bytes(content)
    (folder / "zz.json").mkdir()
    (folder / "half.new").write_bytes(msgspec.json.encode(RECORD))
    assert files.records() == [RECORD]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    files = BotFiles(tmp_path / "run" / "bots")
    with pytest.raises(OSError, match="Not a directory"):
        files.write(RECORD)
    assert files.records() == []


def test_a_log_is_cut_while_its_writer_goes_on(files: BotFiles) -> None:
    """The writer appends, so it goes on at the new end instead of behind a hole."""
    files.write(RECORD)
    log = files.open_log(RECORD)
    try:
        os.write(log, b"a" * 60 + b"b" * 40)
        files.trim(RECORD, 100)
        assert files.log(RECORD).read_bytes() == b"a" * 60 + b"b" * 40  # it is not over the bound
        os.write(log, b"c")
        files.trim(RECORD, 40)
        older = files.log(RECORD).with_suffix(".log.1")
        assert files.log(RECORD).read_bytes() == b""
        assert older.read_bytes() == b"b" * 39 + b"c"
        os.write(log, b"next")
        assert files.log(RECORD).read_bytes() == b"next"
        os.write(log, b"x" * 50)
        files.trim(RECORD, 40)
        assert older.read_bytes() == b"x" * 40
    finally:
        os.close(log)
    assert files.log(RECORD).stat().st_mode & 0o777 == 0o600


def test_the_end_of_the_output_for_a_report(files: BotFiles) -> None:
    files.write(RECORD)
    log = files.open_log(RECORD)
    try:
        assert files.tail(RECORD) == ""
        os.write(log, b"x" * 5000 + b"\nValueError: \xff no\n\n")
    finally:
        os.close(log)
    tail = files.tail(RECORD)
    assert tail.endswith("\nValueError: \N{REPLACEMENT CHARACTER} no")
    assert len(tail) <= module.TAIL


def write_log(files: BotFiles, record: Record, age: float) -> Path:
    """A log, and the part before it, last written so many seconds ago."""
    log = files.log(record)
    for path in (log, log.with_suffix(".log.1")):
        path.write_text("said")
        now = path.stat().st_mtime
        os.utime(path, (now - age, now - age))
    return log


def test_the_oldest_logs_of_an_agent_are_forgotten(
    files: BotFiles, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_LOGS", 2)
    files.write(RECORD)
    ended = [Record(f"{number:012}", "bot", 1, "x") for number in range(4)]
    logs = [write_log(files, record, age=100 - number) for number, record in enumerate(ended)]
    running = Record("runs", "bot", 1, "x")
    files.write(running)
    logs.append(write_log(files, running, age=1000))
    other = Record("other", "bot-2", 1, "x")
    logs.append(write_log(files, other, age=1000))
    own = write_log(files, RECORD, age=0)
    files.remove(RECORD)
    kept = [logs[3], own, logs[4], logs[5]]  # the newest two, one that runs, another agent's
    expected = {path for log in kept for path in (log, log.with_suffix(".log.1"))}
    assert set(folder.glob("*.log*")) == expected
