"""Turns an organization's keys for webhooks into a `Webhook`."""

from __future__ import annotations

import binascii
from base64 import b64decode

from relay.config.reading import Problems
from relay.config.secret import Sources, check_secret, forms
from relay.config.tables import OrganizationTable
from relay.config.values import parse_webhook_url
from relay.policy.catalog import Webhook

__all__ = ["check_webhook"]

# Standard Webhooks, "Signature scheme": a prefix, then 24 to 64 random bytes in base64.
PREFIX = b"whsec_"
LEAST, MOST = 24, 64


def check_webhook(
    problems: Problems, where: str, table: OrganizationTable, sources: Sources
) -> Webhook | None:
    """The webhook of an organization; None when it has none, or a problem was added."""
    here = f"{where}.webhook_secret"
    text = check_secret(
        problems,
        here,
        sources,
        text=table.webhook_secret,
        variable=table.webhook_secret_env,
        file=table.webhook_secret_file,
    )
    wrong = any(problems.has(f"{here}{end}") for end in ("", "_env", "_file"))
    secret = None if text is None else _secret(problems, here, text)
    if table.webhook_url is None:
        if text is not None and not problems.has(f"{where}.webhook_url"):
            problems.add(f"{where}.webhook_url", "not given, expected it since there is a secret")
        return None
    url = None
    try:
        url = parse_webhook_url(table.webhook_url)
    except ValueError as error:
        problems.add(f"{where}.webhook_url", str(error))  # not shown: it may hold a key
    if text is None and not wrong:
        problems.add(here, f"not given, expected exactly one of {forms('webhook_secret')}")
    return None if url is None or secret is None else Webhook(url=url, secret=secret)


def _secret(problems: Problems, where: str, text: bytes) -> bytes | None:
    try:
        if not text.startswith(PREFIX):
            raise ValueError("no prefix")
        secret = b64decode(text.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        problems.add(where, "expected whsec_ and base64")
        return None
    if not LEAST <= len(secret) <= MOST:
        problems.add(where, f"found {len(secret)} bytes, expected {LEAST} to {MOST} in base64")
        return None
    return secret
