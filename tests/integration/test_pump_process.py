"""A pump as a process of its own: control processes come and go, calls go on until it dies."""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from relay.errors import ConfigError
from relay.pump import channel
from relay.pump.channel import (
    Ask,
    Finished,
    Live,
    Look,
    Quit,
    Ready,
    Recorded,
    Refused,
    View,
)
from relay.pump.process import OTHER_DESCRIPTORS, capacity
from relay.pump_processes import PumpProcesses
from tests.helpers.daemon import PATIENCE, wait_until
from tests.helpers.pump import CLOSE, Peer, frame, split
from tests.helpers.pump_node import Node, ends, hear, pump_node, works


@pytest.fixture(name="node")
def _node(tmp_path: Path) -> Iterator[Node]:
    with pump_node(tmp_path) as node:
        yield node


def test_a_call_outlives_the_control_process(node: Node) -> None:
    control = node.connect()
    call = node.call(control)
    works(call)
    pid = node.pid()
    control.close()
    works(call)
    control = node.connect(PumpProcesses(node.folder))  # as a new control process does
    assert node.pid() == pid
    channel.send(control, Ask())
    live = hear(control)
    assert isinstance(live, Live)
    assert (live.tunnel, live.session, live.from_client.messages) == ("one", "session", 2)
    assert hear(control) == Ready(capacity=capacity())
    channel.send(control, Look(10))
    view = hear(control)
    assert isinstance(view, View)
    assert [call.tunnel for call in view.calls] == ["one"]
    assert view.totals is not None
    assert (view.totals.tunnels, view.totals.adopted) == (1, 1)
    works(call)


def test_a_killed_pump_is_the_end_for_both_peers_at_once(node: Node) -> None:
    control = node.connect()
    call = node.call(control)
    works(call)
    began = time.monotonic()
    os.kill(node.pid(), signal.SIGKILL)
    assert ends(call.client) in ("fin", "reset")
    assert ends(call.bot) in ("fin", "reset")
    assert time.monotonic() - began < 2.0
    assert select.select([control], [], [], PATIENCE)[0]
    assert channel.receive(control) == (b"", [])
    works(node.call(node.connect(), "two"))  # a new one takes its place


def test_sigterm_ends_calls_with_1012_and_sigint_is_the_daemons(node: Node) -> None:
    control = node.connect()
    call = node.call(control)
    works(call)
    os.kill(node.pid(), signal.SIGINT)
    works(call)
    before = bytes(call.client.received)
    os.kill(node.pid(), signal.SIGTERM)
    began = time.monotonic()
    wait_until(lambda: call.client.poll() is not None and call.client.closes(), "a Close")
    wait_until(lambda: call.bot.poll() is not None and call.bot.closes(), "a Close")
    assert time.monotonic() - began < 0.9, "it waits for the end of a turn"
    assert call.client.closes() == call.bot.closes() == [(1012, "service restart")]
    assert call.client.received.startswith(before)
    for peer in (call.client, call.bot):
        peer.close_frame(1012)
        peer.shut()
    report = hear(control)
    assert isinstance(report, Finished)
    assert (report.cause, report.code) == ("drain", 1012)


def test_sigterm_in_the_midst_of_traffic_leaves_whole_frames_only(node: Node) -> None:
    control = node.connect()
    calls = [node.call(control, f"call {index}") for index in range(4)]
    payload = b"x" * 3000
    for call in calls:
        works(call)
        call.client.send(frame(payload, masked=True) * 300)
        call.bot.send(frame(payload) * 300)
    os.kill(node.pid(), signal.SIGTERM)
    for call in calls:
        for peer in (call.client, call.bot):
            wait_until(partial(closed, peer), "a Close")
            assert peer.closes() == [(1012, "service restart")]
            assert set(peer.payloads()) <= {b"up", b"down", payload}


def closed(peer: Peer) -> bool:
    peer.poll()
    frames, _rest = split(peer.received)
    return bool(frames) and frames[-1].opcode == CLOSE


def test_quit_lets_the_pump_exit_and_leaves_its_reports(node: Node) -> None:
    control = node.connect()
    taken, left = node.call(control, "taken"), node.call(control, "left")
    for call in (taken, left):
        works(call)
        call.client.reset()
        call.bot.reset()
    reports = {report.tunnel: report for report in (hear(control), hear(control))}  # type: ignore[union-attr]
    channel.send(control, Recorded(["taken"]))
    channel.send(control, Quit())
    assert node.pids()
    control.close()
    wait_until(lambda: not node.pids(), "the pump exits")
    # A process that exits has no command line a moment before it lets go of its lock.
    left_over = wait_until(lambda: list(node.pumps.spooled()), "the pump lets go of its lock")
    assert left_over == [reports["left"]]
    assert list(node.pumps.spooled()) == []


def test_quit_with_everything_recorded_leaves_nothing(node: Node) -> None:
    control = node.connect()
    call = node.call(control)
    channel.send(control, Quit())
    works(call)  # an exit waits for its calls
    call.client.reset()
    call.bot.reset()
    assert isinstance(hear(control), Finished)
    channel.send(control, Recorded(["one"]))
    wait_until(lambda: not node.pids(), "the pump exits")
    assert list(node.pumps.spooled()) == []


def test_a_pump_takes_as_many_calls_as_it_has_descriptors_for(node: Node) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OTHER_DESCRIPTORS + 6, hard))
    try:
        control = node.connect()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    channel.send(control, Ask())
    assert hear(control) == Ready(capacity=3)
    calls = [node.call(control, name) for name in "abc"]
    for _ in range(50):
        refused = node.offer(control, "d")
        assert hear(control) == Refused("d", "session")
        assert ends(refused.client) == "fin"  # nobody has them any more
    for call in calls:
        works(call)
    calls[0].client.reset()
    calls[0].bot.reset()
    assert isinstance(hear(control), Finished)
    works(node.call(control, "d"))


def test_a_runtime_directory_that_is_none_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.runtime_dir"):
        trio.run(PumpProcesses(tmp_path / "missing").connect, 0)


def test_what_the_former_control_process_has_said_counts(node: Node) -> None:
    """Also when the next one is there before it was heard."""
    former = node.connect()
    pid = node.pid()
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T", "the pump is stopped")
    call = node.offer(former, "one")
    following = node.connect()
    channel.send(following, Ask())
    os.kill(pid, signal.SIGCONT)
    live = hear(following)
    assert isinstance(live, Live)
    assert live.tunnel == call.name
    works(call)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
