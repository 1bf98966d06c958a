"""The console: one page of its own files, read once, served by the administration."""

from __future__ import annotations

__all__ = ["console_files"]

from importlib import resources

KINDS = {
    "index.html": b"text/html; charset=utf-8",
    "console.css": b"text/css; charset=utf-8",
    "console.js": b"text/javascript; charset=utf-8",
}


def console_files() -> dict[str, tuple[bytes, bytes]]:
    """Content type and bytes by file name; the page also as ""."""
    folder = resources.files(__name__)
    files = {name: (kind, (folder / name).read_bytes()) for name, kind in KINDS.items()}
    return files | {"": files["index.html"]}
