"""A new configuration for a running daemon: followed whole, or not at all, nothing live touched."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.daemon import (
    PATIENCE,
    PUBLIC_KEY,
    Daemon,
    config_text,
    running_daemon,
    spawn,
    wait_until,
)
from tests.helpers.ends import Ends, begin, close_seen, kill_control, restart, signal_daemon
from tests.helpers.launched import NAUGHTY_BOT
from tests.helpers.reloads import as_before, hang_up, post, reload, reloaded, said
from tests.helpers.scripted_bot import Conversation, ScriptedBot, scripted_bot
from tests.helpers.scripted_http import (
    BEARER,
    Steps,
    answer,
    chunk,
    head,
    read_chunk,
    read_head,
    session_on,
)
from tests.helpers.wire import Wire, call, echoes, live, request, upgrade

OTHER_KEY = "pk_test_another-key-of-acme"
SECOND = '\n[agents.second]\norganization = "acme"\ninstances = ["{}"]\nsettle_time = 0.05\n'
SLOW = 'attach_timeout = 30\nwebsocket_auth = "none"'


@pytest.fixture(scope="module")
def bots() -> Iterator[tuple[ScriptedBot, ScriptedBot]]:
    with scripted_bot() as first, scripted_bot() as second:
        first.script, second.script = Ends(), Ends()
        yield first, second


@pytest.fixture(scope="module")
def shared(
    bots: tuple[ScriptedBot, ScriptedBot], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("relay")
    with running_daemon(folder, [bots[0].url], limits="reservation_timeout = 1") as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """The daemon of all tests here, as each of them finds it."""
    with as_before(shared):
        yield shared


@pytest.fixture
def own(bots: tuple[ScriptedBot, ScriptedBot], tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that a test may end, or that is not to be reached as before."""
    with running_daemon(tmp_path, [bots[0].url]) as daemon:
        yield daemon


def text_of(daemon: Daemon) -> str:
    return daemon.config.read_text()


def start_with(daemon: Daemon, key: str, agent: str = "bot") -> int:
    body = {"transport": "websocket"}
    path = f"/v1/public/{agent}/start"
    return daemon.request("POST", path, body, Authorization=f"Bearer {key}").status


# What changes.


def test_an_agent_is_added_and_taken_away(
    daemon: Daemon, bots: tuple[ScriptedBot, ScriptedBot]
) -> None:
    before = text_of(daemon)
    assert daemon.start("second").status == 404
    assert reloaded(daemon, before + SECOND.format(bots[1].url)) == ["agents.second"]
    # At once: the first look at its instance is waited for.
    with begin(daemon, "second") as began:
        assert reloaded(daemon, before) == ["agents.second"]
        assert daemon.start("second").status == 404
        assert echoes(began.ws, "its call goes on")
        began.ws.close(1000, "done")
    assert daemon.wait_ended(began.id)["cause"] == "client_closed"
    statistics = daemon.request("GET", "/readyz", admin=True).json()["instances"]
    assert list(statistics) == ["bot"]


def test_keys_are_exchanged(daemon: Daemon) -> None:
    before = text_of(daemon)
    token = daemon.start_when_free()["token"]
    assert start_with(daemon, OTHER_KEY) == 401
    changed = reloaded(daemon, before.replace(PUBLIC_KEY, OTHER_KEY).replace("a test", "another"))
    assert changed == ["organizations.acme"]
    assert start_with(daemon, PUBLIC_KEY) == 401
    with pytest.raises(InvalidStatus) as refused:
        call(daemon, token=token)
    assert refused.value.response.status_code == 403
    assert start_with(daemon, OTHER_KEY) in (200, 429)


def test_a_token_outlives_its_key_s_first_place(daemon: Daemon) -> None:
    before = text_of(daemon)
    token = daemon.start_when_free()["token"]
    new = '{ id = "k2", secret = "a newer secret of more than thirty-two bytes" }, {'
    reloaded(daemon, before.replace("token_keys = [{", f"token_keys = [{new}"))
    with call(daemon, token=token) as ws:
        assert echoes(ws)


def test_limits_reach_connections_that_are_open(daemon: Daemon) -> None:
    long = request("GET", "/" + "x" * 2000)
    with Wire(daemon.port) as wire:
        assert wire.ask(long).status == 404
        before = text_of(daemon)
        text = before.replace("[limits]", "[limits]\nmax_target = 1024\nmax_head = 2048")
        assert reloaded(daemon, text) == ["limits.max_target", "limits.max_head"]
        assert wire.ask(long).status == 414
    shown = daemon.request("GET", "/config", admin=True).body.decode()
    assert "max_target = 1024" in shown


def test_connections_at_a_time(daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        assert wire.ask(request("GET", "/")).status == 404
        text = text_of(daemon).replace("[limits]", "[limits]\nmax_connections = 1")
        assert reloaded(daemon, text) == ["limits.max_connections"]
        with Wire(daemon.port) as second:
            assert second.answer().status == 503
        assert wire.ask(request("GET", "/")).status == 404


def test_the_log_and_the_admin_token(own: Daemon) -> None:
    token = "a-new-token-of-the-admin"
    lines = f'[server]\nlog_level = "warning"\nadmin_token = "{token}"'
    changed = reloaded(own, text_of(own).replace("[server]", lines))
    assert changed == ["server.admin_token", "server.log_level"]
    assert own.request("GET", "/sessions", admin=True).status == 401
    assert post(own, "/reload").status == 401
    assert post(own, "/reload", Authorization=f"Bearer {token}").status == 200
    count = len(own.logs())
    assert own.request("GET", "/").status == 404
    hang_up_quietly = reload(own, "nonsense", Authorization=f"Bearer {token}")
    assert hang_up_quietly.status == 409
    wait_until(lambda: said(own, "reload_refused"), "the warning")
    assert len(own.logs()) == count + 1, "the exchanges are not logged any more"


def test_listeners_come_and_go(own: Daemon, tmp_path: Path) -> None:
    """Connections of those that go are left alone."""
    path = tmp_path / "front.sock"
    old, new = 'bind = "127.0.0.1:0"\nadmin', f'bind = ["unix:{path}", "127.0.0.1:0"]\nadmin'
    url = f'public_url = "{own.url}"\n'
    with Wire(own.port) as wire:
        assert wire.ask(request("GET", "/")).status == 404
        changed = reloaded(own, text_of(own).replace(old, url + new))
        assert changed == ["server.bind"]
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(request("GET", "/", "Connection: close"))
            assert sock.recv(100).startswith(b"HTTP/1.1 404")
        # The same socket as before: port 0 would have given another one.
        assert own.request("GET", "/").status == 404
        only = f'{url}bind = "unix:{path}"\nadmin'
        reloaded(own, own.config.read_text().replace(url + new, only))
        assert wire.ask(request("GET", "/")).status == 404
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", own.port), PATIENCE)


def test_the_administration_moves(own: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    text = text_of(own).replace('admin_bind = "127.0.0.1:0"', f'admin_bind = "unix:{path}"')
    # The answer comes on the connection that asked, though its listener is gone.
    assert reloaded(own, text) == ["server.admin_bind"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(request("GET", "/livez", "Connection: close"))
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", own.admin_port), PATIENCE)


def test_pumps_are_added_and_let_go(own: Daemon) -> None:
    before = text_of(own)
    one = begin(own)
    two = before.replace("[server]", "[server]\npumps = 2").replace(
        "settle_time = 0.05", "settle_time = 0.05\nsessions_per_instance = 9"
    )
    assert reloaded(own, two) == ["server.pumps", "agents.bot"]
    wait_until(lambda: states(own) == ["ready", "ready"], "a second pump")
    second = begin(own)
    wait_until(lambda: [pump["tunnels"] for pump in pumps(own)] == [1, 1], "one each")
    third = begin(own)
    reloaded(own, two.replace("pumps = 2", "pumps = 1"))
    wait_until(lambda: states(own) == ["ready", "ending"], "the second one only finishes")
    fourth = begin(own)
    calls = [one, second, third, fourth]
    assert all(echoes(each.ws, "still there") for each in calls)
    for each in calls[1:]:
        each.ws.close()
    wait_until(lambda: len(own.pump_pids()) == 1, "it has quit")
    assert echoes(one.ws)
    reloaded(own, two)
    wait_until(lambda: states(own) == ["ready", "ready"], "and may be had again")
    one.ws.close()
    assert {own.wait_ended(each.id)["cause"] for each in calls} == {"client_closed"}
    assert not said(own, "pump_died")


def pumps(daemon: Daemon) -> list[dict[str, object]]:
    found: list[dict[str, object]] = daemon.request("GET", "/status/pumps", admin=True).json()[
        "pumps"
    ]
    return sorted(found, key=lambda pump: str(pump["index"]))


def states(daemon: Daemon) -> list[object]:
    return [pump["state"] for pump in pumps(daemon)]


# What is under way.


def test_a_caller_in_line_gets_the_instance_that_is_added(
    bots: tuple[ScriptedBot, ScriptedBot], tmp_path: Path
) -> None:
    with running_daemon(tmp_path, [bots[0].url], SLOW) as daemon, begin(daemon) as first:
        before = text_of(daemon)
        with Wire(daemon.port) as waiting:
            waiting.send(upgrade("/ws/generic/bot.acme"))
            wait_until(lambda: len(live(daemon)) == 2, "the second waits")
            both = json.dumps([bots[0].url, bots[1].url])
            reloaded(daemon, before.replace(json.dumps([bots[0].url]), both))
            assert waiting.answer().status == 101
            # And back: its call goes on where no instance is configured any more.
            reloaded(daemon, before)
            waiting.send(b"\x81\x82\0\0\0\0hi")
            assert waiting.file.read(4) == b"\x81\x02hi"
        assert echoes(first.ws)


def test_a_promised_place_is_kept(own: Daemon) -> None:
    token = own.start_when_free()["token"]
    assert own.start().status == 429
    text = text_of(own).replace("settle_time = 0.05", "settle_time = 0.1")
    assert reloaded(own, text) == ["agents.bot"]
    assert own.start().status == 429
    with call(own, token=token) as ws:
        assert echoes(ws)


def test_a_call_keeps_the_limits_with_which_it_began(daemon: Daemon) -> None:
    with begin(daemon) as began:
        text = text_of(daemon).replace("settle_time", "max_session_duration = 1\nsettle_time")
        reloaded(daemon, text)
        assert daemon.session(began.id)["state"] == "active"
    daemon.wait_ended(began.id)
    with begin(daemon) as began:
        assert close_seen(began.ws) == (1001, "time limit")


def test_calls_relayed_here_go_on(bots: tuple[ScriptedBot, ScriptedBot], tmp_path: Path) -> None:
    with running_daemon(tmp_path, [bots[0].url], 'relay = "frames"') as daemon:
        with begin(daemon) as began:
            reloaded(daemon, text_of(daemon).replace("settle_time = 0.05", "settle_time = 0.06"))
            reloaded(daemon, text_of(daemon).replace('"frames"', '"tunnel"'))
            assert echoes(began.ws, "through the same tasks")
        assert daemon.wait_ended(began.id)["cause"] == "client_closed"
        with begin(daemon):
            wait_until(lambda: pumps(daemon)[0]["tunnels"] == 1, "the next one is in a pump")


def test_an_exchange_goes_on_though_its_agent_is_gone(
    shared: Daemon, bots: tuple[ScriptedBot, ScriptedBot]
) -> None:
    """And further requests to the session are refused, while its call goes on."""
    steps, text = Steps(), text_of(shared)

    def slowly(talk: Conversation) -> None:
        talk.sock.sendall(head("200 OK", "Transfer-Encoding: chunked"))
        steps.wait_go()
        talk.sock.sendall(chunk(b"the rest") + b"0\r\n\r\n")

    with as_before(shared), session_on(shared, bots[0]) as held:
        before, held.script = held.script, slowly
        with held.wire() as wire:
            wire.send(held.request())
            assert read_head(wire)[0] == 200
            other = "[agents.other]" + text.partition("[agents.bot]")[2]
            assert reloaded(shared, text.partition("[agents.bot]")[0] + other)
            steps.go()
            assert read_chunk(wire) == b"the rest"
            assert read_chunk(wire) == b""
        with held.wire() as wire:
            assert wire.ask(held.request()).status == 404
        held.script = before
        reloaded(shared, text)
    bots[0].script = Ends()


def test_a_bot_at_work_over_http_is_left_at_it(
    own: Daemon, bots: tuple[ScriptedBot, ScriptedBot]
) -> None:
    steps, text = Steps(), text_of(own)

    def work(talk: Conversation) -> None:
        assert talk.head.startswith(b"POST /bot ")
        steps.wait_go()
        talk.sock.sendall(answer(body=b"{}"))

    bots[0].script = work
    try:
        started = own.request(
            "POST", "/v1/public/bot/start", {}, Authorization=f"Bearer {PUBLIC_KEY}"
        )
        session = started.json()["sessionId"]
        wait_until(lambda: own.session(session)["state"] == "active", "the bot is at work")
        other = "[agents.other]" + text.partition("[agents.bot]")[2]
        reloaded(own, text.partition("[agents.bot]")[0] + other)
        assert own.session(session)["state"] == "active"
        steps.go()
        assert own.wait_ended(session)["cause"] == "bot_completed"
    finally:
        steps.go()
        bots[0].script = Ends()


def test_limits_on_abuse_and_trusted_proxies(daemon: Daemon) -> None:
    text = text_of(daemon)
    changed = text.replace("[limits]", "[limits]\nkey_sessions_per_minute = 1").replace(
        "[server]", '[server]\nproxy_protocol = ["127.0.0.1"]'
    )
    assert reloaded(daemon, changed) == ["server.proxy_protocol", "limits.key_sessions_per_minute"]
    # Refused, and counted before that.
    start = request("POST", "/v1/public/bot/start", BEARER, "Content-Length: 2", body=b"[]")

    def announced() -> int:
        with Wire(daemon.port) as wire:
            wire.send(b"PROXY TCP4 10.0.0.9 10.0.0.1 1000 80\r\n" + start)
            return wire.answer().status

    assert [announced(), announced()] == [400, 429]
    assert reloaded(daemon, changed) == []
    assert announced() == 429, "what was counted is not forgotten"
    reloaded(daemon, text)
    with Wire(daemon.port) as wire:
        assert [wire.ask(start).status for _ in range(3)] == [400] * 3


def test_bots_inherit_no_secret_and_no_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that has held a secret is no bot's, whatever the file says later."""
    secret = "the-token-of-the-admin"
    for name, value in (("ADMIN", secret), ("NOTIFY_SOCKET", "@nobody"), ("PLAIN", "seen")):
        monkeypatch.setenv(name, value)
    nobody = ["http://127.0.0.1:9"]
    with running_daemon(tmp_path, nobody, server='admin_token_env = "ADMIN"') as daemon:
        words = json.dumps([sys.executable, "-S", NAUGHTY_BOT, "--port", "{port}"])
        text = text_of(daemon).replace("admin_token_env", "# admin_token_env")
        reloaded_text = text.replace(f"instances = {json.dumps(nobody)}", f"command = {words}")
        answer = reload(daemon, reloaded_text, Authorization=f"Bearer {secret}")
        assert answer.json()["changed"] == ["server.admin_token", "agents.bot"]
        token = daemon.start_when_free()["token"]
        with call(daemon, token=token):
            (started,) = said(daemon, "bot_started")
            inherited = Path(f"/proc/{started['pid']}/environ").read_bytes()
            names = {line.partition(b"=")[0].decode() for line in inherited.split(b"\0")}
            assert names & {"ADMIN", "NOTIFY_SOCKET", "PLAIN"} == {"PLAIN"}


# Signals.


def test_a_hangup_reloads(daemon: Daemon, bots: tuple[ScriptedBot, ScriptedBot]) -> None:
    daemon.config.write_text(text_of(daemon) + SECOND.format(bots[1].url))
    line = hang_up(daemon)
    assert (line["changed"], line["count"]) == (["agents.second"], 1)
    assert hang_up(daemon)["changed"] == []
    with begin(daemon, "second"):
        pass


def test_a_burst_of_hangups_is_followed_by_the_last_file(daemon: Daemon) -> None:
    before, refused = text_of(daemon), len(said(daemon, "reload_refused"))
    count = len(said(daemon, "reloaded"))
    for number in range(1, 31):
        text = before.replace("[limits]", f"[limits]\nmax_waiting = {number}")
        daemon.config.with_suffix(".new").write_text(text)
        daemon.config.with_suffix(".new").replace(daemon.config)
        signal_daemon(daemon, 1)

    def is_last() -> bool:
        return "max_waiting = 30\n" in daemon.request("GET", "/config", admin=True).body.decode()

    wait_until(is_last, "the last one is in force")
    assert len(said(daemon, "reloaded")) <= count + 30
    assert len(said(daemon, "reload_refused")) == refused


def test_what_was_reloaded_is_what_a_restart_finds(
    own: Daemon, bots: tuple[ScriptedBot, ScriptedBot]
) -> None:
    reloaded(own, text_of(own) + SECOND.format(bots[1].url))
    with begin(own, "second") as began:
        kill_control(own)
        again = restart(own)
        assert echoes(began.ws)
        wait_until(lambda: again.session(began.id)["state"] == "active", "adopted")
        began.ws.close()
        assert again.wait_ended(began.id)["cause"] == "client_closed"
        again.process.end()


# Bad input.


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("[server]", "[server", "line 2, column 8: not TOML"),
        ("[limits]", "[limits]\nmax_waitng = 3", "limits.max_waitng: unknown key"),
        ('organization = "acme"', 'organization = "nobody"', "agents.bot.organization:"),
        ("sqlite:relay.db", "sqlite:other.db", "store.url: found"),
        ('runtime_dir = "run"', 'runtime_dir = "walk"', "server.runtime_dir: found"),
    ],
)
def test_a_wrong_file_changes_nothing(daemon: Daemon, old: str, new: str, line: str) -> None:
    shown = daemon.request("GET", "/config", admin=True).body
    wrong = text_of(daemon).replace(old, new).replace("settle_time = 0.05", "settle_time = 9")
    with begin(daemon) as began:
        answer = reload(daemon, wrong)
        assert answer.status == 409
        assert line in answer.json()["error"]
        refused = hang_up(daemon, "reload_refused")
        assert refused["problems"] == answer.json()["error"].splitlines()
        assert any(line in problem for problem in refused["problems"])
        assert echoes(began.ws)
    assert daemon.request("GET", "/config", admin=True).body == shown


def test_a_file_that_is_gone(daemon: Daemon) -> None:
    daemon.config.unlink()
    answer = post(daemon, "/reload")
    assert (answer.status, answer.json()["error"]) == (409, f"{daemon.config}: no such file")


def test_a_port_that_is_taken(daemon: Daemon) -> None:
    """Nothing is half-applied: no other new listener stays, no other setting changes."""
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_server(("127.0.0.1", 0)) as free,
    ):
        taken, wanted = other.getsockname()[1], free.getsockname()[1]
        free.close()
        binds = f'bind = ["127.0.0.1:0", "127.0.0.1:{wanted}", "127.0.0.1:{taken}"]\nadmin'
        text = text_of(daemon).replace('bind = "127.0.0.1:0"\nadmin', binds)
        answer = reload(daemon, text.replace("[limits]", "[limits]\nmax_waiting = 1"))
    assert answer.status == 409
    assert f"127.0.0.1:{taken} is in use by another process" in answer.json()["error"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", wanted), PATIENCE)
    assert b"max_waiting = 100\n" in daemon.request("GET", "/config", admin=True).body
    assert daemon.start_when_free()


def test_a_place_that_overlaps_one_of_ours(daemon: Daemon) -> None:
    url = f'public_url = "{daemon.url}"\n'
    fixed = text_of(daemon).replace(
        'bind = "127.0.0.1:0"\nadmin', f'{url}bind = "127.0.0.1:{daemon.port}"\nadmin'
    )
    answer = reload(daemon, fixed)
    assert answer.status == 409, "another place than port 0, as far as the file tells"
    assert answer.json()["error"].endswith("listens on 127.0.0.1:0: restart needed")


def test_orders_of_web_pages_are_refused(daemon: Daemon) -> None:
    count = len(said(daemon, "reloaded"))
    for path in ("/reload", "/drain"):
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            body = b'{"node": true, "on": true}'
            answer = daemon.request("POST", path, body, admin=True, Content_Type=kind)
            assert answer.status == 415
        named = post(daemon, path, body, Host="evil.example")
        assert named.status == 403
    assert daemon.request("GET", "/drain", admin=True).json() == {
        "node": False, "agents": [], "instances": []
    }  # fmt: skip
    assert len(said(daemon, "reloaded")) == count


def test_a_hangup_while_the_file_is_read(
    bots: tuple[ScriptedBot, ScriptedBot], tmp_path: Path
) -> None:
    """It may have changed since: it is read again once the daemon serves."""
    file, text = tmp_path / "relay.toml", config_text([bots[0].url])
    os.mkfifo(file)
    process = spawn(["relay", "serve", "--config", str(file)], tmp_path, "relay")
    try:
        with file.open("w") as pipe:  # once the daemon has opened it
            process.popen.send_signal(signal.SIGHUP)
            file.unlink()
            file.write_text(text.replace("[limits]", "[limits]\nmax_waiting = 9"))
            pipe.write(text)
        wait_until(lambda: "limits.max_waiting" in process.errors(), "it is followed")
    finally:
        assert process.end() == 0


def test_while_it_ends_nothing_is_reloaded(own: Daemon) -> None:
    with begin(own) as began:
        signal_daemon(own, 15)
        wait_until(lambda: own.request("GET", "/readyz", admin=True).status == 503, "it drains")
        answer = reload(own, text_of(own).replace('bind = "127', 'bind = "127', 1))
        assert (answer.status, answer.json()["error"]) == (409, "the daemon is about to end")
        signal_daemon(own, 1)
        assert echoes(began.ws), "a hangup is no second order to end"
        began.ws.close()
    assert own.process.popen.wait(PATIENCE) == 0


def test_a_second_daemon_changes_nothing(daemon: Daemon) -> None:
    """It is refused, and a reload of the first one goes on working."""
    second = spawn(["relay", "serve", "--config", str(daemon.config)], daemon.folder, "second")
    assert second.popen.wait(PATIENCE) == 2
    assert "in use by another relay daemon" in second.errors()
    assert reloaded(daemon, text_of(daemon)) == []
