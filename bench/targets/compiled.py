"""The relay with its pump compiled: the wheel of `make compiled`, unpacked and kept by hash."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bench.children import ROOT, ChildFailed

__all__ = ["compiled_relay"]

KEPT = ROOT / "build" / "bench"
WHEELS = ROOT / "build" / "compiled"
BUILD_WAIT = 600.0  # seconds; about one minute
TAIL = 400  # characters of what a failed build said


def compiled_relay() -> Path:
    """The directory to import it from, built when the sources are new; that takes a minute.

    Raises:
        ChildFailed: it cannot be built here; the text says what is missing.
    """
    path = KEPT / _fingerprint()
    if path.exists():
        return path
    print("bench: compiling the relay's pump (once, about a minute)", file=sys.stderr)
    # With the environment that runs the bench, which has what the Makefile would install.
    command = ["make", "compiled", f"VENV={sys.prefix}"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_WAIT)
    except FileNotFoundError:
        raise ChildFailed("relay-compiled: make is not installed: apt-get install make") from None
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"relay-compiled: not built in {BUILD_WAIT:.0f} s") from None
    wheels = sorted(WHEELS.glob("*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr or done.stdout).strip()[-TAIL:]
        raise ChildFailed(f"relay-compiled: `make compiled` failed: {said}")
    KEPT.mkdir(parents=True, exist_ok=True)
    for other in KEPT.iterdir():
        shutil.rmtree(other, ignore_errors=True)  # of sources that are no more
    # Unpacked aside and moved, so that nobody ever imports half of it.
    with tempfile.TemporaryDirectory(dir=KEPT) as directory:
        made = Path(directory) / "relay"
        with zipfile.ZipFile(wheels[-1]) as wheel:
            wheel.extractall(made)
        if not list((made / "relay" / "pump").glob("*.so")):
            raise ChildFailed("relay-compiled: the wheel holds no compiled pump")
        made.replace(path)
    return path


def _fingerprint() -> str:
    """A short hash of all that goes into the wheel."""
    digest = hashlib.sha256(sys.version.encode())
    sources = [*ROOT.glob("relay/**/*.py"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    for path in sorted(sources):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
