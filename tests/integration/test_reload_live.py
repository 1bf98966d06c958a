"""Reloads in the midst of calls that talk steadily: none is cut, no message lost or changed.

The same with 200 calls, and with nginx and HAProxy beside it: `make test-live`.
"""

from __future__ import annotations

from pathlib import Path

from tests.helpers.daemon import running_daemon
from tests.helpers.reloads import reloaded
from tests.helpers.steady import steady_bot, steady_calls

CALLS, RATE, RELOADS = 30, 25.0, 8
AGENT = """
websocket_auth = "none"
sessions_per_instance = 1000
relay = "{}"
"""


def test_calls_go_on_through_reloads(tmp_path: Path) -> None:
    both = f'{AGENT.format("tunnel")}\n[agents.frames]\norganization = "acme"\ninstances = ["{{}}"]'
    with steady_bot() as bot, steady_bot() as other:
        agents = both.format(f"http://{other}") + AGENT.format("frames")
        with (
            running_daemon(tmp_path, [f"http://{bot}"], agents) as daemon,
            steady_calls(daemon.port, "/ws/generic/bot.acme", CALLS, RATE) as calls,
            steady_calls(daemon.port, "/ws/generic/frames.acme", CALLS, RATE) as frames,
        ):
            text = daemon.config.read_text()
            for number in range(RELOADS):
                # Everything changes, again and again, both agents go and come back.
                gone = number % 2
                limits = f"[limits]\nmax_waiting = {number + 1}"
                changed = text.replace("[limits]", limits).replace(
                    "[server]", f"[server]\npumps = {1 + gone}"
                )
                if gone:
                    changed = changed.partition("[agents.bot]")[0] + (
                        '[agents.new]\norganization = "acme"\ninstances = ["http://127.0.0.1:9"]\n'
                    )
                assert "limits.max_waiting" in reloaded(daemon, changed)
            for result in (calls.end(), frames.end()):
                assert (result["cut"], result["lost"], result["wrong"]) == (0, 0, [])
                assert result["messages"] > CALLS
