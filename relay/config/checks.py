"""Turns decoded tables into the catalog: organizations with their keys, and agents.

Each function records what is wrong in `Problems` and goes on, so that one run
of `relay check` shows everything. Secrets are never shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from relay.config.agents import check_agent, check_instances_across
from relay.config.reading import Problems, describe, dotted, quoted, read_table
from relay.config.secret import Sources, check_secret, forms
from relay.config.tables import OrganizationTable, TokenKeyTable
from relay.config.webhooks import check_webhook
from relay.policy.catalog import ORGANIZATION_NAME, Catalog, Organization, TokenKey

__all__ = ["check_catalog"]

# HMAC-SHA256 wants a key as long as its output (RFC 2104 §3).
MIN_TOKEN_SECRET = 32
# A key that fits no dictionary: three characters of prefix and 13 of the caller's.
MIN_API_KEY = 16
MAX_API_KEY = 256
# Each request compares with every key of its organization, in constant time.
MAX_API_KEYS = 100
# Two during a rotation; a few more for slow ones.
MAX_TOKEN_KEYS = 16
# RFC 6750 §2.1: what a Bearer token may consist of.
KEY_TEXT = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# What a token can hold (docs/protocol.md, relay.policy.tokens).
TOKEN_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

ORGANIZATION_FORM = "1 to 64 lower-case letters, digits and inner hyphens"


def check_catalog(
    problems: Problems,
    organizations: Mapping[str, object],
    agents: Mapping[str, object],
    sources: Sources,
) -> Catalog:
    """The organizations and agents of a file; only complete when no problem was added."""
    known = {
        name: _organization(problems, name, raw, sources) for name, raw in organizations.items()
    }
    _check_keys_across(problems, known)
    served = {
        name: check_agent(problems, name, raw, known, sources) for name, raw in agents.items()
    }
    check_instances_across(problems, served)
    if not served and not problems.has("agents"):
        problems.add("agents", "none found, expected at least one table [agents.NAME]")
    return Catalog(organizations=known, agents=served)


def _organization(problems: Problems, name: str, raw: object, sources: Sources) -> Organization:
    where = dotted("organizations", name)
    if ORGANIZATION_NAME.fullmatch(name) is None:
        problems.add(where, f"not a name of an organization, expected {ORGANIZATION_FORM}")
    table = read_table(problems, where, raw, OrganizationTable)
    if not isinstance(raw, dict):
        return Organization(name=name, public_keys=(), private_keys=(), token_keys=())
    return Organization(
        name=name,
        public_keys=_api_keys(problems, where, "public_keys", table, sources),
        private_keys=_api_keys(problems, where, "private_keys", table, sources),
        token_keys=_token_keys(problems, f"{where}.token_keys", table, sources),
        max_sessions=table.max_sessions,
        webhook=check_webhook(problems, where, table, sources),
    )


def _api_keys(
    problems: Problems, parent: str, name: str, table: OrganizationTable, sources: Sources
) -> tuple[str, ...]:
    """The public or private keys: the list, or a text of several from elsewhere."""
    where = f"{parent}.{name}"
    listed: tuple[str, ...] | None = getattr(table, name)
    secret = check_secret(
        problems,
        where,
        sources,
        # A list counts as given; its text form is not used.
        text=None if listed is None else "",
        variable=getattr(table, f"{name}_env"),
        file=getattr(table, f"{name}_file"),
    )
    if listed is not None:
        keys = listed
    else:
        text = (secret or b"").decode("utf-8", "replace")
        keys = tuple(part for part in re.split(r"[,\s]+", text) if part)
    if len(keys) > MAX_API_KEYS:
        problems.add(where, f"found {len(keys)} keys, expected at most {MAX_API_KEYS}")
    prefix = "pk_" if name == "public_keys" else "sk_"
    for number, key in enumerate(keys):
        _check_api_key(problems, f"{where}[{number}]", key, prefix)
    return keys


def _check_api_key(problems: Problems, where: str, key: str, prefix: str) -> None:
    if not key.startswith(prefix):
        problems.add(where, f'expected a key that starts with "{prefix}"')
    elif not MIN_API_KEY <= len(key) <= MAX_API_KEY:
        problems.add(
            where,
            f"found {len(key)} characters, expected {MIN_API_KEY} to {MAX_API_KEY}"
            f' ("relay key new" makes one)',
        )
    elif KEY_TEXT.fullmatch(key) is None:
        problems.add(where, "expected only letters, digits and - . _ ~ + / in a key")


def _check_keys_across(problems: Problems, organizations: Mapping[str, Organization]) -> None:
    """A key is of one organization and of one kind, and stands there once."""
    owners: dict[str, str] = {}
    for name, organization in organizations.items():
        for kind in ("public_keys", "private_keys"):
            where = f"{dotted('organizations', name)}.{kind}"
            for number, key in enumerate(getattr(organization, kind)):
                here = f"{where}[{number}]"
                first = owners.setdefault(key, here)
                if first != here:
                    problems.add(here, f"the same key as {first}, expected each key once")


def _token_keys(
    problems: Problems, where: str, table: OrganizationTable, sources: Sources
) -> tuple[TokenKey, ...]:
    if not table.token_keys and not problems.has(where):
        problems.add(where, 'none found, expected at least one ("relay key new" makes one)')
    if len(table.token_keys) > MAX_TOKEN_KEYS:
        problems.add(where, f"found {len(table.token_keys)}, expected at most {MAX_TOKEN_KEYS}")
    keys: dict[str, TokenKey] = {}
    for number, raw in enumerate(table.token_keys):
        key = _token_key(problems, f"{where}[{number}]", raw, sources)
        if key.id and keys.setdefault(key.id, key) is not key:
            problems.add(
                f"{where}[{number}].id", f"found {quoted(key.id)} twice, expected each id once"
            )
    return tuple(keys.values())


def _token_key(problems: Problems, where: str, raw: object, sources: Sources) -> TokenKey:
    table = read_table(problems, where, raw, TokenKeyTable)
    if table.id is None:
        problems.add(f"{where}.id", 'not given, expected a short text such as "2026-11"')
    elif TOKEN_KEY_ID.fullmatch(table.id) is None:
        problems.add(
            f"{where}.id", f"found {describe(table.id)}, expected 1 to 64 letters, digits and . _ -"
        )
    here = f"{where}.secret"
    places = {"text": table.secret, "variable": table.secret_env, "file": table.secret_file}
    secret = check_secret(problems, here, sources, **places)
    wrong = any(problems.has(f"{here}{end}") for end in ("", "_env", "_file"))
    if secret is None and not wrong:
        problems.add(here, f"not given, expected exactly one of {forms('secret')}")
    elif secret is not None and len(secret) < MIN_TOKEN_SECRET:
        problems.add(here, f"found {len(secret)} bytes, expected at least {MIN_TOKEN_SECRET}")
    return TokenKey(id=table.id or "", secret=secret or b"")
