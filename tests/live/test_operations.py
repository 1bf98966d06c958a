"""Two hundred live calls of fifty messages a second while everything around them is replaced.

In one run twenty reloads, five restarts in place, and a SIGKILL of the control process with a
restart: no call may be cut, no message lost or changed, nobody new refused while there is a
daemon. nginx and HAProxy are reloaded as often, and what becomes of their calls is printed:
as they come, and with the bound on old processes that operators give them, without which a
process is left behind for as long as its calls last.

Each run begins with the same calls left alone for a while, to compare delays with.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import native
from bench.client import Channel, Door
from bench.opening import open_calls
from bench.origin import start_origin
from tests.helpers.daemon import Daemon, config_text, start_daemon
from tests.helpers.paced_calls import Paced, busy_cores, open_paced, pacing
from tests.helpers.peers import missing
from tests.helpers.reloaded_peers import reloaded_peer
from tests.helpers.reloads import reloaded
from tests.helpers.upgrades import (
    Prober,
    control_pid,
    upgradable,
    upgrade_by_signal,
    wait_alone,
)

pytestmark = pytest.mark.skipif(
    native.compiler() is None, reason="no C compiler: apt-get install gcc"
)

CALLS = 200
RATE = 50
# Each round: some reloads, then a restart in place, or for the peers one more reload.
ROUNDS = 5
RELOADS = 4
PAUSE = 0.5
KILLED_FOR = 1.0
# How long the calls last: left alone, through all that (38 seconds on a busy machine), and
# with the peers, whose reloads nobody waits for.
QUIET_SECONDS = 30
SECONDS = 75
PEER_SECONDS = 20
BOUND = 5  # seconds that the peers give old processes, where they are bounded

PROBED = """
sessions_per_instance = 1000
[agents.probed]
organization = "acme"
sessions_per_instance = 100000
instances = ["{url}"]
"""


def test_relay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with start_origin(listeners=2) as (_, (url, other)):
        config = config_text([url], PROBED.format(url=other))
        with upgradable(tmp_path, config) as daemon, open_paced(daemon, CALLS) as calls:
            quiet = left_alone(calls, QUIET_SECONDS)
            prober, began = Prober(daemon), time.monotonic()
            with pacing(calls, RATE, SECONDS) as paced:
                with prober.running():
                    for number in range(ROUNDS):
                        change(daemon, config, number)
                again = killed(daemon)
                took = time.monotonic() - began
                assert took < SECONDS, "the calls ended before the last of it"
            live = again.request("GET", "/readyz", admin=True).json()["calls"]
            again.process.end()
    with capsys.disabled():
        said = f"{ROUNDS * RELOADS} reloads, {ROUNDS} restarts in place, a SIGKILL in {took:.0f} s"
        print(f"\n{busy_cores()}\n{row('relay', said, quiet, paced)}")
        print(
            f"  beside it {prober.started} requests on new connections answered, "
            f"{len(prober.refused)} not; slowest {prober.slowest * 1000:.0f} ms"
        )
    paced.check(CALLS * RATE * SECONDS)
    assert live == CALLS
    assert prober.refused == []


def change(daemon: Daemon, config: str, number: int) -> None:
    """One round: reloads with other limits and agents, and a restart in place."""
    for each in range(RELOADS):
        limits = config.replace(
            "[limits]", f"[limits]\nmax_waiting = {number * RELOADS + each + 1}"
        )
        agent = f'[agents.a{each}]\norganization = "acme"\ninstances = ["http://127.0.0.1:9"]\n'
        assert "limits.max_waiting" in reloaded(daemon, limits + agent)
        time.sleep(PAUSE)
    upgrade_by_signal(daemon)
    wait_alone(daemon)


def killed(daemon: Daemon) -> Daemon:
    """SIGKILL for the control process alone; the one that is started a little later."""
    os.kill(control_pid(daemon), signal.SIGKILL)
    time.sleep(KILLED_FOR)
    text = daemon.config.read_text()
    text = text.replace('bind = "127.0.0.1:0"', f'bind = "127.0.0.1:{daemon.port}"', 1)
    return start_daemon(daemon.folder, text, "again")


@pytest.mark.parametrize("bound", [None, BOUND], ids=["unbounded", "bounded"])
@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_peers(
    tmp_path: Path, name: str, bound: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := missing(name):
        pytest.skip(reason)
    with start_origin() as (_, (url,)):
        address = url.removeprefix("http://")
        with reloaded_peer(name, tmp_path, address, bound) as peer:
            door = Door(ws_url=f"ws://127.0.0.1:{peer.port}/ws")
            with open_calls(door, CALLS) as calls:
                quiet = left_alone(calls, PEER_SECONDS)
                with pacing(calls, RATE, PEER_SECONDS) as paced:
                    for number in range(ROUNDS * (RELOADS + 1)):
                        peer.reload(number + 1)
                        time.sleep(PAUSE)
                    left = peer.processes()
    said = f"{ROUNDS * (RELOADS + 1)} reloads, {left} processes at the end"
    if bound is not None:
        said += f", which have {bound} s"
    with capsys.disabled():
        print(f"\n{row(name, said, quiet, paced)}")
    result = paced.result
    assert (result["reordered"], result["duplicated"], result["changed"]) == (0, 0, 0)


def left_alone(calls: Sequence[Channel], seconds: int) -> Paced:
    with pacing(calls, RATE, seconds) as quiet:
        pass
    quiet.check(CALLS * RATE * seconds)
    return quiet


def row(name: str, said: str, quiet: Paced, paced: Paced) -> str:
    """What became of the calls, and by how much the worst message was later than without."""
    result = paced.result
    added = paced.milliseconds(100) - quiet.milliseconds(100)
    lines = [
        f"{name}: {said}",
        f"calls cut {result['broken']} of {CALLS}, "
        f"messages lost {result['lost']} of {result['sent']}, "
        f"reordered, doubled or changed "
        f"{result['reordered'] + result['duplicated'] + result['changed']}",
        f"delay ms p50, p99, worst: {delays(paced)}; left alone {delays(quiet)}; "
        f"worst added {added:.1f}",
    ]
    return "\n  ".join(lines)


def delays(paced: Paced) -> str:
    return " ".join(f"{paced.milliseconds(percent):.2f}" for percent in (50, 99, 100))
