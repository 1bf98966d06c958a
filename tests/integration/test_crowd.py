"""Many more callers than bots, at two daemons at once: no bot gets two, everybody is served."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import trio

from tests.helpers.daemon import Daemon
from tests.helpers.ends import is_quiet, nothing_is_held, rows
from tests.helpers.scripted_bot import Conversation, accept, scripted_bot
from tests.helpers.two_nodes import two_nodes
from tests.helpers.wire import masked, token_for, upgrade

BOTS, CALLERS = 10, 200
PATIENCE = 60.0
BYE = b"\x88\x80\0\0\0\0"  # a Close without a code, masked with zeros


class Crowd:
    """What the bots see: who they have, and whether they ever had two."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now: Counter[str] = Counter()
        self.most = 0

    def script(self, url: str, talk: Conversation) -> None:
        with self.lock:
            self.now[url] += 1
            self.most = max(self.most, self.now[url])
        try:
            accept()(talk)
        finally:
            with self.lock:
                self.now[url] -= 1


async def call(daemon: Daemon, answers: Counter[str]) -> None:
    """One call, from the upgrade to the Close; how it went."""
    stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
    token = token_for()
    async with stream:
        await stream.send_all(upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token}"))
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some(4096) or b"\r\n\r\n"
        status = received.split(b" ", 2)[1].decode()
        if status == "101":
            await stream.send_all(masked("hello") + BYE)
            while data := await stream.receive_some(4096):
                received += data
            status = "served" if b"\x81\x05hello\x88" in received else "broken"
        answers[status] += 1


def test_a_crowd_at_two_nodes(tmp_path: Path) -> None:
    crowd, answers = Crowd(), Counter[str]()

    async def come(nodes: tuple[Daemon, Daemon]) -> None:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(CALLERS):
                    nursery.start_soon(call, nodes[number % 2], answers)

    with ExitStack() as stack:
        bots = [stack.enter_context(scripted_bot()) for _ in range(BOTS)]
        for bot in bots:
            bot.script = lambda talk, url=bot.url: crowd.script(url, talk)
        agent, limits = "attach_timeout = 60", f"max_waiting = {CALLERS}"
        urls = [bot.url for bot in bots]
        nodes = stack.enter_context(two_nodes(tmp_path, urls, agent, limits))
        trio.run(come, nodes)
        assert answers == {"served": CALLERS}
        assert crowd.most == 1
        nothing_is_held(nodes[0])
        ends = rows(nodes[0], "SELECT cause, count(*) FROM sessions GROUP BY 1")
        assert ends == [("client_closed", CALLERS)]
        per_bot = dict(rows(nodes[0], "SELECT instance, count(*) FROM sessions GROUP BY 1"))
        assert len(per_bot) == BOTS
        for node in nodes:
            is_quiet(node)
