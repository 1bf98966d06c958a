"""Two hundred live calls through restarts in place, and one kill, at full size (make test-live)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from bench import native
from bench.origin import start_origin
from tests.helpers.daemon import config_text, start_daemon
from tests.helpers.paced_calls import busy_cores, open_paced, pacing
from tests.helpers.upgrades import Prober, control_pid, upgradable, upgrade, wait_alone

pytestmark = pytest.mark.skipif(
    native.compiler() is None, reason="no C compiler: apt-get install gcc"
)

CALLS = 200
RATE = 50
UPGRADES = 5
# Without a restart, for comparison; then with them, a few seconds apart.
QUIET_SECONDS = 10
SECONDS = 90
BETWEEN = 3.0
KILLED_FOR = 1.0

PROBED = """
sessions_per_instance = 1000
[agents.probed]
organization = "acme"
sessions_per_instance = 100000
instances = ["{url}"]
"""


def test_two_hundred_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with start_origin(listeners=2) as (_, (url, other)):
        config = config_text([url], PROBED.format(url=other))
        with upgradable(tmp_path, config) as daemon:
            bind = f'"127.0.0.1:{daemon.port}"'
            with open_paced(daemon, CALLS) as calls:
                with pacing(calls, RATE, QUIET_SECONDS) as quiet, Prober(daemon).running():
                    pass
                quiet.check(CALLS * RATE * QUIET_SECONDS)
                prober = Prober(daemon)
                begun = time.monotonic()
                with pacing(calls, RATE, SECONDS) as paced:
                    with prober.running():
                        for _ in range(UPGRADES):
                            time.sleep(BETWEEN)
                            upgrade(daemon)
                            wait_alone(daemon)
                    took = time.monotonic() - begun
                    # A kill: nobody listens until it is started again, so nobody probes.
                    os.kill(control_pid(daemon), signal.SIGKILL)
                    time.sleep(KILLED_FOR)
                    fixed = config.replace('bind = "127.0.0.1:0"', f"bind = {bind}", 1)
                    again = start_daemon(tmp_path, fixed, "again")
                    assert again.request("GET", "/readyz", admin=True).json()["calls"] == CALLS
                    assert time.monotonic() - begun < SECONDS, "the calls ended before the kill"
                paced.check(CALLS * RATE * SECONDS)
            again.process.end()
            assert prober.refused == []
    with capsys.disabled():
        print(
            f"\n{CALLS} calls of {RATE} messages a second, {UPGRADES} restarts in place in "
            f"{took:.0f} s, one kill; {busy_cores()}"
            f"\n  messages {paced.result['planned']}, lost, reordered or changed 0, calls cut 0"
            f"\n  delay ms: p50 {paced.milliseconds(50)}, p99 {paced.milliseconds(99)}, "
            f"worst {paced.milliseconds(100)}"
            f"\n  the same without a restart: p50 {quiet.milliseconds(50)}, "
            f"p99 {quiet.milliseconds(99)}, "
            f"worst {quiet.milliseconds(100)}"
            f"\n  new connections refused 0, requests answered {prober.started}, "
            f"slowest connection {prober.slowest * 1000:.0f} ms"
        )
