"""The bench's targets as processes: they start, pass everything on as it is, and end whole."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from bench import native
from bench.children import Child, ChildFailed
from bench.client import Door
from bench.probe import tree
from bench.rounds import measure
from bench.scenarios import SCENARIOS
from bench.targets import NAMES, Target, available, compiled, origin
from bench.targets.base import Variant, exchange
from bench.targets.haproxy import HAPROXY, haproxy
from bench.targets.nginx import NGINX, nginx
from bench.targets.peers import PEERS, Peer, peer
from tests.helpers.bench_origin import MAX_MESSAGE, ClosingOrigin, closing_origin
from tests.helpers.daemon import PATIENCE, wait_until
from tests.helpers.scripted_bot import nobody_listens

MIB = 1 << 20
BETWEEN = (*NGINX, *HAPROXY, *PEERS)
PARTS = ("start_p50", "connect_p50", "echo_p50")
WHOLE = ("aiohttp", "aiohttp-uvloop", "websockets")  # they pass whole messages on

# What a harness does that is killed: start a target, say which processes it has, wait.
HARNESS = """
import sys
from bench.probe import tree
from tests.integration.test_bench_targets import started
with started(sys.argv[1], sys.argv[2]) as target:
    print(*tree(target.pid), flush=True)
    input()
"""


@contextmanager
def started(name: str, address: str) -> Iterator[Target]:
    """A peer before an origin; skips the test when it is not installed."""
    if name in NGINX:
        start = nginx(NGINX[name], address)
    elif name in HAPROXY:
        start = haproxy(HAPROXY[name], address)
    else:
        start = peer(PEERS[name], address)
    if isinstance(start, str):
        pytest.skip(start)
    with start as target:
        yield target


@pytest.fixture(scope="module")
def bot() -> Iterator[ClosingOrigin]:
    with closing_origin() as made:
        yield made


@pytest.fixture(scope="module", params=BETWEEN)
def target(request: pytest.FixtureRequest, bot: ClosingOrigin) -> Iterator[Target]:
    with started(request.param, bot.address) as made:
        yield made


def call(target: Target, path: str = "/ws?a=%20b") -> ClientConnection:
    assert target.door.ws_url is not None
    url = target.door.ws_url.removesuffix("/ws") + path
    return connect(url, compression=None, proxy=None, max_size=MAX_MESSAGE)


def processes(target: Target) -> set[int]:
    assert target.pid is not None
    return tree(target.pid)


def port_of(target: Target) -> int:
    assert target.door.ws_url is not None
    return int(target.door.ws_url.split(":")[2].partition("/")[0])


def living(pids: set[int]) -> set[int]:
    """Those that have not ended; one that nobody has waited for has."""
    states = {}
    for pid in pids:
        try:
            states[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
    return {pid for pid, state in states.items() if state != "Z"}


def messages() -> Iterator[str | bytes]:
    """Of every length form, both kinds, up to 1 MiB."""
    yield "hello, wörld \N{GRINNING FACE}"
    for size in (0, 1, 125, 126, 65_535, 65_536, MIB):
        yield bytes(i * 7 & 0xFF for i in range(min(size, 251))) * (size // 251 + 1)
        yield "ä" * size


def test_messages_pass_as_they_are(target: Target) -> None:
    with call(target) as ws:
        for message in messages():
            ws.send(message)
            assert ws.recv(PATIENCE) == message


def test_messages_keep_their_order(target: Target) -> None:
    sent = [number.to_bytes(4, "big") * (1 + number % 90) for number in range(300)]
    with call(target) as ws:
        for message in sent:
            ws.send(message)
        assert [ws.recv(PATIENCE) for _ in sent] == sent


@pytest.mark.parametrize(
    "piece", ["ä" * (MIB // 8), b"\x00\xff" * (MIB // 8)], ids=["text", "bytes"]
)
def test_fragmented_messages_pass(target: Target, piece: str | bytes) -> None:
    pieces = [piece] * 4
    with call(target) as ws:
        ws.send(iter(pieces))
        assert ws.recv(PATIENCE) == piece * 4


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "off"), (4321, "längst vorbei")])
def test_the_callers_close_reaches_the_origin(
    target: Target, bot: ClosingOrigin, code: int, reason: str
) -> None:
    path = f"/{target.name}/{code}?a=%20b"
    with call(target, path) as ws:
        ws.close(code, reason)
    assert bot.end_of(path) == (code, reason)
    assert (ws.close_code, ws.close_reason) == (code, reason)  # of the answer


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1011, "broken"), (4001, "längst vorbei")]
)
def test_the_origins_close_reaches_the_caller(target: Target, code: int, reason: str) -> None:
    with call(target) as ws:
        ws.send(f"close {code} {reason}")
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)


def test_a_caller_that_vanishes_ends_the_call_at_the_origin(
    target: Target, bot: ClosingOrigin
) -> None:
    path = f"/{target.name}/vanishes"
    with call(target, path) as ws:
        ws.socket.shutdown(socket.SHUT_RDWR)
        code, _ = bot.end_of(path)
    assert code == (1001 if target.name in WHOLE else 1006)


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler: apt-get install gcc")
@pytest.mark.parametrize("name", [name for name in NAMES if name != "relay-compiled"])
def test_a_target_starts_serves_and_leaves_nothing(name: str) -> None:
    with origin() as (child, url):
        (start,) = available([name], child, url, f"test-{os.getpid()}")
        if isinstance(start, str):
            pytest.skip(start)
        with start as target:
            assert target.name == name
            assert target.idle is not None
            sampled, pids = target.sample(), processes(target)
            assert sampled is not None
            assert sampled.processes == len(pids)
            assert pids == living(pids)
        if name != "direct":
            assert living(pids) == set()


def test_a_compiled_relay_that_cannot_be_built_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Makefile").write_text("compiled:\n\t@echo no header files >&2; false\n")
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(compiled, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    with pytest.raises(ChildFailed, match="`make compiled` failed: no header files"):
        compiled.compiled_relay()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ChildFailed, match="apt-get install make"):
        compiled.compiled_relay()


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler: apt-get install gcc")
@pytest.mark.parametrize(("name", "parts"), [
    ("setup", {"connect_p50", "echo_p50"}),
    ("whole-calls", {"start_p50", "connect_p50", "echo_p50"}),
])  # fmt: skip
def test_the_relay_takes_calls_with_a_token_of_either_kind(name: str, parts: set[str]) -> None:
    one = replace(SCENARIOS[name], seconds=0.3, warmup=0.0)
    with origin() as (child, url):
        (start,) = available(["relay"], child, url, f"test-{os.getpid()}")
        assert not isinstance(start, str)
        with start as target:
            result = measure(one, target, 1, child.pid)
    assert result.invalid == ""
    assert result.figures["failed"] == 0
    assert result.histograms["latency"].count > 0
    assert {figure for figure in result.figures if figure in PARTS} == parts


@pytest.mark.parametrize("name", BETWEEN)
def test_the_port_is_free_when_a_target_has_ended(name: str, bot: ClosingOrigin) -> None:
    with started(name, bot.address) as target:
        port = port_of(target)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE)


def test_both_processes_of_nginx_are_seen(bot: ClosingOrigin) -> None:
    with started("nginx", bot.address) as target:
        assert len(processes(target)) == 2


def test_nginxs_worker_ends_though_its_master_was_killed(bot: ClosingOrigin) -> None:
    with started("nginx", bot.address) as target:
        assert target.pid is not None
        pids = processes(target)
        os.kill(target.pid, signal.SIGKILL)
        wait_until(lambda: target.pid not in living(pids), "the master is gone")
        assert len(living(pids)) == 1
    wait_until(lambda: not living(pids), "the worker is gone")


@pytest.mark.parametrize("name", BETWEEN)
def test_a_target_ends_with_a_harness_that_is_killed(
    name: str, bot: ClosingOrigin, tmp_path: Path
) -> None:
    with started(name, bot.address):
        pass  # or the test is skipped here
    command = [sys.executable, "-c", HARNESS, name, bot.address]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # nobody removes its files
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as harness:
        try:
            assert harness.stdout is not None
            pids = {int(pid) for pid in harness.stdout.readline().split()}
            assert living(pids)
        finally:
            harness.kill()
    wait_until(lambda: not living(pids), f"{name} is gone")


@pytest.mark.parametrize("name", BETWEEN)
def test_a_target_that_passes_nothing_on_does_not_start(name: str) -> None:
    with (
        nobody_listens() as url,
        pytest.raises(ChildFailed, match=f"^{name} failed its first exchange: "),
        started(name, url.removeprefix("http://")),
    ):
        raise AssertionError("it started")


def test_a_peer_that_cannot_start_says_why() -> None:
    broken = Peer("broken", ("nothing_of_that_name",), (), False, "")
    start = peer(broken, "127.0.0.1:1")
    assert not isinstance(start, str)
    with pytest.raises(ChildFailed, match="No module named"), start:
        raise AssertionError("it started")


def test_a_configuration_that_nginx_refuses_is_said(bot: ClosingOrigin) -> None:
    wrong = Variant("nginx", "no_such_directive;\n", "")
    start = nginx(wrong, bot.address)
    if isinstance(start, str):
        pytest.skip(start)
    with pytest.raises(ChildFailed, match="no_such_directive"), start:
        raise AssertionError("it started")


def test_another_process_that_answers_is_no_target(bot: ClosingOrigin) -> None:
    with Child("gone", ["-c", "pass"]) as child:
        wait_until(lambda: not child.alive, "the process is gone")
        with pytest.raises(ChildFailed, match="gone ended early"):
            exchange(child, Door(ws_url=f"ws://{bot.address}/ws"))
