"""The pump process, run in this process by hand: its channel, its reports, its end."""

from __future__ import annotations

import array
import os
import resource
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from relay.pump import channel
from relay.pump.channel import (
    Adopt,
    Ask,
    End,
    EndAll,
    Finished,
    Live,
    Ready,
    Recorded,
    Refused,
    Taken,
)
from relay.pump.process import PumpProcess, capacity, read_spool, spool_path
from tests.helpers.daemon import PATIENCE
from tests.helpers.pollers import ready
from tests.helpers.pump import frame, open_descriptors, tcp_pair
from tests.helpers.pump_stage import Stage, names


@pytest.fixture(name="stage")
def _stage(tmp_path: Path) -> Iterator[Stage]:
    before = open_descriptors()
    path = str(tmp_path / "pump.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(2)
        spool = spool_path(tmp_path, 0)
        stage = Stage(PumpProcess(listener, spool, orphan_wait=0.0), path, spool)
        try:
            yield stage
        finally:
            stage.close()
            for control in stage.controls:
                control.close()
            for call in stage.calls:
                call.client.sock.close()
                call.bot.sock.close()
    assert open_descriptors() == before


def test_a_call_that_is_handed_over_goes_on(stage: Stage) -> None:
    control = stage.connect()
    call = stage.call(control, "one")
    assert stage.works(call)
    stage.tell(control, End("one", "stop"))
    assert call.client.closes() == [(1001, "stopped")]
    call.client.close_frame(1001)
    call.bot.shut()
    taken, report = stage.heard(control)
    assert taken == Taken("one", "session of one")
    assert isinstance(report, Finished)
    assert (report.tunnel, report.session, report.cause) == ("one", "session of one", "stopped")
    assert report.from_client.messages == 1


def test_ask_lists_the_live_and_what_was_not_recorded(stage: Stage) -> None:
    control = stage.connect()
    calls = {name: stage.call(control, name) for name in ("a", "b", "c", "d")}
    stage.end(calls["a"])
    stage.end(calls["b"])
    assert names(stage.heard(control)) == ["Finished a", "Finished b"]
    stage.tell(control, Recorded(["a", "unknown"]))
    stage.tell(control, Ask())
    heard = stage.heard(control)
    assert names(heard) == ["Live c", "Live d", "Finished b", "Ready"]
    assert isinstance(heard[0], Live)
    assert heard[0].session == "session of c"
    assert heard[-1] == Ready(lost=0, capacity=capacity())
    stage.tell(control, Recorded(["b"]))
    stage.tell(control, Ask())
    assert names(stage.heard(control)) == ["Live c", "Live d", "Ready"]


def test_a_new_control_process_replaces_the_one_that_is_connected(stage: Stage) -> None:
    first = stage.connect()
    call = stage.call(first, "one")
    assert names(stage.heard(first)) == []
    second = stage.connect()
    assert channel.receive(first) == (b"", [])
    stage.tell(second, Ask())
    assert names(stage.heard(second)) == ["Live one", "Ready"]
    assert stage.works(call)
    stage.end(call)
    assert names(stage.heard(second)) == ["Finished one"]


def test_calls_outlive_the_control_process(stage: Stage) -> None:
    control = stage.connect()
    lives, ends = stage.call(control, "lives"), stage.call(control, "ends")
    control.close()
    stage.settle()
    assert not stage.process.over()
    stage.end(ends)
    assert stage.works(lives)
    control = stage.connect()
    stage.tell(control, Ask())
    assert names(stage.heard(control)) == ["Live lives", "Finished ends", "Ready"]


def test_end_all_closes_with_1012(stage: Stage) -> None:
    control = stage.connect()
    calls = [stage.call(control, name) for name in "ab"]
    stage.tell(control, EndAll())
    for call in calls:
        assert call.client.closes() == call.bot.closes() == [(1012, "service restart")]
    stage.tell(control, End("nobody", "drain"))


# Strange messages.

STRANGE = [
    b"\xc1",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x80",
    bytes(5000),
    msgspec.msgpack.encode(Ready()),
]


@pytest.mark.parametrize("payload", STRANGE)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_malformed_messages_change_nothing(stage: Stage, payload: bytes, count: int) -> None:
    control = stage.connect()
    call = stage.call(control, "one")
    before = open_descriptors()
    rights = array.array("i", [control.fileno()] * count)
    control.sendmsg([payload], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if count else [])
    stage.settle()
    assert open_descriptors() == before
    assert stage.works(call)
    stage.tell(control, Ask())
    assert names(stage.heard(control)) == ["Live one", "Ready"]


def test_an_empty_message_with_descriptors_leaks_none(stage: Stage) -> None:
    control = stage.connect()
    before = open_descriptors()
    rights = array.array("i", [control.fileno()] * 2)
    control.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    stage.settle()
    assert open_descriptors() == before - 1  # it is the end of this connection
    assert stage.connect()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_adoption_with_too_few_or_many_descriptors_is_refused(stage: Stage, count: int) -> None:
    control = stage.connect()
    near, far = tcp_pair()
    with near, far:
        before = open_descriptors()
        fds = array.array("i", [far.fileno()] * count)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if count else []
        control.sendmsg([msgspec.msgpack.encode(Adopt("odd", "session"))], rights)
        (answer,) = stage.heard(control)
        assert open_descriptors() == before
    assert answer == Refused("odd", "session")


def test_descriptors_that_are_no_sockets_are_closed_and_refused(stage: Stage) -> None:
    control = stage.connect()
    before = open_descriptors()
    near, far = tcp_pair()
    read, write = os.pipe()
    stage.tell(control, Adopt("odd", "session"), far.fileno(), read)
    stage.tell(control, Adopt("odder", "session"), write, far.fileno())
    os.close(read)
    os.close(write)
    far.close()
    assert near.recv(10) == b""
    near.close()
    assert open_descriptors() == before
    assert names(stage.heard(control)) == ["Refused odd", "Refused odder"]


def test_a_name_that_lives_is_refused_without_harm(stage: Stage) -> None:
    control = stage.connect()
    call = stage.call(control, "one")
    again = stage.call(control, "one")
    stage.settle()
    assert (again.client.end, again.bot.end) == ("fin", "fin")
    assert stage.works(call)
    assert names(stage.heard(control)) == ["Refused one"]


# No room.


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_a_call_is_refused_and_the_others_go_on(stage: Stage) -> None:
    control = stage.connect()
    call = stage.call(control, "one")
    (near, far), (other, last) = tcp_pair(), tcp_pair()
    with near, far, other, last:
        before = open_descriptors()
        with no_more_descriptors():
            for _ in range(3):
                channel.send(control, Adopt("two", "session"), (far.fileno(), last.fileno()))
                stage.process.turn(1.0)
            assert stage.works(call)
        assert names(stage.heard(control)) == ["Refused two"] * 3
        assert open_descriptors() == before
        stage.tell(control, Adopt("two", "session"), far.fileno(), last.fileno())
        assert names(stage.heard(control)) == []
        near.sendall(frame(b"still whole", masked=True))
        stage.settle()
        assert other.recv(100) == frame(b"still whole", masked=True)
        stage.tell(control, End("two", "stop"))
    stage.settle()


# A control process that does not read.


def end_many(stage: Stage, control: socket.socket) -> list[str]:
    """Calls that are over at once, since their peers have gone; more than the channel takes."""
    many = [f"{index:04}" + "n" * 200 for index in range(400)]
    for name in many:
        pairs = [socket.socketpair() for _ in range(2)]
        for _near, far in pairs:
            far.close()
        channel.send(control, Adopt(name, name), tuple(near.fileno() for near, _far in pairs))
        for near, _far in pairs:
            near.close()
        stage.process.turn(0)
        stage.process.turn(0)
    return many


def test_reports_wait_for_a_control_process_that_does_not_read(stage: Stage) -> None:
    control = stage.connect()
    live = stage.call(control, "live")
    names_ = end_many(stage, control)
    stage.settle()  # fails if the full channel makes the pump spin
    assert stage.works(live)
    stage.tell(control, Recorded(names_[:1]))  # is still heard
    first = channel.decode_to_control(channel.receive(control)[0])
    rest = names(stage.heard(control))
    assert [*names([first]), *rest] == [f"Finished {name}" for name in names_]
    stage.tell(control, Ask())
    heard = names(stage.heard(control))
    assert heard == ["Live live", *(f"Finished {name}" for name in names_[1:]), "Ready"]


def test_a_control_process_that_reads_again_wakes_the_pump(stage: Stage) -> None:
    control = stage.connect()
    end_many(stage, control)
    stage.settle()
    while select.select([control], [], [], 0)[0]:
        channel.receive(control)
    assert ready(stage.process.pump, PATIENCE)


def test_an_answer_repeats_what_waits_instead_of_adding_to_it(stage: Stage) -> None:
    control = stage.connect()
    stage.call(control, "live")
    refused = [f"Finished {name}" for name in end_many(stage, control)]
    stage.tell(control, Ask())
    heard = names(stage.heard(control))
    answer = heard.index("Live live")
    assert 0 < answer < len(refused)  # what the channel held already
    assert heard[:answer] == refused[:answer]
    assert heard[answer:] == ["Live live", *refused, "Ready"]


def test_what_waited_for_a_lost_control_process_is_told_to_the_next(stage: Stage) -> None:
    control = stage.connect()
    end_many(stage, control)
    control.close()
    stage.settle()
    control = stage.connect()
    assert stage.heard(control) == []  # it has not asked
    stage.tell(control, Ask())
    assert len(names(stage.heard(control))) == 401


# The end.


def test_a_pump_that_is_alone_is_over(stage: Stage) -> None:
    control = stage.connect()
    assert not stage.process.over()
    call = stage.call(control, "one")
    control.close()
    stage.settle()
    assert not stage.process.over()
    stage.end(call)
    assert stage.process.over()


def test_a_pump_that_is_alone_waits_a_while(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        process = PumpProcess(listener, tmp_path / "spool")
        process.turn(0)
        assert not process.over()
        process.close()
    assert not (tmp_path / "spool").exists()


def test_quit_waits_for_calls_and_for_their_reports(stage: Stage) -> None:
    control = stage.connect()
    call = stage.call(control, "one")
    stage.tell(control, channel.Quit())
    assert not stage.process.over()
    stage.end(call)
    assert not stage.process.over()
    stage.tell(control, Recorded(["one"]))
    assert stage.process.over()


def test_reports_that_nobody_took_are_in_the_spool(stage: Stage) -> None:
    control = stage.connect()
    for name in ("taken", "left", "behind"):
        stage.end(stage.call(control, name))
    stage.tell(control, Recorded(["taken"]))
    told = [each for each in stage.heard(control) if isinstance(each, Finished)][1:]
    control.close()
    stage.settle()
    assert stage.process.over()
    stage.close()
    assert read_spool(stage.spool) == told
    assert [each.tunnel for each in read_spool(stage.spool)] == ["left", "behind"]


@pytest.mark.parametrize("content", [None, b"", b"\x91\x01", b"\xc1 damaged"])
def test_a_missing_or_damaged_spool_is_an_empty_one(tmp_path: Path, content: bytes | None) -> None:
    path = spool_path(tmp_path, 3)
    assert path == tmp_path / "pump-3.finished"
    if content is not None:
        path.write_bytes(content)
    assert read_spool(path) == []
