"""Names that the code uses and the documentation must know: read from the source with `ast`.

A refusal's status and cause are often parameters of a small helper. `refusals` follows
them to every call of the helper, so that each pair is found as a caller meets it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CodeNames"]

ROOT = Path(__file__).parents[2]
# Helpers that hand a status or a cause on to other helpers; more would be hard to read.
DEPTH = 3
# The files that name what is in the runtime directory.
RUNTIME_CODE = ("relay/daemon.py", "relay/pump_processes.py", "relay/pump/process.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file of the package."""

    path: Path
    tree: ast.Module


class CodeNames:
    """What the package's source says; read once, nothing is imported."""

    def __init__(self, root: Path = ROOT / "relay") -> None:
        self.sources = [
            Source(path, ast.parse(path.read_text())) for path in sorted(root.rglob("*.py"))
        ]

    def refusals(self) -> set[tuple[int, str]]:
        """(status, cause) of every `Refusal(...)` that can be raised."""
        found: set[tuple[int, str]] = set()
        for source in self.sources:
            for call, function in _calls(source.tree, "Refusal"):
                status = _argument(call, ["status"], "status")
                cause = _argument(call, [], "cause")
                found |= {
                    (int(str(pair[0])), str(pair[1]))
                    for pair in self._values(source, function, (status, cause), DEPTH)
                }
        return found

    def _values(
        self, source: Source, function: Function | None, wanted: tuple[ast.expr, ...], depth: int
    ) -> set[tuple[object, ...]]:
        """The values of some expressions over all calls of the function that they stand in."""
        parameters = _parameters(function)
        used = {
            node.id
            for expression in wanted
            for node in ast.walk(expression)
            if isinstance(node, ast.Name) and node.id in parameters
        }
        if not used:
            table = _indexed(source.tree, function, wanted)
            return {tuple(_constant(expression, known) for expression in wanted) for known in table}
        assert function is not None, ast.dump(wanted[0])
        assert depth, f"{source.path}: {function.name} is called through too many helpers"
        names = sorted(used)
        found = set()
        for caller, call, outer in self._callers(source, function):
            arguments = tuple(_bound(call, function, name) for name in names)
            for values in self._values(caller, outer, arguments, depth - 1):
                known = dict(zip(names, values, strict=True))
                found.add(tuple(_constant(expression, known) for expression in wanted))
        assert found, f"{source.path}: {function.name} is never called"
        return found

    def _callers(
        self, source: Source, function: Function
    ) -> Iterator[tuple[Source, ast.Call, Function | None]]:
        private = function.name.startswith("_")
        for each in self.sources:
            if each is source or not private:
                for call, outer in _calls(each.tree, function.name):
                    yield each, call, outer

    def named_causes(self) -> set[str]:
        """Causes that a log line of an exchange gets without a refusal."""
        found = set()
        for source in self.sources:
            for node in ast.walk(source.tree):
                if isinstance(node, ast.Assign):
                    found |= set(_assigned(node, "cause"))
        return found

    def events(self) -> dict[str, tuple[str, set[str]]]:
        """Log events of the daemon: name -> (level, fields)."""
        levels = {"event": "info", "warning": "warning", "failure": "error"}
        found: dict[str, tuple[str, set[str]]] = {}
        for source in self.sources:
            for node in ast.walk(source.tree):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in levels
                    and node.args
                    and isinstance(node.args[0], ast.Constant)
                ):
                    level, fields = found.get(str(node.args[0].value), ("", set()))
                    level = levels[node.func.attr]
                    if level == "error":
                        fields = fields | {"error"}
                    fields = fields | {each.arg for each in node.keywords if each.arg}
                    found[str(node.args[0].value)] = (level, fields)
        return found

    def dict_keys(self, file: str, function: str) -> list[str]:
        """The constant keys of the first dictionary that a function of a file writes."""
        for node in ast.walk(self._tree(file)):
            if isinstance(node, Function) and node.name == function:
                for each in ast.walk(node):
                    if isinstance(each, ast.Dict):
                        return [
                            str(key.value) for key in each.keys if isinstance(key, ast.Constant)
                        ]
        raise AssertionError(f"{file} has no {function} with a dictionary")

    def runtime_files(self) -> set[str]:
        """Names of files made in the runtime directory, numbers as `N`."""
        return {
            _shown(node.right)
            for file in RUNTIME_CODE
            for node in ast.walk(self._tree(file))
            if isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Div)
            and isinstance(node.right, ast.Constant | ast.JoinedStr)
        }

    def files(self) -> set[str]:
        """Every file with code, relative to the project."""
        return {
            str(source.path.relative_to(ROOT))
            for source in self.sources
            if source.path.name != "__init__.py" or len(source.tree.body) > 1
        }

    def _tree(self, file: str) -> ast.Module:
        return next(each.tree for each in self.sources if each.path == ROOT / file)


def _calls(tree: ast.Module, name: str) -> Iterator[tuple[ast.Call, Function | None]]:
    """Calls of a plain name, each with the innermost function around it."""

    def visit(
        node: ast.AST, function: Function | None
    ) -> Iterator[tuple[ast.Call, Function | None]]:
        if isinstance(node, Function):
            function = node
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node, function
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return visit(tree, None)


def _indexed(
    tree: ast.Module, function: Function | None, wanted: tuple[ast.expr, ...]
) -> list[dict[str, object]]:
    """What a local variable may be that stands for the keys of a table of the module."""
    local = {each.id for each in wanted if isinstance(each, ast.Name)}
    if not local or function is None:
        return [{}]
    (name,) = local
    (table,) = {
        ast.unparse(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Subscript) and ast.unparse(node.slice) == name
    }
    (keys,) = [
        _keys(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == table
        and isinstance(node.value, ast.Dict)
    ]
    return [{name: key} for key in keys]


def _keys(table: ast.Dict) -> list[str]:
    return [str(key.value) for key in table.keys if isinstance(key, ast.Constant)]


def _parameters(function: Function | None) -> list[str]:
    if function is None:
        return []
    arguments = function.args
    return [each.arg for each in (*arguments.args, *arguments.kwonlyargs)]


def _argument(call: ast.Call, positions: list[str], name: str) -> ast.expr:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[positions.index(name)]


def _bound(call: ast.Call, function: Function, name: str) -> ast.expr:
    """What a call gives for a parameter, its default included."""
    positional = [each.arg for each in function.args.args]
    try:
        return _argument(call, positional, name)
    except (IndexError, ValueError):
        pass
    for parameter, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if parameter.arg == name and default is not None:
            return default
    defaults = function.args.defaults
    by_name = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    return by_name[name]


def _constant(expression: ast.expr, known: dict[str, object]) -> object:
    """The value of a constant, of a known name, or of an f-string of both."""
    if isinstance(expression, ast.Constant):
        return expression.value
    if isinstance(expression, ast.Name):
        return known[expression.id]
    assert isinstance(expression, ast.JoinedStr), ast.unparse(expression)
    return "".join(
        str(_constant(part.value if isinstance(part, ast.FormattedValue) else part, known))
        for part in expression.values
    )


def _assigned(node: ast.Assign, attribute: str) -> Iterator[str]:
    for target in node.targets:
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        for name, value in zip(names, values, strict=False):
            known = isinstance(name, ast.Attribute) and name.attr == attribute
            if known and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


def _shown(expression: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(expression, ast.Constant):
        return str(expression.value)
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "N" for part in expression.values
    )
