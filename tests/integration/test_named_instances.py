"""A daemon that finds its bots through DNS: a real name server, bots on addresses of loopback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dns.rcode
import pytest

from tests.helpers.daemon import (
    Daemon,
    config_text,
    end_pumps,
    running_daemon,
    start_daemon,
    wait_until,
)
from tests.helpers.name_server import NameServer, name_server
from tests.helpers.scripted_bot import ScriptedBot, scripted_bot
from tests.helpers.wire import call, echoes, keeps_secrets, live, refused, serves, token_for

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
AGENTS = """
dns_server = "{server}"
dns_interval = 1
[agents.both]
organization = "acme"
instances = ["dns+http://both.test:{port}", "dns+srv+http://_http._tcp.both.test"]
dns_server = "{server}"
dns_interval = 1
attach_timeout = 1
settle_time = 0
[agents.system]
organization = "acme"
instances = ["dns+http://localhost:{local}"]
settle_time = 0
"""
CAPABILITIES = (
    b'{"version":1,"capabilities":{"transport.daily":{"available":false,"reason":"none"}}}'
)


class Stage:
    """A name server, bots on one port of several addresses, a daemon that knows them by name."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.names: NameServer = stack.enter_context(name_server())
        first = stack.enter_context(scripted_bot(HOSTS[0]))
        self.port = first.port
        rest = [stack.enter_context(scripted_bot(host, self.port)) for host in HOSTS[1:]]
        self.bots: dict[str, ScriptedBot] = dict(zip(HOSTS, [first, *rest], strict=True))
        local = stack.enter_context(scripted_bot())
        self.point("bots.test", HOSTS[:2])
        self.point("both.test", HOSTS[2:])
        self.names.table["_http._tcp.both.test", "SRV"] = [f"0 0 {self.port} both.test."]
        agents = AGENTS.format(server=self.names.address, port=self.port, local=local.port)
        entries = [f"dns+http://bots.test:{self.port}"]
        self.daemon: Daemon = stack.enter_context(running_daemon(folder, entries, agents))

    def point(self, name: str, hosts: tuple[str, ...]) -> None:
        self.names.table[name, "A"] = list(hosts)

    def instances(self, agent: str = "bot") -> dict[str, Any]:
        answer = self.daemon.request("GET", "/instances", admin=True)
        assert answer.status == 200
        found: dict[str, Any] = answer.json()[agent]
        return found

    def until_ready(self, *hosts: str, agent: str = "bot") -> None:
        """Wait until these addresses, and no others, are ready."""
        expected = {self.url(host) for host in hosts}

        def ready() -> bool:
            shown = self.instances(agent)
            return expected == {
                url for url, each in shown.items() if url.startswith("http:")
            } and all(shown[url]["state"] == "ready" for url in expected)

        wait_until(ready, f"{hosts} are ready; {self.instances(agent)}")

    def url(self, host: str) -> str:
        return f"http://{host}:{self.port}"

    def where(self, agent: str = "bot") -> str:
        """The instance of one call, which echoes and ends."""
        started = self.daemon.start_when_free(agent)
        with call(self.daemon, f"/ws/generic/{agent}.acme", started["token"]) as ws:
            assert echoes(ws)
        ended = self.daemon.wait_ended(started["sessionId"])
        return str(ended["instance"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        stage = Stage(stack, tmp_path_factory.mktemp("relay"))
        yield stage
        keeps_secrets(stage.daemon)


@pytest.fixture(autouse=True)
def as_before(stage: Stage) -> Iterator[None]:
    """Each test begins and ends with two bots that are ready."""
    stage.until_ready(*HOSTS[:2])
    yield
    stage.names.rcode = dns.rcode.NOERROR
    stage.point("bots.test", HOSTS[:2])
    stage.until_ready(*HOSTS[:2])
    wait_until(lambda: not live(stage.daemon), "no session is live")


def test_calls_go_to_every_address_of_a_name(stage: Stage) -> None:
    assert {stage.where() for _ in range(2)} == {stage.url(host) for host in HOSTS[:2]}


def test_a_call_goes_on_at_an_address_that_has_left(stage: Stage) -> None:
    started = stage.daemon.start_when_free()
    with call(stage.daemon, token=started["token"]) as ws:
        assert echoes(ws)
        held = stage.daemon.session(started["sessionId"])["instance"]
        left = next(host for host in HOSTS[:2] if stage.url(host) != held)
        stage.point("bots.test", (left, HOSTS[2]))
        stage.until_ready(left)  # the other one is another agent's, which keeps it
        assert {stage.where() for _ in range(3)} == {stage.url(left)}
        assert echoes(ws)
    assert stage.daemon.wait_ended(started["sessionId"])["cause"] == "client_closed"


def test_a_name_server_that_fails_changes_nothing(stage: Stage) -> None:
    entry = f"dns+http://bots.test:{stage.port}"
    stage.names.rcode = dns.rcode.SERVFAIL
    wait_until(lambda: stage.instances()[entry]["failing"], "a look has failed")
    asked = len(stage.names.asked)
    assert {stage.where() for _ in range(2)} == {stage.url(host) for host in HOSTS[:2]}
    wait_until(lambda: len(stage.names.asked) > asked, "it is asked again")
    lines = [each for each in stage.daemon.logs() if each["event"] == "dns_failed"]
    assert len([each for each in lines if each["entry"] == entry]) == 1
    assert "SERVFAIL" in stage.instances()[entry]["state"]
    stage.names.rcode = dns.rcode.NOERROR
    wait_until(lambda: not stage.instances()[entry]["failing"], "the name is known again")


def test_a_name_without_addresses_has_no_bot(stage: Stage) -> None:
    stage.point("bots.test", ())
    stage.until_ready()
    answer = stage.daemon.start()
    body = refused(stage.daemon, answer, 400, "not_ready")
    assert body["code"] == "PCC-1001"
    stage.point("bots.test", HOSTS[:1])
    stage.until_ready(HOSTS[0])
    assert stage.where() == stage.url(HOSTS[0])


def test_an_instance_that_two_names_have_holds_one_session(stage: Stage) -> None:
    stage.until_ready(HOSTS[2], agent="both")
    shown = stage.instances("both")[stage.url(HOSTS[2])]
    assert len(shown["foundBy"]) == 2
    route = "/ws/generic/both.acme"
    with call(stage.daemon, route, token_for("both.acme")) as ws:
        assert echoes(ws)
        answer = stage.daemon.request(
            "GET",
            route,
            Authorization=f"Bearer {token_for('both.acme')}",
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAA==",
        )
        refused(stage.daemon, answer, 503, "at_capacity")
    assert stage.where("both") == stage.url(HOSTS[2])


def test_capabilities_are_shown(stage: Stage) -> None:
    bot, url = stage.bots[HOSTS[1]], stage.url(HOSTS[1])
    assert stage.instances()[url]["capabilities"] is None
    bot.capabilities = CAPABILITIES
    stage.point("bots.test", HOSTS[:1])
    stage.until_ready(HOSTS[0])
    stage.point("bots.test", HOSTS[:2])

    def told() -> Any:
        return stage.instances().get(url, {}).get("capabilities")

    known = wait_until(told, "the bot has been asked")
    assert known == {"transport.daily": {"available": False, "reason": "none"}}
    bot.capabilities = b""


def test_the_system_resolver_is_asked_where_no_server_is_named(stage: Stage) -> None:
    serves(stage.daemon, "system")


def test_a_call_at_a_named_instance_outlives_the_control_process(
    stage: Stage, tmp_path: Path
) -> None:
    """Its lease is known before the name is: the instance is not given to another caller."""
    with scripted_bot("127.0.0.5") as bot, ExitStack() as stack:
        stage.point("kept.test", ("127.0.0.5",))
        agent = f'dns_server = "{stage.names.address}"'
        config = config_text([f"dns+http://kept.test:{bot.port}"], agent)
        first = start_daemon(tmp_path, config)
        stack.callback(end_pumps, first)
        stack.callback(first.process.end, signal.SIGKILL)
        with call(first, token=first.start_when_free()["token"]) as ws:
            assert echoes(ws)
            first.process.end(signal.SIGKILL)
            second = start_daemon(tmp_path, config, "second")
            stack.callback(second.process.end)
            wait_until(lambda: _found(second, bot), "the name has been looked up")
            assert second.start().status == 429
            assert echoes(ws)
        second.start_when_free()


def _found(daemon: Daemon, bot: ScriptedBot) -> bool:
    return bot.url in daemon.request("GET", "/instances", admin=True).json()["bot"]
