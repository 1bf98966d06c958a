"""Turns decoded tables into the catalog: secrets, organizations, agents, and what they name.

Each function records what is wrong in `Problems` and goes on, so that one run
of `relay check` shows everything. Secrets are never shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from relay.config.reading import Problems, describe, dotted, quoted, read_table, suggestion
from relay.config.tables import AgentTable, OrganizationTable, TokenKeyTable
from relay.config.values import parse_instance
from relay.policy.catalog import (
    AGENT_NAME,
    ORGANIZATION_NAME,
    Agent,
    Catalog,
    Organization,
    TokenKey,
)

__all__ = ["Sources", "check_catalog", "check_secret"]

# HMAC-SHA256 wants a key as long as its output (RFC 2104 §3).
MIN_TOKEN_SECRET = 32
# Longer than its block gains nothing; more is a wrong file.
MAX_SECRET = 4096
# A key that fits no dictionary: three characters of prefix and 13 of the caller's.
MIN_API_KEY = 16
MAX_API_KEY = 256
# Each request compares with every key of its organization, in constant time.
MAX_API_KEYS = 100
# Two during a rotation; a few more for slow ones.
MAX_TOKEN_KEYS = 16
# The body of /start and every URL that is made from it stay far below max_target.
MAX_PATH = 1024

# RFC 6750 §2.1: what a Bearer token may consist of.
KEY_TEXT = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# What a token can hold (docs/protocol.md, relay.policy.tokens).
TOKEN_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# RFC 3986 §3.3, without the escapes that a route never needs.
ROUTE = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")

# Keys of agents that later versions will have, and what to do until then.
LATER = {
    "command": "start the bots yourself and list them in instances",
    "min_agents": "every bot in instances is always kept",
    "max_agents": "the number of instances is the bound",
}
AGENT_FORM = "1 to 54 lower-case letters, digits and inner hyphens"
ORGANIZATION_FORM = "1 to 64 lower-case letters, digits and inner hyphens"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where secrets may come from: the environment, and files relative to `base`."""

    environ: Mapping[str, str] = field(repr=False)
    base: Path


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
    served = {name: _agent(problems, name, raw, known) for name, raw in agents.items()}
    _check_instances_across(problems, served)
    if not served and not problems.has("agents"):
        problems.add("agents", "none found, expected at least one table [agents.NAME]")
    return Catalog(organizations=known, agents=served)


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
        problems.add(where, f"given {len(given)} times, expected only one of {_forms(name)}")
        return None
    if variable is not None:
        return _from_environment(problems, f"{where}_env", variable, sources)
    if file is not None:
        return _from_file(problems, f"{where}_file", sources.base / file)
    return None if text is None else text.encode()


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
    forms = {"text": table.secret, "variable": table.secret_env, "file": table.secret_file}
    secret = check_secret(problems, here, sources, **forms)
    wrong = any(problems.has(f"{here}{end}") for end in ("", "_env", "_file"))
    if secret is None and not wrong:
        problems.add(here, f"not given, expected exactly one of {_forms('secret')}")
    elif secret is not None and len(secret) < MIN_TOKEN_SECRET:
        problems.add(here, f"found {len(secret)} bytes, expected at least {MIN_TOKEN_SECRET}")
    return TokenKey(id=table.id or "", secret=secret or b"")


def _from_environment(
    problems: Problems, where: str, variable: str, sources: Sources
) -> bytes | None:
    if VARIABLE_NAME.fullmatch(variable) is None:
        # Not shown: the secret itself may stand here by mistake.
        problems.add(where, "expected the name of an environment variable")
        return None
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


def _agent(
    problems: Problems, name: str, raw: object, organizations: Mapping[str, Organization]
) -> Agent:
    where = dotted("agents", name)
    if AGENT_NAME.fullmatch(name) is None:
        problems.add(where, f"not a name of an agent, expected {AGENT_FORM}")
    table = read_table(problems, where, raw, AgentTable)
    if isinstance(raw, dict):
        _check_agent(problems, where, table, organizations)
    return Agent(
        name=name,
        organization=table.organization or "",
        instances=_instances(problems, f"{where}.instances", table),
        websocket_auth=table.websocket_auth,
        sessions_per_instance=table.sessions_per_instance,
        max_session_duration=table.max_session_duration,
        attach_timeout=table.attach_timeout,
        ws_path=table.ws_path,
        ready_path=table.ready_path,
        settle_time=table.settle_time,
        stopping_time=table.stopping_time,
    )


def _check_agent(
    problems: Problems, where: str, table: AgentTable, organizations: Mapping[str, Organization]
) -> None:
    name = table.organization
    if name is None:
        problems.add(f"{where}.organization", "not given, expected the name of an organization")
    elif name not in organizations:
        near = suggestion(name, organizations)
        problems.add(f"{where}.organization", f"no such organization: {quoted(name)}{near}")
    if table.relay == "frames":
        problems.add(f"{where}.relay", '"frames" is not available in this version; use "tunnel"')
    for key, instead in LATER.items():
        if getattr(table, key) is not None:
            problems.add(f"{where}.{key}", f"not available in this version; {instead}")
    here = f"{where}.instances"
    if table.instances is not None and table.command is not None:
        problems.add(here, "given together with command, expected exactly one of the two")
    elif not table.instances and table.command is None and not problems.has(here):
        problems.add(here, 'no bot given, expected a list such as ["http://127.0.0.1:7860"]')
    _check_route(problems, f"{where}.ws_path", table.ws_path)
    _check_route(problems, f"{where}.ready_path", table.ready_path)


def _instances(problems: Problems, where: str, table: AgentTable) -> tuple[str, ...]:
    urls = (
        problems.parse(f"{where}[{number}]", text, parse_instance)
        for number, text in enumerate(table.instances or ())
    )
    # A place is kept for what could not be read, so that numbers stay those of the file.
    return tuple(url or "" for url in urls)


def _check_instances_across(problems: Problems, agents: Mapping[str, Agent]) -> None:
    """One bot is listed once: two agents would give it two sessions at a time."""
    owners: dict[str, str] = {}
    for name, agent in agents.items():
        for number, url in enumerate(agent.instances):
            here = f"{dotted('agents', name)}.instances[{number}]"
            first = owners.setdefault(url, here) if url else here
            if first != here:
                problems.add(here, f"the same bot as {first}, expected each bot once")


def _check_route(problems: Problems, where: str, route: str) -> None:
    if ROUTE.fullmatch(route) is None or len(route) > MAX_PATH:
        problems.add(
            where, f'found {describe(route)}, expected a path such as "/ws", without query'
        )


def _forms(name: str) -> str:
    return f"{name}, {name}_env and {name}_file"
