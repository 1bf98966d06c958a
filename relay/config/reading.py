"""Decodes one TOML table into one struct, and collects everything that is wrong with it.

Law: a problem is one line, `KEY.PATH: found X, expected Y`, the first one per
key path stands, and values of secret keys are never shown. What could not be
read keeps its default, so that the rest of the file is still judged.
"""

from __future__ import annotations

import datetime
import difflib
import json
import re
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

import msgspec

from relay.errors import ConfigError

__all__ = ["Problems", "describe", "dotted", "key_types", "quoted", "read_table", "suggestion"]

Table = TypeVar("Table", bound=msgspec.Struct)
Value = TypeVar("Value")

# A found text is shown so far; longer ones are cut, since a line should fit a terminal.
MAX_SHOWN = 60
# More lines help nobody; the rest is counted.
MAX_PROBLEMS = 50
# Integers of TOML have 64 bits; longer ones are not worth printing.
MAX_SHOWN_INTEGER = 2**64
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Problems:
    """What is wrong with one file: at most one line for each key path, in the order found."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._lines: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, where: str, text: str) -> None:
        """Records a problem of a key path; a later one of the same path is dropped."""
        self._lines.setdefault(where, f"{self.source}: {where}: {text}")

    def has(self, where: str) -> bool:
        """Whether this key path, or an item of its list, was already found wrong."""
        return any(line == where or line.startswith(f"{where}[") for line in self._lines)

    def parse(self, where: str, text: str, parser: Callable[[str], Value]) -> Value | None:
        """What the parser makes of a text; None, and a problem, when it raises ValueError."""
        try:
            return parser(text)
        except ValueError as error:
            # A text with a user part may hold a password.
            self.add(where, str(error) if "@" in text else f"found {describe(text)}, {error}")
            return None

    def raise_if_any(self) -> None:
        """Raises ConfigError with every line, if there is one."""
        lines = list(self._lines.values())
        if len(lines) > MAX_PROBLEMS:
            more = len(lines) - MAX_PROBLEMS
            lines = [*lines[:MAX_PROBLEMS], f"{self.source}: and {more} more problems"]
        if lines:
            raise ConfigError("\n".join(lines))


def read_table(problems: Problems, where: str, raw: object, kind: type[Table]) -> Table:
    """The struct in a decoded TOML table; keys that cannot be used keep their defaults.

    Args:
        problems: takes a line for each unknown key and each value of a wrong type or range.
        where: the key path of the table, "" for the whole file.
        raw: what the TOML parser gave.
        kind: a struct of which every field has a default.
    """
    if not isinstance(raw, dict):
        # Not shown: a secret may stand where its table was expected.
        problems.add(where, f"found {type_name(raw)}, expected a table")
        return kind()
    hints = key_types(kind)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in hints:
            problems.add(dotted(where, key), f"unknown key{suggestion(key, hints)}")
            continue
        try:
            values[key] = msgspec.convert(value, hints[key], strict=True)
        except msgspec.ValidationError as error:
            _mismatch(problems, dotted(where, key), value, hints[key], str(error))
    return kind(**values)


def key_types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The keys of a table with their annotated types, in the order of the struct."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in kind.__struct_fields__}


def describe(value: object) -> str:
    """A value of the file for an error line: short, on one line, with its type."""
    if isinstance(value, bool):
        return f"{str(value).lower()} (a boolean)"
    if isinstance(value, int):
        small = abs(value) <= MAX_SHOWN_INTEGER
        return f"{value} (an integer)" if small else "a very large integer"
    if isinstance(value, float):
        return f"{value} (a float)"
    if isinstance(value, str):
        return f"{quoted(value)} (a string)"
    return type_name(value)


def quoted(text: str) -> str:
    """A text of the file in quotes: cut when long, control characters escaped."""
    cut = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def type_name(value: object) -> str:
    """The type of a value of the file, without the value."""
    names: tuple[tuple[type, str], ...] = (
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a float"),
        (str, "a string"),
        (list, "a list"),
        (dict, "a table"),
        (datetime.time, "a time"),
        (datetime.date, "a date"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "something else")


def dotted(where: str, key: str) -> str:
    """The path of a key in a table, the key quoted where TOML asks for it."""
    shown = key if BARE_KEY.fullmatch(key) else json.dumps(key[:MAX_SHOWN])
    return f"{where}.{shown}" if where else shown


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a line about an unknown name: the nearest known one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {quoted(near[0])}?"
    return f", expected one of {', '.join(names)}" if names else ""


def _mismatch(problems: Problems, where: str, value: object, hint: object, error: str) -> None:
    """One line for a value of a wrong type or range, at the item of a list if it is one."""
    expected = next((meta.description for meta in _metas(hint) if meta.description), "another type")
    item = re.fullmatch(r"Expected `(str|object)`.* - at `\$\[(\d+)\]`", error)
    if item and isinstance(value, list):
        where, value = f"{where}[{item[2]}]", value[int(item[2])]
        expected = "a string" if item[1] == "str" else "a table"
    found = type_name(value) if _is_secret(hint) else describe(value)
    problems.add(where, f"found {found}, expected {expected}")


def _is_secret(hint: object) -> bool:
    """Whether the values of a key must never be shown."""
    return any((meta.extra or {}).get("secret") for meta in _metas(hint))


def _metas(hint: object) -> list[msgspec.Meta]:
    """Every Meta in a type, outer ones first."""
    inner = [meta for part in typing.get_args(hint)[:1] for meta in _metas(part)]
    if typing.get_origin(hint) is Annotated:
        own = [part for part in typing.get_args(hint)[1:] if isinstance(part, msgspec.Meta)]
        return own + inner
    return inner
