"""A thousand calls through TLS while certificates change, and what TLS costs beside calls without.

`LIVE_TLS_CALLS`, `LIVE_TLS_ROUNDS` and `LIVE_RATE` change the runs.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pytest

from tests.helpers.daemon import Daemon, running_daemon
from tests.helpers.reloads import reloaded
from tests.helpers.steady import steady_bot, steady_calls
from tests.helpers.tls import Authority, running_secure, secure_config
from tests.helpers.upgrades import control_pid

AT_A_TIME = int(os.environ.get("LIVE_TLS_CALLS", "50"))
ROUNDS = int(os.environ.get("LIVE_TLS_ROUNDS", "20"))
RATE = float(os.environ.get("LIVE_RATE", "20"))
CHANGES = 2  # of certificates in each round
PAUSE = 0.7
PERIODS = 6
PERIOD = 2.0
PATH = "/ws/generic/{}.acme"

AGENT = 'websocket_auth = "none"\nsessions_per_instance = 100000'
FRAMED = """
[agents.framed]
organization = "acme"
instances = ["http://{0}"]
websocket_auth = "none"
sessions_per_instance = 100000
relay = "frames"
"""


def test_a_thousand_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authority, shown = Authority(tmp_path), tmp_path / "shown.pem"
    shutil.copy(authority.issue("first", rsa=True), shown)
    messages, worst, p50 = 0, 0.0, []
    with steady_bot() as bot:
        config = secure_config([f"http://{bot}"], shown, agent=AGENT)
        with running_secure(tmp_path, config, authority.client()) as daemon:
            for number in range(ROUNDS):
                calls = steady_calls(
                    daemon.port, PATH.format("bot"), AT_A_TIME, RATE, authority.pem
                )
                with calls as steady:
                    steady.phase("talk")
                    for change in range(CHANGES):
                        time.sleep(PAUSE)
                        name = f"{number}-{change}"
                        shutil.copy(authority.issue(name, rsa=change == 0), shown)
                        assert reloaded(daemon, config) == ["tls"]
                    time.sleep(PAUSE)
                    result = steady.end()
                assert (result["cut"], result["lost"], result["wrong"]) == (0, 0, [])
                messages += result["messages"]
                p50.append(result["phases"]["talk"]["p50"])
                worst = max(worst, result["phases"]["talk"]["worst"])
            metrics = daemon.request("GET", "/metrics", admin=True).body.decode()
    assert 'phase="accept"' not in metrics
    with capsys.disabled():
        print(
            f"\n{ROUNDS * AT_A_TIME} calls through TLS, {AT_A_TIME} at a time, "
            f"{ROUNDS * CHANGES} changes of certificates: {messages} messages, none lost; "
            f"ms at p50 {median(p50):.2f}, worst {worst:.2f}",
            end="",
        )


def seconds_of(pids: Sequence[int]) -> float:
    """Processor time so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _period(daemon: Daemon, agent: str, *authority: Path) -> tuple[float, float]:
    """Of one period: milliseconds at p50, and µs of the daemon's processes for each message."""
    pids = [control_pid(daemon), *daemon.pump_pids()]
    with steady_calls(daemon.port, PATH.format(agent), AT_A_TIME, RATE, *authority) as calls:
        calls.phase("talk")
        before = seconds_of(pids)
        time.sleep(PERIOD)
        spent = seconds_of(pids) - before
        result = calls.end()
    assert (result["cut"], result["lost"], result["wrong"]) == (0, 0, [])
    talk = result["phases"]["talk"]
    # There and back.
    return talk["p50"], spent / (2 * PERIOD * AT_A_TIME * RATE) * 1e6


def test_what_it_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Periods of each kind by turns, so that other work meets all of them alike."""
    for name in ("secure", "plain"):
        (tmp_path / name).mkdir()
    authority = Authority(tmp_path)
    found: dict[str, list[tuple[float, float]]] = {"tls": [], "frames": [], "tunnel": []}
    with steady_bot() as bot, steady_bot() as other, steady_bot() as third:
        secure = secure_config([f"http://{bot}"], authority.issue("shown"), agent=AGENT)
        with (
            running_secure(tmp_path / "secure", secure, authority.client()) as tls,
            running_daemon(
                tmp_path / "plain", [f"http://{other}"], AGENT + FRAMED.format(third)
            ) as plain,
        ):
            kinds = {
                "tls": (tls, "bot", (authority.pem,)),
                "frames": (plain, "framed", ()),
                "tunnel": (plain, "bot", ()),
            }
            for _ in range(PERIODS):
                for kind, (daemon, agent, trusted) in kinds.items():
                    found[kind].append(_period(daemon, agent, *trusted))
    with capsys.disabled():
        for kind, periods in found.items():
            delays, costs = zip(*periods, strict=True)
            row = f"ms at p50 {median(delays):.2f}, in the quietest period {min(delays):.2f}"
            print(f"\n{kind:7} {row}; processor µs per message {median(costs):.0f}", end="")
