"""The command line: what each command prints, where errors go, which status it ends with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from relay import __version__
from relay.cli import main
from relay.policy import tokens
from tests.helpers.config_file import PUBLIC, SECRET, SMALLEST, ConfigFile

SESSION = "0b9c5c5e-6f0a-4d0e-9d53-0a5f0f4f8f11"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigFile:
    """A usable ./relay.toml."""
    file = ConfigFile(tmp_path)
    file.path.write_text(SMALLEST)
    monkeypatch.chdir(tmp_path)
    return file


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory without a configuration."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def errors(captured: Captured) -> list[str]:
    """The lines of stderr without `relay: `; nothing may stand on stdout."""
    out, err = captured.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines
    assert all(line.startswith("relay: ") for line in lines)
    return [line.removeprefix("relay: ") for line in lines]


# Usage


def test_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"relay {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["key"], ["token"], ["sessions"], ["check", "--nonsense"]]
    + [["serve", "--demo", "--config", "x"]]
    + [["token", "mint"], ["token", "mint", "bot", "--session", "x"]]
    + [["token", "mint", "bot", "--ttl", value] for value in ("0", "-1", "x", "86401", "1e3")]
    + [["sessions", "list", "--state", "x"], ["sessions", "list", "--limit", "0"]]
    + [["sessions", "show", "x"], ["sessions", "stop", ".."]],
)
def test_wrong_usage_is_status_2_with_a_hint(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 2
    assert errors(capsys)[-1].endswith("--help")


@pytest.mark.usefixtures("nowhere")
def test_serve_without_a_file_says_what_to_do(capsys: Captured) -> None:
    assert main(["serve"]) == 2
    (line,) = errors(capsys)
    assert line.startswith("no relay.toml in this directory;")
    assert "--config" in line
    assert "--demo" in line


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_named_file_that_is_missing(command: str, capsys: Captured) -> None:
    assert main([command, "--config", "other.toml"]) == 2
    assert errors(capsys) == ["other.toml: no such file"]


# check


@pytest.mark.parametrize("arguments", [[], ["--config", "relay.toml"]])
def test_check_shows_the_settings_in_force(
    config: ConfigFile, arguments: list[str], capsys: Captured
) -> None:
    assert main(["check", *arguments]) == 0
    shown = capsys.readouterr().out
    assert f'url = "sqlite:{config.directory}/relay.db"' in shown
    assert SECRET not in shown
    assert PUBLIC not in shown


def test_check_says_everything_that_is_wrong(config: ConfigFile, capsys: Captured) -> None:
    config.path.write_text("server = {pumps = 'two', bnd = 1}\n" + SMALLEST)
    assert main(["check"]) == 2
    assert errors(capsys) == [
        'relay.toml: server.pumps: found "two" (a string), expected an integer from 1 to 64',
        'relay.toml: server.bnd: unknown key; did you mean "bind"?',
    ]


# key


def test_new_keys_are_lines_of_a_configuration(config: ConfigFile, capsys: Captured) -> None:
    texts = []
    for _ in range(2):
        assert main(["key", "new"]) == 0
        texts.append(capsys.readouterr().out)
    first, second = (tomllib.loads(text) for text in texts)
    assert first.keys() == {"public_keys", "private_keys", "token_keys"}
    assert all(first[name] != second[name] for name in first)
    agent = SMALLEST[SMALLEST.index("[agents") :]
    acme = config.load(f"[organizations.acme]\n{texts[0]}{agent}").catalog.organizations["acme"]
    assert acme.public_keys[0].startswith("pk_")
    assert acme.private_keys[0].startswith("sk_")
    assert len(acme.token_keys[0].secret) >= 32


# token


def test_mint_prints_a_token_that_verifies(config: ConfigFile, capsys: Captured) -> None:
    assert main(["token", "mint", "bot", "--ttl", "60", "--session", SESSION.upper()]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"token", "wsUrl", "sessionId"}
    assert answer["wsUrl"] == "ws://127.0.0.1:8080/ws/generic/bot.acme"
    assert answer["sessionId"] == SESSION
    keys = config.load(SMALLEST).catalog.organizations["acme"].token_keys
    claims = tokens.verify(answer["token"], keys, "bot.acme", time.time())
    assert claims.session_id == SESSION
    assert time.time() < claims.expires <= time.time() + 60


@pytest.mark.usefixtures("config")
def test_mint_makes_a_new_session_each_time(capsys: Captured) -> None:
    sessions = set()
    for _ in range(2):
        assert main(["token", "mint", "bot"]) == 0
        sessions.add(json.loads(capsys.readouterr().out)["sessionId"])
    assert len(sessions) == 2


@pytest.mark.usefixtures("config")
def test_mint_for_an_unknown_agent(capsys: Captured) -> None:
    assert main(["token", "mint", "bott"]) == 2
    assert errors(capsys) == ['no agent "bott" in the configuration; did you mean "bot"?']


def test_mint_needs_a_public_url(config: ConfigFile, capsys: Captured) -> None:
    config.path.write_text("server.bind = '127.0.0.1:0'\n" + SMALLEST)
    assert main(["token", "mint", "bot"]) == 2
    (line,) = errors(capsys)
    assert line.startswith("server.public_url: not given")


def minted(capsys: Captured, *options: str) -> str:
    assert main(["token", "mint", "bot", *options]) == 0
    token = json.loads(capsys.readouterr().out)["token"]
    assert isinstance(token, str)
    return token


@pytest.mark.usefixtures("config")
def test_inspect_prints_the_claims(capsys: Captured) -> None:
    token = minted(capsys, "--session", SESSION)
    assert main(["token", "inspect", token]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["service_host"] == "bot.acme"
    assert found["session_id"] == SESSION
    assert found["expired"] is False
    assert "signature" not in found


@pytest.mark.usefixtures("config")
def test_inspect_reads_stdin(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(minted(capsys) + "\n"))
    assert main(["token", "inspect", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["service_host"] == "bot.acme"


def test_inspect_verifies_the_signature_of_expired_tokens_too(
    config: ConfigFile, capsys: Captured
) -> None:
    key = config.load(SMALLEST).catalog.organizations["acme"].token_keys[0]
    token = tokens.mint(tokens.Claims("bot.acme", SESSION, 1, "n", key.id), key)
    assert main(["token", "inspect", token, "--config", "relay.toml"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["expired"], found["signature"]) == (True, "right")


def test_inspect_says_what_is_wrong_with_a_signature(config: ConfigFile, capsys: Captured) -> None:
    token = minted(capsys)
    config.path.write_text(SMALLEST.replace(SECRET, SECRET[::-1]))
    assert main(["token", "inspect", token, "--config", "relay.toml"]) == 0
    assert json.loads(capsys.readouterr().out)["signature"].startswith("wrong: ")
    config.path.write_text(SMALLEST.replace("agents.bot", "agents.other"))
    assert main(["token", "inspect", token, "--config", "relay.toml"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["signature"] == "not verified: bot.acme is not in the configuration"


def test_inspect_refuses_what_is_no_token(capsys: Captured) -> None:
    assert main(["token", "inspect", "nonsense"]) == 1
    (line,) = errors(capsys)
    assert line.startswith("this is not a token of this service")


# As a process


def test_the_module_runs_and_does_not_load_the_daemon() -> None:
    code = "import sys, relay.cli; print('trio' in sys.modules); sys.exit(relay.cli.main())"
    ran = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, timeout=30
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"False\nrelay {__version__}\n", "")


def test_a_reader_that_left_is_no_traceback(config: ConfigFile) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "relay", "check", "--config", str(config.path)],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_output_without_unicode_is_escaped(config: ConfigFile) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "relay", "check", "--config", str(config.path)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=30,
    )
    assert ran.returncode == 0
    assert b'public_keys = ["pk_pu\\u2026"]' in ran.stdout
