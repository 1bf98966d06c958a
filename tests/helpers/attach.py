"""How much later a caller hears a warm bot through the relay than without it.

    python -m tests.helpers.attach [--calls 200]

From the connection's start to the 101, in milliseconds: to a bot directly, to bots that the
daemon keeps warm (each process for one call, or for many), and to bots that it starts when
somebody waits. Direct calls and others take turns, so that both see the same machine. Run it
on an idle one: the daemon, its pump, the bots and this program want a processor each.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.daemon import Daemon, wait_until
from tests.helpers.launched import launching, naughty
from tests.helpers.wire import Wire, upgrade

WARM = "min_agents = 2\nmax_agents = 8\n"
AGENTS = {
    "own": (naughty(), WARM),
    "kept": (naughty(), f"{WARM}reuse_process = true\n"),
    "cold": (naughty(), ""),
}
# Starts take a hundred times as long, and are not what is measured here.
COLD_SHARE = 10
PHASES = ("parse", "route", "authenticate", "resolve", "relay")


def attach(port: int, target: str, *fields: str) -> float:
    """Milliseconds from the connection's start to the 101."""
    begun = time.perf_counter()
    with Wire(port) as wire:
        wire.send(upgrade(target, *fields))
        assert wire.answer().status == 101
        taken = time.perf_counter() - begun
        wire.send(b"\x88\x80\0\0\0\0")  # Close, and its answer
        wire.file.read()
    return taken * 1000


@contextmanager
def a_bot() -> Iterator[int]:
    """A bot without a daemon; its port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    bot = subprocess.Popen([word.replace("{port}", str(port)) for word in naughty()])
    try:
        wait_until(lambda: _connects(port), "the bot listens")
        yield port
    finally:
        bot.terminate()
        bot.wait()


def _connects(port: int) -> bool:
    try:
        Wire(port).close()
    except OSError:
        return False
    return True


def _warm(daemon: Daemon, agent: str) -> bool:
    """Whether as many bots as are kept are idle, and all others are ready too."""
    bots = daemon.request("GET", "/instances", admin=True).json()[agent].values()
    idle = [bot for bot in bots if bot["sessions"] == 0]
    return len(idle) >= 2 and {bot["state"] for bot in bots} == {"ready"}


def call(daemon: Daemon, agent: str) -> float:
    """One call, while no bot starts or ends."""
    if agent != "cold":
        wait_until(lambda: _warm(daemon, agent), "bots are ready")
    started = daemon.start_when_free(agent)
    took = attach(
        daemon.port, f"/ws/generic/{agent}.acme", f"Authorization: Bearer {started['token']}"
    )
    daemon.wait_ended(started["sessionId"])
    return took


def measure(calls: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """What each kind of call took, and each phase of one with a bot of its own."""
    took: dict[str, list[float]] = defaultdict(list)
    phases: dict[str, list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as folder,
        launching(Path(folder), naughty(), "", AGENTS) as daemon,
        a_bot() as port,
    ):
        for number in range(calls):
            took["direct"].append(attach(port, "/ws"))
            for agent in AGENTS:
                if agent != "cold" or number % COLD_SHARE == 0:
                    took[agent].append(call(daemon, agent))
        for line in daemon.logs():
            if line["event"] == "exchange" and line.get("status") == 101 and line["agent"] == "own":
                for phase in PHASES:
                    phases[phase].append(line[f"{phase}_ms"])
    return took, phases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=200, help="of each kind")
    took, phases = measure(parser.parse_args().calls)
    print(f"{'ms':8} {'calls':>6} {'p50':>8} {'p90':>8} {'p99':>8} {'p50 - direct':>13}")
    direct = statistics.median(took["direct"])
    for kind, times in took.items():
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        columns = "".join(f" {cuts[at - 1]:8.2f}" for at in (50, 90, 99))
        print(f"{kind:8} {len(times):6}{columns} {cuts[49] - direct:13.2f}")
    medians = ", ".join(f"{phase} {statistics.median(phases[phase]):.2f}" for phase in PHASES)
    print(f"medians of the phases of a warm call: {medians}")


if __name__ == "__main__":
    main()
