"""The documentation and the code name the same things; tables are read, prose is not."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.cli import parser
from relay.config import load
from relay.config.tables import AgentTable, LimitsTable, ServerTable, TlsTable
from relay.policy.interfaces import Store
from relay.policy.routes import ADMIN, PUBLIC, Pattern
from relay.policy.sessions import END_STATES, MOVES, SessionState
from relay.policy.webhooks import Outcome
from relay.protocol.lifecycle import ENDINGS, Event
from relay.pump import channel
from relay.server.exchange import Phase
from relay.server.handshakes import CAUSES
from relay.server.private_api import FILTERS, NOT_OFFERED
from tests.helpers.code_names import CodeNames

ROOT = Path(__file__).parent.parent
CONFIGURED = (
    "README.md",
    "docs/configuration.md",
    "docs/from-pipecat-cloud.md",
    "docs/local-twin.md",
)
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = CodeNames()

# What a reader has to replace: long enough for every secret, and of its alphabet.
FILLER = "0123456789abcdef0123456789abcdef"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")
# [name]: target, once for a page, where several places of it link to the same.
DEFINED = re.compile(r"^\[[^\]]+\]: ([^\s#]+)()$", re.MULTILINE)
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|usr|opt|mnt)/")

Row = dict[str, str]


def page(name: str) -> str:
    return (ROOT / name).read_text()


def tables(text: str) -> Iterator[list[Row]]:
    """Every table of a page, its rows by the words of its head."""
    lines: list[list[str]] = []
    for line in [*FENCE.sub("", text).splitlines(), ""]:
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip("|").split("|")])
        elif lines:
            head, _rule, *rows = lines
            yield [dict(zip(head, row, strict=True)) for row in rows]
            lines = []


def rows(name: str, *columns: str) -> list[Row]:
    """The rows of every table of a page that has these columns."""
    found = [
        row for table in tables(page(name)) for row in table if table and set(columns) <= set(row)
    ]
    assert found, f"{name} has no table with the columns {columns}"
    return found


def named(cell: str) -> str:
    """The one name in code quotes in a cell."""
    (name,) = re.findall(r"`([^`]+)`", cell)
    return str(name)


def names(name: str, column: str) -> list[str]:
    return [each for row in rows(name, column) for each in re.findall(r"`([^`]+)`", row[column])]


def test_refusals() -> None:
    documented = {
        (int(row["status"]), named(row["cause"]))
        for name in ("docs/protocol.md", "docs/http.md")
        for row in rows(name, "status", "cause")
    }
    assert documented == CODE.refusals()


def test_failed_handshakes() -> None:
    assert names("docs/http.md", "handshake cause") == list(CAUSES)


def test_the_phases_are_the_headings_of_the_errors() -> None:
    in_http = re.findall(r"^### (\w+)$", page("docs/http.md"), re.MULTILINE)
    in_protocol = re.findall(r"^### Errors of (\w+)", page("docs/protocol.md"), re.MULTILINE)
    phases = [phase.value for phase in Phase]
    assert in_http == ["accept", "parse", "authenticate"]
    assert in_protocol == ["route", "authenticate", "resolve", "relay", "any"]
    # Nothing is refused in the last one.
    assert {*in_http, *in_protocol} == {*phases[:-1], "any"}
    assert [row["phase"] for row in rows("docs/architecture.md", "phase")] == phases


def test_session_causes() -> None:
    documented = {
        named(row["session cause"]): (named(row["endState"]), named(row["completionStatus"]))
        for row in rows("docs/protocol.md", "session cause")
    }
    assert documented == END_STATES


def test_closing() -> None:
    def code(cell: str) -> int | None:
        return int(cell) if cell.isdigit() else None

    documented = {
        (
            named(row["cause"]),
            code(row["Close to the client"]),
            code(row["Close to the bot"]),
            row["reason"].strip("`"),
        )
        for row in rows("docs/protocol.md", "Close to the client")
    }
    assert documented == {
        (each.cause, each.to_downstream, each.to_upstream, each.reason) for each in ENDINGS.values()
    }
    # One is the end of side tunnels only, never of a session.
    side_tunnels = {ENDINGS[Event.SESSION_ENDED].cause}
    assert {cause for cause, *_ in documented} - side_tunnels <= set(END_STATES)


def test_session_states_and_moves() -> None:
    assert names("docs/protocol.md", "state") == [state.value for state in SessionState]
    documented = {
        (named(row["from"]), row["move"]): named(row["to"])
        for row in rows("docs/protocol.md", "from", "move", "to")
    }
    assert documented == {
        (state.value, by.value): after.value for (state, by), after in MOVES.items()
    }


@pytest.mark.parametrize("name", ["docs/protocol.md", "docs/operations.md"])
def test_routes(name: str) -> None:
    def shown(pattern: Pattern) -> tuple[str, str]:
        methods = b", ".join(pattern.methods).decode() or "GET"
        rest = ("{path...}",) if pattern.takes_rest else ()
        return methods, "/" + "/".join(pattern.segments + rest)

    known = {shown(pattern) for pattern in (*PUBLIC, *ADMIN)}
    documented = {(row["method"], named(row["path"])) for row in rows(name, "method", "path")}
    if name == "docs/protocol.md":
        assert documented == known
    else:
        assert documented <= known


def test_outcomes_of_webhooks() -> None:
    assert names("docs/operations.md", "webhook outcome") == [each.value for each in Outcome]


def test_log_events() -> None:
    documented = {
        named(row["event"]): (row["level"], set(re.findall(r"`(\w+)`", row["further fields"])))
        for row in rows("docs/operations.md", "event", "level")
    }
    events = CODE.events() | {"exchange": ("info", set()), "session": ("info", set())}
    assert set(documented) == set(events)
    for name, (level, fields) in events.items():
        assert documented[name][0].startswith(level), name
        # The log itself adds the traceback of what it does not know.
        assert documented[name][1] - {"exception"} == fields, name


def test_fields_of_log_lines() -> None:
    timed = [f"{phase.value}_ms" for phase in Phase if phase not in (Phase.ACCEPT, Phase.CLOSE)]
    keys = CODE.dict_keys("relay/server/exchange.py", "record")
    assert names("docs/operations.md", "exchange field") == keys + timed
    keys = CODE.dict_keys("relay/ops/log.py", "session_end")
    assert names("docs/operations.md", "session field") == keys
    causes = names("docs/operations.md", "further cause")
    assert set(causes) == CODE.named_causes()


def test_members_of_answers() -> None:
    keys = CODE.dict_keys("relay/server/replies.py", "error_body")
    assert [named(row["error member"]) for row in rows("docs/protocol.md", "error member")] == keys
    figures = list(channel.Figures.__struct_fields__)
    assert names("docs/protocol.md", "figure") == figures
    for column, function in (
        ("record member", "session_record"),
        ("state member", "service_status"),
    ):
        keys = CODE.dict_keys("relay/policy/records.py", function)
        assert [named(row[column]) for row in rows("docs/protocol.md", column)] == keys
    filters = [named(row["sessions filter"]) for row in rows("docs/protocol.md", "sessions filter")]
    assert [*filters, *NOT_OFFERED] == list(FILTERS)
    record = CODE.dict_keys("relay/server/admin.py", "session_record")
    example = re.search(r'^\{"sessionId".*"figures".*\}$', page("docs/protocol.md"), re.MULTILINE)
    assert example is not None
    assert set(record) == set(json.loads(example[0]))


def test_runtime_files() -> None:
    documented = {named(row["file"]) for row in rows("docs/operations.md", "file", "what it is")}
    assert documented == CODE.runtime_files()


def test_messages_to_and_from_pumps() -> None:
    documented = {
        (named(row["message"]), row["direction"])
        for row in rows("docs/architecture.md", "message", "direction")
    }
    known = {(each.__name__, "to the pump") for each in channel.ToPump.__args__}
    known |= {(each.__name__, "to the control process") for each in channel.ToControl.__args__}
    assert documented == known


def test_calls_of_the_store() -> None:
    known = {name for name in vars(Store) if not name.startswith("_")}
    assert set(names("docs/architecture.md", "call")) == known


def test_files() -> None:
    listed = [named(row["file"]) for row in rows("docs/architecture.md", "file", "what")]
    assert len(listed) == len(set(listed))
    assert set(listed) | {"relay/pump/__init__.py"} == CODE.files() | {"relay/pump/__init__.py"}
    for row in rows("docs/architecture.md", "part"):
        assert (ROOT / named(row["part"])).exists(), row


@pytest.mark.parametrize("name", ["docs/protocol.md", "docs/http.md"])
def test_fixed_limits(name: str) -> None:
    for row in rows(name, "value", "constant"):
        module, _, constant = named(row["constant"]).rpartition(".")
        assert float(row["value"]) == getattr(importlib.import_module(module), constant), row


def test_the_threat_model() -> None:
    """Every attack has a test that exists, and limits that do."""
    known = {
        key
        for table in (ServerTable, TlsTable, LimitsTable, AgentTable)
        for key in table.__struct_fields__
    }
    for row in rows("docs/threat-model.md", "attack", "limit", "test"):
        shown = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row["test"])
        assert shown, row
        for file, test in shown:
            assert re.search(rf"^(async )?def {test}\(", page(file), re.MULTILINE), (file, test)
        for name in re.findall(r"`([\w.]+)`", row["limit"]):
            module, _, constant = name.rpartition(".")
            if module:
                assert hasattr(importlib.import_module(module), constant), name
            elif name != "localhost":
                assert name in known, name


def commands(root: argparse.ArgumentParser) -> dict[str, set[str]]:
    """Every command with its options."""
    options = {each for action in root._actions for each in action.option_strings}
    found = {root.prog: options}
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found |= commands(child)
    return found


def used_commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """`relay …` in code of a page: the command's words, then its options."""
    fenced = [
        line for kind, block in FENCE.findall(text) if kind == "sh" for line in block.splitlines()
    ]
    for code in [*re.findall(r"`([^`\n]+)`", FENCE.sub("", text)), *fenced]:
        found = re.match(r"(?:\S*python3? -m |\S*/bin/)?relay((?: .*)?)$", code.split("  #")[0])
        if found is None:
            continue
        words = shlex.split(found[1])
        start = next((i for i, word in enumerate(words) if not re.fullmatch("[a-z]+", word)), None)
        command = " ".join(["relay", *words[:start]])
        yield command, [word for word in words if word.startswith("--")]


def test_commands() -> None:
    known = commands(parser())
    leaves = {each for each in known if not any(other.startswith(each + " ") for other in known)}
    assert {named(row["command"]) for row in rows("docs/operations.md", "command")} == leaves
    used = set[str]()
    for path in PAGES:
        for command, options in used_commands(path.read_text()):
            assert command in known, (path.name, command)
            assert set(options) <= known[command], (path.name, command, options)
            used.add(command)
    assert used >= {"relay serve", "relay key new", "relay sessions list"}


def test_make_targets() -> None:
    makefile, used = page("Makefile"), set[str]()
    for path in PAGES:
        for target in re.findall(r"\bmake ([a-z]+)\b", "\n".join(code_of(path.read_text()))):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (path.name, target)
            used.add(target)
    assert used >= {"run", "test", "bench"}


def code_of(text: str) -> list[str]:
    return [block for _, block in FENCE.findall(text)] + re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("path", [ROOT / name for name in CONFIGURED], ids=str)
def test_configurations_load(path: Path, tmp_path: Path) -> None:
    blocks = [block for kind, block in FENCE.findall(path.read_text()) if kind == "toml"]
    assert blocks
    for block in blocks:
        file = tmp_path / "relay.toml"
        file.write_text(block.replace("…", FILLER))
        (agent,) = load(file, {}).catalog.agents.values()
        assert agent.service_host == "my-agent.acme"
        # As it stands it must not run: anybody can read its keys.
        file.write_text(block)
        with pytest.raises(Exception, match="organizations"):
            load(file, {})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_resolve(path: Path) -> None:
    text = FENCE.sub("", path.read_text())
    for target, anchor in [*LINK.findall(text), *DEFINED.findall(text)]:
        if target.startswith(("http://", "https://")):
            continue
        file = path.parent / target if target else path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", file.read_text()), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
            assert anchor in slugs, (target, anchor)


def test_sections_that_the_code_refers_to() -> None:
    pattern = r'docs/(\w+\.md), "(\w+)"'
    found = {each for one in CODE.sources for each in re.findall(pattern, one.path.read_text())}
    assert found
    for name, section in found:
        assert re.search(rf"^#+ {section}$", page(f"docs/{name}"), re.MULTILINE), section


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_path_of_a_machine(path: Path) -> None:
    assert MACHINE_PATH.search(path.read_text()) is None
