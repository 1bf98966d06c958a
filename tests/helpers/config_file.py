"""A configuration file in a directory of its own, and the texts that tests fill it with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from relay.config import Config, load
from relay.errors import ConfigError

__all__ = ["AGENT", "ORGANIZATION", "PRIVATE", "PUBLIC", "SECRET", "SMALLEST", "ConfigFile"]

SECRET = "0123456789abcdef0123456789abcdef"
PUBLIC = "pk_public-key-of-acme"
PRIVATE = "sk_private-key-of-acme"
ORGANIZATION = f"""
[organizations.acme]
public_keys = ["{PUBLIC}"]
private_keys = ["{PRIVATE}"]
token_keys = [{{ id = "2026-11", secret = "{SECRET}" }}]
"""
AGENT = """
[agents.bot]
organization = "acme"
instances = ["http://127.0.0.1:7860"]
"""
SMALLEST = ORGANIZATION + AGENT


class ConfigFile:
    """`relay.toml` in a directory, and how to read it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "relay.toml"

    def load(self, text: str, environ: Mapping[str, str] | None = None) -> Config:
        """What the file gives when it holds this text."""
        self.path.write_text(text, encoding="utf-8")
        return load(self.path, environ or {})

    def problems(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """The lines with which this text is refused, without the file's name."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, environ)
        lines = str(caught.value).splitlines()
        assert all(line.startswith(f"{self.path}: ") for line in lines)
        return [line.removeprefix(f"{self.path}: ") for line in lines]
