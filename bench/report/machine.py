"""Where a run takes place and with what: the machine, the kernel, versions, the commit."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from bench.cores import allowed

__all__ = ["Facts", "describe", "here", "slug"]

ROOT = Path(__file__).resolve().parent.parent.parent
# Every library on the path of a byte or of a request, of the relay and of its peers.
PACKAGES = (
    *("relay", "trio", "h11", "wsproto", "msgspec", "structlog"),
    *("aiohttp", "uvloop", "websockets"),
)
# How each program tells its version; nginx does so on standard error.
PROGRAMS = {"nginx": ("-v",), "haproxy": ("-v",), "cc": ("--version",)}
# Debian keeps daemons where only root's PATH looks.
SEARCHED = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
VERSION = re.compile(r"\d+\.\d+[\w.+~-]*")
# What makes two commits' figures differ; a result that lies about makes no tree dirty.
MEASURED = ("relay", "bench", "pyproject.toml", ":!bench/results", ":!bench/README.md")
WAIT = 5.0


@dataclass(frozen=True, slots=True)
class Facts:
    """One run's circumstances; no host name and no path of the machine.

    Args:
        at: when it began, UTC, ISO 8601.
        machine: the architecture.
        load_average: of the last minute before the run.
        versions: of packages and programs; None for what is not there.
        commit: short, with `-dirty` behind it when files differ from it; "none" without git.
        command: what was typed.
    """

    at: str
    machine: str
    processor: str
    cores: int
    kernel: str
    load_average: float
    python: str
    versions: Mapping[str, str | None]
    commit: str
    command: str

    @property
    def fingerprint(self) -> dict[str, str | int]:
        """What has to be equal before two runs compare."""
        return {
            "processor": self.processor,
            "cores": self.cores,
            "kernel": self.kernel,
            "machine": self.machine,
        }


def here(arguments: Sequence[str]) -> Facts:
    """The facts of this machine, now."""
    return Facts(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=platform.machine(),
        processor=_processor(),
        cores=len(allowed()),
        kernel=platform.release(),
        load_average=round(os.getloadavg()[0], 2),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions={
            **{name: _package(name) for name in PACKAGES},
            **{name: _program(name, flags) for name, flags in PROGRAMS.items()},
        },
        commit=_commit(),
        command=shlex.join(["python", "-m", "bench", *_without_out(arguments)]),
    )


def slug(facts: Facts) -> str:
    """A short name for the kind of machine: x86_64-2c."""
    return f"{facts.machine}-{facts.cores}c"


def describe(facts: Facts) -> str:
    """One line for people."""
    cores = f"{facts.cores} core{'s' if facts.cores != 1 else ''}"
    return f"{facts.processor}, {facts.machine}, {cores}, Linux {facts.kernel}, {facts.python}"


def _without_out(arguments: Sequence[str]) -> list[str]:
    """The arguments without --out and its directory, which is a place of this machine."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != "--out" and not argument.startswith("--out="):
            kept.append(argument)
        skip = argument == "--out"
    return kept


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown processor")


def _package(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _program(name: str, flags: Sequence[str]) -> str | None:
    path = shutil.which(name, path=SEARCHED)
    said = None if path is None else _said([path, *flags])
    found = None if said is None else VERSION.search(said)
    return found.group() if found else None


def _commit() -> str:
    git = ["git", "-C", str(ROOT)]
    commit = _said([*git, "rev-parse", "--short", "HEAD"])
    if not commit:
        return "none"
    changed = _said([*git, "status", "--porcelain", "--", *MEASURED])
    return commit if changed == "" else f"{commit}-dirty"


def _said(command: Sequence[str]) -> str | None:
    """What a short command prints; None when it fails."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=WAIT
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
