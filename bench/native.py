"""The compiled programs: built on demand from bench/native, kept by the hash of their sources.

Why compiled: a generator in Python costs as much CPU per message as what it measures.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.children import ChildFailed

__all__ = ["PROGRAMS", "compiler", "library", "program"]

SOURCES = Path(__file__).resolve().parent / "native"
BUILD = Path(__file__).resolve().parent / ".build"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
BUILD_WAIT = 120.0  # seconds; a build takes less than two

PROGRAMS: dict[str, tuple[str, ...]] = {
    "awake": ("awake", "common"),
    "origin": ("origin", "answers", "http", "common"),
    "calls": ("calls", "channel", "channels", "ledger", "common"),
    "stream": ("stream", "channel", "channels", "ledger", "common"),
    "requests": ("requests", "answer", "http", "common"),
    "churn": ("churn", "caller", "http", "common"),
}


def compiler() -> str | None:
    """The path of the C compiler; None when there is none."""
    return shutil.which(os.environ.get("CC", "cc"))


def program(name: str) -> Path:
    """The path of one of PROGRAMS, built when its sources are new.

    Raises:
        ChildFailed: there is no compiler, or it failed; the text is for the user.
    """
    return _built(name, PROGRAMS[name], ())


def library(*sources: str) -> Path:
    """Some of the sources as a shared library, for tests. Raises ChildFailed."""
    return _built("lib" + "-".join(sources) + ".so", sources, ("-shared", "-fPIC"))


def _built(name: str, sources: tuple[str, ...], flags: tuple[str, ...]) -> Path:
    path = BUILD / _fingerprint() / name
    if path.exists():
        return path
    found = compiler()
    if found is None:
        raise ChildFailed("bench needs a C compiler: apt-get install gcc")
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in BUILD.iterdir():
        if other != path.parent:
            shutil.rmtree(other, ignore_errors=True)  # of sources that are no more
    # Built aside and moved, so that nobody ever runs half a program.
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        made = Path(directory) / name
        files = [str(SOURCES / f"{source}.c") for source in sources]
        command = [found, *FLAGS, *flags, "-o", str(made), *files]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_WAIT)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"the compiler took more than {BUILD_WAIT:.0f} s") from None
        if done.returncode:
            raise ChildFailed(f"the compiler failed on bench/native/{name}:\n{done.stderr}")
        made.replace(path)
    return path


def _fingerprint() -> str:
    """A short hash of all sources and flags."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
