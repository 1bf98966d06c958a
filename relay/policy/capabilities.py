"""What a bot says of itself at `/pcc/capabilities`: which transports it has.

The form is that of Pipecat Cloud's base image, 0.2.1 and later (docs/protocol.md, "What the
bot sees"). It is shown to operators; nothing is decided by it.
"""

from __future__ import annotations

__all__ = ["MAX_CAPABILITIES", "PATH", "Capability", "parse"]

import msgspec

PATH = "/pcc/capabilities"
# Bytes and entries: the base image's own bounds.
MAX_CAPABILITIES = 16 * 1024
MAX_ENTRIES = 64
VERSION = 1


class Capability(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry, such as `transport.websocket`; `value` is JSON of the bot's own."""

    available: bool
    reason: str | None = None
    value: msgspec.Raw = msgspec.Raw()


class _Report(msgspec.Struct, frozen=True):
    version: int
    capabilities: dict[str, Capability]


def parse(body: bytes) -> dict[str, Capability] | None:
    """The entries of an answer's body; None when it is not of the known form and version."""
    try:
        report = msgspec.json.decode(body, type=_Report)
    except (msgspec.MsgspecError, RecursionError):
        return None
    known = report.version == VERSION and len(report.capabilities) <= MAX_ENTRIES
    return report.capabilities if known and len(body) <= MAX_CAPABILITIES else None
