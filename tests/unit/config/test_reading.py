"""Types, ranges and unknown keys: each wrong value is one line that says what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config.reading import key_types
from relay.config.tables import LimitsTable
from tests.helpers.config_file import SMALLEST, ConfigFile


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


def server(lines: str) -> str:
    return f"[server]\n{lines}\n{SMALLEST}"


# Types, ranges, unknown keys


def test_a_line_says_what_was_found_and_expected(file: ConfigFile) -> None:
    assert file.problems(server('pumps = "two"')) == [
        'server.pumps: found "two" (a string), expected an integer from 1 to 64'
    ]


# Limits that are off at 0.
MAY_BE_OFF = (
    "max_connections_per_address",
    "key_sessions_per_minute",
    "address_sessions_per_minute",
    "address_refusals_per_minute",
    "close_spread",
)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("true", "true (a boolean)"),
        ("1.0", "1.0 (a float)"),
        ("0", "0 (an integer)"),
        ("65", "65 (an integer)"),
        (f"0x{'f' * 5000}", "a very large integer"),
        ("[1]", "a list"),
        ("{}", "a table"),
        ("2026-11-21", "a date"),
        ("12:00:00", "a time"),
        (r'"a\n\u001b[2Jb"', r'"a\n\u001b[2Jb" (a string)'),
        (f'"{"x" * 100}"', f'"{"x" * 60}…" (a string)'),
    ],
)
def test_found_values_are_described(file: ConfigFile, value: str, found: str) -> None:
    (line,) = file.problems(server(f"pumps = {value}"))
    assert line == f"server.pumps: found {found}, expected an integer from 1 to 64"


def test_everything_wrong_is_said_at_once(file: ConfigFile) -> None:
    text = """
    colour = 1
    [server]
    pumps = 0
    log_level = "loud"
    log_format = "xml"
    [limits]
    close_timeout = "5"
    [agents.bot]
    organization = "acme"
    ws_path = "ws"
    """
    starts = [line.partition(": ")[0] for line in file.problems(text)]
    assert sorted(starts) == [
        "agents.bot.instances",
        "agents.bot.organization",
        "agents.bot.ws_path",
        "colour",
        "limits.close_timeout",
        "server.log_format",
        "server.log_level",
        "server.pumps",
    ]


def test_very_many_problems_are_counted(file: ConfigFile) -> None:
    lines = file.problems(SMALLEST + "".join(f"x{n} = 1\n" for n in range(60)))
    assert len(lines) == 51
    assert lines[-1] == "and 10 more problems"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[server]\npump = 1", 'server.pump: unknown key; did you mean "pumps"?'),
        ("[servers]", 'servers: unknown key; did you mean "server"?'),
        ("[store]\nx = 1", "store.x: unknown key, expected one of url"),
        ("[limits]\nmax_heads = 1", 'limits.max_heads: unknown key; did you mean "max_head"?'),
        ("[agents.bot]\n'a b' = 1", 'agents.bot."a b": unknown key, expected one of organization'),
        ("[organizations.acme]\npublic_key = 1", "organizations.acme.public_key: unknown key; did"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_one(
    file: ConfigFile, text: str, line: str
) -> None:
    assert any(found.startswith(line) for found in file.problems(text))


@pytest.mark.parametrize("name", list(key_types(LimitsTable)))
@pytest.mark.parametrize("value", ["0", "-1", "1e12", "nan", "inf", "'1'", "true"])
def test_limits_are_positive_and_have_a_maximum(file: ConfigFile, name: str, value: str) -> None:
    if value == "0" and name in MAY_BE_OFF:
        limits = file.load(f"limits.{name} = 0\n" + SMALLEST).limits
        assert getattr(limits, name) == 0
        return
    lines = file.problems(f"limits.{name} = {value}\n" + SMALLEST)
    assert lines[0].startswith(f"limits.{name}: found {value.replace(chr(39), chr(34))}"[:20])


def test_a_head_is_longer_than_its_target(file: ConfigFile) -> None:
    (line,) = file.problems("limits = {max_head = 4096, max_target = 4096}\n" + SMALLEST)
    assert line.startswith("limits.max_head: found 4096, expected more than max_target (4096)")


@pytest.mark.parametrize("key", ["max_session_duration", "attach_timeout"])
@pytest.mark.parametrize("value", ["0", "0.99", "-5", "nan", "1e9", "'30'"])
def test_durations_of_agents_are_a_second_or_more(file: ConfigFile, key: str, value: str) -> None:
    (line,) = file.problems(f"{SMALLEST}{key} = {value}")
    assert line.startswith(f"agents.bot.{key}: found")
    assert "expected a number of seconds from 1 to" in line
