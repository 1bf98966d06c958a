"""Bots that speak TLS: what goes through it, and which of them are not believed."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.daemon import Daemon, config_text, running_daemon, wait_until
from tests.helpers.ends import Ends, begin, close_seen, is_quiet, nothing_is_held
from tests.helpers.scripted_bot import Conversation, ScriptedBot, scripted_bot
from tests.helpers.scripted_http import answer, echo, head, session_on
from tests.helpers.side_tunnels import SideBot, over_http, over_websocket
from tests.helpers.tls import LAST_YEAR, LONG_AGO, Authority
from tests.helpers.upgrades import end_node, upgrade, wait_alone
from tests.helpers.wire import Wire, call, echoes, keeps_secrets, stop

MIB = 1024 * 1024
AGENT = """
sessions_per_instance = 20
stopping_time = 0
bot_ca = "{ca}"
[agents.stranger]
organization = "acme"
instances = ["{stranger}"]
attach_timeout = 1
bot_ca = "{ca}"
[agents.expired]
organization = "acme"
instances = ["{expired}"]
bot_ca = "{ca}"
[agents.elsewhere]
organization = "acme"
instances = ["{elsewhere}"]
bot_ca = "{ca}"
[agents.named]
organization = "acme"
instances = ["{named}"]
bot_ca = "{ca}"
bot_name = "bots.example"
[agents.plain]
organization = "acme"
instances = ["{plain}"]
"""


def speaking(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


Bots = dict[str, ScriptedBot]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def bots(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bots]:
    """One that is who it should be, and others."""
    other = Authority(tmp_path_factory.mktemp("other"))
    certificates = {
        "bot": authority.issue("bot"),
        "stranger": other.issue("stranger"),
        "expired": authority.issue("expired", since=LONG_AGO, until=LAST_YEAR),
        "elsewhere": authority.issue("elsewhere", "elsewhere.example"),
        "named": authority.issue("named", "bots.example"),
        "plain": authority.issue("plain"),
    }
    with ExitStack() as opened:
        yield {
            name: opened.enter_context(scripted_bot(tls=speaking(path)))
            for name, path in certificates.items()
        }


@pytest.fixture(scope="module")
def daemon(
    authority: Authority, bots: Bots, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("relay")
    urls = {name: each.url for name, each in bots.items()}
    urls["plain"] = urls["plain"].replace("https", "http")
    agents = AGENT.format(ca=authority.pem, **urls)
    with running_daemon(folder, [urls["bot"]], agents, "close_timeout = 1") as daemon:
        yield daemon
        nothing_is_held(daemon)
        is_quiet(daemon)
        keeps_secrets(daemon)


@pytest.mark.parametrize("agent", ["bot", "named"])
def test_a_call(daemon: Daemon, bots: Bots, agent: str) -> None:
    bots[agent].script = ends = Ends()
    with begin(daemon, agent) as began:
        assert echoes(began.ws, "Grüße" * 2000)
        began.ws.close(4000, "bye")
    assert ends.next() == (4000, "bye")
    assert daemon.wait_ended(began.id)["closeCode"] == 4000


def test_how_calls_end(daemon: Daemon, bots: Bots) -> None:
    bots["bot"].script = ends = Ends()
    began = begin(daemon)
    stop(daemon, began.id)
    assert close_seen(began.ws) == (1001, "stopped")
    assert ends.next() == (1001, "stopped")

    # An end of TLS is one between frames; without it the bot is lost.
    for told, code in ((True, 1000), (False, 1011)):

        def script(talk: Conversation, told: bool = told) -> None:
            accepted = f"Sec-WebSocket-Accept: {talk.accept_key().decode()}\r\n\r\n"
            upgraded = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            talk.sock.sendall(f"{upgraded}Connection: Upgrade\r\n{accepted}".encode())
            talk.sock.recv(100)
            if told:
                assert isinstance(talk.sock, ssl.SSLSocket)
                talk.sock.settimeout(0.2)
                try:
                    talk.sock.unwrap()
                except OSError:
                    pass  # the other side's part comes when it closes

        bots["bot"].script = script
        started = daemon.start_when_free()
        with call(daemon, token=started["token"]) as ws:
            ws.send("go")
            assert close_seen(ws)[0] == code
        daemon.wait_ended(started["sessionId"])


def test_requests_and_a_side_tunnel(daemon: Daemon, bots: Bots) -> None:
    bot = bots["bot"]
    with session_on(daemon, bot) as held, held.wire() as wire:
        held.script = echo
        for size in (0, 16385, 3 * MIB):
            body = bytes(range(256)) * (size // 256) + bytes(size % 256)
            got = wire.ask(held.request("POST", "/x", f"Content-Length: {size}", body=body))
            assert (got.status, got.body == body) == (200, True), size
    bot.script = script = SideBot()
    carried = over_websocket(daemon, script)
    assert echoes(carried.side())
    assert carried.goes_on()
    carried.end()


def test_a_connection_to_the_bot_is_used_again(daemon: Daemon, bots: Bots) -> None:
    def several(talk: Conversation) -> None:
        for number in range(3):
            talk.sock.sendall(answer(body=b"%d" % number))
            if number < 2:
                talk.sock.recv(65536)

    with session_on(daemon, bots["bot"]) as held, held.wire() as wire:
        held.script = several
        assert [wire.ask(held.request()).body for _ in range(3)] == [b"0", b"1", b"2"]


def test_an_answer_whose_end_is_not_told_is_cut_off(daemon: Daemon, bots: Bots) -> None:
    with session_on(daemon, bots["bot"]) as held:
        held.script = lambda talk: talk.sock.sendall(head("200 OK") + b"not all of it")
        with Wire(daemon.port) as wire:
            wire.send(held.request())
            assert wire.rest().endswith(b"\r\nd\r\nnot all of it\r\n")  # without the last chunk


def test_a_session_over_http(daemon: Daemon, bots: Bots) -> None:
    bots["bot"].script = script = SideBot()
    for end in ("the bot", "a stop"):
        held = over_http(daemon, script)
        assert echoes(held.side())
        if end == "a stop":
            stop(daemon, held.id)
            wait_until(lambda held=held: is_closed(script.held[held.id]), "its bot sees the end")
            assert daemon.wait_ended(held.id)["cause"] == "stopped"
        else:
            held.end()
            assert daemon.session(held.id)["endState"] == "completed"


def is_closed(sock: socket.socket) -> bool:
    return sock.fileno() < 0


@pytest.mark.parametrize(
    ("agent", "why"),
    [
        ("stranger", "no TLS: unable to get local issuer certificate"),
        ("expired", "no TLS: certificate has expired"),
        ("elsewhere", "no TLS: IP address mismatch, certificate is not valid for '127.0.0.1'."),
    ],
)
def test_who_is_not_believed_gets_no_call(daemon: Daemon, bots: Bots, agent: str, why: str) -> None:
    def state() -> str:
        status = daemon.request("GET", "/status", admin=True).json()
        return str(next(each for each in status["instances"] if each["agent"] == agent)["state"])

    wait_until(lambda: state() == why, f"{why}; {state()}")
    assert daemon.start(agent).status == 400
    assert bots[agent].conversations == []


def test_tls_where_http_was_expected(daemon: Daemon) -> None:
    assert daemon.start("plain").status == 400


def test_a_restart_in_place(authority: Authority, bots: Bots, tmp_path: Path) -> None:
    bot = bots["bot"]
    bot.script = script = SideBot()
    text = config_text([bot.url], f'sessions_per_instance = 20\nbot_ca = "{authority.pem}"')
    with running_daemon(tmp_path, [bot.url], text.partition("settle_time = 0.05")[2]) as daemon:
        call, start = over_websocket(daemon, script), over_http(daemon, script)
        upgrade(daemon)
        assert call.goes_on()
        assert start.goes_on()
        call.end()
        assert start.goes_on()
        start.end()
        assert daemon.session(start.id)["endState"] == "completed"
        wait_alone(daemon)
        end_node(daemon)
