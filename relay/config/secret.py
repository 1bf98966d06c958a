"""Secrets of the configuration: written down, in the environment, or in a file of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from relay.config.reading import Problems, quoted

__all__ = ["VARIABLE_NAME", "Sources", "check_secret", "forms"]

# Longer than any key needs to be; more is a wrong file.
MAX_SECRET = 4096
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where secrets may come from: the environment, and files relative to `base`.

    Attributes:
        used: the variables that were found to hold secrets, for the bots not to inherit.
    """

    environ: Mapping[str, str] = field(repr=False)
    base: Path
    used: set[str] = field(default_factory=set)


def check_secret(
    problems: Problems,
    where: str,
    sources: Sources,
    *,
    text: str | None,
    variable: str | None,
    file: str | None,
) -> bytes | None:
    """The bytes of the secret at a key path, from the one place that gives it.

    Args:
        where: the key path of the text form; the others end in `_env` and `_file`.
        text, variable, file: the values of the three keys, None for those not given.

    Returns:
        None when no place gives it, or when a problem was added.
    """
    given = [value for value in (text, variable, file) if value is not None]
    if len(given) > 1:
        name = where.rpartition(".")[2]
        problems.add(where, f"given {len(given)} times, expected only one of {forms(name)}")
        return None
    if variable is not None:
        return _from_environment(problems, f"{where}_env", variable, sources)
    if file is not None:
        return _from_file(problems, f"{where}_file", sources.base / file)
    return None if text is None else text.encode()


def forms(name: str) -> str:
    return f"{name}, {name}_env and {name}_file"


def _from_environment(
    problems: Problems, where: str, variable: str, sources: Sources
) -> bytes | None:
    if VARIABLE_NAME.fullmatch(variable) is None:
        # Not shown: the secret itself may stand here by mistake.
        problems.add(where, "expected the name of an environment variable")
        return None
    sources.used.add(variable)
    value = sources.environ.get(variable)
    if not value:
        state = "is not set" if value is None else "is empty"
        problems.add(where, f"the environment variable {variable} {state}, expected the secret")
        return None
    # The environment may hold bytes that are no UTF-8; they come back as they were.
    return value.encode("utf-8", "surrogateescape")


def _from_file(problems: Problems, where: str, path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        problems.add(where, f"cannot read {quoted(str(path))} ({reason})")
        return None
    if len(content) > MAX_SECRET:
        problems.add(where, f"expected a file of at most {MAX_SECRET} bytes")
        return None
    # Editors and `echo` end the last line.
    return content.rstrip(b"\r\n")
