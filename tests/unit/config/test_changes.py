"""Every setting either is named as changed or needs a restart; none is overlooked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from relay.config.changes import LASTING, SERVER, changes, check_reload
from relay.config.model import Config
from relay.errors import ConfigError
from tests.helpers.config_file import AGENT, ORGANIZATION, SMALLEST, ConfigFile

# These are compared by their contents; the last one follows from the others.
WHOLE = {"catalog", "limits", "traces", "bot_environment"}


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


def test_no_setting_is_overlooked() -> None:
    fields = {field.name for field in dataclasses.fields(Config)}
    assert fields == {*SERVER.values(), *LASTING.values(), *WHOLE}


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (SMALLEST, ()),
        (f"# nothing but words\n{SMALLEST}", ()),
        ('[server]\nbind = "127.0.0.1:9"\n' + SMALLEST, ("server.bind", "server.public_url")),
        ('[server]\nadmin_bind = "127.0.0.1:9"\n' + SMALLEST, ("server.admin_bind",)),
        (f'[server]\nadmin_token = "{"x" * 16}"\n' + SMALLEST, ("server.admin_token",)),
        ('[server]\npublic_url = "http://x"\n' + SMALLEST, ("server.public_url",)),
        ("[server]\npumps = 2\n" + SMALLEST, ("server.pumps",)),
        ('[server]\nlog_level = "debug"\n' + SMALLEST, ("server.log_level",)),
        ('[server]\nlog_format = "json"\n' + SMALLEST, ("server.log_format",)),
        ('[server]\ntrusted_proxies = ["10.0.0.0/8"]\n' + SMALLEST, ("server.trusted_proxies",)),
        ('[server]\ncors_origins = ["http://x"]\n' + SMALLEST, ("server.cors_origins",)),
        ("[limits]\nmax_waiting = 7\n" + SMALLEST, ("limits.max_waiting",)),
        (SMALLEST.replace("pk_public", "pk_other-"), ("organizations.acme",)),
        (SMALLEST + "settle_time = 1\n", ("agents.bot",)),
        (ORGANIZATION + AGENT.replace("agents.bot", "agents.new"), ("agents.bot", "agents.new")),
    ],
)
def test_changes(file: ConfigFile, text: str, changed: tuple[str, ...]) -> None:
    before, after = file.load(SMALLEST), file.load(text)
    assert changes(before, after) == changed
    assert sorted(changes(after, before)) == sorted(changed)
    check_reload(before, after)


def test_what_needs_a_restart(file: ConfigFile) -> None:
    before = file.load(SMALLEST)
    after = file.load('[server]\nruntime_dir = "x"\n[store]\nurl = "sqlite:y"\n' + SMALLEST)
    with pytest.raises(ConfigError) as refused:
        check_reload(before, after)
    here = file.directory
    assert str(refused.value).splitlines() == [
        f'store.url: found "sqlite:{here}/y",'
        f' but "sqlite:{here}/relay.db" is in force: restart needed',
        f'server.runtime_dir: found "{here}/x", but "{here}/relay.run" is in force: restart needed',
    ]


@pytest.mark.parametrize("more", ["", "ratio = 0.5\n", 'service_name = "x"\n'])
def test_traces_need_a_restart(file: ConfigFile, more: str) -> None:
    """What is in force, and what is wanted, is not shown: an address may hold a key."""
    with_traces = '[traces]\nendpoint = "http://127.0.0.1:4318/secret"\n' + more + SMALLEST
    before, after = file.load(SMALLEST), file.load(with_traces)
    check_reload(after, after)
    with pytest.raises(ConfigError, match=r"^traces: not as in force: restart needed$"):
        check_reload(before, after)
