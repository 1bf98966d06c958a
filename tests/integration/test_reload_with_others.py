"""Reloads beside what outlives a configuration: webhooks, restarts in place."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.helpers.daemon import PATIENCE, config_text, running_bot, running_daemon, wait_until
from tests.helpers.ends import Ends, begin
from tests.helpers.receiver import receiving
from tests.helpers.reloads import drain, reloaded
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.upgrades import upgradable, upgrade, wait_alone
from tests.helpers.wire import call, echoes, request

SECRET = "whsec_" + "A" * 44


def test_webhooks_come_go_and_move(tmp_path: Path) -> None:
    with (
        running_bot(tmp_path, sessions=2) as bot,
        receiving() as first,
        receiving() as second,
        running_daemon(tmp_path, [bot.url], "sessions_per_instance = 2") as daemon,
    ):
        text = daemon.config.read_text()

        def told_to(url: str) -> str:
            hook = f'webhook_url = "{url}"\nwebhook_secret = "{SECRET}"\n'
            return text.replace("[agents.bot]", f"{hook}[agents.bot]")

        def a_call() -> str:
            started = daemon.start_when_free()
            with call(daemon, token=started["token"]) as ws:
                assert echoes(ws)
            daemon.wait_ended(started["sessionId"])
            return str(started["sessionId"])

        a_call()
        assert reloaded(daemon, told_to(first.url)) == ["organizations.acme"]
        told = a_call()
        wait_until(lambda: len(first.told) == 2, "both events of the call since")
        assert {each.json()["data"]["sessionId"] for each in first.told} == {told}
        reloaded(daemon, told_to(second.url))
        moved = a_call()
        wait_until(lambda: len(second.told) == 2, "the new receiver has the next one")
        assert {each.json()["data"]["sessionId"] for each in second.told} == {moved}
        reloaded(daemon, text)
        a_call()
        reloaded(daemon, told_to(first.url))
        last = a_call()
        wait_until(lambda: len(first.told) == 4, "nothing of the call in between")
        assert {each.json()["data"]["sessionId"] for each in first.told[2:]} == {last}


def test_the_next_process_has_what_was_reloaded_and_drained(tmp_path: Path) -> None:
    """The sockets that came with a reload too, and it follows its file in its turn."""
    path = tmp_path / "front.sock"
    with scripted_bot() as bot, scripted_bot() as other:
        bot.script = other.script = Ends()
        second = f'[agents.second]\norganization = "acme"\ninstances = ["{other.url}"]\n'
        with upgradable(tmp_path, config_text([bot.url], second)) as daemon:
            binds = f'public_url = "{daemon.url}"\nbind = ["127.0.0.1:0", "unix:{path}"]\nadmin'
            text = daemon.config.read_text().replace('bind = "127.0.0.1:0"\nadmin', binds)
            with begin(daemon) as began:
                assert "server.bind" in reloaded(daemon, text)
                drain(daemon, agent="second")
                inode = path.stat().st_ino
                upgrade(daemon)
                wait_alone(daemon)
                assert path.stat().st_ino == inode, "the same socket"
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(PATIENCE)
                    sock.connect(str(path))
                    sock.sendall(request("GET", "/", "Connection: close"))
                    assert sock.recv(100).startswith(b"HTTP/1.1 404")
                assert daemon.request("GET", "/drain", admin=True).json()["agents"] == ["second"]
                assert daemon.start("second").status == 503
                changed = text.replace("[limits]", "[limits]\nmax_waiting = 7")
                assert reloaded(daemon, changed) == ["limits.max_waiting"]
                assert echoes(began.ws)
