"""The layers, the forbidden modules and the size budgets of docs/architecture.md, enforced."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "relay"
FILES = sorted(path for path in ROOT.rglob("*.py"))

# Which part of the package a module belongs to, by the longest prefix that fits.
PARTS = {
    "relay": "version",
    "relay.__main__": "cli",
    "relay.chores": "daemon",
    "relay.cli": "cli",
    "relay.cli_admin": "cli",
    "relay.cli_orders": "cli",
    "relay.cli_sessions": "cli",
    "relay.cli_upgrade": "cli",
    "relay.cli_views": "cli",
    "relay.config": "config",
    "relay.daemon": "daemon",
    "relay.demo": "demo",
    "relay.endings": "daemon",
    "relay.errors": "errors",
    "relay.handlers": "daemon",
    "relay.instances": "instances",
    "relay.ops": "ops",
    "relay.policy": "policy",
    "relay.predecessor": "daemon",
    "relay.policy.tokens": "tokens",
    "relay.policy.catalog": "catalog",
    "relay.protocol": "protocol",
    "relay.protocol.frame_headers": "tunnel rules",
    "relay.protocol.frames": "tunnel rules",
    "relay.protocol.lifecycle": "tunnel rules",
    "relay.pump": "pump",
    "relay.pump.channel": "channel",
    "relay.pump_processes": "daemon",
    "relay.reloading": "daemon",
    "relay.server": "server",
    "relay.sockets": "daemon",
    "relay.store": "store",
    "relay.takeover": "daemon",
    "relay.tls": "tls",
}

# Arrows point down only; a part may always import itself and `errors`.
POLICY = {"policy", "tokens", "catalog"}
PROTOCOL = {"protocol", "tunnel rules"}
ARROWS = {
    "cli": {"config", "daemon", "demo", "tokens", "catalog", "version"},
    "demo": {"config", "daemon", "ops"},
    "daemon": {"config", "server", "instances", "store", "ops", "pump", "channel", "tls", "version"}
    | POLICY,
    "config": {"catalog", "tls", *PROTOCOL},
    "server": {"channel", "tls"} | POLICY | PROTOCOL,
    "instances": {"tls"} | POLICY | PROTOCOL,
    "store": POLICY | PROTOCOL,
    "ops": POLICY | PROTOCOL,
    "policy": POLICY | PROTOCOL,
    "tokens": POLICY | PROTOCOL,
    "catalog": set(),
    "pump": {"channel", "tunnel rules"},
    "channel": set(),
    "protocol": PROTOCOL,
    "tunnel rules": set(),
    "errors": set(),
    "tls": set(),
    "version": set(),
}

PURE = {"protocol", "tunnel rules", "policy", "tokens", "catalog"}
IMPURE_MODULES = {
    "asyncio", "logging", "os", "pathlib", "random", "secrets", "select", "selectors",
    "signal", "socket", "subprocess", "threading", "time", "trio",
}  # fmt: skip
# Where a module with sharp edges may be used at all.
ONLY_IN = {
    "select": {"relay.pump.poller"},
    "selectors": {"relay.pump.poller"},
    "hmac": {"relay.policy.signing"},
    "httpx": {"relay.server.webhook_client"},
    "opentelemetry": {"relay.ops.otlp"},
    "signal": {"relay.daemon", "relay.demo", "relay.instances.process", "relay.pump.process"},
    "subprocess": {"relay.instances.process", "relay.pump_processes", "relay.takeover"},
    "sqlite3": {
        "relay.store.bodies",
        "relay.store.callers",
        "relay.store.database",
        "relay.store.ends",
        "relay.store.neighbours",
        "relay.store.outbox",
        "relay.store.places",
        "relay.store.schema",
        "relay.store.sqlite",
    },
    "asyncio": set[str](),
}

MAX_FILE = 350
MAX_FUNCTION = 60
USUAL_FUNCTION = 30
USUAL_SHARE = 0.9


def name_of(path: Path) -> str:
    parts = ["relay", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    while module not in PARTS:
        module = module.rpartition(".")[0]
    return PARTS[module]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, type-checking blocks included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                is_module = (
                    full in PARTS or (ROOT.parent / (full.replace(".", "/") + ".py")).exists()
                )
                yield full if is_module and module.startswith("relay") else module


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_arrows_point_down(path: Path) -> None:
    own = part_of(name_of(path))
    allowed = ARROWS[own] | {own, "errors"}
    for module in imports(path):
        if module.partition(".")[0] == "relay":
            assert part_of(module) in allowed, f"{name_of(path)} ({own}) imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_modules_with_sharp_edges_stay_where_they_belong(path: Path) -> None:
    name = name_of(path)
    for module in {module.partition(".")[0] for module in imports(path)}:
        if part_of(name) in PURE:
            assert module not in IMPURE_MODULES, f"{name} is pure and imports {module}"
        assert name in ONLY_IN.get(module, {name}), f"{name} imports {module}"


def test_descriptors_travel_in_the_channel_only() -> None:
    words = ("recv_fds", "send_fds", "SCM_RIGHTS", "splice")
    users = {name_of(path) for path in FILES for word in words if f"{word}(" in path.read_text()}
    assert users <= {"relay.pump.channel"}


def test_every_module_belongs_to_a_part_that_exists() -> None:
    names = {name_of(path) for path in FILES}
    assert set(PARTS) <= names, "PARTS names a module that is gone"
    assert {part_of(name) for name in names} == set(ARROWS)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function with its length in lines, its docstring not counted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = node.body[0] if ast.get_docstring(node) else None
            length = (node.end_lineno or 0) - node.lineno + 1
            if doc is not None:
                length -= (doc.end_lineno or 0) - doc.lineno + 1
            yield f"{name_of(path)}.{node.name}", length


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE


def test_functions_are_short() -> None:
    lengths = dict(pair for path in FILES for pair in functions(path))
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION} == {}
    usual = sum(length <= USUAL_FUNCTION for length in lengths.values())
    assert usual >= USUAL_SHARE * len(lengths)


def test_public_modules_have_a_docstring_and_say_what_they_export() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        public = [
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
        ]
        if public and path.name not in ("__init__.py", "__main__.py"):
            assert "__all__" in path.read_text(), path


def test_the_oldest_python_supported_is_the_oldest_syntax() -> None:
    assert sys.version_info >= (3, 11)
    for path in FILES:
        ast.parse(path.read_text(), feature_version=(3, 11))
