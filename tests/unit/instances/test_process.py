"""Bots as processes: started, found again, ended for certain, with all that they have started."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from relay.instances import process as module
from relay.instances.process import MARK, Known, Process, end_marked

SLEEP = ("sleep", "3600")
# Real waits of a test that goes well take milliseconds; this is for one that does not.
PATIENCE = 10.0
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"
CHILD = "import os, time; os.fork() or os.setsid(); print('up', flush=True); time.sleep(3600)"


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


class Stage:
    """Processes with a mark of the test's own, and their output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"test-{os.getpid()}-{folder.name}"
        self.output = folder / "output"
        self.environment = {"PATH": os.environ["PATH"], "OWN": "value"}

    def start(self, command: Sequence[str], cwd: Path | None = None) -> Process:
        log = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            return Process.start(self.mark, command, str(cwd or self.folder), self.environment, log)
        finally:
            os.close(log)

    def pids(self) -> list[int]:
        return module._marked(self.mark)

    async def until_up(self, count: int = 1) -> None:
        """Wait until so many processes have said that they are there."""
        await until(lambda: self.output.read_text().split().count("up") == count)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.005)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    left = stage.pids()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@asynccontextmanager
async def watched(process: Process) -> AsyncIterator[None]:
    """`watch` runs until the process has exited; one that goes on is killed."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.watch)
            yield
    finally:
        if not process.exited.is_set():
            os.killpg(process.known.pid, signal.SIGKILL)


async def end(process: Process, seconds: float) -> bool:
    with trio.fail_after(PATIENCE):
        return await process.end(trio.CancelScope(deadline=trio.current_time() + seconds))


def left_alone(process: Process) -> Known:
    """Forget a process as a control process that was killed does; what its record says of it."""
    os.close(process._pidfd)
    return process.known


def reap(process: Process) -> None:
    """In the place of init, since the process is this one's child still."""
    assert process._child is not None
    process._child.wait(PATIENCE)


# Start.


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("true",), 0),
        (("false",), 1),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -KILL $$"), -9),
    ],
)
async def test_the_exit_status(stage: Stage, command: Sequence[str], status: int) -> None:
    process = stage.start(command)
    with trio.fail_after(PATIENCE):
        await process.watch()
    assert process.exited.is_set()
    assert process.status == status
    assert await end(process, PATIENCE)


async def test_what_a_process_is_given(stage: Stage) -> None:
    (stage.folder / "inside").mkdir()
    process = stage.start(("sh", "-c", "env; pwd; cat; echo oops >&2"), stage.folder / "inside")
    await process.watch()
    lines = stage.output.read_text().splitlines()
    assert {f"{MARK}={stage.mark}", "OWN=value", "oops"} <= set(lines)
    assert f"{stage.folder}/inside" in lines
    assert not any(line.startswith("HOME=") for line in lines)


async def test_a_process_leads_a_session_of_its_own(stage: Stage) -> None:
    process = stage.start(SLEEP)
    async with watched(process):
        assert os.getsid(process.known.pid) == os.getpgid(process.known.pid) == process.known.pid
        await until(lambda: stage.pids() == [process.known.pid])
        # Nothing of the daemon but its output: a listener would stay open with it.
        names = sorted(path.name for path in Path(f"/proc/{process.known.pid}/fd").iterdir())
        assert names == ["0", "1", "2"]
        assert await end(process, PATIENCE)
    assert process.status == -signal.SIGTERM


@pytest.mark.parametrize(
    ("command", "folder", "name"),
    [
        (("no-such-program",), ".", "no-such-program"),
        (("./no-such-program",), ".", "./no-such-program"),
        (("true",), "nowhere", "nowhere"),
        (("./text",), ".", "./text"),
    ],
)
async def test_what_cannot_be_started(
    stage: Stage, command: Sequence[str], folder: str, name: str
) -> None:
    (stage.folder / "text").write_text("no program")
    with pytest.raises(OSError) as caught:
        stage.start(command, stage.folder / folder)
    assert str(caught.value.filename).endswith(name)


# Adoption.


async def test_a_known_process_is_adopted(stage: Stage) -> None:
    first = stage.start(SLEEP)
    known = left_alone(first)
    process = Process.adopt(stage.mark, known)
    assert process is not None
    assert process.known == known
    async with watched(process):
        assert not process.exited.is_set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, reap, first)
            assert await end(process, PATIENCE)
    assert process.exited.is_set()
    assert process.status is None  # nobody but its parent can read it
    assert Process.adopt(stage.mark, known) is None


async def test_a_process_without_a_noted_pid_is_found_by_its_mark(stage: Stage) -> None:
    """The first process, not one that it has started."""
    first = stage.start(python(CHILD))
    await stage.until_up(2)
    known = left_alone(first)
    process = Process.adopt(stage.mark, None)
    assert process is not None
    assert process.known == known
    assert Process.adopt(f"{stage.mark}0", None) is None
    assert Process.adopt(stage.mark[:-1], None) is None
    async with watched(process), trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, reap, first)
        assert await end(process, PATIENCE)


@pytest.mark.parametrize("other", [{"started": 1}, {"boot": "another"}])
async def test_another_process_of_the_same_number_is_not_adopted(
    stage: Stage, other: dict[str, int | str]
) -> None:
    process = stage.start(SLEEP)
    async with watched(process):
        before = len(os.listdir("/proc/self/fd"))
        assert Process.adopt(stage.mark, msgspec.structs.replace(process.known, **other)) is None
        assert len(os.listdir("/proc/self/fd")) == before
        assert await end(process, PATIENCE)


async def test_a_name_with_parentheses_and_blanks(stage: Stage) -> None:
    program = stage.folder / "bot) S 1 (1"
    program.symlink_to("/bin/sleep")
    process = stage.start((str(program), "3600"))
    async with watched(process):
        assert module._known(process.known.pid) == process.known
        assert await end(process, PATIENCE)


# The end.


async def test_one_that_ignores_the_signal_is_killed(stage: Stage) -> None:
    process = stage.start(python(f"{STUBBORN}; time.sleep(3600)"))
    async with watched(process):
        await stage.until_up()
        assert await end(process, 0.1)
        assert stage.pids() == []
    assert process.status == -signal.SIGKILL


async def test_the_grace_may_be_shortened(stage: Stage) -> None:
    process = stage.start(python(f"{STUBBORN}; time.sleep(3600)"))
    grace = trio.CancelScope()
    async with watched(process), trio.open_nursery() as nursery:
        await stage.until_up()
        nursery.start_soon(process.end, grace)
        await trio.testing.wait_all_tasks_blocked()
        assert not process.exited.is_set()
        grace.deadline = trio.current_time()
        with trio.fail_after(PATIENCE):
            await process.exited.wait()
    assert process.status == -signal.SIGKILL


async def test_one_that_tidies_up_first_may_do_so(stage: Stage) -> None:
    process = stage.start(
        ("sh", "-c", "trap 'sleep 0.1; exit 3' TERM; echo up; while :; do :; done")
    )
    async with watched(process):
        await stage.until_up()
        assert await end(process, PATIENCE)
    assert process.status == 3


@pytest.mark.parametrize(
    "command",
    [
        python(CHILD),
        python(CHILD.replace("os.setsid()", "None")),
        ("sh", "-c", "echo up; echo up; sleep 3600 & wait"),  # the shell ends before its child
        ("sh", "-c", "echo up; echo up; sleep 3600 & sleep 3600 & setsid sleep 3600"),
    ],
    ids=["a session of its own", "the same group", "behind a shell", "several"],
)
async def test_what_it_has_started_ends_with_it(stage: Stage, command: Sequence[str]) -> None:
    process = stage.start(command)
    async with watched(process):
        await stage.until_up(2)
        await until(lambda: len(stage.pids()) >= 2)
        assert await end(process, PATIENCE)
        assert stage.pids() == []


@pytest.mark.parametrize("seconds", [PATIENCE, 0.1])
async def test_a_child_that_outlives_a_crash(stage: Stage, seconds: float) -> None:
    """With and without a will to end by itself."""
    stubborn = f"{STUBBORN.replace(chr(39), chr(34))}; time.sleep(3600)"
    child = "sleep 3600" if seconds == PATIENCE else f"{sys.executable} -S -c '{stubborn}'"
    process = stage.start(("sh", "-c", f"setsid {child} & echo up; exec sh -c 'kill -KILL $$'"))
    async with watched(process):
        await stage.until_up(1 if seconds == PATIENCE else 2)
        await process.exited.wait()
        (pid,) = stage.pids()
        assert pid != process.known.pid
        assert await end(process, seconds)
        assert stage.pids() == []
    assert process.status == -signal.SIGKILL


async def test_others_are_left_alone(stage: Stage, tmp_path: Path) -> None:
    """A mark that begins with the same letters is another bot's."""
    other = Stage(tmp_path)
    other.mark = f"{stage.mark}0"
    bystander, process = other.start(SLEEP), stage.start(SLEEP)
    async with watched(bystander):
        async with watched(process):
            assert await end(process, 0)
            await end_marked(stage.mark)
        assert other.pids() == [bystander.known.pid]
        assert await end(bystander, PATIENCE)


async def test_what_cannot_be_killed_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is above SIGKILL; here the wait for it is over before it can have worked."""
    monkeypatch.setattr(module, "KILL_WAIT", 0.0)
    process = stage.start(python(f"{STUBBORN}; time.sleep(3600)"))
    async with watched(process):
        await stage.until_up()
        assert not await end(process, 0)
        os.killpg(process.known.pid, signal.SIGKILL)
        await process.exited.wait()


async def test_the_marked_are_killed_where_the_first_is_gone(stage: Stage) -> None:
    process = stage.start(("sh", "-c", "setsid sleep 3600 & echo up"))
    await process.watch()
    await until(lambda: len(stage.pids()) == 1)
    with trio.fail_after(PATIENCE):
        await end_marked(stage.mark)
    assert stage.pids() == []
    await end_marked(stage.mark)
