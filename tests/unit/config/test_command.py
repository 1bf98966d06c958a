"""Agents whose bots are started, and lists of ICE servers: what is read, refused and shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from relay.config import Config, effective
from relay.config.agents import OF_COMMAND
from relay.policy.catalog import Agent, IceServer
from tests.helpers.config_file import ORGANIZATION, PRIVATE, PUBLIC, SECRET, ConfigFile

INSTANCES = "instances = ['http://h:1']"
PYTHON = "command = ['python', 'bot.py']"
HERE = str(Path(sys.executable).parent)


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


def agent(lines: str) -> str:
    return f"{ORGANIZATION}\n[agents.bot]\norganization = 'acme'\n{lines}\n"


def bot_of(config: Config) -> Agent:
    return config.catalog.agents["bot"]


# What is read.


def test_the_smallest_command_has_the_documented_defaults(file: ConfigFile) -> None:
    assert bot_of(file.load(agent(PYTHON))) == Agent(
        "bot",
        "acme",
        command=("python", "bot.py"),
        cwd=str(file.directory),
        min_agents=0,
        max_agents=10,
        spare_places=0,
        idle_retirement=300,
        reuse_process=False,
        start_timeout=60,
        stop_timeout=30,
        log_size=1024 * 1024,
    )


def test_all_keys_of_a_command_reach_their_values(file: ConfigFile) -> None:
    (file.directory / "bots").mkdir()
    lines = """
    command = ["sh", "-c", "exec bot --port {port}"]
    cwd = "bots"
    env = { B = "2", A = "ü=1", EMPTY = "" }
    min_agents = 2
    max_agents = 3
    spare_places = 12
    idle_retirement = 1
    reuse_process = true
    sessions_per_instance = 4
    start_timeout = 1
    stop_timeout = 1.5
    log_size = 4096
    """
    assert bot_of(file.load(agent(lines))) == Agent(
        "bot",
        "acme",
        command=("sh", "-c", "exec bot --port {port}"),
        cwd=str(file.directory / "bots"),
        env=(("B", "2"), ("A", "ü=1"), ("EMPTY", "")),
        min_agents=2,
        max_agents=3,
        spare_places=12,
        idle_retirement=1,
        reuse_process=True,
        sessions_per_instance=4,
        start_timeout=1,
        stop_timeout=1.5,
        log_size=4096,
    )


@pytest.mark.parametrize(
    ("lines", "spare"),
    [
        ("min_agents = 3", 3),
        ("min_agents = 3\nspare_places = 0", 0),
        ("min_agents = 3\nspare_places = 1", 1),
        ("spare_places = 10", 10),
    ],
)
def test_who_wants_bots_to_be_there_wants_spare_ones(
    file: ConfigFile, lines: str, spare: int
) -> None:
    assert bot_of(file.load(agent(f"{PYTHON}\n{lines}"))).spare_places == spare


@pytest.mark.parametrize("command", ["./bot", "inside/bot", "{folder}/bot", "bot"])
def test_where_a_program_is_looked_for(file: ConfigFile, command: str) -> None:
    """A path is relative to cwd, which is the file's directory; a name is on the PATH."""
    (file.directory / "inside").mkdir()
    for place in (".", "inside"):
        program = file.directory / place / "bot"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o700)
    words = command.format(folder=file.directory)
    config = file.load(agent(f"command = ['{words}']"), {"PATH": f"/none:{file.directory}"})
    assert bot_of(config).command == (words,)


def test_a_program_on_the_path_of_the_bots_own_environment(file: ConfigFile) -> None:
    """A name is looked for there when the bot is started, since its environment wins."""
    program = file.directory / "own-bot"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    lines = f"command = ['own-bot']\nenv = {{ PATH = '{file.directory}' }}"
    assert bot_of(file.load(agent(lines))).command == ("own-bot",)


def test_the_interpreters_directory_comes_first(file: ConfigFile) -> None:
    """So `python` is the one that runs the daemon, wherever it was started from."""
    config = file.load(agent(PYTHON), {"PATH": "/usr/local/bin:/bin", "HOME": "/home/acme"})
    assert config.bot_environment == {
        "PATH": f"{HERE}:/usr/local/bin:/bin",
        "HOME": "/home/acme",
    }
    assert file.load(agent(PYTHON)).bot_environment == {"PATH": f"{HERE}:{os.defpath}"}


# What is refused.


@pytest.mark.parametrize(
    ("lines", "where", "expected"),
    [
        ("command = []", "command", "expected a program and its arguments, such as"),
        ("command = ['']", "command", "expected a program and its arguments"),
        ("command = ['python', '']", "command", "expected a program and its arguments"),
        ('command = ["python", "a\\u0000b"]', "command", "expected a program and its arguments"),
        ("command = ['no-such']", "command[0]", 'found "no-such", expected a program on the PATH'),
        ("command = ['./no']", "command[0]", 'found "./no", expected a program that can be run'),
        ("command = ['./text']", "command[0]", 'found "./text", expected a program that can be'),
        ("command = ['./inside']", "command[0]", 'found "./inside", expected a program that can'),
        ("command = ['/no/such']", "command[0]", 'found "/no/such", expected a program that ca'),
        ("cwd = 'nowhere'", "cwd", 'no such directory: "/'),
        ("cwd = 'text'", "cwd", 'no such directory: "/'),
        ("cwd = 5", "cwd", "found 5 (an integer), expected a string"),
        ("env = { 'A B' = 'x' }", 'env."A B"', "expected the name of a variable and a text"),
        ("env = { '' = 'x' }", 'env.""', "expected the name of a variable and a text"),
        ("env = { '1A' = 'x' }", "env.1A", "expected the name of a variable and a text"),
        ("env = { 'A=B' = 'x' }", 'env."A=B"', "expected the name of a variable and a text"),
        ('env = { A = "x\\u0000" }', "env.A", "expected the name of a variable and a text"),
        ("env = { A = 5 }", "env", "found a table, expected a table of strings"),
        ("env = ['A=x']", "env", "found a list, expected a table of strings"),
        ("max_agents = 0", "max_agents", "found 0 (an integer), expected an integer from 1 to"),
        ("max_agents = 10001", "max_agents", "found 10001 (an integer), expected an integer fr"),
        ("max_agents = 1.5", "max_agents", "found 1.5 (a float), expected an integer from 1"),
        ("reuse_process = 1", "reuse_process", "found 1 (an integer), expected true or false"),
        ("start_timeout = 0.5", "start_timeout", "found 0.5 (a float), expected a number of sec"),
        ("start_timeout = 3601", "start_timeout", "found 3601 (an integer), expected a number"),
        ("stop_timeout = 0", "stop_timeout", "found 0 (an integer), expected a number of sec"),
        ("stop_timeout = inf", "stop_timeout", "found inf (a float), expected a number of sec"),
        ("stop_timeout = nan", "stop_timeout", "found nan (a float), expected a number of sec"),
        ("log_size = 4095", "log_size", "found 4095 (an integer), expected an integer of bytes"),
        ("log_size = 1073741825", "log_size", "found 1073741825 (an integer), expected an in"),
        ("sessions_per_instance = 2", "sessions_per_instance", "more than 1 with a process for"),
        (
            "sessions_per_instance = 2\nreuse_process = false",
            "sessions_per_instance",
            "more than 1 with a process for each session, expected reuse_process = true",
        ),
        ("min_agents = 1.5", "min_agents", "found 1.5 (a float), expected an integer from 0"),
        ("min_agents = -1", "min_agents", "found -1 (an integer), expected an integer from 0 to"),
        ("min_agents = 11", "min_agents", "found 11, expected at most max_agents, 10"),
        ("min_agents = 3\nmax_agents = 2", "min_agents", "found 3, expected at most max_agents"),
        ("spare_places = 11", "spare_places", "found 11, expected at most the places of max_a"),
        ("spare_places = -1", "spare_places", "found -1 (an integer), expected an integer from"),
        ("idle_retirement = 0", "idle_retirement", "found 0 (an integer), expected a number of"),
        ("idle_retirement = inf", "idle_retirement", "found inf (a float), expected a number"),
    ],
)
def test_commands_that_cannot_be_used(
    file: ConfigFile, lines: str, where: str, expected: str
) -> None:
    (file.directory / "text").write_text("no program")
    (file.directory / "inside").mkdir()
    text = lines if lines.startswith("command") else f"{PYTHON}\n{lines}"
    (line,) = file.problems(agent(text))
    assert line.startswith(f"agents.bot.{where}: {expected}")


@pytest.mark.parametrize(
    ("lines", "where", "expected"),
    [
        ("command = 'python bot.py'", "command", 'found "python bot.py" (a string), expected a l'),
        ("command = ['python', 5]", "command[1]", "found 5 (an integer), expected a string"),
    ],
)
def test_commands_of_a_wrong_type(file: ConfigFile, lines: str, where: str, expected: str) -> None:
    (line,) = file.problems(agent(lines))
    assert line.startswith(f"agents.bot.{where}: {expected}")


def test_values_of_the_environment_are_not_shown(file: ConfigFile) -> None:
    for value in (f"'{SECRET}\\u0000'", f"['{SECRET}']"):
        (line,) = file.problems(agent(f"{PYTHON}\nenv = {{ KEY = {value} }}".replace("'", '"')))
        assert SECRET not in line


@pytest.mark.parametrize("key", OF_COMMAND)
def test_keys_of_a_command_need_one(file: ConfigFile, key: str) -> None:
    values = {"cwd": "'.'", "env": "{}", "reuse_process": "false", "log_size": "4096"}
    (line,) = file.problems(agent(f"{INSTANCES}\n{key} = {values.get(key, '5')}"))
    assert line == f"agents.bot.{key}: only for bots that are started with command"


def test_instances_and_command_exclude_each_other(file: ConfigFile) -> None:
    for instances in (INSTANCES, "instances = []"):
        (line,) = file.problems(agent(f"{PYTHON}\n{instances}"))
        assert line == (
            "agents.bot.instances: given together with command, expected exactly one of the two"
        )


# What is shown, and to whom.


def test_effective_shows_what_belongs_to_a_command(file: ConfigFile) -> None:
    lines = f"{PYTHON}\nenv = {{ KEY = '{SECRET}', 'NAME' = '' }}\nmax_agents = 3"
    config = file.load(agent(lines))
    shown = effective(config).splitlines()
    assert 'command = ["python", "bot.py"]' in shown
    assert f'cwd = "{file.directory}"' in shown
    assert "env = { KEY = (32 characters), NAME = (0 characters) }" in shown
    assert "max_agents = 3" in shown
    assert not any(line.startswith("instances = ") for line in shown)
    assert SECRET not in repr(config)
    assert "env = {}" in effective(file.load(agent(PYTHON))).splitlines()


def test_effective_of_instances_does_not_speak_of_commands(file: ConfigFile) -> None:
    shown = effective(file.load(agent(INSTANCES))).splitlines()
    assert 'instances = ["http://h:1"]' in shown
    assert not any(line.startswith(("command = ", *OF_COMMAND)) for line in shown)


def test_secrets_of_the_environment_are_not_the_bots(file: ConfigFile) -> None:
    """Whichever key takes one; a variable that nobody named is inherited."""
    text = f"""
    [server]
    admin_token_env = "ADMIN"
    [organizations.acme]
    public_keys_env = "PUBLIC"
    private_keys_env = "PRIVATE"
    token_keys = [{{ id = "a", secret_env = "TOKENS" }}]
    [agents.bot]
    organization = "acme"
    {PYTHON}
    ice_servers = [{{ urls = ["turn:h:3478"], credential_env = "TURN" }}]
    """
    secrets = {
        "ADMIN": "admin-token-of-acme",
        "PUBLIC": PUBLIC,
        "PRIVATE": PRIVATE,
        "TOKENS": SECRET,
        "TURN": "turn-credential",
    }
    config = file.load(text, secrets | {"OPENAI_API_KEY": "of the bot", "PATH": "/bin"})
    assert config.bot_environment == {"OPENAI_API_KEY": "of the bot", "PATH": f"{HERE}:/bin"}
    assert "of the bot" not in repr(config)


# ICE servers.


def test_ice_servers_are_read(file: ConfigFile) -> None:
    (file.directory / "turn").write_text("from a file\n")
    lines = f"""
    {INSTANCES}
    ice_servers = [
      {{ urls = ["stun:stun.example.com", "stuns:h:5349"] }},
      {{ urls = ["turn:h:3478?transport=udp"], username = "u", credential = "c" }},
      {{ urls = ["turns:[::1]:5349?transport=tcp"], username = "u", credential_env = "TURN" }},
      {{ urls = ["turn:h"], credential_file = "turn" }},
    ]
    """
    config = file.load(agent(lines), {"TURN": "from the environment"})
    assert bot_of(config).ice_servers == (
        IceServer(("stun:stun.example.com", "stuns:h:5349")),
        IceServer(("turn:h:3478?transport=udp",), "u", "c"),
        IceServer(("turns:[::1]:5349?transport=tcp",), "u", "from the environment"),
        IceServer(("turn:h",), credential="from a file"),
    )
    shown = effective(config)
    assert '{ urls = ["stun:stun.example.com", "stuns:h:5349"] }, ' in shown
    assert 'username = "u", credential = (20 characters) }' in shown
    for text in (shown, repr(config)):
        assert "from the environment" not in text
        assert "from a file" not in text


@pytest.mark.parametrize(
    ("server", "where", "expected"),
    [
        ("{}", ".urls", "not given, expected a list such as"),
        ("{ urls = [] }", ".urls", "not given, expected a list such as"),
        ("{ urls = 'stun:h' }", ".urls", 'found "stun:h" (a string), expected a list of at most'),
        ("{ urls = [5] }", ".urls[0]", "found 5 (an integer), expected a string"),
        ("{ urls = ['stun:h', 'h:3478'] }", ".urls[1]", 'found "h:3478" (a string), expected a'),
        ("{ urls = ['http://h'] }", ".urls[0]", 'found "http://h" (a string), expected a text'),
        ("{ urls = ['stun:'] }", ".urls[0]", 'found "stun:" (a string), expected a text such'),
        ("{ urls = ['turn:h?transport=sctp'] }", ".urls[0]", 'found "turn:h?transport=sctp" (a'),
        ("{ urls = ['turn:h 1'] }", ".urls[0]", 'found "turn:h 1" (a string), expected a text'),
        ("{ urls = ['stun:h'], user = 'u' }", ".user", 'unknown key; did you mean "username"?'),
        ("{ urls = ['stun:h'], credential = 5 }", ".credential", "found an integer, expected a"),
        (
            "{ urls = ['stun:h'], credential_env = 'NOPE' }",
            ".credential_env",
            "the environment variable NOPE is not set",
        ),
        (
            "{ urls = ['stun:h'], credential_file = 'nope' }",
            ".credential_file",
            "cannot read",
        ),
        (
            "{ urls = ['stun:h'], credential = 'hunter2', credential_env = 'X' }",
            ".credential",
            "given 2 times, expected only one of",
        ),
    ],
)
def test_ice_servers_that_cannot_be_used(
    file: ConfigFile, server: str, where: str, expected: str
) -> None:
    (line,) = file.problems(agent(f"{INSTANCES}\nice_servers = [{server}]"))
    assert line.startswith(f"agents.bot.ice_servers[0]{where}: {expected}")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("value", "where", "expected"),
    [
        ("'stun:h'", "", "found a string, expected a list of tables"),
        ("['turn:hunter2']", "[0]", "found a string, expected a table"),
    ],
)
def test_lists_of_ice_servers_that_are_none(
    file: ConfigFile, value: str, where: str, expected: str
) -> None:
    (line,) = file.problems(agent(f"{INSTANCES}\nice_servers = {value}"))
    assert line == f"agents.bot.ice_servers{where}: {expected}"
