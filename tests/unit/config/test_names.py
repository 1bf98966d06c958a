"""Instances that are names: their forms, and how they are looked up."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config import effective
from relay.policy.catalog import DnsName
from tests.helpers.config_file import ORGANIZATION, ConfigFile


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


def agent(lines: str, name: str = "bot") -> str:
    return f"[agents.{name}]\norganization = 'acme'\n{lines}\n"


@pytest.mark.parametrize(
    ("given", "normal", "name"),
    [
        ("dns+http://bots:7860", "dns+http://bots:7860", DnsName("bots", 7860)),
        ("DNS+HTTP://Bots.Local:07860/", "dns+http://bots.local:7860", DnsName("bots.local", 7860)),
        ("dns+http://bots.ns.svc.:80", "dns+http://bots.ns.svc.:80", DnsName("bots.ns.svc.", 80)),
        ("dns+srv+http://_http._tcp.bots", "dns+srv+http://_http._tcp.bots",
         DnsName("_http._tcp.bots")),
        ("dns+srv+http://bots.service.consul.", "dns+srv+http://bots.service.consul.",
         DnsName("bots.service.consul.")),
    ],
)  # fmt: skip
def test_names_have_one_spelling(file: ConfigFile, given: str, normal: str, name: DnsName) -> None:
    config = file.load(ORGANIZATION + agent(f"instances = ['{given}', 'http://127.0.0.1:1']"))
    assert config.catalog.agents["bot"].instances == (normal, "http://127.0.0.1:1")
    assert DnsName.of(normal) == name
    assert DnsName.of("http://127.0.0.1:1") is None


@pytest.mark.parametrize(
    "entry",
    [
        "dns+http://bots",
        "dns+http://:80",
        "dns+http://bots:",
        "dns+http://bots:x",
        "dns+http://bots:80/ws",
        "dns+http://bots:80?x",
        "dns+http://127.0.0.1:80",
        "dns+http://[::1]:80",
        "dns+http://a..b:80",
        "dns+http://.:80",
        "dns+http://-a:80",
        f"dns+http://{'a' * 64}:80",
        "dns+http://u:hunter2@bots:80",
        "dns+https://bots",
        "dns+srv+http://bots:80",
        "dns+srv+http://",
        "dns+srv+https://bots:80",
        "dns+srv+ftp://bots",
        "dns+ftp://bots:80",
    ],
)
def test_names_refuse_other_forms(file: ConfigFile, entry: str) -> None:
    (line,) = file.problems(ORGANIZATION + agent(f"instances = ['{entry}']"))
    assert line.startswith("agents.bot.instances[0]: ")
    assert 'expected "dns+http://name:port" for addresses, or "dns+srv+http://name" for' in line
    assert "hunter2" not in line


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_ports_that_cannot_be(file: ConfigFile, port: str) -> None:
    (line,) = file.problems(ORGANIZATION + agent(f"instances = ['dns+http://bots:{port}']"))
    assert line.endswith("expected a port from 1 to 65535")


def test_a_name_stands_in_the_file_once(file: ConfigFile) -> None:
    bots = agent("instances = ['dns+http://bots:80']")
    (line,) = file.problems(ORGANIZATION + bots + bots.replace("agents.bot", "agents.other"))
    assert line.startswith("agents.other.instances[0]: the same bot as agents.bot.instances[0]")


@pytest.mark.parametrize(
    ("given", "server"),
    [
        ("127.0.0.1:8600", "127.0.0.1:8600"),
        ("10.0.0.10", "10.0.0.10:53"),
        ("[fd00::53]:53", "[fd00::53]:53"),
        ("[::1]", "[::1]:53"),
    ],
)
def test_name_servers(file: ConfigFile, given: str, server: str) -> None:
    lines = f"instances = ['dns+http://bots:80']\ndns_server = '{given}'\ndns_interval = 30"
    config = file.load(ORGANIZATION + agent(lines))
    bot = config.catalog.agents["bot"]
    assert (bot.dns_server, bot.dns_interval) == (server, 30.0)
    assert f'dns_server = "{server}"\ndns_interval = 30\n' in effective(config)


@pytest.mark.parametrize("given", ["consul:8600", "127.0.0.1:0", "", "::1", "udp://127.0.0.1"])
def test_name_servers_are_addresses(file: ConfigFile, given: str) -> None:
    lines = f"instances = ['dns+http://bots:80']\ndns_server = '{given}'"
    (line,) = file.problems(ORGANIZATION + agent(lines))
    assert line.startswith("agents.bot.dns_server: ")
    assert line.endswith('expected the address of a name server, such as "127.0.0.1:8600"')


@pytest.mark.parametrize("key", ["dns_server = '127.0.0.1:53'", "dns_interval = 5"])
@pytest.mark.parametrize("bots", ["instances = ['http://h:1']", "command = ['true']"])
def test_keys_of_names_need_one(file: ConfigFile, key: str, bots: str) -> None:
    (line,) = file.problems(ORGANIZATION + agent(f"{bots}\n{key}"))
    name = key.partition(" ")[0]
    assert line == f"agents.bot.{name}: only for instances that are found through DNS"


def test_what_is_shown_without_names(file: ConfigFile) -> None:
    assert "dns_" not in effective(file.load(ORGANIZATION + agent("instances = ['http://h:1']")))
    shown = effective(file.load(ORGANIZATION + agent("instances = ['dns+http://h:1']")))
    assert "dns_server = # derived\ndns_interval = 5\n" in shown
